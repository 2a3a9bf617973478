"""One OCSP question and its answer (RFC 6960), as pure functions: no database, no clock, no wire.

In order: is the request one that can be answered (``Question.parse``) → does it ask about this CA
(``IssuerHashes``) → what is its certificate's status by what the issuer knows (``decide``) → the
signed answer (``sign_answer``).

``good`` is said of what was recorded as released and is not on the CRL, and of nothing else. A
serial number that this CA never released is ``unknown``: the issuer knows all that it released, so
it can say so, and under its signature; an ``unauthorized`` anybody on the way could write. Of an
expired certificate the issuer may have forgotten that it was revoked, so nothing is said of it any
more: ``unauthorized`` (RFC 5019 §2.2.3), as of another CA's.

Done by the library, which knows one certificate in a request and in an answer, as RFC 5019 §2.1.1
has it, and does not show the extensions of a single request: those are looked at here.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.ocsp import OCSPCertStatus, OCSPResponseStatus

from accredit_credentials import der
from accredit_credentials.errors import InvalidCertificate
from accredit_credentials.leaf_lint import MAX_SERIAL_OCTETS
from accredit_issuer.errors import IssuerError

# Bytes. One CertID, a nonce and a few extensions are less than half of it; what is larger is a
# signed request, which RFC 5019 §2.1.2 forbids clients to send, or an attack.
MAX_REQUEST = 1024
MAX_NONCE = 128  # octets (RFC 9654 §2.1)

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303 (a key to look up by, see CertId)
    "sha256": hashes.SHA256(),
}
_FIRST, _SECOND = 0xA0, 0xA1  # context tags [0] and [1]


class NotAnswered(IssuerError):
    """A request that gets no status: ``status`` is what is answered (RFC 6960 §2.3)."""

    def __init__(self, status: OCSPResponseStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class CertId:
    """How a request names a certificate (RFC 6960 §4.1.1).

    SHA-1 is a key to look a CA up by and protects nothing: the hashes of our own CAs are compared,
    and a CA that somebody makes to collide with one is still not one of ours. OpenSSL and many
    others send nothing else.
    """

    algorithm: str
    issuer_name: bytes = field(repr=False)
    issuer_key: bytes = field(repr=False)
    serial: int


@dataclass(frozen=True, slots=True)
class Question:
    """What a client asks: about one certificate, perhaps with a nonce to find again."""

    asked: CertId
    nonce: bytes | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, unverified: bytes) -> Self:
        """Read a request, DER.

        Raises:
            NotAnswered: not a request; several certificates; a critical extension that is not
                known; a nonce of another length than RFC 9654 allows (malformedRequest). Or a
                CertID with a hash that no CA of ours is known by (unauthorized).
        """
        if len(unverified) > MAX_REQUEST:
            raise _malformed(f"a request has at most {MAX_REQUEST} bytes")
        try:
            request = ocsp.load_der_ocsp_request(unverified)
            nonce = _nonce(request.extensions)
            _check_single(unverified)
        except NotImplementedError:
            raise _malformed("a request asks about one certificate") from None
        except (ValueError, TypeError, x509.DuplicateExtension, InvalidCertificate):
            raise _malformed("not an OCSP request") from None
        if not 0 < request.serial_number < 1 << (8 * MAX_SERIAL_OCTETS - 1):
            raise _malformed("no certificate has this serial number (RFC 5280 §4.1.2.2)")
        return cls(
            CertId(
                _algorithm(request),
                request.issuer_name_hash,
                request.issuer_key_hash,
                request.serial_number,
            ),
            nonce,
        )


@dataclass(frozen=True, slots=True)
class IssuerHashes:
    """What CertIDs name one CA by: hashes of its name and of its key's bits."""

    by_algorithm: tuple[tuple[str, bytes, bytes], ...] = field(repr=False)

    @classmethod
    def of(cls, ca: x509.Certificate) -> Self:
        """Those of a CA."""
        name = ca.subject.public_bytes()
        key = _key_bits(ca)
        return cls(tuple((each, _digest(each, name), _digest(each, key)) for each in _HASHES))

    def check(self, asked: CertId) -> None:
        """Decide whether a CertID names this CA.

        Raises:
            NotAnswered: another one.
        """
        if (asked.algorithm, asked.issuer_name, asked.issuer_key) not in self.by_algorithm:
            raise unauthorized("the certificate is of another CA")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the issuer knows of a certificate that it decided to sign.

    Attributes:
        released: whether that it was signed is recorded; only then it left the issuer.
        revoked_at: since when it is on the CRL; None where it is not.
        suspended: whether it is only suspended.
    """

    expires_at: datetime
    released: bool
    revoked_at: datetime | None = None
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a certificate.

    Attributes:
        at: since when it is revoked.
        suspended: whether it is so for the time being only.
        until: when a good one ends, and with it all that is said of it.
    """

    kind: OCSPCertStatus
    at: datetime | None = None
    suspended: bool = False
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Responder:
    """Who signs the answers about one CA's certificates."""

    certificate: x509.Certificate = field(repr=False)
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def not_before(self) -> datetime:
        """When it begins."""
        return self.certificate.not_valid_before_utc

    @property
    def not_after(self) -> datetime:
        """When it ends."""
        return self.certificate.not_valid_after_utc


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it is sent.

    Attributes:
        der: OCSPResponse.
        this_update: when its status was known to hold; None where it has none.
        next_update: until when it may be believed.
        reusable: whether it answers everybody who asks the same: it has no nonce, and its status
            is not one that ends by itself (a serial number that is unknown may be released soon).
    """

    der: bytes = field(repr=False)
    this_update: datetime | None = None
    next_update: datetime | None = None
    reusable: bool = False


def decide(known: Known | None, now: datetime) -> Status:
    """The status of a certificate, by what is known of it.

    Raises:
        NotAnswered: it is over, and with it what was known of it.
    """
    if known is None:
        return Status(OCSPCertStatus.UNKNOWN)
    if known.revoked_at is not None:
        return Status(OCSPCertStatus.REVOKED, known.revoked_at, known.suspended)
    if known.expires_at <= now:
        raise unauthorized("the certificate has expired")
    if not known.released:
        return Status(OCSPCertStatus.UNKNOWN)
    return Status(OCSPCertStatus.GOOD, until=known.expires_at)


def sign_answer(
    question: Question, status: Status, by: Responder, *, now: datetime, lifetime: timedelta
) -> Answer:
    """Sign the answer; it ends with the certificate, and the responder's own, at the latest."""
    this_update = now.replace(microsecond=0)
    next_update = min(this_update + lifetime, by.not_after, status.until or by.not_after)
    asked = question.asked
    revoked_at = None if status.at is None else status.at.replace(microsecond=0)
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response_by_hash(
            asked.issuer_name,
            asked.issuer_key,
            asked.serial,
            _HASHES[asked.algorithm],
            status.kind,
            this_update,
            next_update,
            revoked_at,
            # "unspecified" is said by leaving the reason out (RFC 5280 §5.3.1).
            x509.ReasonFlags.certificate_hold if status.suspended else None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, by.certificate)
        .certificates([by.certificate])
    )
    if question.nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(question.nonce), critical=False)
    signed = builder.sign(by.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    reusable = question.nonce is None and status.kind is not OCSPCertStatus.UNKNOWN
    return Answer(signed, this_update, next_update, reusable)


def failure(status: OCSPResponseStatus) -> Answer:
    """The answer that has no status; it is not signed (RFC 6960 §2.3)."""
    built = ocsp.OCSPResponseBuilder.build_unsuccessful(status)
    return Answer(built.public_bytes(serialization.Encoding.DER))


def unauthorized(why: str) -> NotAnswered:
    """This responder cannot answer with authority (RFC 5019 §2.2.3)."""
    return NotAnswered(OCSPResponseStatus.UNAUTHORIZED, why)


def _malformed(why: str) -> NotAnswered:
    return NotAnswered(OCSPResponseStatus.MALFORMED_REQUEST, why)


def _algorithm(request: ocsp.OCSPRequest) -> str:
    try:
        name = request.hash_algorithm.name
    except UnsupportedAlgorithm:
        name = ""
    if name not in _HASHES:
        # Not malformed: somebody may know whose certificate it is, and this responder does not.
        raise unauthorized(f"a CA is known by {' or '.join(_HASHES)}")
    return name


def _nonce(extensions: x509.Extensions) -> bytes | None:
    """The nonce; what else is not known is passed over, unless it is critical (§4.4)."""
    nonce = None
    for each in extensions:
        if isinstance(each.value, x509.OCSPNonce):
            nonce = each.value.nonce
        elif each.critical:
            raise _malformed(f"the critical extension {each.oid.dotted_string} is not known")
    if nonce is not None and not 0 < len(nonce) <= MAX_NONCE:
        raise _malformed(f"a nonce has 1 to {MAX_NONCE} octets")
    return nonce


def _check_single(request: bytes) -> None:
    """Look for critical extensions of the single request, in DER that the library has read.

    Raises:
        NotAnswered: there is one.
        InvalidCertificate: not the DER that was expected.
    """
    at, end = der.read(request, 0, len(request), der.SEQUENCE)
    at, end = der.read(request, at, end, der.SEQUENCE)  # TBSRequest
    for tag in (_FIRST, _SECOND):  # version, requestorName
        if der.next_tag(request, at, end) == tag:
            _, at = der.read(request, at, end, tag)
    at, end = der.read(request, at, end, der.SEQUENCE)  # requestList
    at, end = der.read(request, at, end, der.SEQUENCE)  # Request
    _, at = der.read(request, at, end, der.SEQUENCE)  # CertID
    if der.next_tag(request, at, end) is None:
        return
    at, end = der.read(request, at, end, _FIRST)
    at, end = der.read(request, at, end, der.SEQUENCE)
    while der.next_tag(request, at, end) is not None:
        extension, at = der.read(request, at, end, der.SEQUENCE)
        _, extension = der.read(request, extension, at, der.OBJECT_IDENTIFIER)
        if der.next_tag(request, extension, at) == der.BOOLEAN:
            # Only TRUE is ever written: FALSE is the default (X.690 §11.5). None is known here.
            raise _malformed("a critical extension of the single request is not known")


def _digest(algorithm: str, data: bytes) -> bytes:
    return hashlib.new(algorithm, data, usedforsecurity=False).digest()


def _key_bits(ca: x509.Certificate) -> bytes:
    """The bits of the key, without tag, length and count of unused bits (RFC 6960 §4.1.1)."""
    spki = ca.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    at, end = der.read(spki, 0, len(spki), der.SEQUENCE)
    _, at = der.read(spki, at, end, der.SEQUENCE)
    at, end = der.read(spki, at, end, der.BIT_STRING)
    return spki[at + 1 : end]

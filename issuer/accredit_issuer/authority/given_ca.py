"""Whether a CA that is given to the issuer can certify its issuing CAs: one decision, no I/O.

In order: the key → each certificate by itself (a CA, valid now, a key that we accept, nothing in it
that our verifiers do not know) → the chain (each signed by the next, the last by itself, room for
an issuing CA below) → names (our trust domain may stand below it) → lifetimes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from accredit_credentials.bundle import UNREADABLE
from accredit_credentials.errors import InvalidKey
from accredit_credentials.keys import PublicKey, check_public_key
from accredit_credentials.spiffe_id import TrustDomain
from accredit_issuer.errors import InvalidSettings

MAX_GIVEN = 6  # with an issuing CA and a leaf below they are the eight that verifiers take
MAX_KEY_ID = 32  # bytes of a subjectKeyIdentifier

_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_KNOWN_CRITICAL = (
    x509.BasicConstraints,
    x509.KeyUsage,
    x509.NameConstraints,
    x509.SubjectAlternativeName,
)

_BOTH = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}

_E = TypeVar("_E", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class GivenCa:
    """A CA that may certify issuing CAs. Only ``check_given`` makes one.

    Attributes:
        certificate: of the CA.
        above: those above it, the self-signed root last; empty where it is itself the root.
    """

    certificate: x509.Certificate = field(repr=False)
    above: tuple[x509.Certificate, ...] = field(repr=False)

    @property
    def id(self) -> str:
        """Its key identifier, as the certificates below name it, in lower-case hexadecimal."""
        return _key_id(self.certificate) or ""

    @property
    def expires_at(self) -> datetime:
        """When the first of them ends, and with it all that is below."""
        return min(each.not_valid_after_utc for each in (self.certificate, *self.above))


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What has to be possible below a given CA.

    Attributes:
        dns_names: of the issuer's own server.
        issuing_ca: lifetime of an issuing CA.
        cas_below: CA certificates below the given one: the issuing CA (RFC 5280 §4.2.1.9).
    """

    trust_domain: TrustDomain
    dns_names: tuple[str, ...]
    issuing_ca: timedelta
    cas_below: int = 1


def check_given(
    certificates: Sequence[x509.Certificate], key: PublicKey, needs: Needs, now: datetime
) -> GivenCa:
    """Decide whether a CA may certify our issuing CAs at ``now``; the CA's certificate is first.

    Raises:
        InvalidSettings: it may not; the text names the certificate by its place, counted from 1.
    """
    if not 1 <= len(certificates) <= MAX_GIVEN:
        raise InvalidSettings(f"holds {len(certificates)} certificates, expected 1 to {MAX_GIVEN}")
    try:
        for reason in _reasons(certificates, key, needs, now):
            raise InvalidSettings(reason)
    except UNREADABLE as error:
        raise InvalidSettings("a certificate has fields that cannot be read") from error
    return GivenCa(certificates[0], tuple(certificates[1:]))


def _reasons(
    certificates: Sequence[x509.Certificate], key: PublicKey, needs: Needs, now: datetime
) -> Iterator[str]:
    if certificates[0].public_key() != key:
        yield "certificate 1 is of another key"
    for place, each in enumerate(certificates, start=1):
        for reason in _alone(each, now):
            yield f"certificate {place} {reason}"
        for reason in (*_room(each, needs.cas_below + place - 1), *_names(each, needs)):
            yield f"certificate {place} {reason}"
    yield from _chained(certificates)
    left = min(each.not_valid_after_utc for each in certificates) - now
    if needs.issuing_ca > left:
        yield (
            f"lifetimes.issuing_ca ({needs.issuing_ca.total_seconds():.0f} s) is longer than what "
            f"is left of the given CA ({left.total_seconds():.0f} s)"
        )


def _chained(certificates: Sequence[x509.Certificate]) -> Iterator[str]:
    """Where the chain is broken."""
    for place, (below, above) in enumerate(pairwise(certificates), start=1):
        if below.subject == below.issuer:
            yield f"certificate {place} is self-signed: it has to be the last"
        if not is_signed_by(below, above) or _authority_key(below) != _key_id(above):
            yield f"certificate {place} was not signed by certificate {place + 1}"
        if not isinstance(below.signature_hash_algorithm, _HASHES):
            yield f"certificate {place} is signed over a digest that verifiers do not take"
    if not is_signed_by(certificates[-1], certificates[-1]):
        yield "the last certificate is not self-signed: the root has to be there"


def _alone(certificate: x509.Certificate, now: datetime) -> Iterator[str]:
    """What is wrong with one certificate, whatever is around it."""
    constraints = _find(certificate, x509.BasicConstraints)
    usage = _value(certificate, x509.KeyUsage)
    identifier = _value(certificate, x509.SubjectKeyIdentifier)
    extended = _value(certificate, x509.ExtendedKeyUsage)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    bounds = (
        ("is not a CA", constraints and constraints.value.ca),
        ("has basicConstraints that are not critical", constraints and constraints.critical),
        ("lacks the key usage keyCertSign", usage and usage.key_cert_sign),
        (f"is valid from {begin:%Y-%m-%dT%H:%M:%SZ} only", begin <= now),
        (f"expired at {end:%Y-%m-%dT%H:%M:%SZ}", now < end),
        (
            "lacks a subjectKeyIdentifier of 1 to 32 bytes",
            identifier and 1 <= len(identifier.digest) <= MAX_KEY_ID,
        ),
        ("has an empty subject", list(certificate.subject)),
        (
            "has an extendedKeyUsage without serverAuth and clientAuth",
            extended is None or set(extended) >= _BOTH,
        ),
    )
    yield from (reason for reason, holds in bounds if not holds)
    try:
        check_public_key(certificate.public_key())
    except InvalidKey as error:
        yield f"has a key that is not accepted: {error}"
    for extension in certificate.extensions:
        if extension.critical and not isinstance(extension.value, _KNOWN_CRITICAL):
            yield f"has a critical extension that verifiers do not know: {extension.oid}"


def _room(certificate: x509.Certificate, room: int) -> Iterator[str]:
    """Whether the CAs below it fit: those given, and an issuing CA."""
    constraints = _value(certificate, x509.BasicConstraints)
    length = constraints.path_length if constraints else 0
    if length is not None and length < room:
        yield f"has the pathLen {length}, expected at least {room} or none"


def _names(certificate: x509.Certificate, needs: Needs) -> Iterator[str]:
    """What a certificate's names and name constraints do not allow below it."""
    san = _value(certificate, x509.SubjectAlternativeName)
    uris = san.get_values_for_type(x509.UniformResourceIdentifier) if san else []
    if uris and uris != [str(needs.trust_domain.id)]:
        yield f"must have the SPIFFE ID {needs.trust_domain.id} or none"
    constraints = _value(certificate, x509.NameConstraints)
    if constraints is None:
        return
    subtrees = [*(constraints.permitted_subtrees or ()), *(constraints.excluded_subtrees or ())]
    if any(isinstance(each, x509.DirectoryName) for each in subtrees):
        yield "constrains subjects, which issuing CAs and SVIDs choose for themselves"
    if any(isinstance(each, x509.UniformResourceIdentifier) for each in subtrees):
        # The path validation that we and many others use knows no such constraint: whatever it
        # says, each SVID below would be refused.
        yield "has name constraints on URIs, with which verifiers refuse every SVID"
    trees = (constraints.permitted_subtrees, constraints.excluded_subtrees)
    permitted, excluded = (_dns_names(each) for each in trees)
    for name in needs.dns_names:
        if not _allows(permitted, excluded, name):
            yield f"has name constraints that exclude the DNS name {name} (server.names)"


def _allows(permitted: Sequence[str], excluded: Sequence[str], name: str) -> bool:
    """Where nothing of a kind is permitted by name, everything of that kind is."""
    return (not permitted or any(dns_matches(each, name) for each in permitted)) and not any(
        dns_matches(each, name) for each in excluded
    )


def dns_matches(constraint: str, name: str) -> bool:
    """Whether a constraint covers a DNS name: itself, and all below it (RFC 5280 §4.2.1.10)."""
    constraint, name = constraint.lower().removeprefix("."), name.lower()
    return not constraint or name == constraint or name.endswith(f".{constraint}")


def _dns_names(subtrees: Iterable[x509.GeneralName] | None) -> list[str]:
    return [each.value for each in subtrees or () if isinstance(each, x509.DNSName)]


def is_signed_by(below: x509.Certificate, above: x509.Certificate) -> bool:
    """Whether one certificate names another as its issuer, and was signed with its key."""
    try:
        below.verify_directly_issued_by(above)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _key_id(certificate: x509.Certificate) -> str | None:
    identifier = _value(certificate, x509.SubjectKeyIdentifier)
    return identifier.digest.hex() if identifier else None


def _authority_key(certificate: x509.Certificate) -> str | None:
    identifier = _value(certificate, x509.AuthorityKeyIdentifier)
    key = identifier.key_identifier if identifier else None
    return key.hex() if key else None


def _value(certificate: x509.Certificate, kind: type[_E]) -> _E | None:
    extension = _find(certificate, kind)
    return extension.value if extension else None


def _find(certificate: x509.Certificate, kind: type[_E]) -> x509.Extension[_E] | None:
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None

"""X.509-SVIDs: read them, and decide whether one is valid now.

``check_leaf`` decides whether a certificate has the form of a leaf SVID (X509-SVID §2 to §5.2),
whoever signed it. ``validate`` decides whether the trust domain that the leaf names vouches for it
at a given time (§5.1). Neither knows of revocation: ``X509Svid.marks`` is what a revocation fact
can match. In order: parse (bounded) → form → path → ``X509Svid``.

Two fields are Accredit's own, in the subject: ``serialNumber`` is the instance, ``dnQualifier``
the digest of the manifest. They are informative to others and authenticated by the signature.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from accredit_credentials.bundle import UNREADABLE, TrustBundle
from accredit_credentials.errors import (
    Expired,
    InvalidCertificate,
    InvalidKey,
    InvalidSpiffeId,
    Untrusted,
)
from accredit_credentials.key_identifier import known_as
from accredit_credentials.keys import PrivateKey, check_public_key
from accredit_credentials.reach import check_reach
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain

MAX_CHAIN = 8
MAX_CHAIN_BYTES = 32 * 1024

# The web's rules for a leaf, except that they forbid what RFC 5280 allows: a critical SAN beside a
# subject (§4.2.1.6) and a critical EKU (§4.2.1.12). ``check_leaf`` decides about both.
_LEAF_POLICY = (
    ExtensionPolicy.webpki_defaults_ee()
    .require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, None)
)

_E = TypeVar("_E", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class X509Svid:
    """A leaf SVID and the certificates between it and an authority, leaf first.

    Attributes:
        spiffe_id: whom it is about.
        leaf: the certificate.
        intermediates: those between the leaf and an authority.
        instance: the instance that holds it, where Accredit issued it.
        manifest: the digest of the manifest it was issued for, where Accredit issued it.
        serial: the serial number in lower-case hexadecimal.
    """

    spiffe_id: SpiffeId
    leaf: x509.Certificate = field(repr=False)
    intermediates: tuple[x509.Certificate, ...] = field(repr=False)
    instance: str | None = field(init=False, repr=False, compare=False)
    manifest: str | None = field(init=False, repr=False, compare=False)
    serial: str = field(init=False, repr=False, compare=False)
    _marks: list[str] = field(init=False, repr=False, compare=False, default_factory=list)

    def __post_init__(self) -> None:
        # Read once: they are asked for at each request of a connection.
        subject = self.leaf.subject
        object.__setattr__(self, "serial", format(self.leaf.serial_number, "x"))
        object.__setattr__(self, "instance", _only(subject, NameOID.SERIAL_NUMBER))
        object.__setattr__(self, "manifest", _only(subject, NameOID.DN_QUALIFIER))

    @property
    def not_before(self) -> datetime:
        """The first moment of validity, with time zone."""
        return self.leaf.not_valid_before_utc

    @property
    def not_after(self) -> datetime:
        """The last moment of validity, with time zone."""
        return self.leaf.not_valid_after_utc

    @property
    def der(self) -> tuple[bytes, ...]:
        """The certificates as DER, leaf first."""
        return tuple(c.public_bytes(serialization.Encoding.DER) for c in self.certificates)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the leaf's DER, in lower-case hexadecimal: as the log names it."""
        return self.leaf.fingerprint(hashes.SHA256()).hex()

    @property
    def pem(self) -> str:
        """The certificates as concatenated PEM, leaf first."""
        return "".join(
            c.public_bytes(serialization.Encoding.PEM).decode() for c in self.certificates
        )

    @property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        """Leaf first, then the intermediates."""
        return (self.leaf, *self.intermediates)

    @property
    def authorities(self) -> frozenset[str]:
        """The key ids of all that signed in its chain, the root's among them."""
        ids = map(authority_key_id, self.certificates)
        return frozenset(each for each in ids if each is not None)

    def marks(self) -> tuple[str, ...]:
        """What a revocation fact can match: ``kind:value`` texts, see ``revocation``.

        An authority's are those of all that are known above the leaf: where the intermediates are
        known, each of them.
        """
        if not self._marks:
            self._marks[:] = self._read_marks()
        return tuple(self._marks)

    def _read_marks(self) -> tuple[str, ...]:
        # A revoked CA can put others of its own making below itself: each in the chain counts, by
        # what it says and by what its key says.
        said = filter(None, map(authority_key_id, self.certificates))
        known = (key_id for each in self.intermediates for key_id in sorted(known_as(each)))
        authorities = dict.fromkeys((*said, *known))
        marks = [f"serial:{self.serial}", *(f"authority:{each}" for each in authorities)]
        if self.instance:
            marks.append(f"instance:{self.instance}")
        if self.manifest:
            marks.append(f"manifest:{self.manifest}")
        return (*marks, *identity_marks(self.spiffe_id))


@dataclass(frozen=True, slots=True)
class X509Identity:
    """An SVID together with its private key. The key shows in no ``repr``."""

    svid: X509Svid
    key: PrivateKey = field(repr=False)

    @classmethod
    def of(cls, svid: X509Svid, key: PrivateKey) -> "X509Identity":
        """Join an SVID with its key.

        Raises:
            InvalidKey: the key is not the one that the SVID certifies.
        """
        if key.public_key() != svid.leaf.public_key():
            raise InvalidKey(f"the private key does not belong to the SVID of {svid.spiffe_id}")
        return cls(svid, key)

    @property
    def key_pem(self) -> bytes:
        """The private key as unencrypted PKCS#8 PEM; for files that only their owner reads."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def parse_pem(text: str) -> X509Svid:
    """Read concatenated PEM certificates, leaf first. Proves nothing about who signed them.

    Raises:
        InvalidCertificate: not PEM, too many or too large, or the leaf is not an SVID.
    """
    if len(text) > MAX_CHAIN_BYTES:
        raise InvalidCertificate(
            f"chain has {len(text)} characters, the limit is {MAX_CHAIN_BYTES}"
        )
    try:
        certificates = x509.load_pem_x509_certificates(text.encode())
    except UNREADABLE as error:
        raise InvalidCertificate("expected PEM certificates, leaf first") from error
    return unverified_svid(certificates)


def parse_der(leaf: bytes, intermediates: tuple[bytes, ...] = ()) -> X509Svid:
    """Read DER certificates. Proves nothing about who signed them.

    Raises:
        InvalidCertificate: not DER, too many or too large, or the leaf is not an SVID.
    """
    size = len(leaf) + sum(map(len, intermediates))
    if size > MAX_CHAIN_BYTES:
        raise InvalidCertificate(f"chain has {size} bytes, the limit is {MAX_CHAIN_BYTES}")
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in (leaf, *intermediates)]
    except UNREADABLE as error:
        raise InvalidCertificate("expected DER certificates, leaf first") from error
    return unverified_svid(certificates)


def unverified_svid(certificates: list[x509.Certificate]) -> X509Svid:
    """Check the form of a chain, leaf first. Proves nothing about who signed it.

    Raises:
        InvalidCertificate: empty, too long, or the leaf is not an SVID.
    """
    if not 1 <= len(certificates) <= MAX_CHAIN:
        raise InvalidCertificate(f"chain has {len(certificates)} certificates, expected 1 to 8")
    leaf, *intermediates = certificates
    return X509Svid(check_leaf(leaf), leaf, tuple(intermediates))


def check_leaf(leaf: x509.Certificate) -> SpiffeId:
    """Check that a certificate has the form of a leaf SVID and return its SPIFFE ID.

    X509-SVID §2 (exactly one URI SAN), §3.1 (path; critical SAN beside an empty subject), §4.1
    (not a CA), §4.3 (digitalSignature, no keyCertSign, no cRLSign), §4.4 (both EKUs or none), §5.2.

    Raises:
        InvalidCertificate: a rule is broken; the message names it.
    """
    try:
        extensions = leaf.extensions
        subject_empty = not list(leaf.subject)
        check_public_key(leaf.public_key())
    except InvalidKey as error:
        raise InvalidCertificate(f"SVID: {error}") from error
    except UNREADABLE as error:
        raise InvalidCertificate("SVID has fields that cannot be read") from error
    spiffe_id = _spiffe_id_of(extensions, subject_empty=subject_empty)
    if not spiffe_id.path:
        raise InvalidCertificate(f"leaf SVID must have a path in its SPIFFE ID, not {spiffe_id}")
    constraints = _find(extensions, x509.BasicConstraints)
    if constraints is None or constraints.value.ca:
        raise InvalidCertificate("leaf SVID must have basicConstraints and must not be a CA")
    usage = _find(extensions, x509.KeyUsage)
    if usage is None or not usage.critical:
        raise InvalidCertificate("SVID must have a critical keyUsage")
    if not usage.value.digital_signature:
        raise InvalidCertificate("leaf SVID must have the key usage digitalSignature")
    if usage.value.key_cert_sign or usage.value.crl_sign:
        raise InvalidCertificate("leaf SVID must not have the key usages keyCertSign and cRLSign")
    _check_extended_key_usage(extensions)
    return spiffe_id


def validate(
    svid: X509Svid,
    *,
    bundles: Mapping[TrustDomain, TrustBundle],
    now: datetime,
    any_reach: bool = False,
) -> X509Svid:
    """Decide whether the SVID's own trust domain vouches for it at ``now`` (X509-SVID §5.1).

    Only the bundle of the trust domain that the leaf names is used: authorities of one domain
    never speak for another (SPIFFE Federation §4.2). A CA that is limited to namespaces speaks for
    their agents only (``reach``), unless ``any_reach``: for one's own SVID, never for a peer's.

    Raises:
        InvalidCertificate: a signing certificate cannot be read.
        Untrusted: no bundle for its trust domain, no path to one of its authorities, it names
            another authority than the one that signed it, or one above it may not speak for it.
        Expired: ``now`` is outside its validity.
    """
    bundle = bundles.get(svid.spiffe_id.trust_domain)
    if bundle is None or not bundle.x509_authorities:
        raise Untrusted(f"no X.509 authorities known for {svid.spiffe_id.trust_domain}")
    check_time(svid, now=now)
    for certificate in svid.intermediates:
        _check_signing_id(certificate, svid.spiffe_id.trust_domain)
    verifier = (
        PolicyBuilder()
        .store(Store(list(bundle.x509_authorities)))
        .time(now)
        .max_chain_depth(MAX_CHAIN)
        .extension_policies(ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=_LEAF_POLICY)
        .build_client_verifier()
    )
    try:
        path = verifier.verify(svid.leaf, list(svid.intermediates)).chain
    except VerificationError as error:
        # The library's reason quotes a subject, which anybody may have chosen: escaped, short.
        raise Untrusted(
            f"SVID of {svid.spiffe_id} has no path to an authority of its trust domain: "
            f"{str(error)[:160]!r}"
        ) from error
    # The path is proved by signatures alone, but a fact about an authority is matched by the key
    # identifier in the leaf: a stolen issuing key must not get to write somebody else's there.
    if not _names_its_signer(svid.leaf, path[1]):
        raise Untrusted(
            f"SVID of {svid.spiffe_id} names another authority than the one that signed"
        )
    if not any_reach:
        check_reach(svid.spiffe_id, path[1:])
    return svid


def check_time(svid: X509Svid, *, now: datetime) -> None:
    """Decide whether ``now`` is inside the SVID's validity.

    Raises:
        Expired: it is over, or has not begun.
    """
    if not svid.not_before <= now <= svid.not_after:
        raise Expired(
            f"SVID of {svid.spiffe_id} is valid from {svid.not_before:%Y-%m-%dT%H:%M:%SZ} "
            f"to {svid.not_after:%Y-%m-%dT%H:%M:%SZ}"
        )


def identity_marks(spiffe_id: SpiffeId) -> tuple[str, ...]:
    """The revocation marks that follow from the identity alone.

    An agent's are ``agent:<namespace>/<name>`` and ``namespace:<namespace>``, an admin's
    ``admin:<name>``, a node's ``node:<name>``. What runs on a node does not carry it.
    """
    match spiffe_id.segments:
        case ("ns", namespace, "agent", name, *_):
            return (f"agent:{namespace}/{name}", f"namespace:{namespace}")
        case ("admin", name):
            return (f"admin:{name}",)
        case ("node", name):
            return (f"node:{name}",)
    return ()


def authority_key_id(certificate: x509.Certificate) -> str | None:
    """The key identifier of the CA that signed it, in lower-case hexadecimal."""
    extension = _find(certificate.extensions, x509.AuthorityKeyIdentifier)
    identifier = extension.value.key_identifier if extension else None
    return identifier.hex() if identifier else None


def _spiffe_id_of(extensions: x509.Extensions, *, subject_empty: bool) -> SpiffeId:
    san = _find(extensions, x509.SubjectAlternativeName)
    if san is None:
        raise InvalidCertificate("SVID must have exactly one URI SAN, found none")
    uris = san.value.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise InvalidCertificate(f"SVID must have exactly one URI SAN, found {len(uris)}")
    if subject_empty and not san.critical:
        raise InvalidCertificate("SVID with an empty subject must have a critical SAN")
    try:
        return SpiffeId.parse(uris[0])
    except InvalidSpiffeId as error:
        raise InvalidCertificate(f"SVID: {error}") from error


def _check_signing_id(certificate: x509.Certificate, trust_domain: TrustDomain) -> None:
    """A signing certificate's SPIFFE ID, if it has one, is its trust domain's (§3.2)."""
    try:
        san = _find(certificate.extensions, x509.SubjectAlternativeName)
    except UNREADABLE as error:
        raise InvalidCertificate("signing certificate has unreadable extensions") from error
    if san is None:
        return
    uris = san.value.get_values_for_type(x509.UniformResourceIdentifier)
    if uris and uris != [str(trust_domain.id)]:
        raise Untrusted(f"signing certificate must have the SPIFFE ID {trust_domain.id} or none")


def _names_its_signer(leaf: x509.Certificate, signer: x509.Certificate) -> bool:
    extension = _find(signer.extensions, x509.SubjectKeyIdentifier)
    return extension is not None and extension.value.digest.hex() == authority_key_id(leaf)


def _check_extended_key_usage(extensions: x509.Extensions) -> None:
    extension = _find(extensions, x509.ExtendedKeyUsage)
    if extension is None:
        return
    usages = set(extension.value)
    if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= usages:
        raise InvalidCertificate("SVID with extendedKeyUsage must have serverAuth and clientAuth")


def _find(extensions: x509.Extensions, kind: type[_E]) -> x509.Extension[_E] | None:
    try:
        return extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def _only(name: x509.Name, oid: x509.ObjectIdentifier) -> str | None:
    """The attribute of a name, where it stands there exactly once."""
    values = name.get_attributes_for_oid(oid)
    return str(values[0].value) if len(values) == 1 else None

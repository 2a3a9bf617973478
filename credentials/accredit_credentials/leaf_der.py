"""A leaf's TBSCertificate, written by hand: the hot path of issuing.

``x509_template.leaf_builder`` says the same through the library and takes four times as long; a
property test compares both byte for byte. What is the same for all leaves of one CA is encoded
once (``IssuingCa``). ``leaf_lint`` reads the result with other eyes before anything is signed.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from accredit_credentials import der
from accredit_credentials.keys import P256_HEAD, P256_SIZE
from accredit_credentials.x509_svid import X509Svid
from accredit_credentials.x509_template import LeafTemplate, subject_key_id

_VERSION_3 = bytes.fromhex("a003020102")
_OID_SERIAL_NUMBER = bytes.fromhex("0603550405")
_OID_DN_QUALIFIER = bytes.fromhex("060355042e")
_URI = 0x86  # GeneralName [6]
_DNS_NAME = 0x82  # GeneralName [2]

# Extensions that every leaf has alike, in the order of ``x509_template``.
_USAGE = bytes.fromhex("300e0603551d0f0101ff040403020780")  # digitalSignature, critical
_EXTENDED_USAGE = bytes.fromhex(  # serverAuth, clientAuth
    "301d0603551d250416301406082b0601050507030106082b06010505070302"
)
_NOT_A_CA = bytes.fromhex("300c0603551d130101ff04023000")  # critical
_USAGES = _USAGE + _EXTENDED_USAGE + _NOT_A_CA
_OID_SUBJECT_KEY = bytes.fromhex("0603551d0e")
_OID_AUTHORITY_KEY = bytes.fromhex("0603551d23")
_OID_ALT_NAME = bytes.fromhex("0603551d11")
_OID_CRL_POINTS = bytes.fromhex("0603551d1f")
_OID_AUTHORITY_ACCESS = bytes.fromhex("06082b06010505070101")
_OID_OCSP = bytes.fromhex("06082b06010505073001")

_P256_BITS = len(P256_HEAD) - 1  # where the key's bits begin: the head holds the first octet


@dataclass(frozen=True, slots=True)
class IssuingCa:
    """What the leaves of one CA have in common.

    Attributes:
        certificate: of the CA.
        chain: certificates between it and the authority that others know, nearest first.
        subject: its name, DER.
        key_id: its key identifier.
        authority_key: the AuthorityKeyIdentifier extension, DER.
        pem: itself and the chain, PEM: what follows the leaf in an answer.
        not_before: when it begins.
        not_after: when it ends, and with it all that it signs.
    """

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...] = ()
    subject: bytes = field(init=False, repr=False)
    key_id: bytes = field(init=False, repr=False)
    authority_key: bytes = field(init=False, repr=False)
    pem: str = field(init=False, repr=False)
    not_before: datetime = field(init=False, repr=False)
    not_after: datetime = field(init=False, repr=False)

    def __post_init__(self) -> None:
        key_id = bytes.fromhex(subject_key_id(self.certificate))
        pem = "".join(
            each.public_bytes(serialization.Encoding.PEM).decode()
            for each in (self.certificate, *self.chain)
        )
        object.__setattr__(self, "subject", self.certificate.subject.public_bytes())
        object.__setattr__(self, "key_id", key_id)
        value = der.sequence(der.tlv(0x80, key_id))
        object.__setattr__(self, "authority_key", der.extension(_OID_AUTHORITY_KEY, value))
        object.__setattr__(self, "pem", pem)
        object.__setattr__(self, "not_before", self.certificate.not_valid_before_utc)
        object.__setattr__(self, "not_after", self.certificate.not_valid_after_utc)


@dataclass(frozen=True, slots=True)
class SignedLeaf:
    """A leaf SVID that was signed, in the form that it travels in.

    Attributes:
        template: what it says.
        ca: who signed it.
        der: the certificate.
    """

    template: LeafTemplate
    ca: IssuingCa
    der: bytes = field(repr=False)

    @property
    def serial(self) -> str:
        """The serial number in lower-case hexadecimal."""
        return format(self.template.serial, "x")

    @property
    def pem(self) -> str:
        """The leaf and its chain, PEM."""
        return pem_of(self.der) + self.ca.pem

    def svid(self) -> X509Svid:
        """The same as a parsed SVID, for who uses it in this process."""
        leaf = x509.load_der_x509_certificate(self.der)
        return X509Svid(self.template.spiffe_id, leaf, (self.ca.certificate, *self.ca.chain))


def tbs_of(template: LeafTemplate, ca: IssuingCa) -> bytes:
    """The TBSCertificate (RFC 5280 §4.1.2) of a leaf below ``ca``, signed with ES256."""
    spki = template.subject_key.der
    extensions = (
        _USAGES
        + der.extension(_OID_SUBJECT_KEY, der.tlv(der.OCTET_STRING, _key_id(spki)))
        + ca.authority_key
        + _alt_name(str(template.spiffe_id), template.dns_names)
    )
    if template.crl_url is not None:
        extensions += _crl_points(template.crl_url)
    if template.ocsp_url is not None:
        extensions += _ocsp_access(template.ocsp_url)
    return der.sequence(
        _VERSION_3,
        der.integer(template.serial),
        der.ECDSA_SHA256,
        ca.subject,
        der.sequence(der.time(template.not_before), der.time(template.not_after)),
        _subject(template),
        spki,
        der.tlv(0xA3, der.tlv(der.SEQUENCE, extensions)),
    )


def certificate_of(tbs: bytes, signature: bytes) -> bytes:
    """The certificate, DER: what was signed and its ECDSA signature (RFC 5280 §4.1.1)."""
    return der.sequence(tbs, der.ECDSA_SHA256, der.tlv(der.BIT_STRING, b"\0" + signature))


def pem_of(certificate: bytes) -> str:
    """A certificate as PEM (RFC 7468), lines of 64 characters."""
    text = base64.b64encode(certificate).decode()
    lines = "\n".join([text[at : at + 64] for at in range(0, len(text), 64)])
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"


def _key_id(spki: bytes) -> bytes:
    """SHA-1 of the key's bits (RFC 5280 §4.2.1.2, method 1)."""
    if len(spki) == P256_SIZE and spki.startswith(P256_HEAD):
        return hashlib.sha1(spki[_P256_BITS:], usedforsecurity=False).digest()
    begin, end = der.read(spki, 0, len(spki), der.SEQUENCE)
    _, after_algorithm = der.read(spki, begin, end, der.SEQUENCE)
    bits, _ = der.read(spki, after_algorithm, end, der.BIT_STRING)
    return hashlib.sha1(spki[bits + 1 : end], usedforsecurity=False).digest()


def _subject(template: LeafTemplate) -> bytes:
    names = _attribute(_OID_SERIAL_NUMBER, template.instance)
    if template.manifest is not None:
        names += _attribute(_OID_DN_QUALIFIER, template.manifest)
    return der.tlv(der.SEQUENCE, names)


def _attribute(oid: bytes, text: str) -> bytes:
    value = der.tlv(der.PRINTABLE_STRING, text.encode("ascii"))
    return der.tlv(der.SET, der.tlv(der.SEQUENCE, oid + value))


@lru_cache(maxsize=1024)  # an agent asks again and again
def _alt_name(spiffe_id: str, dns_names: Sequence[str]) -> bytes:
    names = der.tlv(_URI, spiffe_id.encode("ascii")) + b"".join(
        der.tlv(_DNS_NAME, name.encode("ascii")) for name in dns_names
    )
    return der.extension(_OID_ALT_NAME, der.tlv(der.SEQUENCE, names))


@lru_cache(maxsize=16)
def _crl_points(url: str) -> bytes:
    full_name = der.tlv(0xA0, der.tlv(_URI, url.encode("ascii")))
    point = der.sequence(der.tlv(0xA0, full_name))
    return der.extension(_OID_CRL_POINTS, der.sequence(point))


@lru_cache(maxsize=16)
def _ocsp_access(url: str) -> bytes:
    location = der.tlv(_URI, url.encode("ascii"))
    return der.extension(_OID_AUTHORITY_ACCESS, der.sequence(der.sequence(_OID_OCSP, location)))

"""A TBSCertificate read again, before it is signed: is it the leaf SVID that was meant?

Reads the bytes from the first to the last and compares each field with the template and with what
X509-SVID and RFC 5280 demand of a leaf. It shares nothing with ``leaf_der`` but the tags of DER,
so a mistake there is found here. ``LintedLeaf`` is the proof: nothing else makes one.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from accredit_credentials import der
from accredit_credentials.errors import InvalidCertificate
from accredit_credentials.leaf_der import IssuingCa
from accredit_credentials.x509_template import LeafTemplate

MAX_SERIAL_OCTETS: Final = 20  # RFC 5280 §4.1.2.2
GENERALIZED_FROM: Final = 2050

# What every leaf has alike, as bytes that were read by hand once: keyUsage, critical, with
# digitalSignature only (X509-SVID §4.3); extKeyUsage with serverAuth and clientAuth (§4.4);
# basicConstraints, critical and empty: cA is FALSE by default, and a default is not written (§4.1).
_ALIKE: Final = bytes.fromhex(
    "300e 0603551d0f 0101ff 0404 03020780"
    "301d 0603551d25 0416 3014 06082b06010505070301 06082b06010505070302"
    "300c 0603551d13 0101ff 0402 3000"
)
_SUBJECT_KEY: Final = bytes.fromhex("301d 0603551d0e 0416 0414")  # then 20 bytes
_AUTHORITY_KEY: Final = bytes.fromhex("301f 0603551d23 0418 3016 8014")  # then 20 bytes
_ALT_NAME: Final = bytes.fromhex("0603551d11")
_CRL_POINTS: Final = bytes.fromhex("0603551d1f")
_AUTHORITY_ACCESS: Final = bytes.fromhex("06082b06010505070101")
_OCSP: Final = bytes.fromhex("06082b06010505073001")
_ECDSA_WITH_SHA256: Final = bytes.fromhex("300a 06082a8648ce3d040302")
_VERSION_3: Final = bytes.fromhex("a003 020102")
_URI: Final = 0x86  # GeneralName [6]
_DNS_NAME: Final = 0x82  # GeneralName [2]
_FIRST: Final = 0xA0  # [0]
_P256_HEAD: Final = bytes.fromhex("3059 3013 06072a8648ce3d0201 06082a8648ce3d030107 0342 00")
_INSTANCE = bytes.fromhex("550405")  # serialNumber
_MANIFEST = bytes.fromhex("55042e")  # dnQualifier


@dataclass(frozen=True, slots=True)
class LintedLeaf:
    """A TBSCertificate that was read and found to be what its template says."""

    tbs: bytes = field(repr=False)
    template: LeafTemplate
    ca: IssuingCa


def lint(tbs: bytes, template: LeafTemplate, ca: IssuingCa) -> LintedLeaf:
    """Decide whether these bytes may be signed.

    Raises:
        InvalidCertificate: not DER, or a field is not what was meant; the text names it.
    """
    at, end = der.read(tbs, 0, len(tbs), der.SEQUENCE)
    _same("length", end, len(tbs))
    at = _exactly("version", tbs, at, _VERSION_3)
    at = _serial(tbs, at, end, template.serial)
    at = _exactly("signature algorithm", tbs, at, _ECDSA_WITH_SHA256)
    at = _exactly("issuer", tbs, at, ca.subject)
    at = _validity(tbs, at, end, template)
    at = _subject(tbs, at, end, template)
    at = _exactly("public key", tbs, at, template.subject_key.der)
    at, after = der.read(tbs, at, end, 0xA3)
    _same("end", after, end)
    at, after = der.read(tbs, at, end, der.SEQUENCE)
    _same("extensions", after, end)
    at = _exactly("usages", tbs, at, _ALIKE)
    at = _exactly("subjectKeyIdentifier", tbs, at, _SUBJECT_KEY + _key_id(template.subject_key.der))
    at = _exactly("authorityKeyIdentifier", tbs, at, _AUTHORITY_KEY + ca.key_id)
    at = _alt_names(tbs, at, end, template)
    if template.crl_url is not None:
        at = _crl_point(tbs, at, end, template.crl_url)
    if template.ocsp_url is not None:
        at = _ocsp_access(tbs, at, end, template.ocsp_url)
    _same("extensions", at, end)
    return LintedLeaf(tbs, template, ca)


def _serial(tbs: bytes, at: int, end: int, serial: int) -> int:
    begin, after = der.read(tbs, at, end, der.INTEGER)
    octets = tbs[begin:after]
    _same("serial number", int.from_bytes(octets, signed=True), serial)
    if serial <= 0 or len(octets) > MAX_SERIAL_OCTETS:
        raise InvalidCertificate("leaf: serial number must be positive and of at most 20 octets")
    return after


def _validity(tbs: bytes, at: int, end: int, template: LeafTemplate) -> int:
    begin, after = der.read(tbs, at, end, der.SEQUENCE)
    not_before, begin = _time(tbs, begin, after)
    not_after, begin = _time(tbs, begin, after)
    _same("validity", begin, after)
    _same("notBefore", not_before, template.not_before)
    _same("notAfter", not_after, template.not_after)
    if not_before >= not_after:
        raise InvalidCertificate("leaf: notBefore must come before notAfter")
    return after


def _time(tbs: bytes, at: int, end: int) -> tuple[datetime, int]:
    utc_time = der.next_tag(tbs, at, end) == der.UTC_TIME
    begin, after = der.read(tbs, at, end, der.UTC_TIME if utc_time else der.GENERALIZED_TIME)
    return _moment(tbs[begin:after], utc_time=utc_time), after


@lru_cache(maxsize=256)  # whole seconds: all leaves of one second have them in common
def _moment(value: bytes, *, utc_time: bool) -> datetime:
    """RFC 5280 §4.1.2.5: one spelling, and which one depends on the year."""
    text = value.decode("ascii", errors="replace")
    century = "" if not utc_time else "19" if text[:2] >= "50" else "20"
    digits = century + text
    parts = [digits[0:4], *(digits[at : at + 2] for at in range(4, 14, 2))]
    if digits[14:] == "Z" and all(part.isdecimal() for part in parts):
        try:
            moment = datetime(*map(int, parts), tzinfo=UTC)  # type: ignore[misc, arg-type]
        except ValueError:
            pass
        else:
            if utc_time == (moment.year < GENERALIZED_FROM):
                return moment
    raise InvalidCertificate(f"leaf: {text[:20]!r} is not a time of RFC 5280")


def _subject(tbs: bytes, at: int, end: int, template: LeafTemplate) -> int:
    begin, after = der.read(tbs, at, end, der.SEQUENCE)
    begin = _attribute("instance", tbs, begin, after, (_INSTANCE, template.instance))
    if template.manifest is not None:
        begin = _attribute("manifest", tbs, begin, after, (_MANIFEST, template.manifest))
    _same("subject", begin, after)
    return after


def _attribute(name: str, tbs: bytes, at: int, end: int, expected: tuple[bytes, str]) -> int:
    begin, after = der.read(tbs, at, end, der.SET)
    begin, only = der.read(tbs, begin, after, der.SEQUENCE)
    _same(name, only, after)
    begin, oid_end = der.read(tbs, begin, only, der.OBJECT_IDENTIFIER)
    value, value_end = der.read(tbs, oid_end, only, der.PRINTABLE_STRING)
    _same(name, value_end, only)
    oid, text = expected
    if tbs[begin:oid_end] != oid or tbs[value:value_end] != text.encode():
        raise InvalidCertificate(f"leaf: {name} is not what was meant")
    return after


def _alt_names(tbs: bytes, at: int, end: int, template: LeafTemplate) -> int:
    """Exactly one URI, the SPIFFE ID (X509-SVID §2), and the DNS names that were meant."""
    at, after = _extension("subjectAltName", _ALT_NAME, tbs, at, end)
    at = _wrapped("subjectAltName", tbs, at, after, der.SEQUENCE)
    begin, at = der.read(tbs, at, after, _URI)
    _same("SPIFFE ID", tbs[begin:at], str(template.spiffe_id).encode())
    for name in template.dns_names:
        begin, at = der.read(tbs, at, after, _DNS_NAME)
        _same("DNS name", tbs[begin:at], name.encode())
    _same("subjectAltName", at, after)
    return after


def _crl_point(tbs: bytes, at: int, end: int, url: str) -> int:
    """One distribution point with one full name (RFC 5280 §4.2.1.13)."""
    at, after = _extension("cRLDistributionPoints", _CRL_POINTS, tbs, at, end)
    for tag in (der.SEQUENCE, der.SEQUENCE, _FIRST, _FIRST, _URI):
        at = _wrapped("cRLDistributionPoints", tbs, at, after, tag)
    _same("cRLDistributionPoints", tbs[at:after], url.encode())
    return after


def _ocsp_access(tbs: bytes, at: int, end: int, url: str) -> int:
    """One access description, of OCSP, with one URI (RFC 5280 §4.2.2.1)."""
    at, after = _extension("authorityInfoAccess", _AUTHORITY_ACCESS, tbs, at, end)
    for tag in (der.SEQUENCE, der.SEQUENCE):
        at = _wrapped("authorityInfoAccess", tbs, at, after, tag)
    at = _exactly("authorityInfoAccess", tbs, at, _OCSP)
    at = _wrapped("authorityInfoAccess", tbs, at, after, _URI)
    _same("authorityInfoAccess", tbs[at:after], url.encode())
    return after


def _extension(name: str, oid: bytes, tbs: bytes, at: int, end: int) -> tuple[int, int]:
    """The value of the extension that must stand here, and must not be critical."""
    at, after = der.read(tbs, at, end, der.SEQUENCE)
    at = _exactly(name, tbs, at, oid)
    return _wrapped(name, tbs, at, after, der.OCTET_STRING), after


def _wrapped(name: str, tbs: bytes, at: int, end: int, tag: int) -> int:
    """Where the value begins that fills everything up to ``end``."""
    begin, after = der.read(tbs, at, end, tag)
    _same(name, after, end)
    return begin


def _key_id(spki: bytes) -> bytes:
    """RFC 5280 §4.2.1.2: SHA-1 of the BIT STRING, without its count of unused bits."""
    if spki.startswith(_P256_HEAD):
        return hashlib.sha1(spki[len(_P256_HEAD) :], usedforsecurity=False).digest()
    at, end = der.read(spki, 0, len(spki), der.SEQUENCE)
    _, at = der.read(spki, at, end, der.SEQUENCE)
    at, end = der.read(spki, at, end, der.BIT_STRING)
    return hashlib.sha1(spki[at + 1 : end], usedforsecurity=False).digest()


def _exactly(name: str, tbs: bytes, at: int, expected: bytes) -> int:
    if not tbs.startswith(expected, at):
        raise InvalidCertificate(f"leaf: {name} is not what was meant")
    return at + len(expected)


def _same(name: str, found: object, expected: object) -> None:
    if found != expected:
        raise InvalidCertificate(f"leaf: {name} is not what was meant")

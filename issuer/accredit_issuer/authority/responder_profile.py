"""What an OCSP responder's certificate may be: the decision before an issuing CA delegates to one.

``ResponderProfile.check`` compares the template with the bounds, has the certificate built and
signed by a key that is thrown away, and reads that certificate again; ``sign_responder`` takes
nothing else, and what it signs must have the very bytes that were read.

The certificate names nobody: it has no SPIFFE ID, and neither of the usages of an SVID, so no
verifier takes its holder for an agent, and nothing but an OCSP client has a use for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from accredit_credentials.errors import InvalidCertificate
from accredit_credentials.keys import check_public_key
from accredit_credentials.x509_template import subject_key_id
from accredit_issuer.authority.profile import RANDOM_BITS, REPLICA_BITS, ProfileViolation
from accredit_issuer.keys.throwaway import throwaway_key

# Nobody can revoke it (id-pkix-ocsp-nocheck): whoever had its key could say "good" of everything
# for as long as it lives.
MAX_LIFETIME = timedelta(hours=4)

_SECOND = timedelta(seconds=1)
_CRITICAL: dict[type[x509.ExtensionType], bool] = {
    x509.BasicConstraints: True,
    x509.KeyUsage: True,
    x509.ExtendedKeyUsage: False,
    x509.OCSPNoCheck: False,
    x509.SubjectKeyIdentifier: False,
    x509.AuthorityKeyIdentifier: False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponderTemplate:
    """A responder's certificate to be signed by ``ca`` (RFC 6960 §4.2.2.2)."""

    ca: x509.Certificate = field(repr=False)
    public_key: ec.EllipticCurvePublicKey = field(repr=False)
    serial: int
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class CheckedResponder:
    """A responder's certificate that may be signed. Only ``ResponderProfile.check`` makes one."""

    template: ResponderTemplate
    tbs: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponderProfile:
    """The bounds of responders' certificates.

    Attributes:
        backdate: how far notBefore lies in the past, for clocks that are behind.
        replica: whose serial numbers these are.
    """

    backdate: timedelta
    replica: int

    def check(self, template: ResponderTemplate, now: datetime) -> CheckedResponder:
        """Decide whether this CA may delegate to this key now.

        Raises:
            ProfileViolation: a bound is broken, or the certificate is not what was meant; the text
                names what.
            InvalidKey: a key that no credential has.
        """
        ca, begin, end = template.ca, template.not_before, template.not_after
        ca_key = ca.public_key()
        bounds = (
            ("serial", template.serial >> RANDOM_BITS == 1 << REPLICA_BITS | self.replica),
            ("notBefore", now - self.backdate - _SECOND <= begin <= now),
            ("notAfter", now < end <= now + MAX_LIFETIME),
            ("whole seconds", not begin.microsecond and not end.microsecond),
            ("end of the CA", end <= ca.not_valid_after_utc),
            ("begin of the CA", ca.not_valid_before_utc <= now),
            ("a key of its own", template.public_key != ca_key),
            ("key of the CA", isinstance(ca_key, ec.EllipticCurvePublicKey)),
        )
        check_public_key(template.public_key)
        _refuse("template", [name for name, holds in bounds if not holds])
        builder = responder_builder(template)
        built = builder.sign(throwaway_key(check_public_key(ca_key)), hashes.SHA256())
        _refuse("certificate", _wrong_in(built, template))
        return CheckedResponder(template, built.tbs_certificate_bytes)


def responder_builder(template: ResponderTemplate) -> x509.CertificateBuilder:
    """The builder of a responder's certificate."""
    key_id = x509.SubjectKeyIdentifier.from_public_key(template.public_key)
    above = bytes.fromhex(subject_key_id(template.ca))
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(key_id))
        .issuer_name(template.ca.subject)
        .public_key(template.public_key)
        .serial_number(template.serial)
        .not_valid_before(template.not_before)
        .not_valid_after(template.not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), critical=False)
        .add_extension(x509.OCSPNoCheck(), critical=False)
        .add_extension(key_id, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(above, None, None), critical=False)
    )


def sign_responder(checked: CheckedResponder, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Sign what a profile allowed.

    Raises:
        InvalidCertificate: what was signed has other bytes than what was checked, or the signature
            is not the CA's.
    """
    signed = responder_builder(checked.template).sign(key, hashes.SHA256())
    if signed.tbs_certificate_bytes != checked.tbs:
        raise InvalidCertificate("the certificate that was signed is not the one that was meant")
    try:
        signed.verify_directly_issued_by(checked.template.ca)
    except Exception as error:
        raise InvalidCertificate("the responder's certificate is not signed by its CA") from error
    return signed


def _wrong_in(built: x509.Certificate, template: ResponderTemplate) -> Iterator[str]:
    """What of a responder's certificate is not as RFC 6960 §4.2.2.2 and RFC 5280 §4.2 demand."""
    found: dict[type[x509.ExtensionType], x509.Extension[Any]] = {
        type(each.value): each for each in built.extensions
    }
    for kind, extension in found.items():
        # A subjectAltName would be a name, and is refused here like anything else that is new.
        if _CRITICAL.get(kind) is not extension.critical:
            yield extension.oid.dotted_string
    if missing := _CRITICAL.keys() - found.keys():
        yield ", ".join(sorted(kind.__name__ for kind in missing))
        return
    key_id = x509.SubjectKeyIdentifier.from_public_key(template.public_key)
    above = found[x509.AuthorityKeyIdentifier].value.key_identifier or b""
    constraints = found[x509.BasicConstraints].value
    holds = {
        "basicConstraints": constraints == x509.BasicConstraints(ca=False, path_length=None),
        "keyUsage": found[x509.KeyUsage].value == _USAGE,
        "extKeyUsage": list(found[x509.ExtendedKeyUsage].value)
        == [ExtendedKeyUsageOID.OCSP_SIGNING],
        "subjectKeyIdentifier": found[x509.SubjectKeyIdentifier].value == key_id,
        "authorityKeyIdentifier": above.hex() == subject_key_id(template.ca),
        "public key": built.public_key() == template.public_key,
        "serial number": built.serial_number == template.serial,
        "validity": (built.not_valid_before_utc, built.not_valid_after_utc)
        == (template.not_before, template.not_after),
        "issuer": built.issuer == template.ca.subject,
        "subject": built.subject == _subject(key_id),
    }
    yield from (name for name, right in holds.items() if not right)


def _subject(key_id: x509.SubjectKeyIdentifier) -> x509.Name:
    name = f"Accredit OCSP responder {key_id.digest.hex()[:16]}"
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _refuse(what: str, broken: Iterator[str] | list[str]) -> None:
    if names := ", ".join(broken):
        raise ProfileViolation(f"OCSP responder's {what} breaks its profile: {names}")


_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)

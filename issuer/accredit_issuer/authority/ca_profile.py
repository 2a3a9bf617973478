"""What CA certificates may be signed: the decision before an issuing CA or a root comes to be.

``CaProfile.check`` compares the template with the bounds, has the certificate built and signed by
a key that is thrown away, and reads that certificate again; ``sign_ca`` takes nothing else, and
what it signs must have the very bytes that were read.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from accredit_credentials.errors import InvalidCertificate
from accredit_credentials.keys import PrivateKey, PublicKey, check_public_key
from accredit_credentials.spiffe_id import TrustDomain
from accredit_credentials.x509_template import CaTemplate, ca_builder, subject_key_id
from accredit_issuer.authority.profile import RANDOM_BITS, REPLICA_BITS, ProfileViolation
from accredit_issuer.keys.throwaway import throwaway_key

_SECOND = timedelta(seconds=1)
_MAX_NAME = 64  # characters of a common name (RFC 5280, appendix A.1, ub-common-name)
_CRITICAL: dict[type[x509.ExtensionType], bool] = {
    x509.BasicConstraints: True,
    x509.KeyUsage: True,
    x509.NameConstraints: True,
    x509.SubjectKeyIdentifier: False,
    x509.AuthorityKeyIdentifier: False,
    x509.SubjectAlternativeName: False,
}


@dataclass(frozen=True, slots=True)
class CheckedCa:
    """A CA certificate that may be signed. Only ``CaProfile.check`` makes one."""

    template: CaTemplate
    tbs: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaProfile:
    """The bounds of one kind of CA.

    Attributes:
        trust_domain: the only one to be a CA of.
        max_lifetime: from now to notAfter.
        backdate: how far notBefore lies in the past, for clocks that are behind.
        replica: whose serial numbers these are.
        path_length: of every one of its kind; None is without a limit, for a root.
    """

    trust_domain: TrustDomain
    max_lifetime: timedelta
    backdate: timedelta
    replica: int
    path_length: int | None

    def check(self, template: CaTemplate, signer: PublicKey, now: datetime) -> CheckedCa:
        """Decide whether this CA may be certified by the holder of ``signer`` now.

        Raises:
            ProfileViolation: a bound is broken, or the certificate is not what was meant; the text
                names what.
            InvalidKey: a key that no CA has.
        """
        above, begin, end = template.issuer, template.not_before, template.not_after
        bounds = (
            ("trust domain", template.trust_domain == self.trust_domain),
            ("path length", template.path_length == self.path_length),
            ("serial", template.serial >> RANDOM_BITS == 1 << REPLICA_BITS | self.replica),
            ("notBefore", now - self.backdate - _SECOND <= begin <= now),
            ("notAfter", now < end <= now + self.max_lifetime),
            ("whole seconds", not begin.microsecond and not end.microsecond),
            ("end of the CA above", above is None or end <= above.not_valid_after_utc),
            ("begin of the CA above", above is None or above.not_valid_before_utc <= now),
            ("key of the CA above", (template.public_key if above is None else above.public_key())
             == signer),
            ("name", 0 < len(template.common_name) <= _MAX_NAME),
        )  # fmt: skip
        check_public_key(template.public_key)
        _refuse("template", [name for name, holds in bounds if not holds])
        built = ca_builder(template).sign(throwaway_key(signer), hashes.SHA256())
        _refuse("certificate", _wrong_in(built, template))
        return CheckedCa(template, built.tbs_certificate_bytes)


def sign_ca(checked: CheckedCa, key: PrivateKey) -> x509.Certificate:
    """Sign what a profile allowed.

    Raises:
        InvalidCertificate: what was signed has other bytes than what was checked, or the signature
            is not the key's.
    """
    signed = ca_builder(checked.template).sign(key, hashes.SHA256())
    if signed.tbs_certificate_bytes != checked.tbs:
        raise InvalidCertificate("the CA certificate that was signed is not the one that was meant")
    above = checked.template.issuer
    try:
        signed.verify_directly_issued_by(signed if above is None else above)
    except Exception as error:
        raise InvalidCertificate("the CA certificate is not signed by the CA above it") from error
    return signed


def _wrong_in(built: x509.Certificate, template: CaTemplate) -> Iterator[str]:
    """What of a CA certificate is not as RFC 5280 §4.2 and X509-SVID §3.2, §4 demand."""
    found: dict[type[x509.ExtensionType], x509.Extension[Any]] = {
        type(each.value): each for each in built.extensions
    }
    for kind, extension in found.items():
        if _CRITICAL.get(kind) is not extension.critical:
            yield extension.oid.dotted_string
    if missing := _CRITICAL.keys() - {x509.NameConstraints} - found.keys():
        yield ", ".join(sorted(kind.__name__ for kind in missing))
        return
    constraints = found[x509.BasicConstraints].value
    usage = found[x509.KeyUsage].value
    key_id = x509.SubjectKeyIdentifier.from_public_key(template.public_key).digest
    above = subject_key_id(template.issuer) if template.issuer else key_id.hex()
    names = list(found[x509.SubjectAlternativeName].value)
    holds = {
        "basicConstraints": constraints == x509.BasicConstraints(True, template.path_length),
        "keyUsage": usage == _CA_USAGE,
        "subjectKeyIdentifier": found[x509.SubjectKeyIdentifier].value.digest == key_id,
        "authorityKeyIdentifier": (found[x509.AuthorityKeyIdentifier].value.key_identifier or b"")
        == bytes.fromhex(above),
        "subjectAltName": names == [x509.UniformResourceIdentifier(str(template.trust_domain.id))],
        "public key": built.public_key() == template.public_key,
        "serial number": built.serial_number == template.serial,
        "validity": (built.not_valid_before_utc, built.not_valid_after_utc)
        == (template.not_before, template.not_after),
        "issuer": built.issuer == (template.issuer.subject if template.issuer else built.subject),
        "subject": bool(list(built.subject)),
    }
    yield from (name for name, right in holds.items() if not right)


def _refuse(what: str, broken: Iterator[str] | list[str]) -> None:
    if names := ", ".join(broken):
        raise ProfileViolation(f"CA {what} breaks its profile: {names}")


_CA_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)

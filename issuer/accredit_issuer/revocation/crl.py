"""The CRL of one issuing CA, as a pure function of its entries (RFC 5280 §5)."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from accredit_credentials.x509_template import subject_key_id


@dataclass(frozen=True, slots=True)
class CrlEntry:
    """One certificate that is not to be accepted."""

    serial: str
    at: datetime
    suspended: bool


def build_crl(
    ca: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    entries: Iterable[CrlEntry],
    *,
    number: int,
    now: datetime,
    lifetime: timedelta,
) -> bytes:
    """Sign a complete CRL, DER; ``number`` grows with each one of this CA (§5.2.3)."""
    this_update = now.replace(microsecond=0)
    builder = (
        x509.CertificateRevocationListBuilder(revoked_certificates=[_revoked(e) for e in entries])
        .issuer_name(ca.subject)
        .last_update(this_update)
        .next_update(this_update + lifetime)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier(bytes.fromhex(subject_key_id(ca)), None, None),
            critical=False,
        )
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _revoked(entry: CrlEntry) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(int(entry.serial, 16))
        .revocation_date(entry.at.replace(microsecond=0))
    )
    if entry.suspended:
        builder = builder.add_extension(
            x509.CRLReason(x509.ReasonFlags.certificate_hold), critical=False
        )
    return builder.build()

"""A CRL as the library makes it: what ours is compared with."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from accredit_credentials.crl_der import Times
from accredit_credentials.keys import PrivateKey
from accredit_credentials.x509_template import subject_key_id


@dataclass(frozen=True, slots=True)
class Listed:
    """One certificate on it."""

    serial: int
    at: datetime
    suspended: bool


def library_crl(
    ca: x509.Certificate, key: PrivateKey, entries: Iterable[Listed], times: Times
) -> x509.CertificateRevocationList:
    """A complete CRL, signed."""
    builder = (
        x509.CertificateRevocationListBuilder(revoked_certificates=[_revoked(e) for e in entries])
        .issuer_name(ca.subject)
        .last_update(times.this_update.replace(microsecond=0))
        .next_update(times.next_update.replace(microsecond=0))
        .add_extension(x509.CRLNumber(times.number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier(bytes.fromhex(subject_key_id(ca)), None, None),
            critical=False,
        )
    )
    return builder.sign(key, hashes.SHA256())


def _revoked(entry: Listed) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(entry.serial)
        .revocation_date(entry.at.replace(microsecond=0))
    )
    if entry.suspended:
        builder = builder.add_extension(
            x509.CRLReason(x509.ReasonFlags.certificate_hold), critical=False
        )
    return builder.build()

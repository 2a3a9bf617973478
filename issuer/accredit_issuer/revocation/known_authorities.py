"""Which authorities a fact can be stated about, and when they end: ours, and subordinates'.

The issuing CA of a subordinate is known from its row, or from the certificate that was released
for it: a row that somebody took away must not keep a living CA from being revoked.
"""

from datetime import datetime

from cryptography import x509
from sqlalchemy import func, select

from accredit_credentials.bundle import UNREADABLE
from accredit_credentials.errors import CredentialError
from accredit_credentials.x509_template import subject_key_id
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.store.models import authorities, credentials, releases, subordinate_cas
from accredit_issuer.store.writer import Transaction


def end_of_authority(transaction: Transaction, key_id: str, now: datetime) -> datetime | None:
    """The latest end of what was certified for a key, or of a JWT key.

    None where it is no authority that a fact can be about: a root, or unknown.
    """
    ends = [
        transaction.execute(
            select(func.max(authorities.c.expires_at)).where(
                authorities.c.id == key_id, authorities.c.kind != AuthorityKind.ROOT.value
            )
        ).scalar(),
        transaction.execute(
            select(func.max(subordinate_cas.c.expires_at)).where(subordinate_cas.c.id == key_id)
        ).scalar(),
    ]
    known = [end for end in ends if end is not None]
    return max(known) if known else _end_of_released(transaction, key_id, now)


def _end_of_released(transaction: Transaction, key_id: str, now: datetime) -> datetime | None:
    living = transaction.execute(
        select(releases.c.certificate, credentials.c.expires_at)
        .join_from(credentials, releases, releases.c.number == credentials.c.number)
        .where(credentials.c.kind == "ca", credentials.c.expires_at > now)
    )
    ends = [row.expires_at for row in living if _key_of(row.certificate) == key_id]
    return max(ends, default=None)


def _key_of(der: bytes | None) -> str | None:
    try:
        return None if der is None else subject_key_id(x509.load_der_x509_certificate(der))
    except (*UNREADABLE, CredentialError):
        return None

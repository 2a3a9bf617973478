"""CRLs as the database keeps them: everything but their bytes, which follow from the rows.

Kept are number, moments and signature; the entries are the rows of ``revoked_certificate``. A CRL
made again of them is the one that was published exactly where the signature is over it, so whatever
was changed behind the issuer's back shows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, select
from sqlalchemy.dialects.sqlite import insert as upsert

from accredit_credentials.crl_der import Times
from accredit_credentials.leaf_der import IssuingCa
from accredit_issuer.authority.stored import AuthorityDamaged, Stored
from accredit_issuer.revocation.crl import Crl, Entries, rebuild_crl
from accredit_issuer.revocation.projection import EntriesDamaged, entries_in
from accredit_issuer.store.models import authorities, crls
from accredit_issuer.store.writer import Transaction


@dataclass(frozen=True, slots=True)
class KeptCrl:
    """One CRL of the database.

    Attributes:
        row: as it is kept.
        entries: those of the rows.
        crl: made again; None where it cannot be, or is not what was signed.
        problem: why; empty where nothing is wrong.
    """

    row: Row[Any]
    entries: Entries = field(repr=False)
    crl: Crl | None = field(repr=False)
    problem: str


def read_crls(connection: Connection) -> Iterator[KeptCrl]:
    """Every CRL of the database, one at a time."""
    rows = connection.execute(select(crls).order_by(crls.c.authority)).all()
    for row in rows:
        try:
            entries = Entries().changed(entries_in(connection, row.authority))
        except EntriesDamaged:
            yield KeptCrl(row, Entries(), None, "one of its entries cannot be read")
            continue
        ca = _ca(connection, row.authority)
        if ca is None:
            yield KeptCrl(row, entries, None, "its authority is not known")
            continue
        times = Times(number=row.number, this_update=row.this_update, next_update=row.next_update)
        crl = rebuild_crl(
            ca, entries, times, scheduled_at=row.scheduled_at, signature=row.signature
        )
        problem = "" if crl else "its authority did not sign what its rows say"
        yield KeptCrl(row, entries, crl, problem)


def keep(transaction: Transaction, crl: Crl) -> None:
    """Write down a CRL that was signed."""
    values = {
        "number": crl.times.number,
        "this_update": crl.times.this_update,
        "next_update": crl.times.next_update,
        "scheduled_at": crl.scheduled_at,
        "signature": crl.signature,
    }
    transaction.execute(
        upsert(crls)
        .values(authority=crl.authority, **values)
        .on_conflict_do_update(index_elements=["authority"], set_=values)
    )


def _ca(connection: Connection, authority: str) -> IssuingCa | None:
    row = connection.execute(select(authorities).where(authorities.c.id == authority)).first()
    try:
        stored = None if row is None else Stored.of_row(row)
    except AuthorityDamaged:
        return None
    if stored is None or stored.certificate is None:
        return None
    return IssuingCa(stored.certificate)

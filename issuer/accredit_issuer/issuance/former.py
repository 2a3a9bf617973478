"""SVIDs that are over: whether the holder of one's key may still be who it was.

A machine that slept through its renewal has nothing but an expired SVID and its key. The key proves
that it is the same holder (``accredit_attestors.former_svid``). Decided here is whether that
counts: over since no longer than the grace, no fact stands against it (facts about instances leave
the memory soon after everything that they match has ended, so the table is asked), and its holder
has no later one. A stolen key that its owner replaced after it was over gets nothing.
"""

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from sqlalchemy import Connection, select

from accredit_attestors.contract import FormerRecord
from accredit_credentials.errors import Revoked
from accredit_credentials.keys import check_public_key
from accredit_credentials.revocation import FactSet
from accredit_credentials.x509_svid import X509Svid, unverified_svid
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.revocation.revocation import fact_of
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import credentials, facts, log_leaves, releases

DETAIL = "former"  # where the log names the SVID that proved who asked


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerSvid:
    """An SVID that was released, and what became of it.

    Attributes:
        svid: as it was released.
        instance: whose it is.
        expires_at: when it ended, or will.
        facts: every fact that was ever stated against something that it carries, as they stand.
        renewed_at: when a later one of the instance was decided on; None where there is none.
        renewed_for: the serial number of the SVID that the latest one was given for by this very
            way; None where it was given in another.
    """

    svid: X509Svid
    instance: str
    expires_at: datetime
    facts: FactSet = field(repr=False)
    renewed_at: datetime | None = None
    renewed_for: str | None = None

    @property
    def record(self) -> FormerRecord:
        """As verifiers of evidence take it."""
        return FormerRecord(
            spiffe_id=self.svid.spiffe_id,
            serial=self.svid.serial,
            sha256=self.svid.sha256,
            key=check_public_key(self.svid.leaf.public_key()),
        )


def decide_former(former: FormerSvid, *, grace: timedelta, now: datetime) -> tuple[str, ...]:
    """Decide whether an SVID that is over still proves whose its key is; returns the reasons.

    Raises:
        Refusal: it is not over, or for too long; revoked; or its holder has a later one.
    """
    serial, end = former.svid.serial, former.expires_at
    if not grace:
        raise Refusal(Kind.ATTESTATION_REFUSED, "an SVID that is over proves nothing here")
    try:
        former.facts.check(former.svid.marks())
    except Revoked as error:
        raise Refusal(Kind.REVOKED, str(error)) from None
    if now < end:
        raise Refusal(Kind.ATTESTATION_REFUSED, f"the SVID {serial} is not over: renew with it")
    if now >= end + grace:
        raise Refusal(
            Kind.ATTESTATION_REFUSED,
            f"the SVID {serial} is over for more than {grace.total_seconds():.0f} s",
        )
    # Renewed while it was valid, or by this way with this very SVID: the answer may have been
    # lost, and asking again is honest.
    renewed = former.renewed_at is not None and former.renewed_at >= end
    if renewed and former.renewed_for != serial:
        raise Refusal(Kind.ATTESTATION_REFUSED, f"the holder of the SVID {serial} has a later one")
    within = f"within the grace of {grace.total_seconds():.0f} s"
    return (f"the key of the SVID {serial}, over since {end:%Y-%m-%dT%H:%M:%SZ}, signed {within}",)


class Formers:
    """Looks SVIDs up that were released."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, serial: str) -> FormerSvid | None:
        """A released X.509-SVID by its serial number; None where there is none."""
        with self._database.read() as connection:
            row = connection.execute(
                select(credentials, releases.c.certificate)
                .join_from(credentials, releases, releases.c.number == credentials.c.number)
                .where(credentials.c.id == serial, credentials.c.kind == "x509")
            ).first()
            if row is None or row.certificate is None:
                return None
            svid = unverified_svid([x509.load_der_x509_certificate(row.certificate)])
            renewed_at, renewed_for = _latest(connection, row.instance, row.number)
            return FormerSvid(
                svid=svid,
                instance=row.instance,
                expires_at=row.expires_at,
                facts=stated_against(connection, svid.marks()),
                renewed_at=renewed_at,
                renewed_for=renewed_for,
            )


def _latest(
    connection: Connection, instance: str, number: int
) -> tuple[datetime | None, str | None]:
    """When the instance's latest SVID after this one was decided on, and by which it was proved."""
    row = connection.execute(
        select(credentials.c.decided_at, log_leaves.c.leaf)
        .join_from(credentials, releases, releases.c.number == credentials.c.number)
        .join(log_leaves, log_leaves.c.index == releases.c.log_index)
        .where(
            credentials.c.instance == instance,
            credentials.c.kind == "x509",
            credentials.c.number > number,
        )
        .order_by(credentials.c.number.desc())
        .limit(1)
    ).first()
    if row is None:
        return None, None
    return row.decided_at, json.loads(row.leaf)["details"].get(DETAIL)


def stated_against(connection: Connection, marks: tuple[str, ...]) -> FactSet:
    """Every fact that was ever stated against one of these marks, as they stand."""
    rows = connection.execute(
        select(facts).where(facts.c.target.in_(marks)).order_by(facts.c.sequence)
    )
    return FactSet(fact_of(row) for row in rows)

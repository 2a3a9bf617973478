"""SVIDs that are over: whether the holder of one's key may still be who it was.

A machine that slept through its renewal has nothing but an expired SVID and its key. The key proves
that it is the same holder (``accredit_attestors.former_svid``). Decided here is whether that
counts: over since no longer than the grace, no fact stands against it (facts about instances leave
the memory soon after everything that they match has ended, so the table is asked), and its holder
has no later one. A stolen key that its owner replaced, before or after it was over, gets nothing.

An answer may be lost, and asking again is honest. Who asks again asks for the same new key: so an
SVID that has a later one counts for the very key of the latest, and for no other. Whoever has only
the old key cannot make a request that is signed by that one.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from sqlalchemy import Connection, select

from accredit_attestors.contract import FormerRecord
from accredit_credentials.errors import Revoked
from accredit_credentials.keys import check_public_key, public_key_der
from accredit_credentials.revocation import FactSet
from accredit_credentials.x509_svid import X509Svid, unverified_svid
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.revocation.stated import stated_against
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import credentials, releases

DETAIL = "former"  # where the log names the SVID that proved who asked


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerSvid:
    """An SVID that was released, and what became of it.

    Attributes:
        svid: as it was released.
        instance: whose it is.
        expires_at: when it ended, or will.
        facts: every fact that was ever stated against something that it carries, as they stand.
        later_key: the public key (DER) of the latest one that the instance was given after it;
            None where there is no later one, empty where its key is not known any more.
    """

    svid: X509Svid
    instance: str
    expires_at: datetime
    facts: FactSet = field(repr=False)
    later_key: bytes | None = field(default=None, repr=False)

    @property
    def record(self) -> FormerRecord:
        """As verifiers of evidence take it."""
        return FormerRecord(
            spiffe_id=self.svid.spiffe_id,
            serial=self.svid.serial,
            sha256=self.svid.sha256,
            key=check_public_key(self.svid.leaf.public_key()),
        )


def decide_former(
    former: FormerSvid, *, public_key: bytes, grace: timedelta, now: datetime
) -> tuple[str, ...]:
    """Decide whether an SVID that is over still proves whose its key is; returns the reasons.

    Args:
        former: the SVID, and what became of it.
        public_key: the new key that is asked for (DER).
        grace: how long after its end it counts.
        now: the moment.

    Raises:
        Refusal: it is not over, or for too long; revoked; or its holder has a later one, which is
            of another key than the one that is asked for.
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
    if former.later_key is not None and former.later_key != public_key:
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
            return FormerSvid(
                svid=svid,
                instance=row.instance,
                expires_at=row.expires_at,
                facts=stated_against(connection, svid.marks()),
                later_key=_later_key(connection, row.instance, row.number),
            )


def _later_key(connection: Connection, instance: str, number: int) -> bytes | None:
    """The key of the instance's latest SVID after this one, as ``FormerSvid`` has it."""
    row = connection.execute(
        select(releases.c.certificate)
        .join_from(credentials, releases, releases.c.number == credentials.c.number)
        .where(
            credentials.c.instance == instance,
            credentials.c.kind == "x509",
            credentials.c.number > number,
        )
        .order_by(credentials.c.number.desc())
        .limit(1)
    ).first()
    if row is None:
        return None
    if row.certificate is None:
        return b""
    return public_key_der(
        check_public_key(x509.load_der_x509_certificate(row.certificate).public_key())
    )

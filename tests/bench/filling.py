"""Databases with many credentials and facts in them, written the issuer's own way."""

import uuid
from datetime import timedelta

from accredit_issuer.audit.records import Record, RecordKind
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.authority.profile import new_serial
from accredit_issuer.issuer import Issuer
from accredit_issuer.store.bulk import BulkInsert
from accredit_issuer.store.models import credentials, facts, releases, revoked_certificates
from accredit_issuer.store.writer import Transaction

GROUP = 5000
FIRST = 10_000_000  # numbers that the issuer itself does not come to
AGENT = "stored/agent"


def store(issuer: Issuer, *, issued: int, revoked: int) -> list[str]:
    """Record this many certificates as issued, and the first of them as revoked.

    Credentials, releases, records of the log, facts and CRL entries are all there, as if each had
    been asked for. Returns the serials that are not revoked.
    """
    living: list[str] = []
    for start in range(0, issued, GROUP):
        numbers = range(start, min(start + GROUP, issued))
        serials = [format(new_serial(), "x") for _ in numbers]
        doomed = serials[: max(0, min(len(serials), revoked - start))]
        living += serials[len(doomed) :]
        issuer.writer.run(
            lambda t, serials=serials, doomed=doomed, start=start: _write(  # type: ignore[misc]
                issuer, t, serials, doomed, start
            ),
            alone=True,
        ).result()
    return living


def _write(
    issuer: Issuer, transaction: Transaction, serials: list[str], doomed: list[str], start: int
) -> None:
    now = issuer.clock()
    ends = now + timedelta(hours=1)
    authority = issuer.authorities.now_in_force.active(AuthorityKind.X509).id
    instance = str(uuid.uuid4())
    for number, serial in enumerate(serials, start=FIRST + start):
        index = transaction.record(
            Record(
                kind=RecordKind.CREDENTIAL_ISSUED,
                at=now,
                actor=f"spiffe://example.org/ns/{AGENT}",
                subject=serial,
                details={"credential": "x509", "instance": instance, "reasons": ["stored"] * 5},
            )
        )
        transaction.add(
            _CREDENTIAL, {**_credential(serial, instance, authority, now, ends), "number": number}
        )
        transaction.add(_RELEASE, {"number": number, "log_index": index})
    for sequence, serial in enumerate(doomed, start=start + 1):
        transaction.add(
            _FACT,
            {
                "sequence": sequence,
                "target": f"serial:{serial}",
                "kind": "revoked",
                "at": now,
                "expires_at": ends,
                "actor": "bench",
                "reason": "stored",
                "log_index": 0,
            },
        )
        transaction.add(
            _ENTRY,
            {
                "serial": serial,
                "authority": authority,
                "fact": sequence,
                "suspended": False,
                "at": now,
                "expires_at": ends,
            },
        )


def _credential(serial: str, instance: str, authority: str, now: object, ends: object) -> dict:
    return {
        "id": serial,
        "kind": "x509",
        "subject": "spiffe://example.org/ns/stored/agent/agent",
        "instance": instance,
        "admin": None,
        "task": None,
        "authority": authority,
        "decided_at": now,
        "expires_at": ends,
    }


_CREDENTIAL, _RELEASE = BulkInsert(credentials), BulkInsert(releases)
_FACT, _ENTRY = BulkInsert(facts), BulkInsert(revoked_certificates)

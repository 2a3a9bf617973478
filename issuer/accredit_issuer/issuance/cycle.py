"""The issuance cycle: record the intent → sign → record the outcome → release.

Every credential goes this way, whatever its kind. The intent is durable before anything is signed,
so whatever was ever signed can be found and revoked. The outcome, with its record in the log, is
durable before the credential is released; in that same moment the facts are asked once more, on
the thread that puts facts into force: what was revoked while it was being made is not released.

Several credentials of one request share both commits: all of them are released, or none.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, func, select

from accredit_issuer.audit.records import Record, RecordKind
from accredit_issuer.issuance.decision import check_not_revoked
from accredit_issuer.revocation.revocation import Revocation
from accredit_issuer.store.bulk import BulkInsert
from accredit_issuer.store.loop_writer import LoopWriter
from accredit_issuer.store.models import credentials, releases
from accredit_issuer.store.writer import Transaction

T = TypeVar("T")

_CREDENTIAL = BulkInsert(credentials)
_RELEASE = BulkInsert(releases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What is about to be signed, and why.

    Attributes:
        id: serial in hex, or jti.
        kind: x509, jwt, wit, task or ca.
        subject: the SPIFFE ID it speaks of.
        marks: what a revocation fact can match once it is signed.
        reasons: why it was granted, for the log.
        status: where the token's status stands: the list, and the index in it.
        details: what else the log should say.
    """

    id: str
    kind: str
    subject: str
    instance: str
    authority: str
    decided_at: datetime
    expires_at: datetime
    marks: tuple[str, ...] = field(repr=False)
    reasons: tuple[str, ...] = field(repr=False)
    manifest: str | None = None
    admin: str | None = None
    task: str | None = None
    status: tuple[str, int] | None = None
    details: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Signed(Generic[T]):
    """A signed credential.

    Attributes:
        value: what is released.
        content: its bytes, whose digest goes into the log.
        certificate: DER, where it is kept for the audit.
    """

    value: T
    content: bytes = field(repr=False)
    certificate: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Wanted(Generic[T]):
    """An intent and what signs it."""

    intent: Intent
    sign: Callable[[], Signed[T]]


class Cycle:
    """Takes intents to released credentials."""

    def __init__(self, writer: LoopWriter, revocation: Revocation, connection: Connection) -> None:
        self._writer = writer
        self._revocation = revocation
        last = connection.scalar(select(func.max(credentials.c.number))) or 0
        # Drawn on the writing thread, and nobody else writes: see ``issuer.Lock``.
        self._numbers = count(last + 1)

    async def issue(
        self,
        intent: Intent,
        sign: Callable[[], Signed[T]],
        *,
        beside: Callable[[Transaction], None] | None = None,
        still: Callable[[Transaction], None] | None = None,
    ) -> T:
        """Record, sign, record, release; ``beside`` is recorded together with the intent.

        ``still`` is asked with the release, beside the facts, and refuses where what was decided
        does not hold any more.

        Raises:
            Refusal: ``beside`` or ``still`` refused, or a fact came in between.
            Unavailable: something could not be recorded or signed; nothing is released.
        """
        return (await self.issue_all([Wanted(intent, sign)], beside=beside, still=still))[0]

    async def issue_all(
        self,
        wanted: Sequence[Wanted[T]],
        *,
        beside: Callable[[Transaction], None] | None = None,
        still: Callable[[Transaction], None] | None = None,
    ) -> list[T]:
        """As ``issue``, for all of them or none.

        Raises:
            Refusal: ``beside`` or ``still`` refused, or a fact came in between.
            Unavailable: something could not be recorded or signed; nothing is released.
        """

        def intend(transaction: Transaction) -> list[int]:
            if beside is not None:
                beside(transaction)
            return [self._intend(transaction, each.intent) for each in wanted]

        numbers = await self._writer.run(intend)
        signed = [each.sign() for each in wanted]
        # What goes into the log is written down here; the writing thread has enough to do.
        outcomes = [
            _Outcome(number, each.intent, made)
            for number, each, made in zip(numbers, wanted, signed, strict=True)
        ]

        def release(transaction: Transaction) -> None:
            if still is not None:
                still(transaction)
            for outcome in outcomes:
                self._release(transaction, outcome)

        await self._writer.run(release)
        return [each.value for each in signed]

    def _intend(self, transaction: Transaction, intent: Intent) -> int:
        number = next(self._numbers)
        transaction.add(_CREDENTIAL, _row_of(intent, number))
        return number

    def _release(self, transaction: Transaction, outcome: "_Outcome") -> None:
        check_not_revoked(outcome.intent.marks, self._revocation.facts)
        index = transaction.append(outcome.leaf)
        row = {
            "number": outcome.number,
            "log_index": index,
            "sha256": outcome.digest,
            "certificate": outcome.certificate,
        }
        transaction.add(_RELEASE, row)


class _Outcome:
    """What is recorded of one signature."""

    __slots__ = ("certificate", "digest", "intent", "leaf", "number")

    def __init__(self, number: int, intent: Intent, signed: Signed[Any]) -> None:
        self.number = number
        self.intent = intent
        self.digest = hashlib.sha256(signed.content).digest()
        self.certificate = signed.certificate
        self.leaf = Record(
            kind=RecordKind.CREDENTIAL_ISSUED,
            at=intent.decided_at,
            actor=intent.subject,
            subject=intent.id,
            details=_details_of(intent, self.digest.hex()),
        ).leaf()


def _row_of(intent: Intent, number: int) -> dict[str, Any]:
    status_list, status_index = intent.status or (None, None)
    return {
        "number": number,
        "id": intent.id,
        "kind": intent.kind,
        "subject": intent.subject,
        "instance": intent.instance,
        "admin": intent.admin,
        "task": intent.task,
        "authority": intent.authority,
        "decided_at": intent.decided_at,
        "expires_at": intent.expires_at,
        "status_list": status_list,
        "status_index": status_index,
    }


def _details_of(intent: Intent, digest: str) -> dict[str, Any]:
    details: dict[str, Any] = {
        "credential": intent.kind,
        "instance": intent.instance,
        "authority": intent.authority,
        "expires_at": f"{intent.expires_at.isoformat()[:19]}Z",
        "reasons": intent.reasons,
        "sha256": digest,
    }
    if intent.manifest is not None:
        details["manifest"] = intent.manifest
    if intent.status is not None:
        details["status_list"], details["status_index"] = intent.status
    details |= {name: value for name, value in intent.details.items() if value is not None}
    return details

"""The issuance cycle: record the intent → sign → record the outcome → release.

Every credential goes this way, whatever its kind. The intent is durable before anything is signed,
so whatever was ever signed can be found and revoked. The outcome, with its record in the log, is
durable before the credential is released; in that same moment the facts are asked once more, on
the thread that puts facts into force: what was revoked while it was being made is not released.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import insert

from accredit_issuer.audit.records import Record, RecordKind
from accredit_issuer.errors import Refusal
from accredit_issuer.issuance.decision import check_not_revoked
from accredit_issuer.revocation.revocation import Revocation
from accredit_issuer.store.loop_writer import LoopWriter
from accredit_issuer.store.models import credentials, releases
from accredit_issuer.store.writer import Transaction

T = TypeVar("T")

_INSERT_CREDENTIAL = insert(credentials)
_INSERT_RELEASE = insert(releases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What is about to be signed, and why.

    Attributes:
        id: serial in hex, or jti.
        kind: x509, jwt or task.
        subject: the SPIFFE ID it speaks of.
        marks: what a revocation fact can match once it is signed.
        reasons: why it was granted, for the log.
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
    agent: str | None = None
    namespace: str | None = None
    manifest: str | None = None
    admin: str | None = None
    task: str | None = None
    details: dict[str, Any] = field(default_factory=dict, repr=False)


class Cycle:
    """Takes an intent to a released credential."""

    def __init__(self, writer: LoopWriter, revocation: Revocation) -> None:
        self._writer = writer
        self._revocation = revocation

    async def issue(
        self,
        intent: Intent,
        sign: Callable[[], T],
        *,
        beside: Callable[[Transaction], None] | None = None,
    ) -> T:
        """Record, sign, record, release; ``beside`` is recorded together with the intent.

        Raises:
            Refusal: ``beside`` refused, or a fact came in between.
            Unavailable: something could not be recorded; nothing is released.
        """

        def intend(transaction: Transaction) -> None:
            if beside is not None:
                beside(transaction)
            transaction.add(_INSERT_CREDENTIAL, _row_of(intent))

        await self._writer.run(intend)
        signed = sign()
        await self._writer.run(lambda transaction: self._release(transaction, intent))
        return signed

    def _release(self, transaction: Transaction, intent: Intent) -> None:
        check_not_revoked(intent.marks, self._revocation.facts)
        index = transaction.record(
            Record(
                kind=RecordKind.CREDENTIAL_ISSUED,
                at=intent.decided_at,
                actor=intent.subject,
                subject=intent.id,
                details=_details_of(intent),
            )
        )
        transaction.add(_INSERT_RELEASE, {"credential": intent.id, "log_index": index})


async def record_refusal(
    writer: LoopWriter, *, actor: str, asked: str, refusal: Refusal, now: datetime
) -> None:
    """Put a refusal of somebody known into the log."""
    record = Record(
        kind=RecordKind.REQUEST_REFUSED,
        at=now,
        actor=actor,
        subject=asked,
        details={"problem": refusal.kind.wire, "reason": refusal.detail},
    )

    def work(transaction: Transaction) -> None:
        transaction.record(record)

    await writer.run(work)


def _row_of(intent: Intent) -> dict[str, Any]:
    return {
        "id": intent.id,
        "kind": intent.kind,
        "subject": intent.subject,
        "agent": intent.agent,
        "namespace": intent.namespace,
        "instance": intent.instance,
        "manifest": intent.manifest,
        "admin": intent.admin,
        "task": intent.task,
        "authority": intent.authority,
        "decided_at": intent.decided_at,
        "expires_at": intent.expires_at,
    }


def _details_of(intent: Intent) -> dict[str, Any]:
    details = {
        "credential": intent.kind,
        "instance": intent.instance,
        "manifest": intent.manifest,
        "authority": intent.authority,
        "expires_at": f"{intent.expires_at:%Y-%m-%dT%H:%M:%SZ}",
        "reasons": list(intent.reasons),
        **intent.details,
    }
    return {name: value for name, value in details.items() if value is not None}

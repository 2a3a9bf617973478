"""Refusals of somebody known: each one is a record before it is answered."""

from accredit_credentials.spiffe_id import SpiffeId
from accredit_issuer.audit.records import Record, RecordKind
from accredit_issuer.clock import Clock
from accredit_issuer.errors import Refusal
from accredit_issuer.store.loop_writer import LoopWriter
from accredit_issuer.store.writer import Transaction


class Refusals:
    """Writes refusals into the log."""

    def __init__(self, writer: LoopWriter, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock

    async def record(self, actor: SpiffeId | str, asked: str, refusal: Refusal) -> None:
        """Record that somebody known was refused.

        Raises:
            Unavailable: it could not be recorded.
        """
        record = Record(
            kind=RecordKind.REQUEST_REFUSED,
            at=self._clock(),
            actor=str(actor),
            subject=asked,
            details={"problem": refusal.kind.wire, "reason": refusal.detail},
        )

        def work(transaction: Transaction) -> None:
            transaction.record(record)

        await self._writer.run(work)

"""Facts as somebody asks for them, and as they stand in their table."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from accredit_credentials.revocation import FactKind, FactSet, RevocationFact, Target
from accredit_issuer.audit.records import Record, RecordKind, written_moment
from accredit_issuer.registry.changes import Actor
from accredit_issuer.store.models import facts
from accredit_issuer.store.writer import Transaction


@dataclass(frozen=True, slots=True)
class StatedFact:
    """A fact, and who stated it."""

    fact: RevocationFact
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FactRequest:
    """What somebody wants to state."""

    target: Target
    kind: FactKind
    reason: str = field(repr=False)
    actor: Actor
    may_overrule: bool = True
    """Whether the actor may end a suspension that somebody else stated."""
    keep_newest: bool = False
    """Whether it is about each version of an agent but the newest in force, not about the agent."""


def fact_of(row: Row[Any]) -> RevocationFact:
    """A fact as it stands in its table."""
    return RevocationFact(
        sequence=row.sequence,
        target=Target.parse(row.target),
        kind=FactKind(row.kind),
        at=row.at,
        expires_at=row.expires_at,
        reason=row.reason,
    )


def stated_against(source: Connection | Transaction, marks: tuple[str, ...]) -> FactSet:
    """Every fact that was ever stated against one of these marks, as they stand."""
    rows = source.execute(select(facts).where(facts.c.target.in_(marks)).order_by(facts.c.sequence))
    return FactSet(fact_of(row) for row in rows)


def standing_about(
    source: Connection | Transaction, in_force: FactSet, target: Target
) -> RevocationFact | None:
    """The fact that stands about a target.

    One left the memory when nothing lived that it matched; who slept since may come back, and the
    table is asked then (``issuance.former``).
    """
    mark = (str(target),)
    return in_force.match(mark) or stated_against(source, mark).match(mark)


def write_fact(transaction: Transaction, fact: RevocationFact, actor: str) -> None:
    """Write a fact and its record."""
    log_index = transaction.record(
        Record(
            kind=RecordKind.FACT_STATED,
            at=fact.at,
            actor=actor,
            subject=str(fact.target),
            details={
                "sequence": fact.sequence,
                "fact": fact.kind.value,
                "reason": fact.reason,
                "expires_at": written_moment(fact.expires_at),
            },
        )
    )
    transaction.execute(
        insert(facts).values(
            sequence=fact.sequence,
            target=str(fact.target),
            kind=fact.kind.value,
            at=fact.at,
            expires_at=fact.expires_at,
            actor=actor,
            reason=fact.reason,
            log_index=log_index,
        )
    )

"""The facts that a verifier holds: as ``FactSet``, in a fifth of the room.

What an issuer does with its facts as a whole is quicker with the objects of a ``FactSet``; a
verifier only asks which of a credential's marks one is about, and there may be many of them.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from accredit_credentials.errors import Revoked
from accredit_credentials.fact_table import FactTable, Row
from accredit_credentials.revocation import (
    FactKind,
    RevocationFact,
    Target,
    TargetKind,
    refusal_of,
    successor,
)

FEW = 64  # rows that are not worth another table

_KINDS = tuple(FactKind)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class PackedFacts:
    """The facts in force. One thread applies, any number check meanwhile (see ``fact_table``)."""

    def __init__(self, facts: Iterable[RevocationFact] = ()) -> None:
        self._table = FactTable()
        for fact in facts:
            self.apply(fact)

    def apply(self, fact: RevocationFact) -> None:
        """Put one fact into force; facts come in the order of their sequence."""
        mark = str(fact.target)
        known = self.match((mark,))
        standing = successor(known, fact)
        if standing is not None:
            self._table.put(_row_of(mark, standing))
        elif known is not None:
            self._table.remove(mark)
        self._tidy()

    def match(self, marks: Iterable[str]) -> RevocationFact | None:
        """The fact that matches a credential with these marks, if any."""
        row = self._table.first(marks)
        return None if row is None else _fact_of(row)

    def check(self, marks: Iterable[str]) -> None:
        """Decide whether a credential with these marks may be accepted.

        Raises:
            Revoked: a fact matches; the message says which, since when and why.
        """
        fact = self.match(marks)
        if fact is not None:
            raise Revoked(refusal_of(fact))

    def drop_expired(self, now: datetime) -> int:
        """Forget facts that no living credential can match; returns how many."""
        over = self._table.over(_microseconds(now))
        for mark in over:
            self._table.remove(mark)
        self._tidy()
        return len(over)

    def marks_of(self, kind: TargetKind) -> frozenset[str]:
        """The marks of this kind that facts in force are about."""
        return frozenset(self._table.marks(f"{kind.value}:"))

    def __iter__(self) -> Iterator[RevocationFact]:
        return iter(sorted(map(_fact_of, self._table), key=lambda fact: fact.sequence))

    def __len__(self) -> int:
        return len(self._table)

    def _tidy(self) -> None:
        if self._table.waste > max(len(self._table), FEW):
            self._table = self._table.without_waste()


def _row_of(mark: str, fact: RevocationFact) -> Row:
    return Row(
        mark=mark,
        sequence=fact.sequence,
        kind=_KINDS.index(fact.kind),
        at=_microseconds(fact.at),
        ends=_microseconds(fact.expires_at),
        reason=fact.reason,
    )


def _fact_of(row: Row) -> RevocationFact:
    return RevocationFact(
        sequence=row.sequence,
        target=Target.parse(row.mark),
        kind=_KINDS[row.kind],
        at=_EPOCH + row.at * _MICROSECOND,
        expires_at=_EPOCH + row.ends * _MICROSECOND,
        reason=row.reason,
    )


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND

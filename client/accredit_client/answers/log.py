"""Entries of the log, with the proofs that they stand in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from accredit_client.answers.members import Members


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One leaf of the log. ``proof`` is there where an explanation was asked for."""

    index: int
    leaf: bytes = field(repr=False)
    record: Mapping[str, Any]
    proof: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read one entry."""
        return cls(
            index=members.number("index"),
            leaf=members.octets("leaf"),
            record=members.member("record").values,
            proof=tuple(
                Members({"proof": text}, members.where).octets("proof")
                for text in members.optional_texts("proof")
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """Entries of the log, and how many there are in all."""

    size: int
    entries: tuple[LogEntry, ...]

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read the answer."""
        return cls(size=members.number("size"), entries=members.each("entries", LogEntry.of))


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What the log says about one id, with the proofs and the checkpoint they lead to."""

    id: str
    entries: tuple[LogEntry, ...]
    checkpoint: str = field(repr=False)

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read the answer."""
        return cls(
            id=members.text("id"),
            entries=members.each("entries", LogEntry.of),
            checkpoint=members.text("checkpoint"),
        )

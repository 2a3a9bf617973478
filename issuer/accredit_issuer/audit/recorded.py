"""A record as it is read back from its leaf."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from sqlalchemy import Row

from accredit_credentials.strict_json import NotStrictJson, parse_object
from accredit_issuer.errors import IssuerError


class InvalidRecord(IssuerError):
    """A leaf that is not a record."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What one leaf says, and where it stands. ``kind`` may be one that we do not know (yet)."""

    index: int
    kind: str
    at: str
    actor: str
    subject: str
    details: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of_leaf(cls, index: int, leaf: bytes) -> Self:
        """Read a leaf.

        Raises:
            InvalidRecord: not a record.
        """
        try:
            value = parse_object(leaf)
        except NotStrictJson as error:
            raise InvalidRecord(f"log entry {index} is not a record: {error}") from None
        kind, at, actor, subject = (value.get(n) for n in ("kind", "at", "actor", "subject"))
        details = value.get("details")
        if not (
            isinstance(kind, str)
            and isinstance(at, str)
            and isinstance(actor, str)
            and isinstance(subject, str)
            and isinstance(details, dict)
        ):
            raise InvalidRecord(f"log entry {index} is not a record: a member is missing")
        return cls(index, kind, at, actor, subject, details)

    def differences(self, said: Mapping[str, object]) -> list[str]:
        """Where it says something else: names of members, or of details as ``details.name``."""
        return [
            name.removeprefix("details.") for name, value in said.items() if self._of(name) != value
        ]

    def _of(self, name: str) -> object:
        if name.startswith("details."):
            return self.details.get(name.removeprefix("details."))
        return getattr(self, name)


def record_of(row: Row[Any]) -> Recorded:
    """The record at a row's ``log_index``.

    Raises:
        InvalidRecord: none is there.
    """
    if row.leaf is None:
        raise InvalidRecord(f"log entry {row.log_index} is not there")
    return Recorded.of_leaf(row.log_index, row.leaf)

"""Revocation facts, as admins see them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from accredit_client.answers.members import Members


@dataclass(frozen=True, slots=True, kw_only=True)
class FactRecord:
    """A revocation fact with the one who made it, as admins see it."""

    sequence: int
    target: str
    kind: str
    at: datetime
    expires_at: datetime
    actor: str
    reason: str

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read one fact."""
        return cls(
            sequence=members.number("sequence"),
            target=members.text("target"),
            kind=members.text("kind"),
            at=members.moment("at"),
            expires_at=members.moment("expires_at"),
            actor=members.text("actor"),
            reason=members.text("reason"),
        )

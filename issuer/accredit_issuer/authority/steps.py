"""The steps of authorities that are in use: what each becomes, and which others move with it.

Pure: a step is made from a snapshot and a moment, and ``Authorities`` records it. Whether it may
be taken is decided before: ``lifecycle`` where it is due, ``permitted`` where an operator says so.
What is new is made in ``preparation``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from accredit_issuer.authority.lifecycle import AuthorityKind, Origin, Standing, State, Step, after
from accredit_issuer.authority.rows import Change, pem_of, public_pem
from accredit_issuer.authority.snapshot import Authority, Snapshot
from accredit_issuer.errors import IssuerError


@dataclass(frozen=True, slots=True)
class Taken:
    """A step that is about to be recorded: the authority as it leaves it."""

    step: Step
    authority: Authority
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def made_a_key(self) -> bool:
        """Whether a key was made for it, by us: that of a root that is given was not."""
        standing = self.authority.standing
        given = standing.kind is AuthorityKind.ROOT and standing.origin is not Origin.OWN
        return self.step is Step.PREPARE and not given

    def change(self) -> Change:
        """As it is written."""
        authority, is_new = self.authority, self.step is Step.PREPARE
        return Change(
            standing=authority.standing,
            step=self.step,
            details=self.details,
            public=public_pem(authority.public, authority.certificate) if is_new else None,
            chain=pem_of(authority.chain),
        )


def moved(
    snapshot: Snapshot,
    wanted: str,
    step: Step,
    now: datetime,
    details: Mapping[str, Any] | None = None,
) -> Taken:
    """One authority takes a step.

    Raises:
        IssuerError: it is not in use.
    """
    authority = snapshot.find(wanted)
    if authority is None:
        raise IssuerError(f"authority {wanted} is not in use")
    standing = after(authority.standing, step, now)
    return Taken(step, replace(authority, standing=standing), details or {})


def activated(
    snapshot: Snapshot, wanted: str, now: datetime, details: Mapping[str, Any] | None = None
) -> list[Taken]:
    """One begins to sign, and with that the one that did stops."""
    begins = moved(snapshot, wanted, Step.ACTIVATE, now, details)
    return [begins, *retired(snapshot, begins.authority.kind, now)]


def retired(snapshot: Snapshot, kind: AuthorityKind, now: datetime) -> list[Taken]:
    """What signs stops."""
    return [
        moved(snapshot, a.id, Step.RETIRE, now)
        for a in snapshot.authorities
        if a.kind is kind and a.state is State.ACTIVE
    ]


def distrusted(
    snapshot: Snapshot,
    step: Step,
    standings: Sequence[Standing],
    now: datetime,
    *,
    wanted: str,
    reason: str,
) -> list[Taken]:
    """One is tainted or revoked, and with it those below."""
    return [
        moved(
            snapshot,
            each.id,
            step,
            now,
            {"reason": reason} if each.id == wanted else {"reason": reason, "through": wanted},
        )
        for each in standings
    ]

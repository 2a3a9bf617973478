"""When an authority is prepared, activated, retired and removed: decisions only.

    prepared ──activate──▶ active ──retire──▶ retired ──remove──▶ removed

A key is published while it is prepared, for at least three refresh hints, before it signs. It
stays published while retired, until nothing that it signed is valid. ``due`` says what has to
happen now; ``next_due`` when to look again. ``authorities`` carries it out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class AuthorityKind(StrEnum):
    """What an authority signs."""

    ROOT = "root"
    X509 = "x509"  # an issuing CA
    JWT = "jwt"


class State(StrEnum):
    """Where an authority stands in its life."""

    PREPARED = "prepared"
    ACTIVE = "active"
    RETIRED = "retired"
    REMOVED = "removed"


class Step(StrEnum):
    """What can be due."""

    PREPARE = "prepare"
    ACTIVATE = "activate"
    RETIRE = "retire"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the life cycle needs to know of one authority; ``revoked``: a fact is against it."""

    id: str
    kind: AuthorityKind
    state: State
    prepared_at: datetime
    activated_at: datetime | None
    retired_at: datetime | None
    expires_at: datetime
    revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The numbers of one kind.

    Attributes:
        lifetime: of the authority.
        publish_ahead: how long it is published before it signs.
        leaf_lifetime: the longest that something it signed can live.
    """

    lifetime: timedelta
    publish_ahead: timedelta
    leaf_lifetime: timedelta


@dataclass(frozen=True, slots=True)
class Due:
    """One step that is due; ``id`` is None for a preparation."""

    step: Step
    kind: AuthorityKind
    id: str | None = None


def due(
    authorities: Iterable[Standing], kind: AuthorityKind, rule: Rule, now: datetime
) -> list[Due]:
    """The steps that are due now for one kind, in the order to take them.

    Where no authority is active, or the active one was revoked, there is nothing to wait for: one
    is prepared and activated at once. Ask again after taking the steps, until nothing is due.
    """
    mine = [a for a in authorities if a.kind is kind and a.state is not State.REMOVED]
    alive = [a for a in mine if a.expires_at > now and not a.revoked]
    active = next((a for a in alive if a.state is State.ACTIVE), None)
    prepared = next((a for a in alive if a.state is State.PREPARED), None)
    steps: list[Due] = []
    if prepared is None and (active is None or now >= _half_life(active)):
        steps.append(Due(Step.PREPARE, kind))
    if prepared is not None and (
        active is None or now >= prepared.prepared_at + rule.publish_ahead
    ):
        steps.append(Due(Step.ACTIVATE, kind, prepared.id))
        steps.extend(Due(Step.RETIRE, kind, a.id) for a in mine if a.state is State.ACTIVE)
    steps.extend(Due(Step.REMOVE, kind, a.id) for a in mine if now >= _end(a, rule))
    return steps


def next_due(
    authorities: Iterable[Standing], kind: AuthorityKind, rule: Rule, now: datetime
) -> datetime:
    """The next moment after ``now`` at which ``due`` can say something new."""
    moments = [now + rule.lifetime / 2]
    for authority in authorities:
        if authority.kind is not kind or authority.state is State.REMOVED:
            continue
        moments += [authority.expires_at, _end(authority, rule)]
        if authority.state is State.ACTIVE:
            moments.append(_half_life(authority))
        if authority.state is State.PREPARED:
            moments.append(authority.prepared_at + rule.publish_ahead)
    return min(moment for moment in moments if moment > now)


def _half_life(authority: Standing) -> datetime:
    # Of the life that it really has: an issuing CA ends with its root at the latest.
    begin = authority.activated_at or authority.prepared_at
    return begin + (authority.expires_at - begin) / 2


def _end(authority: Standing, rule: Rule) -> datetime:
    """When nothing that the authority signed is valid any more."""
    last_signature = authority.retired_at or authority.expires_at
    return min(last_signature, authority.expires_at) + rule.leaf_lifetime

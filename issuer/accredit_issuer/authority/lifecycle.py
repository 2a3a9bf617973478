"""When an authority is prepared, activated, retired and removed: decisions only.

    prepared ──activate──▶ active ──retire──▶ retired ──remove──▶ removed
        └──────────────taint──────────┬──────────┘                  ▲
                                   tainted ──────────remove─────────┘

A key is published while it is prepared, for at least three refresh hints, before it signs. It
stays published while it is *retired* (what SPIRE calls *old*), until nothing that it signed is
valid. *Tainted* is retired in a hurry: whoever holds something that it signed renews at once. Only
what signs no more can be tainted. The issuing CA that signs is always one below the root that
signs: where another root was activated, another issuing CA follows.

``due`` says what has to happen now, ``next_due`` when to look again, ``after`` what a step makes
of an authority. What an operator may do is in ``permitted``; ``authorities`` carries it out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from accredit_issuer.clock_guard import BEHIND


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
    TAINTED = "tainted"
    REMOVED = "removed"


class Step(StrEnum):
    """What can happen to an authority."""

    PREPARE = "prepare"
    ACTIVATE = "activate"
    RETIRE = "retire"
    TAINT = "taint"
    REMOVE = "remove"
    REVOKE = "revoke"  # removed by an operator, before its time


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the life cycle needs to know of one authority.

    Attributes:
        retired_at: when it last signed; None where it may still, or never did.
        parent: the authority that certified it; None for a root and a JWT key.
        revoked: a fact is against it.
    """

    id: str
    kind: AuthorityKind
    state: State
    prepared_at: datetime
    activated_at: datetime | None
    retired_at: datetime | None
    expires_at: datetime
    tainted_at: datetime | None = None
    removed_at: datetime | None = None
    parent: str | None = None
    revoked: bool = False

    @property
    def half_life(self) -> datetime:
        """When its successor has to be prepared.

        Half of the life that it really has: an issuing CA ends with its root at the latest.
        """
        begin = self.activated_at or self.prepared_at
        return begin + (self.expires_at - begin) / 2

    def can_sign(self, now: datetime) -> bool:
        """Whether nothing but its state keeps it from signing.

        One that was prepared in the future, by a clock that was wrong, is not valid yet.
        """
        return self.prepared_at <= now + BEHIND and self.expires_at > now and not self.revoked


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The numbers of one kind.

    Attributes:
        lifetime: of the authority.
        publish_ahead: how long it is published before it signs.
        leaf_lifetime: the longest that something it signed can live.
        patience: how long it is published, where that is longer, before it signs unasked.
    """

    lifetime: timedelta
    publish_ahead: timedelta
    leaf_lifetime: timedelta
    patience: timedelta = timedelta(0)

    @property
    def ahead_unasked(self) -> timedelta:
        """How long it is published before it signs, if no operator activates it."""
        return max(self.publish_ahead, self.patience)


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
    is prepared and activated at once. To activate one is to retire the one that was active. Ask
    again after taking the steps, until nothing is due.
    """
    known = _not_removed(authorities)
    mine = [a for a in known if a.kind is kind]
    active = active_of(known, kind, now)
    prepared = next_of(known, kind, now)
    steps: list[Due] = []
    if prepared is None and (active is None or now >= _succession(active, known)):
        steps.append(Due(Step.PREPARE, kind))
    if prepared is not None and now >= activation(prepared, known, rule, now):
        steps.append(Due(Step.ACTIVATE, kind, prepared.id))
    steps.extend(
        Due(Step.REMOVE, kind, a.id) for a in mine if now >= end(a, rule, known) or _idle(a, known)
    )
    return steps


def next_due(
    authorities: Iterable[Standing], kind: AuthorityKind, rule: Rule, now: datetime
) -> datetime:
    """The next moment after ``now`` at which ``due`` can say something new."""
    known = _not_removed(authorities)
    moments = [now + rule.lifetime / 2]
    for authority in known:
        if authority.kind is not kind:
            continue
        moments += [authority.expires_at, end(authority, rule, known)]
        if authority.state is State.ACTIVE:
            moments.append(authority.half_life)
        if authority.state is State.PREPARED:
            moments.append(authority.prepared_at + rule.ahead_unasked)
    return min(moment for moment in moments if moment > now)


def after(standing: Standing, step: Step, now: datetime) -> Standing:
    """What a step that was allowed makes of an authority."""
    match step:
        case Step.ACTIVATE:
            return replace(standing, state=State.ACTIVE, activated_at=now)
        case Step.RETIRE:
            return replace(standing, state=State.RETIRED, retired_at=now)
        case Step.TAINT:
            return replace(standing, state=State.TAINTED, tainted_at=now)
        case Step.REMOVE | Step.REVOKE:
            return replace(standing, state=State.REMOVED, removed_at=now)
        case Step.PREPARE:
            raise ValueError("what is there was prepared already")


def active_of(
    authorities: Sequence[Standing], kind: AuthorityKind, now: datetime
) -> Standing | None:
    """The one that signs, as far as it can."""
    return next(
        (a for a in authorities if a.kind is kind and a.state is State.ACTIVE and a.can_sign(now)),
        None,
    )


def next_of(authorities: Sequence[Standing], kind: AuthorityKind, now: datetime) -> Standing | None:
    """The one that is prepared to follow."""
    return next(
        (
            a
            for a in authorities
            if a.kind is kind
            and a.state is State.PREPARED
            and a.can_sign(now)
            and not misplaced(a, authorities)
        ),
        None,
    )


def activation(
    prepared: Standing, authorities: Sequence[Standing], rule: Rule, now: datetime
) -> datetime:
    """When a prepared authority is activated, if nobody does it before."""
    active = active_of(authorities, prepared.kind, now)
    if active is None:
        return prepared.prepared_at
    return max(prepared.prepared_at + rule.ahead_unasked, _succession(active, authorities))


def end(authority: Standing, rule: Rule, authorities: Iterable[Standing] = ()) -> datetime:
    """When nothing that the authority signed is valid any more.

    ``authorities`` are all that are known: a root is needed for as long as an issuing CA below it
    is valid, whatever the settings say of lifetimes by now.
    """
    if authority.activated_at is None and authority.tainted_at is not None:
        return authority.tainted_at  # it never signed
    last_signature = min(authority.retired_at or authority.expires_at, authority.expires_at)
    below = (
        a.expires_at
        for a in authorities
        if a.parent == authority.id and a.activated_at is not None and a.state is not State.REMOVED
    )
    return max(last_signature + rule.leaf_lifetime, *below, authority.prepared_at)


def misplaced(authority: Standing, authorities: Iterable[Standing]) -> bool:
    """Whether an issuing CA is below a root that is not the one that signs."""
    if authority.kind is not AuthorityKind.X509 or authority.parent is None:
        return False
    roots = [a.id for a in authorities if a.kind is AuthorityKind.ROOT and a.state is State.ACTIVE]
    return bool(roots) and authority.parent not in roots


def _succession(active: Standing, authorities: Iterable[Standing]) -> datetime:
    """From when on the active authority wants a successor."""
    return (
        active.activated_at or active.prepared_at
        if misplaced(active, authorities)
        else (active.half_life)
    )


def _idle(authority: Standing, authorities: Iterable[Standing]) -> bool:
    """Whether it was prepared and will never sign."""
    return authority.state is State.PREPARED and (
        authority.revoked or misplaced(authority, authorities)
    )


def _not_removed(authorities: Iterable[Standing]) -> list[Standing]:
    return [a for a in authorities if a.state is not State.REMOVED]

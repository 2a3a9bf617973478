"""When an authority is prepared, activated, retired and removed: decisions only.

    prepared ──activate──▶ active ──retire──▶ retired ──remove──▶ removed
        └──────────────taint──────────┬──────────┘                  ▲
                                   tainted ──────────remove─────────┘

A key is published while it is prepared, for at least three refresh hints, before it signs. It
stays published while it is *retired* (what SPIRE calls *old*), until nothing that it signed is
valid. *Tainted* is retired in a hurry: whoever holds something that it signed renews at once. Only
what signs no more can be tainted. The issuing CA that signs is always one below the root that
signs: where another root was activated, another issuing CA follows.

A root may also be *given* (``upstream``): then nobody makes its successor but who gave it. One that
was given in its place, or made where none is given any more, follows as soon as it may. Meanwhile
the key of a root that was given is gone with its file: it certifies nothing more.

``due`` says what has to happen now, ``next_due`` when to look again, ``after`` what a step makes
of an authority. What an operator may do is in ``permitted``; ``authorities`` carries it out.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from accredit_issuer.clock_guard import BEHIND


class AuthorityKind(StrEnum):
    """What an authority signs."""

    ROOT = "root"
    X509 = "x509"  # an issuing CA
    JWT = "jwt"
    WIT = "wit"


TOKEN_KINDS = frozenset({AuthorityKind.JWT, AuthorityKind.WIT})  # a key, and no certificate


class Origin(StrEnum):
    """Who made an authority's certificate."""

    OWN = "own"
    FILES = "files"  # given by an operator
    PARENT = "parent"  # another issuer


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
        parent: the authority that certified it; None for a root and a key of tokens.
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
    origin: Origin = Origin.OWN

    @property
    def half_life(self) -> datetime:
        """When its successor has to be prepared.

        Half of the life that it really has: an issuing CA ends with its root at the latest. Of a
        root that was given its end: the next one is made by somebody else, whenever they like.
        """
        if _was_given(self):
            return self.expires_at
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
    authorities: Iterable[Standing],
    kind: AuthorityKind,
    rule: Rule,
    now: datetime,
    *,
    given: str | None = None,
    certified_elsewhere: bool = False,
    wanted_here: bool = True,
) -> list[Due]:
    """The steps that are due now for one kind, in the order to take them.

    Where no authority is active, or the active one was revoked, there is nothing to wait for: one
    is prepared and activated at once. To activate one is to retire the one that was active. Ask
    again after taking the steps, until nothing is due. ``given`` is the id of the root that the
    issuer was given, None where it makes its own; ``certified_elsewhere`` says that issuing CAs are
    another issuer's to certify, whichever root is active here. Of a kind that the settings do not
    want any more (``wanted_here``) none is made: what signs retires, what was prepared goes.
    """
    known = _not_removed(authorities)
    mine = [a for a in known if a.kind is kind]
    if not wanted_here:
        return _wound_up(mine, rule, now)
    active = active_of(known, kind, now)
    idle = {a.id for a in mine if _idle(a, known) or _not_given(a, given)}
    prepared = next_of([a for a in known if a.id not in idle], kind, now)
    steps: list[Due] = []
    if kind is AuthorityKind.ROOT and given is not None:
        wanted = given not in {a.id for a in mine}
    else:
        wanted = prepared is None and (
            active is None or _was_given(active) or now >= _succession(active, known)
        )
    possible = certified_elsewhere or kind is not AuthorityKind.X509 or can_certify(known, now)
    if wanted and possible:
        steps.append(Due(Step.PREPARE, kind))
    if prepared is not None and now >= activation(prepared, known, rule, now):
        steps.append(Due(Step.ACTIVATE, kind, prepared.id))
    steps.extend(
        Due(Step.REMOVE, kind, a.id) for a in mine if now >= end(a, rule, known) or a.id in idle
    )
    return steps


def follow(
    authorities: Iterable[Standing], anchors: Collection[str], rule: Rule, now: datetime
) -> list[Due]:
    """The steps that are due for roots that are another issuer's.

    What it publishes is published, what it does not any more is removed. Which of them is active
    follows from what certified the issuing CA. Roots of before go as they would otherwise.
    """
    known = _not_removed(authorities)
    mine = [a for a in known if a.kind is AuthorityKind.ROOT]
    ids = {a.id for a in mine}
    return [
        *(Due(Step.PREPARE, AuthorityKind.ROOT, each) for each in anchors if each not in ids),
        *(
            Due(Step.REMOVE, AuthorityKind.ROOT, a.id)
            for a in mine
            if (
                a.id not in anchors
                if a.origin is Origin.PARENT
                else a.state is not State.ACTIVE and now >= end(a, rule, known)
            )
        ),
    ]


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
    if active.kind is AuthorityKind.ROOT and _is_gone(active, authorities):
        # Nothing can be made below the active one: the next is needed where what is there ends.
        ends = [a.expires_at for a in below_of(active, authorities) if a.state is State.ACTIVE]
        return max(
            min(prepared.prepared_at + rule.ahead_unasked, *ends, prepared.expires_at),
            prepared.prepared_at,
        )
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


def can_certify(authorities: Sequence[Standing], now: datetime) -> bool:
    """Whether an issuing CA can be certified: the active root is alive, and its key is here."""
    root = active_of(authorities, AuthorityKind.ROOT, now)
    return root is not None and not _is_gone(root, authorities)


def below_of(standing: Standing, authorities: Iterable[Standing]) -> tuple[Standing, ...]:
    """Those in use that this one certified."""
    return tuple(a for a in authorities if a.parent == standing.id and a.state is not State.REMOVED)


def _wound_up(mine: Sequence[Standing], rule: Rule, now: datetime) -> list[Due]:
    return [
        Due(Step.RETIRE if a.state is State.ACTIVE else Step.REMOVE, a.kind, a.id)
        for a in mine
        if a.state in {State.ACTIVE, State.PREPARED} or now >= end(a, rule)
    ]


def _succession(active: Standing, authorities: Sequence[Standing]) -> datetime:
    """From when on the active authority wants a successor."""
    return (
        active.activated_at or active.prepared_at
        if misplaced(active, authorities) or _replaced(active, authorities)
        else active.half_life
    )


def _replaced(root: Standing, authorities: Iterable[Standing]) -> bool:
    """Whether another root was given in the place of this one, or made where none is given."""
    return any(
        a.state is State.PREPARED
        and a.kind is root.kind is AuthorityKind.ROOT
        and (a.origin is Origin.FILES or a.origin is not root.origin)
        for a in authorities
    )


def _is_gone(root: Standing, authorities: Iterable[Standing]) -> bool:
    """Whether the key of a root that was given went with the file that another came in.

    Or was never here: of a root of the parent, once roots are our own again.
    """
    return root.origin is not Origin.OWN and _replaced(root, authorities)


def _was_given(authority: Standing) -> bool:
    return authority.kind is AuthorityKind.ROOT and authority.origin is not Origin.OWN


def _not_given(root: Standing, given: str | None) -> bool:
    """Whether a root was prepared that is not the one that is given now."""
    if root.kind is not AuthorityKind.ROOT or root.state is not State.PREPARED:
        return False
    return root.id != given if given is not None else root.origin is not Origin.OWN


def _idle(authority: Standing, authorities: Iterable[Standing]) -> bool:
    """Whether it was prepared and will never sign."""
    return authority.state is State.PREPARED and (
        authority.revoked or misplaced(authority, authorities)
    )


def _not_removed(authorities: Iterable[Standing]) -> list[Standing]:
    return [a for a in authorities if a.state is not State.REMOVED]

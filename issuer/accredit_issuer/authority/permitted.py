"""What an operator may do with the authorities now: decisions only.

| step | prepared | active | retired | tainted | removed |
|---|---|---|---|---|---|
| activate | once it was published for three refresh hints, or early | no | no | no | no |
| taint | yes | no | yes | no | no |
| revoke | yes | no | yes | yes | no |

``prepare`` takes a kind, and is refused where one of it is prepared already. An authority that
signs can neither be tainted nor revoked: another has to be activated first. In an emergency a
revocation fact (``accredit revoke authority``) ends all that it signed, and it with it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from accredit_issuer.authority.lifecycle import (
    AuthorityKind,
    Origin,
    Rule,
    Standing,
    State,
    below_of,
    end,
    misplaced,
    next_of,
)
from accredit_issuer.errors import Kind, Refusal


def check_prepare(
    authorities: Sequence[Standing],
    kind: AuthorityKind,
    now: datetime,
    *,
    given: str | None = None,
    follows: bool = False,
    wanted_here: bool = True,
) -> None:
    """Decide whether another authority of this kind may be prepared.

    Raises:
        Refusal: one is prepared already, there is none to prepare but the root ``given``, roots are
            another issuer's (``follows``), or the settings want none of this kind.
    """
    if not wanted_here:
        raise Refusal(Kind.CONFLICT, f"the settings of this issuer want no {kind.value} key")
    if kind is AuthorityKind.ROOT and follows:
        raise Refusal(Kind.CONFLICT, "the roots are the parent's: the next one is prepared there")
    if kind is AuthorityKind.ROOT and any(a.id == given for a in authorities):
        raise Refusal(
            Kind.CONFLICT,
            "the root is given to this issuer: the next one is prepared once it is in the files "
            "that the settings name",
        )
    prepared = next_of(authorities, kind, now)
    if prepared is not None:
        raise Refusal(
            Kind.CONFLICT,
            f"{_name(prepared)} is prepared already: activate it, or revoke it first",
        )


def check_activate(
    authorities: Sequence[Standing],
    wanted: str,
    rules: Mapping[AuthorityKind, Rule],
    now: datetime,
    *,
    early: bool,
) -> bool:
    """Decide whether an authority may begin to sign; returns whether that is early.

    Raises:
        Refusal: not known, not prepared, unusable, or not published for long enough.
    """
    standing = find(authorities, wanted)
    _check_ours(standing)
    if standing.state is not State.PREPARED:
        raise _refused(standing, "only a prepared authority can be activated")
    if not standing.can_sign(now):
        raise _refused(standing, "it is revoked or over: prepare another")
    if misplaced(standing, authorities):
        raise _refused(standing, "it is below a root that signs no more: prepare another")
    from_moment = standing.prepared_at + rules[standing.kind].publish_ahead
    if now >= from_moment:
        return False
    if not early:
        raise _refused(
            standing,
            f"verifiers may not know it before {from_moment:%Y-%m-%dT%H:%M:%SZ}: wait until then, "
            "or activate it early (--early)",
        )
    return True


def check_taint(authorities: Sequence[Standing], wanted: str) -> tuple[Standing, ...]:
    """Decide whether an authority may be tainted; returns it with the issuing CAs below it.

    Raises:
        Refusal: not known, active, or tainted or removed already.
    """
    standing = find(authorities, wanted)
    _check_ours(standing)
    match standing.state:
        case State.ACTIVE:
            raise _refused(standing, "prepare and activate another first")
        case State.TAINTED | State.REMOVED:
            raise _refused(standing, "there is nothing left to taint")
    return (
        standing,
        *(a for a in below_of(standing, authorities) if a.state is not State.TAINTED),
    )


def check_revoke(authorities: Sequence[Standing], wanted: str) -> tuple[Standing, ...]:
    """Decide whether an authority may be removed now; returns it after the issuing CAs below it.

    Raises:
        Refusal: not known, active, or removed already.
    """
    standing = find(authorities, wanted)
    _check_ours(standing)
    match standing.state:
        case State.ACTIVE:
            raise _refused(
                standing,
                "prepare and activate another first; in an emergency, 'accredit revoke authority' "
                "ends at once all that it signed",
            )
        case State.REMOVED:
            raise _refused(standing, "there is nothing left to revoke")
    return (*below_of(standing, authorities), standing)


def needs_fact(standing: Standing, rules: Mapping[AuthorityKind, Rule], now: datetime) -> bool:
    """Whether verifiers have to be told that what it signed is not valid any more.

    Not of a root: those below it are told of, each by itself. Of a CA for as long as its
    certificate is valid, whether it has signed or not: whoever took its key signs below the root.
    """
    if standing.kind is AuthorityKind.ROOT:
        return False
    if standing.kind is AuthorityKind.X509 and now < standing.expires_at:
        return True
    return standing.activated_at is not None and now < end(standing, rules[standing.kind])


def find(authorities: Sequence[Standing], wanted: str) -> Standing:
    """The authority of this id.

    Raises:
        Refusal: there is none.
    """
    for standing in authorities:
        if standing.id == wanted:
            return standing
    raise Refusal(Kind.NOT_FOUND, "no authority in use has this id")


def _check_ours(standing: Standing) -> None:
    """Decide whether a root is one whose life is decided here.

    Raises:
        Refusal: it is the parent's.
    """
    if standing.kind is AuthorityKind.ROOT and standing.origin is Origin.PARENT:
        raise _refused(standing, "it is the parent's, and what happens to it is decided there")


def _refused(standing: Standing, why: str) -> Refusal:
    return Refusal(Kind.CONFLICT, f"{_name(standing)} is {standing.state.value}: {why}")


def _name(standing: Standing) -> str:
    return f"{standing.kind.value} authority {standing.id[:16]}"

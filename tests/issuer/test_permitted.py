"""Which step an operator may take: every kind, state and step, each yes beside its nearest no."""

import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from support.clock import NOW

from accredit_issuer.authority.lifecycle import AuthorityKind, Rule, Standing, State, Step, after
from accredit_issuer.authority.permitted import (
    check_activate,
    check_prepare,
    check_revoke,
    check_taint,
    needs_fact,
)
from accredit_issuer.errors import Kind, Refusal

HOUR = timedelta(hours=1)
AHEAD = timedelta(minutes=15)
SECOND = timedelta(seconds=1)
RULES = {
    AuthorityKind.ROOT: Rule(lifetime=1000 * HOUR, publish_ahead=AHEAD, leaf_lifetime=24 * HOUR),
    AuthorityKind.X509: Rule(lifetime=24 * HOUR, publish_ahead=0 * HOUR, leaf_lifetime=12 * HOUR),
    AuthorityKind.JWT: Rule(lifetime=24 * HOUR, publish_ahead=AHEAD, leaf_lifetime=HOUR / 12),
    AuthorityKind.WIT: Rule(lifetime=24 * HOUR, publish_ahead=AHEAD, leaf_lifetime=HOUR / 4),
}
ALLOWED = {
    "activate": {State.PREPARED},
    "taint": {State.PREPARED, State.RETIRED},
    "revoke": {State.PREPARED, State.RETIRED, State.TAINTED},
}


def standing(kind: AuthorityKind, state: State, name: str = "a", **changes: Any) -> Standing:
    """An authority that came into its state the ordinary way."""
    made = Standing(
        id=name,
        kind=kind,
        state=State.PREPARED,
        prepared_at=NOW - 3 * HOUR,
        activated_at=None,
        retired_at=None,
        expires_at=NOW + 10 * HOUR,
        parent="root" if kind is AuthorityKind.X509 else None,
    )
    way = {
        State.PREPARED: (),
        State.ACTIVE: (Step.ACTIVATE,),
        State.RETIRED: (Step.ACTIVATE, Step.RETIRE),
        State.TAINTED: (Step.ACTIVATE, Step.RETIRE, Step.TAINT),
        State.REMOVED: (Step.ACTIVATE, Step.RETIRE, Step.REMOVE),
    }[state]
    for number, step in enumerate(way):
        made = after(made, step, NOW - 2 * HOUR + number * HOUR / 2)
    assert made.state is state
    return replace(made, **changes)


ROOT = standing(AuthorityKind.ROOT, State.ACTIVE, "root")


def take(step: str, authorities: list[Standing], wanted: str = "a") -> Any:
    """Ask whether a step may be taken now."""
    if step == "activate":
        return check_activate(authorities, wanted, RULES, NOW, early=False)
    return {"taint": check_taint, "revoke": check_revoke}[step](authorities, wanted)


@pytest.mark.parametrize(
    ("kind", "state", "step"), list(itertools.product(AuthorityKind, State, ALLOWED))
)
def test_each_step_from_each_state(kind: AuthorityKind, state: State, step: str) -> None:
    """Kind by state by step: allowed where the table says so, refused with a conflict elsewhere."""
    authorities = [standing(kind, state), *([] if kind is AuthorityKind.ROOT else [ROOT])]
    if state in ALLOWED[step]:
        take(step, authorities)
        return
    with pytest.raises(Refusal) as refused:
        take(step, authorities)
    assert refused.value.kind is Kind.CONFLICT
    assert f"is {state.value}" in refused.value.detail


@pytest.mark.parametrize("step", ALLOWED)
def test_what_is_not_known_is_not_found(step: str) -> None:
    """Another id, a prefix or another spelling of one is no authority."""
    authorities = [standing(AuthorityKind.JWT, State.PREPARED, "ab")]
    for wanted in ("a", "abc", "AB", ""):
        with pytest.raises(Refusal) as refused:
            take(step, authorities, wanted)
        assert refused.value.kind is Kind.NOT_FOUND


@pytest.mark.parametrize(("step", "hint"), [("taint", "prepare and activate another first"),
                                            ("revoke", "accredit revoke authority")])  # fmt: skip
def test_no_to_the_active_one_says_what_to_do(step: str, hint: str) -> None:
    """What signs is neither tainted nor revoked, and the refusal names the way."""
    with pytest.raises(Refusal, match=hint):
        take(step, [standing(AuthorityKind.JWT, State.ACTIVE)])


@pytest.mark.parametrize("kind", AuthorityKind)
def test_one_is_prepared_at_a_time(kind: AuthorityKind) -> None:
    """Beside a prepared one of the same kind no other is made; beside any other state it is."""
    for state in State:
        authorities = [standing(kind, state), ROOT]
        if state is State.PREPARED:
            with pytest.raises(Refusal, match="is prepared already"):
                check_prepare(authorities, kind, NOW)
        else:
            check_prepare(authorities, kind, NOW)
        for other in AuthorityKind:
            if other is not kind:
                check_prepare(authorities, other, NOW)


@pytest.mark.parametrize("kind", [AuthorityKind.ROOT, AuthorityKind.JWT])
def test_published_long_enough_is_a_matter_of_a_second(kind: AuthorityKind) -> None:
    """A key signs from three refresh hints on, and a second before only where that is meant."""
    ready = standing(kind, State.PREPARED, prepared_at=NOW - AHEAD)
    assert check_activate([ready], "a", RULES, NOW, early=False) is False
    assert check_activate([ready], "a", RULES, NOW, early=True) is False, "it is not early"
    young = standing(kind, State.PREPARED, prepared_at=NOW - AHEAD + SECOND)
    with pytest.raises(Refusal, match="2026-06-01T12:00:01Z"):
        check_activate([young], "a", RULES, NOW, early=False)
    assert check_activate([young], "a", RULES, NOW, early=True) is True


def test_an_issuing_ca_need_not_be_known_ahead() -> None:
    """It travels with each leaf: activated in the moment it was prepared, and that is not early."""
    ca = standing(AuthorityKind.X509, State.PREPARED, prepared_at=NOW)
    assert check_activate([ca, ROOT], "a", RULES, NOW, early=False) is False


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"expires_at": NOW}, "revoked or over"),
        ({"revoked": True}, "revoked or over"),
        ({"parent": "another"}, "below a root that signs no more"),
    ],
)
def test_not_even_early(changes: dict[str, Any], why: str) -> None:
    """What is over, revoked or below another root never signs; a second earlier it would."""
    ca = standing(AuthorityKind.X509, State.PREPARED, **changes)
    with pytest.raises(Refusal, match=why):
        check_activate([ca, ROOT], "a", RULES, NOW, early=True)
    good = standing(AuthorityKind.X509, State.PREPARED, expires_at=NOW + SECOND)
    check_activate([good, ROOT], "a", RULES, NOW, early=True)


def test_a_root_takes_along_what_is_below_it() -> None:
    """Tainting and revoking a root means the issuing CAs below it, and none of another root."""
    old = standing(AuthorityKind.ROOT, State.RETIRED, "old")
    mine = [
        standing(AuthorityKind.X509, state, f"ca-{state.value}", parent="old")
        for state in (State.RETIRED, State.TAINTED, State.REMOVED, State.PREPARED)
    ]
    other = standing(AuthorityKind.X509, State.RETIRED, "other")
    authorities = [ROOT, old, *mine, other]
    assert {a.id for a in check_taint(authorities, "old")} == {"old", "ca-retired", "ca-prepared"}
    revoked = [a.id for a in check_revoke(authorities, "old")]
    assert set(revoked) == {"old", "ca-retired", "ca-prepared", "ca-tainted"}
    assert revoked[-1] == "old", "what is below goes first"


@pytest.mark.parametrize(
    ("state", "age", "needed"),
    [
        (State.RETIRED, timedelta(minutes=4, seconds=59), True),
        (State.RETIRED, timedelta(minutes=5), False),
        (State.TAINTED, timedelta(minutes=4, seconds=59), True),
        (State.PREPARED, timedelta(0), False),
    ],
)
def test_a_fact_is_stated_where_something_is_still_valid(
    state: State, age: timedelta, *, needed: bool
) -> None:
    """Verifiers are told of a key for as long as something that it signed would be accepted."""
    key = standing(AuthorityKind.JWT, state)
    if state is not State.PREPARED:
        key = replace(key, retired_at=NOW - age)
    assert needs_fact(key, RULES, NOW) is needed


@pytest.mark.parametrize(("left", "needed"), [(timedelta(seconds=1), True), (timedelta(0), False)])
def test_a_retired_ca_is_told_of_until_its_certificate_ends(
    left: timedelta, *, needed: bool
) -> None:
    """Its own leaves are over long before; whoever took its key signs new ones."""
    ca = standing(AuthorityKind.X509, State.RETIRED, expires_at=NOW + left)
    ca = replace(ca, retired_at=NOW - timedelta(days=90))
    assert needs_fact(ca, RULES, NOW) is needed


@pytest.mark.parametrize(("left", "needed"), [(timedelta(seconds=1), True), (timedelta(0), False)])
def test_a_ca_that_never_signed_is_told_of_while_its_certificate_is_valid(
    left: timedelta, *, needed: bool
) -> None:
    """It chains to the root from its making on: whoever took its key needs no activation."""
    ca = standing(AuthorityKind.X509, State.PREPARED, expires_at=NOW + left)
    assert ca.activated_at is None
    assert needs_fact(ca, RULES, NOW) is needed


def test_a_root_is_no_target_of_a_fact() -> None:
    """Verifiers take a root from the bundle: they are told of the issuing CAs below it."""
    assert not needs_fact(standing(AuthorityKind.ROOT, State.RETIRED), RULES, NOW)
    assert needs_fact(standing(AuthorityKind.X509, State.RETIRED), RULES, NOW)


def test_none_is_prepared_that_the_settings_do_not_want() -> None:
    """An operator's word does not turn on what the settings turned off."""
    check_prepare([], AuthorityKind.WIT, NOW)
    with pytest.raises(Refusal, match="want no wit key"):
        check_prepare([], AuthorityKind.WIT, NOW, wanted_here=False)

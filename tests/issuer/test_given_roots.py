"""The lives of roots that somebody else made, in files or another issuer: decisions only."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from support.clock import NOW

from accredit_issuer.authority.lifecycle import (
    AuthorityKind,
    Due,
    Origin,
    Rule,
    Standing,
    State,
    Step,
    activation,
    can_certify,
    due,
    follow,
)
from accredit_issuer.authority.planning import plan

HOUR = timedelta(hours=1)
ROOT, X509 = AuthorityKind.ROOT, AuthorityKind.X509
RULES = {
    ROOT: Rule(
        lifetime=1000 * HOUR, publish_ahead=HOUR / 4, leaf_lifetime=24 * HOUR, patience=12 * HOUR
    ),
    X509: Rule(lifetime=24 * HOUR, publish_ahead=0 * HOUR, leaf_lifetime=12 * HOUR),
}
RULE = RULES[ROOT]


def root(name: str, state: State = State.ACTIVE, **changes: Any) -> Standing:
    """A root that was given an hour ago, unless said otherwise."""
    made = Standing(
        id=name,
        kind=ROOT,
        state=state,
        prepared_at=NOW - HOUR,
        activated_at=None if state is State.PREPARED else NOW - HOUR,
        retired_at=NOW if state is State.RETIRED else None,
        expires_at=NOW + 1000 * HOUR,
        origin=Origin.FILES,
    )
    return replace(made, **changes)


def issuing(below: str, **changes: Any) -> Standing:
    """An active issuing CA."""
    made = root("ca", kind=X509, parent=below, origin=Origin.OWN, expires_at=NOW + 20 * HOUR)
    return replace(made, **changes)


PREPARE = Due(Step.PREPARE, ROOT)
CASES: dict[str, tuple[list[Standing], str | None, list[Due]]] = {
    "nothing yet": ([], "a", [PREPARE]),
    "the one that is given": ([root("a")], "a", []),
    "past its half life": ([root("a", expires_at=NOW + HOUR / 9)], "a", []),
    "expired, and no other is given": ([root("a", expires_at=NOW)], "a", []),
    "another is given": ([root("a")], "b", [PREPARE]),
    "another waits": ([root("a"), root("b", State.PREPARED)], "b", []),
    "a third is given": (
        [root("a"), root("b", State.PREPARED)],
        "c",
        [PREPARE, Due(Step.REMOVE, ROOT, "b")],
    ),
    "the first is given again": (
        [root("a"), root("b", State.PREPARED)],
        "a",
        [Due(Step.REMOVE, ROOT, "b")],
    ),
    "given after own": ([root("a", origin=Origin.OWN)], "b", [PREPARE]),
    "own after given": ([root("a")], None, [PREPARE]),
    "own after given waits": ([root("a"), root("b", State.PREPARED, origin=Origin.OWN)], None, []),
    "own after the parent's": ([root("a", origin=Origin.PARENT)], None, [PREPARE]),
    "own in its first half": ([root("a", origin=Origin.OWN)], None, []),
}


@pytest.mark.parametrize(("known", "given", "steps"), CASES.values(), ids=CASES)
def test_what_is_due_for_a_root(known: list[Standing], given: str | None, steps: list[Due]) -> None:
    """Only what is given is prepared, whatever is past half of its life."""
    assert due(known, ROOT, RULE, NOW, given=given) == steps


def test_when_another_root_signs() -> None:
    """After everybody can know it; sooner where the old one's key is gone and nothing is below."""
    old, new = root("a"), root("b", State.PREPARED, prepared_at=NOW)
    known = [old, new, issuing("a")]
    assert activation(new, known, RULE, NOW) == NOW + 12 * HOUR
    ends = [old, new, issuing("a", expires_at=NOW + 3 * HOUR)]
    assert activation(new, ends, RULE, NOW) == NOW + 3 * HOUR
    over = [old, new, issuing("a", expires_at=NOW - HOUR)]
    assert activation(new, over, RULE, NOW) == NOW
    assert plan(new, ends, RULES, NOW).active_from == NOW + 3 * HOUR
    own = [root("a", origin=Origin.OWN), new, issuing("a", expires_at=NOW + 3 * HOUR)]
    assert activation(new, own, RULE, NOW) == NOW + 12 * HOUR, "its key is still here"


@pytest.mark.parametrize(
    ("known", "possible"),
    [
        ([root("a")], True),
        ([root("a"), root("b", State.PREPARED)], False),
        ([root("a"), root("b", State.PREPARED, origin=Origin.OWN)], False),
        ([root("a", origin=Origin.OWN), root("b", State.PREPARED)], True),
        ([root("a", origin=Origin.PARENT), root("b", State.PREPARED, origin=Origin.OWN)], False),
        ([root("a", expires_at=NOW)], False),
        ([], False),
    ],
)
def test_what_can_certify(known: list[Standing], *, possible: bool) -> None:
    """A root whose file was replaced certifies no more, and nothing below it is due."""
    assert can_certify(known, NOW) is possible
    steps = due(known, X509, RULES[X509], NOW)
    assert steps == ([Due(Step.PREPARE, X509)] if possible else [])


def test_following_another_issuers_roots() -> None:
    """What it publishes is prepared, what it dropped is removed, active or not."""
    parents = {"origin": Origin.PARENT}
    known = [
        root("a", **parents),
        root("b", State.PREPARED, **parents),
        root("c", State.RETIRED, **parents),
        root("own", State.RETIRED, origin=Origin.OWN),
        root("old", State.RETIRED, origin=Origin.OWN, retired_at=NOW - 30 * HOUR),
    ]
    gone = Due(Step.REMOVE, ROOT, "old")
    assert follow(known, ["a", "b", "c"], RULE, NOW) == [gone]
    assert follow(known, ["b", "c", "d"], RULE, NOW) == [
        Due(Step.PREPARE, ROOT, "d"),
        Due(Step.REMOVE, ROOT, "a"),
        gone,
    ]
    signing = [root("own", origin=Origin.OWN, retired_at=None)]
    assert follow(signing, ["a"], RULE, NOW) == [Due(Step.PREPARE, ROOT, "a")]


def test_an_issuing_ca_that_is_certified_elsewhere() -> None:
    """It is asked for whichever root is active here, and at half of its life."""
    rule = RULES[X509]
    wanted = [Due(Step.PREPARE, X509)]
    assert due([], X509, rule, NOW, certified_elsewhere=True) == wanted
    assert due([], X509, rule, NOW) == []
    known = [root("a", origin=Origin.PARENT), issuing("a", origin=Origin.PARENT)]
    assert due(known, X509, rule, NOW, certified_elsewhere=True) == []
    assert due(known, X509, rule, NOW + 10 * HOUR, certified_elsewhere=True) == wanted

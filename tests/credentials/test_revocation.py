"""Revocation facts, and which credentials they match."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.authority import HOUR, NOW, Authority

from accredit_credentials.errors import InvalidRevocation, Revoked
from accredit_credentials.packed_facts import PackedFacts
from accredit_credentials.revocation import (
    MAX_SEQUENCE,
    MAX_VALUE_LENGTH,
    FactKind,
    FactSet,
    RevocationFact,
    Target,
    TargetKind,
)

AGENT = Target(TargetKind.AGENT, "support/triage")

Facts = type[FactSet] | type[PackedFacts]


@pytest.fixture(params=[FactSet, PackedFacts])
def held(request: pytest.FixtureRequest) -> Facts:
    """Both ways to hold facts keep the same promises."""
    kind: Facts = request.param
    return kind


def fact_of(
    kind: FactKind = FactKind.REVOKED, target: Target = AGENT, **changes: Any
) -> RevocationFact:
    """A good fact, with some of its values changed."""
    good = {"sequence": 1, "at": NOW, "expires_at": NOW + HOUR, "reason": "key leaked"}
    return RevocationFact(kind=kind, target=target, **{**good, **changes})


@pytest.mark.parametrize("kind", TargetKind)
def test_a_target_is_kind_and_value(kind: TargetKind) -> None:
    """Every kind is written and read back; a value may have colons itself."""
    target = Target(kind, "sha256:ab cd/é")
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        "agent",
        "agent:",
        ":x",
        "Agent:x",
        "agent :x",
        "everything:x",
        "agent:a\nb",
        "agent:a\x1b[31m",
        "agent:\u202ea",
        "agent:" + "x" * (MAX_VALUE_LENGTH + 1),
    ],
)
def test_anything_else_is_no_target(text: str) -> None:
    """An unknown kind, an empty, long or unprintable value is refused."""
    with pytest.raises(InvalidRevocation):
        Target.parse(text)


@pytest.mark.parametrize("kind", FactKind)
def test_a_fact_is_read_back(kind: FactKind) -> None:
    """Every kind of fact survives the way through a claim."""
    assert RevocationFact.of_claim(fact_of(kind).to_claim()) == fact_of(kind)


@pytest.mark.parametrize("member", ["seq", "target", "kind", "at", "exp", "reason"])
@pytest.mark.parametrize("value", [None, "", True, -1, [], ["revoked"], {"a": 1}])
def test_each_member_of_a_fact_is_required(member: str, value: object) -> None:
    """Drop or spoil one after the other: each is refused, as a fact."""
    claim = fact_of().to_claim()
    with pytest.raises(InvalidRevocation):
        RevocationFact.of_claim({**claim, member: value})
    with pytest.raises(InvalidRevocation):
        RevocationFact.of_claim({name: v for name, v in claim.items() if name != member})


@pytest.mark.parametrize(
    ("sequence", "good"),
    [(0, False), (1, True), (MAX_SEQUENCE, True), (MAX_SEQUENCE + 1, False), (10**400, False)],
)
def test_a_sequence_number_is_one_that_every_reader_understands(sequence: int, good: bool) -> None:
    """From 1 to 2^53 - 1; what is larger is refused, and takes nothing down."""
    claim = {**fact_of().to_claim(), "seq": sequence}
    if good:
        assert RevocationFact.of_claim(claim).sequence == sequence
        return
    with pytest.raises(InvalidRevocation, match="seq"):
        RevocationFact.of_claim(claim)


@pytest.mark.parametrize("value", [None, [], "fact", 1])
def test_a_fact_is_an_object(value: object) -> None:
    """Anything but an object is no fact."""
    with pytest.raises(InvalidRevocation):
        RevocationFact.of_claim(value)


def test_a_fact_matches_every_credential_that_carries_its_mark(
    held: Facts, authority: Authority
) -> None:
    """Each mark of an SVID can be the target of a fact; other SVIDs are not touched."""
    svid = authority.issue().svid
    other = authority.issue(authority.id("/ns/sales/agent/quote"), instance="x", manifest=None).svid
    held().check(svid.marks())
    for mark in svid.marks():
        facts = held([fact_of(target=Target.parse(mark))])
        with pytest.raises(Revoked, match=mark):
            facts.check(svid.marks())
        if not mark.startswith("authority:"):
            facts.check(other.marks())


@pytest.mark.parametrize(
    "mark",
    [
        *("agent:support/triag", "agent:support/triage2", "agent:Support/triage"),
        *("agent:support", "namespace:support/triage", "support/triage"),
    ],
)
def test_a_near_mark_is_another(held: Facts, mark: str) -> None:
    """A fact matches whole marks only."""
    held([fact_of()]).check([mark])


def test_a_refusal_says_which_fact_and_why(held: Facts) -> None:
    """The message names target, kind, moment and reason; nothing in it can break a log line."""
    facts = held([fact_of(FactKind.SUSPENDED, reason="a\r\n\x1b[31mb")])
    with pytest.raises(Revoked, match="agent:support/triage is suspended since 2026-06-01T12:00:00Z"
                       ) as caught:  # fmt: skip
        facts.check([str(AGENT)])
    assert str(caught.value).isprintable()


R, S, E = FactKind.REVOKED, FactKind.SUSPENDED, FactKind.RESTORED


@pytest.mark.parametrize(
    ("kinds", "in_force"),
    [
        ([], None),
        ([E], None),
        ([S], S),
        ([S, E], None),
        ([S, E, S], S),
        ([S, S, E], None),
        ([R], R),
        ([R, E], R),
        ([R, S], R),
        ([R, S, E], R),
        ([S, R], R),
        ([S, R, E], R),
        ([S, E, R, E, E], R),
    ],
)
def test_a_restoration_ends_a_suspension_and_nothing_ends_a_revocation(
    held: Facts, kinds: list[FactKind], in_force: FactKind | None
) -> None:
    """Whatever follows a revocation, it stays; a suspension stays until it is ended."""
    facts = held(fact_of(kind, sequence=n) for n, kind in enumerate(kinds, 1))
    fact = facts.match([str(AGENT)])
    assert (fact.kind if fact else None) == in_force
    assert len(facts) == (in_force is not None)


def test_a_restoration_of_one_target_restores_no_other(held: Facts) -> None:
    """Ending the suspension of an agent leaves that of its namespace."""
    namespace = Target(TargetKind.NAMESPACE, "support")
    facts = held([fact_of(S), fact_of(S, namespace), fact_of(E)])
    facts.check([str(AGENT)])
    with pytest.raises(Revoked, match="namespace:support"):
        facts.check([str(AGENT), str(namespace)])


@given(
    st.lists(
        st.tuples(st.sampled_from([R, S, E]), st.integers(1, 10)),
        max_size=8,
    ),
    st.sampled_from([FactSet, PackedFacts]),
)
def test_revoked_and_unexpired_is_always_revoked(
    story: list[tuple[FactKind, int]], held: Facts
) -> None:
    """Whatever else is said of a target, no revocation is forgotten before its own end."""
    facts = held(
        fact_of(kind, sequence=n, expires_at=NOW + timedelta(minutes=minutes))
        for n, (kind, minutes) in enumerate(story, 1)
    )
    for minute in range(10):
        now = NOW + timedelta(minutes=minute)
        facts.drop_expired(now)
        if any(kind is R and minutes > minute for kind, minutes in story):
            fact = facts.match([str(AGENT)])
            assert fact is not None
            assert fact.kind is R


@pytest.mark.parametrize("kinds", [(R, R), (R, S), (S, R), (S, S)])
def test_the_longer_life_counts(held: Facts, kinds: tuple[FactKind, FactKind]) -> None:
    """A later fact never shortens an earlier one, nor the other way round."""
    for first, second in [(1, 5), (5, 1)]:
        facts = held(
            fact_of(kind, sequence=n, expires_at=NOW + hours * HOUR)
            for n, (kind, hours) in enumerate(zip(kinds, (first, second), strict=True), 1)
        )
        assert facts.drop_expired(NOW + 5 * HOUR - timedelta(seconds=1)) == 0
        assert facts.drop_expired(NOW + 5 * HOUR) == 1


def test_expired_facts_are_forgotten(held: Facts) -> None:
    """At the end of its life a fact goes, and only then."""
    other = Target(TargetKind.TASK, "t")
    facts = held([fact_of(), fact_of(target=other, expires_at=NOW + 2 * HOUR)])
    assert facts.drop_expired(NOW + HOUR - timedelta(seconds=1)) == 0
    assert facts.drop_expired(NOW + HOUR) == 1
    assert [fact.target for fact in facts] == [other]


def test_facts_come_in_their_order(held: Facts) -> None:
    """Whoever lists the facts in force gets them by sequence."""
    targets = [Target(TargetKind.TASK, str(n)) for n in range(5)]
    facts = held(fact_of(target=target, sequence=10 - n) for n, target in enumerate(targets))
    assert [fact.sequence for fact in facts] == [6, 7, 8, 9, 10]


def test_reading_while_another_thread_applies_is_safe(held: Facts) -> None:
    """A fact that goes between two looks is an answer, never an error."""
    facts = held()
    stop = threading.Event()

    def flicker() -> None:
        while not stop.is_set():
            facts.apply(fact_of(S))
            facts.apply(fact_of(E))

    thread = threading.Thread(target=flicker)
    thread.start()
    try:
        for _ in range(50_000):
            facts.match([str(AGENT)])
            list(facts)
    finally:
        stop.set()
        thread.join()


class Vanishing(dict[str, RevocationFact]):
    """A dict whose entry goes as soon as somebody asked whether it is there."""

    def __contains__(self, mark: object) -> bool:
        """Say yes, and lose it."""
        found = super().__contains__(mark)
        self.pop(str(mark), None)
        return found


def test_one_look_decides() -> None:
    """The same promise without luck: asking and fetching is one operation."""
    facts = FactSet()
    facts._by_mark = Vanishing({str(AGENT): fact_of()})
    assert facts.match([str(AGENT)]) == fact_of()

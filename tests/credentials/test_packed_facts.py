"""The facts of a verifier in little room: they decide as a set of objects would."""

import threading
import tracemalloc
import uuid
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.authority import HOUR, NOW

from accredit_credentials.fact_table import FactTable, Row
from accredit_credentials.packed_facts import PackedFacts
from accredit_credentials.revocation import (
    FactKind,
    FactSet,
    RevocationFact,
    Target,
    TargetKind,
)

MANY = 10_000
PROMISED = 100  # bytes a fact
IDENTIFIER = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"

targets = st.builds(
    Target,
    st.sampled_from(TargetKind),
    st.one_of(
        st.sampled_from(["a/b", "ab", "abc", "00", "0", "A0", IDENTIFIER, IDENTIFIER.upper()]),
        st.uuids().map(str),
        st.binary(min_size=1, max_size=20).map(bytes.hex),
        st.text(min_size=1, max_size=8).filter(str.isprintable),
    ),
)
facts = st.lists(
    st.tuples(
        st.sampled_from(FactKind), st.integers(0, 7), st.integers(1, 60), st.sampled_from("xyz")
    ),
    max_size=60,
)


def revoked(sequence: int, target: Target, *, minutes: int = 60) -> RevocationFact:
    """A revocation for an hour."""
    return RevocationFact(
        sequence=sequence,
        target=target,
        kind=FactKind.REVOKED,
        at=NOW,
        expires_at=NOW + timedelta(minutes=minutes),
        reason="the laptop was stolen",
    )


@given(st.lists(targets, min_size=8, max_size=8), facts)
def test_whatever_is_stated_both_sets_decide_alike(
    about: list[Target], stated: list[tuple[FactKind, int, int, str]]
) -> None:
    """Facts of any kind about any targets, and their ends: objects and rows tell the same."""
    objects, packed = FactSet(), PackedFacts()
    for sequence, (kind, number, minutes, reason) in enumerate(stated, 1):
        fact = RevocationFact(
            sequence=sequence,
            target=about[number],
            kind=kind,
            at=NOW + timedelta(seconds=sequence, microseconds=sequence),
            expires_at=NOW + timedelta(minutes=minutes, microseconds=1),
            reason=reason,
        )
        objects.apply(fact)
        packed.apply(fact)
        now = NOW + timedelta(minutes=sequence)
        assert packed.drop_expired(now) == objects.drop_expired(now)
        assert list(packed) == list(objects)
        assert len(packed) == len(objects)
        for target in about:
            assert packed.match((str(target),)) == objects.match((str(target),))
        for each in TargetKind:
            assert packed.marks_of(each) == objects.marks_of(each)


@pytest.mark.parametrize("kind", [TargetKind.SERIAL, TargetKind.JTI, TargetKind.INSTANCE])
def test_a_fact_takes_at_most_a_hundred_bytes(kind: TargetKind) -> None:
    """Ten thousand facts about identifiers, with one reason: counted by the allocator."""
    values = (
        uuid.uuid4().hex + "0a1b2c3d" if kind is TargetKind.SERIAL else str(uuid.uuid4())
        for _ in range(MANY)
    )
    tracemalloc.start()
    try:
        packed = PackedFacts(revoked(n, Target(kind, value)) for n, value in enumerate(values, 1))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(packed) == MANY
    assert taken / MANY <= PROMISED


def test_what_went_takes_no_room_for_long() -> None:
    """Facts that come and go for a day do not pile up."""
    packed = PackedFacts()
    for hour in range(24):
        for number in range(500):
            target = Target(TargetKind.JTI, f"{hour}-{number}")
            packed.apply(revoked(hour * 500 + number + 1, target, minutes=hour * 60 + 60))
        packed.drop_expired(NOW + hour * HOUR)
    assert len(packed) == 500
    assert packed._table.waste <= 500


def test_a_revocation_is_found_whatever_happens_beside_it() -> None:
    """While others come, go and move, no look ever misses one that stands."""
    standing = Target(TargetKind.AGENT, "support/triage")
    packed = PackedFacts([revoked(1, standing)])
    done = threading.Event()

    def churn() -> None:
        for number in range(2, 20_000):
            minutes = 60 if number % 3 else 1
            packed.apply(revoked(number, Target(TargetKind.JTI, str(number)), minutes=minutes))
            if number % 50 == 0:
                packed.apply(revoked(number, standing))
                packed.drop_expired(NOW + timedelta(minutes=2))
        done.set()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        while not done.is_set():
            assert packed.match(("task:x", str(standing))) is not None
    finally:
        thread.join()
    assert len(packed) > 10_000


def test_marks_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every mark falls on the same slot, each still leads to its own row."""
    monkeypatch.setattr("accredit_credentials.fact_table.hash", lambda _: 7, raising=False)
    table = FactTable()
    for number in range(40):
        table.put(Row(f"task:{number}", number, 0, 0, 0, "r"))
    table.remove("task:3")
    table.put(Row("task:4", 400, 0, 0, 0, "r"))
    assert table.first(["task:3", "task:40"]) is None
    assert [table.first([f"task:{n}"]).sequence for n in (0, 4, 39)] == [0, 400, 39]  # type: ignore[union-attr]
    assert len(table) == 39

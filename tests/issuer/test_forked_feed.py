"""Two histories under one set of numbers: what a verifier does that knows the other one.

An issuer is copied, as a backup is made, goes on and is followed; then the copy is opened in its
place, and states other facts. Everything that it signs verifies.
"""

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.issuer import make_config
from support.offline import Offline

from accredit_credentials.errors import InvalidRevocation, Revoked
from accredit_credentials.revocation_feed import FeedState, Gap, Statement, verify
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuer import open_issuer
from accredit_issuer.revocation import feed

LEFT_OUT = shutil.ignore_patterns("*-shm", "issuer.lock")


@contextmanager
def restored(offline: Offline, backup: Path) -> Iterator[Offline]:
    """The issuer of a backup, in place of the one that went on."""
    config = make_config(backup)
    with closing(open_issuer(config, offline.clock)) as issuer:
        yield Offline(config, offline.clock, issuer)


def back_up(offline: Offline, into: Path) -> Path:
    """A copy of the folder as it is."""
    shutil.copytree(offline.config.data.parent, into, ignore=LEFT_OUT, symlinks=True)
    return into


def said(offline: Offline, after: int) -> Statement:
    """What a verifier is told that knows so many facts."""
    return verify(offline.issuer.feed.statement(after), bundle=offline.issuer.bundle)


def hear(state: FeedState, offline: Offline, after: int) -> None:
    """Take it in."""
    state.apply(said(offline, after), now=offline.clock())


def refused(state: FeedState, offline: Offline, mark: str) -> bool:
    """Whether a verifier refuses this mark now."""
    try:
        state.check([mark], now=offline.clock(), max_age=30)
    except Revoked:
        return True
    return False


@pytest.mark.parametrize("more", [0, 1, 5])
def test_another_fact_of_the_same_number_is_noticed(
    offline: Offline, tmp_path: Path, more: int
) -> None:
    """As many facts as are known, or more: a gap, and all of them are asked for."""
    first, second, *others = (f"instance:{offline.agent().instance}" for _ in range(3 + more))
    offline.state(first)
    backup = back_up(offline, tmp_path / "backup")
    state = FeedState()
    hear(state, offline, 0)
    offline.state(second)
    hear(state, offline, 1)
    assert (state.through, refused(state, offline, second)) == (2, True)
    offline.clock.advance(seconds=5)
    offline.issuer.close()
    with restored(offline, backup) as other:
        with pytest.raises(Refusal) as refusal:
            said(other, 2)
        assert refusal.value.kind is Kind.CONFLICT, "fewer facts than it knows: it grows stale"
        with pytest.raises(InvalidRevocation, match="goes back"):
            hear(state, other, 0)
        for target in others:
            other.state(target)
        with pytest.raises(Gap, match="fact 2 is another"):
            hear(state, other, 2)
        assert not refused(state, other, others[0]), "it changed nothing"
        hear(state, other, 0)
        assert all(refused(state, other, each) for each in (first, *others))
        other.clock.advance(seconds=5)
        hear(state, other, state.through)


def test_the_same_history_is_continued_past_a_restart(offline: Offline) -> None:
    """Restarted, the issuer has the same words: nobody has to ask for everything."""
    offline.state(f"instance:{offline.agent().instance}")
    offline.state("signer:ci")  # nobody is told of it, and it has a number
    state = FeedState()
    hear(state, offline, 0)
    offline.reopen()
    offline.clock.advance(seconds=5)
    statement = said(offline, state.through)
    assert statement.after == state.through
    state.apply(statement, now=offline.clock())
    offline.signer("other", "payments")
    offline.state("signer:other")
    hear(state, offline, state.through)
    assert state.through == offline.issuer.feed.through
    hear(state, offline, state.through)


def test_words_are_kept_of_as_many_facts_as_are_told(
    offline: Offline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is farther behind gets a snapshot, past a restart too: what is remembered is bounded."""
    monkeypatch.setattr(feed, "MAX_BACKLOG", 4)
    target = f"instance:{offline.agent().instance}"
    for _ in range(5):
        offline.state(target, "suspended")
        offline.state(target, "restored")
    for _ in range(2):
        near, far = said(offline, 6), said(offline, 5)
        assert (near.after, len(near.facts), far.after) == (6, 4, 0)
        assert near.continues is not None
        assert far.continues is None
        assert near.newest == far.newest == said(offline, 10).newest is not None
        offline.reopen()

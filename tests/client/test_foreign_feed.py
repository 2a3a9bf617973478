"""The feed of another trust domain gets a budget of our time, and no more."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from support.clock import SettableClock

from accredit_client import revocations
from accredit_client.calls import STATEMENT_LIMIT, Call
from accredit_client.errors import TooMuch
from accredit_client.feed_budget import (
    FOREIGN_BYTES,
    FOREIGN_PERIOD,
    FOREIGN_STATEMENT_LIMIT,
    LEAST_CHARGE,
    FeedBudget,
)
from accredit_client.revocations import LARGE, AsyncRevocationFeed, _Follower
from accredit_credentials import jws
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import Untrusted
from accredit_credentials.keys import generate_key
from accredit_credentials.revocation_feed import TYPE
from accredit_credentials.spiffe_id import TrustDomain

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
THERE = TrustDomain("b.example")
KEY = generate_key()
BUNDLE = TrustBundle(THERE, (), {"k": KEY.public_key()}, 1)


def statement(facts: int = 0, *, reason: str = "x") -> str:
    """A snapshot that they signed."""
    claims: dict[str, Any] = {
        "iss": str(THERE.id),
        "iat": int(NOW.timestamp()),
        "after": 0,
        "through": facts,
        "facts": [
            {
                "seq": number,
                "target": f"jti:{number:036}",
                "kind": "revoked",
                "at": int(NOW.timestamp()),
                "exp": int(NOW.timestamp()) + 3600,
                "reason": reason,
            }
            for number in range(1, facts + 1)
        ],
    }
    return jws.sign(claims, KEY, header={"kid": "k", "typ": TYPE})


def follower(clock: SettableClock, *, max_facts: int | None = 10_000) -> _Follower:
    """Of their feed, or with no bound of our own issuer's."""
    return _Follower(
        lambda: BUNDLE,
        clock=clock,
        draw=lambda: 0.0,
        ask=None,
        max_facts=max_facts,
        max_life=None,
    )


def test_the_numbers_leave_room() -> None:
    """Two whole snapshots and an eager heartbeat are within the budget of one period."""
    heartbeats = int(FOREIGN_PERIOD / 0.2) * LEAST_CHARGE
    assert 2 * FOREIGN_STATEMENT_LIMIT + heartbeats <= FOREIGN_BYTES
    assert len(statement(10_000)) <= FOREIGN_STATEMENT_LIMIT
    assert FOREIGN_STATEMENT_LIMIT < STATEMENT_LIMIT


def test_a_budget_is_spent_and_fills_up() -> None:
    """To the last byte; what is beyond waits until there is enough, and not a moment longer."""
    clock, budget = SettableClock(NOW), FeedBudget()
    budget.spend(FOREIGN_BYTES, clock())
    with pytest.raises(TooMuch):
        budget.spend(FOREIGN_BYTES // 4, clock())
    assert budget.seconds_until(clock()) == pytest.approx(FOREIGN_PERIOD / 4)
    clock.advance(seconds=FOREIGN_PERIOD / 4 - 1)
    with pytest.raises(TooMuch):
        budget.spend(FOREIGN_BYTES // 4, clock())
    clock.advance(seconds=1.001)
    assert budget.seconds_until(clock()) == 0
    budget.spend(FOREIGN_BYTES // 4, clock())


def test_a_budget_and_a_clock_that_is_set_back() -> None:
    """Nothing is filled by it, and nothing is lost but the time."""
    clock, budget = SettableClock(NOW), FeedBudget()
    budget.spend(FOREIGN_BYTES, clock())
    clock.advance(hours=-1)
    with pytest.raises(TooMuch):
        budget.spend(1, clock())
    clock.advance(hours=2)
    budget.spend(FOREIGN_BYTES, clock())
    with pytest.raises(TooMuch):  # no more than one period's is ever saved
        budget.spend(1, clock())


def test_snapshots_back_to_back() -> None:
    """Theirs are heard until the budget is spent, then not before it has filled up."""
    clock = SettableClock(NOW)
    theirs, large = follower(clock), statement(2000, reason="y" * 100)
    taken = FOREIGN_BYTES // len(large)
    for _ in range(taken):
        assert theirs.take("statement", large)
    with pytest.raises(TooMuch) as refused:
        theirs.take("statement", large)
    pause = theirs.failed(refused.value)
    missing = len(large) - (FOREIGN_BYTES - taken * len(large))
    assert pause >= missing * FOREIGN_PERIOD / FOREIGN_BYTES
    clock.advance(seconds=pause + 0.001)
    assert theirs.take("statement", large)


def test_a_flood_of_small_events() -> None:
    """Each costs a signature's check: so many, whatever they are, and not one more."""
    theirs, heartbeat = follower(SettableClock(NOW)), statement()
    most = FOREIGN_BYTES // LEAST_CHARGE
    for _ in range(most - 1):
        assert not theirs.take("other", "")
    assert theirs.take("statement", heartbeat)
    with pytest.raises(TooMuch):
        theirs.take("other", "")


def test_our_own_issuer_has_no_budget() -> None:
    """Its feed is heard whole, at any time, up to its own bound of a statement."""
    ours, large = follower(SettableClock(NOW), max_facts=None), statement(2000, reason="y" * 100)
    for _ in range(FOREIGN_BYTES // len(large) + 2):
        assert ours.take("statement", large)
    assert ours.call().limit == STATEMENT_LIMIT
    assert follower(SettableClock(NOW)).call().limit == FOREIGN_STATEMENT_LIMIT


class Streaming:
    """Where one stream is, with these events."""

    def __init__(self, *texts: str) -> None:
        self._texts = texts

    @asynccontextmanager
    async def stream(self, _call: Call[Any]) -> AsyncIterator[AsyncIterator[tuple[str, str]]]:
        """The events, and then nothing until it is closed."""

        async def events() -> AsyncIterator[tuple[str, str]]:
            for text in self._texts:
                yield "statement", text
            await asyncio.Event().wait()

        yield events()


def test_what_is_large_is_verified_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat on the event loop, a snapshot in a thread; both are known afterwards."""
    threads = list[threading.Thread]()
    real = revocations.verify

    def verify(text: str, *, bundle: TrustBundle) -> Any:
        threads.append(threading.current_thread())
        return real(text, bundle=bundle)

    monkeypatch.setattr(revocations, "verify", verify)
    small, large = statement(), statement(1000)
    assert len(small) <= LARGE < len(large)

    async def follow() -> int:
        issuer: Any = Streaming(small, large)
        feed = AsyncRevocationFeed(issuer, lambda: BUNDLE, clock=lambda: NOW, max_facts=1000)
        async with feed, asyncio.timeout(30):
            while feed.state.through < 1000:  # noqa: ASYNC110 (the feed says when it is fresh, not how far)
                await asyncio.sleep(0)
            return len(feed.state)

    assert asyncio.run(follow()) == 1000
    here = threading.main_thread()
    assert [thread is here for thread in threads] == [True, False]


def test_what_is_large_and_wrong() -> None:
    """A statement that does not verify is refused in a thread as it is beside it."""
    theirs, large = follower(SettableClock(NOW)), statement(1000)
    with pytest.raises(Untrusted):
        asyncio.run(theirs.take_beside("statement", large[:-8] + "AAAAAAAA"))
    assert theirs.state.as_of is None

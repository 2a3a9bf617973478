"""The revocation feed: followed, verified, and never older than it says."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
from support.authority import Authority
from support.dripping import DRIPS, Dripping
from support.fake_issuer import FakeIssuer, fake_issuer
from support.manual_time import ManualTime, TaskTime

from accredit_client import calls
from accredit_client.async_identity import AsyncAgentIdentity, _Other
from accredit_client.errors import Closed, IssuerUnreachable, NotReady
from accredit_client.identity import AgentIdentity
from accredit_client.revocations import CLOSING, AsyncRevocationFeed, RevocationFeed
from accredit_client.wire import AsyncIssuer, Issuer, Timeouts
from accredit_credentials.errors import Revoked, Stale, Untrusted
from accredit_credentials.revocation import FactKind
from accredit_credentials.spiffe_id import TrustDomain

MARKS = ("agent:support/triage",)


@pytest.fixture
def feed(issuer: FakeIssuer, authority: Authority, time: ManualTime) -> Iterator[RevocationFeed]:
    """A feed that flows."""
    bundle = authority.bundle
    with Issuer.at(issuer.url, bundle=bundle) as client:
        feed = RevocationFeed(
            client, lambda: bundle, clock=time.clock, waiter=time, draw=lambda: 0.5
        )
        with feed:
            feed.wait_fresh(20)
            yield feed


def _wait_through(feed: RevocationFeed, sequence: int) -> None:
    with feed._changed:
        assert feed._changed.wait_for(lambda: feed.state.through >= sequence, 20)


def test_a_snapshot_and_then_every_fact(
    feed: RevocationFeed, issuer: FakeIssuer, time: ManualTime
) -> None:
    """What was revoked before and after the start is known; what was restored is not revoked."""
    feed.state.check(MARKS, now=time.clock(), max_age=30)
    issuer.revoke("agent:support/triage", FactKind.SUSPENDED)
    _wait_through(feed, 1)
    with pytest.raises(Revoked, match="suspended"):
        feed.state.check(MARKS, now=time.clock(), max_age=30)
    issuer.revoke("agent:support/triage", FactKind.RESTORED)
    _wait_through(feed, 2)
    feed.state.check(MARKS, now=time.clock(), max_age=30)


def test_a_lost_stream_is_opened_again_where_it_ended(
    feed: RevocationFeed, issuer: FakeIssuer, time: ManualTime
) -> None:
    """After an outage the feed asks for what it missed, and says meanwhile what is wrong."""
    issuer.revoke("instance:one")
    _wait_through(feed, 1)
    issuer.hang_up()
    time.settle()
    assert "ended the revocation stream" in str(feed.last_error)
    issuer.revoke("agent:support/triage")
    time.advance(seconds=1)
    _wait_through(feed, 2)
    assert feed.last_error is None
    assert [asked.path[-1] for asked in issuer.calls_of("/v1/revocations/stream")] == ["0", "1"]


def test_a_silent_feed_fails_closed(feed: RevocationFeed) -> None:
    """Knowledge that is older than its bound says no to everybody."""
    as_of = feed.state.as_of
    assert as_of is not None
    feed.state.check(MARKS, now=as_of + timedelta(seconds=30), max_age=30)
    with pytest.raises(Stale, match="31 seconds old, the limit is 30"):
        feed.state.check(MARKS, now=as_of + timedelta(seconds=31), max_age=30)


def test_a_gap_is_closed_with_a_snapshot(
    feed: RevocationFeed, issuer: FakeIssuer, time: ManualTime
) -> None:
    """When statements were lost, everything is asked for again."""
    issuer.revoke("instance:one")
    _wait_through(feed, 1)
    # A second fact, of which the stream is never told.
    issuer.facts.append(replace(issuer.facts[0], sequence=2))
    issuer.revoke("agent:support/triage")
    time.settle()
    assert "statement continues fact 2, known is 1" in str(feed.last_error)
    time.advance(seconds=1)
    _wait_through(feed, 3)
    with pytest.raises(Revoked):
        feed.state.check(MARKS, now=time.clock(), max_age=30)
    assert [asked.path[-1] for asked in issuer.calls_of("/v1/revocations/stream")] == ["0", "0"]


def test_statements_of_strangers_are_not_believed(
    authority: Authority, other_authority: Authority, time: ManualTime
) -> None:
    """A statement that the bundle does not vouch for changes nothing."""
    forger = Authority("example.org", now=authority.now)
    bundle = authority.bundle
    with fake_issuer(authority, time.clock) as fake:
        fake.statement = lambda after: _signed_by(fake, forger, after)  # type: ignore[method-assign]
        with Issuer.at(fake.url, bundle=bundle) as client:
            feed = RevocationFeed(client, lambda: bundle, clock=time.clock, waiter=time)
            with feed:
                time.settle()
                assert isinstance(feed.last_error, Untrusted)
                assert feed.state.as_of is None
                with pytest.raises(NotReady, match="no fresh revocation statement"):
                    feed.wait_fresh(0)


@pytest.mark.parametrize("left", [0, 1, 43, -5])
def test_a_statement_that_is_cut_off_is_not_believed(
    feed: RevocationFeed, issuer: FakeIssuer, time: ManualTime, left: int
) -> None:
    """A part of one changes nothing, whatever follows it; the stream is opened again."""
    issuer.hang_up()
    time.settle()
    beginning = issuer.beginning
    issuer.facts.clear()
    issuer.revoke("agent:support/triage")
    part = issuer.statement(0)[:left]
    cut = f"event: statement\ndata: {part}\n\n".encode()
    issuer.beginning = lambda: cut  # type: ignore[method-assign]
    time.advance(seconds=1)
    time.settle()
    assert feed.last_error is not None
    assert feed.state.through == 0
    issuer.beginning = beginning  # type: ignore[method-assign]
    time.advance(seconds=10)
    _wait_through(feed, 1)
    with pytest.raises(Revoked):
        feed.state.check(MARKS, now=time.clock(), max_age=30)


def test_closing_ends_a_wait_for_the_next_statement(
    feed: RevocationFeed, issuer: FakeIssuer
) -> None:
    """A feed that waits for its issuer ends at once, twice if asked, and does not start again."""
    feed.close()
    feed.close()
    with pytest.raises(Closed):
        feed.start()


def test_the_async_twin(issuer: FakeIssuer, authority: Authority, time: ManualTime) -> None:
    """In asyncio the feed follows, loses and finds its stream alike."""
    bundle = authority.bundle
    task_time = TaskTime(time.clock())

    async def follow() -> None:
        async with AsyncIssuer.at(issuer.url, bundle=bundle) as client:
            feed = AsyncRevocationFeed(
                client, lambda: bundle, clock=time.clock, waiter=task_time, draw=lambda: 0.5
            )
            async with feed:
                await feed.wait_fresh(20)
                issuer.hang_up()
                await task_time.settle()
                assert "ended the revocation stream" in str(feed.last_error)
                issuer.revoke("agent:support/triage")
                await task_time.advance(seconds=1)
                async with feed._changed:
                    await asyncio.wait_for(
                        feed._changed.wait_for(lambda: feed.state.through == 1), 20
                    )
                with pytest.raises(Revoked):
                    feed.state.check(MARKS, now=time.clock(), max_age=30)

    asyncio.run(follow())


def test_an_identity_keeps_the_feed(options: dict[str, Any], issuer: FakeIssuer) -> None:
    """An identity that was asked to follows the feed for as long as it is open."""
    with closing(AgentIdentity(**options, revocations=True)) as identity:
        identity.start()
        assert identity.feed is not None
        identity.feed.wait_fresh(20)
        assert identity.facts is identity.feed.state


def _signed_by(fake: FakeIssuer, forger: Authority, after: int) -> str:
    own, fake.authority = fake.authority, forger
    try:
        return FakeIssuer.statement(fake, after)
    finally:
        fake.authority = own


@pytest.mark.parametrize("first", DRIPS.values(), ids=DRIPS.keys())
def test_no_drip_keeps_a_feed_from_closing(
    first: bytes | None, authority: Authority, time: ManualTime
) -> None:
    """Whatever the other side has begun and not ended, closing cuts it and the thread ends."""
    with (
        closing(Dripping(authority, first)) as other,
        Issuer.at(other.url, bundle=authority.bundle) as client,
    ):
        feed = RevocationFeed(client, lambda: authority.bundle, clock=time.clock, waiter=time)
        feed.start()
        assert other.began.wait(20)
        assert feed.close(20)


@pytest.mark.parametrize("kind", ["handshake", "headers", "refusal"])
def test_a_stream_that_opens_drop_by_drop_is_given_up(kind: str, authority: Authority) -> None:
    """Handshake, headers and a refusal's body have one deadline together, however they come."""
    timeouts = Timeouts(opening=2.0)
    with (
        closing(Dripping(authority, DRIPS[kind])) as other,
        Issuer.at(other.url, bundle=authority.bundle, timeouts=timeouts) as client,
        pytest.raises(IssuerUnreachable),
        client.stream(calls.revocation_stream(after=0)),
    ):
        pytest.fail("it never opens")

    async def async_twin(url: str) -> None:
        # There the handshake as a whole has the time to connect.
        timeouts = Timeouts(connect=0.5) if kind == "handshake" else Timeouts(opening=2.0)
        async with AsyncIssuer.at(url, bundle=authority.bundle, timeouts=timeouts) as client:
            with pytest.raises(IssuerUnreachable):
                async with client.stream(calls.revocation_stream(after=0)):
                    pytest.fail("it never opens")

    with closing(Dripping(authority, DRIPS[kind])) as other:
        asyncio.run(async_twin(other.url))


class _Holding:
    """An issuer that says nothing, and whose connection does not close before it is let go."""

    def __init__(self) -> None:
        self.opened, self.let_go = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def stream(self, _call: object) -> AsyncIterator[AsyncIterator[tuple[str, str]]]:
        """A stream without events."""
        try:
            yield self._silence()
        finally:
            await self.let_go.wait()

    async def _silence(self) -> AsyncIterator[tuple[str, str]]:
        self.opened.set()
        await asyncio.Event().wait()
        yield "statement", ""


@pytest.mark.parametrize("holds", [True, False])
def test_closing_in_asyncio_has_a_bound(authority: Authority, *, holds: bool) -> None:
    """A connection that does not close is left behind, and that is said; any other has ended."""

    async def close() -> None:
        other = _Holding()
        if not holds:
            other.let_go.set()
        feed = AsyncRevocationFeed(cast("Any", other), lambda: authority.bundle)
        feed.start()
        await other.opened.wait()
        assert await feed.aclose(0.05 if holds else CLOSING) is not holds
        other.let_go.set()
        assert await feed.aclose()
        assert await feed.aclose()

    asyncio.run(close())


def test_a_feed_of_others_that_does_not_close_keeps_nobody_waiting(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An identity leaves the others' feeds all at once, and what is held open stays behind."""
    monkeypatch.setattr("accredit_client.async_identity.LEAVING", 0.05)

    async def leave() -> None:
        closed = list[str]()
        identity = AsyncAgentIdentity.__new__(AsyncAgentIdentity)
        identity._others = {}
        held = _Holding(), _Holding()
        held[1].let_go.set()
        for name, other in zip(("b.example", "c.example"), held, strict=True):
            feed = AsyncRevocationFeed(cast("Any", other), lambda: authority.bundle)
            feed.start()
            await other.opened.wait()
            resources = AsyncExitStack()
            resources.callback(closed.append, name)
            identity._others[TrustDomain(name)] = _Other("https://x", feed, resources)
        await identity._leave_others()
        assert identity._others == {}
        assert closed == ["c.example"]
        held[0].let_go.set()

    asyncio.run(leave())

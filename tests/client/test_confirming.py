"""Acknowledging facts: after they are applied, beside the feed, and as little as is needed."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any, cast

import pytest
from support.authority import Authority
from support.fake_issuer import Asked, FakeIssuer
from support.manual_time import ManualTime
from support.waiting import until

from accredit_client.async_identity import AsyncAgentIdentity
from accredit_client.call import Call
from accredit_client.confirming import AGAIN, Acknowledgement, Said, TaskConfirmer, ThreadConfirmer
from accredit_client.errors import IdentityExpired, IssuerUnreachable
from accredit_client.identity import AgentIdentity
from accredit_client.revocations import RevocationFeed
from accredit_client.tls import View
from accredit_client.wire import Issuer

PATH = "/v1/revocations/acknowledgements"
ID = "kOCzZ0bDqvq1cUNYRjpHcg"
TIMEOUT = 20.0


@contextmanager
def following(
    issuer: FakeIssuer, authority: Authority, time: ManualTime, *, confirming: bool = True
) -> Iterator[RevocationFeed]:
    """A feed that flows."""
    with Issuer.at(issuer.url, bundle=authority.bundle) as client:
        feed = RevocationFeed(
            client,
            lambda: authority.bundle,
            clock=time.clock,
            waiter=time,
            draw=lambda: 0.5,
            confirm_at=client if confirming else None,
        )
        with feed:
            feed.wait_fresh(TIMEOUT)
            yield feed


def acknowledged(issuer: FakeIssuer) -> list[int]:
    """What the issuer heard."""
    return [asked.body["through"] for asked in issuer.calls_of(PATH)]


def test_what_is_worth_a_word() -> None:
    """A new fact is; a heartbeat is where nothing was said for long, or the stream is another."""
    now, said = ManualTime(Authority().now).clock(), Said()
    assert said.next(3, now) is None, "no stream, no id"
    said.begin(ID)
    assert said.next(3, now) == Acknowledgement(ID, 3)
    assert said.next(3, now + AGAIN - timedelta(seconds=1)) is None
    assert said.next(4, now + timedelta(seconds=1)) == Acknowledgement(ID, 4)
    assert said.next(4, now + AGAIN) is None
    assert said.next(4, now + AGAIN + timedelta(seconds=1)) == Acknowledgement(ID, 4)
    said.begin(ID[::-1])
    assert said.next(4, now + AGAIN + timedelta(seconds=1)) == Acknowledgement(ID[::-1], 4)
    said.end()
    assert said.next(5, now) is None


@pytest.mark.parametrize("odd", ["", ID[1:], ID + "A", ID[:-1] + "\r", ID[:-1] + "é", "A" * 9999])
def test_an_odd_id_is_none(odd: str) -> None:
    """Nothing of another form than an id is ever sent back."""
    said = Said()
    said.begin(odd)
    assert said.next(1, Authority().now) is None
    assert ID not in repr(Acknowledgement(ID, 1))


def test_a_fact_is_acknowledged_once_it_is_applied(
    issuer: FakeIssuer, authority: Authority, time: ManualTime
) -> None:
    """The snapshot and each fact are acknowledged, heartbeats and what is not believed are not."""
    issuer.listener_id = ID
    with following(issuer, authority, time) as feed:
        until(lambda: acknowledged(issuer) == [0])
        issuer.tell()
        issuer.revoke("instance:one")
        until(lambda: acknowledged(issuer) == [0, 1])
        own, issuer.authority = issuer.authority, Authority("example.org", now=authority.now)
        issuer.revoke("instance:two")
        time.settle()
        assert feed.state.through == 1
        issuer.authority = own
        time.advance(seconds=1)
        until(lambda: acknowledged(issuer) == [0, 1, 2])
    assert {asked.body["listener"] for asked in issuer.calls_of(PATH)} == {ID}


def test_a_refused_acknowledgement_is_forgotten(
    issuer: FakeIssuer, authority: Authority, time: ManualTime
) -> None:
    """It is not said again: the next fact's covers it, and the feed flows on."""
    issuer.listener_id = ID
    issuer.refuse(PATH, "unavailable", status=503, times=2)
    with following(issuer, authority, time) as feed:
        until(lambda: acknowledged(issuer) == [0])
        issuer.revoke("instance:one")
        until(lambda: acknowledged(issuer) == [0, 1])
        issuer.revoke("instance:two")
        until(lambda: acknowledged(issuer) == [0, 1, 2])
        assert feed.last_error is None


@pytest.mark.parametrize("confirming", [True, False])
def test_nobody_else_is_told(
    issuer: FakeIssuer, authority: Authority, time: ManualTime, *, confirming: bool
) -> None:
    """An issuer that gives no id is told nothing, nor is one that is not ours."""
    issuer.listener_id = None if confirming else ID
    with following(issuer, authority, time, confirming=confirming) as feed:
        issuer.revoke("instance:one")
        until(lambda: feed.state.through == 1)
    assert acknowledged(issuer) == []


class _Slow:
    """An issuer whose answers a test holds back, in threads and in asyncio."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.came, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def send(self, call: Call[Any]) -> None:
        """Take a call, and answer when told to."""
        assert call.body is not None
        self.heard.append(call.body["through"])
        self.came.release()
        assert self.go.acquire(timeout=TIMEOUT)
        raise IssuerUnreachable("as the test says")

    async def asend(self, call: Call[Any]) -> None:
        """The same."""
        await asyncio.to_thread(self.send, call)


def test_of_many_words_the_newest_is_said() -> None:
    """While one call is under way nothing waits, and of what came meanwhile the last is said."""
    slow = _Slow()
    with closing(ThreadConfirmer(cast("Any", slow))) as confirmer:
        confirmer.say(Acknowledgement(ID, 1))
        assert slow.came.acquire(timeout=TIMEOUT)
        for through in range(2, 1000):
            confirmer.say(Acknowledgement(ID, through))
        assert slow.heard == [1]
        slow.go.release()
        assert slow.came.acquire(timeout=TIMEOUT)
        slow.go.release()
    assert slow.heard == [1, 999]
    confirmer.say(Acknowledgement(ID, 1000))
    assert slow.heard == [1, 999], "closed"


def test_the_async_twin_says_the_newest() -> None:
    """In asyncio alike, and closing ends a call that is under way."""
    slow = _Slow()

    class Twin:
        send = staticmethod(slow.asend)

    async def say() -> None:
        confirmer = TaskConfirmer(cast("Any", Twin()))
        confirmer.say(Acknowledgement(ID, 1))
        assert await asyncio.to_thread(slow.came.acquire, timeout=TIMEOUT)
        for through in range(2, 1000):
            confirmer.say(Acknowledgement(ID, through))
        slow.go.release()
        assert await asyncio.to_thread(slow.came.acquire, timeout=TIMEOUT)
        await confirmer.aclose()
        slow.go.release()

    asyncio.run(say())
    assert slow.heard == [1, 999]


def test_an_identity_acknowledges_as_itself(options: dict[str, Any], issuer: FakeIssuer) -> None:
    """With the SVID it holds, which gives the verifier its name."""
    issuer.listener_id = ID
    with closing(AgentIdentity(**options, revocations=True)) as identity:
        identity.start()
        assert identity.feed is not None
        until(lambda: bool(issuer.calls_of(PATH)))
        assert issuer.calls_of(PATH)[0].serial == identity.x509.svid.serial


def test_an_async_identity_acknowledges_as_itself(
    options: dict[str, Any], issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its twin; and as nobody, where it may not use its SVID any more."""
    issuer.listener_id = ID

    def over() -> View:
        raise IdentityExpired("as the test says")

    async def heard(number: int) -> list[Asked]:
        await asyncio.to_thread(until, lambda: len(issuer.calls_of(PATH)) >= number)
        return issuer.calls_of(PATH)

    async def follow() -> None:
        async with AsyncAgentIdentity(**options, revocations=True) as identity:
            assert (await heard(1))[0].serial == identity.x509.svid.serial
            monkeypatch.setattr(identity._keeper, "issuer_view", over)
            issuer.revoke("instance:one")
            assert [asked.serial is None for asked in await heard(2)] == [False, True]

    asyncio.run(follow())

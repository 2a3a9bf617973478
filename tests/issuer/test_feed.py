"""The feed: one signature for all who ask, nothing lost, a heartbeat when nothing happens."""

import asyncio
import itertools
import threading
from collections.abc import Iterable
from dataclasses import replace

import pytest
from support.offline import Offline

from accredit_client.feed_budget import FOREIGN_STATEMENT_LIMIT
from accredit_credentials.errors import Revoked, Stale
from accredit_credentials.revocation import MAX_REASON_LENGTH, FactKind, RevocationFact, Target
from accredit_credentials.revocation_feed import FeedState, Statement, verify
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.revocation import feed as module
from accredit_issuer.revocation import pages
from accredit_issuer.revocation.feed import Feed

TIMEOUT = 20


def make_feed(offline: Offline, heartbeat: float = 10.0) -> Feed:
    """A feed of its own, with any heartbeat."""
    issuer = offline.issuer
    return Feed(offline.config.trust_domain, issuer.authorities, offline.clock, heartbeat)


def some_facts(offline: Offline, sequences: Iterable[int]) -> list[RevocationFact]:
    """Facts of these sequence numbers."""
    return [
        RevocationFact(
            sequence=sequence,
            target=Target.parse(f"serial:{sequence:x}"),
            kind=FactKind.REVOKED,
            at=offline.clock(),
            expires_at=offline.clock.now.replace(year=2027),
            reason="r",
        )
        for sequence in sequences
    ]


def read(offline: Offline, text: str) -> Statement:
    """A verified statement."""
    return verify(text, bundle=offline.issuer.bundle)


def test_one_signature_serves_all(offline: Offline) -> None:
    """The same question gets the very same bytes, until a fact comes or the answer grows old."""
    feed = make_feed(offline)
    feed.publish(some_facts(offline, [1, 2]))
    first = feed.statement(0)
    assert feed.statement(0) is first
    assert feed.statement(1) is not first
    offline.clock.advance(seconds=2.4)
    assert feed.statement(0) is first
    offline.clock.advance(seconds=0.2)
    second = feed.statement(0)
    assert second is not first
    assert read(offline, second).as_of == offline.clock().replace(microsecond=0)
    feed.publish(some_facts(offline, [3]))
    assert read(offline, feed.statement(0)).through == 3


def test_a_statement_has_what_was_asked_for(offline: Offline) -> None:
    """After N come the facts after N, in order, up to the newest."""
    feed = make_feed(offline)
    feed.publish(some_facts(offline, range(1, 11)))
    for after in range(11):
        statement = read(offline, feed.statement(after))
        assert (statement.after, statement.through) == (after, 10)
        assert [fact.sequence for fact in statement.facts] == list(range(after + 1, 11))
    with pytest.raises(Refusal) as refused:
        feed.statement(11)
    assert refused.value.kind is Kind.CONFLICT


def test_what_is_remembered_is_bounded(offline: Offline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for every N does not fill the memory with long statements, nor with many."""
    monkeypatch.setattr(module, "MAX_CACHED_CHARACTERS", 30_000)
    monkeypatch.setattr(module, "MAX_CACHED", 50)
    feed = make_feed(offline)
    feed.publish(some_facts(offline, range(1, 201)))
    for after in [*range(200), 0, 0, 100]:
        read(offline, feed.statement(after))
        held = sum(len(signed.text) for signed in feed._signed.values())
        assert held == feed._signed_characters
        assert held <= 60_000
        assert len(feed._signed) <= 50


def test_following_gets_a_fact_at_once_and_then_heartbeats(offline: Offline) -> None:
    """A listener hears where it stands, then each fact once, then that nothing happened."""

    async def listen() -> list[Statement]:
        feed = make_feed(offline, heartbeat=0.02)
        feed.attach(asyncio.get_running_loop())
        following = feed.follow(0)
        heard = [read(offline, await anext(following))]
        assert feed.listeners == 1
        threading.Thread(target=feed.publish, args=(some_facts(offline, [1]),)).start()
        async with asyncio.timeout(TIMEOUT):
            while heard[-1].through < 1:
                heard.append(read(offline, await anext(following)))
            heard.append(read(offline, await anext(following)))
            feed.close()
            heard += [read(offline, text) async for text in following]
        assert feed.listeners == 0
        return heard

    heard = asyncio.run(listen())
    assert (heard[0].after, heard[0].through) == (0, 0)
    assert [fact.sequence for statement in heard for fact in statement.facts] == [1]
    assert (heard[-1].after, heard[-1].facts) == (1, ())


def test_following_hears_of_another_bundle_at_once(offline: Offline) -> None:
    """When the bundle changed a listener hears its new number, in a statement made for it."""
    issuer = offline.issuer

    async def listen() -> list[Statement]:
        issuer.feed.attach(asyncio.get_running_loop())
        following = issuer.feed.follow(0)
        heard = [read(offline, await anext(following))]
        await asyncio.to_thread(offline.prepare, AuthorityKind.JWT)
        async with asyncio.timeout(TIMEOUT):
            heard.append(read(offline, await anext(following)))
        await following.aclose()  # type: ignore[attr-defined]
        return heard

    before, after = asyncio.run(listen())
    assert offline.config.heartbeat >= 10, "a heartbeat is no answer"
    assert after.as_of == before.as_of, "the clock stood: a cached statement would be good"
    assert (before.bundle or 0) + 1 == after.bundle == issuer.bundle.sequence


def test_following_resumes_where_it_stopped(offline: Offline) -> None:
    """A verifier that comes back with its N misses nothing and hears nothing twice."""

    async def listen() -> FeedState:
        feed = make_feed(offline)
        feed.attach(asyncio.get_running_loop())
        state = FeedState()
        for number in range(1, 30):
            feed.publish(some_facts(offline, [2 * number - 1, 2 * number]))
            following = feed.follow(state.through)
            async with asyncio.timeout(TIMEOUT):
                state.apply(read(offline, await anext(following)), now=offline.clock())
            await following.aclose()  # type: ignore[attr-defined]
            assert feed.listeners == 0
        return state

    state = asyncio.run(listen())
    assert (state.through, len(state)) == (58, 58)


def test_no_fact_is_lost_between_listeners_and_writers(offline: Offline) -> None:
    """Facts that come one by one from another thread reach a hundred listeners, each once."""

    async def listen() -> list[list[int]]:
        feed = make_feed(offline)
        feed.attach(asyncio.get_running_loop())

        async def one() -> list[int]:
            heard: list[int] = []
            async for text in feed.follow(0):
                statement = text.split(".")[1]
                heard += _sequences(statement)
                if heard[-1:] == [50]:
                    return heard
            return heard

        listeners = [asyncio.create_task(one()) for _ in range(100)]

        def publish() -> None:
            for number in range(1, 51):
                feed.publish(some_facts(offline, [number]))

        threading.Thread(target=publish).start()
        async with asyncio.timeout(TIMEOUT):
            return list(await asyncio.gather(*listeners))

    assert all(heard == list(range(1, 51)) for heard in asyncio.run(listen()))


def test_forgetting_does_not_forget_what_comes_meanwhile(offline: Offline) -> None:
    """While expired facts are dropped again and again, no new one is lost from the feed."""
    manifest = offline.register()
    serials = [offline.attest(manifest).serial for _ in range(12)]
    stop = threading.Event()

    def forget() -> None:
        while not stop.is_set():
            offline.issuer.revocation.forget_expired(offline.issuer.writer, offline.clock())

    thread = threading.Thread(target=forget)
    thread.start()
    for serial in serials:
        offline.state(f"serial:{serial}")
    stop.set()
    thread.join()
    assert [fact.sequence for fact in offline.issuer.feed.facts] == list(range(1, 13))
    assert len(offline.issuer.revocation.facts) == 12


def test_a_restart_goes_on_counting(offline: Offline) -> None:
    """After a restart the feed knows the same facts, and the next one has the next number."""
    manifest = offline.register()
    offline.state(f"serial:{offline.attest(manifest).serial}")
    offline.state(f"serial:{offline.attest(manifest).serial}")
    known = offline.issuer.feed.facts
    offline.reopen()
    assert offline.issuer.feed.facts == known
    (stated,) = offline.state("agent:support/summarizer")
    assert stated.fact.sequence == 3


def _sequences(payload: str) -> list[int]:
    import json  # noqa: PLC0415

    from accredit_credentials.keys import b64url_decode  # noqa: PLC0415

    return [fact["seq"] for fact in json.loads(b64url_decode(payload))["facts"]]


def test_a_snapshot_is_what_is_in_force(offline: Offline) -> None:
    """However often something is suspended and restored, a snapshot does not grow by it."""
    feed = make_feed(offline)
    one = some_facts(offline, [1])[0]
    kinds = itertools.cycle([FactKind.SUSPENDED, FactKind.RESTORED])
    feed.publish(
        replace(one, sequence=sequence, kind=kind)
        for sequence, kind in zip(range(1, 2001), kinds, strict=False)
    )
    snapshot = read(offline, feed.statement(0))
    assert (snapshot.after, snapshot.through, snapshot.facts) == (0, 2000, ())


def test_who_is_far_behind_gets_a_snapshot(offline: Offline) -> None:
    """More facts than the backlog allows come as a snapshot, which replaces what was known."""
    feed = make_feed(offline)
    feed.publish(some_facts(offline, range(1, module.MAX_BACKLOG + 3)))
    near = read(offline, feed.statement(2))
    assert (near.after, len(near.facts)) == (2, module.MAX_BACKLOG)
    far = read(offline, feed.statement(1))
    assert (far.after, len(far.facts)) == (0, module.MAX_BACKLOG + 2)


def test_a_verifier_that_slept_for_a_day(offline: Offline) -> None:
    """It refuses everybody until it has asked, and then knows what was said in the night."""
    state, old = FeedState(), offline.agent()
    offline.state(f"instance:{old.instance}")
    state.apply(read(offline, offline.issuer.feed.statement(0)), now=offline.clock())
    for hours in range(24):
        offline.clock.advance(hours=1)
        offline.issuer.keep_up()
        if hours == 3:
            offline.state(f"serial:{offline.agent().serial}")
    doomed, good = offline.agent(), offline.agent()
    offline.state(f"instance:{doomed.instance}")
    for svid in (doomed, good):
        with pytest.raises(Stale, match=r"864\d\d seconds old"):
            state.check(svid.marks(), now=offline.clock(), max_age=30)
    statement = read(offline, offline.issuer.feed.statement(state.through))
    assert (statement.after, statement.through) == (1, 3)
    state.apply(statement, now=offline.clock())
    state.check(good.marks(), now=offline.clock(), max_age=30)
    with pytest.raises(Revoked):
        state.check(doomed.marks(), now=offline.clock(), max_age=30)
    assert len(state) == 1, "nothing of the evening before is alive"


# --- what is too much for one statement ----------------------------------------------------------


def long_facts(offline: Offline, sequences: Iterable[int]) -> list[RevocationFact]:
    """Facts whose reasons take all the room that a reason may have."""
    return [
        replace(fact, reason="\U0001f512" * MAX_REASON_LENGTH)
        for fact in some_facts(offline, sequences)
    ]


def followed(offline: Offline, feed: Feed, state: FeedState) -> list[Statement]:
    """The statements that bring a verifier up to date, applied."""
    told: list[Statement] = []
    while not told or told[-1].more:
        told.append(read(offline, feed.statement(state.next)))
        state.apply(told[-1], now=offline.clock())
    return told


@pytest.mark.parametrize("many", [pages.MOST - 1, pages.MOST + 1, 40_000])
def test_any_number_of_facts_is_told(offline: Offline, many: int) -> None:
    """However many are in force, a new verifier learns them all, in statements of bounded size."""
    feed, state = make_feed(offline), FeedState()
    feed.publish(some_facts(offline, range(1, many + 1)))
    told = followed(offline, feed, state)
    assert (len(state), state.through, state.as_of) == (many, many, told[-1].as_of)
    assert max(len(signed.text) for signed in feed._signed.values()) <= FOREIGN_STATEMENT_LIMIT
    assert [each.more for each in told] == [True] * (len(told) - 1) + [False]


def test_any_reasons_are_told(offline: Offline) -> None:
    """Reasons as long as they may be make more pages, none of them longer than others take."""
    feed, state = make_feed(offline), FeedState()
    feed.publish(long_facts(offline, range(1, 1501)))
    told = followed(offline, feed, state)
    assert len(state) == 1500
    assert len(told) == 15
    assert max(len(signed.text) for signed in feed._signed.values()) <= FOREIGN_STATEMENT_LIMIT


def test_a_page_ends_where_it_ends_for_all(offline: Offline) -> None:
    """New facts move no page: what was signed for one serves the next, and nobody begins anew."""
    feed = make_feed(offline)
    feed.publish(some_facts(offline, range(1, 20_001)))
    first = read(offline, feed.statement(0))
    second = feed.statement(first.through)
    feed.publish(some_facts(offline, range(20_001, 20_010)))
    assert feed.statement(0) == feed._signed[0].text
    assert read(offline, feed.statement(0)) == first
    assert feed.statement(first.through) is second
    state = FeedState()
    followed(offline, feed, state)
    assert (len(state), state.through) == (20_009, 20_009)


def test_what_happens_between_two_pages_is_told(offline: Offline) -> None:
    """Facts of the first page are restored, and new ones stated, while the others are read."""
    feed, state = make_feed(offline), FeedState()
    facts = some_facts(offline, range(1, 10_001))
    facts[0] = replace(facts[0], kind=FactKind.SUSPENDED)
    facts[1] = replace(facts[1], kind=FactKind.SUSPENDED)
    feed.publish(facts)
    state.apply(read(offline, feed.statement(0)), now=offline.clock())
    ended = replace(facts[0], sequence=10_001, kind=FactKind.RESTORED)
    hardened = replace(facts[1], sequence=10_002, kind=FactKind.REVOKED)
    feed.publish([ended, hardened, *some_facts(offline, [10_003])])
    followed(offline, feed, state)
    state.check([str(facts[0].target)], now=offline.clock(), max_age=30)
    with pytest.raises(Revoked, match="is revoked"):
        state.check([str(facts[1].target)], now=offline.clock(), max_age=30)
    assert (len(state), state.through) == (10_000, 10_003)


def test_forgotten_facts_are_no_empty_pages(offline: Offline) -> None:
    """Millions of numbers that nothing living matches cost no statement of their own."""
    feed, state = make_feed(offline), FeedState()
    feed.load(some_facts(offline, [7, *range(5_000_001, 5_010_001)]), 6_000_000)
    told = followed(offline, feed, state)
    assert (len(state), state.through) == (10_001, 6_000_000)
    assert len(told) <= 5


def test_who_was_away_for_long_gets_all_in_pages(offline: Offline) -> None:
    """Known facts hold on until the last page is there; then those that ended are gone."""
    feed, state = make_feed(offline), FeedState()
    suspended = replace(some_facts(offline, [1])[0], kind=FactKind.SUSPENDED)
    feed.publish([suspended, *some_facts(offline, [2, 3])])
    followed(offline, feed, state)
    ended = replace(suspended, sequence=4, kind=FactKind.RESTORED)
    feed.publish([ended, *some_facts(offline, range(5, 20_001))])
    offline.clock.advance(seconds=5)
    state.apply(read(offline, feed.statement(state.next)), now=offline.clock())
    assert (state.through, len(state)) == (3, 3)
    with pytest.raises(Revoked):
        state.check([str(suspended.target)], now=offline.clock(), max_age=30)
    followed(offline, feed, state)
    state.check([str(suspended.target)], now=offline.clock(), max_age=30)
    assert (state.through, len(state)) == (20_000, 19_998)


def test_asking_for_news_waits_for_it(offline: Offline) -> None:
    """A long poll is answered when a fact comes, at once where there is one, and in its time."""

    async def ask() -> list[Statement]:
        feed = make_feed(offline)
        feed.attach(asyncio.get_running_loop())
        at_once = read(offline, await feed.awaited(0, 0))
        asked = asyncio.create_task(feed.awaited(0, TIMEOUT))
        await asyncio.sleep(0)
        threading.Thread(target=feed.publish, args=(some_facts(offline, [1]),)).start()
        async with asyncio.timeout(TIMEOUT):
            heard = read(offline, await asked)
            known = read(offline, await feed.awaited(0, TIMEOUT))
            nothing = read(offline, await feed.awaited(1, 0.01))
        with pytest.raises(Refusal):
            await feed.awaited(2, TIMEOUT)
        return [at_once, heard, known, nothing]

    heard = asyncio.run(ask())
    assert [len(each.facts) for each in heard] == [0, 1, 1, 0]
    assert [each.through for each in heard] == [0, 1, 1, 1]

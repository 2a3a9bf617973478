"""Streams of security events: who gets which events, and what is remembered of it."""

import asyncio
import json
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.audit_world import audited
from support.event_receiver import unverified
from support.offline import Offline, offline_issuer

from accredit_credentials import security_event
from accredit_credentials.spiffe_id import SpiffeId
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.registry.changes import Local
from accredit_issuer.signals.polling import Answer, Polled
from accredit_issuer.signals.streams import MAX_STREAMS, Stream, StreamAsked

RECEIVER = "spiffe://example.org/ns/security/agent/siem"
AUDIENCE = "https://siem.example.org"
LONG = 30.0


def add(offline: Offline, name: str = "siem", **values: Any) -> Stream:
    """A stream that RECEIVER polls, unless it is said otherwise."""
    good: dict[str, Any] = {"audience": AUDIENCE, "receiver": SpiffeId.parse(RECEIVER)}
    if "endpoint_url" in values:
        del good["receiver"]
    asked = StreamAsked(name=name, **{**good, **values})
    return offline.issuer.streams.add(asked, by=Local("test"), now=offline.clock())


def poll(
    offline: Offline,
    stream: Stream,
    *,
    acknowledged: tuple[str, ...] = (),
    refused: tuple[str, ...] = (),
    at_once: bool = True,
    max_events: int = 100,
) -> Answer:
    """What one call answers."""
    asked = Polled(
        max_events=max_events, at_once=at_once, acknowledged=acknowledged, refused=refused
    )
    return asyncio.run(offline.issuer.stream_polling.answer(stream, asked, longest_wait=LONG))


def told(answer: Answer) -> list[str]:
    """The subjects of the events in an answer, in its order."""
    subjects = [unverified(token)["sub_id"] for token in answer.sets.values()]
    return [each.get("uri") or each.get("id") or each.get("jti") for each in subjects]


def agents(offline: Offline, number: int) -> list[str]:
    """Facts about so many instances; the targets."""
    targets = [f"instance:{offline.agent().instance}" for _ in range(number)]
    for target in targets:
        offline.state(target)
    return targets


def expire_facts(offline: Offline) -> None:
    """Time passes until nothing living can match any fact; they are not forgotten yet."""
    offline.clock.now = max(fact.expires_at for fact in offline.issuer.feed.facts)
    offline.issuer.authorities.advance(offline.issuer.changes, offline.clock(), Local("test"))


# --- what is told ---------------------------------------------------------------------------------


def test_a_poll_tells_facts_in_their_order(offline: Offline) -> None:
    """Each fact is one SET, signed by a key that is published, for this receiver."""
    stream = add(offline)
    targets = agents(offline, 3)
    answer = poll(offline, stream)
    assert told(answer) == targets
    assert not answer.more
    for jti, token in answer.sets.items():
        event = security_event.verify(
            token,
            issuer=offline.config.token_issuer,
            audience=AUDIENCE,
            authorities=offline.issuer.bundle.jwt_authorities,
        )
        assert event.jti == jti
        assert event.claims["initiating_entity"] == "system", "nobody but the test itself did it"


def test_a_new_stream_begins_with_what_is_in_force(offline: Offline) -> None:
    """A receiver that comes late hears of facts from before it; of expired ones it does not."""
    (old,) = agents(offline, 1)
    expire_facts(offline)
    (newer,) = agents(offline, 1)
    assert old != newer
    assert told(poll(offline, add(offline))) == [newer]


def test_owners_and_signers_are_not_told(offline: Offline) -> None:
    """Who answers for an agent is not in the feed and not in events: what they expand to is."""
    manifest = offline.register()
    stream = add(offline)
    offline.state("owner:maria@example.org")
    assert told(poll(offline, stream)) == [f"manifest:{manifest.digest}"]
    assert "maria" not in str([unverified(t) for t in poll(offline, stream).sets.values()])


def test_two_receivers_get_their_own_events(offline: Offline) -> None:
    """Another audience and another ``jti``; ``txn`` says that it is one event."""
    first, second = add(offline), add(offline, "soar", audience="https://soar.example.org")
    agents(offline, 1)
    (one,), (other,) = (list(poll(offline, each).sets.values()) for each in (first, second))
    assert unverified(one)["aud"] != unverified(other)["aud"]
    assert unverified(one)["jti"] != unverified(other)["jti"]
    assert unverified(one)["txn"] == unverified(other)["txn"]


# --- acknowledgements -----------------------------------------------------------------------------


def test_what_was_not_acknowledged_is_offered_again(offline: Offline) -> None:
    """The very same event, until it is acknowledged; then never again."""
    stream = add(offline)
    agents(offline, 1)
    first, second = poll(offline, stream), poll(offline, stream)
    (jti,) = first.sets
    assert unverified(first.sets[jti]) == unverified(second.sets[jti])
    assert not poll(offline, stream, acknowledged=(jti,)).sets
    assert not poll(offline, stream).sets


def test_events_are_acknowledged_in_any_order(offline: Offline) -> None:
    """A later one does not take an earlier one with it; across a restart neither is lost."""
    stream = add(offline)
    targets = agents(offline, 3)
    jtis = tuple(poll(offline, stream).sets)
    assert told(poll(offline, stream, acknowledged=jtis[1:])) == targets[:1]
    offline.reopen()
    assert told(poll(offline, stream)) == targets
    assert told(poll(offline, stream, acknowledged=jtis[:1])) == targets[1:]
    assert not poll(offline, stream, acknowledged=jtis).sets
    offline.reopen()
    assert not poll(offline, stream).sets


def test_an_acknowledgement_holds_after_a_restart(offline: Offline) -> None:
    """What was acknowledged was written down before the answer."""
    stream = add(offline)
    agents(offline, 2)
    poll(offline, stream, acknowledged=tuple(poll(offline, stream).sets))
    offline.reopen()
    assert not poll(offline, stream).sets
    (newer,) = agents(offline, 1)
    assert told(poll(offline, stream)) == [newer]


def test_a_fact_is_told_after_a_restart(offline: Offline) -> None:
    """Stated, and stopped before anybody asked: the event is made of what is durable."""
    stream = add(offline)
    targets = agents(offline, 1)
    offline.reopen()
    assert told(poll(offline, stream)) == targets


@pytest.mark.parametrize("jti", ["x", "", "{other}.1", "{own}.99", "{own}.-1", "{own}.1x"])
def test_an_acknowledgement_of_something_else_changes_nothing(offline: Offline, jti: str) -> None:
    """Another stream's event, one that never was, or no event: what is due stays due."""
    stream, other = add(offline), add(offline, "soar")
    targets = agents(offline, 1)
    named = jti.format(own=stream.id, other=other.id)
    assert told(poll(offline, stream, acknowledged=(named,))) == targets


def test_a_refused_event_is_not_offered_again(offline: Offline) -> None:
    """``setErrs`` acknowledges, and the stream says that something went wrong."""
    stream = add(offline)
    agents(offline, 1)
    (jti,) = poll(offline, stream).sets
    assert not poll(offline, stream, refused=(jti,)).sets
    failure = offline.issuer.streams.standing(stream).failure
    assert failure == "the receiver refused 1 events"


def test_a_fact_that_expired_is_waited_for_no_more(offline: Offline) -> None:
    """A receiver that was away for longer than facts are kept is told what is left of them."""
    stream = add(offline)
    agents(offline, 1)
    expire_facts(offline)
    (newer,) = agents(offline, 1)
    answer = poll(offline, stream)
    assert told(answer) == [newer]
    assert not poll(offline, stream, acknowledged=tuple(answer.sets)).sets


def test_a_clock_that_was_ahead_leaves_out_no_fact(tmp_path: Path) -> None:
    """What was told and accepted meanwhile takes none along that is over by that clock only."""
    with offline_issuer(tmp_path / "issuer", steady=lambda: 0.0) as offline:
        stream = add(offline, endpoint_url="https://siem.example.org/events")
        (older,) = agents(offline, 1)
        target = f"instance:{offline.agent().instance}"
        offline.clock.advance(days=2)
        offline.state(target)
        streams = offline.issuer.streams
        events, _ = streams.due(stream, 1)
        offline.clock.advance(days=-2)
        assert [event.jti for event in events] == [f"{stream.id}.1"]

        offline.clock.advance(days=2)
        done = streams.accept(stream, [f"{stream.id}.2"])
        assert done is None, "the older one waits"
        offline.clock.advance(days=-2)
        answer = poll(offline, stream)
        assert told(answer) == [older]


# --- the call's own words -------------------------------------------------------------------------


def test_no_more_than_were_asked_for(offline: Offline) -> None:
    """``maxEvents`` bounds an answer, which says that there are more; 0 only acknowledges."""
    stream = add(offline)
    targets = agents(offline, 3)
    answer = poll(offline, stream, max_events=2)
    assert told(answer) == targets[:2]
    assert answer.more
    assert not poll(offline, stream, max_events=0, acknowledged=tuple(answer.sets)).sets
    last = poll(offline, stream, max_events=2)
    assert told(last) == targets[2:]
    assert not last.more


def test_a_waiting_poll_ends_with_the_fact(offline: Offline) -> None:
    """Who waits is answered when something comes, not when the time is over."""
    stream = add(offline)
    target = f"instance:{offline.agent().instance}"

    async def wait() -> Answer:
        asked = Polled(max_events=10, at_once=False)
        polling = asyncio.create_task(offline.issuer.stream_polling.answer(stream, asked))
        while not offline.issuer.stream_polling._waiting._futures:  # noqa: ASYNC110 (a turn each)
            await asyncio.sleep(0)
        assert not polling.done()
        threading.Thread(target=offline.state, args=(target,)).start()
        async with asyncio.timeout(LONG / 2):
            return await polling

    assert told(asyncio.run(wait())) == [target]


def test_one_call_waits_for_a_stream(offline: Offline) -> None:
    """A newer one takes the place of the one before it, which is answered, and gets the fact."""
    stream = add(offline)
    target = f"instance:{offline.agent().instance}"
    polling = offline.issuer.stream_polling

    async def wait() -> tuple[Answer, Answer]:
        asked = Polled(max_events=10, at_once=False)
        async with asyncio.timeout(LONG / 2):
            first = asyncio.create_task(polling.answer(stream, asked))
            while not polling._waiting._futures:  # noqa: ASYNC110 (a turn each)
                await asyncio.sleep(0)
            second = asyncio.create_task(polling.answer(stream, asked))
            empty = await first
            threading.Thread(target=offline.state, args=(target,)).start()
            return empty, await second

    first, second = asyncio.run(wait())
    assert not first.sets
    assert told(second) == [target]


def test_a_poll_waits_for_a_bounded_time(offline: Offline) -> None:
    """Without news the answer is empty, once the time is over."""
    asked = Polled(max_events=10, at_once=False)
    answer = asyncio.run(
        offline.issuer.stream_polling.answer(add(offline), asked, longest_wait=0.01)
    )
    assert answer == Answer({}, more=False)


def test_a_verification_comes_first_and_once(offline: Offline) -> None:
    """It has the state that the receiver gave, and is over once it is acknowledged."""
    stream = add(offline)
    targets = agents(offline, 1)
    offline.issuer.streams.verify(stream, state="mine")
    answer = poll(offline, stream)
    jti, *_ = answer.sets
    assert unverified(answer.sets[jti])["events"] == {
        security_event.VERIFICATION: {"state": "mine"}
    }
    assert told(answer) == [stream.id, *targets]
    assert told(poll(offline, stream, acknowledged=(jti,))) == targets


# --- streams --------------------------------------------------------------------------------------


def test_only_its_receiver_polls_a_stream(offline: Offline) -> None:
    """To everybody else it is not there, as one that does not exist; nobody polls a push stream."""
    streams = offline.issuer.streams
    stream, pushed = add(offline), add(offline, "hook", endpoint_url="https://h.example/events")
    assert streams.of_receiver(stream.id, RECEIVER) == stream
    said = set()
    for stream_id, who in (
        (stream.id, f"{RECEIVER}2"),
        (stream.id, f"{RECEIVER}/instance/x"),
        (pushed.id, RECEIVER),
        ("0" * 32, RECEIVER),
    ):
        with pytest.raises(Refusal) as refusal:
            streams.of_receiver(stream_id, who)
        said.add((refusal.value.kind, refusal.value.detail))
    assert said == {(Kind.NOT_FOUND, "no stream with this id is yours to poll")}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"endpoint_url": "http://h.example"}, "https"),
        ({"endpoint_url": "https://u:p@h.example"}, "user name"),
        ({"endpoint_url": "https://h.example/?token=canary"}, "query"),
        ({"endpoint_url": "https://h.example", "receiver": SpiffeId.parse(RECEIVER)}, "either"),
        ({"receiver": None}, "either"),
        ({"receiver": SpiffeId.parse("spiffe://other.example/x")}, "of example.org"),
        ({"receiver": SpiffeId.parse("spiffe://example.org")}, "of example.org"),
        ({"audience": ""}, "audience"),
        ({"audience": "a b"}, "audience"),
        ({"audience": "a\nb"}, "audience"),
        ({"audience": "a" * 513}, "audience"),
        ({"name": "A!"}, "name"),
    ],
)
def test_a_stream_that_cannot_be_is_refused(
    offline: Offline, values: dict[str, Any], says: str
) -> None:
    """Each value in turn; nothing of it is recorded, and no secret is repeated."""
    before = len(offline.leaves())
    with pytest.raises(Refusal, match=says) as refusal:
        add(offline, **values)
    assert refusal.value.kind is Kind.MALFORMED
    assert "canary" not in refusal.value.detail
    assert len(offline.leaves()) == before


def test_adding_twice_is_adding_once(offline: Offline) -> None:
    """The same again changes nothing; other values under the name are refused."""
    first = add(offline)
    assert add(offline) == first
    with pytest.raises(Refusal, match="other values"):
        add(offline, audience="https://other.example")
    assert offline.issuer.streams.all() == (first,)


def test_there_are_so_many_streams_and_no_more(offline: Offline) -> None:
    """The bound holds for the next one, and not for one that is there already."""
    for number in range(MAX_STREAMS):
        add(offline, f"s{number}")
    with pytest.raises(Refusal, match="already"):
        add(offline, "one-more")
    add(offline, "s0")


def test_a_removed_stream_is_gone(offline: Offline) -> None:
    """Its receiver finds nothing, and another of its name is another stream, with another id."""
    stream = add(offline)
    agents(offline, 1)
    offline.issuer.streams.remove("siem", by=Local("test"), now=offline.clock())
    with pytest.raises(Refusal, match="yours"):
        offline.issuer.streams.of_receiver(stream.id, RECEIVER)
    assert not poll(offline, stream).sets
    with pytest.raises(Refusal, match="no stream"):
        offline.issuer.streams.remove("siem", by=Local("test"), now=offline.clock())
    assert add(offline).id != stream.id


def test_a_stream_that_is_behind_says_so(offline: Offline) -> None:
    """Something that waits for a minute is behind; a stream that is new has not waited yet."""
    streams = offline.issuer.streams
    agents(offline, 1)
    offline.clock.advance(minutes=10)
    stream = add(offline)
    assert not streams.standing(stream).behind(offline.clock())
    later = offline.clock() + timedelta(seconds=61)
    assert streams.standing(stream).behind(later)
    poll(offline, stream, acknowledged=tuple(poll(offline, stream).sets))
    (now,) = streams.all()
    assert not streams.standing(now).behind(later)
    assert streams.standing(now).waiting == 0


def test_adding_and_removing_are_records(offline: Offline) -> None:
    """Who added and who removed it, with whom it was for; deliveries are no records."""
    before = len(offline.leaves())
    stream = add(offline)
    poll(offline, stream)
    offline.issuer.streams.remove("siem", by=Local("test"), now=offline.clock())
    records = [json.loads(leaf) for leaf in offline.leaves()[before:]]
    assert [(each["kind"], each["subject"]) for each in records] == [
        ("stream.added", "siem"),
        ("stream.removed", "siem"),
    ]
    assert records[0]["details"] == {
        "id": stream.id,
        "audience": AUDIENCE,
        "endpoint_url": None,
        "receiver": RECEIVER,
    }
    assert audited(offline).findings == []

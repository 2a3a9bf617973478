"""Who confirmed a fact: what each verifier said of itself, and no longer waited for than asked."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from support.issuer import attest, log_in
from support.raw_http import RawClient
from support.wire import Wire

from accredit_client import calls
from accredit_credentials.x509_svid import X509Identity
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.revocation import confirmations as module
from accredit_issuer.revocation.confirmations import GONE_FOR, Audience, Verifier

ACKNOWLEDGE = "/v1/revocations/acknowledgements"
TIMEOUT = 20.0
ONE = Verifier("spiffe://example.org/ns/support/agent/one", "1")
TWO = Verifier("spiffe://example.org/ns/support/agent/two", "2")


class Seconds:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    """The time."""
    return Seconds()


@pytest.fixture
def audience(seconds: Seconds) -> Audience:
    """An audience that knows of three facts."""
    made = Audience(seconds)
    made.load(3)
    return made


def refused(audience: Audience, *said: Any) -> Kind:
    """What an acknowledgement is refused as."""
    with pytest.raises(Refusal) as refusal:
        audience.acknowledge(*said)
    return refusal.value.kind


def test_each_verifier_counts_as_what_it_said_of_itself(
    audience: Audience, seconds: Seconds
) -> None:
    """Named, unnamed and silent streams are counted apart, each with the time its slowest took."""
    with (
        audience.listening() as one,
        audience.listening() as two,
        audience.listening() as third,
        audience.listening(),
    ):
        for listener_id, who in ((one, ONE), (two, TWO), (third, None)):
            audience.acknowledge(listener_id, 3, who)
        audience.stated(4)
        seconds.now += 0.010
        audience.acknowledge(one, 4, ONE)
        seconds.now += 0.030
        audience.acknowledge(third, 4, None)
        found = audience.confirmations(4)
        assert not found.complete
        assert (found.named.listening, found.named.confirmed) == (2, 1)
        assert (found.unnamed.listening, found.unnamed.confirmed, found.silent) == (1, 1, 1)
        assert [each.verifier for each in found.missing] == [TWO]
        seconds.now += 0.060
        audience.acknowledge(two, 4, None)  # the id is enough, once it has a name
        found = audience.confirmations(4)
        assert found.complete, "nobody waits for a stream that never said anything"
        assert found.elapsed == pytest.approx(0.100)
        assert found.named.slowest == pytest.approx(0.100)
        assert found.unnamed.slowest == pytest.approx(0.040)


def test_an_acknowledgement_that_cannot_be_is_refused(audience: Audience) -> None:
    """Another's id, a closed stream's, a future fact, a step back: refused, nothing counts."""
    with audience.listening() as gone:
        pass
    with audience.listening() as listener_id:
        assert refused(audience, gone, 3, None) is Kind.NOT_FOUND
        assert refused(audience, "A" * 22, 3, None) is Kind.NOT_FOUND
        assert refused(audience, listener_id, 4, None) is Kind.CONFLICT
        assert audience.listeners().silent == 1
        audience.acknowledge(listener_id, 2, ONE)
        assert refused(audience, listener_id, 1, ONE) is Kind.CONFLICT
        audience.acknowledge(listener_id, 2, ONE)
        (position,) = audience.listeners().named
        assert (position.verifier, position.through) == (ONE, 2)


def test_a_stream_has_the_name_that_was_shown_last(audience: Audience) -> None:
    """Who attests anew is another instance on the same stream; its former name is not missing."""
    with audience.listening() as listener_id, audience.listening() as other:
        audience.acknowledge(listener_id, 2, ONE)
        audience.acknowledge(listener_id, 3, TWO)
        (position,) = audience.listeners().named
        assert (position.verifier, position.gone) == (TWO, False)
        audience.acknowledge(other, 2, TWO)
        assert [each.through for each in audience.listeners().named] == [2]
    assert [(each.verifier, each.gone) for each in audience.listeners().named] == [(TWO, True)]


def test_ids_are_long_and_never_the_same(audience: Audience) -> None:
    """Each stream has 128 bits of its own, of which only a digest is kept."""
    with ExitStack() as open_streams:
        ids = {open_streams.enter_context(audience.listening()) for _ in range(100)}
        assert len(ids) == 100
        assert {len(each) for each in ids} == {22}
        kept = repr(vars(audience))
        assert not any(each in kept for each in ids)


def test_the_slowest_stream_of_a_verifier_decides(audience: Audience) -> None:
    """A verifier with two streams has confirmed what both have."""
    with audience.listening() as first, audience.listening() as second:
        audience.acknowledge(first, 3, ONE)
        audience.acknowledge(second, 2, ONE)
        assert [each.through for each in audience.confirmations(3).missing] == [2]
        audience.acknowledge(second, 3, ONE)
        found = audience.confirmations(3)
        assert (found.named.listening, found.missing) == (1, ())


def test_who_left_is_named_for_a_while_and_not_waited_for(
    audience: Audience, seconds: Seconds
) -> None:
    """A verifier that is cut off is told of until it must refuse everything by itself."""
    with audience.listening() as listener_id:
        audience.acknowledge(listener_id, 3, ONE)
    audience.stated(4)
    found = audience.confirmations(4)
    assert found.complete
    assert [(each.verifier, each.through, each.gone) for each in found.gone] == [(ONE, 3, True)]
    with audience.listening() as listener_id:
        audience.acknowledge(listener_id, 3, ONE)
        assert audience.confirmations(4).gone == ()
        assert [each.verifier for each in audience.confirmations(4).missing] == [ONE]
    seconds.now += GONE_FOR
    audience.stated(5)
    assert audience.confirmations(5).gone == ()


def test_what_is_kept_is_bounded(audience: Audience, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams beyond the bound are served and not counted; the oldest commits and names go."""
    monkeypatch.setattr(module, "MAX_LISTENERS", 2)
    monkeypatch.setattr(module, "MAX_GONE", 3)
    with audience.listening(), audience.listening(), audience.listening() as too_many:
        assert refused(audience, too_many, 1, None) is Kind.NOT_FOUND
        assert audience.listeners().silent == 2
    for number in range(10):
        with audience.listening() as listener_id:
            audience.acknowledge(listener_id, 3, Verifier("spiffe://example.org/x", str(number)))
    assert [each.verifier.instance for each in audience.listeners().named] == ["7", "8", "9"]
    for number in range(4, 4 + module.MAX_COMMITS + 2):
        audience.stated(number)
    assert len(audience._commits) == module.MAX_COMMITS
    with audience.listening() as listener_id:
        audience.acknowledge(listener_id, 6, ONE)


def test_a_fact_of_long_ago_has_no_times(audience: Audience, seconds: Seconds) -> None:
    """Whoever asks for one whose commit is not kept is told who confirmed, and no other's times."""
    with audience.listening() as listener_id:
        audience.acknowledge(listener_id, 3, ONE)
        audience.stated(4)
        seconds.now += 1
        audience.acknowledge(listener_id, 4, ONE)
        found = audience.confirmations(3)
        assert (found.complete, found.elapsed, found.named.slowest) == (True, None, None)
        assert audience.confirmations(4).named.slowest == 1


def test_of_many_that_are_missing_some_are_named(audience: Audience) -> None:
    """All are counted; those farthest behind are told by name."""
    with ExitStack() as streams:
        for number in range(3 * module.MAX_MISSING):
            listener_id = streams.enter_context(audience.listening())
            verifier = Verifier("spiffe://example.org/x", f"{number:04}")
            audience.acknowledge(listener_id, 1 if number >= module.MAX_MISSING else 2, verifier)
        found = audience.confirmations(3)
        assert (found.named.listening, found.named.confirmed) == (3 * module.MAX_MISSING, 0)
        assert len(found.missing) == module.MAX_MISSING
        assert {each.through for each in found.missing} == {1}
        assert not found.complete


def test_a_wait_ends_with_the_last_acknowledgement(audience: Audience) -> None:
    """Whoever follows is answered once the last verifier has confirmed, and not before."""

    async def follow() -> None:
        with audience.listening() as one, audience.listening() as two:
            audience.acknowledge(one, 3, ONE)
            audience.acknowledge(two, 3, TWO)
            audience.stated(4)
            following = asyncio.create_task(audience.followed(4, TIMEOUT))
            await asyncio.sleep(0)
            audience.acknowledge(one, 4, ONE)
            assert (await audience.followed(4, 0.05)).named.confirmed == 1
            assert not following.done()
            audience.acknowledge(two, 4, TWO)
            async with asyncio.timeout(TIMEOUT):
                assert (await following).complete

    asyncio.run(follow())


def test_a_wait_ends_when_the_issuer_stops(audience: Audience) -> None:
    """Nobody who follows keeps the issuer from stopping."""

    async def follow() -> None:
        with audience.listening() as one:
            audience.acknowledge(one, 3, ONE)
            audience.stated(4)
            following = asyncio.create_task(audience.followed(4, 2 * TIMEOUT))
            await asyncio.sleep(0)
            audience.close()
            audience.wake()
            async with asyncio.timeout(TIMEOUT):
                assert not (await following).complete

    asyncio.run(follow())


# Over the wire


@contextmanager
def stream(
    wire: Wire, identity: X509Identity | None = None
) -> Iterator[tuple[RawClient, str, Any]]:
    """An open stream: a caller as who listens, its listener id, and what comes next."""
    client = wire.running.connect(identity)
    with client.stream(calls.revocation_stream(after=0)) as events:
        event, listener_id = next(events)
        assert event == "listener"
        assert next(events)[0] == "statement"
        yield wire.caller(identity), listener_id, events


def asked(wire: Wire, through: int, wait: float = 0.0) -> Any:
    """What an admin is told."""
    path = f"/v1/revocations/confirmations?through={through}&wait={wait}"
    return wire.as_admin.ask("GET", path).json


def doom(wire: Wire) -> int:
    """Revoke something; the sequence number of the fact."""
    victim = attest(wire.running, wire.agent, wire.token())
    target = f"serial:{victim.svid.serial}"
    stated = wire.admin.send(calls.revoke(target=target, kind="revoked", reason="x"))
    return int(stated[-1].sequence)


def test_a_named_and_an_unnamed_verifier_confirm(wire: Wire) -> None:
    """Two streams acknowledge what they heard, one with an SVID: both are told of, apart."""
    with stream(wire, wire.identity) as (agent, named, heard), stream(wire) as (nobody, other, _):
        for caller, listener_id in ((agent, named), (nobody, other)):
            body = {"listener": listener_id, "through": wire.running.issuer.feed.through}
            assert caller.ask("POST", ACKNOWLEDGE, body).json == {}
        through = doom(wire)
        next(heard)
        assert agent.ask("POST", ACKNOWLEDGE, {"listener": named, "through": through}).json == {}
        found = asked(wire, through, wait=0.01)
        assert found["named"]["listening"] == found["named"]["confirmed"] == 1
        assert found["named"]["slowest_milliseconds"] > 0
        assert found["unnamed"] == {"listening": 1, "confirmed": 0, "slowest_milliseconds": None}
        assert not found["complete"]
        answers: list[Any] = []
        following = threading.Thread(target=lambda: answers.append(asked(wire, through, wait=10)))
        following.start()
        assert nobody.ask("POST", ACKNOWLEDGE, {"listener": other, "through": through}).json == {}
        following.join(TIMEOUT)
        assert answers[0]["complete"]


def test_a_missing_verifier_is_named(wire: Wire) -> None:
    """Who listens and does not confirm is named, by ID and instance, with where it stands."""
    before = wire.running.issuer.feed.through
    with stream(wire, wire.identity) as (agent, listener_id, _):
        agent.ask("POST", ACKNOWLEDGE, {"listener": listener_id, "through": before})
        (missing,) = asked(wire, doom(wire))["named"]["missing"]
    svid = wire.identity.svid
    assert missing["spiffe_id"] == str(svid.spiffe_id)
    assert missing["instance"] == svid.instance
    assert missing["through"] == before
    assert not missing["gone"]


def test_a_revoked_verifier_confirms_under_its_name(wire: Wire) -> None:
    """Whom a fact is about may still say that it heard it: its SVID names nobody, its id does."""
    identity = attest(wire.running, wire.agent, wire.token())
    with stream(wire, identity) as (agent, listener_id, _):
        body = {"listener": listener_id, "through": wire.running.issuer.feed.through}
        assert agent.ask("POST", ACKNOWLEDGE, body).json == {}
        target = f"instance:{identity.svid.instance}"
        stated = wire.admin.send(calls.revoke(target=target, kind="revoked", reason="x"))
        through = stated[-1].sequence
        body = {"listener": listener_id, "through": through}
        assert agent.ask("POST", ACKNOWLEDGE, body).json == {}
        assert asked(wire, through)["named"]["confirmed"] == 1


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"listener": "A" * 22}, "not-found"),
        ({"listener": "A" * 23}, "malformed"),
        ({"listener": "é" * 22}, "malformed"),
        ({"through": 2**62}, "conflict"),
        ({"through": -1}, "malformed"),
        ({"through": "1"}, "malformed"),
        ({"through": 1.0}, "malformed"),
        ({"through": True}, "malformed"),
        ({"more": 1}, "malformed"),
        ({"listener": "A" * 70_000}, "too-large"),
    ],
)
def test_a_bad_acknowledgement_is_refused(wire: Wire, change: dict[str, Any], kind: str) -> None:
    """Ids of nobody, facts of the future and odd bodies are refused, and echo no id."""
    with stream(wire) as (nobody, listener_id, _):
        answer = nobody.ask("POST", ACKNOWLEDGE, {"listener": listener_id, "through": 0, **change})
        assert answer.kind == kind
        assert listener_id.encode() not in answer.body


def test_an_id_ends_with_its_stream(wire: Wire) -> None:
    """Once the issuer has seen that a stream is over, its id acknowledges nothing."""
    with stream(wire) as (nobody, listener_id, _):
        pass
    body = json.dumps({"listener": listener_id, "through": 0}).encode()
    for _ in range(200):
        answer = nobody.ask("POST", ACKNOWLEDGE, body, headers={"Content-Type": "application/json"})
        if answer.status != 200:
            break
    assert answer.kind == "not-found"


def test_nothing_is_recorded_of_acknowledgements(wire: Wire) -> None:
    """Neither listening nor acknowledging writes anything: strangers fill no table."""
    before = wire.running.issuer.log.frontier.size
    with stream(wire) as (nobody, listener_id, _):
        nobody.ask("POST", ACKNOWLEDGE, {"listener": listener_id, "through": 0})
        nobody.ask("POST", ACKNOWLEDGE, {"listener": "A" * 22, "through": 0})
    assert wire.running.issuer.log.frontier.size == before


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("", "malformed"),
        ("?through=0", "malformed"),
        ("?through=1&wait=10.5", "malformed"),
        ("?through=1&wait=-1", "malformed"),
        ("?through=1&wait=nan", "malformed"),
        ("?through=9223372036854775807", "conflict"),
    ],
)
def test_a_bad_question_is_refused(wire: Wire, query: str, kind: str) -> None:
    """Nobody asks for a fact that was not stated, or waits without end."""
    assert wire.as_admin.ask("GET", f"/v1/revocations/confirmations{query}").kind == kind


def test_only_readers_are_told(wire: Wire) -> None:
    """Who listens is told to admins who may read everything, and to nobody else."""
    path = "/v1/revocations/confirmations?through=1"
    assert wire.nobody.ask("GET", path).kind == "unauthenticated"
    assert wire.as_agent.ask("GET", path).kind == "forbidden"
    call = calls.add_admin(name="own", role="owner", namespaces=["support"])
    owner = log_in(wire.running, wire.admin.send(call).enrolment_token)
    assert wire.caller(owner.identity).ask("GET", path).kind == "forbidden"

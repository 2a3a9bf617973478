"""Security events pushed to their receivers: over real TLS, to receivers good and bad."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import structlog
import trustme
from support.event_receiver import EventReceiver, Reply, event_receiver, unverified
from support.offline import Offline, offline_issuer

from accredit_credentials import security_event
from accredit_issuer.registry.changes import Local
from accredit_issuer.signals.pushing import FIRST_PAUSE, LONGEST_PAUSE, Pushing
from accredit_issuer.signals.streams import Stream, StreamAsked

AUDIENCE = "https://siem.example.org"
TIMEOUT = 20.0


@dataclass
class Pauses:
    """Pauses that end when the test says so."""

    asked: list[float] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        """Wait for the test."""
        over = asyncio.Event()
        with self.changed:
            self.asked.append(seconds)
            self.waiting.append((asyncio.get_running_loop(), over))
            self.changed.notify_all()
        await over.wait()

    def wait(self, number: int) -> None:
        """Return once there were so many pauses."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.asked) >= number, TIMEOUT)

    def end(self) -> None:
        """Let everybody go on who pauses."""
        with self.changed:
            for loop, over in self.waiting:
                loop.call_soon_threadsafe(over.set)
            self.waiting.clear()


@dataclass
class World:
    """An issuer without sockets of its own, that pushes."""

    offline: Offline
    ca: trustme.CA
    ca_file: Path
    pauses: Pauses = field(default_factory=Pauses)
    pushing: Pushing | None = None

    def start(self) -> Pushing:
        """Push, as the server does."""
        self.pushing = Pushing(self.offline.issuer.streams, ca_file=self.ca_file, pause=self.pauses)
        self.pushing.start()
        return self.pushing

    def stop(self) -> None:
        """Stop pushing."""
        if self.pushing is not None:
            self.pushing.close()

    def restart(self) -> None:
        """Stop everything, and start it again on the same folder."""
        self.stop()
        self.offline.reopen()
        self.start()

    def add(self, receiver: EventReceiver, name: str = "siem") -> Stream:
        """A stream that is pushed to this receiver."""
        asked = StreamAsked(name=name, audience=AUDIENCE, endpoint_url=receiver.url)
        return self.offline.issuer.streams.add(asked, by=Local("test"), now=self.offline.clock())

    def facts(self, number: int = 1) -> list[str]:
        """So many facts; the targets."""
        targets = [f"instance:{self.offline.agent().instance}" for _ in range(number)]
        for target in targets:
            self.offline.state(target)
        return targets

    def failure(self) -> str | None:
        """What went wrong last with the first stream."""
        stream, *_ = self.offline.issuer.streams.all()
        return self.offline.issuer.streams.standing(stream).failure

    def settled(self) -> None:
        """Return once nothing waits for the first stream any more."""
        streams = self.offline.issuer.streams
        for _ in range(10_000):
            if not streams.standing(streams.all()[0]).waiting:
                return
            threading.Event().wait(0.002)
        raise AssertionError("it still waits")


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    """A CA that the issuer takes for the Web PKI."""
    return trustme.CA()


@pytest.fixture
def world(ca: trustme.CA, tmp_path: Path) -> Iterator[World]:
    """An issuer that pushes."""
    file = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(file))
    with offline_issuer(tmp_path / "issuer") as offline:
        made = World(offline, ca, file)
        made.start()
        yield made
        made.stop()


@pytest.fixture
def receiver(ca: trustme.CA) -> Iterator[EventReceiver]:
    """A receiver that accepts."""
    with event_receiver(ca) as made:
        yield made


def subjects(receiver: EventReceiver) -> list[str]:
    """Whom the accepted events are about, in the order they came."""
    return [unverified(token)["sub_id"]["id"] for token in receiver.accepted]


# --- it arrives -----------------------------------------------------------------------------------


def test_a_fact_arrives_at_once(world: World, receiver: EventReceiver) -> None:
    """Stated, and posted as RFC 8935 says, by the keys that are published."""
    world.add(receiver)
    targets = world.facts()
    receiver.wait(1)
    event = security_event.verify(
        receiver.accepted[0],
        issuer=world.offline.config.token_issuer,
        audience=AUDIENCE,
        authorities=world.offline.issuer.bundle.jwt_authorities,
    )
    assert event.subject == {"format": "opaque", "id": targets[0]}
    assert receiver.asked[0]["content-type"] == "application/secevent+jwt"
    assert receiver.asked[0]["accept"] == "application/json"
    assert not {"authorization", "cookie"} & receiver.asked[0].keys()
    assert world.pauses.asked == []


def test_facts_arrive_in_order_and_once(world: World, receiver: EventReceiver) -> None:
    """More than are made at a time: each one, in the order of their numbers."""
    world.add(receiver)
    targets = world.facts(60)
    receiver.wait(60)
    world.settled()
    assert subjects(receiver) == targets
    assert len(set(receiver.jtis)) == 60


def test_a_verification_is_pushed(world: World, receiver: EventReceiver) -> None:
    """An admin asks for it, and it arrives though there is no fact."""
    stream = world.add(receiver)
    world.offline.issuer.streams.verify(stream)
    receiver.wait(1)
    assert unverified(receiver.accepted[0])["events"] == {security_event.VERIFICATION: {}}


def test_a_receiver_that_was_repaired_is_tried_at_once(
    world: World, receiver: EventReceiver
) -> None:
    """Who asks for a verification does not wait for the pause to be over; a new fact does."""
    receiver.reply = Reply(status=503)
    stream = world.add(receiver)
    targets = world.facts(1)
    world.pauses.wait(1)
    receiver.reply = Reply()
    targets += world.facts(1)
    assert receiver.accepted == []
    world.offline.issuer.streams.verify(stream)
    receiver.wait(3)
    world.settled()
    assert subjects(receiver) == [stream.id, *targets]
    assert world.pauses.asked == [FIRST_PAUSE]


# --- it does not ----------------------------------------------------------------------------------


def test_a_receiver_that_was_down_gets_each_fact_once(
    world: World, receiver: EventReceiver
) -> None:
    """Pauses grow while it is down; then everything comes in order, and nothing twice."""
    receiver.reply = Reply(status=503)
    world.add(receiver)
    targets = world.facts(3)
    for number in range(1, 12):
        world.pauses.wait(number)
        if number == 11:
            receiver.reply = Reply()
        world.pauses.end()
    receiver.wait(3)
    world.settled()
    assert subjects(receiver) == targets
    doubled = [FIRST_PAUSE * 2**n for n in range(9)]
    assert world.pauses.asked == [*doubled, LONGEST_PAUSE, LONGEST_PAUSE]
    assert world.failure() is None
    receiver.reply = Reply(status=503)
    world.facts()
    world.pauses.wait(12)
    assert world.pauses.asked[-1] == FIRST_PAUSE, "a success makes the next pause short again"


def test_a_dead_receiver_hurts_nobody_else(
    ca: trustme.CA, world: World, receiver: EventReceiver
) -> None:
    """One that never answers and one that is not there: the third hears at once."""
    with event_receiver(ca) as silent:
        silent.reply = Reply(silent=True)
        world.add(silent, "silent")
        dead = EventReceiver(port=1)
        world.add(dead, "dead")
        world.add(receiver, "works")
        targets = world.facts(2)
        receiver.wait(2)
        assert subjects(receiver) == targets
        world.stop()


def test_a_fact_survives_the_issuer(world: World, receiver: EventReceiver) -> None:
    """Committed and not delivered, the issuer starts again: the event is the same, and arrives."""
    receiver.reply = Reply(status=503)
    world.add(receiver)
    targets = world.facts(2)
    world.pauses.wait(1)
    receiver.reply = Reply()
    world.restart()
    receiver.wait(2)
    world.settled()
    assert subjects(receiver) == targets
    world.restart()
    (newer,) = world.facts()
    receiver.wait(3)
    assert subjects(receiver) == [*targets, newer], "what was accepted is not sent again"


def test_delivered_and_not_written_down_it_comes_again(
    world: World, receiver: EventReceiver
) -> None:
    """Killed between the two, the issuer sends the very same event a second time."""
    stream = world.add(receiver)
    world.stop()
    world.facts()
    (event,), _ = world.offline.issuer.streams.due(stream, 10)
    receiver.accepted.append(world.offline.issuer.streams.signed(event))
    world.restart()
    receiver.wait(2)
    first, second = map(unverified, receiver.accepted)
    assert first == second


def test_a_redirect_is_not_followed(ca: trustme.CA, world: World, receiver: EventReceiver) -> None:
    """However it redirects, nobody else is told of the fact."""
    with event_receiver(ca) as other:
        world.add(receiver)
        for number, status in enumerate((301, 302, 303, 307, 308), start=1):
            receiver.reply = Reply(status=status, headers={"Location": other.url})
            if number == 1:
                world.facts()
            else:
                world.pauses.end()
            world.pauses.wait(number)
            assert "not followed" in str(world.failure())
        assert other.asked == []


def test_an_answer_of_any_size_is_read_to_its_bound(world: World, receiver: EventReceiver) -> None:
    """A receiver that accepts and then talks for ever has accepted; one that refuses has not."""
    receiver.reply = Reply(status=500, padding=1_000_000)
    world.add(receiver)
    targets = world.facts(2)
    world.pauses.wait(1)
    assert world.failure() == "the endpoint answered with the status 500"
    receiver.reply = Reply(padding=1_000_000)
    world.pauses.end()
    receiver.wait(2)
    world.settled()
    assert subjects(receiver) == targets


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, b"", "status 200"),
        (400, b"", "status 400"),
        (400, b'{"err":"invalid_key","description":"canary"}', "the error invalid_key"),
        (400, b'{"err":"canary"}', "status 400"),
        (400, b'{"err":["canary"]}', "status 400"),
        (400, b"[1", "status 400"),
        (401, b'{"err":"invalid_request"}', "status 401"),
    ],
)
def test_an_answer_is_told_in_our_words(
    world: World, receiver: EventReceiver, status: int, body: bytes, says: str
) -> None:
    """Nothing but 202 is yes, and nothing that the receiver wrote ends in our logs."""
    receiver.reply = Reply(status=status, body=body)
    world.add(receiver)
    with structlog.testing.capture_logs() as logs:
        world.facts()
        world.pauses.wait(1)
    assert says in str(world.failure())
    assert "canary" not in str(logs) + str(world.failure())
    receiver.reply = Reply()
    world.pauses.end()
    receiver.wait(1)


def test_an_event_that_is_none_to_the_receiver_is_passed_over(
    world: World, receiver: EventReceiver
) -> None:
    """``invalid_request`` of one event stops none that comes after it."""
    receiver.reply = Reply(status=400, body=b'{"err":"invalid_request"}')
    world.add(receiver)
    world.facts()
    receiver.wait(1, asked=True)
    world.settled()
    assert "invalid_request" in str(world.failure())
    receiver.reply = Reply()
    (newer,) = world.facts()
    receiver.wait(1)
    assert subjects(receiver) == [newer]
    assert world.pauses.asked == []


def test_another_name_or_another_ca_is_not_the_receiver(ca: trustme.CA, world: World) -> None:
    """A certificate that does not name the host, or of a CA that is not trusted, gets nothing."""
    strange = trustme.CA()
    for number, (signer, named) in enumerate(((ca, "other.example"), (strange, "localhost")), 1):
        with event_receiver(signer, named=named) as impostor:
            world.add(impostor, f"s{number}")
            if number == 1:
                world.facts()
            world.pauses.wait(number)
            streams = world.offline.issuer.streams.all()
            (stream,) = [each for each in streams if each.name == f"s{number}"]
            failure = world.offline.issuer.streams.standing(stream).failure
            assert "not the one that is trusted" in str(failure)
            assert impostor.asked == []


def test_a_removed_stream_is_told_nothing_more(world: World, receiver: EventReceiver) -> None:
    """Not even what waited for it."""
    receiver.reply = Reply(status=503)
    world.add(receiver)
    world.facts()
    world.pauses.wait(1)
    world.offline.issuer.streams.remove("siem", by=Local("test"), now=world.offline.clock())
    receiver.reply = Reply()
    world.pauses.end()
    world.facts()
    world.stop()
    assert receiver.accepted == []


def test_secrets_are_in_no_log(world: World, receiver: EventReceiver) -> None:
    """What is signed is sent, and written nowhere; nor is a reason."""
    receiver.reply = Reply(status=503)
    world.add(receiver)
    svid = world.offline.agent()
    with structlog.testing.capture_logs() as logs:
        world.offline.state(f"instance:{svid.instance}", reason="canary-reason")
        world.pauses.wait(1)
    assert logs
    assert "canary" not in str(logs)
    assert "eyJ" not in str(logs)

"""``accredit revoke`` says whom a fact has reached, and names whom it has not."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import pytest
from client_cli.workplace import World, accredit, succeed
from support.waiting import until

from accredit_client import calls
from accredit_client.files import read_folder
from accredit_client.revocations import RevocationFeed
from accredit_client.wire import Issuer
from accredit_credentials.bundle import TrustBundle
from accredit_issuer.revocation.confirmations import _key

TIMEOUT = 20.0


@dataclass
class Verifier:
    """A server that follows the feed, until it is frozen: then it cannot apply what it hears."""

    feed: RevocationFeed
    name: str
    running: threading.Event = field(default_factory=threading.Event)

    @property
    def through(self) -> int:
        """Which facts it applies."""
        return self.feed.state.through


@contextmanager
def verifier(world: World, folder: Path | None) -> Iterator[Verifier]:
    """One with the SVID in a folder, or with none; it has applied and said everything so far."""
    identity = None if folder is None else read_folder(folder).identity
    running, name = threading.Event(), ""
    running.set()
    if identity is not None:
        name = f"{identity.svid.spiffe_id} (instance {identity.svid.instance})"

    def bundle() -> TrustBundle:
        assert running.wait(TIMEOUT)
        return world.running.bundle

    def said(feed: RevocationFeed) -> int | None:
        listener_id = feed._follower._said._listener or ""
        listener = world.running.issuer.feed.audience._listeners.get(_key(listener_id))
        return None if listener is None else listener.through

    with ExitStack() as resources:
        issuer = resources.enter_context(Issuer.at(world.url, bundle=world.running.bundle))
        known = Issuer.at(world.url, bundle=world.running.bundle, identity=identity)
        feed = RevocationFeed(issuer, bundle, confirm_at=resources.enter_context(known))
        resources.callback(running.set)
        resources.enter_context(feed)
        feed.wait_fresh(TIMEOUT)
        until(lambda: said(feed) == world.running.issuer.feed.through)
        yield Verifier(feed, name, running)
        running.set()


@contextmanager
def silent_streams(world: World, number: int) -> Iterator[None]:
    """Strangers who listen, and say nothing."""
    with ExitStack() as streams:
        client = world.running.connect()
        for _ in range(number):
            next(streams.enter_context(client.stream(calls.revocation_stream(after=0))))
        yield


@pytest.fixture(autouse=True)
def alone(world: World) -> Iterator[None]:
    """Each test begins and ends without listeners, known ones included."""

    def clear() -> None:
        audience = world.running.issuer.feed.audience
        until(lambda: not audience._listeners)
        audience._gone.clear()

    clear()
    yield
    clear()


def test_a_frozen_verifier_is_named_within_the_bound(world: World) -> None:
    """Of two verifiers one cannot apply the fact: told after the wait, by name, and it stands."""
    (_, first), (_, second), doomed = world.attested(), world.attested(), world.new_agent()
    with verifier(world, first) as awake, verifier(world, second) as frozen:
        frozen.running.clear()
        began = monotonic()
        revoked = succeed("revoke", "agent", doomed.name, "--reason", "leaked", "--wait", "0.5")
        assert 0.5 <= monotonic() - began < TIMEOUT
        assert f"agent:{doomed.name}" in revoked.out
        assert "confirmed by 1 of 2 verifiers by name, the slowest after" in revoked.err
        assert f"warning: NOT confirmed by {frozen.name}, which applies facts up to" in revoked.err
        assert awake.name not in revoked.err
        through = world.running.issuer.feed.through
        assert (awake.through, frozen.through) == (through, through - 1)
        frozen.running.set()
        until(lambda: frozen.through == through)
        told = succeed("suspend", "agent", world.new_agent().name, "--reason", "an alert")
        assert "confirmed by 2 of 2 verifiers by name" in told.err
        assert "NOT" not in told.err


def test_the_document_has_the_final_state(world: World) -> None:
    """``--json`` prints one document with who confirmed and who is missing; warnings stay loud."""
    (_, folder), doomed = world.attested(), world.new_agent()
    with verifier(world, folder) as frozen, verifier(world, None):
        frozen.running.clear()
        asked = ("revoke", "agent", doomed.name, "--reason", "r", "--wait", "0.3", "--json")
        stated = succeed(*asked)
    found = stated.document["confirmations"]
    assert stated.document["facts"][-1]["sequence"] == found["through"]
    assert not found["complete"]
    assert (found["named"]["listening"], found["named"]["confirmed"]) == (1, 0)
    (missing,) = found["named"]["missing"]
    assert missing["spiffe_id"] in frozen.name
    assert (found["unnamed"]["listening"], found["unnamed"]["confirmed"]) == (1, 1)
    assert found["unnamed"]["slowest_milliseconds"] > 0
    assert "NOT confirmed" in stated.err
    assert "in force" not in stated.err


def test_silent_strangers_keep_nobody_waiting(world: World) -> None:
    """Streams that never acknowledge are counted apart, and not waited for."""
    (_, folder), doomed = world.attested(), world.new_agent()
    with silent_streams(world, 3), verifier(world, folder):
        began = monotonic()
        revoked = succeed("revoke", "agent", doomed.name, "--reason", "r", "--wait", "60")
        assert monotonic() - began < 60
        assert "confirmed by 1 of 1 verifiers by name" in revoked.err
        assert "3 streams never acknowledge" in revoked.err


def test_nobody_has_to_follow(world: World) -> None:
    """With ``--wait 0`` nobody is asked; a wait that is none, or has no end, is refused."""
    doomed = world.new_agent().name
    stated = succeed("revoke", "agent", doomed, "--reason", "r", "--wait", "0", "--json")
    assert stated.document["confirmations"] is None
    for wait in ("-1", "601", "x"):
        refused = accredit("revoke", "agent", doomed, "--reason", "r", "--wait", wait)
        assert refused.code == 2


def test_without_listeners_that_is_said(world: World) -> None:
    """Nobody takes silence for confirmation."""
    revoked = succeed("revoke", "agent", world.new_agent().name, "--reason", "r")
    assert "no verifier that acknowledges is listening" in revoked.err


def test_who_may_not_ask_is_told_so(world: World) -> None:
    """An owner revokes in its own namespaces and sees no verifiers: said, and no failure."""
    invited = succeed(
        "admin", "invite", "keeper", "--role", "owner", "--namespace", "support", "--json"
    ).document
    assert world.log_in(invited["enrolment_token"], "--profile", "keeper").code == 0
    doomed = world.new_agent().name
    revoked = succeed("revoke", "agent", doomed, "--reason", "r", "--profile", "keeper")
    assert "in force after" in revoked.err
    assert "warning: whom it has reached is not known: " in revoked.err
    assert "does not allow to read" in revoked.err

"""An identity that hears of its own end: it is not used any more, and no connection stays."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest
from support.authority import Authority
from support.fake_issuer import FakeIssuer, begin_at
from support.manual_time import ManualTime, TaskTime

from accredit_client.async_identity import AsyncAgentIdentity
from accredit_client.errors import IdentityRefused
from accredit_client.identity import AgentIdentity
from accredit_client.tls import members_of
from accredit_credentials.revocation import FactKind
from accredit_credentials.tls import server_context

PEER = members_of("example.org")
WAIT = 20.0
OWN = "agent:support/triage"


class Neighbour:
    """Somebody else's server: who is connected to it, and whether it still is."""

    def __init__(self, authority: Authority) -> None:
        self.open = 0
        self.changed = threading.Condition()
        neighbour = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                neighbour.count(1)

            def finish(self) -> None:
                super().finish()
                neighbour.count(-1)

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        identity = authority.issue(
            authority.id("/ns/support/agent/neighbour"),
            not_before=begin_at() - timedelta(minutes=5),
        )
        context = server_context(
            bundle=authority.bundle, peer_check=lambda _: None, identity=identity
        )
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_port}"

    def count(self, change: int) -> None:
        """A connection came or went."""
        with self.changed:
            self.open += change
            self.changed.notify_all()

    def wait_for(self, number: int) -> None:
        """Return once so many are connected."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.open == number, WAIT), self.open


@pytest.fixture
def neighbour(authority: Authority) -> Iterator[Neighbour]:
    """The server, until the test ends."""
    made = Neighbour(authority)
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        thread.join(WAIT)
        made.server.server_close()


def wait_fresh(identity: AgentIdentity) -> None:
    """Wait until the identity knows anything of revocation."""
    assert identity.feed is not None
    identity.feed.wait_fresh(WAIT)


def heard(identity: AgentIdentity, sequence: int) -> None:
    """Wait until the identity knows so many facts."""
    feed = identity.feed
    assert feed is not None
    with feed._changed:
        assert feed._changed.wait_for(lambda: feed.state.through >= sequence, WAIT)


@pytest.mark.parametrize("target", ["agent", "namespace", "instance", "serial", "manifest"])
def test_an_identity_ends_at_the_word(
    options: dict[str, Any],
    issuer: FakeIssuer,
    time: ManualTime,
    neighbour: Neighbour,
    target: str,
) -> None:
    """Refused with the reason, its pool dropped, and nobody is met; a neighbour's end is none."""
    with closing(AgentIdentity(**options, revocations=True)) as identity:
        identity.start(waiter=time)
        with httpx2.Client(transport=identity.transport(peer=PEER)) as client:
            wait_fresh(identity)
            issuer.revoke("agent:support/neighbours-neighbour")
            heard(identity, 1)
            assert client.get(neighbour.url).status_code == 200
            neighbour.wait_for(1)
            marks = {mark.partition(":")[0]: mark for mark in identity.x509.svid.marks()}
            issuer.revoke(marks[target])
            heard(identity, 2)
            for ask in (lambda: client.get(neighbour.url), lambda: identity.x509):
                with pytest.raises(IdentityRefused, match=r"taken back: .*canary-reason"):
                    ask()
            neighbour.wait_for(0)


def test_a_suspension_is_over_when_it_is(
    options: dict[str, Any], issuer: FakeIssuer, time: ManualTime, neighbour: Neighbour
) -> None:
    """The same SVID serves again once it was restored."""
    with closing(AgentIdentity(**options, revocations=True)) as identity:
        identity.start(waiter=time)
        wait_fresh(identity)
        before = identity.x509
        with httpx2.Client(transport=identity.transport(peer=PEER)) as client:
            issuer.revoke(OWN, FactKind.SUSPENDED)
            heard(identity, 1)
            with pytest.raises(IdentityRefused, match="suspended"):
                client.get(neighbour.url)
            issuer.revoke(OWN, FactKind.RESTORED)
            heard(identity, 2)
            assert identity.x509 is before
            assert client.get(neighbour.url).status_code == 200


def test_the_async_twin(
    options: dict[str, Any], issuer: FakeIssuer, time: ManualTime, neighbour: Neighbour
) -> None:
    """In asyncio alike."""

    async def go() -> None:
        identity = AsyncAgentIdentity(**options, revocations=True)
        await identity.start(waiter=TaskTime(time.clock()))
        try:
            feed = identity.feed
            assert feed is not None
            await feed.wait_fresh(WAIT)
            transport = identity.async_transport(peer=PEER)
            async with httpx2.AsyncClient(transport=transport) as client:
                assert (await client.get(neighbour.url)).status_code == 200
                issuer.revoke(OWN)
                async with asyncio.timeout(WAIT), feed._changed:
                    await feed._changed.wait_for(lambda: feed.state.through == 1)
                with pytest.raises(IdentityRefused, match="canary-reason"):
                    await client.get(neighbour.url)
                await asyncio.to_thread(neighbour.wait_for, 0)
        finally:
            await identity.aclose()

    asyncio.run(go())

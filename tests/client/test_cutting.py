"""Requests that are under way: cut within a moment of the word, and never half told as whole."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from support.authority import Authority
from support.fake_issuer import AUDIENCE, FakeIssuer, begin_at, real_now
from support.manual_time import ManualTime
from support.resource_server import resource_server
from support.world import World

from accredit_client.asgi import Rule, TaskTokenMiddleware
from accredit_client.cutting import LOOK
from accredit_client.fastapi import install, requires
from accredit_client.guard import Guard
from accredit_client.identity import AgentIdentity
from accredit_client.tls import members_of
from accredit_credentials.errors import Expired, Revoked
from accredit_credentials.tls import client_context

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The servers' event loop is asyncio's."""
    return "asyncio"


RULES = (Rule("GET", "/events", resource="tickets", action="read"),)
WAIT = 10.0


class Client:
    """One request to an application, in the test's own loop; ``did`` is what it was sent."""

    def __init__(
        self, app: Any, scope: dict[str, Any], first: dict[str, Any] | None = None
    ) -> None:
        self._first = first or {"type": "http.request", "body": b"", "more_body": False}
        self.did: list[dict[str, Any]] = []
        self.news = asyncio.Event()
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if not self.did:
            return self._first
        await asyncio.Event().wait()  # it stays
        raise AssertionError

    async def _send(self, message: dict[str, Any]) -> None:
        self.did.append(message)
        self.news.set()

    async def begun(self) -> None:
        """Wait for the first part of the answer."""
        async with asyncio.timeout(WAIT):
            while not any(each.get("body") for each in self.did):
                await self.news.wait()
                self.news.clear()

    async def said(self, kind: str) -> None:
        """Wait for a message."""
        async with asyncio.timeout(WAIT):
            while kind not in {each["type"] for each in self.did}:
                await self.news.wait()
                self.news.clear()

    async def ended(self) -> None:
        """Wait for the end of the application."""
        async with asyncio.timeout(WAIT):
            await self.task

    @property
    def whole(self) -> bool:
        """Whether the answer was given to its end."""
        last = self.did[-1]
        return last["type"] == "http.response.body" and not last.get("more_body")


async def events(_scope: Any, _receive: Any, send: Any) -> None:
    """An answer without an end."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"one\n", "more_body": True})
    await asyncio.Event().wait()


async def thinking(_scope: Any, _receive: Any, _send: Any) -> None:
    """An answer that never begins."""
    await asyncio.Event().wait()


def stubborn(sent: list[Exception]) -> Any:
    """An application that goes on when it is cancelled."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one\n", "more_body": True})
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            try:
                await send({"type": "http.response.body", "body": b"two\n"})
            except Exception as error:
                sent.append(error)
                raise

    return app


def over_fastapi(guard: Guard) -> Any:
    """The same, as a route of FastAPI."""
    app = FastAPI()
    install(app, guard)

    async def lines() -> AsyncIterator[bytes]:
        yield b"one\n"
        await asyncio.Event().wait()

    @app.get("/events", dependencies=[Depends(requires("tickets", "read"))])
    async def read() -> StreamingResponse:
        return StreamingResponse(lines())

    return app


def behind_the_middleware(guard: Guard) -> Any:
    """An application behind the middleware."""
    return TaskTokenMiddleware(events, guard, rules=RULES)


def asked(world: World) -> dict[str, Any]:
    """A request with a good token."""
    pem = ssl.DER_cert_to_PEM_cert(world.certificate)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "https",
        "method": "GET",
        "path": "/events",
        "raw_path": b"/events",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"authorization", f"Bearer {world.token()}".encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 443),
        "extensions": {"tls": {"client_cert_chain": (pem,)}},
    }


def guard_of(world: World) -> Guard:
    """A guard that follows the world's facts."""
    return Guard(world.verifier(), public_url=AUDIENCE)


@pytest.mark.parametrize("protected", [behind_the_middleware, over_fastapi])
@pytest.mark.parametrize("target", ["agent:support/triage", "namespace:support"])
async def test_a_stream_ends_when_its_token_is_taken_back(
    world: World, protected: Callable[[Guard], Any], target: str
) -> None:
    """Cut, and never ended as if it were whole."""
    client = Client(protected(guard_of(world)), asked(world))
    await client.begun()
    world.hear(target)
    await client.ended()
    assert not client.whole


async def test_an_answer_that_has_not_begun_is_a_refusal(world: World) -> None:
    """Then there is still somebody to tell; not the reason, which is the security team's."""
    app = TaskTokenMiddleware(thinking, guard_of(world), rules=RULES)
    client = Client(app, asked(world))
    await asyncio.sleep(0)
    world.hear("agent:support/triage")
    await client.ended()
    assert client.did[0]["status"] == 401
    assert (b"connection", b"close") in client.did[0]["headers"]
    assert b"taken back" in client.did[1]["body"]
    assert b"canary" not in client.did[1]["body"]
    assert client.whole


async def test_an_application_that_goes_on_says_nothing_more(world: World) -> None:
    """Whatever it does about being cancelled, nobody hears it."""
    sent: list[Exception] = []
    app = TaskTokenMiddleware(stubborn(sent), guard_of(world), rules=RULES)
    client = Client(app, asked(world))
    await client.begun()
    world.hear("agent:support/triage")
    await client.ended()
    assert [type(each) for each in sent] == [Revoked]
    assert not client.whole


async def test_what_nobody_knows_any_more_ends_too(world: World) -> None:
    """A feed that was cut off is no way to keep a stream."""
    client = Client(behind_the_middleware(guard_of(world)), asked(world))
    await client.begun()
    world.now += timedelta(seconds=31)
    await client.ended()
    assert not client.whole


async def test_what_is_not_meant_goes_on(world: World) -> None:
    """A fact about somebody else, and a token whose time is over: it was good when it came."""
    client = Client(behind_the_middleware(guard_of(world)), asked(world))
    await client.begun()
    world.hear("agent:support/summarizer")
    world.now += timedelta(minutes=6)
    world.hear()
    other = Client(behind_the_middleware(guard_of(world)), asked(world))
    await other.begun()
    world.hear("jti:00000000-0000-4000-8000-000000000000")
    await asyncio.sleep(5 * LOOK)
    assert not client.task.done()
    for each in (client, other):
        each.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await each.task


async def test_a_caller_that_gives_up_is_nothing_else(world: World) -> None:
    """Cancelled by the server: that goes through as it is."""
    client = Client(behind_the_middleware(guard_of(world)), asked(world))
    await client.begun()
    client.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client.task


async def test_a_fault_of_the_application_is_its_own(world: World) -> None:
    """An error of ours that the application itself met is not taken for a cut."""

    async def faulty(_scope: Any, _receive: Any, _send: Any) -> None:
        raise Expired("something of its own")

    client = Client(TaskTokenMiddleware(faulty, guard_of(world), rules=RULES), asked(world))
    with pytest.raises(Expired, match="its own"):
        await client.ended()


# --- websockets -----------------------------------------------------------------------------------


def socket_scope(world: World) -> dict[str, Any]:
    """The handshake of a websocket, with a good token."""
    scope = asked(world)
    del scope["method"]
    return {**scope, "type": "websocket", "scheme": "wss", "subprotocols": []}


async def talking(_scope: Any, receive: Any, send: Any) -> None:
    """A websocket that is accepted, says one thing, and stays."""
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "one"})
    await asyncio.Event().wait()


def sockets_behind_the_middleware(guard: Guard) -> Any:
    """An application behind the middleware."""
    rule = Rule("WEBSOCKET", "/events", resource="tickets", action="read")
    return TaskTokenMiddleware(talking, guard, rules=(rule,))


def sockets_over_fastapi(guard: Guard) -> Any:
    """The same, as a route of FastAPI."""
    app = FastAPI()
    install(app, guard)

    @app.websocket("/events", dependencies=[Depends(requires("tickets", "read"))])
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("one")
        await asyncio.Event().wait()

    return app


def connecting(app: Any, scope: dict[str, Any]) -> Client:
    """Somebody who opens a websocket."""
    return Client(app, scope, {"type": "websocket.connect"})


SOCKETS = [sockets_behind_the_middleware, sockets_over_fastapi]


@pytest.mark.parametrize("protected", SOCKETS)
@pytest.mark.parametrize("target", ["agent:support/triage", "namespace:support"])
async def test_a_websocket_is_closed_when_its_token_is_taken_back(
    world: World, protected: Callable[[Guard], Any], target: str
) -> None:
    """With 1008, and only then: a fact about somebody else closes nothing."""
    client = connecting(protected(guard_of(world)), socket_scope(world))
    await client.said("websocket.send")
    world.hear("agent:support/summarizer")
    await asyncio.sleep(3 * LOOK)
    assert not client.task.done()
    world.hear(target)
    await client.ended()
    kinds = [each["type"] for each in client.did]
    assert kinds == ["websocket.accept", "websocket.send", "websocket.close"]
    assert client.did[-1] == {"type": "websocket.close", "code": 1008}


@pytest.mark.parametrize("protected", SOCKETS)
async def test_a_websocket_without_a_good_token_is_not_accepted(
    world: World, protected: Callable[[Guard], Any]
) -> None:
    """None, another's certificate, or one that was taken back: the handshake is refused."""
    good = socket_scope(world)
    for refused in ({**good, "headers": []}, {**good, "extensions": {}}):
        client = connecting(protected(guard_of(world)), refused)
        await client.ended()
        assert [each["type"] for each in client.did] == ["websocket.close"]
        assert client.did[0]["code"] == 1008
    world.hear("agent:support/triage")
    late = connecting(protected(guard_of(world)), good)
    await late.ended()
    assert [each["type"] for each in late.did] == ["websocket.close"]


async def test_a_request_that_calls_itself_a_websocket_is_none(world: World) -> None:
    """Neither by its method, nor is a websocket let in by a rule about requests."""
    app = sockets_behind_the_middleware(guard_of(world))
    client = Client(app, {**asked(world), "method": "WEBSOCKET"})
    await client.ended()
    assert client.did[0]["status"] == 403
    app = TaskTokenMiddleware(talking, guard_of(world), rules=RULES)
    for scope in (socket_scope(world), {**socket_scope(world), "method": "GET"}):
        other = connecting(app, scope)
        await other.ended()
        assert [each["type"] for each in other.did] == ["websocket.close"]


@pytest.fixture
def authority() -> Authority:
    """A trust domain that this test alone changes."""
    return Authority(now=real_now())


async def ticks(_scope: Any, receive: Any, send: Any) -> None:
    """An answer that goes on until its reader has gone."""
    await receive()
    gone = asyncio.ensure_future(receive())
    try:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not gone.done():
            await send({"type": "http.response.body", "body": b"tick", "more_body": True})
            await asyncio.wait({gone}, timeout=0.01)
    finally:
        gone.cancel()


@contextmanager
def streaming(url: str, authority: Authority, agent: str) -> Iterator[Iterator[bytes]]:
    """What an agent is sent."""
    identity = authority.issue(
        authority.id(f"/ns/support/agent/{agent}"), not_before=begin_at() - timedelta(minutes=5)
    )
    context = client_context(bundle=authority.bundle, peer_check=lambda _: None, identity=identity)
    with (
        httpx2.Client(verify=context, trust_env=False) as client,
        client.stream("GET", url) as answer,
    ):
        parts = answer.iter_raw()
        assert next(parts) == b"tick"
        yield parts


def test_a_download_of_a_revoked_agent_breaks_off(
    options: dict[str, Any], issuer: FakeIssuer, authority: Authority, time: ManualTime
) -> None:
    """Over real sockets, with no token at all: the peer alone counts, and its neighbour goes on."""
    with closing(AgentIdentity(**options, revocations=True)) as identity:
        identity.start(waiter=time)
        assert identity.feed is not None
        identity.feed.wait_fresh(20)
        with (
            resource_server(ticks, identity, peer=members_of("example.org")) as url,
            streaming(url, authority, "triage") as lost,
            streaming(url, authority, "neighbour") as kept,
        ):
            issuer.revoke("agent:support/triage")
            with pytest.raises(httpx2.RemoteProtocolError):
                for _ in lost:
                    pass
            assert [next(kept) for _ in range(5)]

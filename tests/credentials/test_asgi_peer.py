"""The client's certificate in an ASGI scope, behind real uvicorn protocols."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import uvloop
from support.authority import Authority
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from accredit_credentials.asgi_peer import Scope, exposing_peer, peer_certificate, peer_chain
from accredit_credentials.tls import client_context, server_context
from accredit_credentials.x509_svid import X509Identity

HERE = Authority(now=datetime.now(UTC).replace(microsecond=0))
CLIENT, OTHER = HERE.issue(), HERE.issue(HERE.id("/ns/support/agent/other"))
SERVER = HERE.issue(HERE.id("/accredit/issuer"))

# A header, however it is spelled, is not the extension.
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nextensions: {}\r\ntls: x\r\nclient_cert_chain: x\r\n"
    b"accredit.peer_certificate_der: x\r\nX-Client-Cert: x\r\n\r\n"
)


class Application:
    """Notes each scope and answers nothing much."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(
        self, scope: Scope, _receive: Any, send: Callable[[Any], Awaitable[None]]
    ) -> None:
        """Serve one request."""
        self.scopes.append(scope)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def _serve(
    protocol: type[asyncio.Protocol], identities: list[X509Identity | None], *, tls: bool
) -> list[Scope]:
    application = Application()
    config = Config(application, http=protocol, ws="none", lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    context = server_context(
        bundle=HERE.bundle, peer_check=lambda _: None, identity=SERVER, client_optional=True
    )
    listener = await asyncio.get_running_loop().create_server(
        lambda: protocol(config=config, server_state=state, app_state={}),  # type: ignore[call-arg]
        "127.0.0.1",
        0,
        ssl=context if tls else None,
    )
    async with listener:
        address = listener.sockets[0].getsockname()
        for identity in identities:
            await _ask_twice(address, _client(identity) if tls else None)
    return application.scopes


async def _ask_twice(address: tuple[str, int], context: ssl.SSLContext | None) -> None:
    reader, writer = await asyncio.open_connection(*address, ssl=context)
    for _ in range(2):  # a kept-alive connection has the same peer for each request
        writer.write(REQUEST)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
    writer.transport.abort()
    await asyncio.sleep(0)


def _client(identity: X509Identity | None) -> ssl.SSLContext:
    return client_context(bundle=HERE.bundle, peer_check=lambda _: None, identity=identity)


@pytest.fixture(params=[H11Protocol, HttpToolsProtocol], ids=["h11", "httptools"])
def protocol(request: pytest.FixtureRequest) -> type[asyncio.Protocol]:
    """A protocol of uvicorn, exposing the peer."""
    return exposing_peer(request.param)  # type: ignore[no-any-return]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """An event loop of either kind."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


def test_each_request_carries_its_own_clients_certificate(
    runner: asyncio.Runner, protocol: type[asyncio.Protocol]
) -> None:
    """Connection after connection: the one who shook hands, or nobody; a header is no proof."""
    identities: list[X509Identity | None] = [CLIENT, OTHER, None, CLIENT]
    scopes = runner.run(_serve(protocol, identities, tls=True))
    expected = [i and i.svid.der[0] for i in identities for _ in range(2)]
    assert [peer_certificate(scope) for scope in scopes] == expected
    chains = [i and i.svid.der for i in identities for _ in range(2)]
    assert [peer_chain(scope) for scope in scopes] == chains


def test_other_servers_and_middlewares_find_it_by_the_standard(
    runner: asyncio.Runner, protocol: type[asyncio.Protocol]
) -> None:
    """The chain stands where the ASGI TLS extension says, PEM, leaf first."""
    scope = runner.run(_serve(protocol, [CLIENT], tls=True))[0]
    chain = scope["extensions"]["tls"]["client_cert_chain"]
    assert tuple(map(ssl.PEM_cert_to_DER_cert, chain)) == CLIENT.svid.der


def test_without_tls_there_is_nobody(
    runner: asyncio.Runner, protocol: type[asyncio.Protocol]
) -> None:
    """A plain connection has no peer, whatever its headers say."""
    scopes = runner.run(_serve(protocol, [CLIENT], tls=False))
    assert [peer_certificate(scope) for scope in scopes] == [None, None]


def test_a_certificate_of_another_server_is_read_too() -> None:
    """A server that fills the extension itself, in PEM, is understood."""
    chain = [ssl.DER_cert_to_PEM_cert(der) for der in CLIENT.svid.der]
    assert (
        peer_certificate({"extensions": {"tls": {"client_cert_chain": chain}}})
        == (CLIENT.svid.der[0])
    )


@pytest.mark.parametrize(
    "scope",
    [
        {},
        {"extensions": {}},
        {"extensions": {"tls": {}}},
        {"extensions": {"tls": {"client_cert_chain": []}}},
        {"extensions": {"tls": {"client_cert_chain": ()}}},
        {"extensions": {"tls": {"client_cert_chain": None}}},
        {"extensions": {"tls": None}},
        {"extensions": None},
    ],
)
def test_no_certificate_is_nobody(scope: Scope) -> None:
    """Every way of saying nothing is nothing."""
    assert peer_certificate(scope) is None

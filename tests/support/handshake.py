"""Real TLS handshakes between two contexts, and what each side saw.

Each side shakes hands, sends its greeting and reads the other's. In TLS 1.3 a client has finished
before the server decides about it: it learns of a refusal when it reads.
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

TIMEOUT = 10.0  # seconds; nothing here waits unless something is broken
GREETING = b"hello"


@dataclass
class Side:
    """What one side saw.

    Attributes:
        received: the other side's greeting; empty where none came.
        error: why it gave up, if it did.
        peer: DER of the other's certificate.
        session: what a client could try to resume.
        reused: whether the session was a resumed one.
        version: the protocol's name.
    """

    received: bytes = b""
    error: Exception | None = None
    peer: bytes | None = None
    session: ssl.SSLSession | None = None
    reused: bool | None = None
    version: str | None = None

    def shook_hands(self, connection: ssl.SSLSocket | ssl.SSLObject) -> None:
        """Keep what the connection knows after the handshake."""
        self.peer = connection.getpeercert(binary_form=True)
        self.reused = connection.session_reused
        self.version = connection.version()

    def heard(self, greeting: bytes, connection: ssl.SSLSocket | ssl.SSLObject) -> None:
        """Keep what came; tickets of TLS 1.3 come with it, and nothing is left after a refusal."""
        self.received = greeting
        if greeting:
            self.session = connection.session


@dataclass
class Handshake:
    """Both sides of one handshake."""

    client: Side
    server: Side

    @property
    def succeeded(self) -> bool:
        """Both sides heard each other."""
        return self.client.received == self.server.received == GREETING


def over_sockets(
    client: ssl.SSLContext,
    server: ssl.SSLContext,
    *,
    server_name: str | None = None,
    session: ssl.SSLSession | None = None,
    on_connect: bool = True,
) -> Handshake:
    """Connect over TCP on loopback; without ``on_connect`` the first read shakes hands."""
    seen = Handshake(Side(), Side())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT)

        def serve() -> None:
            raw, _ = listener.accept()
            _converse(
                seen.server,
                raw,
                lambda: server.wrap_socket(
                    raw, server_side=True, do_handshake_on_connect=on_connect
                ),
            )

        thread = threading.Thread(target=serve)
        thread.start()
        raw = socket.create_connection(listener.getsockname(), TIMEOUT)
        _converse(
            seen.client,
            raw,
            lambda: client.wrap_socket(
                raw,
                server_hostname=server_name,
                session=session,
                do_handshake_on_connect=on_connect,
            ),
        )
        thread.join(TIMEOUT)
    return seen


def in_memory(
    client: ssl.SSLContext,
    server: ssl.SSLContext,
    *,
    server_name: str | None = None,
    explicit: bool = True,
) -> Handshake:
    """Connect over memory BIOs; without ``explicit`` the first read shakes hands."""
    seen = Handshake(Side(), Side())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    steps = [
        _steps(
            seen.client,
            client.wrap_bio(to_client, to_server, server_hostname=server_name),
            explicit=explicit,
        ),
        _steps(
            seen.server,
            server.wrap_bio(to_server, to_client, server_side=True),
            explicit=explicit,
        ),
    ]
    for _ in range(10):  # flights: TLS 1.3 needs three
        for side in steps:
            next(side, None)
    return seen


def over_asyncio(
    client: ssl.SSLContext,
    server: ssl.SSLContext,
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> Handshake:
    """Connect over TCP on loopback with asyncio streams, on any event loop."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(_over_streams(client, server))


async def _over_streams(client: ssl.SSLContext, server: ssl.SSLContext) -> Handshake:
    seen = Handshake(Side(), Side())
    served = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _converse_stream(seen.server, reader, writer)
        served.set()

    # The event loop tells nobody that a handshake failed: its exception handler is for logs only.
    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server)
    async with listener:
        try:
            reader, writer = await asyncio.open_connection(
                *listener.sockets[0].getsockname(), ssl=client
            )
        except OSError as error:
            seen.client.error = error
        else:
            await _converse_stream(seen.client, reader, writer)
            if seen.client.received:
                await asyncio.wait_for(served.wait(), TIMEOUT)
    return seen


async def _converse_stream(
    side: Side, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        connection = writer.get_extra_info("ssl_object")
        side.shook_hands(connection)
        writer.write(GREETING)
        await writer.drain()
        side.heard(await asyncio.wait_for(reader.read(100), TIMEOUT), connection)
    except OSError as error:
        side.error = error
    finally:
        writer.transport.abort()


def _converse(side: Side, raw: socket.socket, connect: Callable[[], ssl.SSLSocket]) -> None:
    raw.settimeout(TIMEOUT)
    connection: socket.socket = raw
    try:
        connection = wrapped = connect()
        wrapped.sendall(GREETING)
        side.shook_hands(wrapped)
        side.heard(wrapped.recv(100), wrapped)
    except OSError as error:
        side.error = error
    finally:
        connection.close()


def _steps(side: Side, connection: ssl.SSLObject, *, explicit: bool) -> Generator[None, None, None]:
    try:
        if explicit:
            yield from _when_ready(connection.do_handshake)
        yield from _when_ready(lambda: connection.write(GREETING))
        side.shook_hands(connection)
        greeting = yield from _when_ready(lambda: connection.read(100))
        side.heard(greeting, connection)
    except ssl.SSLError as error:
        side.error = error


def _when_ready(act: Callable[[], Any]) -> Generator[None, None, Any]:
    while True:
        try:
            return act()
        except ssl.SSLWantReadError:
            yield

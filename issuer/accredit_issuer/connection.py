"""One client's connection: how long it may take, how much it may send, and how it is answered.

uvicorn keeps an idle stranger for ever, parses headers without end, and writes an answer's head and
body apart: two TLS records and two system calls, for what fits into one.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from accredit_credentials.asgi_peer import exposing_peer

REQUEST_SECONDS = 10.0  # from the handshake, or its first byte, to a request's end
MAX_PIPELINED = 16  # requests of one connection that wait
MAX_CONNECTIONS = 10_000
MAX_HEAD = 64 * 1024  # bytes
_HEAD = b"HTTP/"
MAX_REQUEST = 1024 * 1024  # bytes; beyond it nobody is answered any more


class OneWrite:
    """A transport that writes an answer's head together with what follows in one turn of the loop.

    What comes later is written at once: a stream's event does not wait until a thousand others are
    made. Only what the server's protocol asks of a transport is here.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: bytes | None = None
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        """Write now, and a head by the end of this turn, or together with what comes next."""
        held, self._held = self._held, None
        if held is not None:
            self._transport.write(held + data)
        elif data.startswith(_HEAD):
            self._held = data
            self._loop.call_soon(self._write_held)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Write what is held, and close."""
        self._write_held()
        self._transport.close()

    def abort(self) -> None:
        """Cut the connection; what is held is lost, as all that was not sent."""
        self._held = None
        self._transport.abort()

    def _write_held(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._transport.write(held)


class Connection(exposing_peer(HttpToolsProtocol)):  # type: ignore[misc]
    """A connection of uvicorn's with bounds, which shows the application who is at its end."""

    _in_head = False
    _received = 0  # bytes since the request began, as far as they came in reads of their own

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A client is there."""
        super().connection_made(OneWrite(transport, self.loop))
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._expect_nothing()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head, self._received = True, 0
        self._expect_request()
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """A request ended."""
        self._expect_nothing()
        super().on_message_complete()

    def _expect_request(self) -> None:
        """A connection is there to ask: one that does not, or never ends its question, is cut."""
        self._expect_nothing()
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def on_headers_complete(self) -> None:
        """Its head ended."""
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        super().data_received(data)
        if len(self.pipeline) > MAX_PIPELINED:
            self.transport.abort()
        # The parser keeps whatever comes: headers, a single header and trailers without end.
        self._received += len(data)
        if self._received > (MAX_HEAD if self._in_head else MAX_REQUEST):
            self.transport.abort()

    def shutdown(self) -> None:
        """The server stops."""
        # An idle connection is cut: closing it in TLS waits for the peer, which may be asleep.
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
        else:
            super().shutdown()

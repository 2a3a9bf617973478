"""One connection: who it is, its calls, and what it may hold.

grpclib speaks HTTP/2; what it leaves open is closed here. The caller is bound to the connection and
every call goes through ``rpc.bounded``. Windows are the smallest that HTTP/2 knows. Calls at a time
are counted here, too: what we announce binds a peer only once it has acknowledged it. A call that
is begun and given up costs us more than the peer: so many are a user's, on all its connections. A
peer that sends and never reads is cut before what waits for it grows; frames of kinds that nobody
knows are ignored (RFC 9113 §5.5); what cannot be parsed ends this connection and no other.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import cast

from google.protobuf.message import Message
from grpclib.config import Configuration
from grpclib.const import Cardinality
from grpclib.const import Handler as Method
from grpclib.encoding.proto import ProtoCodec
from grpclib.events import _DispatchServerEvents
from grpclib.protocol import AbstractHandler, EventsProcessor, H2Protocol
from grpclib.protocol import Stream as H2Stream
from grpclib.server import request_handler
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event
from h2.settings import SettingCodes

from accredit_client.daemon import statuses
from accredit_client.daemon.limits import KIB, Limits
from accredit_client.daemon.pace import Pace
from accredit_client.daemon.provider import Caller
from accredit_client.daemon.rpc import Line, bounded, method
from accredit_client.daemon.together import Together

log = logging.getLogger(__name__)

FRAME_BYTES = 16 * KIB  # of one frame that we send, whatever the peer would take
WRITE_HIGH = 32 * KIB  # beyond this, calls wait for the reader
HEADER_LIST_BYTES = 16 * KIB
FAREWELL_SECONDS = 0.02  # between the status of the last calls and the end of the connection
_WINDOW = 64 * KIB - 1

_HTTP2 = H2Configuration(
    client_side=False,
    header_encoding="ascii",
    validate_inbound_headers=True,
    normalize_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)
_WINDOWS = Configuration(
    http2_connection_window_size=_WINDOW, http2_stream_window_size=_WINDOW
).__for_server__()
_CODEC = ProtoCodec()
_DISPATCH = _DispatchServerEvents()


class _Table:
    """The calls by their paths, made for a connection when one is begun: most begin one or two.

    One that is not there is answered, too: grpclib would leave out the content type, and clients
    then read UNKNOWN for UNIMPLEMENTED.
    """

    def __init__(self, table: Mapping[str, Method], line: Line) -> None:
        self._table = table
        self._line = line

    def get(self, path: str) -> Method:
        """The entry of a path."""
        return bounded(self._table.get(path, _NOT_SERVED), self._line)


async def _not_served(_stream: object) -> None:
    raise statuses.unimplemented("no such call is served here")


_NOT_SERVED = method(_not_served, Cardinality.UNARY_STREAM, Message, Message)


class _Calls(AbstractHandler):
    """The calls of one connection, each in a task; so many at a time.

    Args:
        table: the calls by their paths.
        at_a_time: how many.
        changed: told when one is over.
        given_up: told of each that the peer gave up, or that was refused.
    """

    def __init__(
        self,
        table: _Table,
        at_a_time: int,
        *,
        changed: Callable[[], None],
        given_up: Callable[[], None],
    ) -> None:
        self._table = cast("dict[str, Method]", table)  # grpclib asks it for an entry, no more
        self._at_a_time = at_a_time
        self._changed = changed
        self._given_up = given_up
        self._closed = False
        self._leaving: set[H2Stream] = set()
        self.tasks: dict[H2Stream, asyncio.Task[None]] = {}

    def accept(
        self, stream: H2Stream, headers: list[tuple[str, str]], release_stream: Callable[[], None]
    ) -> None:
        """Begin a call, or refuse it: who could not know of the bound may ask again."""
        if self._closed:
            release_stream()
            return
        if len(self.tasks) - len(self._leaving) >= self._at_a_time:
            stream.reset_nowait(ErrorCodes.REFUSED_STREAM)  # RFC 9113 §5.1.2, §8.7
            release_stream()
            self._given_up()
            return
        task = asyncio.get_running_loop().create_task(
            request_handler(self._table, stream, headers, _CODEC, None, _DISPATCH, release_stream)
        )
        self.tasks[stream] = task
        task.add_done_callback(lambda _: self._over(stream))

    def cancel(self, stream: H2Stream) -> None:
        """The peer gave a call up."""
        if task := self.tasks.get(stream):
            self._leaving.add(stream)
            task.cancel()
            self._given_up()

    def close(self) -> None:
        """The connection is over: nothing is begun any more, whatever was sent before."""
        self._closed = True
        for task in list(self.tasks.values()):
            task.cancel()

    def _over(self, stream: H2Stream) -> None:
        del self.tasks[stream]
        self._leaving.discard(stream)
        self._changed()


class _Events(EventsProcessor):
    """grpclib's, which would end the connection at an event that it does not know."""

    def process(self, event: Event) -> None:
        if event.__class__ in getattr(self, "processors", ()):
            super().process(event)


class Connection(H2Protocol):
    """One accepted connection; ``rpc.Line`` for its calls."""

    def __init__(
        self,
        caller: Caller,
        table: Mapping[str, Method],
        limits: Limits,
        pace: Pace,
        over: Callable[["Connection"], None],
    ) -> None:
        self.caller = caller
        self.limits = limits
        self.stopping = False
        self.idle_since: float | None = asyncio.get_running_loop().time()
        self._pace = pace
        self._over = over
        self._transport: asyncio.Transport | None = None
        self._checked = False
        self._calls = _Calls(
            _Table(table, self),
            limits.streams,
            changed=self._calls_changed,
            given_up=self._given_up,
        )
        super().__init__(self._calls, _WINDOWS, _HTTP2)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, with our bounds told to the peer."""
        self._transport = Together.over(transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH)
        super().connection_made(self._transport)
        self._http2.update_settings(
            {
                SettingCodes.MAX_CONCURRENT_STREAMS: self.limits.streams,
                SettingCodes.MAX_HEADER_LIST_SIZE: HEADER_LIST_BYTES,
            }
        )
        self.connection.flush()
        self.processor = _Events(self._calls, self.connection)

    def data_received(self, data: bytes) -> None:
        """Take in what the peer sent."""
        try:
            super().data_received(data)
        except Exception:
            log.debug("connection of process %d cut", self.caller.pid, exc_info=True)
            self.cut()
            return
        self._http2.max_outbound_frame_size = FRAME_BYTES
        if self._unread() > self.limits.unread_bytes:
            log.warning("process %d does not read what it asks for: cut", self.caller.pid)
            self.cut()
        self._calls_changed()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The end, whoever caused it."""
        super().connection_lost(exc)
        self._over(self)

    def check_caller(self) -> None:
        """Check the caller, once for all answers that leave together (``together``).

        Raises:
            CallerGone, CallerChanged, CallerRefused: as ``Caller.check``.
        """
        if not self._checked:
            self.caller.check()
            self._checked = True
            asyncio.get_running_loop().call_soon(self._check_again)

    def cut(self) -> None:
        """End the connection at once; what was not read is gone."""
        if self._transport is not None:
            self._transport.abort()

    def finish(self) -> None:
        """End the connection once what was written is sent: GOAWAY, and closed."""
        if self._transport is None or self._transport.is_closing():
            return
        self._http2.close_connection()
        self.connection.flush()
        self._transport.close()

    async def stop(self) -> None:
        """Say UNAVAILABLE to each call, then finish."""
        self.stopping = True
        tasks = list(self._calls.tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
            # A client that reads both at once may hear of the end alone, and not why.
            await asyncio.sleep(FAREWELL_SECONDS)
        self.finish()

    def _check_again(self) -> None:
        self._checked = False

    @property
    def _http2(self) -> H2Connection:
        return self.connection._connection  # noqa: SLF001 (grpclib tells no bounds to the peer)

    def _unread(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def _given_up(self) -> None:
        if self._pace.take(asyncio.get_running_loop().time()):
            return
        user, process = self.caller.uid, self.caller.pid
        log.warning("user %d gives up calls without end: process %d cut", user, process)
        self._calls.close()
        self.cut()

    def _calls_changed(self) -> None:
        if self._calls.tasks:
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = asyncio.get_running_loop().time()

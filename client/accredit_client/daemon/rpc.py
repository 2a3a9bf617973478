"""One call on the socket: read in bounds, answered to who is still there, ended with a status.

``Rpc`` stands between grpclib's stream and our handlers, and grpclib's own (reflection, health):
a message of a caller is refused by its announced size, before it is read; an answer is given only
after the caller was checked again; a reader who does not read is cut off. ``bounded`` makes a
handler out of a method: whatever it raises becomes a status, and a call that the daemon's end
breaks off says UNAVAILABLE.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from google.protobuf.message import DecodeError, Message
from grpclib import GRPCError, Status
from grpclib.const import Cardinality
from grpclib.const import Handler as Method
from grpclib.server import Stream

from accredit_client.daemon import statuses
from accredit_client.daemon.headers import SECURITY_HEADER, fault_of
from accredit_client.daemon.limits import Limits
from accredit_client.daemon.provider import Caller

_PREFIX = 5  # of each message: whether it is compressed, and its length in four bytes


class Line(Protocol):
    """What a call knows of its connection."""

    caller: Caller
    limits: Limits
    stopping: bool

    def check_caller(self) -> None:
        """Decide whether the caller is still the process that connected; raises what it finds."""
        ...

    def cut(self) -> None:
        """End the connection at once."""
        ...


class Rpc:
    """One call. Has the methods of grpclib's stream that handlers use."""

    def __init__(self, stream: "Stream[Any, Any]", line: Line) -> None:
        self._stream = stream
        self._line = line
        self.metadata = stream.metadata

    @property
    def caller(self) -> Caller:
        """Who asks."""
        return self._line.caller

    def check_caller(self) -> None:
        """Decide whether the caller is still the process that connected.

        Raises:
            GRPCError: PERMISSION_DENIED.
        """
        try:
            self._line.check_caller()
        except Exception:  # noqa: BLE001 (whatever it was: nobody is proved to be there)
            raise statuses.denied("the caller is not the process that connected") from None

    def check_header(self) -> None:
        """Decide whether the request has the header of the Workload Endpoint (§3).

        Raises:
            GRPCError: INVALID_ARGUMENT.
        """
        values = self.metadata.getall(SECURITY_HEADER, []) if self.metadata is not None else []
        if fault := fault_of(values):
            raise statuses.invalid(fault)

    async def recv_message(self) -> Any:
        """The caller's next message, None after the last.

        Raises:
            GRPCError: too large, compressed, cut off, or not of the type of the request.
        """
        try:
            prefix = await self._stream._stream.recv_data(_PREFIX)  # noqa: SLF001 (reads unbounded)
            if not prefix:
                return None
            size = int.from_bytes(prefix[1:], "big")
            if prefix[0]:
                raise statuses.unimplemented("compressed messages are not read")
            if size > self._line.limits.request_bytes:
                limit = self._line.limits.request_bytes
                text = f"message has {size} bytes, the limit is {limit}"
                raise GRPCError(Status.RESOURCE_EXHAUSTED, text)
            data = await self._stream._stream.recv_data(size)  # noqa: SLF001
        except AssertionError:
            raise statuses.invalid("message ends too early") from None
        try:
            return self._stream._recv_type.FromString(data)  # noqa: SLF001
        except DecodeError:
            raise statuses.invalid("message is not of the type of the request") from None

    async def request(self) -> Any:
        """The caller's one message.

        Raises:
            GRPCError: as ``recv_message``, or there is none.
        """
        message = await self.recv_message()
        if message is None:
            raise statuses.invalid("the request has no message")
        return message

    async def send_message(self, message: Message) -> None:
        """Send one message.

        Raises:
            GRPCError: the caller did not read in time; the connection is cut.
        """
        try:
            async with asyncio.timeout(self._line.limits.unread_seconds):
                await self._stream.send_message(message)
        except TimeoutError:
            self._line.cut()
            raise statuses.unavailable("the answer was not read in time") from None

    async def answer(self, message: Message) -> None:
        """Send one message to the caller, if it still is the process that connected.

        Raises:
            GRPCError: it is not, or it did not read in time.
        """
        self.check_caller()
        await self.send_message(message)

    async def send_trailing_metadata(self, **fields: Any) -> None:
        """End the call with a status."""
        await self._stream.send_trailing_metadata(**fields)

    def __aiter__(self) -> "Rpc":
        return self

    async def __anext__(self) -> Any:
        message = await self.recv_message()
        if message is None:
            raise StopAsyncIteration
        return message


Answering = Callable[[Rpc], Awaitable[None]]


def method(
    answering: Answering, cardinality: Cardinality, request: type[Message], reply: type[Message]
) -> Method:
    """An entry of a service's table."""
    return Method(answering, cardinality, request, reply)


def bounded(entry: Method, line: Line) -> Method:
    """The same entry for one connection, for grpclib."""

    async def handle(stream: "Stream[Any, Any]") -> None:
        if line.stopping:
            raise statuses.unavailable(statuses.STOPPING)
        try:
            await entry.func(Rpc(stream, line))
        except asyncio.CancelledError:
            if line.stopping:
                raise statuses.unavailable(statuses.STOPPING) from None
            raise
        except Exception as error:  # noqa: BLE001 (mapped in one place, and logged there)
            raise statuses.status_of(error) from None

    return Method(handle, entry.cardinality, entry.request_type, entry.reply_type)

"""What is written in one turn of the event loop, sent together.

HTTP/2 has an answer leave as three frames, each of which grpclib writes by itself: a system call
each for us, a wake-up each for the reader. Here they wait for the end of the turn, and so do those
of other calls on the same connection. Nothing waits longer.
"""

import asyncio
from typing import Any, cast


class Together:
    """A connected transport whose writes are joined; everything else is the transport's own."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []
        self._size = 0

    @classmethod
    def over(cls, transport: asyncio.BaseTransport) -> asyncio.Transport:
        """One that stands in for a transport."""
        made = cls(cast("asyncio.Transport", transport), asyncio.get_running_loop())
        return cast("asyncio.Transport", made)

    def write(self, data: bytes) -> None:
        """Send it at the end of this turn."""
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append(data)
        self._size += len(data)

    def flush(self) -> None:
        """Send now what waits."""
        if self._waiting:
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._size = 0
            self._transport.write(data)

    def get_write_buffer_size(self) -> int:
        """Bytes that are written and not sent."""
        return self._size + self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Close once everything is sent."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

"""Writes of one turn of the event loop leave as one, in their order, and none is lost."""

import asyncio
import socket

import pytest

from accredit_client.daemon.together import Together

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The daemon's event loop is asyncio's."""
    return "asyncio"


class Recording(asyncio.Transport):
    """A transport that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[bytes | str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.told.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        """Nothing was sent so far."""
        return sum(len(each) for each in self.told)

    def close(self) -> None:
        """Keep that."""
        self.told.append("closed")


async def test_the_writes_of_a_turn_are_one() -> None:
    """Whoever writes three frames wakes the reader once; the next turn's are another."""
    transport = Recording()
    joined = Together.over(transport)
    for each in (b"headers ", b"data ", b"trailers"):
        joined.write(each)
    assert transport.told == []
    await asyncio.sleep(0)
    joined.write(b"next")
    await asyncio.sleep(0)
    assert transport.told == [b"headers data trailers", b"next"]


async def test_what_waits_is_counted_and_sent_before_the_end() -> None:
    """Bounds see what was not sent yet, and closing sends it first."""
    transport = Recording()
    joined = Together.over(transport)
    joined.write(b"12345")
    assert joined.get_write_buffer_size() == 5
    joined.close()
    assert transport.told == [b"12345", "closed"]
    await asyncio.sleep(0)
    assert transport.told == [b"12345", "closed"]


async def test_what_waits_is_gone_where_the_connection_is_cut() -> None:
    """A real transport that was aborted takes a late write and raises nothing."""
    here, there = socket.socketpair()
    with there:
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, sock=here
        )
        joined = Together.over(transport)
        joined.write(b"secret")
        joined.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        there.settimeout(5)
        assert there.recv(10) == b""

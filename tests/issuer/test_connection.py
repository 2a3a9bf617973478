"""One client's connection: what is written in one turn of the loop travels together."""

import asyncio
from typing import Any

from accredit_issuer.connection import OneWrite


class Recorded:
    """A transport that remembers what was asked of it."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.get_extra_info = self.is_closing = self.pause_reading = self.resume_reading = None

    def write(self, data: bytes) -> None:
        """Remember."""
        self.calls.append(data)

    def close(self) -> None:
        """Remember."""
        self.calls.append("close")

    def abort(self) -> None:
        """Remember."""
        self.calls.append("abort")


def written(*turns: tuple[object, ...]) -> list[Any]:
    """What reaches the transport, where each turn of the loop writes or calls these."""

    async def run() -> list[Any]:
        under = Recorded()
        transport = OneWrite(under, asyncio.get_running_loop())  # type: ignore[arg-type]
        for turn in turns:
            for what in turn:
                transport.write(what) if isinstance(what, bytes) else getattr(
                    transport, str(what)
                )()
            await asyncio.sleep(0)
        return under.calls

    return asyncio.run(run())


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


def test_the_head_and_the_body_of_an_answer_are_one_write() -> None:
    """A head leaves together with what follows it in its turn, of two answers as of one."""
    assert written((HEAD, b"body")) == [HEAD + b"body"]
    assert written((HEAD, b"a", b"b", HEAD, b"c")) == [HEAD + b"a", b"b", HEAD + b"c"]


def test_a_head_that_nothing_follows_leaves_at_the_end_of_its_turn() -> None:
    """It is not kept for the next turn, and the order stays."""
    assert written((HEAD,), (b"event",), (HEAD, HEAD)) == [HEAD, b"event", HEAD + HEAD]


def test_an_event_is_written_at_once() -> None:
    """What comes after the head does not wait for the end of the turn, nor for its neighbours."""
    assert written((b"event", "close")) == [b"event", "close"]
    assert written((b"event", "abort")) == [b"event", "abort"]


def test_what_is_held_is_written_before_the_connection_is_closed() -> None:
    """Closing loses nothing; cutting loses what was not sent."""
    assert written((HEAD, "close")) == [HEAD, "close"]
    assert written((HEAD, "abort")) == ["abort"]

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


def test_the_head_and_the_body_of_an_answer_are_one_write() -> None:
    """Two writes of one turn leave together."""
    assert written((b"head", b"body")) == [b"headbody"]


def test_what_nothing_follows_leaves_at_the_end_of_its_turn() -> None:
    """A single write is not kept for the next turn, and the order stays."""
    assert written((b"head",), (b"event",), (b"a", b"b", b"c")) == [b"head", b"event", b"ab", b"c"]


def test_what_is_held_is_written_before_the_connection_is_closed() -> None:
    """Closing loses nothing; cutting loses what was not sent."""
    assert written((b"last", "close")) == [b"last", "close"]
    assert written((b"last", "abort")) == ["abort"]

"""The writer as the event loop uses it: what one turn of the loop asks for is handed over together.

Requests that were answered by one commit go on in the same turn and ask for their next write in
the same turn: they stay together, and share that commit too. Without this a group falls apart
after its first commit, and each request pays for a commit of its own.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from accredit_issuer.errors import Unavailable
from accredit_issuer.store.writer import Transaction, Writer

T = TypeVar("T")
Asked = tuple[Callable[[Transaction], Any], "asyncio.Future[Any]"]


class LoopWriter:
    """Writes for the coroutines of one event loop at a time."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._asked: list[Asked] = []
        self._answered: deque[tuple[Future[Any], asyncio.Future[Any]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        writer.after_each_group(self._wake)

    async def run(self, work: Callable[[Transaction], T]) -> T:
        """Have ``work`` done, and wait until it is durable; as ``Writer.run``.

        Raises:
            Unavailable: too much is waiting, the writer is closed, or it could not be written.
        """
        self._loop = asyncio.get_running_loop()
        mine: asyncio.Future[T] = self._loop.create_future()
        if not self._asked:
            self._loop.call_soon(self._hand_over)
        self._asked.append((work, mine))
        return await mine

    def _hand_over(self) -> None:
        asked, self._asked = self._asked, []
        asked = [(work, mine) for work, mine in asked if not mine.cancelled()]
        try:
            futures = self._writer.run_all([work for work, _ in asked])
        except Unavailable as error:
            for _, mine in asked:
                mine.set_exception(error)
            return
        for future, (_, mine) in zip(futures, asked, strict=True):
            self._join(future, mine)

    def _join(self, future: Future[Any], mine: "asyncio.Future[Any]") -> None:
        def cancel_too(_: "asyncio.Future[Any]") -> None:
            if mine.cancelled():
                future.cancel()

        mine.add_done_callback(cancel_too)
        future.add_done_callback(lambda done: self._answered.append((done, mine)))

    def _wake(self) -> None:
        """On the writing thread: one call into the loop for a whole group."""
        if self._answered and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._pass_on)

    def _pass_on(self) -> None:
        while self._answered:
            done, mine = self._answered.popleft()
            if mine.done():
                continue
            if (error := done.exception()) is not None:
                mine.set_exception(error)
            else:
                mine.set_result(done.result())

"""The writer as the event loop uses it: what one turn of the loop asks for is handed over together.

Requests that were answered by one commit go on in the same turn and ask for their next write in
the same turn: they stay together, and share that commit too. Without this a group falls apart
after its first commit, and each request pays for a commit of its own.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from accredit_issuer.errors import Unavailable
from accredit_issuer.store.writer import Asked, Transaction, Waiter, Writer

T = TypeVar("T")
_Answers = deque[tuple["asyncio.Future[Any]", Any, Exception | None]]


class _LoopWaiter(Waiter):
    """Waits for a future of the event loop, which the loop's own thread settles."""

    __slots__ = ("_answers", "_future")

    def __init__(self, future: "asyncio.Future[Any]", answers: _Answers) -> None:
        self._future = future
        self._answers = answers

    def is_waiting(self) -> bool:
        return not self._future.cancelled()

    def settle(self, result: Any, error: Exception | None) -> None:
        self._answers.append((self._future, result, error))


class LoopWriter:
    """Writes for the coroutines of one event loop at a time."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._asked: list[tuple[Asked, asyncio.Future[Any]]] = []
        self._answers: _Answers = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        writer.after_each_group(self._wake)

    async def run(self, work: Callable[[Transaction], T]) -> T:
        """Have ``work`` done, and wait until it is durable; as ``Writer.run``.

        Raises:
            Unavailable: too much is waiting, the writer is closed, or it could not be written.
        """
        self._loop = loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if not self._asked:
            loop.call_soon(self._hand_over)
        self._asked.append(((work, _LoopWaiter(future, self._answers), False), future))
        return await future

    def _hand_over(self) -> None:
        asked, self._asked = self._asked, []
        try:
            self._writer.ask([each for each, _ in asked])
        except Unavailable as error:
            for _, future in asked:
                if not future.done():
                    future.set_exception(error)

    def _wake(self) -> None:
        """On the writing thread: one call into the loop for a whole group."""
        if self._answers and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._pass_on)

    def _pass_on(self) -> None:
        while self._answers:
            future, result, error = self._answers.popleft()
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

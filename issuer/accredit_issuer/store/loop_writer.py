"""The writer as the event loop uses it: what one turn of the loop asks for is handed over together.

Requests that were answered by one commit go on in the same turn and ask for their next write in
the same turn: they stay together, and share that commit too. Without this a group falls apart
after its first commit, and each request pays for a commit of its own.

While a commit is under way nothing is handed over: it would only wait, and what comes meanwhile
can share the next one. Where many ask, that next one waits for a moment longer: a commit costs as
much as several requests.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from accredit_issuer.errors import Unavailable
from accredit_issuer.store.writer import Transaction, Waiter, Work, Writer

MANY = 8  # answers of one group: more than one request at a time is under way
MOMENT = 0.002  # seconds

T = TypeVar("T")
_Answers = deque[tuple["asyncio.Future[Any]", Any, Exception | None]]


class _LoopWaiter(Waiter):
    """Waits for a future of the event loop, which the loop's own thread settles."""

    __slots__ = ("_answers", "_future")

    def __init__(self, future: "asyncio.Future[Any]", answers: _Answers) -> None:
        self._future = future
        self._answers = answers

    def is_waiting(self) -> bool:
        if not self._future.cancelled():
            return True
        self.settle(None, None)  # it counts as answered: others wait for the group to be over
        return False

    def settle(self, result: Any, error: Exception | None) -> None:
        self._answers.append((self._future, result, error))


class _Turns:
    """What the coroutines of one event loop ask for, turn by turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop, writer: Writer) -> None:
        self._loop = loop
        self._writer = writer
        self._asked: list[tuple[Work, asyncio.Future[Any]]] = []
        self._answers: _Answers = deque()
        self._under_way = 0
        self._due = False  # to be handed over soon

    def ask(self, work: Work) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = self._loop.create_future()
        self._asked.append((work, future))
        if not self._under_way and not self._due:
            self._due = True
            self._loop.call_soon(self._hand_over)
        return future

    def wake(self) -> None:
        """On the writing thread: one call into the loop for a whole group."""
        if self._answers and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._pass_on)

    def _hand_over(self) -> None:
        self._due = False
        asked = [(work, future) for work, future in self._asked if not future.cancelled()]
        self._asked = []
        if not asked:
            return
        try:
            self._writer.ask(
                [(work, _LoopWaiter(future, self._answers), False) for work, future in asked]
            )
        except Unavailable as error:
            for _, future in asked:
                future.set_exception(error)
        else:
            self._under_way = len(asked)

    def _pass_on(self) -> None:
        answered = 0
        while self._answers:
            future, result, error = self._answers.popleft()
            answered += 1
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)
        self._under_way -= answered
        if not self._under_way and not self._due:
            # Those that were just answered go on first, and may ask again.
            self._due = True
            self._loop.call_later(MOMENT if answered >= MANY else 0.0, self._hand_over)


class LoopWriter:
    """Writes for the coroutines of any event loop."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._turns: dict[asyncio.AbstractEventLoop, _Turns] = {}
        writer.after_each_group(self._wake)

    async def run(self, work: Callable[[Transaction], T]) -> T:
        """Have ``work`` done, and wait until it is durable; as ``Writer.run``.

        Raises:
            Unavailable: too much is waiting, the writer is closed, or it could not be written.
        """
        loop = asyncio.get_running_loop()
        turns = self._turns.get(loop)
        if turns is None:
            open_ones = {known: its for known, its in self._turns.items() if not known.is_closed()}
            turns = _Turns(loop, self._writer)
            self._turns = {**open_ones, loop: turns}
        result: T = await turns.ask(work)
        return result

    def _wake(self) -> None:
        for turns in self._turns.values():
            turns.wake()

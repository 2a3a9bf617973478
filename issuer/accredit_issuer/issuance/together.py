"""The same arithmetic for all who ask in one turn of the event loop, one right after another.

A signature or its check reads tables of 150 kB. Between two requests they fall out of the
processor's cache, and to fetch them again takes as long as the arithmetic itself. Done together
they are fetched once.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")

_Asked = list[tuple[A, "asyncio.Future[R]"]]


class Together(Generic[A, R]):
    """A function whose calls of one turn of the loop are made together."""

    def __init__(self, call: Callable[[A], R]) -> None:
        self._call = call
        self._asked: dict[asyncio.AbstractEventLoop, _Asked[A, R]] = {}

    async def __call__(self, argument: A) -> R:
        """The function's result; raises what it raises, to the one who asked."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        asked = self._asked.get(loop)
        if asked is None:
            self._asked[loop] = [(argument, future)]
            loop.call_soon(self._answer, loop)
        else:
            asked.append((argument, future))
        return await future

    def _answer(self, loop: asyncio.AbstractEventLoop) -> None:
        for argument, future in self._asked.pop(loop):
            if future.done():  # whoever asked has gone
                continue
            try:
                result = self._call(argument)
            except Exception as error:  # noqa: BLE001 (it belongs to the one who asked)
                future.set_exception(error)
            else:
                future.set_result(result)

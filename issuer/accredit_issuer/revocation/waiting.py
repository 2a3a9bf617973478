"""Many tasks of one event loop that wait for the same thing to happen."""

import asyncio


class Waiting:
    """Whoever waits, on one event loop.

    ``asyncio.wait_for`` would make a task of each: for a thousand of them that takes as long as to
    tell them.
    """

    def __init__(self) -> None:
        self._futures = set[asyncio.Future[None]]()
        self.wakes = 0

    async def wait(self, seconds: float) -> None:
        """Return at the next ``wake``, or after so many seconds."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _let_go, future)
        self._futures.add(future)
        try:
            await future
        finally:
            timer.cancel()
            self._futures.discard(future)

    def wake(self) -> None:
        """Let everybody go who waits now."""
        self.wakes += 1
        for future in self._futures:
            _let_go(future)


def _let_go(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)

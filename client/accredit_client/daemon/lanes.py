"""Threads for work about callers, shared fairly between the users whom it is about.

What has to be done to know a process may take long: a program of a gigabyte is read, a tree is
measured. So a user has only so many at work or in line at a time, and the users' turns come one
after the other: whoever brings a thousand makes his own wait, and of others each at most for the
one that is before it. Work goes on where nobody waits for it any more, and its turn ends with it:
who gives a question up and asks again has no second thread.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Turn:
    """A user's share; ``users`` counts who works or waits for it, so that it can be forgotten."""

    free: asyncio.Semaphore
    users: int = 0


class Lane:
    """So many threads, and of them so many for one user.

    Args:
        threads: work at a time.
        of_account: at a time, of one user.
        name: of the threads.
    """

    def __init__(self, threads: int, *, of_account: int, name: str) -> None:
        self._of_account = of_account
        self._free = asyncio.Semaphore(threads)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._turns: dict[int, _Turn] = {}

    async def run(self, account: int, work: Callable[[], T]) -> T:
        """Do something for a user in a thread, once it is the user's turn.

        Args:
            account: the user, as ``accounts`` counts.
            work: what is done; it is not broken off where the caller of this is.
        """
        turn = self._turns.setdefault(account, _Turn(asyncio.Semaphore(self._of_account)))
        turn.users += 1
        try:
            await turn.free.acquire()
            try:
                # Semaphores are first come, first served: each user is in this line once.
                await self._free.acquire()
            except BaseException:
                turn.free.release()
                raise
        except BaseException:
            self._left(account, turn)
            raise

        def over(ended: asyncio.Future[T]) -> None:
            self._free.release()
            turn.free.release()
            self._left(account, turn)
            if not ended.cancelled():
                ended.exception()  # asked for: who waited may have gone, and asyncio would log it

        done = asyncio.get_running_loop().run_in_executor(self._threads, work)
        done.add_done_callback(over)
        return await asyncio.shield(done)

    def close(self) -> None:
        """Begin nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _left(self, account: int, turn: _Turn) -> None:
        turn.users -= 1
        if not turn.users:
            del self._turns[account]

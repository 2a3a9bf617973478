"""Time that moves when a test says so: a clock, and waiters that wait for it.

``ManualTime`` is for threads, ``TaskTime`` for one asyncio task. ``advance`` moves the clock and
lets go of whoever waited for less; ``settle`` returns once they wait again, having done their work.
"""

import asyncio
import threading
from datetime import datetime, timedelta

TIMEOUT = 20.0  # seconds of real time; nothing takes as long unless something is broken


class ManualTime:
    """A clock and a waiter for background threads.

    With ``passing`` the waiter does not wait: time passes by itself, for code that waits in the
    test's own thread.
    """

    def __init__(self, now: datetime, *, passing: bool = False) -> None:
        self._now = now
        self._passing = passing
        self._changed = threading.Condition()
        self._parked: dict[int, datetime] = {}
        self._woken = False
        self.waits: list[float] = []

    def clock(self) -> datetime:
        """The time."""
        return self._now

    def wait(self, seconds: float) -> None:
        """Wait until ``advance`` has moved the clock so far, or until woken."""
        with self._changed:
            self.waits.append(seconds)
            if self._passing:
                self._now += timedelta(seconds=seconds)
                return
            me = threading.get_ident()
            self._parked[me] = self._now + timedelta(seconds=seconds)
            self._changed.notify_all()
            # A test that waits for itself (its identity's first attempt failed) waits for ever.
            limit = TIMEOUT if threading.current_thread() is threading.main_thread() else None
            let_go = self._changed.wait_for(lambda: self._woken or me not in self._parked, limit)
            self._parked.pop(me, None)
            self._woken = False
            assert let_go, "the test's own thread waits, and nobody moves the time"

    def wake(self) -> None:
        """End the wait under way."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def advance(self, *, seconds: float = 0.0, hours: float = 0.0) -> None:
        """Move the clock, once somebody waits for it."""
        self.settle()
        with self._changed:
            self._now += timedelta(seconds=seconds, hours=hours)
            for thread, until in tuple(self._parked.items()):
                if until <= self._now:
                    del self._parked[thread]
            self._changed.notify_all()

    def settle(self) -> None:
        """Return once somebody waits."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._parked, TIMEOUT), "nobody waits"


class TaskTime:
    """A clock and a waiter for one asyncio task."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._until: datetime | None = None
        self._go = asyncio.Event()
        self._waiting = asyncio.Event()

    def clock(self) -> datetime:
        """The time."""
        return self._now

    async def wait(self, seconds: float) -> None:
        """Wait until ``advance`` has moved the clock so far, or until woken."""
        self._until = self._now + timedelta(seconds=seconds)
        self._go.clear()
        self._waiting.set()
        await self._go.wait()

    def wake(self) -> None:
        """End the wait under way."""
        self._waiting.clear()
        self._go.set()

    async def advance(self, *, seconds: float = 0.0, hours: float = 0.0) -> None:
        """Move the clock, once the task waits for it."""
        await self.settle()
        self._now += timedelta(seconds=seconds, hours=hours)
        if self._until is not None and self._until <= self._now:
            self.wake()

    async def settle(self) -> None:
        """Return once the task waits."""
        await asyncio.wait_for(self._waiting.wait(), TIMEOUT)

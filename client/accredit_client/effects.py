"""The effects that are handed in: the time, chance, and how a background thread or task waits.

Everything here has a stand-in in the tests, which move time instead of spending it.
"""

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from random import SystemRandom
from typing import Protocol

Clock = Callable[[], datetime]
Draw = Callable[[], float]
"""A random number of [0, 1)."""

system_draw: Draw = SystemRandom().random


def utc_now() -> datetime:
    """The system's clock."""
    return datetime.now(UTC)


class Waiter(Protocol):
    """Waits in a thread."""

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or once woken."""

    def wake(self) -> None:
        """End the wait under way, or the next one; from any thread."""


class AsyncWaiter(Protocol):
    """Waits in a task."""

    async def wait(self, seconds: float) -> None:
        """Return after so many seconds, or once woken."""

    def wake(self) -> None:
        """End the wait under way, or the next one; from the same event loop."""


class ThreadWaiter:
    """The real one, for threads."""

    def __init__(self) -> None:
        self._woken = threading.Event()

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or once woken."""
        self._woken.wait(seconds)
        self._woken.clear()

    def wake(self) -> None:
        """End the wait under way, or the next one."""
        self._woken.set()


class TaskWaiter:
    """The real one, for asyncio."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Return after so many seconds, or once woken."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()

    def wake(self) -> None:
        """End the wait under way, or the next one."""
        self._woken.set()

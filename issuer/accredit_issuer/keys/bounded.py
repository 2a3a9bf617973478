"""Calls that may hang, made in a thread of their own and waited for so long at most.

One call at a time, in the order of asking. A call that has not returned in time cannot be ended: it
is left to itself, whoever asked is told, and until it has returned everybody else is told at once.
What it returns then is thrown away. The thread is a daemon: it keeps no process from ending.
"""

import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Hangs(Exception):
    """The call, or one before it, has not returned in time."""


class _Asked(Generic[T]):
    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._result: list[T] = []
        self._error: BaseException | None = None
        self.done = threading.Event()

    def run(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:  # noqa: BLE001 (raised where it was asked for)
            self._error = error
        finally:
            self.done.set()

    def outcome(self) -> T:
        if self._error is not None:
            raise self._error
        return self._result[0]


class OwnThread:
    """The thread, begun with the first call.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._turn = threading.Lock()
        self._waiting: queue.SimpleQueue[_Asked[Any]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._late: threading.Event | None = None

    def run(self, work: Callable[[], T], seconds: float) -> T:
        """What ``work`` returns or raises; it has this long from when it begins.

        Raises:
            Hangs: it has not returned by then, or one before it has not yet.
        """
        with self._turn:
            if self._late is not None and not self._late.is_set():
                raise Hangs
            self._late = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            asked = _Asked(work)
            self._waiting.put(asked)
            if not asked.done.wait(seconds):
                self._late = asked.done
                raise Hangs
        return asked.outcome()

    def _run(self) -> None:
        while True:
            self._waiting.get().run()

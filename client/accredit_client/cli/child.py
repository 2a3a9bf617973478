"""One child process: started, sent our signals, stopped, and its exit code."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from types import FrameType, TracebackType
from typing import Self

GRACE = 10.0  # seconds between asking a process to end and ending it

_FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
    signal.SIGWINCH,
)
# Pressed on a terminal, these reach every process of the foreground group by themselves.
_OF_THE_TERMINAL = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH})


class Child:
    """A child that gets the signals that we get, while this context is open.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self._handlers = {each: signal.signal(each, self._forward) for each in _FORWARDED}
        try:
            self._process = subprocess.Popen(self._command, env=self._environment)
        except BaseException:
            self._restore()
            raise
        for number in self._early:
            self._process.send_signal(number)
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._restore()

    def wait(self, seconds: float) -> int | None:
        """Wait so long for the end; returns the exit code, or None while it runs.

        A child that a signal ended has 128 and the signal's number, as in a shell.
        """
        if not self._ended.wait(seconds):
            return None
        code = self._running().wait()
        return code if code >= 0 else 128 - code

    def stop(self, grace: float = GRACE) -> None:
        """Ask the child to end, and end it if it does not in time."""
        process = self._running()
        process.terminate()
        if not self._ended.wait(grace):
            process.kill()
            self._ended.wait()

    def _watch(self) -> None:
        self._running().wait()
        self._ended.set()

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        if number in _OF_THE_TERMINAL and _in_foreground():
            return
        if self._process is None:
            self._early.append(number)
        else:
            self._process.send_signal(number)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the child was not started")
        return self._process


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.__stdin__.fileno() if sys.__stdin__ else 0) == os.getpgrp()
    except (OSError, ValueError):
        return False  # no terminal: signals come from elsewhere, and to us alone

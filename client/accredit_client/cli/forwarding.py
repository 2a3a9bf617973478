"""The signals that this process gets, handed on to somebody who runs in its place."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

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


class Forwarding:
    """Hands signals on while this context is open; those that come early are kept for ``to``.

    Args:
        same_terminal: whether a terminal's signals reach the other by themselves.
    """

    def __init__(self, *, same_terminal: bool) -> None:
        self._same_terminal = same_terminal
        self._send: Callable[[int], object] | None = None
        self._early: list[int] = []

    def __enter__(self) -> Self:
        self._handlers = {each: signal.signal(each, self._forward) for each in _FORWARDED}
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def to(self, send: Callable[[int], object]) -> None:
        """From now on, by this."""
        self._send = send
        for number in self._early:
            send(number)

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        if self._same_terminal and number in _OF_THE_TERMINAL and _in_foreground():
            return
        if self._send is None:
            self._early.append(number)
        else:
            self._send(number)


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.__stdin__.fileno() if sys.__stdin__ else 0) == os.getpgrp()
    except (OSError, ValueError):
        return False  # no terminal: signals come from elsewhere, and to us alone

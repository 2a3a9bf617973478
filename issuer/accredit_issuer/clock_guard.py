"""Whether the clock can be believed: without that nothing is dated, issued or rotated.

A clock that is set back makes what was revoked or over look good again; one that is set forward
expires and rotates everything. ``judge`` compares the clock with

* the newest moment that is known: that of the last record of the log, and each one since. Behind
  it by more than a minute: refused.
* a clock that nobody sets, which runs since the start, through a laptop's sleep too where the
  system has such a clock. Ahead of it by more than an hour: refused.

What is refused comes to an end by itself when the clock comes back. An operator confirms a clock
by starting the issuer anew; one that is behind the log with ``run --confirm-clock``. A clock that
is wrong at the start already and ahead of the log cannot be told from a long stop.

``ClockGuard`` is called like the clock that it guards.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from accredit_issuer.clock import Clock
from accredit_issuer.errors import Unavailable

BEHIND = timedelta(seconds=60)  # records of one moment reach the log in any order
AHEAD = timedelta(hours=1)  # a zone that was set wrong is a jump; what NTP corrects is none

WITHOUT_QUESTION = timedelta(seconds=1)  # of the clock, after a reading that was good

Steady = Callable[[], float]
"""Seconds since some moment, never set back or forward."""


class ClockWrong(Unavailable):
    """The clock cannot be believed; nothing was signed."""


def steady_clock() -> float:
    """Seconds since the machine started, sleep included where the system counts it (Linux)."""
    return time.clock_gettime(_STEADY)


_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def judge(now: datetime, newest: datetime | None, expected: datetime | None) -> str | None:
    """Why the clock cannot be believed; None where it can.

    ``newest`` is the newest moment that is known to have been; ``expected`` what the clock should
    say by one that nobody sets.
    """
    if newest is not None and now < newest - BEHIND:
        return (
            f"the clock says {now:%Y-%m-%dT%H:%M:%SZ}, and the newest record is of "
            f"{newest:%Y-%m-%dT%H:%M:%SZ}: set the clock, or confirm it with "
            "'accredit-issuer run --confirm-clock'"
        )
    if expected is not None and now > expected + AHEAD:
        return (
            f"the clock jumped forward to {now:%Y-%m-%dT%H:%M:%SZ}, {expected:%Y-%m-%dT%H:%M:%SZ} "
            "was expected: set the clock back, or confirm it by starting the issuer anew"
        )
    return None


class ClockGuard:
    """A clock that raises where it cannot be believed. From any thread.

    Args:
        clock: the clock to guard.
        newest: the moment of the newest record; None where there is none.
        steady: a clock that nobody sets; without it no jump forward is noticed.
    """

    def __init__(
        self, clock: Clock, newest: datetime | None = None, steady: Steady | None = None
    ) -> None:
        self._clock = clock
        self._newest = newest
        self._steady = steady
        self._began = clock()
        self._began_steady = steady() if steady else 0.0
        self._unquestioned = (self._began, self._began)

    def __call__(self) -> datetime:
        """Now.

        Raises:
            ClockWrong: the clock cannot be believed.
        """
        now = self._clock()
        self.check(now)
        return now

    def check(self, now: datetime) -> None:
        """Decide whether this reading can be believed, and remember it if so.

        Raises:
            ClockWrong: it cannot.
        """
        begin, end = self._unquestioned
        if not begin <= now < end:
            self._look(now)

    def at_least(self) -> datetime:
        """Now, or the newest moment that is known to have been, where the clock says less.

        For what must go on by a wrong clock: what was over once stays over.
        """
        now = self._clock()
        return now if self._newest is None else max(now, self._newest)

    def at_most(self) -> datetime:
        """Now, or what the clock should say by one that nobody sets, where that is less.

        For what must not be passed over by a wrong clock: what it calls over may still live.
        """
        now, expected = self._clock(), self._expected()
        return now if expected is None else min(now, expected)

    def why_wrong(self, now: datetime) -> str | None:
        """Why this reading cannot be believed; None where it can."""
        return judge(now, self._newest, self._expected())

    def confirm(self) -> timedelta:
        """Believe the clock as it is, because an operator says so; returns how far it was behind.

        What it is behind is zero where it is not.
        """
        now = self._clock()
        behind = max(self._newest - now, timedelta(0)) if self._newest else timedelta(0)
        self._newest = now
        self._unquestioned = (now, now)
        return behind

    def _look(self, now: datetime) -> None:
        """Judge a reading that is out of the window in which the last one was good."""
        if (why := self.why_wrong(now)) is not None:
            raise ClockWrong(why)
        newest = now if self._newest is None else max(self._newest, now)
        # Each request asks: for the next second of the clock that is two comparisons.
        self._newest = newest
        self._unquestioned = (newest - BEHIND, newest + WITHOUT_QUESTION)

    def _expected(self) -> datetime | None:
        if self._steady is None:
            return None
        return self._began + timedelta(seconds=self._steady() - self._began_steady)

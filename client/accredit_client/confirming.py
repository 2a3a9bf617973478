"""Acknowledging what the feed told: the issuer hears which facts this verifier applies.

A stream begins with an id; whoever shows it again tells how far it has come. That is news for the
security team and nothing else: it is said beside the feed, never before a fact is applied, at most
one call at a time, always the newest number. What could not be said is forgotten; the next word
covers it. With nothing new it is said again now and then, so that silence means something, and so
that the connection is open when a fact comes.
"""

import asyncio
import contextlib
import re
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from accredit_client import calls

if TYPE_CHECKING:
    from accredit_client.wire import AsyncIssuer, Issuer

EVENT = "listener"
AGAIN = timedelta(seconds=20)  # connections without traffic are kept for 30 s
CLOSING = 1.0  # seconds that a call under way gets to end

_ID = re.compile(r"[A-Za-z0-9_-]{22}")


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """One word to the issuer; the id is known to it and to us only."""

    listener: str = field(repr=False)
    through: int


class Said:
    """What is to be said, by what was said on this stream. Decides, and sends nothing."""

    def __init__(self) -> None:
        self._listener: str | None = None
        self._through = -1
        self._as_of: datetime | None = None

    def begin(self, listener: str) -> None:
        """A stream began with this id; one of another form is as none."""
        self._listener = listener if _ID.fullmatch(listener) else None
        self._through, self._as_of = -1, None

    def end(self) -> None:
        """There is no stream any more."""
        self._listener = None

    def next(self, through: int, as_of: datetime) -> Acknowledgement | None:
        """What to say once a statement was applied; None where that is not worth a call."""
        if self._listener is None:
            return None
        recent = self._as_of is not None and as_of - self._as_of < AGAIN
        if through <= self._through and recent:
            return None
        self._through, self._as_of = through, as_of
        return Acknowledgement(self._listener, through)


class ThreadConfirmer:
    """Says it in a thread of its own, which begins with the first word."""

    def __init__(self, issuer: "Issuer") -> None:
        self._issuer = issuer
        self._changed = threading.Condition()
        self._next: Acknowledgement | None = None
        self._thread: threading.Thread | None = None
        self._closing = False

    def say(self, word: Acknowledgement) -> None:
        """Say this next, in place of what was not said yet. Returns at once."""
        with self._changed:
            self._next = word
            self._changed.notify()
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(
                    target=self._run, name="accredit-confirmations", daemon=True
                )
                self._thread.start()

    def stop(self) -> None:
        """Say nothing more; waits for nothing."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def close(self) -> None:
        """Say nothing more; a call under way that does not end is left alone."""
        self.stop()
        if self._thread is not None:
            self._thread.join(CLOSING)

    def _run(self) -> None:
        while (word := self._wanted()) is not None:
            with contextlib.suppress(Exception):  # whatever it was, it must not end the thread
                self._issuer.send(calls.acknowledgement(word.listener, word.through))

    def _wanted(self) -> Acknowledgement | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._next is not None)
            word, self._next = self._next, None
            return None if self._closing else word


class TaskConfirmer:
    """The same in an asyncio task, which ends when nothing is left to be said."""

    def __init__(self, issuer: "AsyncIssuer") -> None:
        self._issuer = issuer
        self._next: Acknowledgement | None = None
        self._task: asyncio.Task[None] | None = None

    def say(self, word: Acknowledgement) -> None:
        """Say this next, in place of what was not said yet. Returns at once."""
        self._next = word
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="accredit-confirmations")

    async def aclose(self) -> None:
        """Say nothing more."""
        self._next = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=CLOSING)

    async def _run(self) -> None:
        while (word := self._next) is not None:
            self._next = None
            with contextlib.suppress(Exception):  # whatever it was, the next word must be said
                await self._issuer.send(calls.acknowledgement(word.listener, word.through))

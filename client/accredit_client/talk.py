"""What an identity wants done, without doing any of it.

A ``Talk`` is a generator that yields what has to be done, a ``Call`` to send or ``Blocking`` work
to run, and is sent the result. ``identity`` holds conversations in a thread, ``async_identity`` in
asyncio; both therefore behave alike.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from accredit_client.call import Call


@dataclass(frozen=True, slots=True)
class Blocking:
    """Work that may block: reading files, measuring code, the first connection."""

    run: Callable[[], Any]


Talk = Generator[Call[Any] | Blocking, Any, None]


class Conversation:
    """A talk under way: what it wants now, until it wants nothing more."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.wanted: Call[Any] | Blocking | None = next(talk, None)

    def answered(self, result: object) -> None:
        """Go on with the result of what was wanted."""
        self._advance(lambda: self._talk.send(result))

    def failed(self, error: Exception) -> None:
        """Let the talk decide what a failure means; most let it through."""
        self._advance(lambda: self._talk.throw(error))

    def _advance(self, step: Callable[[], Call[Any] | Blocking]) -> None:
        try:
            self.wanted = step()
        except StopIteration:
            self.wanted = None

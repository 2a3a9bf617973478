"""Poll-based delivery (RFC 8936): a receiver asks, says what it has, and waits for what is new.

Of one stream one call waits: a newer one takes its place. What was not acknowledged is offered
again. An error that a receiver names (``setErrs``) is an
acknowledgement as well: it will not take that event another time either.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import structlog

from accredit_credentials.security_event import SecurityEvent
from accredit_issuer.revocation.waiting import Waiting
from accredit_issuer.signals.streams import Stream, Streams

MAX_EVENTS = 100  # of one answer
LONGEST_WAIT = 30.0  # seconds that one call waits

_log = structlog.get_logger("accredit.signals")


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    """What one call asks for (RFC 8936 §2.2)."""

    max_events: int
    at_once: bool
    acknowledged: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """SETs by their ``jti``, and whether there are more."""

    sets: Mapping[str, str]
    more: bool


class Polling:
    """Answers those who poll, on one event loop."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._waiting = Waiting()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._newest: dict[str, object] = {}  # of the calls that wait for a stream
        streams.heed(self._wake)

    async def answer(
        self, stream: Stream, asked: Polled, *, longest_wait: float = LONGEST_WAIT
    ) -> Answer:
        """Take note of what the receiver has, and tell what it has not.

        Raises:
            Unavailable: what it has cannot be recorded, or nothing can be signed.
        """
        self._loop = asyncio.get_running_loop()
        until = self._loop.time() + longest_wait
        await asyncio.to_thread(self._take, stream, asked)
        while True:
            wakes = self._waiting.wakes
            known = await asyncio.to_thread(self._streams.one, stream.id)
            if known is None or not asked.max_events:
                return Answer({}, more=False)
            limit = min(asked.max_events, MAX_EVENTS)
            events, more = await asyncio.to_thread(self._streams.due, known, limit)
            left = until - self._loop.time()
            if events or asked.at_once or left <= 0 or self._closed:
                return Answer(await asyncio.to_thread(self._signed, events), more)
            if self._waiting.wakes == wakes and not await self._wait(stream, left):
                return Answer({}, more=False)

    def close(self) -> None:
        """Keep nobody waiting any more. From any thread."""
        self._closed = True
        self._wake()

    async def _wait(self, stream: Stream, seconds: float) -> bool:
        """Wait for news; False where a newer call waits in place of this one.

        One for each stream: a receiver must not make a fact cost as much as it opens connections.
        """
        own = object()
        if self._newest.get(stream.id) is not None:
            self._waiting.wake()
        self._newest[stream.id] = own
        try:
            await self._waiting.wait(seconds)
            return self._newest[stream.id] is own
        finally:
            if self._newest.get(stream.id) is own:
                del self._newest[stream.id]

    def _take(self, stream: Stream, asked: Polled) -> None:
        done = self._streams.accept(stream, (*asked.acknowledged, *asked.refused))
        if done is not None:
            done.result()
        if asked.refused:
            reason = f"the receiver refused {len(asked.refused)} events"
            _log.error("security events refused", stream=stream.name, reason=reason)
            self._streams.failed(stream, reason)

    def _signed(self, events: Iterable[SecurityEvent]) -> dict[str, str]:
        return {event.jti: self._streams.signed(event) for event in events}

    def _wake(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._waiting.wake)

"""Push-based delivery (RFC 8935): to each receiver one event after the other, until it has it.

Runs on a thread of its own, never on the event loop of the server: a receiver that is slow, dead or
hostile costs one task that waits. It is told at once of a new fact; after a failure the next
attempt waits for one second, then twice as long each time, up to five minutes, or until an admin
asks for a verification. An event is sent again until it is accepted, the receiver says that it is
no event, or its fact has expired.
"""

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from accredit_credentials.x509_svid import X509Identity
from accredit_issuer.errors import IssuerError
from accredit_issuer.signals.posting import EventRefused, PostFailed, connected, trust
from accredit_issuer.signals.streams import MAX_STREAMS, Method, Streams

FIRST_PAUSE = 1.0  # seconds
LONGEST_PAUSE = 300.0
AT_ONCE = 50  # events that are made at a time
CLOSING = 5.0  # seconds
READ_AGAIN = 300.0  # seconds after which the CAs are read again

_log = structlog.get_logger("accredit.signals")


@dataclass(frozen=True, slots=True)
class _Trusted:
    context: ssl.SSLContext
    identity: X509Identity | None
    at: float


@dataclass(slots=True)
class _Worker:
    """What one stream's task goes by; ``pause`` is the next one, should it fail."""

    stream_id: str
    news: asyncio.Event = field(default_factory=asyncio.Event)
    pause: float = FIRST_PAUSE


_Workers = dict[str, tuple["asyncio.Task[None]", _Worker]]


class Pushing:
    """Pushes the events of one issuer's streams.

    Args:
        streams: what there is to send.
        ca_file: what receivers are verified with in place of the system's CAs.
        pause: waits for so many seconds.
    """

    def __init__(
        self,
        streams: Streams,
        *,
        ca_file: Path | None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._streams = streams
        self._ca_file = ca_file
        self._pause = pause
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._changed = asyncio.Event()
        self._closed = False
        self._trusted: _Trusted | None = None
        self._lock = threading.Lock()
        self.identity: X509Identity | None = None
        """The issuer's own, for receivers that ask for a client certificate."""
        streams.heed(self.wake)

    def start(self) -> None:
        """Begin."""
        with self._lock:
            if self._closed or self._thread is not None:
                return
            self._thread = threading.Thread(target=self._run, name="accredit-push", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """There may be something new. From any thread."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._changed.set)

    def close(self) -> None:
        """End what is under way, and begin nothing more; what is not accepted stays due."""
        self._closed = True
        self.wake()
        if self._thread is not None:
            # A name that is being looked up cannot be called back; nobody waits for its answer.
            self._thread.join(CLOSING)

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            # Names are looked up there: those that nobody answers for must not keep the others.
            loop.set_default_executor(ThreadPoolExecutor(MAX_STREAMS))
            with self._lock:
                self._loop = loop
            try:
                runner.run(self._keep_workers())
            finally:
                with self._lock:
                    self._loop = None

    async def _keep_workers(self) -> None:
        """A task for each stream that is pushed; each is told of whatever changed."""
        workers: _Workers = {}
        try:
            while not self._closed:
                self._changed.clear()
                try:
                    self._update(workers)
                except Exception as error:  # noqa: BLE001 (whatever it was, it must be tried again)
                    _log.error("streams not read", error=type(error).__name__)
                    await self._pause(FIRST_PAUSE)
                    continue
                if not self._closed:
                    await self._changed.wait()
        finally:
            tasks = [task for task, _ in workers.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _update(self, workers: _Workers) -> None:
        wanted = {each.id for each in self._streams.all() if each.method is Method.PUSH}
        for gone in workers.keys() - wanted:
            workers.pop(gone)[0].cancel()
        for stream_id in wanted:
            if stream_id not in workers:
                worker = _Worker(stream_id)
                workers[stream_id] = asyncio.create_task(self._keep_pushing(worker)), worker
            workers[stream_id][1].news.set()

    async def _keep_pushing(self, worker: _Worker) -> None:
        while True:
            worker.news.clear()
            try:
                sent = await self._push(worker)
            except PostFailed as error:
                self._failed(worker, str(error))
            except IssuerError as error:
                self._failed(worker, f"the issuer cannot record it: {error}")
            except Exception as error:  # noqa: BLE001 (one stream must not end for good)
                self._failed(worker, f"unexpected {type(error).__name__}")
            else:
                if not sent:
                    await worker.news.wait()
                continue
            seconds, worker.pause = worker.pause, min(2 * worker.pause, LONGEST_PAUSE)
            await self._rest(worker, seconds)

    async def _rest(self, worker: _Worker, seconds: float) -> None:
        """Pause, or until somebody asks whether the stream works by now."""
        asked = self._streams.verifying(worker.stream_id)
        pause = asyncio.ensure_future(self._pause(seconds))
        try:
            while not pause.done() and self._streams.verifying(worker.stream_id) == asked:
                worker.news.clear()
                news = asyncio.ensure_future(worker.news.wait())
                try:
                    await asyncio.wait({pause, news}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
        finally:
            pause.cancel()

    async def _push(self, worker: _Worker) -> bool:
        """Send what is due, oldest first; whether there was anything."""
        stream = self._streams.one(worker.stream_id)
        if stream is None or stream.endpoint_url is None:
            return False
        events, _ = self._streams.due(stream, AT_ONCE)
        if not events:
            return False
        async with connected(stream.endpoint_url, self._trust()) as way:
            for event in events:
                try:
                    await way.post(self._streams.signed(event))
                except EventRefused as error:
                    done = self._streams.refused(stream, event, str(error))
                else:
                    done = self._streams.accept(stream, [event.jti])
                worker.pause = FIRST_PAUSE
                if done is not None:
                    await asyncio.wrap_future(done)
        return True

    def _trust(self) -> ssl.SSLContext:
        """For all receivers; to read the system's CAs for each would cost a fact its speed."""
        now, identity = asyncio.get_running_loop().time(), self.identity
        made = self._trusted
        if made is None or made.identity is not identity or now - made.at > READ_AGAIN:
            made = self._trusted = _Trusted(trust(self._ca_file, identity), identity, now)
        return made.context

    def _failed(self, worker: _Worker, reason: str) -> None:
        with suppress(Exception):
            stream = self._streams.one(worker.stream_id)
            if stream is not None:
                self._streams.failed(stream, reason)
                _log.warning(
                    "security event not pushed",
                    stream=stream.name,
                    reason=reason,
                    next_attempt_seconds=worker.pause,
                )

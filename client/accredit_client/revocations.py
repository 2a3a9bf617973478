"""The revocation feed, followed: what a verifier knows of revocation, never older than it says.

Opens the issuer's stream, verifies every statement with the bundle of the moment, and applies it
to a ``FeedState``. A gap is closed with a new snapshot; a stream that ends or falls silent is
opened again after a pause. A statement that speaks of a newer bundle, or that an unknown key
signed, makes whoever holds the bundle ask for it (``ask``). What was applied is acknowledged to our
own issuer (``confirming``). Nothing here decides how old is too old: whoever checks says so, and
refuses when the feed has been gone for longer (``FeedState.check``).
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from accredit_client import calls, renewal
from accredit_client.call import Call
from accredit_client.confirming import (
    EVENT,
    Acknowledgement,
    Said,
    TaskConfirmer,
    ThreadConfirmer,
)
from accredit_client.effects import (
    AsyncWaiter,
    Clock,
    Draw,
    TaskWaiter,
    ThreadWaiter,
    Waiter,
    system_draw,
    utc_now,
)
from accredit_client.errors import Closed, IssuerUnreachable, NotReady
from accredit_client.feed_budget import FOREIGN_STATEMENT_LIMIT, FeedBudget
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import UnknownAuthority
from accredit_credentials.revocation import RevocationFact
from accredit_credentials.revocation_feed import FeedState, Gap, Statement, verify

if TYPE_CHECKING:
    from accredit_client.wire import AsyncIssuer, Issuer, Line

MAX_STALENESS = 30.0  # seconds
SILENCE = 30.0  # seconds without a heartbeat after which a stream counts as lost
MAX_FOREIGN_FACTS = 10_000  # in force at once in another trust domain; beyond it it is stale
LARGE = 64 * 1024  # characters of a statement that an event loop should not wait for
# What a fact of another trust domain may hold: an issuing CA of 60 days, and half of it for the
# longest SVID below it. Agents' and admins' SVIDs live a day at most.
MAX_FOREIGN_LIFE = timedelta(days=90)
CLOSING = 5.0  # seconds that a feed's thread or task gets to end
LEAVING = 2.0  # seconds that all feeds of others together get to end

Ask = Callable[[int | None], object]
"""Told that the issuer's bundle has this sequence number, or None: that a key is missing in ours.
Returns at once, and bounds how often it does something about it."""
OnFacts = Callable[[tuple[RevocationFact, ...]], None]


def once_a_bundle(ask: Callable[[], object]) -> Ask:
    """For a feed of another trust domain, whose bundle comes by way of our issuer.

    It may lag behind what their feed speaks of: asked for once for each version, not at each
    heartbeat.
    """
    told = 0

    def tell(sequence: int | None) -> None:
        nonlocal told
        if sequence is None or sequence > told:
            told = max(told, sequence or 0)
            ask()

    return tell


class _Follower:
    """What both feeds share: what to ask for, and what to make of what comes."""

    def __init__(
        self,
        bundle: Callable[[], TrustBundle],
        *,
        clock: Clock,
        draw: Draw,
        ask: Ask | None,
        max_facts: int | None,
        max_life: timedelta | None,
    ) -> None:
        self.state = FeedState(max_facts=max_facts, max_life=max_life)
        self.last_error: Exception | None = None
        self.news: tuple[RevocationFact, ...] = ()
        """What the last statement told that was not known before."""
        self._bundle = bundle
        self._clock = clock
        self._draw = draw
        self._ask = ask
        self._failures = 0
        self._from_start = False
        self._said = Said()
        # Only of another trust domain the facts are bounded; its bytes are then too.
        self._budget = None if max_facts is None else FeedBudget()

    def call(self) -> Call[bytes]:
        """The stream to open."""
        after = 0 if self._from_start else self.state.next
        if self._budget is not None:
            return calls.revocation_stream(after=after, limit=FOREIGN_STATEMENT_LIMIT)
        return calls.revocation_stream(after=after)

    def take(self, event: str, data: str) -> bool:
        """Take in one event; says whether it brought knowledge.

        Raises:
            CredentialError: it is not a statement that continues what is known.
            TooMuch: another trust domain sent more than is looked at.
        """
        if not self._admits(event, data):
            return False
        bundle = self._bundle()
        with self._judging():
            self._apply(verify(data, bundle=bundle), bundle)
        return True

    async def take_beside(self, event: str, data: str) -> bool:
        """As ``take``; what is large is verified in a thread, beside the event loop."""
        if not self._admits(event, data):
            return False
        bundle = self._bundle()
        with self._judging():
            if len(data) > LARGE:
                statement = await asyncio.to_thread(verify, data, bundle=bundle)
            else:
                statement = verify(data, bundle=bundle)
            self._apply(statement, bundle)
        return True

    def _admits(self, event: str, data: str) -> bool:
        """Whether an event is a statement; it is paid for in either case."""
        if self._budget is not None:
            self._budget.spend(len(data), self._clock())
        if event == EVENT:
            self._said.begin(data)
        return event == "statement"  # the issuer may say more than we understand, beside these

    @contextmanager
    def _judging(self) -> Iterator[None]:
        try:
            yield
        except Gap:
            self._from_start = True
            raise
        except UnknownAuthority:
            # The stream is opened again after the pause, with the bundle that has come by then.
            if self._ask is not None:
                self._ask(None)
            raise

    def _apply(self, statement: Statement, bundle: TrustBundle) -> None:
        self.news = self.state.apply(statement, now=self._clock())
        if self._ask is not None and (statement.bundle or 0) > (bundle.sequence or 0):
            self._ask(statement.bundle)
        self._from_start = False
        self._failures = 0
        self.last_error = None

    def acknowledgement(self) -> Acknowledgement | None:
        """What to tell the issuer now that a statement was applied."""
        as_of = self.state.as_of
        return None if as_of is None else self._said.next(self.state.through, as_of)

    def failed(self, error: Exception) -> float:
        """Take note that the stream was lost; returns the seconds until the next try."""
        self._said.end()
        self.last_error = error
        self._failures += 1
        pause = renewal.pause_after(self._failures, draw=self._draw)
        refill = 0.0 if self._budget is None else self._budget.seconds_until(self._clock())
        return max(pause, refill)

    def fresh(self, max_age: float) -> bool:
        """Whether the newest statement is at most so old."""
        as_of = self.state.as_of
        return as_of is not None and self._clock() - as_of <= timedelta(seconds=max_age)


class RevocationFeed:
    """The feed in one thread. A context manager: the thread ends with the block.

    Args:
        issuer: where the stream is; a public call, so no identity is needed.
        bundle: gives the bundle of the moment.
        clock: the time.
        waiter: how to wait between tries.
        draw: for the jitter.
        ask: told that a newer bundle is wanted; an identity's feed tells the identity.
        max_facts: how many may be in force, see ``FeedState``; for a feed of another trust domain,
            of which no more is looked at than ``feed_budget`` says.
        max_life: how long one may hold; see ``FeedState``.
        confirm_at: the issuer as who acknowledges what was applied, by its SVID or as nobody; None
            acknowledges nothing, as towards another trust domain.
    """

    def __init__(
        self,
        issuer: "Issuer",
        bundle: Callable[[], TrustBundle],
        *,
        clock: Clock = utc_now,
        waiter: Waiter | None = None,
        draw: Draw = system_draw,
        ask: Ask | None = None,
        confirm_at: "Issuer | None" = None,
        max_facts: int | None = None,
        max_life: timedelta | None = None,
    ) -> None:
        self._issuer = issuer
        self._follower = _Follower(
            bundle, clock=clock, draw=draw, ask=ask, max_facts=max_facts, max_life=max_life
        )
        self._confirmer = None if confirm_at is None else ThreadConfirmer(confirm_at)
        self._waiter = waiter or ThreadWaiter()
        self._changed = threading.Condition()
        self._line: Line | None = None
        self._thread: threading.Thread | None = None
        self._closing = False

    @property
    def state(self) -> FeedState:
        """What is known."""
        return self._follower.state

    @property
    def last_error(self) -> Exception | None:
        """Why the stream was lost last; None while it flows."""
        return self._follower.last_error

    def start(self) -> None:
        """Begin to follow.

        Raises:
            Closed: it was closed.
        """
        if self._closing:
            raise Closed("the revocation feed was closed")
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="accredit-revocations", daemon=True
            )
            self._thread.start()

    def wait_fresh(self, timeout: float, *, max_age: float = MAX_STALENESS) -> None:
        """Wait until the newest statement is at most ``max_age`` seconds old.

        Raises:
            NotReady: it was not so in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._follower.fresh(max_age), timeout):
                raise NotReady(
                    f"no fresh revocation statement within {timeout:g} seconds"
                ) from self.last_error

    def stop(self) -> None:
        """Stop following; cuts the connection and waits for nothing."""
        self._closing = True
        self._waiter.wake()
        if self._confirmer is not None:
            self._confirmer.stop()
        line = self._line
        if line is not None:
            line.cut()

    def close(self, timeout: float = CLOSING) -> bool:
        """Stop following and join the thread; says whether it has ended.

        Nothing that the other side does keeps it longer than the name service and TCP do; then it
        ends by itself.
        """
        self.stop()
        if self._confirmer is not None:
            self._confirmer.close()
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._closing:
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001 (a dead thread would be noticed too late)
                pause = self._follower.failed(error)
                if not self._closing:
                    self._waiter.wait(pause)

    def _follow(self) -> None:
        from accredit_client.wire import Line  # noqa: PLC0415 (httpx2 is slow to import)

        self._line = line = Line()
        if self._closing:  # ``stop`` came before there was a line to cut
            return
        with self._issuer.stream(self._follower.call(), line) as events:
            for event, data in events:
                if self._follower.take(event, data):
                    with self._changed:
                        self._changed.notify_all()
                    word = self._follower.acknowledgement()
                    if word is not None and self._confirmer is not None:
                        self._confirmer.say(word)
        raise IssuerUnreachable("the issuer ended the revocation stream")


class AsyncRevocationFeed:
    """The feed in one asyncio task. As ``RevocationFeed``, with ``await``."""

    def __init__(
        self,
        issuer: "AsyncIssuer",
        bundle: Callable[[], TrustBundle],
        *,
        clock: Clock = utc_now,
        waiter: AsyncWaiter | None = None,
        draw: Draw = system_draw,
        ask: Ask | None = None,
        confirm_at: "AsyncIssuer | None" = None,
        max_facts: int | None = None,
        max_life: timedelta | None = None,
    ) -> None:
        self._issuer = issuer
        self._follower = _Follower(
            bundle, clock=clock, draw=draw, ask=ask, max_facts=max_facts, max_life=max_life
        )
        self._confirmer = None if confirm_at is None else TaskConfirmer(confirm_at)
        self._waiter = waiter or TaskWaiter()
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[Any] | None = None
        self._listeners: list[OnFacts] = []

    def listen(self, told: OnFacts) -> None:
        """Call ``told`` after each statement, with the facts in it that were not known before."""
        self._listeners.append(told)

    @property
    def state(self) -> FeedState:
        """What is known."""
        return self._follower.state

    @property
    def last_error(self) -> Exception | None:
        """Why the stream was lost last; None while it flows."""
        return self._follower.last_error

    def start(self) -> None:
        """Begin to follow."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="accredit-revocations")

    async def wait_fresh(self, timeout: float, *, max_age: float = MAX_STALENESS) -> None:  # noqa: ASYNC109 (as in the threaded twin)
        """Wait until the newest statement is at most ``max_age`` seconds old.

        Raises:
            NotReady: it was not so in time.
        """
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: self._follower.fresh(max_age))
        except TimeoutError:
            raise NotReady(
                f"no fresh revocation statement within {timeout:g} seconds"
            ) from self.last_error

    async def aclose(self, timeout: float = CLOSING) -> bool:  # noqa: ASYNC109 (as in the threaded twin)
        """Stop following and await the task's end; says whether it has ended.

        One that has not, because the other side keeps its connection from closing, ends by itself
        or with the event loop.
        """
        if self._confirmer is not None:
            await self._confirmer.aclose()
        task = self._task
        if task is None:
            return True
        task.cancel()
        # Not awaited itself: whoever cancels us is not to be mistaken for its end.
        await asyncio.wait({task}, timeout=timeout)
        if task.done():
            self._task = None
        return task.done()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except Exception as error:  # noqa: BLE001 (a dead task would be noticed too late)
                await self._waiter.wait(self._follower.failed(error))

    async def _follow(self) -> None:
        async with self._issuer.stream(self._follower.call()) as events:
            async for event, data in events:
                if await self._follower.take_beside(event, data):
                    for told in self._listeners:
                        told(self._follower.news)
                    async with self._changed:
                        self._changed.notify_all()
                    word = self._follower.acknowledgement()
                    if word is not None and self._confirmer is not None:
                        self._confirmer.say(word)
        raise IssuerUnreachable("the issuer ended the revocation stream")

"""Which verifiers listen to the feed, and up to which fact each says that it applies them.

A stream begins with an id that nobody else knows; whoever shows it again says how far it has come.
That word is about its own verifier and decides nothing: it is kept in memory, for whoever has to
know whom a fact has not reached. A verifier is *named* where it said so with an SVID, *unnamed*
where it only ever said so, and a stream that never said anything is *silent*: nobody can tell what
is at its end, and nobody waits for it.

Streams, acknowledgements and whoever asks are on the event loop; facts come from the writing
thread. Times are of a clock that nobody sets: from the commit to the acknowledgement.
"""

import asyncio
import hashlib
import secrets
import threading
from bisect import bisect_right
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from heapq import nsmallest
from typing import NamedTuple

from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.revocation.waiting import Waiting

MAX_LISTENERS = 10_000  # as many as there may be connections; further streams are not counted
MAX_COMMITS = 256  # the newest, whose acknowledgements are timed
MAX_GONE = 1000
MAX_MISSING = 100  # that are told by name
GONE_FOR = 60.0  # seconds: twice the time after which our own verifiers refuse everything
SETTLING = 0.02  # seconds between two looks while a thousand acknowledgements come in
ID_BYTES = 16


class Verifier(NamedTuple):
    """Who acknowledges: two processes of one agent are two verifiers."""

    spiffe_id: str
    instance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a named verifier has come.

    Attributes:
        through: the newest fact that it said it applies, on the slowest of its streams.
        silent: seconds since it said anything.
        behind: seconds since the commit of the first fact that it has not confirmed: 0 where it has
            confirmed all, None where that is too long ago to be known.
        gone: whether none of its streams is open any more.
    """

    verifier: Verifier
    through: int
    silent: float
    behind: float | None
    gone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many listen, how many of them confirmed, and the seconds that the slowest took."""

    listening: int
    confirmed: int
    slowest: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmations:
    """Who confirmed one fact.

    Attributes:
        through: its sequence number.
        elapsed: seconds since its commit; None where that is too long ago to be known.
        missing: named verifiers that listen and have not confirmed it, those farthest behind.
        gone: named verifiers that left shortly before, or since, without having confirmed it.
        silent: streams that never acknowledged anything.
    """

    through: int
    elapsed: float | None
    named: Tally
    unnamed: Tally
    missing: tuple[Position, ...]
    gone: tuple[Position, ...]
    silent: int

    @property
    def complete(self) -> bool:
        """Whether everybody confirmed it of whom that can be expected."""
        return all(each.confirmed == each.listening for each in (self.named, self.unnamed))


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners:
    """Everybody who listens now, and who left a moment ago; those farthest behind first."""

    named: tuple[Position, ...]
    unnamed: int
    silent: int


@dataclass(slots=True)
class _Listener:
    opened_at: float
    verifier: Verifier | None = None
    through: int | None = None
    heard_at: float = 0.0


@dataclass(slots=True)
class _Commit:
    through: int
    at: float
    slowest_named: float | None = None
    slowest_unnamed: float | None = None


@dataclass(frozen=True, slots=True)
class _Gone:
    at: float
    through: int
    heard_at: float


@dataclass(frozen=True, slots=True)
class _Seen:
    """One moment, to be looked at while acknowledgements go on coming in."""

    now: float
    newest: int
    kept_after: int
    commits: list[tuple[int, float]]
    heard: list[tuple[Verifier | None, int, float]]
    gone: list[tuple[Verifier, _Gone]]
    silent: int

    def named(self) -> dict[Verifier, tuple[int, float]]:
        """By verifier: up to which fact, by the slowest of its streams, and heard when."""
        found: dict[Verifier, tuple[int, float]] = {}
        for verifier, through, heard_at in self.heard:
            if verifier is None:
                continue
            known = found.get(verifier)
            if known is not None:
                through, heard_at = min(through, known[0]), max(heard_at, known[1])  # noqa: PLW2901
            found[verifier] = through, heard_at
        return found

    def unnamed(self) -> list[int]:
        """Up to which fact those have come that have no name."""
        return [through for verifier, through, _ in self.heard if verifier is None]

    def recently_gone(self, moment: float) -> list[Position]:
        """Who left not long before this moment, or since."""
        return [
            self.position(verifier, each.through, each.heard_at, gone=True)
            for verifier, each in self.gone
            if each.at > moment - GONE_FOR
        ]

    def position(
        self, verifier: Verifier, through: int, heard_at: float, *, gone: bool = False
    ) -> Position:
        """Where a verifier stands."""
        behind: float | None = 0.0
        if through < self.kept_after:
            behind = None
        elif through < self.newest:
            missed = bisect_right(self.commits, through, key=lambda each: each[0])
            behind = self.now - self.commits[missed][1]
        silent = self.now - heard_at
        return Position(verifier=verifier, through=through, silent=silent, behind=behind, gone=gone)


class Audience:
    """Who listens, and how far each has come."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        # By the digest of the id: how long a look-up takes tells nothing about the id itself.
        self._listeners: dict[bytes, _Listener] = {}
        self._streams: Counter[Verifier] = Counter()
        self._gone: OrderedDict[Verifier, _Gone] = OrderedDict()
        self._commits: deque[_Commit] = deque(maxlen=MAX_COMMITS)
        self._newest = 0
        self._kept_after = 0  # every commit after this fact is kept
        self._changed = Waiting()
        self._closed = False

    def load(self, through: int) -> None:
        """Take up the newest sequence number that the database holds."""
        self._newest = self._kept_after = through

    def stated(self, through: int) -> None:
        """Facts up to this one are durable and in force. Called on the writing thread."""
        with self._lock:
            if len(self._commits) == MAX_COMMITS:
                self._kept_after = self._commits[0].through
            self._newest = through
            self._commits.append(_Commit(through, self._monotonic()))

    def close(self) -> None:
        """Keep nobody waiting any more; ``wake`` follows on the event loop."""
        self._closed = True

    def wake(self) -> None:
        """Let everybody look again who waits. Called on the event loop."""
        self._changed.wake()

    @contextmanager
    def listening(self) -> Iterator[str]:
        """A stream is open for the length of the block; gives the id for its acknowledgements."""
        listener_id = secrets.token_urlsafe(ID_BYTES)
        listener = _Listener(self._monotonic())
        with self._lock:
            if len(self._listeners) < MAX_LISTENERS:
                self._listeners[_key(listener_id)] = listener
        try:
            yield listener_id
        finally:
            self._left(listener_id)

    def acknowledge(self, listener_id: str, through: int, verifier: Verifier | None) -> None:
        """A listener says that it applies the facts up to ``through``.

        Raises:
            Refusal: no open stream has this id, or the number cannot be.
        """
        with self._lock:
            listener = self._listeners.get(_key(listener_id))
            if listener is None:
                raise Refusal(Kind.NOT_FOUND, "no open stream has this listener id")
            if through > self._newest:
                raise Refusal(
                    Kind.CONFLICT,
                    f"{through} facts are known to you, the issuer knows {self._newest}",
                )
            if listener.through is not None and through < listener.through:
                raise Refusal(Kind.CONFLICT, f"fact {listener.through} was acknowledged already")
            if verifier is not None and verifier != listener.verifier:
                # Also another than before: whoever attests anew is another instance, and its stream
                # goes on. Nobody else knows the id.
                self._forget_name(listener)
                listener.verifier = verifier
                self._streams[verifier] += 1
                self._gone.pop(verifier, None)
            self._time(listener, through)
            listener.through = through
        self._changed.wake()

    def confirmations(self, through: int) -> Confirmations:
        """Who confirmed the facts up to ``through`` so far."""
        with self._lock:
            seen, commit = self._seen(), self._commit_of(through)
        named, unnamed = seen.named(), seen.unnamed()
        missing = [
            (reached, verifier, heard_at)
            for verifier, (reached, heard_at) in named.items()
            if reached < through
        ]
        gone = seen.recently_gone(seen.now if commit is None else commit.at)
        return Confirmations(
            through=through,
            elapsed=None if commit is None else seen.now - commit.at,
            named=Tally(
                listening=len(named),
                confirmed=len(named) - len(missing),
                slowest=None if commit is None else commit.slowest_named,
            ),
            unnamed=Tally(
                listening=len(unnamed),
                confirmed=sum(1 for reached in unnamed if reached >= through),
                slowest=None if commit is None else commit.slowest_unnamed,
            ),
            missing=tuple(
                seen.position(verifier, reached, heard_at)
                for reached, verifier, heard_at in nsmallest(MAX_MISSING, missing)
            ),
            gone=tuple(each for each in gone if each.through < through),
            silent=seen.silent,
        )

    async def followed(self, through: int, seconds: float) -> Confirmations:
        """As ``confirmations``, once it is complete or so much time has passed."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while True:
            began = loop.time()
            found = self.confirmations(through)
            now = loop.time()
            if found.complete or now >= until or self._closed:
                return found
            await self._changed.wait(until - now)
            # Whoever looks takes a tenth of the event loop at most, however many listen.
            await asyncio.sleep(min(max(SETTLING, 10 * (now - began)), max(0.0, until - now)))

    def listeners(self) -> Listeners:
        """Everybody."""
        with self._lock:
            seen = self._seen()
        here = [seen.position(who, *reached) for who, reached in seen.named().items()]
        named = [*here, *seen.recently_gone(seen.now)]
        return Listeners(
            named=tuple(sorted(named, key=lambda each: (each.through, each.verifier))),
            unnamed=len(seen.unnamed()),
            silent=seen.silent,
        )

    def _seen(self) -> _Seen:
        heard = [
            (each.verifier, each.through, each.heard_at)
            for each in self._listeners.values()
            if each.through is not None
        ]
        return _Seen(
            self._monotonic(),
            self._newest,
            self._kept_after,
            [(each.through, each.at) for each in self._commits],
            heard,
            list(self._gone.items()),
            len(self._listeners) - len(heard),
        )

    def _commit_of(self, through: int) -> _Commit | None:
        """The commit that brought a fact, while it is kept; a copy."""
        if through <= self._kept_after:
            return None
        return next((replace(each) for each in self._commits if each.through >= through), None)

    def _time(self, listener: _Listener, through: int) -> None:
        now = self._monotonic()
        listener.heard_at = now
        before = -1 if listener.through is None else listener.through
        for commit in reversed(self._commits):
            # What was stated before the stream began came with its first statement.
            if commit.through <= before or commit.at < listener.opened_at:
                break
            if commit.through > through:
                continue
            took = now - commit.at
            if listener.verifier is not None:
                commit.slowest_named = max(took, commit.slowest_named or 0.0)
            else:
                commit.slowest_unnamed = max(took, commit.slowest_unnamed or 0.0)

    def _left(self, listener_id: str) -> None:
        with self._lock:
            listener = self._listeners.pop(_key(listener_id), None)
            if listener is not None and (verifier := self._forget_name(listener)) is not None:
                self._gone[verifier] = _Gone(
                    self._monotonic(), listener.through or 0, listener.heard_at
                )
                while len(self._gone) > MAX_GONE:
                    self._gone.popitem(last=False)
        self._changed.wake()

    def _forget_name(self, listener: _Listener) -> Verifier | None:
        """Take a stream from its verifier; returns the verifier if that was its last."""
        verifier, listener.verifier = listener.verifier, None
        if verifier is None:
            return None
        self._streams[verifier] -= 1
        if self._streams[verifier]:
            return None
        del self._streams[verifier]
        return verifier


def _key(listener_id: str) -> bytes:
    return hashlib.sha256(listener_id.encode()).digest()

"""The revocation feed: signed statements of the facts, for whoever asks and whoever listens.

Requests and listeners live on the event loop; facts arrive from the writing thread. One signature
serves all who ask for the same thing: a thousand verifiers cost as much as one.

A number alone does not say which fact is meant: an issuer that was restored from an old backup
gives numbers again. So each statement has a word for the fact that it continues and for its newest
one, and who heard of another asks for everything.
"""

import asyncio
import hashlib
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Self

from accredit_credentials.revocation import EXPANDED, FactSet, RevocationFact
from accredit_credentials.revocation_feed import Statement, sign
from accredit_credentials.spiffe_id import TrustDomain
from accredit_issuer.authority.authorities import Authorities
from accredit_issuer.clock import Clock
from accredit_issuer.clock_guard import Steady, steady_clock
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.revocation.confirmations import Audience
from accredit_issuer.revocation.waiting import Waiting

MAX_BACKLOG = 1000  # facts; more of them come as a snapshot
MAX_CACHED = 1024
MAX_CACHED_CHARACTERS = 32 * 1024 * 1024  # anybody may ask for any number of long statements


@dataclass(frozen=True, slots=True)
class _Known:
    """What is told: one value, so that who reads it meanwhile never has halves of two."""

    facts: tuple[RevocationFact, ...] = ()
    through: int = 0
    words: Mapping[int, str] = field(default_factory=dict)  # of the newest facts, by number

    def with_facts(
        self, new: Sequence[RevocationFact], *, carried: Iterable[RevocationFact]
    ) -> Self:
        """With more facts, in order, of which ``carried`` are told."""
        words = dict(self.words)
        words.update((fact.sequence, _word(fact)) for fact in new[-MAX_BACKLOG - 1 :])
        for old in list(words)[: -MAX_BACKLOG - 1]:
            del words[old]
        through = max([self.through, *(fact.sequence for fact in new)])
        return replace(self, facts=(*self.facts, *carried), through=through, words=words)


@dataclass(frozen=True, slots=True)
class _Signed:
    as_of: datetime
    through: int
    bundle: int
    authority: str
    text: str


class Feed:
    """The facts that some living credential may match, and their signed statements."""

    def __init__(
        self,
        trust_domain: TrustDomain,
        authorities: Authorities,
        clock: Clock,
        heartbeat: float,
        *,
        steady: Steady = steady_clock,
    ) -> None:
        self._trust_domain = trust_domain
        self._authorities = authorities
        self._clock = clock
        self._heartbeat = heartbeat
        self._known = _Known()
        self._signed: dict[int, _Signed] = {}
        self._signed_characters = 0
        self._waiting = Waiting()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._heeding: list[Callable[[], None]] = []
        self.listeners = 0
        self.audience = Audience(steady)

    @property
    def through(self) -> int:
        """The newest sequence number."""
        return self._known.through

    @property
    def facts(self) -> tuple[RevocationFact, ...]:
        """The facts in force, in order."""
        return self._known.facts

    def load(self, facts: Sequence[RevocationFact], now: datetime) -> None:
        """Take up all facts that the database holds, in order; told are those in force."""
        carried = _carried(fact for fact in facts if fact.expires_at > now)
        self._known = _Known().with_facts(facts, carried=carried)
        self.audience.load(self._known.through)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve listeners on this loop."""
        self._loop = loop

    def publish(self, facts: Iterable[RevocationFact]) -> None:
        """Tell new facts, once they are durable. Called on the writing thread."""
        new = list(facts)
        self._known = self._known.with_facts(new, carried=_carried(new))
        self.audience.stated(self._known.through)
        self._wake_listeners()
        for call in self._heeding:
            call()

    def heed(self, call: Callable[[], None]) -> None:
        """Call this on the writing thread once new facts are durable and can be asked for."""
        self._heeding.append(call)

    def bundle_changed(self) -> None:
        """Tell that there is another trust bundle. Called on any thread."""
        self._wake_listeners()

    def drop_expired(self, now: datetime) -> int:
        """Forget facts that nothing living can match; returns how many.

        Called on the writing thread, as ``publish``: a fact that came in between would be lost.
        """
        known = self._known
        kept = tuple(fact for fact in known.facts if fact.expires_at > now)
        self._known = replace(known, facts=kept)
        return len(known.facts) - len(kept)

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        self.audience.close()
        self._wake_listeners()
        self._call_soon(self.audience.wake)

    def statement(self, after: int) -> str:
        """A signed statement of the facts after a sequence number; 0 is a snapshot.

        Raises:
            Refusal: no fact has come so far.
        """
        return self._statement(after).text

    async def follow(self, after: int) -> AsyncIterator[str]:
        """Statements without end: at once, at each new fact or bundle, and as heartbeat."""
        self.listeners += 1
        try:
            while not self._closed:
                wakes = self._waiting.wakes
                signed = self._statement(after)
                yield signed.text
                after = signed.through
                # What came while the statement was on its way is told at once.
                if self._known.through == after and self._waiting.wakes == wakes:
                    await self._waiting.wait(self._heartbeat)
        finally:
            self.listeners -= 1

    def check_known(self, after: int) -> None:
        """Decide whether a fact of this sequence number can be known to somebody.

        Raises:
            Refusal: no fact has come so far.
        """
        through = self._known.through
        if after > through:
            raise Refusal(
                Kind.CONFLICT, f"{after} facts are known to you, the issuer knows {through}"
            )

    def _statement(self, after: int) -> _Signed:
        self.check_known(after)
        now = self._clock()
        bundle = self._authorities.now_in_force.sequence
        key, kid = self._authorities.jwt_signer()
        known, kept = self._known, self._signed.get(after)
        fresh = timedelta(seconds=self._heartbeat / 4)
        if (
            kept is not None
            and kept.through == known.through
            and kept.bundle == bundle
            and kept.authority == kid
            and timedelta(0) <= now - kept.as_of < fresh
        ):
            return kept
        begin, told = _told(known, after)
        statement = Statement(
            trust_domain=self._trust_domain,
            after=begin,
            through=known.through,
            as_of=now,
            facts=told,
            bundle=bundle,
            continues=known.words.get(begin),
            newest=known.words.get(known.through),
        )
        signed = _Signed(now, known.through, bundle, kid, sign(statement, key, kid))
        self._remember(after, signed)
        return signed

    def _remember(self, after: int, signed: _Signed) -> None:
        if replaced := self._signed.pop(after, None):
            self._signed_characters -= len(replaced.text)
        if (
            len(self._signed) >= MAX_CACHED
            or self._signed_characters + len(signed.text) > MAX_CACHED_CHARACTERS
        ):
            self._signed.clear()
            self._signed_characters = 0
        self._signed[after] = signed
        self._signed_characters += len(signed.text)

    def _wake_listeners(self) -> None:
        self._call_soon(self._waiting.wake)

    def _call_soon(self, call: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)


def _told(known: _Known, after: int) -> tuple[int, tuple[RevocationFact, ...]]:
    """What to tell somebody who knows the facts up to ``after``, and what that continues.

    A snapshot is what is in force: a suspension that was ended is not in it, however often it was
    stated. Who is far behind gets one as well.
    """
    if after in known.words:
        start = bisect_right(known.facts, after, key=lambda fact: fact.sequence)
        return after, known.facts[start:]
    return 0, tuple(FactSet(known.facts))


def _word(fact: RevocationFact) -> str:
    # Of the moment, which no two facts of one number have in common: what a fact is about may be
    # nobody's business (``_carried``), and whoever knows a digest of it can try names.
    said = f"{fact.sequence} {fact.at.astimezone(UTC).isoformat(timespec='microseconds')}"
    return hashlib.sha256(said.encode("ascii")).hexdigest()[:16]


def _carried(facts: Iterable[RevocationFact]) -> list[RevocationFact]:
    # Facts about a signer or an owner were expanded into others. The feed is public, and who
    # answers for what is not.
    return [fact for fact in facts if fact.target.kind not in EXPANDED]

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
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypedDict

from accredit_credentials.revocation import EXPANDED, FactSet, RevocationFact
from accredit_credentials.revocation_feed import Statement, sign
from accredit_credentials.spiffe_id import TrustDomain
from accredit_issuer.authority.authorities import Authorities
from accredit_issuer.clock import Clock
from accredit_issuer.clock_guard import Steady, steady_clock
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.revocation import pages
from accredit_issuer.revocation.confirmations import Audience
from accredit_issuer.revocation.waiting import Waiting

MAX_BACKLOG = 1000  # facts; more of them come as a snapshot, or in pages
MAX_CACHED = 1024
MAX_CACHED_CHARACTERS = 32 * 1024 * 1024  # anybody may ask for any number of long statements


class _Known(NamedTuple):
    """What changes together: all facts, the newest number, and what those forgotten ended by.

    ``words`` say which facts the newest numbers are, of those that are not told as well.
    """

    facts: list[RevocationFact]
    through: int
    words: Mapping[int, str]
    forgotten: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Signed:
    as_of: datetime
    through: int
    more: bool
    bundle: int
    authority: str
    text: str


class _Told(TypedDict):
    """What a statement says of facts."""

    after: int
    through: int
    facts: tuple[RevocationFact, ...]
    more: bool
    continues: str | None
    newest: str | None


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
        self._known = _Known([], 0, {})
        self._in_force = FactSet()  # of the facts up to this number, for snapshots
        self._in_force_through = 0
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
        return tuple(self._known.facts)

    def load(
        self,
        facts: Iterable[RevocationFact],
        through: int,
        *,
        newest: Sequence[RevocationFact] = (),
    ) -> None:
        """Take up the facts that the database holds; ``newest`` are its last ones, over or not."""
        self._known = _Known(_carried(facts), through, _with_words({}, newest))
        self.audience.load(through)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve listeners on this loop."""
        self._loop = loop

    def publish(self, facts: Iterable[RevocationFact]) -> None:
        """Tell new facts, once they are durable. Called on the writing thread."""
        new = list(facts)
        facts, through, words, forgotten = self._known
        through = max([through, *(fact.sequence for fact in new)])
        words = _with_words(words, new)
        self._known = _Known([*facts, *_carried(new)], through, words, forgotten)
        self.audience.stated(through)
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
        facts, through, words, _ = self._known
        kept = [fact for fact in facts if fact.expires_at > now]
        self._known = _Known(kept, through, words, now)
        return len(facts) - len(kept)

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        self.audience.close()
        self._wake_listeners()
        self._call_soon(self.audience.wake)

    def statement(self, after: int) -> str:
        """A signed statement of the facts after a sequence number; 0 is a snapshot.

        Where it says that there are more, it ends before the newest fact, and what it ends with is
        to be asked for next.

        Raises:
            Refusal: no fact has come so far.
        """
        return self._statement(after).text

    async def awaited(self, after: int, seconds: float) -> str:
        """As ``statement``; where nothing came after ``after``, once something has.

        It is answered after so many seconds at the latest, and where a stream's heartbeat would be.

        Raises:
            Refusal: no fact has come so far.
        """
        self.check_known(after)
        if self.through == after and not self._closed:
            await self._waiting.wait(min(seconds, self._heartbeat))
        return self.statement(after)

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
        if after > self.through:
            raise Refusal(
                Kind.CONFLICT, f"{after} facts are known to you, the issuer knows {self.through}"
            )

    def _statement(self, after: int) -> _Signed:
        self.check_known(after)
        now = self._clock()
        bundle = self._authorities.now_in_force.sequence
        key, kid = self._authorities.jwt_signer()
        known = self._signed.get(after)
        fresh = timedelta(seconds=self._heartbeat / 4)
        if (
            known is not None
            and (known.more or known.through == self.through)
            and known.bundle == bundle
            and known.authority == kid
            and timedelta(0) <= now - known.as_of < fresh
        ):
            return known
        statement = Statement(
            trust_domain=self._trust_domain,
            **self._told(after),
            as_of=now,
            bundle=bundle,
        )
        signed = _Signed(
            as_of=now,
            through=statement.through,
            more=statement.more,
            bundle=bundle,
            authority=kid,
            text=sign(statement, key, kid),
        )
        self._remember(after, signed)
        return signed

    def _told(self, after: int) -> _Told:
        """What to tell somebody who knows the facts up to ``after``.

        A snapshot is what is in force: a suspension that was ended is not in it, however often it
        was stated. Who is far behind gets one as well, in pages where that is too much for one
        statement; who shows the end of a page gets the next.
        """
        facts, through, words, _ = self._known
        newest = words.get(through)
        start = bisect_right(facts, after, key=_sequence)
        near = after in words and len(facts) - start <= MAX_BACKLOG
        if near and pages.fit(facts[start:]):
            return _Told(
                after=after,
                through=through,
                facts=tuple(facts[start:]),
                more=False,
                continues=words[after],
                newest=newest,
            )
        if after == 0 or not pages.ends_page(after):
            in_force = self._snapshot()
            if in_force is not None:
                return _Told(
                    after=0,
                    through=through,
                    facts=in_force,
                    more=False,
                    continues=None,
                    newest=newest,
                )
            after = start = 0
        end, last = pages.page(facts, start)
        return _Told(
            after=after,
            through=through if last is None else last,
            facts=tuple(facts[start:end]),
            more=last is not None,
            continues=words.get(after),
            newest=newest if last is None else words.get(last),
        )

    def _snapshot(self) -> tuple[RevocationFact, ...] | None:
        """What is in force of the facts that are known now; None is too much for a statement."""
        facts, through, _, forgotten = self._known
        for fact in facts[bisect_right(facts, self._in_force_through, key=_sequence) :]:
            self._in_force.apply(fact)
        self._in_force_through = through
        if forgotten is not None:
            self._in_force.drop_expired(forgotten)
        if len(self._in_force) > pages.MOST:
            return None
        in_force = tuple(self._in_force)
        return in_force if pages.fit(in_force) else None

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


def _carried(facts: Iterable[RevocationFact]) -> list[RevocationFact]:
    # Facts about a signer or an owner were expanded into others. The feed is public, and who
    # answers for what is not.
    return [fact for fact in facts if fact.target.kind not in EXPANDED]


def _with_words(words: Mapping[int, str], facts: Sequence[RevocationFact]) -> Mapping[int, str]:
    """The words of these facts, too, as far back as statements continue."""
    known = {**words, **{fact.sequence: _word(fact) for fact in facts[-MAX_BACKLOG - 1 :]}}
    return dict(list(known.items())[-MAX_BACKLOG - 1 :])


def _word(fact: RevocationFact) -> str:
    # Of the moment, which no two facts of one number have in common: what a fact is about may be
    # nobody's business (``_carried``), and whoever knows a digest of it can try names.
    said = f"{fact.sequence} {fact.at.astimezone(UTC).isoformat(timespec='microseconds')}"
    return hashlib.sha256(said.encode("ascii")).hexdigest()[:16]


def _sequence(fact: RevocationFact) -> int:
    return fact.sequence

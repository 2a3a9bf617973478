"""What an identity knows and what it does next, without doing any of it.

A keeper holds the SVID, its key and the bundle of the moment (``Held``, replaced as a whole), says
when something is due (``pause``), and says it as a ``Talk``: a generator that yields what has to
be done, a ``Call`` to send or ``Blocking`` work to run, and is sent the result. ``identity`` runs
talks in a thread or in asyncio; both therefore behave alike.

``IssuerKeeper`` attests, renews and refreshes over the wire. ``FolderKeeper`` follows a folder
that ``accredit run`` keeps fresh.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from accredit_attestors.contract import Attestor, CollectContext
from accredit_client import calls, renewal
from accredit_client.answers import X509Answer
from accredit_client.calls import Call, Fetched
from accredit_client.effects import Clock, Draw
from accredit_client.errors import (
    ClientError,
    IdentityExpired,
    IdentityRefused,
    InvalidAnswer,
    IssuerRefused,
    NotReady,
)
from accredit_client.federation import Federation
from accredit_client.files import FolderContent, read_folder, version_of
from accredit_client.renewal import Life, State
from accredit_client.trust import Trust, newer
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.bundle_map import BundleMap
from accredit_credentials.errors import Expired, Untrusted
from accredit_credentials.keys import PrivateKey, generate_key
from accredit_credentials.tls import SpiffeContext
from accredit_credentials.x509_svid import X509Identity, X509Svid, validate

LONGEST_WAIT = 30.0  # seconds: a suspended machine's timers stand still while its SVID expires
FOLDER_POLL = 2.0  # seconds between looks at a folder's link
NO_MAP = BundleMap()
NOBODY: frozenset[str] = frozenset()
UNKNOWN_KEY_PAUSE = 5.0  # seconds between two fetches because somebody named an unknown key

_EXPIRED_HINT = "where a join token proved the agent, put a new join token into the same file"


@dataclass(frozen=True, slots=True)
class Blocking:
    """Work that may block: reading files, measuring code, the first connection."""

    run: Callable[[], Any]


class View(NamedTuple):
    """What a TLS context is made from."""

    bundle: TrustBundle
    identity: X509Identity | None
    federated: BundleMap = NO_MAP
    refused: frozenset[str] = NOBODY


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


@dataclass(frozen=True, slots=True)
class Held:
    """One identity, and what it trusts. Never changed: the next one takes its place."""

    bundle: TrustBundle
    identity: X509Identity = field(repr=False)
    life: Life


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How an identity is doing.

    Attributes:
        state: what it is worth now.
        age: seconds since its SVID was made; None before the first.
        expires_in: seconds until it ends, negative after; None before the first.
        stale_for: seconds since it should have been renewed.
        failures: tries in a row that failed.
        renewals: SVIDs that were obtained so far.
        last_error: why the last try failed; None after a success.
    """

    state: State
    age: float | None
    expires_in: float | None
    stale_for: float
    failures: int
    renewals: int
    last_error: Exception | None


class Keeper(ABC):
    """What both kinds of keeper share. Safe to read from any thread; one thread or task talks."""

    def __init__(self, *, clock: Clock, draw: Draw) -> None:
        self.federation: Federation | None = None
        """What is known of other trust domains, where that was asked for."""
        self.clock = clock
        self._draw = draw
        self._held: Held | None = None
        self._refused: IssuerRefused | None = None
        self._last_error: Exception | None = None
        self._failures = 0
        self._renewals = 0
        self._try_at: datetime | None = None
        self._fetched: Fetched[TrustBundle] | None = None
        self._fetched_map: Fetched[BundleMap] | None = None
        self._map_at: datetime | None = None
        self._asking = threading.Lock()
        self._asked = False
        self._overdue = False
        self._told = 0
        self._unknown_key_at: datetime | None = None
        self.looks = 0
        """How often the issuer was asked for the bundle, with or without success."""

    @property
    @abstractmethod
    def issuer_url(self) -> str:
        """Where the issuer is."""

    @property
    def holder(self) -> X509Svid | None:
        """The SVID that was held last, good or not: it says whose we are."""
        return None if self._held is None else self._held.identity.svid

    def issuer_view(self) -> View:
        """What to meet the issuer with."""
        held = self.held()
        return View(held.bundle, held.identity)

    def trusted(self) -> TrustBundle:
        """The bundle, as soon as there is one.

        Raises:
            NotReady: there is none yet.
        """
        return self.last_held().bundle

    @abstractmethod
    def begin(self) -> Talk:
        """Obtain the first SVID."""

    @abstractmethod
    def step(self, now: datetime) -> Talk:
        """Do what is due."""

    @abstractmethod
    def due(self, now: datetime) -> datetime:
        """When the next step is due, failures aside."""

    def ask_for_bundle(self, sequence: int | None = None) -> bool:
        """Say that a newer bundle is wanted; from any thread. Says whether one is being fetched.

        However many ask, and however often, one fetch serves them all: once for each sequence
        number, and once in ``UNKNOWN_KEY_PAUSE`` for keys that nobody may have.

        Args:
            sequence: that the issuer's bundle has; None where a key is missing in ours.
        """
        now = self.clock()
        with self._asking:
            if self._refused is not None:
                return False
            if self._asked:
                return True
            if sequence is not None:
                if sequence <= max(self._told, self.trusted().sequence or 0):
                    return False
                self._told = sequence
                self._overdue = True
            elif not _long_ago(self._unknown_key_at, now):
                return False
            else:
                self._unknown_key_at = now
            if self._try_at is not None and now < self._try_at:
                return False  # the issuer is away: its return is waited for already
            self._asked = True
            return True

    def pause(self, now: datetime) -> float:
        """Seconds until the next step; 0 when it is due."""
        if self._refused is not None:
            return LONGEST_WAIT
        due = now if self._asked or self._overdue else self.due(now)
        if self._try_at is not None:
            due = max(due, self._try_at)
        return min(renewal.seconds_until(due, now), LONGEST_WAIT)

    @property
    def over(self) -> bool:
        """Whether nothing is left to do, ever."""
        return self._refused is not None

    @property
    def renewals(self) -> int:
        """SVIDs that were obtained so far."""
        return self._renewals

    def held(self) -> Held:
        """The identity, if it may be used.

        Raises:
            NotReady: there is none yet.
            IdentityRefused: the issuer has taken it back.
            IdentityExpired: it is over.
        """
        held, now = self._held, self.clock()
        if self._refused is not None:
            raise IdentityRefused(
                f"the issuer has taken this identity back ({self._refused.kind}): "
                f"{self._refused.detail}"
            ) from self._refused
        if held is None:
            raise NotReady("there is no SVID yet", hint="start the identity first")
        if held.life.expired(now):
            over = (now - held.life.not_after).total_seconds()
            why = f"; the last try failed: {self._last_error}" if self._last_error else ""
            raise IdentityExpired(
                f"SVID of {held.identity.svid.spiffe_id} expired {over:.0f} seconds ago{why}",
                hint=_EXPIRED_HINT,
            ) from self._last_error
        return held

    def last_held(self) -> Held:
        """The identity, good or not: its peers decide what it is worth.

        Raises:
            NotReady: there is none yet.
        """
        if self._held is None:
            raise NotReady("there is no SVID yet", hint="start the identity first")
        return self._held

    def status(self) -> Status:
        """How the identity is doing."""
        held, now = self._held, self.clock()
        life = held.life if held else None
        state = life.state(now) if life else State.WAITING
        return Status(
            state=State.REFUSED if self._refused else state,
            age=life.age(now) if life else None,
            expires_in=(life.not_after - now).total_seconds() if life else None,
            stale_for=life.stale_for(now) if life else 0.0,
            failures=self._failures,
            renewals=self._renewals,
            last_error=self._last_error,
        )

    def failed(self, error: Exception) -> float:
        """Take note that a talk failed; returns the seconds until the next try."""
        self._failures += 1
        self._last_error = error
        asked = error.retry_after if isinstance(error, IssuerRefused) else None
        pause = renewal.pause_after(self._failures, draw=self._draw, asked=asked)
        self._try_at = renewal.later(self.clock(), pause)
        return pause

    def _newest_bundle(self) -> Generator[Call[Any], Any, TrustBundle]:
        """Ask the issuer whether the bundle is another by now."""
        known = self.trusted()
        fetched = yield calls.newest_bundle(known.trust_domain, self._fetched)
        bundle = newer(known, fetched.value)
        self._fetched = fetched
        self._overdue = False
        # The same object where nothing changed: contexts and verified tokens hang on it.
        return known if bundle == known else bundle

    def _look(self, first: Talk) -> Talk:
        """Fetch the bundle as ``first`` does, then the bundle map; tell who waits for either."""
        try:
            yield from first
            yield from self._refresh_map()
        finally:
            self._asked = False
            self.looks += 1
        self._succeeded()

    def _refresh_map(self) -> Talk:
        if self.federation is None:
            return
        fetched = yield calls.bundle_map(self._fetched_map)
        self.federation.take(fetched.value, own=self.trusted().trust_domain)
        self._fetched_map = fetched
        pause = renewal.refresh_after(fetched.value.refresh_hint)
        self._map_at = renewal.later(self.clock(), pause)

    def _first_map(self) -> Talk:
        """Fetch the map; where it cannot be had, start without, and ask again soon.

        The join token is spent by then: to begin again would fail for good. Nobody of another
        trust domain is let in before there is a map.
        """
        try:
            yield from self._refresh_map()
        except ClientError as error:
            if isinstance(error, IssuerRefused) and error.kind == "not-found":
                raise  # this issuer knows of no federation, and will not by itself
            self._last_error = error
            self._map_at = renewal.later(
                self.clock(), renewal.pause_after(1, draw=self._draw, asked=None)
            )

    def _map_due(self, otherwise: datetime) -> datetime:
        """When the map is due, where it is before ``otherwise``."""
        return otherwise if self._map_at is None else min(otherwise, self._map_at)

    def _hold(self, bundle: TrustBundle, identity: X509Identity, life: Life) -> None:
        self._held = Held(bundle, identity, life)
        self._renewals += 1
        self._succeeded()

    def _succeeded(self) -> None:
        self._failures = 0
        self._last_error = None
        self._try_at = None


class IssuerKeeper(Keeper):
    """Attests at the issuer and renews there."""

    def __init__(
        self,
        *,
        issuer_url: str,
        trust: Trust,
        manifest_file: Path | None,
        code_root: Path | None,
        join_token_file: Path | None,
        attestors: Callable[[], Mapping[str, Attestor]],
        clock: Clock,
        draw: Draw,
    ) -> None:
        super().__init__(clock=clock, draw=draw)
        self._issuer_url = issuer_url
        self._trust = trust
        self._manifest_file = manifest_file
        self._code_root = code_root
        self._join_token_file = join_token_file
        self._attestors = attestors
        self._bundle: TrustBundle | None = None
        self._refresh_at: datetime | None = None
        self._replace_at: datetime | None = None
        self._replaced = 0
        self._attest_next = False

    @property
    def issuer_url(self) -> str:
        """Where the issuer is."""
        return self._issuer_url

    def begin(self) -> Talk:
        """Establish trust, attest, and hold the first SVID."""
        if self._bundle is None:
            self._took_bundle((yield Blocking(self._establish)))
        if self._held is None:
            yield from self._attest()
        yield from self._first_map()

    def due(self, now: datetime) -> datetime:
        """The renewal, the bundle's refresh or the end, whichever comes first."""
        held = self._held
        if held is None or self._refresh_at is None or self._attest_next:
            return now
        return min(self._renew_at(held), self._map_due(self._refresh_at))

    def step(self, now: datetime) -> Talk:
        """Attest where nothing is held any more, renew where it is time, or refresh."""
        held = self._held
        if held is None:
            yield from self.begin()
        elif self._attest_next or held.life.expired(now):
            yield from self._again()
        elif now >= self._renew_at(held):
            yield from self._renew(held)
        else:
            yield from self._look(self._refresh())

    def issuer_view(self) -> View:
        """As before, but for a first connection, or in a last resort, nothing is shown."""
        held = self._held
        if held is None or self._attest_next or held.life.expired(self.clock()):
            return View(self.trusted(), None)
        return View(held.bundle, held.identity)

    def trusted(self) -> TrustBundle:
        """The bundle, which is there before the first SVID."""
        if self._bundle is None:
            raise NotReady("there is no trust bundle yet", hint="start the identity first")
        return self._bundle

    def _renew_at(self, held: Held) -> datetime:
        """By its life, or earlier where its authority is tainted."""
        planned = held.life.renew_at
        return planned if self._replace_at is None else min(planned, self._replace_at)

    def _establish(self) -> TrustBundle:
        return self._trust.establish(self._issuer_url)

    def _again(self) -> Talk:
        """Attest anew: the bundle first, since what was missed may include new authorities."""
        yield from self._refresh()
        yield from self._attest()

    def _attest(self) -> Talk:
        key = generate_key()
        nonce = (yield calls.nonce()).nonce
        evidence = yield Blocking(lambda: self._collect(nonce, only=None))
        csr = calls.certificate_request(key)
        answer = yield from self._decisive(
            calls.attestation(nonce=nonce, csr=csr, evidence=evidence)
        )
        yield from self._accept(answer, key)

    def _renew(self, held: Held) -> Talk:
        key = generate_key()
        serial = held.identity.svid.serial
        evidence = yield Blocking(lambda: self._collect(serial, only="code_digest"))
        csr = calls.certificate_request(key)
        try:
            answer = yield from self._decisive(calls.x509_svid(csr=csr, evidence=evidence or None))
        except IssuerRefused as refused:
            # The SVID itself is not accepted any more, as when its authority was tainted.
            self._attest_next = refused.kind == "unauthenticated"
            raise
        _check_same(held.identity.svid, answer)
        yield from self._accept(answer, key)

    def _refresh(self) -> Talk:
        self._took_bundle((yield from self._newest_bundle()))

    def _decisive(self, call: Call[X509Answer]) -> Generator[Call[Any], Any, X509Answer]:
        """A call whose refusal may be the last word."""
        try:
            answer: X509Answer = yield call
        except IssuerRefused as refused:
            if refused.for_good:
                self._refused = refused
            raise
        return answer

    def _accept(self, answer: X509Answer, key: PrivateKey) -> Talk:
        """Hold an SVID, once the bundle vouches for it and it is for our key."""
        identity = X509Identity.of(answer.svid, key)
        try:
            self._validate(identity.svid)
        except Untrusted:
            yield from self._refresh()  # its authority may be newer than our bundle
            self._validate(identity.svid)
        svid = identity.svid
        life = renewal.life_of(svid.not_before, svid.not_after, now=self.clock(), draw=self._draw)
        self._hold(self.trusted(), identity, life)
        self._attest_next = False
        tainted = svid.authorities & self.trusted().tainted
        self._replaced = self._replaced + 1 if tainted else 0
        self._plan_replacement()

    def _plan_replacement(self) -> None:
        """Leave a tainted authority at once, and not again and again where there is no other."""
        held = self._held
        self._replace_at = None
        if held is not None and held.identity.svid.authorities & held.bundle.tainted:
            pause = renewal.replace_after(self._replaced, draw=self._draw)
            self._replace_at = renewal.later(self.clock(), pause)

    def _validate(self, svid: X509Svid) -> None:
        bundle = self.trusted()
        try:
            validate(svid, bundles={bundle.trust_domain: bundle}, now=self.clock())
        except Expired as error:
            raise ClientError(
                f"the issuer's answer does not fit this machine's time: {error}",
                hint="compare the clocks",
            ) from error

    def _collect(self, nonce: str, *, only: str | None) -> list[dict[str, object]]:
        context = CollectContext(
            nonce=nonce,
            manifest_file=self._manifest_file,
            code_root=self._code_root,
            join_token_file=self._join_token_file,
        )
        collected = [
            attestor.collect(context)
            for kind, attestor in self._attestors().items()
            if only in {None, kind}
        ]
        return [evidence.to_json() for evidence in collected if evidence is not None]

    def _took_bundle(self, bundle: TrustBundle) -> None:
        self._bundle = bundle
        self._refresh_at = renewal.later(self.clock(), renewal.refresh_after(bundle.refresh_hint))
        held = self._held
        if held is not None and bundle is not held.bundle:
            self._held = Held(bundle, held.identity, held.life)
            self._replaced = 0  # another bundle: perhaps another authority signs by now
            self._plan_replacement()
            self._attest_next = self._attest_next or not self._vouched(held.identity.svid)

    def _vouched(self, svid: X509Svid) -> bool:
        """Whether the bundle still has an authority for the SVID: without, nobody takes it."""
        try:
            self._validate(svid)
        except Untrusted:
            return False
        except ClientError:
            return True  # its time is over, which is another matter
        return True


class FolderKeeper(Keeper):
    """Follows a folder that somebody else keeps fresh."""

    def __init__(self, folder: Path, *, clock: Clock, draw: Draw) -> None:
        super().__init__(clock=clock, draw=draw)
        self._folder = folder
        self._version: str | None = None
        self._look_at: datetime | None = None
        self._url: str | None = None

    @property
    def issuer_url(self) -> str:
        """Where the issuer is, as the folder says."""
        if self._url is None:
            raise NotReady("the folder was not read yet", hint="start the identity first")
        return self._url

    def begin(self) -> Talk:
        """Read the folder."""
        version = version_of(self._folder)
        content: FolderContent = yield Blocking(lambda: read_folder(self._folder))
        bundle, svid = self._newer_than_held(content.bundle), content.identity.svid
        validate(svid, bundles={bundle.trust_domain: bundle}, now=self.clock())
        self._url = content.issuer_url
        self._version = version
        self._look_at = renewal.later(self.clock(), FOLDER_POLL)
        # The latest that whoever keeps the folder would renew.
        life = renewal.life_of(svid.not_before, svid.not_after, now=self.clock(), draw=lambda: 1.0)
        self._hold(bundle, content.identity, life)
        if self._map_at is None:
            yield from self._first_map()

    def due(self, now: datetime) -> datetime:
        """The next look."""
        return now if self._look_at is None else self._map_due(self._look_at)

    def step(self, now: datetime) -> Talk:
        """Read the folder again if it has another set."""
        if version_of(self._folder) != self._version or self._version is None:
            yield from self.begin()
        elif self._asked or self._overdue:
            # Whoever keeps the folder learns of it later than who follows the feed.
            yield from self._look(self._fetch())
        elif self._map_at is not None and now >= self._map_at:
            yield from self._refresh_map()
            self._succeeded()
        else:
            self._look_at = renewal.later(now, FOLDER_POLL)
            self._succeeded()

    def _fetch(self) -> Talk:
        bundle = yield from self._newest_bundle()
        held = self.last_held()
        self._held = Held(bundle, held.identity, held.life)

    def _newer_than_held(self, bundle: TrustBundle) -> TrustBundle:
        held = self._held
        if held is None or held.bundle.trust_domain != bundle.trust_domain:
            return bundle
        bundle = newer(held.bundle, bundle)
        return held.bundle if bundle == held.bundle else bundle


class Latest:
    """The context made from what is held now; made again whenever that changes."""

    def __init__(self, make: Callable[[View], SpiffeContext], view: Callable[[], View]) -> None:
        self._make = make
        self._view = view
        self._lock = threading.Lock()
        self._made: tuple[View, SpiffeContext] | None = None

    def __call__(self) -> SpiffeContext:
        """The context of this moment."""
        view = self._view()
        with self._lock:
            made = self._made
            # By identity: equal certificates would take longer to compare than to look up.
            if made is None or any(old is not new for old, new in zip(made[0], view, strict=True)):
                made = self._made = (view, self._make(view))
            return made[1]


def _long_ago(moment: datetime | None, now: datetime) -> bool:
    """Whether another fetch for an unknown key may be made; a clock that was set back says yes."""
    return moment is None or not 0 <= (now - moment).total_seconds() < UNKNOWN_KEY_PAUSE


def _check_same(held: X509Svid, answer: X509Answer) -> None:
    """A renewal is for the identity and the instance that asked."""
    renewed = answer.svid
    if (renewed.spiffe_id, renewed.instance) != (held.spiffe_id, held.instance):
        raise InvalidAnswer(
            f"the issuer renewed {held.spiffe_id} as {renewed.spiffe_id}: "
            "expected the same identity and instance"
        )

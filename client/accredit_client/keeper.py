"""What an identity knows, and when something is due.

A keeper holds the SVID, its key and the bundle of the moment (``Held``, replaced as a whole), says
when something is due (``pause``), and what, as a ``Talk``. ``issuer_keeper`` attests, renews and
refreshes over the wire; ``folder_keeper`` follows a folder that ``accredit run`` keeps fresh;
``workload.keeper`` follows the node daemon. Here is what they share: what is held, what failed, and
the bundle and the bundle map, which the issuer is asked for.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from accredit_client import calls, renewal
from accredit_client.call import Call, Fetched
from accredit_client.effects import Clock, Draw
from accredit_client.errors import (
    ClientError,
    IdentityExpired,
    IdentityRefused,
    IssuerRefused,
    NotReady,
)
from accredit_client.federation import Federation
from accredit_client.renewal import Life, State
from accredit_client.talk import Talk
from accredit_client.tls import View
from accredit_client.trust import newer
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.bundle_map import BundleMap
from accredit_credentials.x509_svid import X509Identity, X509Svid

LONGEST_WAIT = 30.0  # seconds: a suspended machine's timers stand still while its SVID expires
UNKNOWN_KEY_PAUSE = 5.0  # seconds between two fetches because somebody named an unknown key
_EXPIRED_HINT = "where a join token proved the agent, put a new join token into the same file"


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
    """What all kinds of keeper share. Safe to read from any thread; one thread or task talks."""

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
    def has_issuer(self) -> bool:
        """Whether it is known where the issuer is."""
        return True

    def open(self, told: Callable[[], None]) -> None:  # noqa: B027 (most have nothing to open)
        """Before the first talk; ``told`` wakes whoever talks, from any thread."""

    def close(self) -> None:  # noqa: B027 (as above)
        """After the last talk; may wait for a thread to end."""

    def check_lists(  # noqa: B027 (most have no lists)
        self, svid: X509Svid, *, max_age: float | None
    ) -> None:
        """Decide about a peer of our own trust domain by what is held besides a feed.

        Args:
            svid: the peer's, verified.
            max_age: seconds that what is known may be old; None where nothing has to be known.

        Raises:
            Revoked, Stale: it was taken back, or nobody knows.
        """

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


def _long_ago(moment: datetime | None, now: datetime) -> bool:
    """Whether another fetch for an unknown key may be made; a clock that was set back says yes."""
    return moment is None or not 0 <= (now - moment).total_seconds() < UNKNOWN_KEY_PAUSE

"""Asking other trust domains for their bundles, when it is time and when an admin says so.

Runs on threads of its own, never on the event loop of the server: all endpoints that are due are
asked at once, each within ``FETCH_SECONDS``. A bundle that holds takes the place of the known one;
whatever else comes, the last good one stays, for as long as the relationship does, and its age is
shown. Silence for too long is an alarm: an error in the log at each attempt, a metric, and a state
in every listing. After a failure the next attempt waits for its interval (SPIFFE Federation §4.1).

By a clock that cannot be believed nothing is asked, taken in or dated: an interval, an age and the
validity of an endpoint's certificate are all measured by it.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import structlog

from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import CredentialError
from accredit_credentials.spiffe_id import TrustDomain
from accredit_issuer.clock import Clock
from accredit_issuer.clock_guard import ClockWrong
from accredit_issuer.errors import IssuerError
from accredit_issuer.federation.fetching import (
    Endpoint,
    EndpointUntrusted,
    FetchFailed,
    SpiffeEndpoint,
    WebEndpoint,
    fetch,
)
from accredit_issuer.federation.relationships import Relationships, Standing
from accredit_issuer.federation.rules import SHORTEST_INTERVAL, check_replacement, numbered
from accredit_issuer.registry.changes import Actor, Local

SCHEDULED = Local("scheduler")
WRONG_FILE = "wrong or outdated bundle file?"

_log = structlog.get_logger("accredit.federation")


class Polling:
    """Keeps the bundles of one issuer's relationships fresh.

    Args:
        relationships: what to ask, and where the answers go.
        own_bundle: our own bundle as it is now, for endpoints that show an SVID of ours.
        clock: the issuer's, guarded: it raises where it cannot be believed.
        ca_file: what ``https_web`` endpoints are verified with in place of the system's.
    """

    def __init__(
        self,
        relationships: Relationships,
        *,
        own_bundle: Callable[[], TrustBundle],
        clock: Clock,
        ca_file: Path | None,
    ) -> None:
        self._relationships = relationships
        self._own_bundle = own_bundle
        self._clock = clock
        self._ca_file = ca_file
        self._lock = threading.Lock()
        self._under_way: dict[TrustDomain, Future[None]] = {}
        self._running: set[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = set()
        self._closed = False
        self._asked: dict[int, datetime] = {}  # by the relationship's record; see ``_due``

    def poll_due(self) -> None:
        """Ask every endpoint whose time has come.

        Raises:
            ClockWrong: nobody was asked.
        """
        now = self._clock()
        due = [s for s in self._relationships.all() if self._due(s) <= now]
        self._asked |= dict.fromkeys((standing.log_index for standing in due), now)
        self._poll(due, by=SCHEDULED)

    def next_due(self, now: datetime) -> datetime:
        """The next moment at which an endpoint is to be asked; soon, where there is none."""
        # A relationship that is made meanwhile is first asked after no longer than this.
        soon = now + SHORTEST_INTERVAL
        return min([soon, *map(self._due, self._relationships.all())])

    def refresh(self, trust_domain: TrustDomain, *, by: Actor) -> Standing:
        """Ask one endpoint now; returns how the relationship stands after it.

        Raises:
            Refusal: no such relationship, or the actor may not ask any more.
            Unavailable: nothing can be recorded now, or the clock cannot be believed.
        """
        self._clock()
        self._relationships.check(by)
        self._poll([self._relationships.one(trust_domain)], by=by)
        return self._relationships.one(trust_domain)

    def overdue(self, now: datetime) -> int:
        """How many have been silent for too long."""
        return sum(standing.overdue(now) for standing in self._relationships.all())

    def oldest(self, now: datetime) -> float:
        """Seconds since the one that is silent longest was heard; 0 where there is none."""
        ages = ((now - s.heard_at).total_seconds() for s in self._relationships.all())
        return max(ages, default=0.0)

    def close(self) -> None:
        """End what is under way, and begin nothing more."""
        with self._lock:
            self._closed = True
            for loop, task in self._running:
                with suppress(RuntimeError):  # it has ended by itself
                    loop.call_soon_threadsafe(task.cancel)

    def _due(self, standing: Standing) -> datetime:
        asked = self._asked.get(standing.log_index)
        # An attempt that could not be recorded (disk full, say) is remembered here: others must not
        # be asked without end because of our own trouble.
        if asked is None:
            return standing.next_attempt
        return max(standing.next_attempt, asked + SHORTEST_INTERVAL)

    def _poll(self, standings: Iterable[Standing], *, by: Actor) -> None:
        """Ask these endpoints, or wait for whoever is asking one of them already."""
        mine: dict[TrustDomain, tuple[Standing, Future[None]]] = {}
        others: list[Future[None]] = []
        with self._lock:
            for standing in standings:
                if under_way := self._under_way.get(standing.trust_domain):
                    others.append(under_way)
                    continue
                future: Future[None] = Future()
                self._under_way[standing.trust_domain] = future
                mine[standing.trust_domain] = (standing, future)
        try:
            if mine:
                with suppress(asyncio.CancelledError):
                    asyncio.run(self._ask_all([standing for standing, _ in mine.values()], by))
        finally:
            with self._lock:
                for trust_domain, (_, future) in mine.items():
                    del self._under_way[trust_domain]
                    future.set_result(None)
        for other in others:
            other.result()

    async def _ask_all(self, standings: list[Standing], by: Actor) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (for the type checker)
        here = (asyncio.get_running_loop(), task)
        with self._lock:
            if self._closed:
                return
            self._running.add(here)
        try:
            await asyncio.gather(*(self._ask(standing, by) for standing in standings))
        finally:
            with self._lock:
                self._running.discard(here)

    async def _ask(self, standing: Standing, by: Actor) -> None:
        try:
            await self._take_in(standing, by)
        except EndpointUntrusted as error:
            # Nobody but an admin knows whether that was the bundle that was meant.
            doubt = f"; {WRONG_FILE}" if standing.given else ""
            self._failed(standing, f"{error}{doubt}", by)
        except (FetchFailed, CredentialError, IssuerError) as error:
            self._failed(standing, str(error), by)
        except Exception as error:  # noqa: BLE001 (one endpoint must not keep the others from being asked)
            self._failed(standing, f"unexpected {type(error).__name__}", by)

    async def _take_in(self, standing: Standing, by: Actor) -> None:
        body = await fetch(self._endpoint(standing))
        fresh = TrustBundle.parse(standing.trust_domain, body)
        # What is known now: nobody else asks this endpoint meanwhile, but one may have before.
        known = self._relationships.one(standing.trust_domain).bundle
        check_replacement(fresh, known)
        fresh = numbered(fresh, known)
        # What we understood of it, in our own words: what nobody checked is not passed on.
        self._relationships.keep(standing, fresh.to_json(), by=by, now=self._clock())
        if not (fresh.x509_authorities or fresh.jwt_authorities or fresh.wit_authorities):
            _log.error(
                "federated trust domain has no usable key: nothing of it is valid",
                trust_domain=str(standing.trust_domain),
            )

    def _failed(self, standing: Standing, reason: str, by: Actor) -> None:
        try:
            now = self._clock()
        except ClockWrong as error:
            # An attempt that it dated in the future would be the last for as long.
            _log.error("failure not recorded", reason=str(error))
            return
        say = _log.error if standing.overdue(now) else _log.warning
        say(
            "federated bundle not fetched",
            trust_domain=str(standing.trust_domain),
            reason=reason,
            age_seconds=int((now - standing.heard_at).total_seconds()),
            overdue=standing.overdue(now),
        )
        try:
            self._relationships.fail(standing, reason, by=by, now=now)
        except IssuerError as error:
            _log.error("failure not recorded", reason=str(error))

    def _endpoint(self, standing: Standing) -> Endpoint:
        relationship = standing.relationship
        endpoint = relationship.endpoint_spiffe_id
        if endpoint is None:
            return WebEndpoint(url=relationship.endpoint_url, ca_file=self._ca_file)
        own = self._own_bundle()
        if endpoint.trust_domain == own.trust_domain:
            bundle: TrustBundle | None = own
        else:
            bundle = self._relationships.one(endpoint.trust_domain).bundle
        if bundle is None:
            raise FetchFailed(f"no bundle of {endpoint.trust_domain} is known yet")
        return SpiffeEndpoint(url=relationship.endpoint_url, spiffe_id=endpoint, bundle=bundle)

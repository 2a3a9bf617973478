"""Other trust domains, as a verifier of ours sees them: who is federated, and what may they do?

Holds the bundle map that our issuer publishes, replaced as a whole, and the feeds of those domains
that have one. Each domain is judged by its own bundle and its own facts only, never by another's
(SPIFFE Federation §4.2); our own domain is no entry of the map, whatever the map says. Everything
is denied by default: without a relationship nobody is known, without an allowance nothing is
allowed, with a map or a feed that is too old nobody is let in.

Where a relationship has no feed, a revoked agent of that domain keeps its tokens until they expire,
five minutes at most: the operator who wrote the relationship decided so.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from accredit_client.effects import Clock
from accredit_client.errors import InvalidAnswer
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.bundle_map import BundleMap, FederatedDomain
from accredit_credentials.errors import NotGranted, Stale, Untrusted
from accredit_credentials.federation import allows
from accredit_credentials.revocation_feed import FeedState
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain

_log = logging.getLogger("accredit_client")

MAP_STALENESS = 120.0  # seconds: four polls that failed, and a relationship may be gone


class Feed(Protocol):
    """A feed that is followed, in a thread or a task."""

    @property
    def state(self) -> FeedState:
        """What is known."""

    @property
    def last_error(self) -> Exception | None:
        """Why it was lost last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedStatus:
    """How a relationship stands, as far as this verifier knows.

    Attributes:
        trust_domain: the other one.
        map_age: seconds since our issuer last said that the relationship stands.
        bundle_age: seconds since our issuer last heard from the other; None where it never did.
        allowances: how many there are.
        feed_url: where its facts are; None where a revocation there ends nothing here early.
        feed_age: seconds since the newest statement; None without one: everything is refused then,
            unless there is no feed.
        last_error: why its feed was lost last; None while it flows.
        left_out: why what our issuer says of it cannot be read: nobody of it is let in then; None
            where it can.
    """

    trust_domain: TrustDomain
    map_age: float
    bundle_age: float | None
    allowances: int
    feed_url: str | None
    feed_age: float | None
    last_error: Exception | None
    left_out: str | None = None


class Federation:
    """What is known of other trust domains. One thread or task changes it, any may ask."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._map = BundleMap()
        self._as_of: datetime | None = None
        self._feeds: Mapping[TrustDomain, tuple[str, Feed]] = {}

    @property
    def map(self) -> BundleMap:
        """The bundle map of the moment; the same object for as long as nothing changes."""
        return self._map

    def take(self, fetched: BundleMap, *, own: TrustDomain) -> None:
        """Hold a map that our issuer has just answered with.

        Whoever cannot be read in it is known no more, and that is logged once.

        Raises:
            InvalidAnswer: it speaks for our own trust domain, whose bundle is no federated one.
        """
        if own in fetched.domains or own in fetched.left_out:
            raise InvalidAnswer(f"the issuer's bundle map must not name our own domain {own}")
        self._as_of = self._clock()
        if fetched != self._map:
            known, self._map = self._map.left_out, fetched
            for name, why in fetched.left_out.items():
                if known.get(name) != why:
                    _log.error("nobody of %s is let in: %s", name, why)

    def feeds_wanted(self) -> dict[TrustDomain, str]:
        """The feeds to follow: where each domain's is."""
        return {
            name: domain.feed_url
            for name, domain in self._map.domains.items()
            if domain.feed_url is not None
        }

    def followed(self, feeds: Mapping[TrustDomain, tuple[str, Feed]]) -> None:
        """Take note of the feeds that are followed now."""
        self._feeds = feeds

    def domain(self, trust_domain: TrustDomain, now: datetime) -> FederatedDomain:
        """The relationship with a trust domain.

        Raises:
            Untrusted: there is none.
            Stale: our issuer has not said for too long whether there still is.
        """
        domain = self._map.domains.get(trust_domain)
        if domain is None:
            why = self._map.left_out.get(trust_domain)
            because = f": {why}" if why else ""
            raise Untrusted(f"no authorities known for the trust domain {trust_domain}{because}")
        age = self._age(now)
        if age is None or age > MAP_STALENESS:
            raise Stale(
                f"what is known of federation is {age or 0:.0f} seconds old, the limit is "
                f"{MAP_STALENESS:.0f}"
            )
        return domain

    def bundle(self, trust_domain: TrustDomain) -> TrustBundle:
        """The bundle of a federated trust domain; raises as ``domain``."""
        return self.domain(trust_domain, self._clock()).bundle

    def check_agent(self, client: SpiffeId, now: datetime) -> None:
        """Decide whether somebody of another trust domain may ask anything of us at all.

        Raises:
            Untrusted, Stale: as ``domain``, and where no allowance names the agent.
        """
        allowances = self.domain(client.trust_domain, now).allowances
        if not any(each.agents.cover(client) for each in allowances):
            raise Untrusted(f"nothing is allowed to {client}")

    def check_grant(
        self, domain: FederatedDomain, client: SpiffeId, *, audience: str, action: str
    ) -> None:
        """Decide whether the relationship allows an agent to do ``action`` at ``audience``.

        Raises:
            NotGranted: it does not, whatever the agent's own issuer granted.
        """
        if not allows(domain.allowances, client, audience, (action,)):
            raise NotGranted(f"{action!r} is not allowed to agents of {client.trust_domain} here")

    def check_facts(
        self, domain: FederatedDomain, marks: tuple[str, ...], *, now: datetime, max_age: float
    ) -> None:
        """Decide whether the other domain has taken back a credential with these marks.

        Raises:
            Stale: what its feed said is too old, or nothing came yet.
            Revoked: a fact of it matches.
        """
        if domain.feed_url is None:
            return
        url, feed = self._feeds.get(domain.bundle.trust_domain, (None, None))
        if feed is None or url != domain.feed_url:
            raise Stale(f"nothing is known of revocation in {domain.bundle.trust_domain} yet")
        feed.state.check(marks, now=now, max_age=max_age)

    def feed_of(self, trust_domain: TrustDomain) -> FeedState | None:
        """What the feed of a trust domain has said; None where none is followed."""
        _, feed = self._feeds.get(trust_domain, (None, None))
        return None if feed is None else feed.state

    def status(self) -> tuple[FederatedStatus, ...]:
        """How each relationship stands. Never raises."""
        now = self._clock()
        return tuple(
            [self._status(name, domain, now) for name, domain in self._map.domains.items()]
            + [self._left_out(name, why, now) for name, why in self._map.left_out.items()]
        )

    def _status(self, name: TrustDomain, domain: FederatedDomain, now: datetime) -> FederatedStatus:
        _, feed = self._feeds.get(name, (None, None))
        fetched_at, as_of = domain.fetched_at, feed.state.as_of if feed is not None else None
        return FederatedStatus(
            trust_domain=name,
            map_age=self._age(now) or 0.0,
            bundle_age=None if fetched_at is None else (now - fetched_at).total_seconds(),
            allowances=len(domain.allowances),
            feed_url=domain.feed_url,
            feed_age=None if as_of is None else (now - as_of).total_seconds(),
            last_error=feed.last_error if feed is not None else None,
        )

    def _left_out(self, name: TrustDomain, why: str, now: datetime) -> FederatedStatus:
        return FederatedStatus(
            trust_domain=name,
            map_age=self._age(now) or 0.0,
            bundle_age=None,
            allowances=0,
            feed_url=None,
            feed_age=None,
            last_error=None,
            left_out=why,
        )

    def _age(self, now: datetime) -> float | None:
        return None if self._as_of is None else (now - self._as_of).total_seconds()

"""What Prometheus can ask: issued and refused by kind, latencies, ages of keys, CRLs and feed."""

import time
from collections.abc import Awaitable, Iterator
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from accredit_issuer.authority.lifecycle import State
from accredit_issuer.errors import Refusal, Unavailable
from accredit_issuer.issuer import Issuer
from accredit_issuer.status import is_still

T = TypeVar("T")

CREDENTIALS = ("x509", "jwt", "wit", "task", "ca")
LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # seconds


class Metrics:
    """The counters of one issuer. ``collect`` adds what is read off when asked."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._registry = CollectorRegistry()
        self._issued = Counter(
            "accredit_issued", "Credentials released", ["credential"], registry=self._registry
        )
        self._refused = Counter(
            "accredit_refused",
            "Requests refused",
            ["credential", "problem"],
            registry=self._registry,
        )
        self._latency = Histogram(
            "accredit_issuing_seconds",
            "From request to release",
            ["credential"],
            buckets=LATENCIES,
            registry=self._registry,
        )
        self.facts = Counter(
            "accredit_facts", "Revocation facts stated", ["kind"], registry=self._registry
        )
        self._registry.register(self)

        self._of = {
            kind: (self._issued.labels(kind), self._latency.labels(kind)) for kind in CREDENTIALS
        }

    async def issuing(self, credential: str, issue: Awaitable[T], *, number: int = 1) -> T:
        """Count and time what is issued or refused: ``number`` of them at once."""
        started = time.perf_counter()
        try:
            issued = await issue
        except Refusal as refusal:
            self.refused(credential, refusal)
            raise
        except Unavailable:
            self._refused.labels(credential, "unavailable").inc()
            raise
        counter, latency = self._of[credential]
        counter.inc(number)
        latency.observe(time.perf_counter() - started)
        return issued

    def issued(self, credential: str, number: int) -> None:
        """Count what was issued beside something that was refused."""
        self._of[credential][0].inc(number)

    def refused(self, credential: str, refusal: Refusal) -> None:
        """Count a refusal."""
        self._refused.labels(credential, refusal.kind.wire).inc()

    def text(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Ages and sizes, read off now."""
        issuer = self._issuer
        now = issuer.clock()
        keys = GaugeMetricFamily(
            "accredit_authority_expires_seconds",
            "Seconds until an authority expires",
            labels=["kind", "state", "id"],
        )
        authorities = issuer.authorities.now_in_force.authorities
        for authority in authorities:
            if authority.state is not State.REMOVED:
                left = (authority.standing.expires_at - now).total_seconds()
                keys.add_metric([authority.kind.value, authority.state.value, authority.id], left)
        yield keys
        ages = GaugeMetricFamily(
            "accredit_crl_age_seconds", "Seconds since a CRL was made", labels=["authority"]
        )
        for crl in issuer.revocation.crls.current:
            age = (now - crl.times.this_update).total_seconds()
            ages.add_metric([crl.authority], age)
        yield ages
        clock_is_wrong = issuer.guarded_clock.why_wrong(now) is not None
        for name, text, value in (
            ("accredit_clock_wrong", "1 where the clock is not believed", int(clock_is_wrong)),
            ("accredit_feed_sequence", "Newest revocation fact", issuer.feed.through),
            ("accredit_feed_facts", "Facts in the feed", len(issuer.feed.facts)),
            ("accredit_feed_listeners", "Streams of the feed", issuer.feed.listeners),
            # Without names: who listens is for admins to know.
            (
                "accredit_feed_verifiers_still",
                "Verifiers that listen and do not confirm what they are told",
                sum(map(is_still, issuer.feed.audience.listeners().named)),
            ),
            ("accredit_log_size", "Records in the log", issuer.log.frontier.size),
            ("accredit_writes_waiting", "Writes that wait", issuer.writer.waiting),
            (
                "accredit_streams_behind",
                "Receivers of security events for whom one has waited for too long",
                sum(issuer.streams.standing(each).behind(now) for each in issuer.streams.all()),
            ),
            # Without names: whoever reads this need not know whom we federate with.
            (
                "accredit_federation_overdue",
                "Federated trust domains that were not heard for too long",
                issuer.polling.overdue(now),
            ),
            (
                "accredit_federation_silent_seconds",
                "Seconds since the federated trust domain that is silent longest was heard",
                issuer.polling.oldest(now),
            ),
        ):
            yield GaugeMetricFamily(name, text, value=value)

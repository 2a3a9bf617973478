"""When foreign bundles are asked for, how long what is known stays, and when somebody is told."""

import json
from datetime import timedelta

import pytest
import structlog
import trustme
from prometheus_client.parser import text_string_to_metric_families
from support.bundle_endpoint import Served, web_endpoint
from support.federating import PAYERS, B, Federating

from accredit_credentials.spiffe_id import TrustDomain
from accredit_issuer.errors import Refusal
from accredit_issuer.federation.rules import SHORTEST_INTERVAL
from accredit_issuer.metrics import Metrics
from accredit_issuer.registry.changes import Local


@pytest.mark.spec("SPIFFE-82")
def test_the_endpoint_is_asked_when_its_hint_says(web: Federating) -> None:
    """Not earlier than the refresh hint, and after a failure not earlier either."""
    web.endpoint.serve(web.bundle(5, refresh_hint=120))
    web.federate()
    web.poll()
    for wait, asked in ((119, 1), (1, 2), (119, 2)):
        web.after(seconds=wait)
        assert len(web.endpoint.requests) == asked
    web.endpoint.serve(Served(status=503))
    for wait, asked in ((1, 3), (119, 3), (1, 4)):
        web.after(seconds=wait)
        assert len(web.endpoint.requests) == asked
    assert web.standing.next_attempt == web.clock() + timedelta(seconds=120)


@pytest.mark.spec("SPIFFE-82")
def test_without_a_hint_it_is_asked_every_five_minutes(web: Federating) -> None:
    """The recommended default holds until the bundle says something else."""
    web.endpoint.serve(web.bundle(5, refresh_hint=None))
    web.federate()
    web.poll()
    web.after(seconds=299)
    assert len(web.endpoint.requests) == 1
    web.after(seconds=1)
    assert len(web.endpoint.requests) == 2


def test_the_scheduler_looks_within_a_minute(web: Federating) -> None:
    """A relationship that was just made need not wait for one that is asked once a day."""
    polling, now = web.offline.issuer.polling, web.clock()
    assert polling.next_due(now) == now + SHORTEST_INTERVAL
    web.federate()
    assert polling.next_due(now) == now
    web.poll()
    assert polling.next_due(now) == now + SHORTEST_INTERVAL


def test_an_endpoint_that_is_down_for_a_day(web: Federating) -> None:
    """The last good bundle stays, its age grows, and from the fourth interval on it is an alarm."""
    web.federate()
    web.poll()
    heard, port = web.clock(), web.endpoint.port
    web.endpoint.serve(Served(status=503))
    with structlog.testing.capture_logs() as logs:
        for _ in range(24 * 12):
            web.after(seconds=300)
    standing = web.standing
    assert standing.bundle == web.bundle(5)
    assert standing.fetched_at == heard
    assert standing.state(web.clock()) == "overdue"
    assert standing.attempted_at == heard + timedelta(days=1)
    assert web.map.domains[B].fetched_at == heard.replace(minute=0, second=0, microsecond=0)
    levels = [log["log_level"] for log in logs]
    assert levels == ["warning"] * 4 + ["error"] * (24 * 12 - 4)
    assert logs[-1]["age_seconds"] == 86400
    assert _metric(web, "accredit_federation_overdue") == 1
    assert _metric(web, "accredit_federation_silent_seconds") == 86400
    web.endpoint.serve(web.bundle(6))
    assert web.endpoint.port == port
    assert web.after(seconds=300).state(web.clock()) == "current"
    assert _metric(web, "accredit_federation_overdue") == 0


def test_what_is_known_survives_a_restart(web: Federating) -> None:
    """Bundle, age and failure are there again, and nothing is asked before its time."""
    web.federate(allowances=(PAYERS,))
    web.poll()
    web.endpoint.serve(Served(status=503))
    before = web.after(seconds=300)
    published = web.offline.issuer.relationships.published()
    web.offline.reopen()
    assert web.standing == before
    assert web.offline.issuer.relationships.published() == published
    web.poll()
    assert len(web.endpoint.requests) == 2


@pytest.mark.spec("SPIFFE-85")
def test_one_broken_endpoint_spoils_nobody_elses(web: Federating, web_pki: trustme.CA) -> None:
    """All that are due are asked at once, and each has its own failure."""
    with web_endpoint(web_pki) as broken:
        web.federate()
        web.federate(trust_domain=TrustDomain("c.example"), endpoint_url=broken.url)
        assert web.poll().failure is None
        other = web.offline.issuer.relationships.one(TrustDomain("c.example"))
        assert "status 404" in str(other.failure)


def test_refreshing_asks_at_once(web: Federating) -> None:
    """Whoever asks gets what holds after it; nobody unknown is asked."""
    web.federate()
    polling = web.offline.issuer.polling
    assert polling.refresh(B, by=Local("maria")).bundle == web.bundle(5)
    assert polling.refresh(B, by=Local("maria")).attempted_at == web.clock()
    assert len(web.endpoint.requests) == 2
    with pytest.raises(Refusal):
        polling.refresh(TrustDomain("c.example"), by=Local("maria"))
    leaf = json.loads(web.offline.leaves()[-1])
    assert (leaf["kind"], leaf["actor"]) == ("federation.bundle_changed", "maria")


def test_our_own_trouble_is_not_theirs(web: Federating) -> None:
    """An attempt that cannot be recorded is not made again before a minute is over."""
    web.federate()
    web.offline.issuer.writer.close()
    with structlog.testing.capture_logs() as logs:
        for wait, asked in ((0, 1), (0, 1), (59, 1), (1, 2)):
            web.clock.advance(seconds=wait)
            web.offline.issuer.polling.poll_due()
            assert len(web.endpoint.requests) == asked
    now = web.clock()
    assert web.offline.issuer.polling.next_due(now) == now + SHORTEST_INTERVAL
    assert {log["event"] for log in logs} >= {"failure not recorded"}


def test_closing_ends_what_is_under_way(web: Federating) -> None:
    """After it nothing is asked any more."""
    web.federate()
    web.offline.issuer.polling.close()
    web.poll()
    assert web.endpoint.requests == []


def _metric(web: Federating, name: str) -> float:
    text = Metrics(web.offline.issuer).text().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return float(families[name].samples[0].value)

"""Bundles of others and a clock that cannot be believed: nobody is asked, nothing is judged."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from support.authority import Authority
from support.bundle_endpoint import BundleEndpoint, web_endpoint
from support.offline import Offline, offline_issuer

from accredit_credentials.spiffe_id import TrustDomain
from accredit_issuer.clock_guard import AHEAD, BEHIND, ClockWrong
from accredit_issuer.federation import polling
from accredit_issuer.federation.relationships import Standing
from accredit_issuer.federation.rules import Profile, Relationship
from accredit_issuer.registry.changes import Local

B = TrustDomain("b.example")
ADMIN = Local("test")
SECOND = timedelta(seconds=1)


@pytest.fixture
def endpoint() -> Iterator[BundleEndpoint]:
    """The endpoint of b.example; it serves its bundle number 5."""
    with web_endpoint(CA) as made:
        made.serve(replace(Authority("b.example").bundle, sequence=5))
        yield made


@pytest.fixture
def offline(endpoint: BundleEndpoint, tmp_path: Path) -> Iterator[Offline]:
    """An issuer that has heard b.example once; its steady clock stands."""
    file = tmp_path / "web.pem"
    CA.cert_pem.write_to_path(str(file))
    settings: dict[str, Any] = {"federation": {"ca_file": str(file)}}
    with offline_issuer(tmp_path / "issuer", steady=lambda: 1000.0, **settings) as made:
        relationship = Relationship(trust_domain=B, profile=Profile.WEB, endpoint_url=endpoint.url)
        made.issuer.relationships.create(relationship, None, by=ADMIN, now=made.clock())
        made.issuer.polling.poll_due()
        assert standing(made).failure is None
        yield made


CA = trustme.CA()


def standing(offline: Offline) -> Standing:
    """How b.example stands."""
    return offline.issuer.relationships.one(B)


@pytest.mark.parametrize(
    ("by", "believed"),
    [(AHEAD, True), (AHEAD + SECOND, False), (-BEHIND, True), (-BEHIND - SECOND, False)],
)
def test_nobody_is_asked_by_a_wrong_clock(
    by: timedelta, offline: Offline, endpoint: BundleEndpoint, *, believed: bool
) -> None:
    """At the bounds of what is believed an admin is served; a second beyond them nobody asks."""
    before, asked = standing(offline), len(endpoint.requests)
    offline.clock.now += by
    if believed:
        offline.issuer.polling.refresh(B, by=ADMIN)
        assert len(endpoint.requests) == asked + 1
        return
    for ask in (
        offline.issuer.polling.poll_due,
        lambda: offline.issuer.polling.refresh(B, by=ADMIN),
    ):
        with pytest.raises(ClockWrong):
            ask()
    assert (standing(offline), len(endpoint.requests)) == (before, asked)
    # Nothing was dated by it: once it is right again, all goes on as it would have.
    offline.clock.now -= by
    offline.clock.advance(seconds=300)
    offline.issuer.polling.poll_due()
    assert standing(offline).attempted_at == offline.clock()
    assert len(endpoint.requests) == asked + 1


@pytest.mark.parametrize("fails", [True, False])
def test_a_clock_that_goes_wrong_meanwhile_dates_nothing(
    offline: Offline, monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    """Neither a bundle that came nor a failure is written down under a moment that never was."""
    before = standing(offline)
    fetch: Callable[[Any], Any] = polling.fetch

    async def while_it_jumps(asked: Any) -> bytes:
        body: bytes = await fetch(asked)
        offline.clock.advance(days=30)
        return b"" if fails else body

    monkeypatch.setattr(polling, "fetch", while_it_jumps)
    offline.clock.advance(seconds=300)
    offline.issuer.polling.poll_due()
    assert standing(offline) == before

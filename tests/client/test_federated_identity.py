"""Identities that know of other trust domains: the map polled, each feed followed and left."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.authority import Authority
from support.dripping import DRIPS, Dripping
from support.fake_issuer import FakeIssuer, fake_issuer
from support.manual_time import ManualTime, TaskTime

from accredit_client.async_identity import AsyncAgentIdentity
from accredit_client.errors import InvalidAnswer, IssuerRefused
from accredit_client.files import FolderContent, write_folder
from accredit_client.identity import AgentIdentity
from accredit_client.renewal import BUNDLE_POLL
from accredit_client.revocations import MAX_FOREIGN_LIFE, RevocationFeed, once_a_bundle
from accredit_client.wire import Issuer
from accredit_credentials.bundle_map import BundleMap, FederatedDomain
from accredit_credentials.errors import Revoked, Stale, Untrusted

POLL = BUNDLE_POLL + 1
MAP = "/v1/federation/bundles"
ATTEST = "/v1/attestations"
MARKS = ("agent:support/triage",)


@pytest.fixture
def theirs(time: ManualTime, authority: Authority) -> Iterator[FakeIssuer]:
    """The issuer of b.example."""
    with fake_issuer(Authority("b.example", now=authority.now), time.clock) as fake:
        yield fake


@pytest.fixture
def federated(issuer: FakeIssuer, theirs: FakeIssuer) -> FakeIssuer:
    """Our issuer, which has a relationship with b.example."""
    issuer.federation = relationship(theirs, theirs.url)
    return issuer


def relationship(theirs: FakeIssuer, feed_url: str | None) -> BundleMap:
    """A map of one domain."""
    bundle = theirs.authority.bundle
    return BundleMap({bundle.trust_domain: FederatedDomain(bundle, (), feed_url)})


def check(identity: AgentIdentity | AsyncAgentIdentity, theirs: FakeIssuer) -> None:
    """Ask the identity for their facts about an agent."""
    federation, now = identity.federation, theirs.clock()
    assert federation is not None
    domain = federation.domain(theirs.authority.trust_domain, now)
    federation.check_facts(domain, MARKS, now=now, max_age=30)


def wait_through(identity: AgentIdentity, theirs: FakeIssuer, sequence: int) -> None:
    """Until so many of their facts are known."""
    feed = identity._others[theirs.authority.trust_domain].feed
    feed.wait_fresh(20)
    with feed._changed:
        assert feed._changed.wait_for(lambda: feed.state.through >= sequence, 20)


def test_the_map_is_polled_and_sent_once(
    options: dict[str, Any], federated: FakeIssuer, time: ManualTime
) -> None:
    """At least every half minute our issuer is asked, by an agent of ours; unchanged it says so."""
    with closing(AgentIdentity(**options, federation=True)) as identity:
        identity.start(waiter=time)
        assert identity.federation is not None
        first = identity.federation.map
        for _ in range(3):
            time.advance(seconds=POLL)
            time.settle()
        asked = federated.calls_of(MAP)
        assert len(asked) == 4
        assert ["if-none-match" in each.headers for each in asked] == [False, True, True, True]
        assert all(each.serial == identity.x509.svid.serial for each in asked)
        assert identity.federation.map is first


def test_nobody_asks_for_a_map_unasked(
    identity: AgentIdentity, federated: FakeIssuer, time: ManualTime
) -> None:
    """An identity that was not told of federation never asks, and has none."""
    time.advance(seconds=POLL)
    time.settle()
    assert federated.calls_of(MAP) == []
    assert identity.federation is None


def test_each_feed_is_followed_and_left(
    options: dict[str, Any], federated: FakeIssuer, theirs: FakeIssuer, time: ManualTime
) -> None:
    """Their facts arrive while the relationship stands; with it the feed ends."""
    with closing(AgentIdentity(**options, federation=True)) as identity:
        identity.start(waiter=time)
        wait_through(identity, theirs, 0)
        check(identity, theirs)
        theirs.revoke("agent:support/triage")
        wait_through(identity, theirs, 1)
        with pytest.raises(Revoked):
            check(identity, theirs)
        federated.federation = BundleMap()
        time.advance(seconds=POLL)
        time.settle()
        assert identity._others == {}
        names = {thread.name for thread in threading.enumerate()}
        assert "accredit-revocations" not in names


def test_a_fact_of_theirs_holds_for_so_long_at_most(
    options: dict[str, Any], federated: FakeIssuer, theirs: FakeIssuer, time: ManualTime
) -> None:
    """A fact to the bound is believed; one of a second more shuts its own domain out, and why."""
    theirs.revoke("task:other")
    longest = theirs.clock() + MAX_FOREIGN_LIFE
    theirs.facts[0] = replace(theirs.facts[0], expires_at=longest)
    with closing(AgentIdentity(**options, federation=True)) as identity:
        identity.start(waiter=time)
        wait_through(identity, theirs, 1)
        check(identity, theirs)
    theirs.facts[0] = replace(theirs.facts[0], expires_at=longest + timedelta(seconds=1))
    bundle, settled = theirs.authority.bundle, ManualTime(time.clock())
    with Issuer.at(theirs.url, bundle=bundle) as client:
        feed = RevocationFeed(
            client,
            lambda: bundle,
            clock=time.clock,
            waiter=settled,
            max_life=MAX_FOREIGN_LIFE,
        )
        with feed:
            settled.settle()
            assert "fact 1 holds until" in str(feed.last_error)
            with pytest.raises(Stale):
                feed.state.check(MARKS, now=time.clock(), max_age=30)


@pytest.mark.parametrize("first", DRIPS.values(), ids=DRIPS.keys())
def test_a_feed_that_drips_keeps_no_renewal_waiting(
    first: bytes | None,
    options: dict[str, Any],
    federated: FakeIssuer,
    theirs: FakeIssuer,
    time: ManualTime,
) -> None:
    """Their feed begins and never ends; the relationship does, and our identity goes on."""
    with closing(Dripping(theirs.authority, first)) as drip:
        federated.federation = relationship(theirs, drip.url)
        with closing(AgentIdentity(**options, federation=True)) as identity:
            identity.start(waiter=time)
            assert drip.began.wait(20)
            federated.federation = BundleMap()
            for _ in range(2):
                time.advance(seconds=POLL)
                time.settle()
            assert identity._others == {}
            assert identity.status.last_error is None
            assert len(federated.calls_of(MAP)) == 3


def test_a_feed_that_cannot_be_followed_is_a_no(
    options: dict[str, Any], federated: FakeIssuer, theirs: FakeIssuer, time: ManualTime
) -> None:
    """An address that is no issuer's, or another issuer's, brings no facts, and nobody in."""
    federated.federation = relationship(theirs, f"{theirs.url}/path")
    with closing(AgentIdentity(**options, federation=True)) as identity:
        identity.start(waiter=time)
        assert identity._others == {}
        with pytest.raises(Stale):
            check(identity, theirs)
        federated.federation = relationship(theirs, federated.url)
        time.advance(seconds=POLL)
        time.settle()
        assert identity._others
        with pytest.raises(Stale):
            check(identity, theirs)


def test_a_map_with_our_own_name_is_not_taken(
    options: dict[str, Any], issuer: FakeIssuer, time: ManualTime
) -> None:
    """A start goes on without, and says what is wrong; later the old map stays, and grows old."""
    options |= {"federation": True}
    good, issuer.federation = issuer.federation, relationship(issuer, None)
    with closing(AgentIdentity(**options)) as identity:
        identity.start(waiter=time)
        assert isinstance(identity.status.last_error, InvalidAnswer)
        assert identity.federation is not None
        assert identity.federation.map.domains == {}
    issuer.join_tokens.add(options["join_token_file"].read_text())
    issuer.federation = good
    with closing(AgentIdentity(**options)) as identity:
        identity.start(waiter=time)
        issuer.federation = relationship(issuer, None)
        time.advance(seconds=POLL)
        time.settle()
        assert isinstance(identity.status.last_error, InvalidAnswer)
        assert identity.federation is not None
        assert identity.federation.map.domains == {}


def test_a_map_that_fails_once_spends_no_second_join_token(
    options: dict[str, Any], federated: FakeIssuer, theirs: FakeIssuer, time: ManualTime
) -> None:
    """The identity starts without a map, lets nobody of theirs in, and has it soon after."""
    federated.refuse(MAP, "unavailable", status=503)
    with closing(AgentIdentity(**options, federation=True)) as identity:
        identity.start(waiter=time)
        assert len(federated.calls_of(ATTEST)) == 1
        assert isinstance(identity.status.last_error, IssuerRefused)
        with pytest.raises(Untrusted):
            check(identity, theirs)
        time.advance(seconds=POLL)
        time.settle()
        assert identity.status.last_error is None
        wait_through(identity, theirs, 0)
        check(identity, theirs)
        assert len(federated.calls_of(ATTEST)) == 1


def test_an_issuer_without_federation_is_said_at_once(
    options: dict[str, Any], issuer: FakeIssuer, time: ManualTime
) -> None:
    """Who asks for federation where there is none is told at the start."""
    issuer.refuse(MAP, "not-found", status=404)
    with pytest.raises(IssuerRefused, match="not-found"):
        AgentIdentity(**options, federation=True).start(waiter=time)


def test_a_folders_identity_polls_the_map_itself(
    identity: AgentIdentity,
    federated: FakeIssuer,
    theirs: FakeIssuer,
    time: ManualTime,
    tmp_path: Path,
) -> None:
    """The folder has no map: who follows it asks the issuer, with the folder's SVID."""
    folder = tmp_path / "identity"
    write_folder(folder, FolderContent(federated.url, identity.bundle, identity.x509))
    mine = ManualTime(time.clock())
    with closing(AgentIdentity.from_folder(folder, federation=True, clock=mine.clock)) as reader:
        reader.start(waiter=mine)
        wait_through(reader, theirs, 0)
        federated.federation = BundleMap()
        for _ in range(16):
            mine.advance(seconds=2)
            mine.settle()
        assert reader.federation is not None
        assert reader.federation.map.domains == {}
        assert len(federated.calls_of(MAP)) == 2


def test_the_async_twin(
    options: dict[str, Any], federated: FakeIssuer, theirs: FakeIssuer, time: ManualTime
) -> None:
    """In asyncio the map is polled, and each feed followed and left, alike."""
    task_time = TaskTime(time.clock())

    async def follow() -> None:
        identity = AsyncAgentIdentity(**options, federation=True)
        try:
            await identity.start(waiter=task_time)
            feed = identity._others[theirs.authority.trust_domain].feed
            await feed.wait_fresh(20)
            check(identity, theirs)
            federated.federation = BundleMap()
            await identity.refetch_bundle(20)
            await task_time.settle()
            assert identity._others == {}
            federated.federation = relationship(theirs, f"{theirs.url}/path")
        finally:
            await identity.aclose()

    asyncio.run(follow())


def test_a_heartbeat_that_speaks_of_the_same_bundle_asks_once() -> None:
    """Their feed may be ahead of our issuer for a while: each version is asked for once."""
    asked: list[None] = []
    tell = once_a_bundle(lambda: asked.append(None))
    for sequence in (1, 1, 2, 1, 2, None, None):
        tell(sequence)
    assert len(asked) == 4

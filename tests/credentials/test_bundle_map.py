"""The bundle map: bundles by trust domain, each for itself."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from support.authority import NOW, Authority

from accredit_credentials.bundle import MAX_BUNDLE_BYTES, TrustBundle
from accredit_credentials.bundle_map import (
    MAX_DOMAINS,
    MAX_MAP_BYTES,
    MAX_X509_AUTHORITIES,
    BundleMap,
    FederatedDomain,
)
from accredit_credentials.errors import InvalidBundle, InvalidFederation, Untrusted
from accredit_credentials.federation import Agents, Allowance
from accredit_credentials.spiffe_id import TrustDomain
from accredit_credentials.x509_svid import validate

OTHER = TrustDomain("other.example")
ALLOWANCE = Allowance(
    Agents.parse("spiffe://other.example/ns/pay/*"), "https://a.example", ("read",)
)


@pytest.fixture
def bundle_map(authority: Authority, other_authority: Authority) -> BundleMap:
    """Two trust domains, one of which is allowed something."""
    return BundleMap(
        {
            authority.trust_domain: FederatedDomain(authority.bundle),
            OTHER: FederatedDomain(
                other_authority.bundle, (ALLOWANCE,), "https://other.example/feed", NOW
            ),
        },
        refresh_hint=30,
    )


@pytest.fixture
def document(bundle_map: BundleMap) -> dict[str, Any]:
    """Its document."""
    return json.loads(bundle_map.to_json())  # type: ignore[no-any-return]


def read(document: object) -> BundleMap:
    """Parse a document."""
    return BundleMap.parse(json.dumps(document))


@pytest.mark.spec("SPIFFE-56")
@pytest.mark.spec("SPIFFE-92")
def test_what_is_written_is_read_back(bundle_map: BundleMap) -> None:
    """Each bundle stays with its trust domain, its allowances, its feed and its age."""
    assert BundleMap.parse(bundle_map.to_json()) == bundle_map
    assert BundleMap.parse(BundleMap().to_json()) == BundleMap()


@pytest.mark.spec("SPIFFE-56")
def test_the_document_is_that_of_the_specification(document: dict[str, Any]) -> None:
    """Bundles stand by name below ``trust_domains``; ours is one member of each."""
    assert document.keys() == {"trust_domains", "spiffe_refresh_hint"}
    assert document["trust_domains"].keys() == {"example.org", "other.example"}
    other = document["trust_domains"]["other.example"]
    assert other.keys() == {"keys", "spiffe_sequence", "accredit"}
    assert other["accredit"] == {
        "allows": [ALLOWANCE.to_object()],
        "feed_url": "https://other.example/feed",
        "fetched_at": NOW.isoformat().replace("+00:00", "Z"),
    }


@pytest.mark.spec("SPIFFE-56")
def test_a_map_of_others_is_read(other_authority: Authority) -> None:
    """Bundles without our member, and with members that nobody named: trusted, allowed nothing."""
    bundle = json.loads(other_authority.bundle.to_json())
    read_back = read({"trust_domains": {"other.example": bundle}, "more": 1})
    assert read_back.domains[OTHER] == FederatedDomain(other_authority.bundle)
    assert read_back.domains[OTHER].allowances == ()


@pytest.mark.spec("SPIFFE-56")
def test_hints_of_single_bundles_are_not_used(other_authority: Authority) -> None:
    """Only the map's own hint says when to ask again."""
    bundle = {**json.loads(other_authority.bundle.to_json()), "spiffe_refresh_hint": 1}
    read_back = read({"trust_domains": {"other.example": bundle}})
    assert read_back.refresh_hint is None
    assert read_back.bundles[OTHER].refresh_hint is None
    assert "spiffe_refresh_hint" not in read_back.to_json()


@pytest.mark.spec("SPIFFE-56")
@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "{}",
        '{"trust_domains": null}',
        '{"trust_domains": []}',
        '{"trust_domains": {}, "trust_domains": {}}',
        '{"trust_domains": {"b.example": {"keys": []}, "b.example": {"keys": []}}}',
        '{"trust_domains": {"b.example": {"keys": []}, "B.example": {"keys": []}}}',
        '{"trust_domains": {"b.example": {"keys": []}, "spiffe://b.example": {"keys": []}}}',
        '{"trust_domains": {"b.example": {"keys": [], "keys": []}}}',
        '{"trust_domains": {"": {"keys": []}}}',
        '{"trust_domains": {"b.example/x": {"keys": []}}}',
        '{"trust_domains": {"b.example": null, "B.example": {"keys": []}}}',
        '{"trust_domains": {"b.example": null, "b.example": {"keys": []}}}',
        '{"trust_domains": {}, "spiffe_refresh_hint": 0}',
        '{"trust_domains": {}, "spiffe_refresh_hint": true}',
        '{"trust_domains": {}, "spiffe_refresh_hint": "30"}',
        '{"trust_domains": {}, "more": NaN}',
    ],
)
def test_what_is_no_map_is_refused(document: str) -> None:
    """No ``trust_domains``, a name that is none, or one that stands twice in any spelling."""
    with pytest.raises(InvalidBundle):
        BundleMap.parse(document)


@pytest.mark.spec("SPIFFE-56")
@pytest.mark.parametrize("broken", [None, [], {}, "x", 1, {"keys": None}, {"keys": {}}])
def test_a_bundle_that_is_none_is_left_out(broken: object, document: dict[str, Any]) -> None:
    """Of a domain that cannot be read nothing is known but why; the others stand beside it."""
    good = read(document)
    document["trust_domains"]["b.example"] = broken
    found = read(document)
    assert (found.domains, found.refresh_hint) == (good.domains, good.refresh_hint)
    assert found.left_out.keys() == {TrustDomain("b.example")}
    assert "b.example" in found.left_out[TrustDomain("b.example")]
    assert "b.example" not in found.to_json()
    assert good.left_out == {}


def test_what_is_left_out_counts(document: dict[str, Any]) -> None:
    """Broken domains do not make room for more than a map may have."""
    broken = {f"b{n}.example": None for n in range(MAX_DOMAINS)}
    assert len(read({"trust_domains": broken}).left_out) == MAX_DOMAINS
    with pytest.raises(InvalidBundle, match="limit"):
        read({"trust_domains": {**document["trust_domains"], **broken}})


@pytest.mark.parametrize(
    "ours",
    [
        None,
        [],
        {},
        {"allows": [], "feed_url": None},
        {"allows": [], "feed_url": None, "fetched_at": None, "more": 1},
        {"allows": None, "feed_url": None, "fetched_at": None},
        {"allows": [{}], "feed_url": None, "fetched_at": None},
        {"allows": [], "feed_url": 1, "fetched_at": None},
        {"allows": [], "feed_url": "http://other.example", "fetched_at": None},
        {"allows": [], "feed_url": None, "fetched_at": 1},
        {"allows": [], "feed_url": None, "fetched_at": "now"},
        {"allows": [], "feed_url": None, "fetched_at": "2026-01-31T12:00:00"},
        {
            "allows": [{"agents": "spiffe://c.example/*", "resource": "r", "actions": ["read"]}],
            "feed_url": None,
            "fetched_at": None,
        },
    ],
)
def test_our_member_is_read_strictly(ours: object) -> None:
    """What is not understood of it might be a condition: the domain is left out."""
    good = {"keys": [], "accredit": {"allows": [], "feed_url": None, "fetched_at": None}}
    assert read({"trust_domains": {"b.example": good}}).left_out == {}
    found = read({"trust_domains": {"b.example": {**good, "accredit": ours}, "c.example": good}})
    assert found.domains.keys() == {TrustDomain("c.example")}
    assert found.left_out.keys() == {TrustDomain("b.example")}


def test_what_is_tainted_there_is_not_our_matter(other_authority: Authority) -> None:
    """Neither made nor read does the map say which of their authorities are about to go."""
    bundle = replace(other_authority.bundle, tainted=frozenset({"ab"}))
    assert FederatedDomain(bundle).bundle.tainted == frozenset()
    member = json.loads(bundle.to_json())
    assert read({"trust_domains": {OTHER.name: member}}).bundles[OTHER].tainted == frozenset()


def test_a_bundle_is_bounded_by_the_map_alone(other_authority: Authority) -> None:
    """With our member beside it, a bundle of the largest size is no larger than it may be."""
    member = json.loads(other_authority.bundle.to_json())
    member |= {"accredit": {"allows": [], "feed_url": None, "fetched_at": None}}
    member["more"] = "x" * MAX_BUNDLE_BYTES
    read_back = read({"trust_domains": {OTHER.name: member}}).bundles[OTHER]
    assert read_back == replace(other_authority.bundle, refresh_hint=None)
    broken = read({"trust_domains": {OTHER.name: {**member, "keys": None}}})
    assert "other.example" in broken.left_out[OTHER]


def test_a_map_has_limits() -> None:
    """A document of more than 8 MiB is refused unread, and so are more than 64 trust domains."""
    with pytest.raises(InvalidBundle, match="limit"):
        BundleMap.parse("x" * (MAX_MAP_BYTES + 1))
    names = [TrustDomain(f"b{n}.example") for n in range(MAX_DOMAINS + 1)]
    domains = {name: FederatedDomain(TrustBundle(name)) for name in names}
    with pytest.raises(InvalidBundle, match="limit"):
        BundleMap(domains)
    del domains[names[0]]
    assert len(BundleMap(domains).domains) == MAX_DOMAINS


@pytest.mark.spec("SPIFFE-92")
def test_a_bundle_stands_at_its_own_name(other_authority: Authority) -> None:
    """A map in which a bundle stands at another's name cannot be made."""
    with pytest.raises(InvalidBundle, match="stands at"):
        BundleMap({TrustDomain("b.example"): FederatedDomain(other_authority.bundle)})


@pytest.mark.spec("SPIFFE-83")
def test_bundles_are_not_merged(bundle_map: BundleMap, other_authority: Authority) -> None:
    """An authority of one trust domain cannot make IDs of another that stands in the same map."""
    bundles = bundle_map.bundles
    good = other_authority.issue().svid
    assert validate(good, bundles=bundles, now=NOW)
    forged = other_authority.issue(Authority().id()).svid
    with pytest.raises(Untrusted):
        validate(forged, bundles=bundles, now=NOW)


def test_a_moment_has_a_time_zone(other_authority: Authority) -> None:
    """Naive moments are refused, and others are written in UTC."""
    domain = FederatedDomain(other_authority.bundle, fetched_at=NOW.astimezone(UTC))
    with pytest.raises(InvalidFederation, match="time zone"):
        replace(domain, fetched_at=datetime(2026, 1, 1))  # noqa: DTZ001 (the point)


def test_a_domain_has_so_many_authorities_at_most() -> None:
    """32 X.509 authorities of one domain are taken, 33 are refused with both numbers."""
    authority = Authority("b.example")
    root = authority.root.certificate
    most = TrustBundle(authority.trust_domain, (root,) * MAX_X509_AUTHORITIES)
    assert FederatedDomain(most).bundle.x509_authorities == most.x509_authorities
    with pytest.raises(InvalidBundle, match=r"has 33 X\.509 authorities, the limit is 32"):
        FederatedDomain(TrustBundle(authority.trust_domain, (root,) * (MAX_X509_AUTHORITIES + 1)))

"""Which foreign bundle is taken in, and that nothing else changes what is known."""

from dataclasses import replace
from datetime import timedelta

import pytest
import structlog
from support.authority import Authority
from support.bundle_endpoint import Served, redirect
from support.federating import PAYERS, REAL_NOW, SERVER, B, Federating
from support.foreign_bundle import spire_bundle

from accredit_credentials.bundle import TrustBundle
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.federation.polling import WRONG_FILE
from accredit_issuer.federation.rules import Profile
from accredit_issuer.registry.changes import Local


def test_a_bundle_that_goes_back_is_refused(web: Federating) -> None:
    """The known one stays, and the failure says both numbers."""
    web.federate()
    web.poll()
    web.endpoint.serve(web.bundle(4))
    standing = web.after(seconds=300)
    assert standing.bundle == web.bundle(5)
    assert "sequence number 4, 5 is known" in str(standing.failure)
    assert web.map.domains[B].bundle.sequence == 5
    assert [kind for kind, _ in web.records].count("federation.bundle_changed") == 1
    web.endpoint.serve(web.bundle(6))
    assert web.after(seconds=300).failure is None


@pytest.mark.spec("SPIFFE-83")
@pytest.mark.spec("SPIFFE-92")
def test_a_bundle_for_another_domain_is_refused(web: Federating) -> None:
    """Neither a stranger's bundle nor our own becomes b.example's."""
    web.federate()
    web.poll()
    for stranger in (
        replace(Authority("c.example").bundle, sequence=9),
        replace(web.offline.issuer.bundle, sequence=9),
    ):
        web.endpoint.serve(stranger)
        standing = web.after(seconds=300)
        assert "holds an authority of" in str(standing.failure)
        assert standing.bundle == web.bundle(5)


@pytest.mark.parametrize(
    "answer",
    [
        Served(body=b"<html>"),
        Served(body=b"{}"),
        Served(body=b'{"keys": null}'),
        Served(body=b'{"keys": [], "keys": []}'),
        Served(body=b'{"keys": [], "spiffe_sequence": -1}'),
        Served(body=b'{"keys": [], "spiffe_sequence": "9"}'),
        Served(body=b'{"trust_domains": {}}'),
        Served(body=b"\xff\xfe"),
        Served(body=b""),
        Served(body=b'{"keys": []}', padding=10 * 1024 * 1024),
        Served(status=404),
        Served(status=500, body=b"canary-of-the-endpoint"),
        redirect("http://localhost/"),
        redirect("https://me:canary-of-the-endpoint@localhost/"),
        redirect("/bundle"),
    ],
)
def test_what_is_no_bundle_changes_nothing(web: Federating, answer: Served) -> None:
    """The last good one stays, the failure is shown, and nothing that came is repeated."""
    web.federate()
    web.poll()
    before = web.map.domains
    web.endpoint.serve(answer)
    with structlog.testing.capture_logs() as logs:
        standing = web.after(seconds=300)
    assert standing.failure
    assert standing.state(web.clock()) == "failing"
    assert web.map.domains == before
    assert "canary" not in f"{standing.failure}{logs}"
    assert logs[0]["log_level"] == "warning"


@pytest.mark.spec("SPIFFE-54")
def test_a_trust_domain_that_takes_back_its_keys_is_believed(web: Federating) -> None:
    """An empty bundle, newer than the known one, is handed on: nothing of b.example is valid."""
    web.federate()
    web.poll()
    web.endpoint.serve({"keys": [], "spiffe_sequence": 6})
    with structlog.testing.capture_logs() as logs:
        web.after(seconds=300)
    assert web.map.domains[B].bundle == TrustBundle(B, sequence=6)
    assert [(log["log_level"], log["trust_domain"]) for log in logs] == [("error", "b.example")]


@pytest.mark.spec("SPIFFE-90")
def test_a_self_serving_endpoint_is_known_by_its_newest_bundle(
    spiffe: Federating, b_example: Authority
) -> None:
    """First by the bundle that was given; once that was replaced, by no older one."""
    spiffe.federate(
        b_example.bundle, profile=Profile.SPIFFE, endpoint_spiffe_id=SERVER, allowances=(PAYERS,)
    )
    assert spiffe.map.domains[B].bundle.sequence == 1
    assert spiffe.map.domains[B].fetched_at is None, "given, and fetched from nobody"
    assert spiffe.standing.state(spiffe.clock()) == "unconfirmed"
    spiffe.endpoint.serve(Served(status=503))
    assert spiffe.poll().state(spiffe.clock()) == "unconfirmed"
    spiffe.endpoint.serve(spiffe.bundle(5))
    assert spiffe.after(seconds=300).failure is None
    assert spiffe.standing.state(spiffe.clock()) == "current"
    assert spiffe.map.domains[B].bundle.sequence == 5
    # Rounded down, so that the map's tag stays as long as nothing else changes.
    assert spiffe.map.domains[B].fetched_at == spiffe.clock().replace(minute=0)
    # b.example goes on to another root: first announced, then used, and the old one taken away.
    fresh = Authority("b.example", now=REAL_NOW)
    both = (*b_example.bundle.x509_authorities, *fresh.bundle.x509_authorities)
    spiffe.endpoint.serve(spiffe.bundle(6, x509_authorities=both))
    assert spiffe.after(seconds=300).failure is None
    spiffe.endpoint.serve(spiffe.bundle(7, x509_authorities=fresh.bundle.x509_authorities))
    assert spiffe.after(seconds=300).failure is None
    # The endpoint still shows an SVID of the root that its own bundle has given up.
    standing = spiffe.after(seconds=300)
    assert "not the one that is trusted" in str(standing.failure)
    assert WRONG_FILE not in str(standing.failure), "that was long ago"
    assert standing.bundle is not None
    assert standing.bundle.x509_authorities == fresh.bundle.x509_authorities


@pytest.mark.spec("SPIFFE-90")
def test_an_endpoint_of_a_third_trust_domain(spiffe: Federating, b_example: Authority) -> None:
    """It is authenticated by the bundle of its own trust domain, which must be federated first."""
    c = TrustDomain("c.example")
    third = {
        "trust_domain": c,
        "profile": Profile.SPIFFE,
        "endpoint_spiffe_id": SERVER,
        "endpoint_url": spiffe.endpoint.at("/c"),
    }
    with pytest.raises(Refusal, match="not federated") as refusal:
        spiffe.federate(**third)
    assert refusal.value.kind is Kind.CONFLICT
    spiffe.federate(b_example.bundle, profile=Profile.SPIFFE, endpoint_spiffe_id=SERVER)
    spiffe.federate(**third)
    spiffe.endpoint.answers["/c"] = Served(body=Authority("c.example").bundle.to_json().encode())
    spiffe.poll()
    relationships = spiffe.offline.issuer.relationships
    assert set(spiffe.map.domains) == {B, c}
    with pytest.raises(Refusal, match=r"remove that relationship first"):
        relationships.remove(B, by=Local("test"), now=spiffe.clock())
    for each in (c, B):
        relationships.remove(each, by=Local("test"), now=spiffe.clock())
    assert spiffe.map.domains == {}


def test_a_number_is_remembered_through_bundles_without(web: Federating) -> None:
    """Nine, none, three: the third is refused, since it goes back behind the first."""
    web.federate()
    for sequence in (9, None):
        web.endpoint.serve(web.bundle(sequence))
        assert web.after(minutes=10).failure is None
    web.endpoint.serve(web.bundle(3))
    assert "goes back" in str(web.after(minutes=10).failure)
    assert web.map.domains[B].bundle.sequence == 9


@pytest.mark.parametrize("members", [{}, {"spiffe_sequence": 3, "spiffe_refresh_hint": 600}])
def test_a_bundle_of_another_implementation(web: Federating, members: dict[str, int]) -> None:
    """SPIRE's form: RSA and EC roots, several JWT keys, with and without number and hint."""
    foreign = spire_bundle("b.example", **members)
    web.endpoint.serve(foreign)
    web.federate()
    standing = web.poll()
    assert standing.failure is None
    bundle = web.map.domains[B].bundle
    assert len(bundle.x509_authorities) == 2
    assert set(bundle.jwt_authorities) == {k["kid"] for k in foreign["keys"] if "kid" in k}
    assert bundle.sequence == members.get("spiffe_sequence")
    assert standing.interval() == timedelta(seconds=members.get("spiffe_refresh_hint", 300))


def test_an_id_of_the_endpoint_is_compared_as_a_whole(
    spiffe: Federating, b_example: Authority
) -> None:
    """Another server of b.example does not speak for its bundle."""
    other = SpiffeId(B, "/accredit/issuer2")
    spiffe.federate(b_example.bundle, profile=Profile.SPIFFE, endpoint_spiffe_id=other)
    assert "must be spiffe://b.example/accredit/issuer2" in str(spiffe.poll().failure)
    assert spiffe.map.domains[B].bundle.sequence == 1

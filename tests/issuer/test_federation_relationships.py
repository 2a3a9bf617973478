"""Relationships and the map that is made of them: begun, changed, ended, and never too large."""

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from support.authority import Authority
from support.bundle_endpoint import Served
from support.federating import PAYERS, SERVER, B, Federating
from support.foreign_bundle import root, x509_entry

from accredit_credentials.bundle import MAX_BUNDLE_BYTES, TrustBundle
from accredit_credentials.bundle_map import MAX_DOMAINS
from accredit_credentials.spiffe_id import TrustDomain
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.federation.relationships import MAX_ALL_BUNDLES
from accredit_issuer.federation.rules import Profile
from accredit_issuer.registry.changes import Local


@pytest.mark.spec("SPIFFE-84")
@pytest.mark.spec("SPIFFE-92")
def test_a_bundle_is_fetched_and_handed_on(web: Federating) -> None:
    """What the endpoint serves is in the map, at its trust domain, with terms and age."""
    web.federate(allowances=(PAYERS,), feed_url="https://issuer.b.example")
    assert web.map.domains == {}
    assert web.standing.state(web.clock()) == "waiting"
    standing = web.poll()
    assert (standing.state(web.clock()), standing.failure) == ("current", None)
    domain = web.map.domains[B]
    assert domain.bundle == web.bundle(5, refresh_hint=None)
    assert domain.allowances == (PAYERS,)
    assert domain.feed_url == "https://issuer.b.example"
    assert domain.fetched_at == web.clock().replace(minute=0, second=0, microsecond=0)
    assert web.map.refresh_hint == 30


def test_each_change_is_a_record(web: Federating) -> None:
    """Who said what, and which bundle was taken in; the same bundle again is no news."""
    web.federate(allowances=(PAYERS,))
    web.poll()
    web.after(seconds=300)
    web.endpoint.serve(web.bundle(6))
    web.after(seconds=300)
    relationships = web.offline.issuer.relationships
    relationships.allow(B, (), by=Local("test"), now=web.clock())
    relationships.allow(B, (), by=Local("test"), now=web.clock())
    relationships.remove(B, by=Local("test"), now=web.clock())
    kinds = [kind for kind, _ in web.records]
    assert kinds == [
        "federation.added",
        "federation.bundle_changed",
        "federation.bundle_changed",
        "federation.changed",
        "federation.removed",
    ]
    added, first, second, changed, _ = (details for _, details in web.records)
    assert added["allows"] == [PAYERS.to_object()]
    assert added["endpoint_url"] == web.endpoint.url
    assert (first["sequence"], second["sequence"]) == (5, 6)
    assert first["bundle"] != second["bundle"]
    assert changed == {"allows": []}


def test_removing_a_relationship_ends_it(web: Federating) -> None:
    """Bundle and allowances are gone from the map, and the endpoint is not asked any more."""
    web.federate(allowances=(PAYERS,))
    web.poll()
    tag = web.offline.issuer.relationships.published().tag
    web.offline.issuer.relationships.remove(B, by=Local("test"), now=web.clock())
    assert web.map.domains == {}
    assert web.offline.issuer.relationships.published().tag != tag
    web.clock.advance(hours=1)
    web.offline.issuer.polling.poll_due()
    assert len(web.endpoint.requests) == 1
    with pytest.raises(Refusal) as refusal:
        web.offline.issuer.relationships.remove(B, by=Local("test"), now=web.clock())
    assert refusal.value.kind is Kind.NOT_FOUND


def test_a_bundle_for_a_relationship_that_ended_is_not_kept(web: Federating) -> None:
    """Made again meanwhile, it is another relationship: the answer to the old one is dropped."""
    web.federate()
    old, relationships = web.standing, web.offline.issuer.relationships
    relationships.remove(B, by=Local("test"), now=web.clock())
    web.federate()
    with pytest.raises(Refusal):
        relationships.keep(old, web.bundle(9).to_json(), by=Local("test"), now=web.clock())
    relationships.fail(old, "late", by=Local("test"), now=web.clock())
    assert (web.standing.bundle, web.standing.failure) == (None, None)


def test_saying_it_twice_and_saying_something_else(web: Federating) -> None:
    """The same relationship again changes nothing; another under the same name is a conflict."""
    web.federate(allowances=(PAYERS,))
    web.federate(allowances=(PAYERS,))
    assert len(web.records) == 1
    with pytest.raises(Refusal) as refusal:
        web.federate()
    assert refusal.value.kind is Kind.CONFLICT


def test_what_does_not_fit_together_is_refused(web: Federating, b_example: Authority) -> None:
    """A decision against the values is an answer to the caller, and no record."""
    for bootstrap, values in (
        (None, {"trust_domain": web.offline.config.trust_domain}),
        (b_example.bundle, {}),
        (None, {"profile": Profile.SPIFFE, "endpoint_spiffe_id": SERVER}),
    ):
        with pytest.raises(Refusal) as refusal:
            web.federate(bootstrap, **values)
        assert refusal.value.kind is Kind.MALFORMED
    assert web.records == []


def test_a_poll_that_brings_nothing_new_is_no_new_map(web: Federating) -> None:
    """Verifiers are sent the map where something changed; how old it is they learn to the hour."""
    web.clock.advance(seconds=3600 - web.clock().timestamp() % 3600)
    web.federate()
    web.poll()
    relationships = web.offline.issuer.relationships
    tag = relationships.published().tag
    for _ in range(3):
        web.after(minutes=15)
        assert relationships.published().tag == tag
    heard = web.after(minutes=15).fetched_at
    assert relationships.published().tag != tag
    assert web.map.domains[B].fetched_at == heard == web.clock()


def test_a_bundle_as_large_as_may_be_leaves_the_map_readable(web: Federating) -> None:
    """One trust domain at the limit of a bundle takes none of the others along."""
    other = TrustDomain("c.example")
    relationships = web.offline.issuer.relationships
    web.federate(trust_domain=other)
    relationships.keep(
        relationships.one(other),
        Authority("c.example").bundle.to_json(),
        by=Local("test"),
        now=web.clock(),
    )
    web.federate(allowances=(PAYERS,))
    document = json.loads(web.bundle(6).to_json())
    for more in (["x" * 70], ["ab"] * 100, ["ab"] * 30):
        document["accredit_tainted"] = more
        room = MAX_BUNDLE_BYTES - len(json.dumps({**document, "z": ""}))
        body = json.dumps({**document, "z": "x" * room}).encode()
        web.endpoint.serve(Served(body=body))
        assert web.after(minutes=10).failure is None
        assert set(web.map.domains) == {B, other}
        assert web.map.domains[B].bundle.tainted == frozenset()


def test_a_map_that_nobody_could_read_is_not_made(
    web: Federating, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that verifiers could not read is refused as a whole, and leaves no record."""
    web.federate(allowances=(PAYERS,))
    web.poll()
    before, records = web.map, web.records
    monkeypatch.setattr("accredit_credentials.bundle_map.MAX_MAP_BYTES", 10)
    relationships = web.offline.issuer.relationships
    with pytest.raises(Refusal, match="could not read the map") as refusal:
        relationships.allow(B, (), by=Local("test"), now=web.clock())
    assert refusal.value.kind is Kind.TOO_LARGE
    web.endpoint.serve(web.bundle(6))
    assert "could not read the map" in str(web.after(minutes=10).failure)
    with pytest.raises(Refusal, match="could not read the map"):
        web.federate(trust_domain=TrustDomain("c.example"))
    monkeypatch.undo()
    assert (web.map, web.records) == (before, records)


def test_so_many_and_no_more(web: Federating) -> None:
    """The number of trust domains has a limit, and so have their bundles together."""
    for n in range(MAX_DOMAINS):
        web.federate(trust_domain=TrustDomain(f"b{n}.example"))
    with pytest.raises(Refusal, match="64 trust domains") as refusal:
        web.federate(trust_domain=TrustDomain("one-more.example"))
    assert refusal.value.kind is Kind.CONFLICT


def test_all_bundles_together_have_a_bound(web: Federating) -> None:
    """What would make the map too large for verifiers is not taken in."""
    key = ec.generate_private_key(ec.SECP256R1())
    entry = x509_entry(key, root(key, "https://ca.example"))
    plain = {name: entry[name] for name in ("kty", "crv", "x", "y")}
    keys = [{**plain, "use": "jwt-svid", "kid": f"{n:01000}"} for n in range(800)]
    many = TrustBundle.parse(B, json.dumps({"keys": keys}))
    relationships = web.offline.issuer.relationships

    def keep(n: int) -> int:
        domain = TrustDomain(f"b{n}.example")
        web.federate(trust_domain=domain)
        document = replace(many, trust_domain=domain).to_json()
        relationships.keep(relationships.one(domain), document, by=Local("test"), now=web.clock())
        return len(document)

    whole = MAX_ALL_BUNDLES // len(replace(many, trust_domain=B).to_json())
    assert sum(map(keep, range(whole))) <= MAX_ALL_BUNDLES
    with pytest.raises(Refusal, match="together") as refusal:
        keep(whole)
    assert refusal.value.kind is Kind.TOO_LARGE
    assert len(web.map.domains) == whole

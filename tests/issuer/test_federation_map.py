"""The map that the issuer publishes is one that every verifier can read, whole."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.authority import Authority
from support.federating import Federating
from support.offline import offline_issuer

from accredit_credentials.keys import generate_key
from accredit_credentials.spiffe_id import TrustDomain, issuer_id
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.federation.rules import Profile, Relationship
from accredit_issuer.registry.changes import Local

B = TrustDomain("b.example")


def test_a_domain_that_verifiers_would_leave_out_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relationship that could not be read back is refused, by name, and leaves no record."""
    relationship = Relationship(
        trust_domain=B,
        profile=Profile.SPIFFE,
        endpoint_url="https://issuer.b.example/bundle",
        endpoint_spiffe_id=issuer_id(B),
    )
    bundle = replace(Authority("b.example").bundle, sequence=5)
    with offline_issuer(tmp_path / "issuer") as offline:
        relationships, now = offline.issuer.relationships, offline.clock()
        before = offline.issuer.log.frontier.size
        with monkeypatch.context() as others:
            others.setattr("accredit_credentials.bundle_map._OUR_MEMBERS", frozenset())
            with pytest.raises(Refusal, match=r"leave a trust domain out: .*b\.example") as refused:
                relationships.create(relationship, bundle, by=Local("test"), now=now)
        assert refused.value.kind is Kind.CONFLICT
        assert (relationships.all(), offline.issuer.log.frontier.size) == ((), before)
        relationships.create(relationship, bundle, by=Local("test"), now=now)
        assert len(relationships.all()) == 1


@pytest.mark.spec("SPIFFE-50")
def test_wit_keys_of_others_are_passed_on(web: Federating) -> None:
    """Verifiers get them as what they are: keys of that trust domain for WIT-SVIDs only."""
    keys = {"wit-1": generate_key().public_key()}
    web.endpoint.serve(web.bundle(6, wit_authorities=keys))
    web.federate()
    web.poll()
    known = web.map.bundles[B]
    assert known.wit_authorities == keys
    assert known.jwt_authorities == web.b_example.bundle.jwt_authorities

"""go-spiffe, the reference of the field: bundles and federation in both directions, JWT-SVIDs."""

import json
from pathlib import Path
from typing import Any

import pytest
import trustme
from support.go_spiffe import B, Endpoint
from support.interop_world import World
from support.judges import Verdict, ask

from accredit_client import calls
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.federation import Allowance
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain, issuer_id

OURS = "example.org"


def known(bundle: TrustBundle) -> dict[str, Any]:
    """What go-spiffe should find in a bundle."""
    return {
        "trust_domain": str(bundle.trust_domain),
        "x509_authorities": len(bundle.x509_authorities),
        "jwt_authorities": sorted(bundle.jwt_authorities),
        "wit_authorities": sorted(bundle.wit_authorities),
        "sequence": bundle.sequence,
        "refresh_hint": bundle.refresh_hint,
    }


def bundle_file(world: World) -> Path:
    """Our bundle in a file."""
    file = world.folder / "bundle.json"
    file.write_text(world.running.bundle.to_json())
    return file


@pytest.mark.spec("SPIFFE-23")
@pytest.mark.spec("SPIFFE-35")
@pytest.mark.spec("SPIFFE-52")
@pytest.mark.spec("SPIFFE-53")
def test_go_spiffe_reads_our_bundle(world: World, judge: Path) -> None:
    """Every authority, key id, sequence and hint is found again."""
    verdict = ask(judge, "read", OURS, bundle_file(world))
    assert verdict.accepted, verdict.text
    assert json.loads(verdict.text) == known(world.running.bundle)


@pytest.mark.spec("SPIFFE-84")
@pytest.mark.spec("SPIFFE-87")
@pytest.mark.spec("SPIFFE-88")
@pytest.mark.spec("SPIFFE-90")
def test_go_spiffe_fetches_our_bundle(world: World, judge: Path) -> None:
    """Over https_spiffe, knowing our bundle and our endpoint's ID, and showing no certificate."""

    def fetch(endpoint: str) -> Verdict:
        url = f"{world.running.url}/v1/bundle"
        return ask(judge, "fetch-spiffe", OURS, url, bundle_file(world), endpoint)

    verdict = fetch(str(issuer_id(TrustDomain(OURS))))
    assert verdict.accepted, verdict.text
    assert json.loads(verdict.text) == known(world.running.bundle)
    assert not fetch(f"spiffe://{OURS}/accredit/other").accepted


def test_go_spiffe_wants_a_web_certificate_where_it_should(
    world: World, judge: Path, tmp_path: Path
) -> None:
    """The issuer's own port is no https_web endpoint: a Web CA does not vouch for it."""
    roots = tmp_path / "web.pem"
    trustme.CA().cert_pem.write_to_path(roots)
    assert not ask(judge, "fetch-web", OURS, f"{world.running.url}/v1/bundle", roots).accepted


def test_go_spiffe_accepts_our_jwt_svid(world: World, judge: Path) -> None:
    """A JWT-SVID of ours is valid for its audience, and for no other."""
    with world.running.connect(world.identity) as client:
        token = client.send(calls.jwt_svid(audience=("https://api",))).token
    verdict = ask(judge, "jwt", OURS, bundle_file(world), "https://api", token)
    assert verdict.accepted, verdict.text
    assert json.loads(verdict.text) == {"spiffe_id": str(world.identity.svid.spiffe_id)}
    assert not ask(judge, "jwt", OURS, bundle_file(world), "https://other", token).accepted


def test_a_bundle_of_go_spiffes_making_is_read(theirs: Endpoint) -> None:
    """RSA and EC keys, their ids, the root, sequence and hint: all that they wrote is there."""
    assert known(theirs.bundle) == {
        "trust_domain": "b.example",
        "x509_authorities": 1,
        "jwt_authorities": ["ec-1", "rsa-1"],
        "wit_authorities": [],
        "sequence": 42,
        "refresh_hint": 90,
    }


@pytest.mark.spec("SPIFFE-84")
@pytest.mark.spec("SPIFFE-90")
def test_our_issuer_federates_with_go_spiffe(world: World, theirs: Endpoint) -> None:
    """Their endpoint is polled in the profile https_spiffe, and its bundle handed on as theirs."""
    allowance = Allowance.of_object(
        {"agents": "spiffe://b.example/*", "resource": "https://tickets", "actions": ["read"]}
    )
    with world.running.connect(world.admin.identity) as client:
        client.send(
            calls.federate(
                trust_domain=B,
                profile="https_spiffe",
                endpoint_url=theirs.url,
                endpoint_spiffe_id=theirs.spiffe_id,
                bundle=theirs.bundle,
                allowances=[allowance],
            )
        )
        try:
            refreshed = client.send(calls.refresh_federated(B))
            assert (refreshed.state, refreshed.failure) == ("current", None)
        finally:
            client.send(calls.end_federation(B))


def test_an_endpoint_under_another_name_is_refused(world: World, theirs: Endpoint) -> None:
    """The endpoint's SVID has to be the one that was configured."""
    with world.running.connect(world.admin.identity) as client:
        client.send(
            calls.federate(
                trust_domain=B,
                profile="https_spiffe",
                endpoint_url=theirs.url,
                endpoint_spiffe_id=SpiffeId(B, "/bundle/other"),
                bundle=theirs.bundle,
            )
        )
        try:
            refreshed = client.send(calls.refresh_federated(B))
            assert refreshed.state == "unconfirmed"
            assert refreshed.failure
        finally:
            client.send(calls.end_federation(B))

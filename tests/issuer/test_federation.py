"""Two issuers that federate, over real TLS: what passes between them, and what never does."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from support.authority import Authority
from support.bundle_endpoint import Served, spiffe_endpoint
from support.issuer import (
    Admin,
    RunningIssuer,
    attest,
    join_token_file,
    log_in,
    make_config,
    register,
    running_issuer,
    serving,
    write_agent,
)
from support.judges import library
from support.raw_http import RawClient

from accredit_attestors.manifest import generate_signer_key
from accredit_client import calls
from accredit_credentials.bundle_map import BundleMap
from accredit_credentials.errors import Untrusted
from accredit_credentials.federation import Agents, Allowance
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain, issuer_id
from accredit_credentials.x509_svid import X509Identity, validate
from accredit_issuer.clock import system_clock
from accredit_issuer.federation.rules import Profile, Relationship
from accredit_issuer.issuer import initialise, open_issuer
from accredit_issuer.registry.changes import Local

A, B = TrustDomain("a.example"), TrustDomain("b.example")
ALLOWANCE = Allowance(
    Agents.parse("spiffe://b.example/ns/support/*"), "https://ledger.a.example", ("read",)
)


@dataclass
class Side:
    """One issuer, its admin, and one of its agents."""

    running: RunningIssuer
    admin: Admin
    agent: X509Identity

    def ask(
        self, method: str, path: str, body: Any = None, *, who: X509Identity | None = None
    ) -> Any:
        """Ask as the admin, or as somebody else."""
        client = RawClient.at(self.running.url, self.running.bundle, who or self.admin.identity)
        return client.ask(method, path, body)

    @property
    def map(self) -> BundleMap:
        """The bundle map, as an agent gets it."""
        answer = self.ask("GET", "/v1/federation/bundles", who=self.agent)
        assert answer.status == 200
        return BundleMap.parse(answer.body)

    def federate(self, other: "Side", *allowances: Allowance) -> Any:
        """Begin a relationship with another issuer, and fetch its bundle."""
        name = other.running.bundle.trust_domain
        self.admin.send(
            calls.federate(
                trust_domain=name,
                profile="https_spiffe",
                endpoint_url=f"{other.running.url}/v1/bundle",
                endpoint_spiffe_id=issuer_id(name),
                bundle=other.running.bundle,
                feed_url=other.running.url,
                allowances=allowances,
            )
        )
        return self.admin.send(calls.refresh_federated(name))


def _side(stack: ExitStack, folder: Path, trust_domain: TrustDomain) -> Side:
    running = stack.enter_context(running_issuer(folder / "issuer", trust_domain=str(trust_domain)))
    admin = log_in(running, running.first_token)
    agent = write_agent(folder / "agent", key=generate_signer_key(), now=system_clock())
    register(running, admin, agent)
    return Side(running, admin, attest(running, agent, join_token_file(admin, agent)))


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    """a.example and b.example, which federate with each other; a allows something, b nothing."""
    with ExitStack() as stack:
        a = _side(stack, tmp_path_factory.mktemp("a"), A)
        b = _side(stack, tmp_path_factory.mktemp("b"), B)
        assert a.federate(b, ALLOWANCE).failure is None
        assert b.federate(a).failure is None
        yield a, b


@pytest.mark.spec("SPIFFE-90")
@pytest.mark.spec("SPIFFE-92")
def test_each_knows_the_others_bundle(sides: tuple[Side, Side]) -> None:
    """Fetched from the other's own bundle endpoint, by its SPIFFE ID, and bound to its name."""
    a, b = sides
    for here, there in ((a, b), (b, a)):
        other = there.running.bundle
        domain = here.map.domains[other.trust_domain]
        assert domain.bundle == replace(other, refresh_hint=None)
        assert domain.feed_url == there.running.url
        assert validate(there.agent.svid, bundles=here.map.bundles, now=system_clock())
    assert a.map.domains[B].allowances == (ALLOWANCE,)
    assert b.map.domains[A].allowances == ()


@pytest.mark.spec("SPIFFE-56")
def test_the_map_holds_others_only(sides: tuple[Side, Side]) -> None:
    """Our own bundle is not in it; members and hint are those of the specification."""
    a, _ = sides
    document = json.loads(a.ask("GET", "/v1/federation/bundles").body)
    assert set(document["trust_domains"]) == {"b.example"}
    assert document["spiffe_refresh_hint"] == 30
    assert "spiffe_refresh_hint" not in document["trust_domains"]["b.example"]


def test_an_unchanged_map_costs_nothing(sides: tuple[Side, Side]) -> None:
    """Who knows the newest map is told so; a change of terms is another map."""
    a, _ = sides
    client = RawClient.at(a.running.url, a.running.bundle, a.agent)
    first = client.ask("GET", "/v1/federation/bundles")
    assert first.headers["cache-control"] == "private, max-age=30"
    known = {"If-None-Match": first.headers["etag"]}
    again = client.ask("GET", "/v1/federation/bundles", headers=known)
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    a.admin.send(calls.allow_federated(B, []))
    changed = client.ask("GET", "/v1/federation/bundles", headers=known)
    assert changed.status == 200
    assert BundleMap.parse(changed.body).domains[B].allowances == ()
    a.admin.send(calls.allow_federated(B, [ALLOWANCE]))
    assert a.map.domains[B].allowances == (ALLOWANCE,)


@pytest.mark.spec("SPIFFE-83")
def test_a_federated_svid_calls_nobody_here(sides: tuple[Side, Side]) -> None:
    """Neither an agent nor an admin of b gets through a's handshake, nor the other way round."""
    a, b = sides
    for here, there in ((a, b), (b, a)):
        for stranger in (there.agent, there.admin.identity):
            for path in ("/v1/whoami", "/v1/bundle", "/v1/federation/bundles"):
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    here.ask("GET", path, who=stranger)


@pytest.mark.spec("SPIFFE-83")
@pytest.mark.parametrize("path", ["/admin/first", "/ns/support/agent/summarizer", "/x"])
def test_a_federated_ca_makes_nobody_of_ours(sides: tuple[Side, Side], path: str) -> None:
    """An SVID of our own names under a federated trust domain's CA is refused, by all."""
    a, _ = sides
    c = Authority("c.example", now=datetime.now(UTC).replace(microsecond=0))
    with spiffe_endpoint(c.issue(issuer_id(c.trust_domain))) as endpoint:
        endpoint.serve(c.bundle)
        call = calls.federate(
            trust_domain=c.trust_domain,
            profile="https_spiffe",
            endpoint_url=endpoint.url,
            endpoint_spiffe_id=issuer_id(c.trust_domain),
            bundle=c.bundle,
        )
        a.admin.send(call)
        assert a.admin.send(calls.refresh_federated(c.trust_domain)).failure is None
    federated = a.map.bundles
    forged = c.issue(SpiffeId(A, path))
    for stranger in (forged, c.issue(c.id(path))):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            a.ask("GET", "/v1/whoami", who=stranger)
    a.admin.send(calls.end_federation(c.trust_domain))
    bundles = {**federated, A: a.running.bundle}
    assert validate(c.issue(c.id(path)).svid, bundles=bundles, now=system_clock())
    with pytest.raises(Untrusted):
        validate(forged.svid, bundles=bundles, now=system_clock())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"trust_domain": "a.example"}, "own trust domain"),
        ({"trust_domain": "A.EXAMPLE"}, "own trust domain"),
        ({"trust_domain": "b/example"}, "trust domain"),
        ({"endpoint_url": "http://d.example/"}, "https://"),
        ({"endpoint_url": "https://me:canary@d.example/"}, "user name"),
        ({"endpoint_spiffe_id": "spiffe://d.example/x"}, "endpoint_spiffe_id"),
        ({"bundle": {"keys": []}}, "first bundle"),
        ({"bundle": {"keys": {}}}, "'keys'"),
        ({"feed_url": "https://me:canary@d.example/"}, "user name"),
        ({"feed_url": "https://d.example/v1/bundle"}, "feed_url must be https://host[:port]"),
        ({"feed_url": "https://d.example?"}, "without a path"),
        ({"allows": [{**ALLOWANCE.to_object(), "resource": "ledger"}]}, "must be a URL"),
        ({"allows": [{"agents": "spiffe://b.example/*"}]}, "allowance"),
        ({"allows": [{**ALLOWANCE.to_object()}]}, "not of the trust domain"),
        ({"profile": "https"}, "profile"),
        ({"refresh": 1}, "refresh"),
    ],
)
def test_what_does_not_hold_is_not_federated(
    sides: tuple[Side, Side], body: dict[str, Any], said: str
) -> None:
    """One wrong value, and nothing is made; what was wrong is said, and no secret."""
    a, _ = sides
    good = {
        "trust_domain": "d.example",
        "profile": "https_web",
        "endpoint_url": "https://d.example/bundle",
    }
    before = a.ask("GET", "/v1/federation").json
    answer = a.ask("POST", "/v1/federation", {**good, **body})
    assert answer.kind == "malformed"
    assert said in answer.json["detail"]
    assert b"canary" not in answer.body
    assert len(a.ask("GET", "/v1/federation").json["relationships"]) == len(before["relationships"])


def test_a_relationship_is_removed_once(sides: tuple[Side, Side]) -> None:
    """What is removed is gone from lists and map, and known to the log."""
    a, _ = sides
    good = {"profile": "https_web", "endpoint_url": "https://127.0.0.1:1/"}
    assert a.ask("POST", "/v1/federation", {**good, "trust_domain": "e.example"}).status == 201
    assert a.ask("DELETE", "/v1/federation/e.example").status == 204
    assert a.ask("DELETE", "/v1/federation/e.example").kind == "not-found"
    listed = a.ask("GET", "/v1/federation").json["relationships"]
    assert "e.example" not in {each["trust_domain"] for each in listed}
    entries = a.ask("GET", "/v1/log/entries?start=0&limit=512").json["entries"]
    kinds = [
        entry["record"]["kind"]
        for entry in entries
        if entry["record"]["subject"] == "spiffe://e.example"
    ]
    assert kinds == ["federation.added", "federation.removed"]


@pytest.mark.interop
def test_py_spiffe_reads_what_we_hand_on(sides: tuple[Side, Side]) -> None:
    """py-spiffe verifies b's JWT-SVID and reads b's roots with the bundle out of a's map."""
    a, b = sides
    spiffe = library("spiffe", "spiffe")
    domain = spiffe.TrustDomain("b.example")
    document = json.loads(a.ask("GET", "/v1/federation/bundles").body)
    keys = document["trust_domains"]["b.example"]["keys"]
    jwt_keys = [key for key in keys if key["use"] == "jwt-svid"]
    bundle = spiffe.JwtBundle.parse(domain, json.dumps({"keys": jwt_keys}).encode())
    token = b.running.connect(b.agent).send(calls.jwt_svid(audience=["https://a"])).token
    svid = spiffe.JwtSvid.parse_and_validate(token, bundle, {"https://a"})
    assert str(svid.spiffe_id) == str(b.agent.svid.spiffe_id)
    roots = spiffe.X509Bundle.parse(domain, a.map.bundles[B].x509_pem.encode()).x509_authorities
    assert {root.public_bytes(Encoding.DER) for root in roots} == {
        root.public_bytes(Encoding.DER) for root in b.running.bundle.x509_authorities
    }


def test_a_slow_endpoint_keeps_no_request_waiting(sides: tuple[Side, Side]) -> None:
    """While one endpoint is silent, everybody else is answered."""
    a, _ = sides
    f = Authority("f.example", now=datetime.now(UTC).replace(microsecond=0))
    with spiffe_endpoint(f.issue(issuer_id(f.trust_domain))) as endpoint:
        endpoint.serve(Served(silent=True))
        a.admin.send(
            calls.federate(
                trust_domain=f.trust_domain,
                profile="https_spiffe",
                endpoint_url=endpoint.url,
                endpoint_spiffe_id=issuer_id(f.trust_domain),
                bundle=f.bundle,
            )
        )
        answers: list[Any] = []
        thread = threading.Thread(
            target=lambda: answers.append(a.ask("POST", "/v1/federation/f.example/refresh", {}))
        )
        thread.start()
        assert endpoint.asked.wait(20)
        assert a.ask("GET", "/v1/whoami").status == 200
        assert f.trust_domain in a.map.domains
        assert a.ask("GET", "/health/ready").json["ready"] is True
        assert answers == []
        endpoint.stopped.set()
        thread.join(20)
    assert "did not answer" in answers[0].json["failure"]
    a.admin.send(calls.end_federation(f.trust_domain))


def test_a_starting_issuer_asks_what_is_due(tmp_path: Path) -> None:
    """Nobody has to say so: the scheduler asks for a bundle that was never fetched."""
    g = Authority("g.example", now=datetime.now(UTC).replace(microsecond=0))
    config = make_config(tmp_path / "issuer")
    initialise(config, system_clock)
    with spiffe_endpoint(g.issue(issuer_id(g.trust_domain))) as endpoint:
        endpoint.serve(replace(g.bundle, sequence=2))
        issuer = open_issuer(config, system_clock)
        asked = Relationship(
            trust_domain=g.trust_domain,
            profile=Profile.SPIFFE,
            endpoint_url=endpoint.url,
            endpoint_spiffe_id=issuer_id(g.trust_domain),
        )
        issuer.relationships.create(asked, g.bundle, by=Local("test"), now=system_clock())
        issuer.close()
        with serving(config):
            assert endpoint.asked.wait(20)

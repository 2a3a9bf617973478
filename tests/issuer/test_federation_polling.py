"""Keeping foreign bundles: what is taken in, what stays, when somebody is told."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client.parser import text_string_to_metric_families
from support.authority import Authority
from support.bundle_endpoint import (
    BundleEndpoint,
    Served,
    redirect,
    spiffe_endpoint,
    web_endpoint,
)
from support.clock import SettableClock
from support.foreign_bundle import root, spire_bundle, x509_entry
from support.offline import Offline, offline_issuer

from accredit_credentials.bundle import MAX_BUNDLE_BYTES, TrustBundle
from accredit_credentials.bundle_map import MAX_DOMAINS, BundleMap
from accredit_credentials.federation import Agents, Allowance
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain, issuer_id
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.federation.polling import WRONG_FILE
from accredit_issuer.federation.relationships import MAX_ALL_BUNDLES, Standing
from accredit_issuer.federation.rules import SHORTEST_INTERVAL, Profile, Relationship
from accredit_issuer.metrics import Metrics
from accredit_issuer.registry.changes import Local

B = TrustDomain("b.example")
SERVER = issuer_id(B)
PAYERS = Allowance(Agents.parse("spiffe://b.example/ns/pay/*"), "https://ledger", ("read",))
REAL_NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass
class Federating:
    """An issuer without sockets, and an endpoint of b.example with them."""

    offline: Offline
    endpoint: BundleEndpoint
    b_example: Authority

    @property
    def clock(self) -> SettableClock:
        """The issuer's clock."""
        return self.offline.clock

    def federate(self, bootstrap: TrustBundle | None = None, **values: Any) -> None:
        """Begin a relationship: https_web with nothing allowed, unless it is said otherwise."""
        good: dict[str, Any] = {
            "trust_domain": B,
            "profile": Profile.WEB,
            "endpoint_url": self.endpoint.url,
        }
        self.offline.issuer.relationships.create(
            Relationship(**{**good, **values}), bootstrap, by=Local("test"), now=self.clock()
        )

    def poll(self) -> Standing:
        """What the scheduler does now; how b.example stands after it."""
        self.offline.issuer.polling.poll_due()
        return self.standing

    def after(self, **span: float) -> Standing:
        """Time passes, and the scheduler looks."""
        self.clock.advance(**span)
        return self.poll()

    @property
    def standing(self) -> Standing:
        """How b.example stands."""
        return self.offline.issuer.relationships.one(B)

    @property
    def map(self) -> BundleMap:
        """What verifiers get."""
        return BundleMap.parse(self.offline.issuer.relationships.published().document)

    @property
    def records(self) -> list[tuple[str, dict[str, Any]]]:
        """What the log says of federation: kind and details."""
        values = map(json.loads, self.offline.leaves())
        return [(v["kind"], v["details"]) for v in values if v["kind"].startswith("federation.")]

    def bundle(self, sequence: int | None, **changes: Any) -> TrustBundle:
        """b.example's bundle, with a sequence number."""
        return replace(self.b_example.bundle, sequence=sequence, **changes)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    """The CA that stands for the Web PKI."""
    return trustme.CA()


@pytest.fixture
def b_example() -> Authority:
    """Another trust domain, valid by the real clock for days."""
    return Authority("b.example", now=REAL_NOW)


@contextmanager
def offline_with(ca: trustme.CA, folder: Path) -> Iterator[Offline]:
    """An issuer that takes ``ca`` for the Web PKI."""
    file = folder / "web.pem"
    ca.cert_pem.write_to_path(str(file))
    with offline_issuer(folder / "issuer", federation={"ca_file": str(file)}) as offline:
        yield offline


@pytest.fixture
def web(ca: trustme.CA, tmp_path: Path, b_example: Authority) -> Iterator[Federating]:
    """An issuer, and an https_web endpoint that serves b.example's bundle number 5."""
    with offline_with(ca, tmp_path) as offline, web_endpoint(ca) as endpoint:
        made = Federating(offline, endpoint, b_example)
        endpoint.serve(made.bundle(5))
        yield made


@pytest.fixture
def spiffe(ca: trustme.CA, tmp_path: Path, b_example: Authority) -> Iterator[Federating]:
    """An issuer, and an https_spiffe endpoint that serves b.example's bundle number 5."""
    with (
        offline_with(ca, tmp_path) as offline,
        spiffe_endpoint(b_example.issue(SERVER)) as endpoint,
    ):
        made = Federating(offline, endpoint, b_example)
        endpoint.serve(made.bundle(5))
        yield made


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


def test_a_number_is_remembered_through_bundles_without(web: Federating) -> None:
    """Nine, none, three: the third is refused, since it goes back behind the first."""
    web.federate()
    for sequence in (9, None):
        web.endpoint.serve(web.bundle(sequence))
        assert web.after(minutes=10).failure is None
    web.endpoint.serve(web.bundle(3))
    assert "goes back" in str(web.after(minutes=10).failure)
    assert web.map.domains[B].bundle.sequence == 9


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


@pytest.mark.spec("SPIFFE-85")
def test_one_broken_endpoint_spoils_nobody_elses(web: Federating, ca: trustme.CA) -> None:
    """All that are due are asked at once, and each has its own failure."""
    with web_endpoint(ca) as broken:
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


def _metric(web: Federating, name: str) -> float:
    text = Metrics(web.offline.issuer).text().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return float(families[name].samples[0].value)


def test_an_id_of_the_endpoint_is_compared_as_a_whole(
    spiffe: Federating, b_example: Authority
) -> None:
    """Another server of b.example does not speak for its bundle."""
    other = SpiffeId(B, "/accredit/issuer2")
    spiffe.federate(b_example.bundle, profile=Profile.SPIFFE, endpoint_spiffe_id=other)
    assert "must be spiffe://b.example/accredit/issuer2" in str(spiffe.poll().failure)
    assert spiffe.map.domains[B].bundle.sequence == 1

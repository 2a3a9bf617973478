"""Agents of another trust domain: accepted for what was allowed, by their own domain's word."""

import asyncio
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from support.authority import Authority
from support.fake_issuer import AUDIENCE
from support.world import URL, World

from accredit_client.asgi import Rule, TaskTokenMiddleware
from accredit_client.errors import InvalidAnswer
from accredit_client.federation import MAP_STALENESS, Federation
from accredit_client.guard import Guard
from accredit_client.thumbprint import certificate_thumbprint
from accredit_client.verify import TaskTokenVerifier, TokenRequest
from accredit_credentials import jws, task_token
from accredit_credentials.bundle_map import BundleMap, FederatedDomain
from accredit_credentials.errors import (
    Expired,
    InvalidToken,
    NotGranted,
    Revoked,
    Stale,
    Untrusted,
    WrongAudience,
    WrongHolder,
)
from accredit_credentials.federation import Agents, Allowance
from accredit_credentials.revocation_feed import FeedState
from accredit_credentials.spiffe_id import SpiffeId
from accredit_credentials.task_token import Binding, BindingKind, Grant
from accredit_credentials.x509_svid import X509Identity

GRANT = {"resource": "tickets", "action": "read"}
FEED = "https://issuer.b.example:8443"
GRANTS = (Grant(resource="tickets", location=AUDIENCE, actions=("read", "comment")),)


@dataclass
class Followed:
    """The other domain's feed, as if it were followed."""

    state: FeedState
    last_error: Exception | None = None


@dataclass
class Meeting:
    """Our resource server, and an agent of b.example at its door."""

    ours: World
    theirs: World
    federation: Federation = field(init=False)
    domain: FederatedDomain = field(init=False)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.federation = Federation(lambda: self.ours.now)
        self.feed = Followed(self.theirs.facts)
        name = self.theirs.authority.trust_domain
        agents = Agents.parse(f"{name.id}/ns/support/*")
        self.domain = FederatedDomain(
            self.theirs.bundle,
            (Allowance(agents, AUDIENCE, ("read",)),),
            FEED,
            self.ours.now - timedelta(seconds=40),
        )
        self.publish()
        self.federation.followed({name: (FEED, self.feed)})
        self.verifier = self.make()

    def make(self, **options: Any) -> TaskTokenVerifier:
        """A verifier of ours."""
        return self.ours.verifier(**{"federation": self.federation, **options})

    def publish(self, **changes: Any) -> None:
        """Let our issuer say something else of the relationship."""
        self.domain = replace(self.domain, **changes)
        self.take(BundleMap({self.theirs.authority.trust_domain: self.domain}))

    def take(self, told: BundleMap) -> None:
        """Hold a map."""
        self.federation.take(told, own=self.ours.authority.trust_domain)

    def token(self, **fields: Any) -> str:
        """A token of theirs that grants more than we allow."""
        return self.theirs.token(**{"issuer": "https://b.example", "grants": GRANTS, **fields})

    def request(self, **changes: Any) -> TokenRequest:
        """A request of their agent."""
        values: dict[str, Any] = {
            "scheme": "bearer",
            "token": self.token(),
            "certificate": self.theirs.certificate,
            "chain": self.theirs.identity.svid.der,
            "method": "GET",
            "url": URL,
            **changes,
        }
        return TokenRequest(**values)

    def ask(self, *, action: str = "read", **changes: Any) -> task_token.TaskToken:
        """What our server says."""
        request = self.request(**changes)
        return self.verifier.verify_request(request, resource="tickets", action=action)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and everything be told again."""
        self.ours.now += timedelta(seconds=seconds)
        self.theirs.now = self.ours.now
        self.ours.hear()
        self.theirs.hear()
        self.publish()


@pytest.fixture
def meeting(authority: Authority) -> Meeting:
    """An agent of b.example at our door."""
    other = Authority("b.example", now=authority.now)
    return Meeting(World(authority, authority.now), World(other, authority.now))


def test_an_allowed_agent_is_accepted_for_what_is_allowed(meeting: Meeting) -> None:
    """The agent does what the relationship allows, and not the next action, whoever granted it."""
    assert meeting.ask().client == meeting.theirs.identity.svid.spiffe_id
    with pytest.raises(NotGranted, match=r"'comment' is not allowed to agents of b\.example"):
        meeting.ask(action="comment")


@pytest.mark.parametrize("broken", ["theirs", "another"])
def test_a_domain_that_cannot_be_read_is_refused_alone(
    broken: str, meeting: Meeting, caplog: pytest.LogCaptureFixture
) -> None:
    """Its agents are nobody, and log and status name it; the others' are served as before."""
    name = "b.example" if broken == "theirs" else "c.example"
    document = json.loads(meeting.federation.map.to_json())
    document["trust_domains"][name] = {"keys": 1}
    for _ in range(2):
        meeting.take(BundleMap.parse(json.dumps(document)))
    if broken == "theirs":
        with pytest.raises(Untrusted, match=r"no authorities known for .*b\.example"):
            meeting.ask()
    else:
        assert meeting.ask().client.trust_domain.name == "b.example"
    assert [each.getMessage().partition(":")[0] for each in caplog.records] == [
        f"nobody of {name} is let in"
    ]
    told = {each.trust_domain.name: each.left_out for each in meeting.federation.status()}
    assert [left for left, why in told.items() if why] == [name]
    ours = meeting.ours
    request = meeting.request(
        token=ours.token(), certificate=ours.certificate, chain=ours.identity.svid.der
    )
    assert meeting.verifier.verify_request(request, **GRANT)


def test_our_own_domain_is_never_left_out(meeting: Meeting) -> None:
    """A map that speaks for us, readable or not, is refused as a whole; the old one stays."""
    before = meeting.federation.map
    document = json.loads(before.to_json())
    document["trust_domains"][meeting.ours.authority.trust_domain.name] = {"keys": 1}
    with pytest.raises(InvalidAnswer):
        meeting.take(BundleMap.parse(json.dumps(document)))
    assert meeting.federation.map is before


def test_our_own_agents_are_served_beside_them(meeting: Meeting) -> None:
    """Federation changes nothing for agents of our own."""
    ours = meeting.ours
    request = meeting.request(
        token=ours.token(), certificate=ours.certificate, chain=ours.identity.svid.der
    )
    assert meeting.verifier.verify_request(request, **GRANT).client.trust_domain.name == (
        "example.org"
    )


def test_without_being_told_nobody_is_federated(meeting: Meeting) -> None:
    """A verifier that was not told of federation knows nobody else, bound in either way."""
    meeting.verifier = meeting.make(federation=None)
    with pytest.raises(Untrusted):
        meeting.ask()
    with pytest.raises(Untrusted):
        meeting.ask(certificate=None, chain=None)


def _agents(text: str) -> Callable[[Meeting], None]:
    allowance = Allowance(Agents.parse(text), AUDIENCE, ("read",))
    return lambda meeting: meeting.publish(allowances=(allowance,))


def _resource(meeting: Meeting) -> None:
    (allowance,) = meeting.domain.allowances
    meeting.publish(allowances=(replace(allowance, resource=AUDIENCE + "/"),))


@pytest.mark.parametrize(
    "change",
    [
        lambda meeting: meeting.publish(allowances=()),
        _agents("spiffe://b.example/ns/sup/*"),
        _agents("spiffe://b.example/ns/support/agent/other"),
        _resource,
    ],
    ids=["nothing", "prefix", "another agent", "another audience"],
)
def test_what_is_not_allowed_is_refused(
    meeting: Meeting, change: Callable[[Meeting], None]
) -> None:
    """Without an allowance for this agent, here, the answer is no; seen before or not."""
    meeting.ask()
    change(meeting)
    with pytest.raises(NotGranted):
        meeting.ask()


def test_a_relationship_that_ended_is_over(meeting: Meeting) -> None:
    """The next request after the map lost the domain is refused, token and certificate alike."""
    token = meeting.token()
    meeting.ask(token=token)
    meeting.take(BundleMap())
    with pytest.raises(Untrusted, match="no authorities known"):
        meeting.ask(token=token)
    with pytest.raises(Untrusted, match="no authorities known"):
        meeting.ask(token=token, certificate=None, chain=None)


def test_an_old_map_allows_nothing(meeting: Meeting) -> None:
    """When our issuer has not confirmed the relationship for two minutes, nobody of it comes in."""
    meeting.ours.now += timedelta(seconds=MAP_STALENESS)
    meeting.theirs.now = meeting.ours.now
    meeting.theirs.hear()
    meeting.ask()
    meeting.ours.now += timedelta(seconds=1)
    with pytest.raises(Stale, match="121 seconds old, the limit is 120"):
        meeting.ask()


# Each domain by its own keys


def test_our_keys_do_not_speak_for_their_agents(meeting: Meeting) -> None:
    """A token of our issuer for an agent of theirs is refused, and the other way round."""
    theirs = meeting.theirs.identity.svid.spiffe_id
    with pytest.raises(Untrusted):
        meeting.ask(token=meeting.ours.token(client=theirs))
    ours = meeting.ours.identity.svid.spiffe_id
    with pytest.raises(Untrusted):
        meeting.ask(token=meeting.token(client=ours))


def test_a_key_id_of_ours_is_no_key_of_theirs(meeting: Meeting) -> None:
    """Both domains may use the same kid: the domain decides which key that is."""
    assert meeting.ours.authority.kid == meeting.theirs.authority.kid
    forged = Authority("b.example", now=meeting.ours.now)
    with pytest.raises(Untrusted, match="signature"):
        meeting.ask(token=World(forged, meeting.ours.now).token())


def _signed(meeting: Meeting, **claims: Any) -> str:
    claimed = jws.parse(meeting.token(), types=task_token.TYPES).claims
    authority = meeting.theirs.authority
    header = {"kid": authority.kid, "typ": "at+jwt"}
    return jws.sign({**claimed, **claims}, authority.jwt_key, header=header)


NESTED: dict[str, Any] = {"sub": "spiffe://b.example/ns/support/agent/one"}
for _ in range(task_token.MAX_DEPTH):
    NESTED = {"sub": "spiffe://b.example/ns/support/agent/one", "act": NESTED}


@pytest.mark.parametrize(
    ("act", "error"),
    [
        ({"sub": "spiffe://example.org/ns/support/agent/triage"}, Untrusted),
        ({"sub": "spiffe://c.example/ns/support/agent/triage"}, Untrusted),
        (
            {
                "sub": "spiffe://b.example/ns/support/agent/one",
                "act": {"sub": "spiffe://c.example/ns/support/agent/triage"},
            },
            Untrusted,
        ),
        ({"sub": "maria@b.example"}, InvalidToken),
        ("spiffe://b.example/ns/support/agent/one", InvalidToken),
        (NESTED, InvalidToken),
    ],
)
def test_everyone_who_acts_is_of_the_domain(
    meeting: Meeting, act: object, error: type[Exception]
) -> None:
    """A domain speaks for its own agents only, at every depth of the delegation."""
    good = {"sub": "spiffe://b.example/ns/support/agent/one", "act": NESTED["act"]["act"]["act"]}
    meeting.ask(token=_signed(meeting, act=good))
    with pytest.raises(error, match="act"):
        meeting.ask(token=_signed(meeting, act=act))


USER = "maria@b.example"
ACT = {"sub": "spiffe://b.example/ns/support/agent/one"}


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": USER, "act": ACT},
        {"sub": "spiffe://b.example/ns/support/agent/other", "act": ACT},
        {"sub": "user:maria@example.org", "act": ACT},  # their word, and nobody of ours
    ],
)
def test_a_principal_is_their_own(meeting: Meeting, claims: dict[str, Any]) -> None:
    """An agent of theirs may act for somebody, whom their domain's keys speak for."""
    assert meeting.ask(token=_signed(meeting, **claims)).principal == claims["sub"]


@pytest.mark.parametrize(
    ("claims", "error"),
    [
        ({"sub": "spiffe://example.org/ns/payroll/agent/boss", "act": ACT}, Untrusted),
        ({"sub": "spiffe://c.example/ns/payroll/agent/boss", "act": ACT}, Untrusted),
        ({"sub": " spiffe://example.org/ns/payroll/agent/boss", "act": ACT}, InvalidToken),
        ({"sub": "SPIFFE://example.org/ns/payroll/agent/boss", "act": ACT}, InvalidToken),
        ({"sub": "spiffe://B.example/ns/support/agent/other", "act": ACT}, InvalidToken),
        ({"sub": USER, "act": None}, InvalidToken),
        ({"sub": "spiffe://b.example/ns/support/agent/other", "act": None}, InvalidToken),
        ({"iss": "https://issuer.example.org"}, Untrusted),
        ({"iss": "HTTPS://issuer.example.org/"}, Untrusted),
    ],
)
def test_a_principal_or_issuer_of_ours_is_refused(
    meeting: Meeting, claims: dict[str, Any], error: type[Exception]
) -> None:
    """No domain speaks for agents of ours or of a third, nor as our issuer, in any spelling."""
    with pytest.raises(error, match=r"sub|issuer"):
        meeting.ask(token=_signed(meeting, **claims))


def test_a_token_is_for_us(meeting: Meeting) -> None:
    """A token of theirs for another audience is refused."""
    with pytest.raises(WrongAudience):
        meeting.ask(token=meeting.token(audience=AUDIENCE + "/"))


def test_a_token_lives_five_minutes_whatever_it_says(meeting: Meeting) -> None:
    """Another issuer's rules are not ours: a day is five minutes here."""
    token = meeting.token(expires_at=meeting.ours.now + timedelta(days=1))
    meeting.ask(token=token)
    meeting.pass_time(299)
    meeting.ask(token=token)
    meeting.pass_time(2)
    with pytest.raises(Expired):
        meeting.ask(token=token)


# Holders


def test_a_token_is_its_own_agents(meeting: Meeting) -> None:
    """Neither without a certificate nor with another, and no token of theirs binds ours."""
    for request in (
        {"certificate": None, "chain": None},
        _shown(meeting.theirs.authority.issue()),
        _shown(meeting.ours.identity),
    ):
        with pytest.raises(WrongHolder):
            meeting.ask(**request)
    shown = _shown(meeting.ours.identity)
    binding = Binding(BindingKind.CERTIFICATE, certificate_thumbprint(shown["certificate"]))
    with pytest.raises(WrongHolder, match="another agent"):
        meeting.ask(token=meeting.token(binding=binding), **shown)


def test_a_dpop_token_of_theirs_is_good_once(meeting: Meeting) -> None:
    """DPoP binds their tokens as it binds ours."""
    binding = Binding(
        BindingKind.DPOP_KEY,
        task_token.verify(
            meeting.theirs.dpop_token(),
            bundle=meeting.theirs.bundle,
            issuer="https://issuer.example.org",
            audience=AUDIENCE,
            now=meeting.ours.now,
        ).binding.thumbprint,
    )
    request = meeting.theirs.dpop_request(meeting.token(binding=binding))
    meeting.verifier.verify_request(request, **GRANT)
    with pytest.raises(WrongHolder):
        meeting.verifier.verify_request(replace(request, scheme="bearer"), **GRANT)


def _shown(identity: X509Identity) -> dict[str, Any]:
    return {"certificate": identity.svid.der[0], "chain": identity.svid.der}


def test_their_ca_does_not_sign_our_agents(meeting: Meeting) -> None:
    """A certificate for our domain that their CA signed is refused, with a good token of ours."""
    forged = meeting.theirs.authority.issue(meeting.ours.identity.svid.spiffe_id)
    binding = Binding(BindingKind.CERTIFICATE, certificate_thumbprint(forged.svid.der[0]))
    token = meeting.ours.token(binding=binding)
    with pytest.raises(Untrusted):
        meeting.ask(token=token, **_shown(forged))
    ours = meeting.ours.authority.issue(meeting.theirs.identity.svid.spiffe_id)
    with pytest.raises(Untrusted):
        meeting.ask(**_shown(ours))


def test_a_certificate_without_its_chain_is_not_enough(meeting: Meeting) -> None:
    """Where somebody else shook hands and kept the chain, nobody can say whose authority it was."""
    with pytest.raises(Untrusted, match="whole chain"):
        meeting.ask(chain=None)
    leaf = meeting.ours.certificate
    with pytest.raises(Untrusted, match="whole chain"):
        meeting.ask(token=meeting.ours.token(), certificate=leaf, chain=None)


def test_in_front_of_an_application_too(meeting: Meeting) -> None:
    """Behind the middleware: the allowed request, the next action, and the forged certificate."""
    app = TaskTokenMiddleware(
        _nothing,
        Guard(meeting.verifier, public_url=AUDIENCE),
        rules=[
            Rule("GET", "/tickets/{id}", resource="tickets", action="read"),
            Rule("POST", "/tickets/{id}", resource="tickets", action="comment"),
        ],
    )
    forged = meeting.theirs.authority.issue(meeting.ours.identity.svid.spiffe_id)
    bound = Binding(BindingKind.CERTIFICATE, certificate_thumbprint(forged.svid.der[0]))
    own = meeting.theirs.identity
    assert _send(app, own, meeting.token()) == 200
    assert _send(app, own, meeting.token(), method="POST") == 403
    assert _send(app, forged, meeting.ours.token(binding=bound)) == 401


# Revocation


def test_their_feed_ends_their_agents(meeting: Meeting) -> None:
    """What b.example has taken back is refused here, by token and by certificate."""
    meeting.theirs.hear("agent:support/triage")
    with pytest.raises(Revoked):
        meeting.ask()
    with pytest.raises(Revoked):
        meeting.ask(token=meeting.ours.token())


def test_facts_are_about_their_own_domains_names(meeting: Meeting) -> None:
    """An agent of the same name in the other domain is somebody else, in both directions."""
    meeting.ours.hear("agent:support/triage", "namespace:support")
    meeting.ask()
    meeting.ours.facts = FeedState()
    meeting.ours.sequence = 0
    meeting.ours.hear()
    meeting.verifier = meeting.make()
    meeting.theirs.hear("agent:support/triage")
    request = meeting.request(token=meeting.ours.token(), **_shown(meeting.ours.identity))
    meeting.verifier.verify_request(request, **GRANT)


def test_their_silence_is_a_no(meeting: Meeting) -> None:
    """A feed of theirs that is older than its bound, or not followed yet, lets nobody in."""
    meeting.ours.now += timedelta(seconds=31)
    meeting.ours.hear()
    with pytest.raises(Stale, match="31 seconds old"):
        meeting.ask()
    meeting.pass_time(0)
    meeting.ask()
    for feeds in ({}, {meeting.theirs.authority.trust_domain: (FEED + "1", meeting.feed)}):
        meeting.federation.followed(feeds)
        with pytest.raises(Stale, match=r"nothing is known of revocation in b\.example"):
            meeting.ask()


def test_without_a_feed_a_token_lives_to_its_end(meeting: Meeting) -> None:
    """Where the operator wrote a relationship without a feed, nothing ends a token early."""
    meeting.theirs.hear("agent:support/triage")
    meeting.publish(feed_url=None)
    meeting.federation.followed({})
    meeting.ask()


# The map


def test_a_map_does_not_speak_for_our_own_domain(meeting: Meeting) -> None:
    """Our bundle comes from where it always came from: a map with our name in it is an error."""
    own = meeting.ours.authority
    with pytest.raises(InvalidAnswer, match="our own domain"):
        meeting.take(BundleMap({own.trust_domain: FederatedDomain(own.bundle)}))


def test_the_status_says_how_old_everything_is(meeting: Meeting) -> None:
    """Age of map, bundle and feed, and what is allowed, for each relationship."""
    (status,) = meeting.federation.status()
    assert (status.trust_domain.name, status.allowances) == ("b.example", 1)
    assert (status.map_age, status.bundle_age, status.feed_age) == (0, 40, 0)
    meeting.publish(fetched_at=None)
    meeting.federation.followed({})
    (status,) = meeting.federation.status()
    assert (status.bundle_age, status.feed_age, status.feed_url) == (None, None, FEED)


def test_a_map_that_is_the_same_stays_the_same_object(meeting: Meeting) -> None:
    """Contexts and verified tokens hang on the map: an equal one changes nothing."""
    before = meeting.federation.map
    meeting.publish()
    assert meeting.federation.map is before


def test_an_issuer_of_theirs_is_no_agent(meeting: Meeting) -> None:
    """Only whom an allowance names may ask anything at all."""
    client = SpiffeId(meeting.theirs.authority.trust_domain, "/accredit/issuer")
    with pytest.raises(Untrusted, match="nothing is allowed"):
        meeting.federation.check_agent(client, meeting.ours.now)
    meeting.federation.check_agent(meeting.theirs.identity.svid.spiffe_id, meeting.ours.now)


async def _nothing(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _send(app: Any, identity: X509Identity, token: str, *, method: str = "GET") -> int:
    status: list[int] = []

    async def take(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            status.append(message["status"])

    chain = tuple(map(ssl.DER_cert_to_PEM_cert, identity.svid.der))
    scope = {
        "type": "http",
        "method": method,
        "path": "/tickets/4711",
        "raw_path": b"/tickets/4711",
        "headers": [(b"authorization", f"Bearer {token}".encode())],
        "extensions": {"tls": {"client_cert_chain": chain}},
    }
    asyncio.run(app(scope, None, take))
    return status[0]

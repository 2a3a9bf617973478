"""An agent of another trust domain calls our server: allowed, refused, taken back, gone."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.authority import Authority
from support.fake_issuer import AUDIENCE, ISSUER, FakeIssuer, fake_issuer, real_now
from support.resource_server import resource_server

from accredit_attestors.join_token import ATTESTOR, JoinToken
from accredit_client.asgi import Rule, TaskTokenMiddleware
from accredit_client.base_identity import BaseIdentity
from accredit_client.calls import TaskTokenRequest
from accredit_client.effects import utc_now
from accredit_client.guard import Guard
from accredit_client.identity import AgentIdentity
from accredit_client.tls import members_of
from accredit_client.trust import Trust
from accredit_client.verify import TaskTokenVerifier
from accredit_credentials.bundle_map import BundleMap, FederatedDomain
from accredit_credentials.federation import Agents, Allowance
from accredit_credentials.revocation import FactKind

SERVER = "spiffe://example.org/ns/support/agent/triage"
AGENT = "agent:support/triage"


@dataclass
class Domain:
    """A trust domain with an issuer, and one of its agents."""

    authority: Authority
    issuer: FakeIssuer
    identity: AgentIdentity


@contextmanager
def domain(name: str, folder: Path, federated: BundleMap | None = None) -> Iterator[Domain]:
    """A trust domain that knows these others."""
    authority = Authority(name, now=real_now())
    with fake_issuer(authority, utc_now) as issuer, ExitStack() as stack:
        issuer.token_issuer = f"https://issuer.{name}"  # a foreign one that says ours is refused
        if federated is not None:
            issuer.federation = federated
        token = JoinToken.new().reveal()
        issuer.join_tokens.add(token)
        file = folder / f"{name}.token"
        file.touch(mode=0o600)
        file.write_text(token)
        identity = AgentIdentity(
            issuer_url=issuer.url,
            trust=Trust.from_bundle(authority.bundle),
            join_token_file=file,
            attestors=lambda: {ATTESTOR.kind: ATTESTOR},
            revocations=True,
            federation=True,
        )
        yield Domain(authority, issuer, stack.enter_context(closing(identity)))


def application(identity: BaseIdentity) -> TaskTokenMiddleware:
    """Tickets to read, and to comment on."""
    verifier = TaskTokenVerifier(
        audience=AUDIENCE,
        issuer=ISSUER,
        bundle=lambda: identity.bundle,
        facts=identity.facts,  # type: ignore[arg-type]  # it follows the feed
        federation=identity.federation,
    )
    rules = [
        Rule("GET", "/tickets", resource="tickets", action="read"),
        Rule("POST", "/tickets", resource="tickets", action="comment"),
    ]
    return TaskTokenMiddleware(_served, Guard(verifier, public_url=AUDIENCE), rules=rules)


async def _served(scope: Any, _receive: Any, send: Any) -> None:
    body = str(scope["state"]["task_token"].client).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def relationship(theirs: Domain) -> FederatedDomain:
    """Their agents of one namespace may read tickets."""
    agents = Agents.parse("spiffe://b.example/ns/support/*")
    fetched_at = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=3)
    allowance = Allowance(agents, AUDIENCE, ("read",))
    return FederatedDomain(theirs.authority.bundle, (allowance,), theirs.issuer.url, fetched_at)


@dataclass
class Meeting:
    """Our server, and their agent's client."""

    ours: Domain
    theirs: Domain
    url: str
    client: httpx2.Client

    def ask(self, method: str = "GET") -> int:
        """Call our server with a fresh task token that grants both actions."""
        answer = self.theirs.identity.task_token(
            TaskTokenRequest(resource="tickets", actions=("read", "comment"), purpose="a scenario")
        )
        head = {"authorization": f"Bearer {answer.access_token}"}
        return self.client.request(method, f"{self.url}/tickets", headers=head).status_code

    def publish(self, **relationships: FederatedDomain) -> None:
        """Let our issuer publish these, and our server hear of it."""
        domains = {each.bundle.trust_domain: each for each in relationships.values()}
        self.ours.issuer.federation = BundleMap(domains)
        self.ours.identity.refetch_bundle(20)

    def wait_for_facts(self, sequence: int) -> None:
        """Until our server knows so many facts of theirs."""
        other = self.ours.identity._others[self.theirs.authority.trust_domain]
        with other.feed._changed:
            assert other.feed._changed.wait_for(lambda: other.feed.state.through >= sequence, 20)


@pytest.fixture
def meeting(tmp_path: Path) -> Iterator[Meeting]:
    """Two trust domains, and a relationship."""
    with ExitStack() as stack:
        ours = stack.enter_context(domain("example.org", tmp_path))
        known = BundleMap({ours.authority.trust_domain: FederatedDomain(ours.authority.bundle)})
        theirs = stack.enter_context(domain("b.example", tmp_path, known))
        ours.issuer.federation = BundleMap({theirs.authority.trust_domain: relationship(theirs)})
        theirs.identity.start()
        server = ours.identity.start()
        assert server.feed is not None
        server.feed.wait_fresh(20)
        url = stack.enter_context(
            resource_server(
                application(server), server, peer=members_of("example.org", "b.example")
            )
        )
        transport = theirs.identity.transport(peer=SERVER)
        client = stack.enter_context(httpx2.Client(transport=transport, trust_env=False))
        meeting = Meeting(ours, theirs, url, client)
        meeting.wait_for_facts(0)
        server._others[theirs.authority.trust_domain].feed.wait_fresh(20)
        yield meeting


def test_an_agent_of_another_domain_does_what_was_allowed(meeting: Meeting) -> None:
    """It reads; it does not comment, though its own issuer granted that."""
    assert meeting.ask() == 200
    assert meeting.ask("POST") == 403
    federation = meeting.ours.identity.federation
    assert federation is not None
    (status,) = federation.status()
    assert status.bundle_age is not None
    assert 180 <= status.bundle_age < 240


def test_its_own_domain_takes_it_back(meeting: Meeting) -> None:
    """A fact in their feed ends it at our server, and its end lets it in again."""
    meeting.theirs.identity._facts = None  # it heeds no word itself
    assert meeting.ask() == 200
    meeting.theirs.issuer.revoke(AGENT, FactKind.SUSPENDED)
    meeting.wait_for_facts(1)
    assert meeting.ask() == 401
    meeting.theirs.issuer.revoke(AGENT, FactKind.RESTORED)
    meeting.wait_for_facts(2)
    assert meeting.ask() == 200


def test_a_relationship_that_is_removed_is_over(meeting: Meeting) -> None:
    """After the next look at the map nobody of theirs is served, on no old connection either."""
    assert meeting.ask() == 200
    meeting.publish()
    assert meeting.ask() == 401
    assert meeting.ours.identity._others == {}
    transport = meeting.theirs.identity.transport(peer=SERVER)
    with (
        httpx2.Client(transport=transport, trust_env=False) as another,
        pytest.raises(httpx2.TransportError),
    ):
        replace(meeting, client=another).ask()


def test_an_allowance_that_is_taken_away_is_gone(meeting: Meeting) -> None:
    """The relationship may stand, and the agent may do less, or nothing."""
    assert meeting.ask() == 200
    standing = relationship(meeting.theirs)
    (allowance,) = standing.allowances
    less = replace(allowance, actions=("comment",))
    meeting.publish(theirs=replace(standing, allowances=(less,)))
    assert (meeting.ask(), meeting.ask("POST")) == (403, 200)
    meeting.ours.identity._keeper._unknown_key_at = None
    meeting.publish(theirs=replace(standing, allowances=()))
    assert meeting.ask() == 401


def test_our_facts_are_not_about_their_agents(meeting: Meeting) -> None:
    """An agent of ours with the same name is revoked; theirs goes on."""
    meeting.ours.issuer.revoke(AGENT)
    feed = meeting.ours.identity.feed
    assert feed is not None
    with feed._changed:
        assert feed._changed.wait_for(lambda: feed.state.through == 1, 20)
    assert meeting.ask() == 200

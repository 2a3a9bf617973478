"""Two issuers of ours federate: an agent of one calls a server of the other."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.agents import AUDIENCE, PATIENCE, start_agent, ticket_server
from support.issuer import Admin, RunningIssuer, log_in, running_issuer
from support.resource_server import resource_server

from accredit_client import calls
from accredit_client.call import Call
from accredit_client.calls import TaskTokenRequest
from accredit_client.errors import IssuerRefused
from accredit_client.identity import AgentIdentity
from accredit_client.tls import members_of
from accredit_credentials.spiffe_id import TrustDomain

SERVER = "spiffe://example.org/ns/support/agent/tickets"
READ = {"agents": "spiffe://b.example/ns/support/*", "resource": AUDIENCE, "actions": ["read"]}


@dataclass
class Side:
    """A trust domain: its issuer, and its admin."""

    running: RunningIssuer
    admin: Admin

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        """A call of the federation API."""
        return bytes(
            self.admin.send(
                Call(method=method, path=f"/v1/federation{path}", body=body, read=bytes)
            )
        )

    def federate(self, other: "Side", allows: list[dict[str, Any]]) -> None:
        """Say who of the other may do what; its bundle was handed over by the operators."""
        bundle = other.running.bundle
        body = {
            "trust_domain": str(bundle.trust_domain),
            "profile": "https_spiffe",
            "endpoint_url": f"{other.running.url}/v1/bundle",
            "endpoint_spiffe_id": f"{bundle.trust_domain.id}/accredit/issuer",
            "bundle": json.loads(bundle.to_json()),
            "feed_url": other.running.url,
            "allows": allows,
        }
        self.ask("POST", "", body)


@dataclass
class Scene:
    """Our server, and their agent that calls it."""

    ours: Side
    theirs: Side
    server: AgentIdentity
    agent: AgentIdentity
    url: str
    client: httpx2.Client

    def token(self) -> str:
        """A token of their issuer, which grants more than we allow."""
        wanted = TaskTokenRequest(
            resource="tickets", actions=("read", "comment"), purpose="a question across the street"
        )
        return self.agent.task_token(wanted).access_token

    def call(self, token: str, method: str = "GET") -> int:
        """Call our server."""
        head = {"authorization": f"Bearer {token}"}
        return self.client.request(method, f"{self.url}/tickets", headers=head).status_code

    def wait_for_theirs(self, true: Callable[[], bool]) -> None:
        """Wait until something is true of what our server knows of their facts."""
        other = self.server._others[TrustDomain.parse("b.example")].feed
        with other._changed:
            assert other._changed.wait_for(true, PATIENCE), other.last_error


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Two issuers that know each other, a server here and an agent there."""
    with ExitStack() as stack:

        def side(trust_domain: str) -> Side:
            folder = tmp_path / trust_domain
            # Each has a name of its own for its tokens: one that says ours is refused.
            server = {"port": 0, "token_issuer": f"https://issuer.{trust_domain}"}
            running = stack.enter_context(
                running_issuer(folder, trust_domain=trust_domain, server=server)
            )
            return Side(running, log_in(running, running.first_token))

        ours, theirs = side("example.org"), side("b.example")
        ours.federate(theirs, [READ])
        theirs.federate(ours, [])
        identities = []
        for one, name in ((ours, "tickets"), (theirs, "asker")):
            folder = tmp_path / "agents"
            identity = start_agent(one.running, one.admin, folder, name, federation=True)
            stack.callback(identity.close)
            identities.append(identity)
        server, agent = identities
        app = ticket_server(ours.running, server)
        url = stack.enter_context(
            resource_server(app, server, peer=members_of("example.org", "b.example"))
        )
        transport = agent.transport(peer=SERVER)
        client = stack.enter_context(httpx2.Client(transport=transport, trust_env=False))
        scene = Scene(ours, theirs, server, agent, url, client)
        server._others[TrustDomain.parse("b.example")].feed.wait_fresh(PATIENCE)
        yield scene


def test_an_agent_across_the_border(scene: Scene) -> None:
    """It reads as allowed, does not comment, and after its own domain's word does nothing."""
    scene.agent._facts = None  # it heeds no word itself
    token = scene.token()
    assert scene.call(token) == 200
    assert scene.call(token, "POST") == 403
    scene.theirs.admin.send(
        calls.revoke(target="agent:support/asker", kind="revoked", reason="a drill")
    )
    facts = scene.server._others[TrustDomain.parse("b.example")].feed.state
    scene.wait_for_theirs(lambda: len(facts) > 0)
    assert scene.call(token) == 401
    with pytest.raises(IssuerRefused, match="revoked"):
        scene.token()


def test_the_end_of_a_relationship(scene: Scene) -> None:
    """An allowance that is taken away, then the relationship: each ends with the next map."""
    token = scene.token()
    assert scene.call(token) == 200
    comment = {**READ, "actions": ["comment"]}
    scene.ours.ask("PUT", "/b.example/allows", {"allows": [comment]})
    assert scene.server.refetch_bundle(PATIENCE) is False, "the bundle itself is the same"
    assert (scene.call(token), scene.call(token, "POST")) == (403, 200)
    scene.ours.ask("DELETE", "/b.example")
    federation = scene.server.federation
    assert federation is not None
    _poll(scene.server)
    assert federation.map.domains == {}
    assert scene.call(token) == 401


def _poll(identity: AgentIdentity) -> None:
    """What the half minute brings, now."""
    identity._keeper._unknown_key_at = None
    identity.refetch_bundle(PATIENCE)

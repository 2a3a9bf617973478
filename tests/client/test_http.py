"""Task tokens on real requests: httpx2 and httpx, threads and asyncio, to a real mTLS server."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import httpx2
import pytest
from support.authority import Authority
from support.fake_issuer import AUDIENCE, ISSUER, FakeIssuer
from support.manual_time import ManualTime, TaskTime
from support.resource_server import resource_server

from accredit_client.asgi import Rule, TaskTokenMiddleware
from accredit_client.async_identity import AsyncAgentIdentity
from accredit_client.errors import InvalidPeer, IssuerRefused, IssuerUnreachable
from accredit_client.guard import Guard
from accredit_client.http import TaskTokenAuth
from accredit_client.identity import AgentIdentity
from accredit_client.tls import members_of
from accredit_client.verify import TaskTokenVerifier
from accredit_credentials import jwt_svid
from accredit_credentials.asgi_peer import Scope, peer_certificate
from accredit_credentials.errors import WrongAudience
from accredit_credentials.revocation_feed import FeedState, verify
from accredit_credentials.x509_svid import parse_der

PEER = members_of("example.org")


class TicketServer:
    """A server of tickets that says which certificate it saw."""

    def __init__(self, issuer: FakeIssuer, time: ManualTime) -> None:
        self.issuer = issuer
        self.time = time
        self.facts = FeedState()
        self.app: TaskTokenMiddleware | None = None
        self.seen: list[str | None] = []
        self.hear()

    def hear(self) -> None:
        """Take in what the issuer says of revocation now."""
        statement = verify(self.issuer.statement(0), bundle=self.issuer.authority.bundle)
        self.facts.apply(statement, now=self.time.clock())

    def protect(self, url: str) -> None:
        """Put the middleware in front, now that the address is known."""
        bundle = self.issuer.authority.bundle
        verifier = TaskTokenVerifier(
            audience=AUDIENCE,
            issuer=ISSUER,
            bundle=lambda: bundle,
            facts=self.facts,
            clock=self.time.clock,
        )
        rules = [
            Rule("GET", "/tickets", resource="tickets", action="read"),
            Rule("POST", "/tickets", resource="tickets", action="read"),
        ]
        self.app = TaskTokenMiddleware(self._answer, Guard(verifier, public_url=url), rules=rules)

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Serve one request."""
        der = peer_certificate(scope)
        self.seen.append(parse_der(der).serial if der else None)
        assert self.app is not None
        await self.app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        body = scope["state"]["task_token"].task.id.encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@dataclass
class Tickets:
    """A ticket server that serves."""

    url: str
    server: TicketServer


@pytest.fixture
def tickets(identity: AgentIdentity, issuer: FakeIssuer, time: ManualTime) -> Iterator[Tickets]:
    """A ticket server on loopback; it serves with the agent's own identity."""
    server = TicketServer(issuer, time)
    with resource_server(server, identity, peer=PEER, client_optional=True) as url:
        server.protect(url)
        yield Tickets(f"{url}/tickets", server)


def auth_of(identity: Any, time: ManualTime, **options: Any) -> TaskTokenAuth:
    """The token of a task that reads tickets."""
    values: dict[str, Any] = {
        "resource": "tickets",
        "actions": ["read"],
        "purpose": "summarise 4711",
        "clock": time.clock,
        **options,
    }
    return TaskTokenAuth(identity, **values)


@pytest.mark.parametrize("binding", ["certificate", "dpop"])
def test_a_token_is_fetched_once_for_many_requests(
    identity: AgentIdentity, tickets: Tickets, issuer: FakeIssuer, time: ManualTime, binding: str
) -> None:
    """Several requests of one task share one token, whatever it is bound to."""
    auth = auth_of(identity, time, binding=binding)
    with httpx2.Client(transport=identity.transport(peer=PEER), auth=auth) as client:
        answers = [client.get(tickets.url) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert len(issuer.calls_of("/v1/task-tokens")) == 1


@pytest.mark.spec("SPIFFE-34")
def test_a_jwt_svid_travels_as_a_bearer_token(
    identity: AgentIdentity, issuer: FakeIssuer, time: ManualTime
) -> None:
    """Over HTTP a JWT-SVID stands in ``Authorization: Bearer``; there a server validates it.

    Another server, which finds the same header, is not its audience.
    """
    seen: list[str] = []

    async def serve(scope: Scope, _receive: Any, send: Any) -> None:
        scheme, _, token = dict(scope["headers"])[b"authorization"].decode().partition(" ")
        assert scheme == "Bearer"
        status = 200
        try:
            svid = jwt_svid.validate(
                token,
                bundles=issuer.authority.bundles,
                audience=AUDIENCE if scope["path"] == "/mine" else "https://other.example",
                now=time.clock(),
            )
            seen.append(str(svid.spiffe_id))
        except WrongAudience:
            status = 401
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with resource_server(serve, identity, peer=PEER) as url:
        bearer = {"Authorization": f"Bearer {identity.fetch_jwt_svid(AUDIENCE).token}"}
        with httpx2.Client(transport=identity.transport(peer=PEER), headers=bearer) as client:
            assert client.get(f"{url}/mine").status_code == 200
            assert client.get(f"{url}/other").status_code == 401
    assert seen == [str(identity.x509.svid.spiffe_id)]


def test_httpx_clients_are_served_alike(
    identity: AgentIdentity, tickets: Tickets, time: ManualTime
) -> None:
    """An httpx client takes the same auth, with the identity's context."""
    for binding in ("certificate", "dpop"):
        auth = auth_of(identity, time, binding=binding)
        context = identity.client_context(peer=PEER)
        with httpx.Client(verify=context, auth=auth, trust_env=False) as client:
            assert client.get(tickets.url).status_code == 200


def test_asynchronous_clients_of_both_packages(
    identity: AgentIdentity, tickets: Tickets, time: ManualTime
) -> None:
    """Asyncio clients take the same auth; a threaded identity fetches in a worker thread."""

    async def ask() -> list[int]:
        auth = auth_of(identity, time)
        async with httpx2.AsyncClient(
            transport=identity.async_transport(peer=PEER), auth=auth
        ) as client:
            first = (await client.get(tickets.url)).status_code
        context = identity.client_context(peer=PEER)
        async with httpx.AsyncClient(verify=context, auth=auth, trust_env=False) as older:
            return [first, (await older.get(tickets.url)).status_code]

    assert asyncio.run(ask()) == [200, 200]


def test_an_asynchronous_identity(
    options: dict[str, Any], tickets: Tickets, issuer: FakeIssuer, time: ManualTime, tmp_path: Any
) -> None:
    """An AsyncAgentIdentity is attested, renewed and closed in one event loop, without threads."""
    task_time = TaskTime(time.clock())
    issuer.join_tokens.add(options["join_token_file"].read_text())
    options["clock"] = task_time.clock
    issuer.clock = task_time.clock

    async def live() -> None:
        identity = AsyncAgentIdentity(**options)
        async with contextlib.aclosing(identity):
            await identity.start(waiter=task_time)
            first = identity.x509
            auth = auth_of(identity, time)
            transport = identity.async_transport(peer=PEER)
            async with httpx2.AsyncClient(transport=transport, auth=auth) as client:
                assert (await client.get(tickets.url)).status_code == 200
            with pytest.raises(TypeError, match="asynchronous clients only"):
                next(auth.sync_auth_flow(httpx2.Request("GET", tickets.url)))
            await task_time.advance(hours=10.1)
            second = await identity.wait_until_renewed(20, after=first)
            assert second.svid.serial != first.svid.serial
            assert (await identity.fetch_jwt_svid("https://a.example")).token
            issuer.away = True
            await task_time.advance(hours=30)
            await task_time.settle()
            assert isinstance(identity.status.last_error, IssuerUnreachable)
            issuer.away = False
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(live())


def test_a_token_is_renewed_at_half_of_its_life(
    identity: AgentIdentity, tickets: Tickets, issuer: FakeIssuer, time: ManualTime
) -> None:
    """Half-way to its end another token is fetched, for the same task."""
    auth = auth_of(identity, time)
    with httpx2.Client(transport=identity.transport(peer=PEER), auth=auth) as client:
        first = client.get(tickets.url)
        time.advance(seconds=151)
        tickets.server.hear()
        second = client.get(tickets.url)
    asked = issuer.calls_of("/v1/task-tokens")
    assert [one.body["task"]["id"] for one in asked] == [None, first.text]
    assert second.text == first.text


def test_a_token_of_a_tainted_key_is_replaced(
    identity: AgentIdentity,
    tickets: Tickets,
    issuer: FakeIssuer,
    authority: Authority,
    time: ManualTime,
) -> None:
    """What a tainted key signed is not sent on, even where nobody refuses it yet."""
    auth = auth_of(identity, time)
    with httpx2.Client(transport=identity.transport(peer=PEER), auth=auth) as client:
        assert client.get(tickets.url).status_code == 200
        for tainted, asked in (("ab" * 20, 1), (authority.kid, 2)):
            issuer.bundle = replace(
                authority.bundle, sequence=asked + 1, tainted=frozenset({tainted})
            )
            time.advance(seconds=31)
            time.settle()
            tickets.server.hear()
            assert client.get(tickets.url).status_code == 200
            assert len(issuer.calls_of("/v1/task-tokens")) == asked


def test_an_older_token_serves_while_the_issuer_is_away(
    identity: AgentIdentity, tickets: Tickets, issuer: FakeIssuer, time: ManualTime
) -> None:
    """An issuer's outage is noticed once the token is over, not once it is half over."""
    auth = auth_of(identity, time)
    with httpx2.Client(transport=identity.transport(peer=PEER), auth=auth) as client:
        client.get(tickets.url)
        time.advance(seconds=151)
        tickets.server.hear()
        issuer.away = True
        assert client.get(tickets.url).status_code == 200
        time.advance(seconds=150)
        with pytest.raises(IssuerUnreachable):
            client.get(tickets.url)


def test_renewal_changes_connection_and_token_together(
    identity: AgentIdentity, tickets: Tickets, issuer: FakeIssuer, time: ManualTime
) -> None:
    """After a renewal no request travels with the old certificate or with a token bound to it."""
    auth = auth_of(identity, time)
    with httpx2.Client(transport=identity.transport(peer=PEER), auth=auth) as client:
        client.get(tickets.url)
        client.get(tickets.url)
        time.advance(hours=10.1)
        time.settle()
        tickets.server.hear()
        assert client.get(tickets.url).status_code == 200
    first, second = issuer.issued
    assert tickets.server.seen == [first, first, second]
    assert [asked.serial for asked in issuer.calls_of("/v1/task-tokens")] == [first, second]


def test_a_401_is_answered_once_with_a_new_token(
    identity: AgentIdentity, tickets: Tickets, issuer: FakeIssuer, time: ManualTime
) -> None:
    """A token that a server does not take any more is replaced once; a second 401 is believed."""
    auth = auth_of(identity, time)
    with httpx2.Client(transport=identity.transport(peer=PEER), auth=auth) as client:
        task = client.get(tickets.url).text
        issuer.revoke("instance:" + "0" * 8)  # somebody else: nothing happens
        tickets.server.hear()
        assert client.get(tickets.url).status_code == 200
        issuer.revoke(f"task:{task}")
        tickets.server.hear()
        before = len(issuer.calls_of("/v1/task-tokens"))
        refused = client.get(tickets.url)
    assert refused.status_code == 401
    assert len(issuer.calls_of("/v1/task-tokens")) == before + 1


def test_a_body_that_is_gone_is_not_sent_again(
    identity: AgentIdentity, tickets: Tickets, issuer: FakeIssuer, time: ManualTime
) -> None:
    """A streamed body cannot be repeated: the 401 stands. One that is held is sent again."""
    auth = auth_of(identity, time)
    with httpx2.Client(transport=identity.transport(peer=PEER), auth=auth) as client:
        task = client.get(tickets.url).text
        issuer.revoke(f"task:{task}")
        tickets.server.hear()
        assert client.post(tickets.url, content=iter([b"once"])).status_code == 401
        assert len(issuer.calls_of("/v1/task-tokens")) == 1
        assert client.post(tickets.url, content=b"held").status_code == 401
        assert len(issuer.calls_of("/v1/task-tokens")) == 2


def test_what_is_not_declared_is_the_callers_error(
    identity: AgentIdentity, tickets: Tickets, time: ManualTime
) -> None:
    """The issuer's refusal comes out of the request, in its own words."""
    auth = auth_of(identity, time, resource="payroll")
    with (
        httpx2.Client(transport=identity.transport(peer=PEER), auth=auth) as client,
        pytest.raises(IssuerRefused, match="'payroll' is not declared"),
    ):
        client.get(tickets.url)


def test_tokens_travel_over_https_only(identity: AgentIdentity, time: ManualTime) -> None:
    """A request in clear text gets no token."""
    auth = auth_of(identity, time)
    with pytest.raises(InvalidPeer, match="https only"):
        next(auth.sync_auth_flow(httpx2.Request("GET", "http://tickets.example.org/")))


@pytest.mark.parametrize("actions", [[], "read"])
def test_actions_are_a_list(identity: AgentIdentity, actions: Any) -> None:
    """No action is an error, and so is a text, which would be a list of letters."""
    with pytest.raises(ValueError, match="actions must name"):
        TaskTokenAuth(identity, resource="tickets", actions=actions, purpose="p")

"""The middleware: every request that is refused, how it is told, and the one that is not."""

import asyncio
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from support.authority import Authority
from support.fake_issuer import AUDIENCE
from support.world import World

from accredit_client.asgi import Open, Rule, TaskTokenMiddleware
from accredit_client.fastapi import install, requires
from accredit_client.guard import Guard
from accredit_client.replay import ReplayMemory
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.task_token import TaskToken

RULES = (
    Rule("GET", "/tickets/{id}", resource="tickets", action="read"),
    Rule("DELETE", "/tickets/{id}", resource="tickets", action="delete"),
    Open("GET", "/health"),
)


@dataclass
class Answer:
    """What an application answered."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document."""
        assert ("content-type", "application/problem+json") in self.headers
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        return document

    @property
    def challenges(self) -> list[str]:
        """The challenges, in order."""
        return [value for name, value in self.headers if name == "www-authenticate"]


def send(app: Any, scope: dict[str, Any]) -> Answer:
    """Send one request."""
    answer = Answer()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def take(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = [(k.decode(), v.decode()) for k, v in message["headers"]]
        elif message["type"] == "http.response.body":
            answer.body += message["body"]

    asyncio.run(app(scope, receive, take))
    return answer


def scope_of(
    path: str = "/tickets/4711",
    *,
    method: str = "GET",
    headers: dict[str, str] | list[tuple[str, str]] | None = None,
    certificate: bytes | None = None,
) -> dict[str, Any]:
    """An ASGI scope."""
    pairs = list(headers.items()) if isinstance(headers, dict) else headers or []
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "scheme": "https",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in pairs],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 443),
    }
    if certificate is not None:
        pem = ssl.DER_cert_to_PEM_cert(certificate)
        scope["extensions"] = {"tls": {"client_cert_chain": (pem,)}}
    return scope


async def application(scope: Any, _receive: Any, send: Any) -> None:
    """Says which task it was asked for."""
    token = scope.get("state", {}).get("task_token")
    body = token.task.purpose.encode() if isinstance(token, TaskToken) else b"open"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def protected(world: World, **options: Any) -> TaskTokenMiddleware:
    """The application behind the middleware."""
    guard = Guard(world.verifier(**options), public_url=AUDIENCE)
    return TaskTokenMiddleware(application, guard, rules=RULES)


def bearer(token: str) -> dict[str, str]:
    """The header of a token that is bound to the certificate, or to nothing."""
    return {"authorization": f"Bearer {token}"}


def dpop(world: World, token: str, **changed: Any) -> dict[str, str]:
    """The headers of a token that is bound to the DPoP key."""
    proof = world.dpop_request(token, **changed).proof or ""
    return {"authorization": f"DPoP {token}", "dpop": proof}


def test_a_good_request_reaches_the_application(world: World) -> None:
    """With token and certificate the request passes, and the application knows the task."""
    scope = scope_of(headers=bearer(world.token()), certificate=world.certificate)
    answer = send(protected(world), scope)
    assert (answer.status, answer.body) == (200, b"a test")


@pytest.mark.spec("SPIFFE-34")
@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, "access_token={}"),
        ({"cookie": "access_token={}"}, ""),
        ({"x-access-token": "{}"}, ""),
        ({"proxy-authorization": "Bearer {}"}, ""),
        ({"authorization": "{}"}, ""),
    ],
)
def test_a_token_is_read_from_its_header_only(
    world: World, headers: dict[str, str], query: str
) -> None:
    """In an address, a cookie or another header, where it ends in logs, a token is none."""
    token = world.token()
    shown = {name: value.format(token) for name, value in headers.items()}
    scope = scope_of(headers=shown, certificate=world.certificate)
    scope["query_string"] = query.format(token).encode()
    assert send(protected(world), scope).status in {400, 401}


def test_a_good_dpop_request_needs_no_certificate(world: World) -> None:
    """A token that is bound to a key passes with its proof alone, and the proof passes once."""
    app, headers = protected(world), dpop(world, world.dpop_token())
    assert send(app, scope_of(headers=headers)).status == 200
    replayed = send(app, scope_of(headers=headers))
    assert replayed.status == 401
    assert 'error="invalid_dpop_proof"' in replayed.challenges[0]


def test_without_a_token_the_challenge_says_what_is_taken(world: World) -> None:
    """No token is no error yet: both schemes are offered, without an error code (RFC 6750 §3.1)."""
    answer = send(protected(world), scope_of())
    assert answer.status == 401
    algorithms = "ES256 ES384 RS256 RS384 RS512 PS256 PS384 PS512"
    assert answer.challenges == [f'DPoP algs="{algorithms}"', "Bearer"]
    assert answer.problem["type"] == "urn:accredit:problem:unauthenticated"


Request = Callable[[World], dict[str, Any]]


def _stolen(world: World) -> dict[str, Any]:
    thief = world.authority.issue(world.authority.id("/ns/support/agent/thief"))
    return scope_of(headers=bearer(world.token()), certificate=thief.svid.der[0])


def _expired(world: World) -> dict[str, Any]:
    token = world.token(
        issued_at=world.now - timedelta(minutes=6), expires_at=world.now - timedelta(minutes=1)
    )
    return scope_of(headers=bearer(token), certificate=world.certificate)


def _revoked(world: World) -> dict[str, Any]:
    world.hear("agent:support/triage")
    return scope_of(headers=bearer(world.token()), certificate=world.certificate)


def _revoked_peer(world: World) -> dict[str, Any]:
    world.hear(f"serial:{world.identity.svid.serial}")
    return scope_of(headers=bearer(world.token()), certificate=world.certificate)


REFUSALS: dict[str, tuple[Request, str]] = {
    "another audience": (
        lambda w: scope_of(
            headers=bearer(w.token(audience="https://other.example")), certificate=w.certificate
        ),
        "made for another audience",
    ),
    "another certificate": (_stolen, "bound to another key"),
    "no certificate": (lambda w: scope_of(headers=bearer(w.token())), "no TLS client certificate"),
    "expired": (_expired, "token expired"),
    "revoked agent": (_revoked, "taken back"),
    "revoked certificate": (_revoked_peer, "taken back"),
    "bearer": (lambda w: scope_of(headers=bearer(w.fake.task_token())), "bound to no key"),
    "not a token": (lambda _: scope_of(headers=bearer("canary-secret")), "compact form"),
    "no scheme": (lambda _: scope_of(headers={"authorization": "canary-secret"}), "compact form"),
    "another scheme": (
        lambda w: scope_of(
            headers={"authorization": f"Basic {w.token()}"}, certificate=w.certificate
        ),
        "must be Bearer or DPoP",
    ),
    "DPoP token as bearer": (lambda w: scope_of(headers=bearer(w.dpop_token())), "no DPoP proof"),
    "bearer token as DPoP": (
        lambda w: scope_of(headers=dpop(w, w.token()), certificate=w.certificate),
        "not bound to a DPoP key",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(world: World, case: str) -> None:
    """Each is a 401 with a problem document and a challenge, and neither repeats a secret."""
    request, words = REFUSALS[case]
    answer = send(protected(world), request(world))
    assert answer.status == 401
    assert words in answer.problem["detail"]
    assert 'error="invalid_token"' in answer.challenges[0]
    shown = answer.body.decode() + repr(answer.headers)
    assert "canary" not in shown
    assert "eyJ" not in shown


def test_a_proof_is_made_for_the_public_address(world: World) -> None:
    """What the Host header says does not matter; what the proof was made for does."""
    app, token = protected(world), world.dpop_token()
    evil = {"url": "https://evil.example/tickets/4711"}
    headers = {**dpop(world, token, **evil), "host": "evil.example"}
    answer = send(app, scope_of(headers=headers))
    assert answer.status == 401
    assert "made for another address" in answer.problem["detail"]
    headers = {**dpop(world, token), "host": "evil.example"}
    assert send(app, scope_of(headers=headers)).status == 200


def test_an_action_that_was_not_granted(world: World) -> None:
    """A good token for less is a 403 that names the scope that would do."""
    scope = scope_of(method="DELETE", headers=bearer(world.token()), certificate=world.certificate)
    answer = send(protected(world), scope)
    assert answer.status == 403
    assert answer.problem["type"] == "urn:accredit:problem:not-declared"
    assert 'error="insufficient_scope"' in answer.challenges[1]
    assert 'scope="tickets:delete"' in answer.challenges[1]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/tickets/4711"),
        ("HEAD", "/tickets/4711"),
        ("get", "/tickets/4711"),
        ("GET", "/tickets"),
        ("GET", "/tickets/"),
        ("GET", "/tickets/4711/"),
        ("GET", "/tickets/4711/notes"),
        ("GET", "/tickets//4711"),
        ("GET", "/tickets/../health"),
        ("GET", "/tickets/.."),
        ("GET", "//health"),
        ("GET", "/health/."),
        ("GET", "/health\n"),
        ("GET", ""),
        ("GET", "health"),
    ],
)
def test_what_no_rule_is_about_is_refused(world: World, method: str, path: str) -> None:
    """Another method, another path, or a path that two readers could read in two ways."""
    headers = bearer(world.token())
    scope = scope_of(path, method=method, headers=headers, certificate=world.certificate)
    answer = send(protected(world), scope)
    assert answer.status == 403
    assert answer.problem["detail"] == "no rule of this server allows this request"


def test_an_open_rule_needs_no_token(world: World) -> None:
    """What is open is open to anybody."""
    answer = send(protected(world), scope_of("/health"))
    assert (answer.status, answer.body) == (200, b"open")


def test_stale_knowledge_refuses_everybody(world: World) -> None:
    """When the feed has been gone for too long, the answer is 503 and says when to come back."""
    world.now += timedelta(seconds=31)
    scope = scope_of(headers=bearer(world.token()), certificate=world.certificate)
    answer = send(protected(world), scope)
    assert answer.status == 503
    assert ("retry-after", "1") in answer.headers
    assert "31 seconds old" in answer.problem["detail"]


def test_a_full_memory_of_proofs_refuses(world: World) -> None:
    """Where a replay could not be noticed, nothing passes."""
    app, token = protected(world, replays=ReplayMemory(size=1)), world.dpop_token()
    assert send(app, scope_of(headers=dpop(world, token, jti="one"))).status == 200
    assert send(app, scope_of(headers=dpop(world, token, jti="two"))).status == 503


@pytest.mark.parametrize("name", ["authorization", "dpop"])
def test_two_opinions_are_none(world: World, name: str) -> None:
    """A header that stands twice is a malformed request."""
    headers = [*dpop(world, world.dpop_token()).items(), (name, "another")]
    answer = send(protected(world), scope_of(headers=headers))
    assert answer.status == 400
    assert 'error="invalid_request"' in answer.challenges[0]


def test_a_websocket_is_refused(world: World) -> None:
    """No rule is about websockets: the handshake is refused."""
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def take(message: Any) -> None:
        sent.append(message)

    scope = {**scope_of("/health"), "type": "websocket"}
    asyncio.run(protected(world)(scope, receive, take))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_rules_say_what_they_mean(world: World) -> None:
    """No rules, a method in lower case and a path that cannot match are errors at the start."""
    guard = Guard(world.verifier(), public_url=AUDIENCE)
    with pytest.raises(ValueError, match="rules must say"):
        TaskTokenMiddleware(application, guard, rules=[])
    odd = [("get", "/x"), *(("GET", path) for path in ("x", "/x//y", "/../x", "/x\n"))]
    for method, path in odd:
        with pytest.raises(ValueError, match="rule's"):
            Open(method, path)
    with pytest.raises(ValueError, match="resource and action"):
        Rule("GET", "/x", resource="", action="read")
    for url in ("http://tickets.example.org", "tickets.example.org", AUDIENCE + "/path"):
        with pytest.raises(ValueError, match="public_url"):
            Guard(world.verifier(), public_url=url)


def _fastapi(world: World) -> FastAPI:
    app = FastAPI()
    install(app, Guard(world.verifier(), public_url=AUDIENCE))

    @app.get("/tickets/{ticket}")
    async def read(
        ticket: str, token: Annotated[TaskToken, Depends(requires("tickets", "read"))]
    ) -> dict[str, str]:
        return {"ticket": ticket, "purpose": token.task.purpose}

    return app


def test_the_fastapi_dependency(world: World) -> None:
    """A route that requires an action gets the token, or the same refusal as the middleware."""
    app = _fastapi(world)
    good = scope_of(headers=bearer(world.token()), certificate=world.certificate)
    assert json.loads(send(app, good).body) == {"ticket": "4711", "purpose": "a test"}
    refused = send(app, scope_of())
    assert refused.status == 401
    assert refused.problem == send(protected(world), scope_of()).problem
    assert refused.challenges == send(protected(world), scope_of()).challenges


def test_a_dependency_without_a_guard_refuses(world: World) -> None:
    """An application that forgot its guard answers nothing."""
    app = _fastapi(world)
    del app.state.accredit_guard
    with pytest.raises(Exception, match="no guard"):
        send(app, scope_of(headers=bearer(world.token()), certificate=world.certificate))


def test_a_changed_token_is_refused(world: World) -> None:
    """Another signature under the same claims is no token, before and after the true one."""
    app, token = protected(world), world.token()
    forged = token[:-8] + ("AAAAAAAA" if token[-8:] != "AAAAAAAA" else "BBBBBBBB")
    for text, status in ((forged, 401), (token, 200), (forged, 401)):
        scope = scope_of(headers=bearer(text), certificate=world.certificate)
        assert send(app, scope).status == status


def test_another_trust_domains_token_is_refused(world: World) -> None:
    """A bundle without the key that signed makes every token a stranger's."""
    world.bundle = replace(world.bundle, jwt_authorities={})
    scope = scope_of(headers=bearer(world.token()), certificate=world.certificate)
    assert send(protected(world), scope).status == 401


class Fetches:
    """A bundle that can be fetched, and how often it was."""

    def __init__(self, world: World, newer: TrustBundle) -> None:
        self.world = world
        self.newer = newer
        self.count = 0

    def __call__(self) -> bool:
        """Fetch it."""
        self.count += 1
        self.world.bundle = self.newer
        return True

    async def later(self) -> bool:
        """Fetch it, in asyncio."""
        await asyncio.sleep(0)
        return self()


def _before_the_key(world: World) -> Fetches:
    newer = world.bundle
    world.bundle = replace(newer, jwt_authorities={})
    return Fetches(world, newer)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_token_of_a_key_that_is_new_is_accepted(world: World, asynchronous: bool) -> None:
    """A key younger than our bundle fails no request: the bundle is fetched, and once."""
    fetches = _before_the_key(world)
    refetch = fetches.later if asynchronous else fetches
    guard = Guard(world.verifier(), public_url=AUDIENCE, refetch=refetch)
    app = TaskTokenMiddleware(application, guard, rules=RULES)
    for _ in range(2):
        scope = scope_of(headers=bearer(world.token()), certificate=world.certificate)
        assert send(app, scope).status == 200
    assert fetches.count == 1


def test_a_token_of_a_key_that_nobody_has_is_refused(world: World) -> None:
    """When the newer bundle does not have the key either, the answer is no; nothing else asks."""
    fetches = _before_the_key(world)
    fetches.newer = world.bundle
    guard = Guard(world.verifier(), public_url=AUDIENCE, refetch=fetches)
    app = TaskTokenMiddleware(application, guard, rules=RULES)
    scope = scope_of(headers=bearer(world.token()), certificate=world.certificate)
    assert send(app, scope).status == 401
    assert fetches.count == 1
    forged = World(Authority(now=world.now), world.now).token()
    world.bundle = world.authority.bundle
    assert send(app, scope_of(headers=bearer(forged))).status == 401
    assert fetches.count == 1


def test_requests_that_wait_for_a_bundle_wait_for_the_same(world: World) -> None:
    """However many requests name an unknown key at once, one fetch is under way."""
    fetches = _before_the_key(world)
    guard = Guard(world.verifier(), public_url=AUDIENCE, refetch=fetches.later)

    async def ask() -> list[TaskToken]:
        scopes = [
            scope_of(headers=bearer(world.token()), certificate=world.certificate)
            for _ in range(20)
        ]
        return await asyncio.gather(
            *(guard.admit(scope, resource="tickets", action="read") for scope in scopes)
        )

    assert len(asyncio.run(ask())) == 20
    assert fetches.count == 1

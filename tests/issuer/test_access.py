"""Who may call what: every route by every kind of caller, over real TLS, default deny.

A route that is not in the table fails ``test_no_route_is_forgotten``. The table is written from
docs/api.md and knows nothing of the code.
"""

import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.authority import Authority
from support.clock import SettableClock
from support.issuer import (
    Admin,
    RunningIssuer,
    attest,
    attest_node,
    join_token_file,
    log_in,
    register,
    running_issuer,
    write_agent,
)
from support.raw_http import Answer, RawClient

from accredit_attestors.manifest import generate_signer_key
from accredit_client import calls
from accredit_client.calls import certificate_request
from accredit_credentials.keys import generate_key
from accredit_credentials.revocation import TargetKind
from accredit_credentials.spiffe_id import SpiffeId, issuer_id
from accredit_credentials.x509_svid import X509Identity, X509Svid
from accredit_issuer.api.hot import HotRoute
from accredit_issuer.app import make_app
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.registry.changes import Local

ROLES = ("viewer", "registrar", "security", "owner", "admin")
STRANGERS = ("nobody", "expired", "revoked agent", "revoked admin", "revoked node")
EVERYONE = frozenset({*STRANGERS, *ROLES, "agent", "node", "stray owner", "stray registrar"})
KNOWN = EVERYONE - {*STRANGERS}
ADMINS = KNOWN - {"agent", "node"}
OPERATORS = frozenset({"security", "admin"})
READERS = ADMINS - {"owner", "stray owner"}
REFUSED = {401: "unauthenticated", 403: ("forbidden", "revoked")}

AGENT = "support/summarizer"


@dataclass
class World:
    """A running issuer and somebody of every kind."""

    running: RunningIssuer
    callers: dict[str, RawClient]
    envelope: str
    svid: X509Svid  # the agent's


@dataclass(frozen=True)
class Route:
    """Who gets past the door, and a request that is good enough to knock with."""

    allowed: frozenset[str]
    body: Any = None
    path: str = ""


CSR = certificate_request(generate_key())
TASK = {"resource": "tickets", "actions": ["read"], "task": {"purpose": "x"}}
UUID = "0b8f7c1e-5a44-4c0e-9d3a-2f6f1f0a7b11"
TABLE = {
    "GET /v1/bundle": Route(EVERYONE),
    "HEAD /v1/bundle": Route(EVERYONE),
    "GET /.well-known/openid-configuration": Route(EVERYONE),
    "HEAD /.well-known/openid-configuration": Route(EVERYONE),
    "GET /.well-known/oauth-authorization-server": Route(EVERYONE),
    "HEAD /.well-known/oauth-authorization-server": Route(EVERYONE),
    "GET /.well-known/jwks.json": Route(EVERYONE),
    "HEAD /.well-known/jwks.json": Route(EVERYONE),
    "GET /.well-known/ssf-configuration": Route(EVERYONE),
    "HEAD /.well-known/ssf-configuration": Route(EVERYONE),
    "GET /v1/crl/{authority}.crl": Route(EVERYONE, path="/v1/crl/00.crl"),
    "GET /v1/crls": Route(EVERYONE),
    "POST /v1/ocsp/{authority}": Route(EVERYONE, path="/v1/ocsp/00"),
    "GET /v1/ocsp/{authority}/{encoded:path}": Route(EVERYONE, path="/v1/ocsp/00/MAA="),
    "GET /v1/revocations": Route(EVERYONE),
    "GET /v1/revocations/stream": Route(EVERYONE, path="/v1/revocations/stream?after=9999"),
    # Public, and refused for its id: nobody's is past the door.
    "POST /v1/revocations/acknowledgements": Route(EVERYONE, {"listener": "A" * 22, "through": 0}),
    "GET /v1/status-lists": Route(EVERYONE),
    "HEAD /v1/status-lists": Route(EVERYONE),
    "GET /v1/status-lists/{list_id}": Route(EVERYONE, path="/v1/status-lists/00"),
    "HEAD /v1/status-lists/{list_id}": Route(EVERYONE, path="/v1/status-lists/00"),
    # Somebody known, and refused for a body that does not say what it is.
    "POST /v1/introspect": Route(KNOWN, b"token=x"),
    "GET /v1/log/key": Route(EVERYONE),
    "GET /v1/log/checkpoint": Route(EVERYONE),
    "GET /v1/log/tile/{path:path}": Route(EVERYONE, path="/v1/log/tile/0/x001/000"),
    "GET /health/live": Route(EVERYONE),
    "GET /health/ready": Route(EVERYONE),
    "GET /metrics": Route(EVERYONE),
    "GET /docs": Route(EVERYONE),
    "GET /openapi.json": Route(EVERYONE),
    "HEAD /openapi.json": Route(EVERYONE),
    "POST /v1/attestations/nonce": Route(EVERYONE, {}),
    # Public, and refused for its evidence: malformed is past the door.
    "POST /v1/attestations": Route(EVERYONE, {"nonce": "!", "csr": CSR, "evidence": []}),
    "POST /v1/admins/enrolment": Route(EVERYONE, {"token": "x", "csr": CSR}),
    "POST /v1/svids/x509": Route(KNOWN, {"csr": "no request"}),
    "POST /v1/svids/x509/batch": Route(frozenset({"agent"}), {"csrs": [], "evidence": []}),
    "POST /v1/svids/jwt": Route(frozenset({"agent"}), {"audience": ["a"]}),
    "POST /v1/svids/wit": Route(frozenset({"agent"}), {"csr": "no request"}),
    "POST /v1/task-tokens": Route(frozenset({"agent"}), TASK),
    "GET /v1/whoami": Route(KNOWN),
    "GET /v1/admins": Route(frozenset({"admin"})),
    "POST /v1/admins": Route(
        frozenset({"admin"}), {"name": "!", "role": "viewer", "namespaces": []}
    ),
    "GET /v1/signers": Route(READERS),
    "POST /v1/signers": Route(
        frozenset({"admin"}), {"name": "x", "public_key": "no key", "namespaces": ["support"]}
    ),
    "GET /v1/manifests": Route(ADMINS),
    "POST /v1/manifests": Route(frozenset({"registrar", "owner", "admin"}), {"envelope": "…"}),
    "GET /v1/manifests/{digest}": Route(ADMINS, path="/v1/manifests/sha256:00"),
    "GET /v1/agents": Route(ADMINS),
    "GET /v1/agents/{namespace}/{name}": Route(ADMINS, path="/v1/agents/support/nobody"),
    "POST /v1/agents/{namespace}/{name}/join-tokens": Route(
        frozenset({"registrar", "owner", "admin"}), {}, "/v1/agents/support/nobody/join-tokens"
    ),
    "POST /v1/revocations": Route(
        frozenset({"security", "owner", "admin"}),
        {"target": "agent:support/nobody", "reason": "x"},
    ),
    "POST /v1/revocations/preview": Route(
        frozenset({"security", "owner", "admin"}),
        {"target": "agent:support/nobody", "reason": "x"},
    ),
    "GET /v1/revocations/facts": Route(READERS),
    "GET /v1/revocations/confirmations": Route(
        READERS, path="/v1/revocations/confirmations?through=1"
    ),
    "GET /v1/status": Route(READERS),
    "GET /v1/authorities": Route(READERS),
    # One is prepared already, and nothing of the id 00 exists: past the door nothing is changed.
    "POST /v1/authorities/{kind}/prepare": Route(OPERATORS, {}, "/v1/authorities/jwt/prepare"),
    "POST /v1/authorities/{authority}/activate": Route(
        OPERATORS, {"early": True}, "/v1/authorities/00/activate"
    ),
    "POST /v1/authorities/{authority}/taint": Route(
        OPERATORS, {"reason": "x"}, "/v1/authorities/00/taint"
    ),
    "POST /v1/authorities/{authority}/revoke": Route(
        OPERATORS, {"reason": "x"}, "/v1/authorities/00/revoke"
    ),
    "POST /v1/issuing-cas": Route(frozenset({"agent"}), {"csr": "no request"}),
    "GET /v1/subordinates": Route(READERS),
    "POST /v1/subordinates": Route(
        frozenset({"admin"}), {"agent": "support/nobody", "namespaces": ["support"]}
    ),
    "DELETE /v1/subordinates/{namespace}/{name}": Route(
        frozenset({"admin"}), path="/v1/subordinates/support/nobody"
    ),
    # Public, and refused for its nonce: malformed is past the door.
    "POST /v1/nodes/attestations": Route(
        EVERYONE, {"node": "x", "nonce": "!", "csr": CSR, "evidence": []}
    ),
    "POST /v1/nodes/instances": Route(
        frozenset({"node"}), {"csr": CSR, "manifest": "no digest", "code": "x"}
    ),
    "POST /v1/nodes/instances/batch": Route(frozenset({"node"}), {"requests": []}),
    # Of a node, and refused for its reason.
    "POST /v1/nodes/instances/{instance}/changed": Route(
        frozenset({"node"}), {"reason": ""}, f"/v1/nodes/instances/{UUID}/changed"
    ),
    "GET /v1/nodes": Route(READERS),
    "POST /v1/nodes": Route(
        OPERATORS, {"name": "!", "attestation": "join_token", "namespaces": ["support"]}
    ),
    "GET /v1/nodes/{name:node}": Route(READERS, path="/v1/nodes/nobody"),
    "PUT /v1/nodes/{name:node}/namespaces": Route(
        OPERATORS, {"namespaces": ["support"]}, "/v1/nodes/nobody/namespaces"
    ),
    "POST /v1/nodes/{name:node}/join-tokens": Route(OPERATORS, {}, "/v1/nodes/nobody/join-tokens"),
    "DELETE /v1/nodes/{name:node}": Route(OPERATORS, path="/v1/nodes/nobody"),
    "GET /v1/federation/bundles": Route(KNOWN),
    "GET /v1/federation": Route(READERS),
    "POST /v1/federation": Route(
        frozenset({"admin"}),
        {"trust_domain": "b.example", "profile": "https_web", "endpoint_url": "http://b.example"},
    ),
    "PUT /v1/federation/{trust_domain}/allows": Route(
        frozenset({"admin"}), {"allows": []}, "/v1/federation/b.example/allows"
    ),
    "POST /v1/federation/{trust_domain}/refresh": Route(
        frozenset({"admin"}), {}, "/v1/federation/b.example/refresh"
    ),
    "DELETE /v1/federation/{trust_domain}": Route(
        frozenset({"admin"}), None, "/v1/federation/b.example"
    ),
    "GET /v1/ssf/streams": Route(READERS),
    "POST /v1/ssf/streams": Route(OPERATORS, {"name": "!", "audience": "a"}),
    "DELETE /v1/ssf/streams/{name}": Route(OPERATORS, path="/v1/ssf/streams/nobody"),
    "POST /v1/ssf/streams/{name}/verify": Route(OPERATORS, {}, "/v1/ssf/streams/nobody/verify"),
    # Of whoever a stream names, and there is none.
    "POST /v1/ssf/poll/{stream_id}": Route(KNOWN, {}, f"/v1/ssf/poll/{'0' * 32}"),
    "POST /v1/ssf/verify": Route(KNOWN, {"stream_id": "0"}),
    "GET /v1/log/entries": Route(READERS),
    "GET /v1/log/explain/{identifier}": Route(READERS, path=f"/v1/log/explain/{UUID}"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One issuer for all; its clock begins hours ago, so that one SVID is over and OpenSSL is not.

    OpenSSL looks at the real clock: the expired SVID is still good for it, and not for the issuer.
    """
    real = datetime.now(UTC)
    clock = SettableClock(real - timedelta(hours=7, minutes=30))
    folder = tmp_path_factory.mktemp("access")
    with ExitStack() as stack:
        running = stack.enter_context(running_issuer(folder / "issuer", clock=clock))
        running.issuer.rollover.prepare(AuthorityKind.JWT, by=Local("test"))
        first = log_in(running, running.first_token)
        clock.now = real
        admin = log_in(running, _invite(first, "second", "admin"))
        identities: dict[str, X509Identity | None] = {"nobody": None, "expired": first.identity}
        for role in ROLES:
            identities[role] = log_in(running, _invite(admin, role, role)).identity
        for role in ("owner", "registrar"):
            token = _invite(admin, f"stray-{role}", role, "payments")
            identities[f"stray {role}"] = log_in(running, token).identity
        agent = write_agent(folder / "agent", key=generate_signer_key(), now=real)
        register(running, admin, agent)
        for name in ("agent", "revoked agent"):
            identities[name] = attest(running, agent, join_token_file(admin, agent))
        for name in ("node", "revoked node"):
            identities[name] = attest_node(running, admin, name.replace(" ", "-"))
        identities["revoked admin"] = log_in(running, _invite(admin, "ex", "admin")).identity
        held, gone = identities["agent"], identities["revoked agent"]
        assert held is not None
        assert gone is not None
        admin.send(
            calls.revoke(target=f"instance:{gone.svid.instance}", kind="revoked", reason="x")
        )
        admin.send(calls.revoke(target="node:revoked-node", kind="revoked", reason="x"))
        admin.send(calls.revoke(target="admin:ex", kind="suspended", reason="x"))
        clock.now = real + timedelta(minutes=40)
        yield World(
            running,
            {
                name: RawClient.at(running.url, running.bundle, identity)
                for name, identity in identities.items()
            },
            agent.envelope,
            held.svid,
        )


def _invite(admin: Admin, name: str, role: str, namespace: str = "support") -> str:
    answer = admin.send(calls.add_admin(name=name, role=role, namespaces=[namespace]))
    return str(answer.enrolment_token)


def knock(world: World, route: str, caller: str) -> Answer:
    """Ask for a route as somebody."""
    method, path = route.split(" ")
    entry = TABLE[route]
    body = entry.body
    if route == "POST /v1/manifests":
        body = {"envelope": world.envelope}
    return world.callers[caller].ask(method, entry.path or path, body)


@pytest.mark.parametrize("caller", sorted(EVERYONE))
@pytest.mark.parametrize("route", TABLE)
def test_each_caller_at_each_route(world: World, route: str, caller: str) -> None:
    """Who may is let in, whoever else is refused with the right problem and nothing more."""
    answer = knock(world, route, caller)
    if caller in TABLE[route].allowed:
        assert answer.status not in {401, 403, 500, 503}, answer.body
        return
    expected = {
        "nobody": "unauthenticated",
        "expired": "unauthenticated",
        "revoked agent": "revoked",
        "revoked admin": "revoked",
        "revoked node": "revoked",
    }.get(caller, "forbidden")
    assert answer.kind == expected
    assert answer.status == (401 if expected == "unauthenticated" else 403)


def test_no_route_is_forgotten(world: World) -> None:
    """Every route that the application serves stands in the table, and no other."""

    def served(routes: Any) -> Iterator[str]:
        for route in routes:
            inner = getattr(route, "original_router", None)
            if inner is not None:
                yield from served(inner.routes)
            else:
                yield from (f"{method} {route.path}" for method in route.methods)

    assert set(served(make_app(world.running.issuer).routes)) == set(TABLE)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST", "OPTIONS", "TRACE", "X"])
def test_another_method_is_not_this_one(world: World, method: str) -> None:
    """A method that a path does not have is refused, for everybody, with a problem document."""
    for path in ("/v1/bundle", "/v1/whoami", "/v1/log/entries"):
        answer = world.callers["admin"].ask(method, path, {} if method == "POST" else None)
        assert answer.status in {400, 405}
    assert world.callers["admin"].ask("DELETE", "/v1/bundle").kind == "method-not-allowed"


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"]
)
def test_what_agents_ask_for_is_asked_for_by_post(world: World, method: str) -> None:
    """With another method no call of agents is carried out, however good its body is."""
    routes = make_app(world.running.issuer).routes
    hot = [route for route in routes if isinstance(route, HotRoute)]
    before = world.running.issuer.log.frontier.size
    for route in hot:
        body = TABLE[f"POST {route.path}"].body
        answer = world.callers["agent"].ask(method, route.path, body)
        assert answer.status == 405, (route.path, answer)
        assert method == "HEAD" or answer.kind == "method-not-allowed"
    assert len(hot) >= 6
    assert world.running.issuer.log.frontier.size == before, "nothing was issued or recorded"


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/", "/v1/admins/", "//v1/admins", "/v1/../v1/admins", "/v1/Admins",
     "/v1/admins%2f", "/v1/admins/enrolment/x", "/v2/admins", "/v1/log/", "/redoc", "/.git/config",
     "/v1/agents/support", "/v1/agents/a/b/c"],
)  # fmt: skip
def test_another_path_is_not_found(world: World, path: str) -> None:
    """Near misses of a path are no path: nothing is redirected, normalised or listed."""
    for caller in ("nobody", "admin"):
        answer = world.callers[caller].ask("GET", path)
        assert answer.status in {404, 405}, (caller, answer)
        assert "location" not in answer.headers


FOREIGN = [
    "/admin/admin",
    "/ns/support/agent/summarizer",
    str(issuer_id(Authority().trust_domain).path),
]


@pytest.mark.parametrize("path", FOREIGN)
@pytest.mark.parametrize("how", ["own root", "self-signed leaf", "our CA's name"])
def test_a_foreign_ca_of_the_same_names(world: World, path: str, how: str) -> None:
    """An SVID of our names under somebody else's key does not get through the handshake."""
    authority = Authority("example.org", now=datetime.now(UTC).replace(microsecond=0))
    spiffe_id = SpiffeId(authority.trust_domain, path)
    if how == "own root":
        identity = authority.issue(spiffe_id)
    elif how == "self-signed leaf":
        identity = authority.issue(spiffe_id, chain=())
    else:
        # The real CA's certificate in the chain, its name as issuer, another key's signature.
        own = world.running.issuer.authorities.now_in_force
        certificate = next(a.certificate for a in own.authorities if a.kind == "x509")
        assert certificate is not None
        from support.authority import Signer  # noqa: PLC0415

        identity = authority.issue(spiffe_id, signer=Signer(certificate), chain=(certificate,))
    client = RawClient.at(world.running.url, world.running.bundle, identity)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        client.ask("GET", "/v1/whoami")


def test_an_expired_svid_is_refused_by_the_handshake_too(world: World) -> None:
    """What is over by the real clock does not even connect."""
    now = datetime.now(UTC).replace(microsecond=0)
    authority = Authority("example.org", now=now)
    identity = authority.issue(not_after=now - timedelta(seconds=5))
    client = RawClient.at(world.running.url, world.running.bundle, identity)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        client.ask("GET", "/v1/bundle")


def test_older_tls_is_refused(world: World) -> None:
    """TLS 1.2 does not connect."""
    client = RawClient.at(world.running.url, world.running.bundle)
    client.context.minimum_version = ssl.TLSVersion.TLSv1_2
    client.context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        client.ask("GET", "/v1/bundle")


@pytest.mark.parametrize(
    ("caller", "namespace", "status"),
    [
        ("owner", "support", 200),
        ("stray owner", "support", 404),
        ("viewer", "support", 200),
        ("stray registrar", "support", 200),
    ],
)
def test_an_owner_sees_its_own_only(world: World, caller: str, namespace: str, status: int) -> None:
    """To an owner of other namespaces an agent is not there, in lists and by name alike."""
    client = world.callers[caller]
    assert client.ask("GET", f"/v1/agents/{namespace}/summarizer").status == status
    assert bool(client.ask("GET", "/v1/agents").json["agents"]) is (status == 200)
    assert bool(client.ask("GET", "/v1/manifests").json["manifests"]) is (status == 200)


@pytest.mark.parametrize(
    ("caller", "target", "status"),
    [
        ("owner", "namespace:payments", 403),
        ("owner", "agent:payments/x", 403),
        ("owner", "signer:ci", 403),
        ("owner", "owner:maria@example.org", 403),
        ("owner", "admin:admin", 403),
        ("owner", "serial:1", 403),
        ("owner", "node:x", 403),
        ("stray owner", "agent:support/summarizer", 403),
        ("stray owner", "namespace:support", 403),
        ("security", "node:x", 404),
        ("security", "serial:1", 404),
        ("security", "agent:nonsense", 400),
        ("security", "agent:a/b/c", 400),
        ("security", "nonsense", 400),
        ("security", "Agent:support/summarizer", 400),
    ],
)
def test_who_may_revoke_what(world: World, caller: str, target: str, status: int) -> None:
    """An owner revokes within its namespaces only; what lies in none or in several is not its."""
    body = {"target": target, "reason": "x"}
    preview = world.callers[caller].ask("POST", "/v1/revocations/preview", body)
    assert preview.status == (200 if status == 201 else status), "it is allowed to the same"
    assert world.callers[caller].ask("POST", "/v1/revocations", body).status == status


def victims(world: World) -> dict[str, str]:
    """A target of each kind, each of which exists and means somebody else's agent or node."""
    agent = world.callers["agent"]
    token = agent.ask("POST", "/v1/task-tokens", TASK).json
    (manifest,) = world.callers["viewer"].ask("GET", "/v1/manifests").json["manifests"]
    authorities = world.running.issuer.authorities.now_in_force
    return {
        "namespace": "namespace:support",
        "agent": f"agent:{AGENT}",
        "manifest": f"manifest:{manifest['digest']}",
        "signer": f"signer:{manifest['signer']}",
        "owner": f"owner:{manifest['owner']}",
        "node": "node:node",
        "instance": f"instance:{world.svid.instance}",
        "task": f"task:{token['task']['id']}",
        "jti": f"jti:{token['jti']}",
        "serial": f"serial:{world.svid.serial}",
        "CA": f"authority:{authorities.active(AuthorityKind.X509).id}",
        "key": f"authority:{authorities.active(AuthorityKind.JWT).id}",
        "admin": "admin:security",
    }


@pytest.mark.parametrize("kind", ["revoked", "suspended", "restored"])
def test_nobody_ends_what_is_not_its(world: World, kind: str) -> None:
    """Agents, nodes, other roles and owners of elsewhere: nothing of anybody, nor of themselves."""
    facts = world.running.issuer.feed.through
    log = world.running.issuer.log.frontier.size
    targets = victims(world)
    assert {*map(TargetKind, {each.partition(":")[0] for each in targets.values()})} == {
        *TargetKind
    }
    issued = world.running.issuer.log.frontier.size
    assert issued > log
    for caller in ("nobody", "agent", "node", "viewer", "registrar", "stray owner"):
        for name, target in targets.items():
            body = {"target": target, "kind": kind, "reason": "x"}
            answer = world.callers[caller].ask("POST", "/v1/revocations", body)
            assert answer.status == (401 if caller == "nobody" else 403), (caller, name, answer)
    # What is of all namespaces is no owner's, its own agents' signer, owner and node included.
    for name in ("signer", "owner", "node", "CA", "key", "admin"):
        body = {"target": targets[name], "kind": kind, "reason": "x"}
        assert world.callers["owner"].ask("POST", "/v1/revocations", body).status == 403, name
    assert world.running.issuer.feed.through == facts
    assert world.running.issuer.log.frontier.size == issued


def test_instances_and_tasks_lie_in_their_agents_namespace(world: World) -> None:
    """An owner of elsewhere cannot revoke a task or a token of an agent that is not its."""
    agent = world.callers["agent"]
    token = agent.ask("POST", "/v1/task-tokens", TASK).json
    instance = agent.ask("POST", "/v1/svids/jwt", {"audience": ["a"]}).json
    stray = world.callers["stray owner"]
    for target in (f"task:{token['task']['id']}", f"jti:{token['jti']}", f"jti:{instance['jti']}"):
        assert stray.ask("POST", "/v1/revocations", {"target": target, "reason": "x"}).status == 403
    own = {"target": f"jti:{token['jti']}", "reason": "x"}
    assert world.callers["owner"].ask("POST", "/v1/revocations", own).status == 201

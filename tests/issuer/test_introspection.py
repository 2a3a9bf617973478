"""Introspection: who is told what of which token, and that everybody else is told the same."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, update
from support.authority import INSTANCE, MANIFEST, NOW, Authority
from support.issuer import attest_node, log_in, running_issuer
from support.offline import Offline, offline_issuer
from support.raw_http import Answer, RawClient
from support.tokens import claims_in
from support.wire import Wire

from accredit_attestors.declaration import Action, Resource
from accredit_attestors.levels import Risk
from accredit_client import calls
from accredit_credentials import jwt_svid, task_token
from accredit_credentials.jws import MAX_TOKEN_BYTES
from accredit_credentials.jwt_svid import AgentBlock, JwtSvid
from accredit_credentials.keys import generate_key
from accredit_credentials.spiffe_id import SpiffeId
from accredit_credentials.task_token import BEARER, Binding, BindingKind, Grant, Task, TaskToken
from accredit_issuer.api.introspection import token_in
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.errors import InvalidSettings, Kind, Refusal
from accredit_issuer.registry.roles import Role
from accredit_issuer.revocation.introspection import Viewer, answer_about, inactive, may_see
from accredit_issuer.settings import Settings, check
from accredit_issuer.store.models import credentials, releases

AUDIENCE = "https://tickets.example.org"
SERVER = "spiffe://example.org/ns/support/agent/desk"
EVERYTHING = Viewer(audiences=frozenset(), namespaces=None)
INACTIVE = {"active": False}
AGENT = AgentBlock(version="1", instance=INSTANCE, manifest=MANIFEST, assurance="self")


def a_token(**changes: Any) -> TaskToken:
    """A task token of an agent of ``support``, for ``AUDIENCE``."""
    client = Authority().id()
    good = TaskToken(
        issuer="https://issuer.example",
        principal="user:maria@example.org",
        client=client,
        audience=AUDIENCE,
        jti="1",
        issued_at=NOW,
        expires_at=NOW + timedelta(minutes=5),
        grants=(Grant(resource="tickets", location=AUDIENCE, actions=("read",)),),
        task=Task(id="1", purpose="x"),
        agent=AGENT,
        binding=BEARER,
    )
    return replace(good, **changes)


def a_svid(*audience: str) -> JwtSvid:
    """A JWT-SVID of the same agent."""
    return JwtSvid(
        spiffe_id=Authority().id(), audience=audience, expires_at=NOW, jti="2", agent=AGENT
    )


@pytest.mark.parametrize(
    ("audiences", "namespaces", "sees"),
    [
        ({AUDIENCE}, (), True),
        ({SERVER, AUDIENCE}, (), True),
        (set(), None, True),
        (set(), ("support",), True),
        (set(), ("sales", "support"), True),
        (set(), (), False),
        ({SERVER}, (), False),
        ({f"{AUDIENCE}/"}, (), False),
        ({AUDIENCE.upper()}, (), False),
        ({""}, (), False),
        (set(), ("sales",), False),
        (set(), ("suppor", "support2", ""), False),
        ({str(Authority().id())}, (), False),
    ],
)
def test_who_may_see_a_task_token(
    audiences: set[str], namespaces: tuple[str, ...] | None, sees: bool
) -> None:
    """Its audience, as a whole text, and who may read about its agent; its own holder may not."""
    viewer = Viewer(audiences=frozenset(audiences), namespaces=namespaces)
    assert may_see(viewer, a_token()) is sees


@pytest.mark.parametrize(
    ("audience", "sees"),
    [((SERVER,), True), ((AUDIENCE, SERVER), True), ((AUDIENCE,), False)],
)
def test_who_may_see_a_jwt_svid(audience: tuple[str, ...], sees: bool) -> None:
    """Each of its audiences, and nobody else."""
    assert may_see(Viewer(audiences=frozenset({SERVER})), a_svid(*audience)) is sees


@pytest.mark.parametrize("path", ["/admin/first", "/node/support", "/ns/support", "/x/support/a"])
def test_namespaces_are_those_of_agents(path: str) -> None:
    """What is not below a namespace is seen by those who read all, not by an owner."""
    token = a_token(client=SpiffeId(Authority().trust_domain, path))
    assert not may_see(Viewer(audiences=frozenset(), namespaces=("support", "")), token)
    assert may_see(EVERYTHING, token)


def test_what_is_told_of_a_task_token() -> None:
    """The token's own claims, and the two names of RFC 7662; its binding decides its type."""
    for binding, kind in (
        (BEARER, "Bearer"),
        (Binding(BindingKind.CERTIFICATE, "c" * 43), "Bearer"),
        (Binding(BindingKind.DPOP_KEY, "d" * 43), "DPoP"),
    ):
        token = a_token(binding=binding)
        expected = {"active": True, "token_type": kind, **task_token.claims_of(token)}
        assert answer_about(token) == expected
        assert {"scope", "client_id", "sub", "aud", "iss", "exp", "iat", "jti"} <= expected.keys()


def test_what_is_told_of_a_jwt_svid() -> None:
    """The same; its client is its subject, and there is no scope."""
    answer = answer_about(a_svid(SERVER))
    assert answer["client_id"] == answer["sub"] == str(Authority().id())
    assert (answer["active"], answer["token_type"], answer["aud"]) == (True, "Bearer", [SERVER])
    assert "scope" not in answer


@dataclass
class Issued:
    """Tokens of one agent: a task token and a JWT-SVID."""

    offline: Offline
    content: TaskToken
    task: str
    jwt: str

    def told(self, text: str, viewer: Viewer = EVERYTHING) -> dict[str, Any]:
        """What a viewer is told of a text now."""
        clock = self.offline.issuer.guarded_clock
        return self.offline.issuer.introspection.introspect(text, viewer, clock())

    def signed(self, **claims: object) -> str:
        """The task token signed once more by the issuer's own key, with claims changed."""
        content = replace(self.content, **claims)  # type: ignore[arg-type]
        return task_token.sign(content, *self.offline.issuer.authorities.jwt_signer())


@pytest.fixture
def issued(offline: Offline) -> Issued:
    """One of each, issued a moment ago."""
    svid = offline.agent()
    token = offline.task_token(svid)
    jwt = offline.do(offline.issuer.issuance.tokens.jwt_svid(svid, (SERVER, AUDIENCE)))
    return Issued(offline, token.content, token.token, jwt.token)


def test_a_good_token_is_active(issued: Issued) -> None:
    """Both kinds, to the last second of their lives; what is told is what they say."""
    for moment in (timedelta(0), timedelta(seconds=299)):
        issued.offline.clock.advance(seconds=moment.total_seconds())
        for text in (issued.task, issued.jwt):
            assert claims_in(text).items() <= issued.told(text).items()
    issued.offline.clock.advance(seconds=1)
    assert issued.told(issued.task) == issued.told(issued.jwt) == INACTIVE


def test_who_may_not_see_is_told_what_everybody_is(issued: Issued) -> None:
    """The answer is that of a token that is over."""
    for viewer in (
        Viewer(audiences=frozenset({"https://other.example"})),
        Viewer(audiences=frozenset(), namespaces=("sales",)),
    ):
        assert issued.told(issued.task, viewer) == issued.told(issued.jwt, viewer) == INACTIVE
    assert inactive() == INACTIVE


@pytest.mark.parametrize("kind", ["revoked", "suspended"])
@pytest.mark.parametrize(
    "target",
    ["jti", "task", "instance", "agent:support/summarizer", "namespace:support", "signer:ci",
     "owner:maria@example.org", "authority"],
)  # fmt: skip
def test_what_a_fact_matches_is_not_active(issued: Issued, target: str, kind: str) -> None:
    """Revoked or suspended, by anything that the token is of; restored it is active again."""
    content = issued.content
    values = {
        "jti": f"jti:{content.jti}",
        "task": f"task:{content.task.id}",
        "instance": f"instance:{content.agent.instance}",
        "authority": f"authority:{content.authority}",
    }
    target = values.get(target, target)
    assert issued.told(issued.task)["active"]
    issued.offline.state(target, kind)
    assert issued.told(issued.task) == INACTIVE
    of_both = not target.startswith(("jti:", "task:"))
    assert (issued.told(issued.jwt) == INACTIVE) is of_both
    if kind == "suspended":
        issued.offline.state(target, "restored")
        assert issued.told(issued.task)["active"]
        assert issued.told(issued.jwt)["active"]


def _other_issuer(issued: Issued) -> str:
    return issued.signed(issuer="https://other.example")


def _longer(issued: Issued) -> str:
    return issued.signed(expires_at=issued.content.expires_at + timedelta(seconds=1))


def _unknown(issued: Issued) -> str:
    return issued.signed(jti="0b8f7c1e-5a44-4c0e-9d3a-2f6f1f0a7b11")


def _again(issued: Issued) -> str:
    return issued.signed()


def _foreign_key(issued: Issued) -> str:
    kid = issued.content.authority or ""
    return task_token.sign(issued.content, generate_key(), kid)


def _changed(issued: Issued) -> str:
    head, body, signature = issued.task.split(".")
    return f"{head}.{body[:-2]}AA.{signature}"


def _jwt_of_a_task(issued: Issued) -> str:
    """A JWT-SVID of our key under the jti of a task token."""
    svid = JwtSvid(
        spiffe_id=issued.content.client,
        audience=(AUDIENCE,),
        expires_at=issued.content.expires_at,
        issuer=issued.content.issuer,
        jti=issued.content.jti,
    )
    return jwt_svid.sign(svid, *issued.offline.issuer.authorities.jwt_signer())


def _jwt_without_issuer(issued: Issued) -> str:
    svid = JwtSvid(
        spiffe_id=issued.content.client,
        audience=(AUDIENCE,),
        expires_at=issued.content.expires_at,
    )
    return jwt_svid.sign(svid, *issued.offline.issuer.authorities.jwt_signer())


FORGED: list[Callable[[Issued], str]] = [
    _other_issuer, _longer, _unknown, _again, _foreign_key, _changed, _jwt_of_a_task,
    _jwt_without_issuer, lambda _: "x", lambda _: "a.b.c", lambda _: "ü.ü.ü",
    lambda issued: issued.task + ".", lambda issued: issued.task[:-1],
    lambda issued: issued.offline.issuer.feed.statement(0),
]  # fmt: skip


@pytest.mark.parametrize("forge", FORGED)
def test_what_was_not_released_as_it_is_is_not_active(
    issued: Issued, forge: Callable[[Issued], str]
) -> None:
    """Another issuer, key, form or content; and what our own key signed without being asked."""
    assert issued.told(forge(issued)) == INACTIVE
    assert issued.told(issued.task)["active"]


@pytest.mark.parametrize("what", ["no release", "another digest", "no digest", "no intent"])
def test_what_is_not_on_record_is_not_active(issued: Issued, what: str) -> None:
    """A token whose release or digest is missing, or is of another text."""
    with issued.offline.issuer.database.writing.begin() as connection:
        row = connection.execute(
            credentials.select().where(credentials.c.id == issued.content.jti)
        ).one()
        release = releases.c.number == row.number
        match what:
            case "no release":
                connection.execute(delete(releases).where(release))
            case "another digest":
                connection.execute(update(releases).where(release).values(sha256=b"x" * 32))
            case "no digest":
                connection.execute(update(releases).where(release).values(sha256=None))
            case _:
                connection.execute(delete(credentials).where(credentials.c.number == row.number))
    assert issued.told(issued.task) == INACTIVE
    assert issued.told(issued.jwt)["active"]


def test_a_token_of_a_key_that_was_replaced_is_active(issued: Issued) -> None:
    """As long as its key is in the bundle; a token does not end with a rotation."""
    issued.offline.replace(AuthorityKind.JWT)
    assert issued.told(issued.task)["active"]


@pytest.mark.parametrize(
    ("body", "token"),
    [
        (b"token=a.b.c", "a.b.c"),
        (b"token=a.b.c&token_type_hint=access_token", "a.b.c"),
        (b"token_type_hint=urn%3Ax&token=a%2Eb.c", "a.b.c"),
        (b"token=a+b", "a b"),
        (b"token=%C3%BC", "ü"),
        (b"other=&token=a", "a"),
        (b"token=" + b"a" * MAX_TOKEN_BYTES, "a" * MAX_TOKEN_BYTES),
    ],
)
def test_a_form_has_one_meaning(body: bytes, token: str) -> None:
    """The token of a form, whatever else is in it, its escapes resolved once."""
    assert token_in(body) == token


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", Kind.MALFORMED),
        (b"token", Kind.MALFORMED),
        (b"token=", Kind.MALFORMED),
        (b"Token=a", Kind.MALFORMED),
        (b"token_type_hint=a", Kind.MALFORMED),
        (b"token=a&token=a", Kind.MALFORMED),
        (b"token=a&token=b", Kind.MALFORMED),
        (b"token=a&x=1&x=1", Kind.MALFORMED),
        (b"token=a&to%6Ben=b", Kind.MALFORMED),
        (b"token=a&", Kind.MALFORMED),
        (b"&token=a", Kind.MALFORMED),
        (b"token=a%", Kind.MALFORMED),
        (b"token=a%2", Kind.MALFORMED),
        (b"token=a%zz", Kind.MALFORMED),
        (b"token=%FF", Kind.MALFORMED),
        (b"token=%ED%A0%80", Kind.MALFORMED),
        (b"token=a b", Kind.MALFORMED),
        (b"token=a\n", Kind.MALFORMED),
        (b"token=\xc3\xbc", Kind.MALFORMED),
        (b"\xff\xfe", Kind.MALFORMED),
        (b'{"token": "a"}', Kind.MALFORMED),
        (b"&".join(b"a%d=1" % number for number in range(9)) + b"&token=a", Kind.MALFORMED),
        (b"token=" + b"a" * (MAX_TOKEN_BYTES + 1), Kind.TOO_LARGE),
    ],
)
def test_what_is_no_form_is_refused(body: bytes, kind: Kind) -> None:
    """No token, two of them, however it is spelt, broken escapes, other bytes; never guessed at."""
    with pytest.raises(Refusal) as refused:
        token_in(body)
    assert refused.value.kind is kind


@given(st.binary(max_size=200))
def test_any_bytes_get_a_decision(body: bytes) -> None:
    """Whatever is sent is a token or a refusal that does not repeat it."""
    try:
        token_in(body)
    except Refusal as refused:
        assert len(refused.detail) < 100  # noqa: PT017 (a refusal is one of two answers)


@given(st.text(min_size=1, max_size=50).filter(lambda text: text.isprintable()))
def test_what_a_library_encodes_is_read(text: str) -> None:
    """Any printable token, as a client's library writes it into a form."""
    assert token_in(urlencode({"token": text}).encode()) == text


@pytest.mark.parametrize(
    "servers",
    [
        {"": [SERVER]},
        {AUDIENCE: []},
        {AUDIENCE: ["desk"]},
        {AUDIENCE: ["spiffe://b.example/ns/support/agent/desk"]},
        {AUDIENCE: ["spiffe://example.org"]},
        {AUDIENCE: [SERVER, "spiffe://EXAMPLE.org/../x"]},
    ],
)
def test_a_setting_that_names_nobody_is_refused(
    tmp_path: Path, servers: dict[str, list[str]]
) -> None:
    """An audience without a name or without servers, and servers that are nobody of ours."""
    raw = {"trust_domain": "example.org", "introspection": {"resource_servers": servers}}
    with pytest.raises(InvalidSettings, match=r"introspection\.resource_servers"):
        check(Settings.model_validate(raw), folder=tmp_path)


def test_one_server_may_answer_for_several_audiences(tmp_path: Path) -> None:
    """And one audience may have several servers."""
    servers = {AUDIENCE: [SERVER, f"{SERVER}2"], "https://b.example": [SERVER]}
    raw = {"trust_domain": "example.org", "introspection": {"resource_servers": servers}}
    assert check(Settings.model_validate(raw), folder=tmp_path).introspectors == {
        SERVER: {AUDIENCE, "https://b.example"},
        f"{SERVER}2": {AUDIENCE},
    }


def asked(caller: RawClient, token: str, **headers: str) -> Answer:
    """A question over the wire, as a resource server sends it."""
    form = {"Content-Type": "application/x-www-form-urlencoded", **headers}
    body = urlencode({"token": token, "token_type_hint": "access_token"}).encode()
    return caller.ask("POST", "/v1/introspect", body, headers=form)


def a_task_token(wire: Wire) -> str:
    """A task token of the wire's agent."""
    body = {"resource": "tickets", "actions": ["read"], "task": {"purpose": "x"}}
    return str(wire.as_agent.ask("POST", "/v1/task-tokens", body).json["access_token"])


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """An issuer whose settings say that the agent answers for the audience of its own tokens."""
    folder = tmp_path_factory.mktemp("serving")
    agent = "spiffe://example.org/ns/support/agent/summarizer"
    named = {"resource_servers": {AUDIENCE: [agent]}}
    with running_issuer(folder / "issuer", introspection=named) as running:
        yield Wire(running, folder)


def test_over_the_wire(serving: Wire) -> None:
    """Asked with the server's SVID: what the token says, kept by nobody; taken back: not active."""
    token = a_task_token(serving)
    answer = asked(serving.as_agent, token)
    assert answer.status == 200
    assert answer.json == {"active": True, "token_type": "Bearer", **claims_in(token)}
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    assert asked(serving.as_agent, token + "x").json == INACTIVE
    jti = claims_in(token)["jti"]
    with serving.running.connect(serving.admin.identity) as client:
        client.send(calls.revoke(target=f"jti:{jti}", kind="revoked", reason="x"))
    assert asked(serving.as_agent, token).json == INACTIVE


def test_nobody_asks_without_an_svid(serving: Wire) -> None:
    """Anonymous questions get no answer about any token."""
    answer = asked(serving.nobody, a_task_token(serving))
    assert (answer.status, answer.kind) == (401, "unauthenticated")


def test_by_role(wire: Wire) -> None:
    """Admins see what they may read; nodes, and the holder itself, see nothing."""
    token = a_task_token(wire)
    sees = {
        "holder": wire.as_agent,
        "node": wire.caller(attest_node(wire.running, wire.admin, "n")),
    }
    expected = {"holder": False, "node": False}
    for role in Role:
        for namespace in ("support", "sales"):
            name = f"{role.value}-{namespace}"
            invited = wire.admin.send(
                calls.add_admin(name=name, role=role.value, namespaces=[namespace])
            )
            admin = log_in(wire.running, invited.enrolment_token)
            sees[name] = wire.caller(admin.identity)
            expected[name] = role is not Role.OWNER or namespace == "support"
    assert {name: asked(who, token).json["active"] for name, who in sees.items()} == expected


def test_a_body_of_another_kind_is_refused(wire: Wire) -> None:
    """JSON here, and a form anywhere else: neither is read."""
    token = a_task_token(wire)
    answer = asked(wire.as_admin, token, **{"Content-Type": "application/json"})
    assert answer.kind == "unsupported-media-type"
    as_json = wire.as_admin.ask("POST", "/v1/introspect", {"token": token})
    assert (as_json.status, as_json.kind) == (415, "unsupported-media-type")
    assert b"application/x-www-form-urlencoded" in as_json.body
    assert token.encode() not in as_json.body
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for path in ("/v1/task-tokens", "/v1/revocations", "/v1/introspect/"):
        answer = wire.as_admin.ask("POST", path, b"token=x", headers=form)
        assert answer.status in {404, 415}, path
    assert wire.as_admin.ask("GET", f"/v1/introspect?token={token}").status == 405


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(wire: Wire, chunked: bool) -> None:
    """Whether it says so or not."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = wire.as_admin.ask(
        "POST", "/v1/introspect", b"token=" + b"a" * 70_000, headers=form, chunked=chunked
    )
    assert (answer.status, answer.kind) == (413, "too-large")


def test_a_refusal_repeats_nothing(wire: Wire) -> None:
    """Nothing of the body is in a refusal."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for body in (b"token=sesame&token=sesame", b"sesame", b"token=sesame%"):
        answer = wire.as_admin.ask("POST", "/v1/introspect", body, headers=form)
        assert answer.status == 400
        assert b"sesame" not in answer.body


def test_a_server_is_its_own_audience(tmp_path: Path) -> None:
    """An agent whose SPIFFE ID is the audience sees the token; another agent does not."""
    resource = Resource("desk", SERVER, (Action("read", Risk.LOW),), True)
    with offline_issuer(tmp_path / "issuer") as offline:
        token = offline.task_token(offline.agent(resources=(resource,)), resource="desk").token
        now = offline.clock()
        told = offline.issuer.introspection.introspect
        assert told(token, Viewer(audiences=frozenset({SERVER})), now)["aud"] == SERVER
        assert told(token, Viewer(audiences=frozenset({f"{SERVER}2"})), now) == INACTIVE


def test_it_is_announced(wire: Wire) -> None:
    """The metadata names the endpoint, and how one authenticates there."""
    metadata = wire.nobody.ask("GET", "/.well-known/oauth-authorization-server").json
    assert metadata["introspection_endpoint"].endswith("/v1/introspect")
    assert metadata["introspection_endpoint_auth_methods_supported"] == ["tls_client_auth"]
    document = json.loads(wire.nobody.ask("GET", "/openapi.json").body)
    body = document["paths"]["/v1/introspect"]["post"]["requestBody"]
    assert list(body["content"]) == ["application/x-www-form-urlencoded"]

"""The wire: bodies, heads, tags and streams, and what stands in an answer."""

import base64
import json
from typing import Any

import pytest
from sqlalchemy import event
from support.issuer import attest, log_in
from support.raw_http import Answer, RawClient
from support.wire import Wire

from accredit_client import calls
from accredit_client.errors import IssuerRefused
from accredit_issuer.authority.lifecycle import AuthorityKind

LIMIT = 64 * 1024


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [LIMIT + 1, 3 * LIMIT])
def test_a_large_body_is_refused(wire: Wire, size: int, *, chunked: bool) -> None:
    """One byte over 64 KiB is too large, whether the request says its length or not."""
    body = b'{"envelope": "' + b"x" * (size - 16) + b'"}'
    headers = {"Content-Type": "application/json"}
    answer = wire.as_admin.ask("POST", "/v1/manifests", body, headers=headers, chunked=chunked)
    assert (answer.status, answer.kind) == (413, "too-large")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_the_limit_is_read(wire: Wire, *, chunked: bool) -> None:
    """Exactly 64 KiB is read, and refused for what it says only."""
    body = b'{"envelope": "' + b"x" * (LIMIT - 16) + b'"}'
    headers = {"Content-Type": "application/json"}
    answer = wire.as_admin.ask("POST", "/v1/manifests", body, headers=headers, chunked=chunked)
    assert answer.kind == "malformed"


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "",
     "application/jsonx", "application/vnd.api+json", "application/problem+json", "text/json",
     "json", "application /json"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/attestations/nonce", "/v1/svids/x509"])
def test_only_json_is_read(wire: Wire, path: str, content_type: str) -> None:
    """A body of any other type, or of none, is refused, also one that would be JSON."""
    headers = {"Content-Type": content_type} if content_type else {}
    answer = wire.as_agent.ask("POST", path, b"{}", headers=headers)
    assert (answer.status, answer.kind) == (415, "unsupported-media-type")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_has_parameters_and_no_case(wire: Wire, content_type: str) -> None:
    """The type is compared without case and without its parameters."""
    headers = {"Content-Type": content_type}
    assert wire.nobody.ask("POST", "/v1/attestations/nonce", b"{}", headers=headers).status == 200


BODIES: dict[str, tuple[str, bytes]] = {
    "no JSON": ("/v1/attestations/nonce", b"{"),
    "nothing": ("/v1/attestations/nonce", b""),
    "null": ("/v1/attestations/nonce", b"null"),
    "an array": ("/v1/attestations/nonce", b"[]"),
    "an unknown member": ("/v1/attestations/nonce", b'{"x": 1}'),
    "an unknown member inside": (
        "/v1/task-tokens",
        b'{"resource":"a","actions":["b"],"task":{"purpose":"x","ttl":9}}',
    ),
    "an unknown binding": (
        "/v1/task-tokens",
        b'{"resource":"a","actions":["b"],"task":{"purpose":"x"},"binding":{"kind":"none"}}',
    ),
    "a thumbprint for a certificate": (
        "/v1/task-tokens",
        b'{"resource":"tickets","actions":["read"],"task":{"purpose":"x"},'
        b'"binding":{"kind":"certificate","jkt":"%s"}}' % (b"a" * 43),
    ),
    "DPoP without a thumbprint": (
        "/v1/task-tokens",
        b'{"resource":"tickets","actions":["read"],"task":{"purpose":"x"},"binding":{"kind":"dpop"}}',
    ),
    "deep": ("/v1/attestations/nonce", b"[" * 30_000),
    "deep objects": ("/v1/svids/jwt", b'{"a":' * 10_000),
    "deep evidence": (
        "/v1/attestations",
        b'{"nonce":"a","csr":"b","evidence":[{"kind":"x","nonce":"y","payload":'
        + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}]}",
    ),
    "a huge number": ("/v1/attestations/nonce", b"1" * 20_000),
    "a huge number inside": (
        "/v1/attestations",
        b'{"nonce":"a","csr":"b","evidence":[{"kind":"x","nonce":"y","payload":{"a":' + b"9" * 5000
        + b"}}]}",
    ),
    "not a number": ("/v1/svids/jwt", b'{"audience": [NaN]}'),
    "a huge exponent": (
        "/v1/attestations",
        b'{"nonce":"a","csr":"b","evidence":[{"kind":"x","nonce":"y","payload":{"a":1e999}}]}',
    ),
    "a lone surrogate": ("/v1/svids/jwt", b'{"audience": ["\\ud800"]}'),
    "lone surrogates in evidence": (
        "/v1/attestations",
        b'{"nonce":"a","csr":"b","evidence":[{"kind":"x","nonce":"y","payload":{"\\ud800":"\\udfff"}}]}',
    ),
    "a lone surrogate as a nonce": (
        "/v1/attestations", b'{"nonce":"\\ud800","csr":"b","evidence":[]}',
    ),
    "no UTF-8": ("/v1/svids/jwt", b'{"audience": ["\xff"]}'),
    "UTF-16": ("/v1/svids/jwt", '{"audience": [""]}'.encode("utf-16")),
    "no audience": ("/v1/svids/jwt", b'{"audience": []}'),
    "a text as an array": ("/v1/svids/jwt", b'{"audience": "a"}'),
    "a nonce of dots": (
        "/v1/attestations", b'{"nonce":"%s","csr":"","evidence":[]}' % (b"." * 120),
    ),
    "nine pieces of evidence": (
        "/v1/attestations",
        b'{"nonce":"a","csr":"b","evidence":[' + b",".join([b"{}"] * 9) + b"]}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_bad_body_is_malformed(wire: Wire, body: tuple[str, bytes]) -> None:
    """Whatever is wrong with a body is a 400 that names it, never a 500."""
    headers = {"Content-Type": "application/json"}
    answer = wire.as_agent.ask("POST", body[0], body[1], headers=headers)
    assert (answer.status, answer.kind) == (400, "malformed"), answer.body


@pytest.mark.parametrize(
    "path",
    ["/v1/revocations?after=9223372036854775807", "/v1/revocations?after=1",
     "/v1/revocations/stream?after=1"],
)  # fmt: skip
def test_a_future_fact_is_known_to_nobody(wire: Wire, path: str) -> None:
    """Asking for what comes after a fact that was never stated is a conflict, also as a stream."""
    after = wire.running.issuer.feed.through
    if path.endswith("after=1"):
        path = path[:-1] + str(after + 1)
    assert wire.nobody.ask("GET", path).kind == "conflict"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/revocations?after=-1", 400),
        ("/v1/revocations?after=9223372036854775808", 400),
        ("/v1/revocations?after=" + "9" * 5000, 400),
        ("/v1/revocations?after=1e3", 400),
        ("/v1/revocations?after=x", 400),
        ("/v1/log/entries?start=4611686018427387904&limit=512", 200),
        ("/v1/log/entries?start=4611686018427387905", 400),
        ("/v1/log/entries?limit=0", 400),
        ("/v1/log/entries?limit=513", 400),
        ("/v1/log/tile/0/x036/x028/x797/x018/x963/967", 404),
        ("/v1/log/tile/0/x036/x028/x797/x018/x963/968", 400),
        ("/v1/log/tile/63/x036/x028/x797/x018/x963/967", 404),
        ("/v1/log/tile/64/000", 400),
        ("/v1/log/tile/0/000.p/0", 400),
        ("/v1/log/tile/0/000.p/256", 400),
        ("/v1/log/tile/0/0", 400),
        ("/v1/log/tile/../../etc/passwd", 400),
        ("/v1/log/tile/entries/000", 404),
        ("/v1/crl/zz.crl", 400),
        ("/v1/crl/" + "a" * 65 + ".crl", 400),
        ("/v1/crl/" + "a" * 64 + ".crl", 404),
        ("/v1/manifests?agent=" + "a" * 128, 400),
        ("/v1/manifests?agent=%00", 200),
        ("/v1/manifests/%00%ff", 404),
        ("/v1/log/explain/%00", 404),
        ("/v1/agents/support/%0d%0aX-Evil:%201", 400),
    ],
)
def test_odd_numbers_and_paths(wire: Wire, path: str, status: int) -> None:
    """No number overflows and no path reaches further than it says."""
    answer = wire.as_admin.ask("GET", path)
    assert answer.status == status, answer.body
    assert "x-evil" not in answer.headers


@pytest.mark.parametrize("ttl", [0, -1, 3601, 10**30, 1.5, "x"])
def test_a_lifetime_has_bounds(wire: Wire, ttl: Any) -> None:
    """A join token lives a second to as long as the settings say."""
    body = {"ttl_seconds": ttl}
    path = "/v1/agents/support/summarizer/join-tokens"
    assert wire.as_admin.ask("POST", path, body).kind == "malformed"


def test_a_head_has_a_limit(wire: Wire) -> None:
    """A header, many headers, a path or trailers without end are cut off, and others are served."""
    request = b"GET /v1/bundle HTTP/1.1\r\nHost: x\r\n"
    floods = {
        "one header": (request + b"A: ", b"x" * 4096),
        "many headers": (request, b"A: x\r\n" * 512),
        "a path": (b"GET /", b"x" * 4096),
        "trailers": (
            b"POST /v1/whoami HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            b"A: x\r\n" * 512,
        ),
    }
    for name, (begin, more) in floods.items():
        with wire.nobody.connected() as connection:
            connection.sendall(begin)
            try:
                for _ in range(4096):
                    connection.sendall(more)
            except OSError:
                continue
        pytest.fail(f"{name} was read without end")
    assert wire.nobody.ask("GET", "/v1/bundle").status == 200


@pytest.mark.parametrize(
    "host", [b"x?", b"x/../", b"evil.example", b"[", b"", b"a" * 3000, b"\xff"]
)
def test_the_host_header_decides_nothing(wire: Wire, host: bytes) -> None:
    """Whatever Host says, a path is that path: no other route, no redirect, no way in."""
    for path, status in ((b"/v1/bundle", 200), (b"/v1/admins", 401), (b"/v1/admins/", 404)):
        answer = wire.nobody.send(
            b"GET %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (path, host)
        )
        assert answer.status in ({status, 400} if host in {b"", b"\xff"} else {status})
        assert "location" not in answer.headers


def test_a_caller_is_who_the_handshake_saw(wire: Wire) -> None:
    """Headers that proxies set for a client's certificate make nobody somebody."""
    pem = wire.admin.identity.svid.pem.replace("\n", "%0A")
    for name in ("X-Client-Cert", "X-Forwarded-Client-Cert", "X-SSL-Cert", "Client-Cert",
                 "X-Forwarded-For", "Authorization"):  # fmt: skip
        answer = wire.nobody.ask("GET", "/v1/whoami", headers={name: pem})
        assert answer.kind == "unauthenticated"


def test_the_upgrade_to_a_websocket_is_no_way_around(wire: Wire) -> None:
    """A request to upgrade is answered as the request that it is."""
    answer = wire.nobody.send(
        b"GET /v1/whoami HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert answer.status == 401


def test_the_bundle_has_an_etag(wire: Wire) -> None:
    """Who has the bundle already is told so with an empty 304; another tag gets the bundle."""
    first = wire.nobody.ask("GET", "/v1/bundle")
    tag = first.headers["etag"]
    again = wire.nobody.ask("GET", "/v1/bundle", headers={"If-None-Match": tag})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    for other in ('"x"', tag[:-2] + '"', tag.strip('"')):
        assert wire.nobody.ask("GET", "/v1/bundle", headers={"If-None-Match": other}).status == 200


def test_a_stream_hears_a_fact_at_once(wire: Wire) -> None:
    """A listener gets a statement when it connects and another as soon as a fact is stated."""
    identity = attest(wire.running, wire.agent, wire.token())
    through = wire.running.issuer.feed.through
    with (
        wire.running.connect() as client,
        client.stream(calls.revocation_stream(after=through)) as events,
    ):
        assert [next(events)[0], next(events)[0]] == ["listener", "statement"]
        target = f"serial:{identity.svid.serial}"
        wire.admin.send(calls.revoke(target=target, kind="revoked", reason="x"))
        _, text = next(events)
        payload = text.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        assert [fact["target"] for fact in claims["facts"]] == [target]


@pytest.mark.parametrize(
    "text", ["a\r\nlevel=admin", "\x1b[31mred\x1b[0m", "\x9b31m", "a\x00b", "\u202eabc"]
)
def test_escapes_reach_no_line(wire: Wire, text: str) -> None:
    """Line breaks, escapes and marks that turn text are refused, or shown escaped."""
    task = {"resource": "tickets", "actions": ["read"], "task": {"purpose": text}}
    answers = [
        wire.as_agent.ask("POST", "/v1/task-tokens", task),
        wire.as_agent.ask(
            "POST", "/v1/task-tokens", {**task, "task": {"purpose": "x"}, "principal": text}
        ),
        wire.as_agent.ask(
            "POST", "/v1/task-tokens", {**task, "task": {"purpose": "x"}, "resource": text}
        ),
        wire.as_agent.ask(
            "POST", "/v1/task-tokens", {**task, "task": {"purpose": "x"}, "actions": [text]}
        ),
        wire.as_admin.ask(
            "POST", "/v1/revocations", {"target": "agent:support/summarizer", "reason": text}
        ),
        wire.as_admin.ask("POST", "/v1/revocations", {"target": f"agent:{text}", "reason": "x"}),
        wire.as_admin.ask("POST", "/v1/admins", {"name": text, "role": "viewer"}),
    ]
    for answer in answers:
        assert answer.status in {400, 403}
        assert answer.json["detail"].isprintable(), answer.body
    size = wire.running.issuer.log.frontier.size
    entries = wire.as_admin.ask("GET", f"/v1/log/entries?start={max(0, size - 20)}").json["entries"]
    for entry in entries:
        leaf = base64.b64decode(entry["leaf"]).decode()
        assert leaf.isprintable(), leaf


def test_the_clients_own_errors_are_typed(wire: Wire) -> None:
    """What the issuer refuses arrives at a client as the kind that the issuer meant."""
    with pytest.raises(IssuerRefused) as refused:
        wire.running.connect().send(calls.whoami())
    assert (refused.value.kind, refused.value.status) == ("unauthenticated", 401)


def test_crls_come_from_memory_with_a_tag(wire: Wire) -> None:
    """Of each authority and all at once: 304 for who has it, and no look into the database."""
    known = wire.running.issuer.revocation.crls.current
    assert len(known) == 2, "of the issuing CA and of the root"
    paths = [f"/v1/crl/{crl.authority}.crl" for crl in known]
    first = {path: wire.nobody.ask("GET", path) for path in (*paths, "/v1/crls")}
    assert [first[path].body for path in paths] == [crl.der for crl in known]
    queries: list[str] = []

    def noting(*arguments: Any) -> None:
        queries.append(str(arguments[2]))

    event.listen(wire.running.issuer.database.reading, "before_cursor_execute", noting)
    try:
        for path, answer in first.items():
            tag = answer.headers["etag"]
            kind = "application/json" if path == "/v1/crls" else "application/pkix-crl"
            assert answer.headers["content-type"] == kind
            heartbeat = int(wire.running.issuer.config.heartbeat)
            assert answer.headers["cache-control"] == f"max-age={heartbeat}"
            again = wire.nobody.ask("GET", path, headers={"If-None-Match": tag})
            assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
            other = wire.nobody.ask("GET", path, headers={"If-None-Match": '"x"'})
            assert (other.status, other.body) == (200, answer.body)
    finally:
        event.remove(wire.running.issuer.database.reading, "before_cursor_execute", noting)
    assert queries == []


def test_a_fact_makes_another_crl_with_another_tag(wire: Wire) -> None:
    """Who shows the tag of before gets the new one; the root's is the same."""
    authority = wire.running.issuer.authorities.now_in_force.active(AuthorityKind.X509).id
    root = wire.running.issuer.authorities.now_in_force.active(AuthorityKind.ROOT).id
    paths = [f"/v1/crl/{authority}.crl", "/v1/crls", f"/v1/crl/{root}.crl"]
    before = [wire.nobody.ask("GET", path).headers["etag"] for path in paths]
    identity = attest(wire.running, wire.agent, wire.token())
    target = f"serial:{identity.svid.serial}"
    wire.admin.send(calls.revoke(target=target, kind="revoked", reason="x"))
    after = [
        wire.nobody.ask("GET", path, headers={"If-None-Match": tag}).status
        for path, tag in zip(paths, before, strict=True)
    ]
    assert after == [200, 200, 304]


def test_an_admin_may_end_itself(wire: Wire) -> None:
    """Its word holds from its next call on, and what it suspended somebody else has to restore."""
    token = wire.admin.send(calls.add_admin(name="leaving", role="security", namespaces=[]))
    leaving = wire.caller(log_in(wire.running, token.enrolment_token).identity)
    admin = wire.as_admin

    def word(client: RawClient, kind: str) -> Answer:
        body = {"target": "admin:leaving", "kind": kind, "reason": "gone"}
        return client.ask("POST", "/v1/revocations", body)

    assert word(leaving, "suspended").status == 201
    for kind in ("restored", "revoked"):
        assert word(leaving, kind).kind == "revoked", "it cannot take that back"
    assert word(admin, "restored").status == 201
    assert leaving.ask("GET", "/v1/whoami").status == 200
    assert word(leaving, "revoked").status == 201
    assert leaving.ask("GET", "/v1/whoami").kind == "revoked"
    for kind in ("restored", "suspended", "revoked"):
        assert word(admin, kind).kind == "conflict"

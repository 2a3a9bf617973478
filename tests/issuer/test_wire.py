"""The wire: bodies, problems, one-time secrets, and what must never appear anywhere."""

import asyncio
import base64
import io
import json
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from support.issuer import (
    Admin,
    AgentFolder,
    RunningIssuer,
    attest,
    evidence_for,
    join_token_file,
    log_in,
    register,
    running_issuer,
    write_agent,
)
from support.offline import Offline, sample_manifest
from support.raw_http import Answer, RawClient

from accredit_attestors import manifest as manifests
from accredit_attestors.manifest import generate_signer_key
from accredit_client import calls
from accredit_client.calls import certificate_request
from accredit_client.errors import IssuerRefused
from accredit_credentials.keys import generate_key
from accredit_credentials.x509_svid import X509Identity
from accredit_issuer.clock import system_clock
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.registry.changes import Local
from accredit_issuer.registry.roles import Admin as AdminRole
from accredit_issuer.registry.roles import Role

CSR = certificate_request(generate_key())
LIMIT = 64 * 1024


class World:
    """A running issuer, an admin, an agent, and callers without manners."""

    def __init__(self, running: RunningIssuer, folder: Path) -> None:
        self.running = running
        self.admin: Admin = log_in(running, running.first_token)
        self.agent: AgentFolder = write_agent(
            folder / "agent", key=generate_signer_key(), now=system_clock()
        )
        register(running, self.admin, self.agent)
        self.identity: X509Identity = attest(running, self.agent, self.token())
        self.nobody = self.caller(None)
        self.as_admin = self.caller(self.admin.identity)
        self.as_agent = self.caller(self.identity)

    def caller(self, identity: X509Identity | None) -> RawClient:
        """A caller."""
        return RawClient.at(self.running.url, self.running.bundle, identity)

    def token(self) -> Path:
        """A join token in a file."""
        return join_token_file(self.admin, self.agent)

    def evidence(self, **payloads: Any) -> dict[str, Any]:
        """The body of an attestation; ``payloads`` replace those of kinds of evidence."""
        nonce = self.nobody.ask("POST", "/v1/attestations/nonce", {}).json["nonce"]
        evidence = evidence_for(self.agent, nonce, self.token())
        for each in evidence:
            each["payload"] = payloads.get(each["kind"], each["payload"])
        return {"nonce": nonce, "csr": certificate_request(generate_key()), "evidence": evidence}

    def log_kinds(self) -> list[str]:
        """The kinds of all records."""
        size = self.running.issuer.log.frontier.size
        answer = self.as_admin.ask("GET", f"/v1/log/entries?start={max(0, size - 500)}&limit=500")
        return [entry["record"]["kind"] for entry in answer.json["entries"]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One issuer for this module."""
    folder = tmp_path_factory.mktemp("wire")
    with running_issuer(folder / "issuer") as running:
        yield World(running, folder)


# Bodies


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [LIMIT + 1, 3 * LIMIT])
def test_a_large_body_is_refused(world: World, size: int, *, chunked: bool) -> None:
    """One byte over 64 KiB is too large, whether the request says its length or not."""
    body = b'{"envelope": "' + b"x" * (size - 16) + b'"}'
    headers = {"Content-Type": "application/json"}
    answer = world.as_admin.ask("POST", "/v1/manifests", body, headers=headers, chunked=chunked)
    assert (answer.status, answer.kind) == (413, "too-large")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_the_limit_is_read(world: World, *, chunked: bool) -> None:
    """Exactly 64 KiB is read, and refused for what it says only."""
    body = b'{"envelope": "' + b"x" * (LIMIT - 16) + b'"}'
    headers = {"Content-Type": "application/json"}
    answer = world.as_admin.ask("POST", "/v1/manifests", body, headers=headers, chunked=chunked)
    assert answer.kind == "malformed"


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "",
     "application/jsonx", "application/vnd.api+json", "application/problem+json", "text/json",
     "json", "application /json"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/attestations/nonce", "/v1/svids/x509"])
def test_only_json_is_read(world: World, path: str, content_type: str) -> None:
    """A body of any other type, or of none, is refused, also one that would be JSON."""
    headers = {"Content-Type": content_type} if content_type else {}
    answer = world.as_agent.ask("POST", path, b"{}", headers=headers)
    assert (answer.status, answer.kind) == (415, "unsupported-media-type")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_has_parameters_and_no_case(world: World, content_type: str) -> None:
    """The type is compared without case and without its parameters."""
    headers = {"Content-Type": content_type}
    assert world.nobody.ask("POST", "/v1/attestations/nonce", b"{}", headers=headers).status == 200


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
def test_a_bad_body_is_malformed(world: World, body: tuple[str, bytes]) -> None:
    """Whatever is wrong with a body is a 400 that names it, never a 500."""
    headers = {"Content-Type": "application/json"}
    answer = world.as_agent.ask("POST", body[0], body[1], headers=headers)
    assert (answer.status, answer.kind) == (400, "malformed"), answer.body


@pytest.mark.parametrize(
    "path",
    ["/v1/revocations?after=9223372036854775807", "/v1/revocations?after=1",
     "/v1/revocations/stream?after=1"],
)  # fmt: skip
def test_a_future_fact_is_known_to_nobody(world: World, path: str) -> None:
    """Asking for what comes after a fact that was never stated is a conflict, also as a stream."""
    after = world.running.issuer.feed.through
    if path.endswith("after=1"):
        path = path[:-1] + str(after + 1)
    assert world.nobody.ask("GET", path).kind == "conflict"


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
def test_odd_numbers_and_paths(world: World, path: str, status: int) -> None:
    """No number overflows and no path reaches further than it says."""
    answer = world.as_admin.ask("GET", path)
    assert answer.status == status, answer.body
    assert "x-evil" not in answer.headers


@pytest.mark.parametrize("ttl", [0, -1, 3601, 10**30, 1.5, "x"])
def test_a_lifetime_has_bounds(world: World, ttl: Any) -> None:
    """A join token lives a second to as long as the settings say."""
    body = {"ttl_seconds": ttl}
    path = "/v1/agents/support/summarizer/join-tokens"
    assert world.as_admin.ask("POST", path, body).kind == "malformed"


def test_a_head_has_a_limit(world: World) -> None:
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
        with world.nobody.connected() as connection:
            connection.sendall(begin)
            try:
                for _ in range(4096):
                    connection.sendall(more)
            except OSError:
                continue
        pytest.fail(f"{name} was read without end")
    assert world.nobody.ask("GET", "/v1/bundle").status == 200


@pytest.mark.parametrize(
    "host", [b"x?", b"x/../", b"evil.example", b"[", b"", b"a" * 3000, b"\xff"]
)
def test_the_host_header_decides_nothing(world: World, host: bytes) -> None:
    """Whatever Host says, a path is that path: no other route, no redirect, no way in."""
    for path, status in ((b"/v1/bundle", 200), (b"/v1/admins", 401), (b"/v1/admins/", 404)):
        answer = world.nobody.send(
            b"GET %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (path, host)
        )
        assert answer.status in ({status, 400} if host in {b"", b"\xff"} else {status})
        assert "location" not in answer.headers


def test_a_caller_is_who_the_handshake_saw(world: World) -> None:
    """Headers that proxies set for a client's certificate make nobody somebody."""
    pem = world.admin.identity.svid.pem.replace("\n", "%0A")
    for name in ("X-Client-Cert", "X-Forwarded-Client-Cert", "X-SSL-Cert", "Client-Cert",
                 "X-Forwarded-For", "Authorization"):  # fmt: skip
        answer = world.nobody.ask("GET", "/v1/whoami", headers={name: pem})
        assert answer.kind == "unauthenticated"


def test_the_upgrade_to_a_websocket_is_no_way_around(world: World) -> None:
    """A request to upgrade is answered as the request that it is."""
    answer = world.nobody.send(
        b"GET /v1/whoami HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert answer.status == 401


# Caching and streams


def test_the_bundle_has_an_etag(world: World) -> None:
    """Who has the bundle already is told so with an empty 304; another tag gets the bundle."""
    first = world.nobody.ask("GET", "/v1/bundle")
    tag = first.headers["etag"]
    again = world.nobody.ask("GET", "/v1/bundle", headers={"If-None-Match": tag})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    for other in ('"x"', tag[:-2] + '"', tag.strip('"')):
        assert world.nobody.ask("GET", "/v1/bundle", headers={"If-None-Match": other}).status == 200


def test_a_stream_hears_a_fact_at_once(world: World) -> None:
    """A listener gets a statement when it connects and another as soon as a fact is stated."""
    identity = attest(world.running, world.agent, world.token())
    through = world.running.issuer.feed.through
    with (
        world.running.connect() as client,
        client.stream(calls.revocation_stream(after=through)) as events,
    ):
        assert next(events)[0] == "statement"
        target = f"serial:{identity.svid.serial}"
        world.admin.send(calls.revoke(target=target, kind="revoked", reason="x"))
        _, text = next(events)
        payload = text.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        assert [fact["target"] for fact in claims["facts"]] == [target]


# One-time secrets


def statuses(answers: list[Answer]) -> list[int]:
    """How often which status came."""
    return sorted(answer.status for answer in answers)


def test_a_join_token_admits_one_of_fifty(world: World) -> None:
    """Fifty attestations at one moment with one token: exactly one instance is born."""
    file = world.token()
    bodies = []
    for _ in range(50):
        body = world.evidence(join_token={"token": file.read_text()})
        bodies.append(body)
    with ThreadPoolExecutor(25) as pool:
        answers = list(
            pool.map(lambda body: world.nobody.ask("POST", "/v1/attestations", body), bodies)
        )
    assert statuses(answers) == [200] + [403] * 49
    refused = [answer for answer in answers if answer.status == 403]
    assert {answer.kind for answer in refused} == {"attestation-refused"}
    assert {answer.json["detail"] for answer in refused} == {"the join token was used before"}


def test_an_enrolment_token_admits_one_of_fifty(world: World) -> None:
    """Fifty enrolments at one moment with one token: exactly one SVID is issued."""
    token = world.admin.send(
        calls.add_admin(name="fifty", role="viewer", namespaces=[])
    ).enrolment_token
    body = {"token": token, "csr": CSR}
    with ThreadPoolExecutor(25) as pool:
        answers = list(
            pool.map(lambda _: world.nobody.ask("POST", "/v1/admins/enrolment", body), range(50))
        )
    assert statuses(answers) == [200] + [409] * 49


def test_fifty_at_once_without_sockets(offline: Offline) -> None:
    """The same in one event loop, where all fifty have decided before one is recorded."""
    issuance = offline.issuer.issuance
    manifest = offline.register()
    token = offline.join_token(manifest)
    requests = [offline.attestation(manifest, token=token) for _ in range(50)]

    async def all_at_once(*work: Any) -> list[Any]:
        return list(await asyncio.gather(*work, return_exceptions=True))

    answers = offline.do(all_at_once(*(issuance.agents.attest(request) for request in requests)))
    assert sum(not isinstance(answer, Exception) for answer in answers) == 1
    assert {a.kind for a in answers if isinstance(a, Refusal)} == {Kind.ATTESTATION_REFUSED}
    enrolment = offline.issuer.administration.invite(
        AdminRole("ann", Role.VIEWER), by=Local("test"), now=offline.clock()
    ).text
    answers = offline.do(all_at_once(*(issuance.admins.enrol(enrolment, CSR) for _ in range(50))))
    assert sum(not isinstance(answer, Exception) for answer in answers) == 1
    # One nonce for all: the first alone gets past it.
    request = offline.attestation(manifest)
    answers = offline.do(all_at_once(*(issuance.agents.attest(request) for _ in range(50))))
    assert sum(not isinstance(answer, Exception) for answer in answers) == 1


def test_a_nonce_is_spent_by_a_failure_too(world: World) -> None:
    """A nonce that came with bad evidence cannot come again with good evidence."""
    good = world.evidence()
    bad = {**good, "csr": "no request"}
    assert world.nobody.ask("POST", "/v1/attestations", bad).kind == "malformed"
    again = world.nobody.ask("POST", "/v1/attestations", good)
    assert again.kind == "attestation-refused"
    assert again.json["detail"] == "nonce was used before"


# Evidence


def wrong_token(agent: AgentFolder, world: World) -> dict[str, Any]:
    """A token with one character of its secret changed."""
    text = join_token_file(world.admin, agent).read_text()
    return {"token": text[:-2] + ("A" if text[-2] != "A" else "B") + text[-1]}


def test_one_changed_byte_of_code_is_refused_and_recorded(world: World, tmp_path: Path) -> None:
    """Code that differs from what was signed gets nothing, and the refusal stands in the log."""
    agent = replace(world.agent, root=tmp_path / "agent")
    import shutil  # noqa: PLC0415

    shutil.copytree(world.agent.root, agent.root)
    code = agent.root / "main.py"
    code.write_bytes(code.read_bytes().replace(b"hello", b"hellO"))
    token = world.token()
    nonce = world.nobody.ask("POST", "/v1/attestations/nonce", {}).json["nonce"]
    body = {"nonce": nonce, "csr": CSR, "evidence": evidence_for(agent, nonce, token)}
    before = world.running.issuer.log.frontier.size
    answer = world.nobody.ask("POST", "/v1/attestations", body)
    assert answer.kind == "attestation-refused"
    assert "code measures" in answer.json["detail"]
    entries = world.as_admin.ask("GET", f"/v1/log/entries?start={before}").json["entries"]
    (record,) = [entry["record"] for entry in entries]
    token_id = token.read_text().split(".")[1]
    assert (record["kind"], record["actor"]) == ("request.refused", f"join-token:{token_id}")
    assert "code measures" in record["details"]["reason"]


@pytest.mark.parametrize(
    "payloads",
    [
        {"join_token": {"token": f"accredit-join.{'a' * 16}.{'A' * 43}"}},
        {"join_token": {"token": ""}},
        {"join_token": {}},
        {"manifest": {"envelope": "{}"}},
        {"code_digest": {"digest": "sha256:" + "0" * 64}},
    ],
)
def test_strangers_do_not_fill_the_log(world: World, payloads: dict[str, Any]) -> None:
    """Without a join token that we gave a refusal is not recorded, however often it comes."""
    body = world.evidence(**payloads)
    if "join_token" not in payloads:
        body["evidence"] = [each for each in body["evidence"] if each["kind"] != "join_token"]
    before = world.running.issuer.log.frontier.size
    assert world.nobody.ask("POST", "/v1/attestations", body).status in {400, 403}
    assert world.running.issuer.log.frontier.size == before


def test_a_wrong_secret_is_a_strangers(world: World) -> None:
    """A token with a known id and a wrong secret is not known, and not recorded as known."""
    body = world.evidence(join_token=wrong_token(world.agent, world))
    before = world.running.issuer.log.frontier.size
    answer = world.nobody.ask("POST", "/v1/attestations", body)
    assert answer.json["detail"] == "join token is not known"
    assert world.running.issuer.log.frontier.size == before


@pytest.mark.parametrize("missing", ["manifest", "join_token", "code_digest"])
def test_each_kind_of_evidence_is_needed(world: World, missing: str) -> None:
    """Without any one of the three nothing is attested, and the refusal names it."""
    body = world.evidence()
    body["evidence"] = [each for each in body["evidence"] if each["kind"] != missing]
    answer = world.nobody.ask("POST", "/v1/attestations", body)
    assert answer.kind == "attestation-refused"
    assert missing in answer.json["detail"]


def test_an_unknown_or_repeated_kind_is_refused(world: World) -> None:
    """Evidence of a kind that nobody verifies, or twice of one, is a no: never ignored."""
    body = world.evidence()
    odd = {**body["evidence"][0], "kind": "hardware_quote"}
    unknown = {**body, "evidence": [*body["evidence"], odd]}
    assert world.nobody.ask("POST", "/v1/attestations", unknown).kind == "attestation-refused"
    body = world.evidence()
    twice = {**body, "evidence": [*body["evidence"], body["evidence"][0]]}
    assert world.nobody.ask("POST", "/v1/attestations", twice).kind == "malformed"


def test_evidence_for_another_nonce(world: World) -> None:
    """Evidence that was made for another attempt is refused."""
    one, other = world.evidence(), world.evidence()
    mixed = {**one, "evidence": [*one["evidence"][:-1], other["evidence"][-1]]}
    assert world.nobody.ask("POST", "/v1/attestations", mixed).kind == "attestation-refused"


def test_a_token_admits_its_own_agent(offline: Offline) -> None:
    """A join token of one agent does not admit another agent of the same namespace."""
    from accredit_credentials.spiffe_id import AgentId  # noqa: PLC0415

    one = offline.register()
    other = offline.register(agent=AgentId.parse("support/other"))
    request = offline.attestation(other, token=offline.join_token(one))
    with pytest.raises(Refusal, match="admits support/summarizer"):
        offline.do(offline.issuer.issuance.agents.attest(request))


def test_a_token_has_its_end(offline: Offline) -> None:
    """A join token is over at its end, and until then good."""
    manifest = offline.register()
    token = offline.join_token(manifest)
    late = offline.join_token(manifest)
    offline.clock.advance(seconds=599)
    assert offline.do(
        offline.issuer.issuance.agents.attest(offline.attestation(manifest, token=token))
    )
    offline.clock.advance(seconds=1)
    with pytest.raises(Refusal, match="expired"):
        offline.do(offline.issuer.issuance.agents.attest(offline.attestation(manifest, token=late)))


def test_renewal_with_a_siblings_certificate(world: World) -> None:
    """B's connection with A's evidence renews neither; A's own renews A and keeps its instance."""
    one = attest(world.running, world.agent, world.token())
    other = attest(world.running, world.agent, world.token())
    evidence = evidence_for(world.agent, one.svid.serial, world.token())
    body = {"csr": CSR, "evidence": [e for e in evidence if e["kind"] == "code_digest"]}
    assert world.caller(other).ask("POST", "/v1/svids/x509", body).kind == "attestation-refused"
    renewed = world.caller(one).ask("POST", "/v1/svids/x509", body).json
    assert renewed["instance"] == one.svid.instance
    assert renewed["serial"] != one.svid.serial


def test_a_task_belongs_to_its_instance(world: World) -> None:
    """Another instance of the same agent cannot use a task, as it is or as a parent."""
    other = world.caller(attest(world.running, world.agent, world.token()))
    body = {"resource": "tickets", "actions": ["read"], "task": {"purpose": "x"}}
    task = world.as_agent.ask("POST", "/v1/task-tokens", body).json["task"]["id"]
    for wish in ({"id": task}, {"parent": task}):
        again = {**body, "task": {"purpose": "x", **wish}}
        assert other.ask("POST", "/v1/task-tokens", again).kind == "not-found"
        assert world.as_agent.ask("POST", "/v1/task-tokens", again).status == 200
    changed = {**body, "task": {"purpose": "y", "id": task}}
    assert world.as_agent.ask("POST", "/v1/task-tokens", changed).kind == "conflict"
    principal = {**body, "task": {"purpose": "x", "parent": task}, "principal": "user:eve"}
    assert world.as_agent.ask("POST", "/v1/task-tokens", principal).kind == "conflict"


# Manifests


def send_manifest(world: World, key: Any, **changes: Any) -> Answer:
    """Register a manifest with changes."""
    signed = manifests.sign(sample_manifest(system_clock(), **changes), key)
    return world.as_admin.ask("POST", "/v1/manifests", {"envelope": signed.decode()})


def test_a_strangers_manifest(world: World) -> None:
    """A manifest of an unknown key, or of a key of another namespace, is refused."""
    from accredit_credentials.spiffe_id import AgentId  # noqa: PLC0415

    answer = send_manifest(world, generate_signer_key())
    assert answer.kind == "attestation-refused"
    answer = send_manifest(world, world.agent.key, agent=AgentId.parse("payments/x"))
    assert answer.kind == "attestation-refused"


@pytest.mark.parametrize(
    ("begins", "ends", "status"),
    [(0, 100, 201), (-100, -1, 403), (55, 1000, 201), (90, 1000, 403)],
)
def test_a_manifest_has_its_time(world: World, begins: int, ends: int, status: int) -> None:
    """Expired and future-dated manifests are refused; a minute of clock difference is not."""
    now = system_clock().replace(microsecond=0)
    answer = send_manifest(
        world,
        world.agent.key,
        version=f"8.{begins}.{ends}".replace("-", "m"),
        issued_at=now + timedelta(seconds=begins),
        expires_at=now + timedelta(seconds=ends),
    )
    assert answer.status == status, answer.body


def test_a_version_has_one_content(world: World) -> None:
    """The same manifest twice is no error; other contents under its version are a conflict."""
    assert send_manifest(world, world.agent.key, version="9.0.0", purpose="a").status == 201
    assert send_manifest(world, world.agent.key, version="9.0.0", purpose="b").kind == "conflict"
    body = {"envelope": world.agent.envelope}
    assert world.as_admin.ask("POST", "/v1/manifests", body).status == 201


def test_a_signer_has_one_content(world: World) -> None:
    """A signer's name with another key, its key under another name: conflicts."""
    pem = manifests.public_key_pem(generate_signer_key().public_key()).decode()
    own = manifests.public_key_pem(world.agent.key.public_key()).decode()
    for body, status in (
        ({"name": "ci", "public_key": own, "namespaces": ["support"]}, 201),
        ({"name": "ci", "public_key": pem, "namespaces": ["support"]}, 409),
        ({"name": "ci", "public_key": own, "namespaces": ["support", "payments"]}, 409),
        ({"name": "ci2", "public_key": own, "namespaces": ["support"]}, 409),
        ({"name": "none", "public_key": pem, "namespaces": []}, 400),
        ({"name": "No Name", "public_key": pem, "namespaces": ["support"]}, 400),
    ):
        assert world.as_admin.ask("POST", "/v1/signers", body).status == status, body


def test_an_admin_does_not_change_its_role(world: World) -> None:
    """An admin who exists is invited again with the same role only."""
    body = {"name": "bob", "role": "viewer", "namespaces": []}
    assert world.as_admin.ask("POST", "/v1/admins", body).status == 201
    assert world.as_admin.ask("POST", "/v1/admins", body).status == 201
    for change in ({"role": "admin"}, {"namespaces": ["support"]}):
        assert world.as_admin.ask("POST", "/v1/admins", {**body, **change}).kind == "conflict"


# Secrets


def test_no_secret_is_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens and keys, right or wrong, in their place or not, are in no answer, log or database."""
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(stderr))
    handler = logging.StreamHandler(stderr)
    logging.getLogger().addHandler(handler)
    answers: list[Answer] = []
    canaries: list[str] = []
    try:
        with running_issuer(tmp_path / "issuer") as running:
            world = World(running, tmp_path)
            enrol = world.admin.send(calls.add_admin(name="c", role="viewer", namespaces=[]))
            join = world.token().read_text()
            key_pem = world.identity.key_pem.decode()
            canaries = [
                running.first_token.split(".")[2],
                str(enrol.enrolment_token).split(".")[2],
                join.split(".")[2],
                *(line for line in key_pem.splitlines() if len(line) > 40),
                (tmp_path / "issuer" / "issuer.passphrase").read_text().strip(),
                *(
                    line
                    for file in running.issuer.config.keys.folder.iterdir()
                    for line in file.read_text().splitlines()
                    if len(line) > 40
                ),
            ]
            for secret in (join, str(enrol.enrolment_token), key_pem):
                answers += _everywhere(world, secret)
            body = world.evidence(join_token={"token": join}, code_digest={"digest": "sha256:0"})
            answers.append(world.nobody.ask("POST", "/v1/attestations", body))
            body = world.evidence(join_token={"token": join})
            answers.append(world.nobody.ask("POST", "/v1/attestations", body))
            answers.append(world.nobody.ask("POST", "/v1/attestations", body))
            answers += [
                world.as_admin.ask("GET", path)
                for path in ("/v1/log/entries?limit=512", "/v1/admins", "/v1/agents", "/metrics",
                             "/v1/signers", "/v1/revocations/facts", "/openapi.json")
            ]  # fmt: skip
            folder = running.issuer.config.data
            files = [file.read_bytes() for file in folder.glob("issuer.db*")]
            assert len(files) >= 2, "the write-ahead log too"
    finally:
        logging.getLogger().removeHandler(handler)
        structlog.reset_defaults()
    assert sum(answer.status == 200 for answer in answers) >= 8
    for canary in canaries:
        for answer in answers:
            assert canary.encode() not in answer.body
        for content in files:
            assert canary.encode() not in content
        assert canary not in stderr.getvalue()


def _everywhere(world: World, secret: str) -> list[Answer]:
    """A secret in every place where it does not belong, as a confused client would put it."""
    agent, admin, nobody = world.as_agent, world.as_admin, world.nobody
    task = {"resource": "tickets", "actions": ["read"], "task": {"purpose": "x"}}
    json_type = {"Content-Type": "application/json"}
    return [
        nobody.ask("POST", "/v1/attestations", {"nonce": secret, "csr": secret, "evidence": []}),
        nobody.ask("POST", "/v1/attestations", secret.encode(), headers=json_type),
        nobody.ask("POST", "/v1/attestations/nonce", secret.encode()),
        nobody.ask("POST", "/v1/admins/enrolment", {"token": secret + "x", "csr": CSR}),
        nobody.ask("POST", "/v1/admins/enrolment", {"token": secret, "csr": secret}),
        nobody.ask("POST", "/v1/admins/enrolment", {"token": [secret], "csr": CSR}),
        nobody.ask(
            "POST",
            "/v1/attestations",
            world.evidence(join_token={"token": [secret]}),
        ),
        nobody.ask("POST", "/v1/attestations", world.evidence(join_token={"token": secret + "x"})),
        agent.ask("POST", "/v1/svids/jwt", {"audience": {"a": secret}}),
        agent.ask("POST", "/v1/svids/x509", {"csr": secret}),
        agent.ask("POST", "/v1/task-tokens", {**task, "binding": {"kind": secret}}),
        agent.ask("POST", "/v1/task-tokens", {**task, "task": {"purpose": "x", "id": secret}}),
        admin.ask("POST", "/v1/signers", {"name": "x", "public_key": secret, "namespaces": ["a"]}),
        admin.ask("POST", "/v1/manifests", {"envelope": secret}),
        admin.ask("POST", "/v1/admins", {"name": "x", "role": secret}),
        nobody.ask("GET", "/v1/revocations?after=" + secret.split("\n", 1)[0].replace(" ", "+")),
    ]


# Text


@pytest.mark.parametrize(
    "text", ["a\r\nlevel=admin", "\x1b[31mred\x1b[0m", "\x9b31m", "a\x00b", "\u202eabc"]
)
def test_escapes_reach_no_line(world: World, text: str) -> None:
    """Line breaks, escapes and marks that turn text are refused, or shown escaped."""
    task = {"resource": "tickets", "actions": ["read"], "task": {"purpose": text}}
    answers = [
        world.as_agent.ask("POST", "/v1/task-tokens", task),
        world.as_agent.ask(
            "POST", "/v1/task-tokens", {**task, "task": {"purpose": "x"}, "principal": text}
        ),
        world.as_agent.ask(
            "POST", "/v1/task-tokens", {**task, "task": {"purpose": "x"}, "resource": text}
        ),
        world.as_agent.ask(
            "POST", "/v1/task-tokens", {**task, "task": {"purpose": "x"}, "actions": [text]}
        ),
        world.as_admin.ask(
            "POST", "/v1/revocations", {"target": "agent:support/summarizer", "reason": text}
        ),
        world.as_admin.ask("POST", "/v1/revocations", {"target": f"agent:{text}", "reason": "x"}),
        world.as_admin.ask("POST", "/v1/admins", {"name": text, "role": "viewer"}),
    ]
    for answer in answers:
        assert answer.status in {400, 403}
        assert answer.json["detail"].isprintable(), answer.body
    size = world.running.issuer.log.frontier.size
    entries = world.as_admin.ask("GET", f"/v1/log/entries?start={max(0, size - 20)}").json[
        "entries"
    ]
    for entry in entries:
        leaf = base64.b64decode(entry["leaf"]).decode()
        assert leaf.isprintable(), leaf


def test_the_clients_own_errors_are_typed(world: World) -> None:
    """What the issuer refuses arrives at a client as the kind that the issuer meant."""
    with pytest.raises(IssuerRefused) as refused:
        world.running.connect().send(calls.whoami())
    assert (refused.value.kind, refused.value.status) == ("unauthenticated", 401)

"""The documented answers are the real ones."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from support.authority import Authority
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
from support.raw_http import RawClient

from accredit_attestors.manifest import generate_signer_key
from accredit_client import calls
from accredit_client.call import Call
from accredit_client.calls import certificate_request
from accredit_client.wire import Issuer
from accredit_credentials.keys import generate_key
from accredit_issuer.api.examples import ANSWERS
from accredit_issuer.clock import system_clock


def test_every_documented_answer_has_the_members_of_the_real_one(tmp_path: Path) -> None:
    """What the OpenAPI document shows of an answer is what the issuer sends, member by member."""
    lists = {"status_list_url": "https://lists.example.org"}
    with running_issuer(tmp_path / "issuer", revocation=lists) as running:
        admin = log_in(running, running.first_token)
        agent = write_agent(tmp_path / "agent", key=generate_signer_key(), now=system_clock())
        register(running, admin, agent)
        token = join_token_file(admin, agent)
        holder = running.connect(attest(running, agent, token))
        csr = certificate_request(generate_key())
        who, path = admin.client, "/v1/agents/support/summarizer"
        digest = _ask(who, "GET", "/v1/manifests")["manifests"][0]["digest"]
        task = {
            "resource": "tickets",
            "actions": ["read"],
            "task": {"purpose": "summarise"},
        }
        nodes = _nodes(running, admin, digest)
        revoke = {"target": "agent:support/summarizer", "reason": "over"}
        answers = {
            **{
                ("GET", path): _ask(who, "GET", path)
                for path in (
                    "/.well-known/openid-configuration",
                    "/.well-known/oauth-authorization-server",
                    "/.well-known/jwks.json",
                    "/.well-known/ssf-configuration",
                )
            },
            ("POST", "/v1/attestations/nonce"): _ask(who, "POST", "/v1/attestations/nonce", {}),
            ("POST", "/v1/svids/x509"): _ask(who, "POST", "/v1/svids/x509", {"csr": csr}),
            ("POST", "/v1/svids/jwt"): _ask(holder, "POST", "/v1/svids/jwt", {"audience": ["a"]}),
            ("POST", "/v1/task-tokens"): (token := _ask(holder, "POST", "/v1/task-tokens", task)),
            ("POST", "/v1/introspect"): _introspected(running, admin, holder),
            ("GET", "/v1/status-lists"): _ask(who, "GET", "/v1/status-lists"),
            ("GET", "/v1/whoami"): _ask(who, "GET", "/v1/whoami"),
            ("GET", "/v1/admins"): _ask(who, "GET", "/v1/admins"),
            ("POST", "/v1/admins"): _ask(
                who, "POST", "/v1/admins", {"name": "a", "role": "viewer"}
            ),
            ("GET", "/v1/signers"): _ask(who, "GET", "/v1/signers"),
            ("GET", "/v1/manifests"): _ask(who, "GET", "/v1/manifests"),
            ("POST", "/v1/manifests"): _ask(
                who, "POST", "/v1/manifests", {"envelope": agent.envelope}
            ),
            ("GET", "/v1/manifests/{digest}"): _ask(who, "GET", f"/v1/manifests/{digest}"),
            ("GET", "/v1/agents"): _ask(who, "GET", "/v1/agents"),
            ("GET", "/v1/agents/{namespace}/{name}"): _ask(who, "GET", path),
            ("POST", "/v1/agents/{namespace}/{name}/join-tokens"): _ask(
                who, "POST", f"{path}/join-tokens", {}
            ),
            ("POST", "/v1/revocations/preview"): _ask(
                who, "POST", "/v1/revocations/preview", revoke
            ),
            ("POST", "/v1/revocations"): _ask(who, "POST", "/v1/revocations", revoke),
            ("GET", "/v1/revocations/facts"): _ask(who, "GET", "/v1/revocations/facts"),
            **_confirmations(running, admin),
            ("GET", "/v1/crls"): _ask(who, "GET", "/v1/crls"),
            **_authority_answers(who),
            ("GET", "/v1/log/entries"): _ask(who, "GET", "/v1/log/entries"),
            ("GET", "/v1/log/explain/{identifier}"): _ask(
                who, "GET", f"/v1/log/explain/{token['jti']}"
            ),
            **_federation(who),
            **_signals(who),
            **nodes,
            ("GET", "/health/live"): _ask(who, "GET", "/health/live"),
            ("GET", "/health/ready"): _ask(who, "GET", "/health/ready"),
        }
    for call, answer in answers.items():
        assert _shape(answer) == _shape(ANSWERS[call]), call


def _introspected(running: RunningIssuer, admin: Admin, holder: Issuer) -> Any:
    task = {
        "resource": "tickets",
        "actions": ["read"],
        "task": {"purpose": "x"},
        "principal": "user:maria@example.org",
    }
    token = _ask(holder, "POST", "/v1/task-tokens", task)["access_token"]
    caller = RawClient.at(running.url, running.bundle, admin.identity)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    return caller.ask("POST", "/v1/introspect", f"token={token}".encode(), headers=form).json


def _authority_answers(who: Issuer) -> dict[tuple[str, str], Any]:
    prepared = _ask(who, "POST", "/v1/authorities/jwt/prepare", {})
    path = f"/v1/authorities/{prepared['authorities'][0]['id']}"
    activated = _ask(who, "POST", f"{path}/activate", {"early": True})
    old = next(a for a in activated["authorities"] if a["state"] == "retired")
    path = f"/v1/authorities/{old['id']}"
    tainted = _ask(who, "POST", f"{path}/taint", {"reason": "x"})
    revoked = _ask(who, "POST", f"{path}/revoke", {"reason": "x"})
    calls = "/v1/authorities/{authority}"
    return {
        ("GET", "/v1/authorities"): _ask(who, "GET", "/v1/authorities"),
        ("POST", "/v1/authorities/{kind}/prepare"): prepared,
        ("POST", f"{calls}/activate"): activated,
        ("POST", f"{calls}/taint"): tainted,
        ("POST", f"{calls}/revoke"): revoked,
    }


def _confirmations(running: RunningIssuer, admin: Admin) -> dict[tuple[str, str], Any]:
    """One verifier that confirmed, left, and is missed by the next fact."""
    who, root = admin.client, "/v1/revocations"
    through = running.issuer.feed.through
    verifier = running.connect(attest_node(running, admin, "verifier"))
    with ExitStack() as streams:
        acknowledged = None
        for client in (verifier, running.connect(attest_node(running, admin, "gone"))):
            events = streams.enter_context(client.stream(calls.revocation_stream(after=0)))
            body = {"listener": next(events)[1], "through": through}
            acknowledged = _ask(client, "POST", f"{root}/acknowledgements", body)
        streams.pop_all().close()
        events = streams.enter_context(verifier.stream(calls.revocation_stream(after=0)))
        body = {"listener": next(events)[1], "through": through}
        _ask(verifier, "POST", f"{root}/acknowledgements", body)
        _ask(who, "POST", root, {"target": "signer:ci", "reason": "over"})
        newest = running.issuer.feed.through
        for _ in range(200):  # the issuer has to see first that a stream is over
            confirmed = _ask(who, "GET", f"{root}/confirmations?through={newest}")
            if confirmed["named"]["gone"]:
                break
        status = _ask(who, "GET", "/v1/status")
    return {
        ("GET", "/v1/status"): status,
        ("POST", f"{root}/acknowledgements"): acknowledged,
        ("GET", f"{root}/confirmations"): confirmed,
    }


def _signals(who: Issuer) -> dict[tuple[str, str], Any]:
    """A stream of each kind; the polled one has what was stated before."""
    root, receiver = "/v1/ssf/streams", "spiffe://example.org/admin/first"
    pushed = {"name": "hook", "audience": "a", "endpoint_url": "https://127.0.0.1:1/"}
    polled = _ask(who, "POST", root, {"name": "siem", "audience": "a", "receiver": receiver})
    return {
        ("POST", root): _ask(who, "POST", root, pushed),
        ("GET", root): _ask(who, "GET", root),
        ("POST", f"{root}/{{name}}/verify"): _ask(who, "POST", f"{root}/siem/verify", {}),
        ("POST", "/v1/ssf/poll/{stream_id}"): _ask(
            who, "POST", f"/v1/ssf/poll/{polled['stream_id']}", {}
        ),
    }


def _federation(who: Issuer) -> dict[tuple[str, str], Any]:
    other = Authority("b.example").bundle
    allows = [{"agents": "spiffe://b.example/*", "resource": "https://a", "actions": ["read"]}]
    asked = {
        "trust_domain": "b.example",
        "profile": "https_spiffe",
        "endpoint_url": "https://127.0.0.1:1/",
        "endpoint_spiffe_id": "spiffe://b.example/accredit/issuer",
        "bundle": json.loads(other.to_json()),
        "feed_url": "https://127.0.0.1:1",
        "allows": allows,
    }
    root, one = "/v1/federation", "/v1/federation/{trust_domain}"
    path = f"{root}/b.example"
    created = _ask(who, "POST", root, asked)
    bundles = _ask(who, "GET", f"{root}/bundles")
    bundles["trust_domains"]["b.example"]["keys"] = []
    return {
        ("POST", root): created,
        ("GET", root): _ask(who, "GET", root),
        ("GET", f"{root}/bundles"): bundles,
        ("PUT", f"{one}/allows"): _ask(who, "PUT", f"{path}/allows", {"allows": allows}),
        ("POST", f"{one}/refresh"): _ask(who, "POST", f"{path}/refresh", {}),
    }


def _nodes(running: RunningIssuer, admin: Admin, digest: str) -> dict[tuple[str, str], Any]:
    root, who = "/v1/nodes", admin.client
    asked = {"name": "a", "attestation": "join_token", "namespaces": ["support"]}
    added = _ask(who, "POST", root, asked)
    node = running.connect(attest_node(running, admin, "b"))
    manifest = running.issuer.registry.manifest(digest)

    def process() -> dict[str, Any]:
        csr = certificate_request(generate_key())
        code = manifest.manifest.code.digest
        return {"csr": csr, "manifest": digest, "code": code, "selectors": ["unix:uid:1"]}

    born = _ask(node, "POST", f"{root}/instances", process())
    changed = f"{root}/instances/{born['instance']}/changed"
    batch = {"requests": [process(), {**process(), "code": f"sha256:{'0' * 64}"}]}
    return {
        ("POST", root): added,
        ("GET", root): _ask(who, "GET", root),
        ("GET", f"{root}/{{name}}"): _ask(who, "GET", f"{root}/b"),
        ("PUT", f"{root}/{{name}}/namespaces"): _ask(
            who, "PUT", f"{root}/a/namespaces", {"namespaces": ["sales"]}
        ),
        ("POST", f"{root}/{{name}}/join-tokens"): _ask(who, "POST", f"{root}/a/join-tokens", {}),
        ("POST", f"{root}/instances"): born,
        ("POST", f"{root}/instances/batch"): _ask(node, "POST", f"{root}/instances/batch", batch),
        ("POST", f"{root}/instances/{{instance}}/changed"): _ask(
            node, "POST", changed, {"reason": "main.py changed"}
        ),
    }


def _ask(client: Issuer, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    return client.send(Call(method=method, path=path, read=json.loads, body=body))


def _shape(value: Any) -> Any:
    """The members of an answer, all the way down; what is free-form inside is left out."""
    match value:
        case dict():
            free = {"record", "actions", "to_do", "sets"}
            return {name: None if name in free else _shape(part) for name, part in value.items()}
        case [dict() as first, *_]:
            return [_shape(first)]
    return None

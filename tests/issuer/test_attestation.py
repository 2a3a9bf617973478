"""Attestation over the wire: which evidence is enough, and for whom."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.issuer import AgentFolder, attest, evidence_for, join_token_file
from support.offline import Offline
from support.wire import CSR, Wire

from accredit_issuer.errors import Refusal


def wrong_token(agent: AgentFolder, wire: Wire) -> dict[str, Any]:
    """A token with one character of its secret changed."""
    text = join_token_file(wire.admin, agent).read_text()
    return {"token": text[:-2] + ("A" if text[-2] != "A" else "B") + text[-1]}


def test_one_changed_byte_of_code_is_refused_and_recorded(wire: Wire, tmp_path: Path) -> None:
    """Code that differs from what was signed gets nothing, and the refusal stands in the log."""
    agent = replace(wire.agent, root=tmp_path / "agent")
    import shutil  # noqa: PLC0415

    shutil.copytree(wire.agent.root, agent.root)
    code = agent.root / "main.py"
    code.write_bytes(code.read_bytes().replace(b"hello", b"hellO"))
    token = wire.token()
    nonce = wire.nobody.ask("POST", "/v1/attestations/nonce", {}).json["nonce"]
    body = {"nonce": nonce, "csr": CSR, "evidence": evidence_for(agent, nonce, token)}
    before = wire.running.issuer.log.frontier.size
    answer = wire.nobody.ask("POST", "/v1/attestations", body)
    assert answer.kind == "attestation-refused"
    assert "code measures" in answer.json["detail"]
    entries = wire.as_admin.ask("GET", f"/v1/log/entries?start={before}").json["entries"]
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
def test_strangers_do_not_fill_the_log(wire: Wire, payloads: dict[str, Any]) -> None:
    """Without a join token that we gave a refusal is not recorded, however often it comes."""
    body = wire.evidence(**payloads)
    if "join_token" not in payloads:
        body["evidence"] = [each for each in body["evidence"] if each["kind"] != "join_token"]
    before = wire.running.issuer.log.frontier.size
    assert wire.nobody.ask("POST", "/v1/attestations", body).status in {400, 403}
    assert wire.running.issuer.log.frontier.size == before


def test_a_wrong_secret_is_a_strangers(wire: Wire) -> None:
    """A token with a known id and a wrong secret is not known, and not recorded as known."""
    body = wire.evidence(join_token=wrong_token(wire.agent, wire))
    before = wire.running.issuer.log.frontier.size
    answer = wire.nobody.ask("POST", "/v1/attestations", body)
    assert answer.json["detail"] == "join token is not known"
    assert wire.running.issuer.log.frontier.size == before


@pytest.mark.parametrize("missing", ["manifest", "join_token", "code_digest"])
def test_each_kind_of_evidence_is_needed(wire: Wire, missing: str) -> None:
    """Without any one of the three nothing is attested, and the refusal names it."""
    body = wire.evidence()
    body["evidence"] = [each for each in body["evidence"] if each["kind"] != missing]
    answer = wire.nobody.ask("POST", "/v1/attestations", body)
    assert answer.kind == "attestation-refused"
    assert missing in answer.json["detail"]


def test_an_unknown_or_repeated_kind_is_refused(wire: Wire) -> None:
    """Evidence of a kind that nobody verifies, or twice of one, is a no: never ignored."""
    body = wire.evidence()
    odd = {**body["evidence"][0], "kind": "hardware_quote"}
    unknown = {**body, "evidence": [*body["evidence"], odd]}
    assert wire.nobody.ask("POST", "/v1/attestations", unknown).kind == "attestation-refused"
    body = wire.evidence()
    twice = {**body, "evidence": [*body["evidence"], body["evidence"][0]]}
    assert wire.nobody.ask("POST", "/v1/attestations", twice).kind == "malformed"


def test_evidence_for_another_nonce(wire: Wire) -> None:
    """Evidence that was made for another attempt is refused."""
    one, other = wire.evidence(), wire.evidence()
    mixed = {**one, "evidence": [*one["evidence"][:-1], other["evidence"][-1]]}
    assert wire.nobody.ask("POST", "/v1/attestations", mixed).kind == "attestation-refused"


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


def test_renewal_with_a_siblings_certificate(wire: Wire) -> None:
    """B's connection with A's evidence renews neither; A's own renews A and keeps its instance."""
    one = attest(wire.running, wire.agent, wire.token())
    other = attest(wire.running, wire.agent, wire.token())
    evidence = evidence_for(wire.agent, one.svid.serial, wire.token())
    body = {"csr": CSR, "evidence": [e for e in evidence if e["kind"] == "code_digest"]}
    assert wire.caller(other).ask("POST", "/v1/svids/x509", body).kind == "attestation-refused"
    renewed = wire.caller(one).ask("POST", "/v1/svids/x509", body).json
    assert renewed["instance"] == one.svid.instance
    assert renewed["serial"] != one.svid.serial


def test_a_task_belongs_to_its_instance(wire: Wire) -> None:
    """Another instance of the same agent cannot use a task, as it is or as a parent."""
    other = wire.caller(attest(wire.running, wire.agent, wire.token()))
    body = {"resource": "tickets", "actions": ["read"], "task": {"purpose": "x"}}
    task = wire.as_agent.ask("POST", "/v1/task-tokens", body).json["task"]["id"]
    for wish in ({"id": task}, {"parent": task}):
        again = {**body, "task": {"purpose": "x", **wish}}
        assert other.ask("POST", "/v1/task-tokens", again).kind == "not-found"
        assert wire.as_agent.ask("POST", "/v1/task-tokens", again).status == 200
    changed = {**body, "task": {"purpose": "y", "id": task}}
    assert wire.as_agent.ask("POST", "/v1/task-tokens", changed).kind == "conflict"
    principal = {**body, "task": {"purpose": "x", "parent": task}, "principal": "user:eve"}
    assert wire.as_agent.ask("POST", "/v1/task-tokens", principal).kind == "conflict"

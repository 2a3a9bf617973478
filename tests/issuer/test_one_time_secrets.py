"""One-time secrets admit one, however many come with them; no secret is shown anywhere."""

import asyncio
import io
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog
from support.issuer import running_issuer
from support.offline import Offline
from support.raw_http import Answer
from support.wire import CSR, Wire

from accredit_client import calls
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.registry.changes import Local
from accredit_issuer.registry.roles import Admin as AdminRole
from accredit_issuer.registry.roles import Role


def statuses(answers: list[Answer]) -> list[int]:
    """How often which status came."""
    return sorted(answer.status for answer in answers)


def test_a_join_token_admits_one_of_fifty(wire: Wire) -> None:
    """Fifty attestations at one moment with one token: exactly one instance is born."""
    file = wire.token()
    bodies = []
    for _ in range(50):
        body = wire.evidence(join_token={"token": file.read_text()})
        bodies.append(body)
    with ThreadPoolExecutor(25) as pool:
        answers = list(
            pool.map(lambda body: wire.nobody.ask("POST", "/v1/attestations", body), bodies)
        )
    assert statuses(answers) == [200] + [403] * 49
    refused = [answer for answer in answers if answer.status == 403]
    assert {answer.kind for answer in refused} == {"attestation-refused"}
    assert {answer.json["detail"] for answer in refused} == {"the join token was used before"}


def test_an_enrolment_token_admits_one_of_fifty(wire: Wire) -> None:
    """Fifty enrolments at one moment with one token: exactly one SVID is issued."""
    token = wire.admin.send(
        calls.add_admin(name="fifty", role="viewer", namespaces=[])
    ).enrolment_token
    body = {"token": token, "csr": CSR}
    with ThreadPoolExecutor(25) as pool:
        answers = list(
            pool.map(lambda _: wire.nobody.ask("POST", "/v1/admins/enrolment", body), range(50))
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


def test_a_nonce_is_spent_by_a_failure_too(wire: Wire) -> None:
    """A nonce that came with bad evidence cannot come again with good evidence."""
    good = wire.evidence()
    bad = {**good, "csr": "no request"}
    assert wire.nobody.ask("POST", "/v1/attestations", bad).kind == "malformed"
    again = wire.nobody.ask("POST", "/v1/attestations", good)
    assert again.kind == "attestation-refused"
    assert again.json["detail"] == "nonce was used before"


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
            wire = Wire(running, tmp_path)
            enrol = wire.admin.send(calls.add_admin(name="c", role="viewer", namespaces=[]))
            join = wire.token().read_text()
            key_pem = wire.identity.key_pem.decode()
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
                answers += _everywhere(wire, secret)
            body = wire.evidence(join_token={"token": join}, code_digest={"digest": "sha256:0"})
            answers.append(wire.nobody.ask("POST", "/v1/attestations", body))
            body = wire.evidence(join_token={"token": join})
            answers.append(wire.nobody.ask("POST", "/v1/attestations", body))
            answers.append(wire.nobody.ask("POST", "/v1/attestations", body))
            answers += [
                wire.as_admin.ask("GET", path)
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


def _everywhere(wire: Wire, secret: str) -> list[Answer]:
    """A secret in every place where it does not belong, as a confused client would put it."""
    agent, admin, nobody = wire.as_agent, wire.as_admin, wire.nobody
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
            wire.evidence(join_token={"token": [secret]}),
        ),
        nobody.ask("POST", "/v1/attestations", wire.evidence(join_token={"token": secret + "x"})),
        agent.ask("POST", "/v1/svids/jwt", {"audience": {"a": secret}}),
        agent.ask("POST", "/v1/svids/x509", {"csr": secret}),
        agent.ask("POST", "/v1/task-tokens", {**task, "binding": {"kind": secret}}),
        agent.ask("POST", "/v1/task-tokens", {**task, "task": {"purpose": "x", "id": secret}}),
        admin.ask("POST", "/v1/signers", {"name": "x", "public_key": secret, "namespaces": ["a"]}),
        admin.ask("POST", "/v1/manifests", {"envelope": secret}),
        admin.ask("POST", "/v1/admins", {"name": "x", "role": secret}),
        nobody.ask("GET", "/v1/revocations?after=" + secret.split("\n", 1)[0].replace(" ", "+")),
    ]

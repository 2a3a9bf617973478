"""What somebody without an SVID can do to everybody else: nothing that lasts."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.issuer import (
    RunningIssuer,
    attest,
    evidence_for,
    join_token_file,
    log_in,
    register,
    running_issuer,
    write_agent,
)

from accredit_attestors.join_token import JoinToken
from accredit_attestors.manifest import generate_signer_key
from accredit_client import calls
from accredit_client.errors import IssuerRefused
from accredit_client.wire import issuer_context
from accredit_credentials.keys import generate_key
from accredit_issuer import connection as module
from accredit_issuer.clock import system_clock
from accredit_issuer.issuance import nonces

TIMEOUT = 20.0


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningIssuer]:
    """An issuer that serves."""
    with running_issuer(tmp_path / "issuer") as running:
        yield running


def test_who_asks_nothing_is_cut(running: RunningIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that shakes hands and then says nothing does not stay."""
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.2)
    with _connected(running) as silent:
        assert _is_cut(silent)


def test_who_never_ends_its_question_is_cut(
    running: RunningIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a request line, or half a body, is not waited for."""
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.2)
    head = b"POST /v1/attestations/nonce HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    for begun in (b"GET /v1/bun", head + b"content-length: 20\r\n\r\n{"):
        with _connected(running) as slow:
            slow.sendall(begun)
            assert _is_cut(slow)


def test_a_flood_of_pipelined_requests_is_cut(running: RunningIssuer) -> None:
    """One read full of requests does not become thousands that wait in memory."""
    with _connected(running) as flooding:
        flooding.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n" * 3000)
        assert _is_cut(flooding)
    running.connect().send(calls.nonce())


def test_strangers_do_not_fill_the_memory_of_nonces(
    running: RunningIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any number of attestations without a join token of ours leaves room for one with it."""
    monkeypatch.setattr(nonces, "MAX_REMEMBERED", 1)
    admin = log_in(running, running.first_token)
    agent = write_agent(tmp_path / "agent", key=generate_signer_key(), now=system_clock())
    register(running, admin, agent)
    foreign = tmp_path / "foreign.token"
    foreign.touch(mode=0o600)
    foreign.write_text(JoinToken.new().reveal())
    client = running.connect()
    for _ in range(3):
        nonce = client.send(calls.nonce()).nonce
        evidence = evidence_for(agent, nonce, foreign)
        csr = calls.certificate_request(generate_key())
        with pytest.raises(IssuerRefused) as refused:
            client.send(calls.attestation(nonce=nonce, csr=csr, evidence=evidence))
        assert refused.value.kind == "attestation-refused"
    assert attest(running, agent, join_token_file(admin, agent)).svid.instance


def _connected(running: RunningIssuer) -> ssl.SSLSocket:
    where = urlsplit(running.url)
    raw = socket.create_connection((where.hostname, where.port), TIMEOUT)
    return issuer_context(running.bundle).wrap_socket(raw)


def _is_cut(connection: ssl.SSLSocket) -> bool:
    """Read until the other side ends it; a time-out is an error."""
    with suppress(ssl.SSLEOFError, ConnectionError):
        while connection.recv(65536):
            pass
    return True

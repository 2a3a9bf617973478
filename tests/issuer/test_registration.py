"""Registering over the wire: manifests, signers and admins have one content each."""

from datetime import timedelta
from typing import Any

import pytest
from support.offline import sample_manifest
from support.raw_http import Answer
from support.wire import Wire

from accredit_attestors import manifest as manifests
from accredit_attestors.manifest import generate_signer_key
from accredit_issuer.clock import system_clock


def send_manifest(wire: Wire, key: Any, **changes: Any) -> Answer:
    """Register a manifest with changes."""
    signed = manifests.sign(sample_manifest(system_clock(), **changes), key)
    return wire.as_admin.ask("POST", "/v1/manifests", {"envelope": signed.decode()})


def test_a_strangers_manifest(wire: Wire) -> None:
    """A manifest of an unknown key, or of a key of another namespace, is refused."""
    from accredit_credentials.spiffe_id import AgentId  # noqa: PLC0415

    answer = send_manifest(wire, generate_signer_key())
    assert answer.kind == "attestation-refused"
    answer = send_manifest(wire, wire.agent.key, agent=AgentId.parse("payments/x"))
    assert answer.kind == "attestation-refused"


@pytest.mark.parametrize(
    ("begins", "ends", "status"),
    [(0, 100, 201), (-100, -1, 403), (55, 1000, 201), (90, 1000, 403)],
)
def test_a_manifest_has_its_time(wire: Wire, begins: int, ends: int, status: int) -> None:
    """Expired and future-dated manifests are refused; a minute of clock difference is not."""
    now = system_clock().replace(microsecond=0)
    answer = send_manifest(
        wire,
        wire.agent.key,
        version=f"8.{begins}.{ends}".replace("-", "m"),
        issued_at=now + timedelta(seconds=begins),
        expires_at=now + timedelta(seconds=ends),
    )
    assert answer.status == status, answer.body


def test_a_version_has_one_content(wire: Wire) -> None:
    """The same manifest twice is no error; other contents under its version are a conflict."""
    assert send_manifest(wire, wire.agent.key, version="9.0.0", purpose="a").status == 201
    assert send_manifest(wire, wire.agent.key, version="9.0.0", purpose="b").kind == "conflict"
    body = {"envelope": wire.agent.envelope}
    assert wire.as_admin.ask("POST", "/v1/manifests", body).status == 201


def test_a_signer_has_one_content(wire: Wire) -> None:
    """A signer's name with another key, its key under another name: conflicts."""
    pem = manifests.public_key_pem(generate_signer_key().public_key()).decode()
    own = manifests.public_key_pem(wire.agent.key.public_key()).decode()
    for body, status in (
        ({"name": "ci", "public_key": own, "namespaces": ["support"]}, 201),
        ({"name": "ci", "public_key": pem, "namespaces": ["support"]}, 409),
        ({"name": "ci", "public_key": own, "namespaces": ["support", "payments"]}, 409),
        ({"name": "ci2", "public_key": own, "namespaces": ["support"]}, 409),
        ({"name": "none", "public_key": pem, "namespaces": []}, 400),
        ({"name": "No Name", "public_key": pem, "namespaces": ["support"]}, 400),
    ):
        assert wire.as_admin.ask("POST", "/v1/signers", body).status == status, body


def test_an_admin_does_not_change_its_role(wire: Wire) -> None:
    """An admin who exists is invited again with the same role only."""
    body = {"name": "bob", "role": "viewer", "namespaces": []}
    assert wire.as_admin.ask("POST", "/v1/admins", body).status == 201
    assert wire.as_admin.ask("POST", "/v1/admins", body).status == 201
    for change in ({"role": "admin"}, {"namespaces": ["support"]}):
        assert wire.as_admin.ask("POST", "/v1/admins", {**body, **change}).kind == "conflict"

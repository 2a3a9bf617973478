"""securesystemslib, the library under TUF and in-toto, on our signed manifests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from support.issuer import write_agent
from support.judges import library

from accredit_attestors.statement import PAYLOAD_TYPE
from accredit_credentials.keys import public_key_digest
from accredit_issuer.clock import system_clock

KEYS: dict[str, Callable[[], Any]] = {
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
}


@pytest.mark.parametrize("kind", KEYS)
def test_it_verifies_a_signed_manifest(kind: str, tmp_path: Path) -> None:
    """Securesystemslib finds our signature good, over the statement that we meant."""
    dsse = library("securesystemslib.dsse", "securesystemslib")
    signer = library("securesystemslib.signer", "securesystemslib")
    key = KEYS[kind]()
    agent = write_agent(tmp_path / "agent", key=key, now=system_clock())
    envelope = dsse.Envelope.from_dict(json.loads(agent.envelope))
    keyid = public_key_digest(key.public_key())
    trusted = signer.SSlibKey.from_crypto(key.public_key(), keyid=keyid)

    assert set(envelope.verify([trusted], 1)) == {keyid}
    assert envelope.payload_type == PAYLOAD_TYPE
    assert "agent" in json.dumps(json.loads(envelope.payload))


@pytest.mark.parametrize("kind", KEYS)
def test_it_refuses_another_key_and_another_payload(kind: str, tmp_path: Path) -> None:
    """A key that did not sign, and a payload of which one byte changed, are refused."""
    dsse = library("securesystemslib.dsse", "securesystemslib")
    signer = library("securesystemslib.signer", "securesystemslib")
    errors = library("securesystemslib.exceptions", "securesystemslib")
    key, other = KEYS[kind](), KEYS[kind]()
    agent = write_agent(tmp_path / "agent", key=key, now=system_clock())
    keyid = public_key_digest(key.public_key())
    envelope = dsse.Envelope.from_dict(json.loads(agent.envelope))

    wrong = signer.SSlibKey.from_crypto(other.public_key(), keyid=keyid)
    with pytest.raises(errors.VerificationError):
        envelope.verify([wrong], 1)
    trusted = signer.SSlibKey.from_crypto(key.public_key(), keyid=keyid)
    envelope.payload = envelope.payload.replace(b"1.0.0", b"1.0.1")
    with pytest.raises(errors.VerificationError):
        envelope.verify([trusted], 1)

"""One honest agent, its signer and its files, from which each test makes what it needs."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from accredit_attestors.contract import Evidence, VerifyContext
from accredit_attestors.manifest import (
    Action,
    Artefact,
    Code,
    Delegation,
    Manifest,
    Resource,
    Risk,
    Role,
    Signer,
    VerifiedManifest,
    sign,
    verify,
)
from accredit_credentials.spiffe_id import AgentId

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NONCE = "bm9uY2Utb2YtdGhpcy1hdHRlbXB0"


@pytest.fixture(scope="session")
def now() -> datetime:
    """The moment at which everything here is valid."""
    return NOW


@pytest.fixture(scope="session")
def nonce() -> str:
    """The nonce of this attempt."""
    return NONCE


@pytest.fixture(scope="session")
def key() -> ed25519.Ed25519PrivateKey:
    """The key of the signer of namespace payments."""
    return ed25519.Ed25519PrivateKey.generate()


@pytest.fixture(scope="session")
def signer(key: ed25519.Ed25519PrivateKey) -> Signer:
    """The signer of namespace payments."""
    return Signer("payments-ci", key.public_key(), ("payments",))


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    """A manifest that uses every field."""
    return Manifest(
        agent=AgentId.parse("payments/refund-agent"),
        version="1.4.0",
        owner="ada@example.com",
        purpose="Refunds orders that support has approved, in € only",
        code=Code("sha256:" + "c0" * 32),
        artefacts=(Artefact(Role.MODEL, "acme/model:7b", "sha256:" + "aa" * 32),),
        resources=(
            Resource(
                "orders",
                "https://orders.example.com",
                (Action("read", Risk.LOW), Action("refund", Risk.HIGH)),
            ),
            Resource(
                "ledger", "spiffe://example.com/ledger", (Action("read", Risk.LOW),), bearer=True
            ),
        ),
        delegation=Delegation(2, (AgentId.parse("payments/mailer"),)),
        issued_at=NOW - timedelta(days=1),
        expires_at=NOW + timedelta(days=1),
    )


@pytest.fixture(scope="session")
def envelope(manifest: Manifest, key: ed25519.Ed25519PrivateKey) -> bytes:
    """The signed manifest."""
    return sign(manifest, key)


@pytest.fixture(scope="session")
def verified(envelope: bytes, signer: Signer) -> VerifiedManifest:
    """The verified manifest."""
    return verify(envelope, signers=(signer,), now=NOW)


@pytest.fixture(scope="session")
def context(signer: Signer, verified: VerifiedManifest) -> VerifyContext:
    """What the verifier knows in this attempt."""
    return VerifyContext(nonce=NONCE, now=NOW, signers=(signer,), manifest=verified)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree with each kind of entry."""
    root = tmp_path / "agent"
    (root / "prompts").mkdir(parents=True)
    (root / "__pycache__").mkdir()
    (root / "main.py").write_text("print('hello')\n")
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o755)
    (root / "prompts" / "system päge.md").write_text("Be kind.\n")
    (root / "latest.md").symlink_to("prompts/system päge.md")
    (root / "__pycache__" / "main.pyc").write_bytes(b"\0")
    return root


@pytest.fixture(scope="session")
def for_nonce() -> Callable[[Evidence, str], Evidence]:
    """Replay evidence under another nonce."""

    def replay(evidence: Evidence, nonce: str) -> Evidence:
        changes: dict[str, Any] = {"nonce": nonce}
        return replace(evidence, **changes)

    return replay

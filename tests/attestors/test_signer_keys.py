"""Signers' keys: which kinds, and how they are kept."""

import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from accredit_attestors.errors import InvalidSigner
from accredit_attestors.manifest import (
    generate_signer_key,
    load_signer_private_key,
    load_signer_public_key,
    public_key_pem,
    save_signer_private_key,
)
from accredit_credentials.keys import generate_key, public_key_digest


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
@pytest.mark.parametrize("make", [generate_signer_key, generate_key])
def test_key_is_saved_for_its_owner_and_read_back(
    tmp_path: Path, make: Any, passphrase: bytes | None
) -> None:
    """A key file is private, never overwritten, and opens with its own passphrase only."""
    key, path = make(), tmp_path / "signer.pem"
    save_signer_private_key(path, key, passphrase=passphrase)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = load_signer_private_key(path.read_bytes(), passphrase=passphrase)
    assert public_key_digest(again.public_key()) == public_key_digest(key.public_key())
    with pytest.raises(FileExistsError):
        save_signer_private_key(path, key)
    for wrong in (b"wrong", None if passphrase else b"needless"):
        with pytest.raises(InvalidSigner) as refused:
            load_signer_private_key(path.read_bytes(), passphrase=wrong)
        assert "horse" not in str(refused.value)


@pytest.mark.parametrize("make", [generate_signer_key, generate_key])
def test_public_key_reads_back(make: Any) -> None:
    """A public key survives PEM."""
    key = make().public_key()
    assert public_key_digest(load_signer_public_key(public_key_pem(key))) == public_key_digest(key)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: ec.generate_private_key(ec.SECP256K1()),
        lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
        ed448.Ed448PrivateKey.generate,
    ],
)
def test_key_of_another_kind_is_refused(tmp_path: Path, make: Any) -> None:
    """Only Ed25519 and P-256 are signers' keys, to read and to write."""
    key = make()
    with pytest.raises(InvalidSigner, match="expected Ed25519 or P-256"):
        load_signer_public_key(public_key_pem(key.public_key()))
    with pytest.raises(InvalidSigner, match="expected Ed25519 or P-256"):
        save_signer_private_key(tmp_path / "key", key)
    assert not (tmp_path / "key").exists()


def test_nonsense_is_refused(tmp_path: Path) -> None:
    """What is not PEM, of the other half, or too long is refused."""
    private = tmp_path / "key"
    save_signer_private_key(private, ed25519.Ed25519PrivateKey.generate())
    public = public_key_pem(generate_signer_key().public_key())
    for pem in (b"", b"x", private.read_bytes(), public + b" " * 4096):
        with pytest.raises(InvalidSigner):
            load_signer_public_key(pem)
    for pem in (b"", b"x", public):
        with pytest.raises(InvalidSigner):
            load_signer_private_key(pem)

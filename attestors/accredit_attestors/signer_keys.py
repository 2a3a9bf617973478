"""The keys that sign manifests: which are accepted, and how they are read and written as PEM.

Ed25519 and P-256 only. A private key file is created once, for its owner alone, and never
overwritten.
"""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from accredit_attestors.errors import InvalidSigner
from accredit_credentials.keys import SignerPrivateKey, SignerPublicKey

_ACCEPTED = "Ed25519 or P-256"
MAX_PEM_BYTES = 4096


def generate_signer_key() -> ed25519.Ed25519PrivateKey:
    """Make an Ed25519 key: small, fast, and without a nonce to get wrong."""
    return ed25519.Ed25519PrivateKey.generate()


def check_signer_public_key(key: object) -> SignerPublicKey:
    """Return ``key`` if it may verify manifests.

    Raises:
        InvalidSigner: anything but Ed25519 or P-256.
    """
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise InvalidSigner(f"signer key of kind {_kind(key)} is not accepted, expected {_ACCEPTED}")


def check_signer_private_key(key: object) -> SignerPrivateKey:
    """Return ``key`` if it may sign manifests.

    Raises:
        InvalidSigner: anything but Ed25519 or P-256.
    """
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise InvalidSigner(f"signer key of kind {_kind(key)} is not accepted, expected {_ACCEPTED}")


def load_signer_public_key(pem: bytes) -> SignerPublicKey:
    """Read a signer's public key from PEM SubjectPublicKeyInfo.

    Raises:
        InvalidSigner: not PEM, or a key of another kind.
    """
    try:
        return check_signer_public_key(serialization.load_pem_public_key(_bounded(pem)))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidSigner("signer's public key must be PEM with BEGIN PUBLIC KEY") from error


def load_signer_private_key(pem: bytes, *, passphrase: bytes | None = None) -> SignerPrivateKey:
    """Read a signer's private key from PEM, encrypted if a passphrase is given.

    Raises:
        InvalidSigner: not PEM, a wrong, missing or needless passphrase, a key of another kind.
    """
    try:
        key = serialization.load_pem_private_key(_bounded(pem), passphrase)
    except TypeError as error:
        needed = "needs no passphrase" if passphrase else "is encrypted, expected a passphrase"
        raise InvalidSigner(f"signer's private key {needed}") from error
    except (ValueError, UnsupportedAlgorithm):
        # The cause may quote the key: it is cut off.
        raise InvalidSigner("signer's private key must be PEM, with its right passphrase") from None
    return check_signer_private_key(key)


def public_key_pem(key: SignerPublicKey) -> bytes:
    """The public key as PEM SubjectPublicKeyInfo."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def save_signer_private_key(
    path: Path, key: SignerPrivateKey, *, passphrase: bytes | None = None
) -> None:
    """Write the key as PEM PKCS #8 into a new file that only its owner may read.

    Raises:
        InvalidSigner: the key's kind is not accepted.
        OSError: the file cannot be made; ``FileExistsError`` if it is there already.
    """
    encryption = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    pem = check_signer_private_key(key).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    # Made with its final mode: there is no moment in which others could open it.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())


def _bounded(pem: bytes) -> bytes:
    if len(pem) > MAX_PEM_BYTES:
        raise InvalidSigner(f"PEM has {len(pem)} bytes, the limit is {MAX_PEM_BYTES}")
    return pem


def _kind(key: object) -> str:
    if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey):
        return key.curve.name
    return type(key).__name__.removesuffix("PublicKey").removesuffix("PrivateKey")

"""Private keys on disk: PKCS#8, one file a key, mode 0600, encrypted with a passphrase.

A passphrase of None leaves them in clear: the settings allow that only where they say so. The
format derives a file's key with few rounds (PBKDF2, as OpenSSL writes it): it is the passphrase's
own randomness that protects, and ``accredit-issuer init`` makes one of 256 bits.
"""

import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from accredit_credentials.keys import generate_key
from accredit_issuer.errors import Unavailable
from accredit_issuer.keys.key_manager import (
    KeyExists,
    KeyManager,
    KeyMissing,
    ManagedKey,
    check_loaded,
    is_key_id,
    key_id_of,
)

_LOG = "log"
_ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"


class DiskKeys(KeyManager):
    """The folder of private keys."""

    def __init__(self, folder: Path, passphrase: bytes | None) -> None:
        self._folder = folder
        self._passphrase = passphrase

    def create_folder(self) -> None:
        """Make the folder, for its owner only.

        Raises:
            FileExistsError: it is there already.
        """
        self._folder.mkdir(mode=0o700, parents=True)

    def generate(self) -> ManagedKey:
        """Make a key in a new file."""
        key = generate_key()
        made = ManagedKey(key_id_of(key.public_key()), key)
        self._write(made.id, key)
        return made

    def load(self, key_id: str) -> ec.EllipticCurvePrivateKey:
        """Read a key."""
        if not is_key_id(key_id):
            raise KeyMissing(f"{key_id[:80]!r} is not the id of a key")
        return check_loaded(self._read(key_id), key_id)

    def remove(self, key_id: str) -> None:
        """Delete a key's file."""
        if not is_key_id(key_id):
            return
        try:
            self._path(key_id).unlink(missing_ok=True)
            self._sync_folder()
        except OSError as error:
            raise Unavailable(f"key {key_id} cannot be deleted: {error.strerror}") from error

    def generate_log_key(self) -> Ed25519PrivateKey:
        """Make the log's key in a new file."""
        key = Ed25519PrivateKey.generate()
        self._write(_LOG, key)
        return key

    def load_log_key(self) -> Ed25519PrivateKey:
        """Read the log's key."""
        key = self._read(_LOG)
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyMissing("what is kept as key log is another key")
        return key

    def check(self) -> str:
        """Whether the folder can be read."""
        try:
            number = sum(1 for file in self._folder.iterdir() if file.suffix == ".pem")
        except OSError as error:
            raise Unavailable(f"{self._folder} cannot be read: {error.strerror}") from error
        how = "encrypted" if self._passphrase else "not encrypted, file permissions only"
        return f"{number} on disk, {how}"

    def close(self) -> None:
        """Nothing is held open."""

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.pem"

    def _read(self, name: str) -> object:
        try:
            pem = self._path(name).read_bytes()
        except OSError as error:
            raise KeyMissing(f"key {name} cannot be read: {error.strerror}") from error
        encrypted = pem.startswith(_ENCRYPTED)
        if encrypted and self._passphrase is None:
            raise KeyMissing(f"key {name} is encrypted, and keys.unencrypted is true")
        if not encrypted and self._passphrase is not None:
            raise KeyMissing(f"key {name} is not encrypted, and keys.unencrypted is false")
        try:
            return serialization.load_pem_private_key(pem, self._passphrase)
        except (ValueError, TypeError) as error:
            # The library's own words are not shown: they could say something of the passphrase.
            raise KeyMissing(
                f"key {name} cannot be opened: compare keys.passphrase_file"
            ) from error

    def _write(self, name: str, key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> None:
        encryption = (
            serialization.NoEncryption()
            if self._passphrase is None
            else serialization.BestAvailableEncryption(self._passphrase)
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )
        try:
            descriptor = os.open(self._path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            self._sync_folder()
        except FileExistsError:
            raise KeyExists(f"{self._path(name)} is there already") from None
        except OSError as error:
            raise Unavailable(f"key {name} cannot be written: {error.strerror}") from error

    def _sync_folder(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

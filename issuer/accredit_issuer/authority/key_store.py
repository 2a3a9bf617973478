"""Private keys on disk: PKCS#8, one file a key, mode 0600, encrypted where a passphrase is given.

Nothing else in the issuer reads or writes private key bytes. Creating is explicit and never
overwrites; loading a key that is missing is an error, not an occasion to make a new one.
"""

import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from accredit_credentials.keys import generate_key
from accredit_issuer.errors import InvalidSettings, IssuerError

MAX_PASSPHRASE_BYTES = 1024
MIN_PASSPHRASE_BYTES = 12


class KeyMissing(IssuerError):
    """A key that should be on disk is not, or cannot be read."""


class KeyStore:
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

    def create(self, name: str) -> ec.EllipticCurvePrivateKey:
        """Make and keep a P-256 key."""
        key = generate_key()
        self._write(name, key)
        return key

    def create_log_key(self, name: str) -> Ed25519PrivateKey:
        """Make and keep an Ed25519 key: C2SP checkpoints are signed with nothing else."""
        key = Ed25519PrivateKey.generate()
        self._write(name, key)
        return key

    def load(self, name: str) -> ec.EllipticCurvePrivateKey:
        """Read a P-256 key.

        Raises:
            KeyMissing: not there, not readable, or the passphrase is wrong.
        """
        key = self._read(name)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise KeyMissing(f"key {name} is not of the expected kind")
        return key

    def load_log_key(self, name: str) -> Ed25519PrivateKey:
        """Read an Ed25519 key.

        Raises:
            KeyMissing: not there, not readable, or the passphrase is wrong.
        """
        key = self._read(name)
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyMissing(f"key {name} is not of the expected kind")
        return key

    def rename(self, old: str, new: str) -> None:
        """Give a key that was just made the name that it will be known by."""
        self._path(old).rename(self._path(new))
        self._sync_folder()

    def remove(self, name: str) -> None:
        """Delete a key that nothing will sign with again."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.pem"

    def _read(self, name: str) -> object:
        try:
            pem = self._path(name).read_bytes()
            return serialization.load_pem_private_key(pem, self._passphrase)
        except OSError as error:
            raise KeyMissing(f"key {name} cannot be read: {error.strerror}") from error
        except (ValueError, TypeError) as error:
            # TypeError: encrypted and no passphrase, or the other way round. The library's own
            # words are not shown: they could say something about the passphrase.
            raise KeyMissing(
                f"key {name} cannot be opened: compare keys.passphrase_file"
            ) from error

    def _write(self, name: str, key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> None:
        encryption = (
            serialization.BestAvailableEncryption(self._passphrase)
            if self._passphrase
            else serialization.NoEncryption()
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )
        descriptor = os.open(self._path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        self._sync_folder()

    def _sync_folder(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_passphrase(file: Path | None) -> bytes | None:
    """The passphrase in a file, without the line's end; None where no file is set.

    Raises:
        InvalidSettings: unreadable, or shorter than 12 bytes.
    """
    if file is None:
        return None
    try:
        with file.open("rb") as stream:
            passphrase = stream.read(MAX_PASSPHRASE_BYTES + 1).rstrip(b"\r\n")
    except OSError as error:
        raise InvalidSettings(f"keys.passphrase_file: {file}: {error.strerror}") from error
    if not MIN_PASSPHRASE_BYTES <= len(passphrase) <= MAX_PASSPHRASE_BYTES:
        raise InvalidSettings(
            f"keys.passphrase_file: {file} must hold {MIN_PASSPHRASE_BYTES} to "
            f"{MAX_PASSPHRASE_BYTES} bytes"
        )
    return passphrase

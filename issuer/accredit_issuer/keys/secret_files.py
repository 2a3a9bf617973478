"""The passphrase of the keys and the PIN of a token: read from files, and shown by nobody.

Never an argument and never in the environment: both can be read by others, and end in logs.
"""

import os
import secrets
import stat
from pathlib import Path

from accredit_issuer.errors import InvalidSettings

MIN_PASSPHRASE_BYTES = 12
MAX_PASSPHRASE_BYTES = 1024
MIN_PIN_BYTES = 4
MAX_PIN_BYTES = 255
MADE_BYTES = 32  # of chance in a passphrase that we make

# A group may read: that is how a service manager hands a secret to a user of its own.
_TOO_OPEN = stat.S_IWGRP | stat.S_IRWXO


def read_passphrase(file: Path, setting: str = "keys.passphrase_file") -> bytes:
    """The passphrase in a file, without the line's end; ``setting`` is what names the file.

    Raises:
        InvalidSettings: unreadable, open to others, or not of 12 to 1024 bytes.
    """
    return _read(setting, file, MIN_PASSPHRASE_BYTES, MAX_PASSPHRASE_BYTES)


def read_pin(file: Path) -> str:
    """The PIN in a file, without the line's end.

    Raises:
        InvalidSettings: unreadable, open to others, not UTF-8, or not of 4 to 255 bytes.
    """
    try:
        return _read("keys.pin_file", file, MIN_PIN_BYTES, MAX_PIN_BYTES).decode()
    except UnicodeDecodeError:
        # Without its cause, which has the bytes in it.
        raise InvalidSettings(f"keys.pin_file: {file} must hold UTF-8") from None


def make_passphrase(file: Path) -> bool:
    """Write a new passphrase of 256 random bits, mode 0600; False where there is a file already.

    Raises:
        InvalidSettings: it cannot be written.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(secrets.token_hex(MADE_BYTES) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
    except FileExistsError:
        return False
    except OSError as error:
        raise InvalidSettings(f"keys.passphrase_file: {file}: {error.strerror}") from error
    return True


def read_guarded(setting: str, file: Path, most: int) -> bytes:
    """A file that others cannot read, up to one byte more than ``most``.

    Raises:
        InvalidSettings: unreadable, or open to others.
    """
    try:
        with file.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            content = stream.read(most + 1)
    except OSError as error:
        raise InvalidSettings(f"{setting}: {file}: {error.strerror}") from error
    if mode & _TOO_OPEN:
        raise InvalidSettings(
            f"{setting}: {file} has mode {stat.S_IMODE(mode):04o}, expected 0600 or 0640 at most"
        )
    return content


def _read(setting: str, file: Path, least: int, most: int) -> bytes:
    secret = read_guarded(setting, file, most + 2).rstrip(b"\r\n")
    if not least <= len(secret) <= most:
        raise InvalidSettings(f"{setting}: {file} must hold {least} to {most} bytes")
    return secret

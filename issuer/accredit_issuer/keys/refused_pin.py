"""The PIN that a token refused, remembered past a restart.

A supervisor that starts us again and again must not send it each time: tokens lock themselves after
a few.

The file has a salt and a scrypt digest of token and PIN, mode 0600, in the data folder. Whoever can
read it can try PINs against it, each at the price of scrypt; what he finds is one that was refused.
Where it cannot be written the PIN is remembered by the process alone, and that is logged.
"""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

import structlog

SALT_BYTES = 16
DIGEST_BYTES = 32
# RFC 7914 §2: 32 MiB and a tenth of a second a try.
_COST, _BLOCK, _PARALLEL, _MEMORY = 2**15, 8, 1, 64 * 1024 * 1024

_log = structlog.get_logger("accredit.keys")


class RefusedPin:
    """What is remembered of the PIN that was refused last.

    Args:
        file: where; None remembers within the process alone.
        token: the label of the token that refused it.
    """

    def __init__(self, file: Path | None, token: str) -> None:
        self.file = file
        self._token = token
        self._pin: str | None = None

    def is_it(self, pin: str) -> bool:
        """Whether this PIN was refused, by this process or one before it."""
        if pin == self._pin:
            return True
        kept = self._read()
        if kept is None:
            return False
        salt, digest = kept[:SALT_BYTES], kept[SALT_BYTES:]
        return hmac.compare_digest(self._digest(pin, salt), digest)

    def remember(self, pin: str) -> None:
        """Never send this PIN again."""
        self._pin = pin
        if self.file is None:
            return
        salt = secrets.token_bytes(SALT_BYTES)
        beside = self.file.with_name(f"{self.file.name}.new")
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as stream:
                stream.write((salt + self._digest(pin, salt)).hex() + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            beside.replace(self.file)
        except OSError as error:
            _log.warning("refused PIN not remembered past a restart", reason=error.strerror)

    def forget(self) -> None:
        """The token took a PIN: what was refused before is no matter any more."""
        self._pin = None
        if self.file is not None:
            try:
                self.file.unlink(missing_ok=True)
            except OSError as error:
                _log.warning("refused PIN not forgotten", reason=error.strerror)

    def _read(self) -> bytes | None:
        if self.file is None:
            return None
        try:
            with self.file.open("rb") as stream:
                kept = bytes.fromhex(stream.read(1024).decode("ascii").strip())
        except (OSError, ValueError):
            return None
        return kept if len(kept) == SALT_BYTES + DIGEST_BYTES else None

    def _digest(self, pin: str, salt: bytes) -> bytes:
        return hashlib.scrypt(
            f"{self._token}\0{pin}".encode(),
            salt=salt,
            n=_COST,
            r=_BLOCK,
            p=_PARALLEL,
            maxmem=_MEMORY,
            dklen=DIGEST_BYTES,
        )

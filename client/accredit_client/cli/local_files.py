"""Files of this machine: read bounded, written whole, and private where they are secret."""

import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from accredit_attestors.files import read_small_file
from accredit_client.cli.problems import Failed

STDIN = Path("-")
MAX_SECRET_BYTES = 16 * 1024
MAX_TEXT_BYTES = 1024 * 1024
PRIVATE = 0o600
PUBLIC = 0o644


def read_secret(path: Path, what: str) -> bytes:
    """A token or a private key, from a file closed to group and others, or from stdin.

    Raises:
        AttestationError: missing, unreadable, too big, or open to others.
        Failed: stdin is empty or too big.
    """
    if path == STDIN:
        return _read_stdin(what, MAX_SECRET_BYTES)
    return read_small_file(path, what=what, max_bytes=MAX_SECRET_BYTES, private=True)


def read_text(path: Path, what: str) -> str:
    """A text that is no secret, from a file or from stdin.

    Raises:
        AttestationError: missing, unreadable or too big.
        Failed: not UTF-8; stdin is empty or too big.
    """
    if path == STDIN:
        data = _read_stdin(what, MAX_TEXT_BYTES)
    else:
        data = read_small_file(path, what=what, max_bytes=MAX_TEXT_BYTES, private=False)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Failed(f"{what} {path} must be UTF-8 text") from None


def read_token(path: Path, what: str) -> str:
    """A token of one line.

    Raises:
        AttestationError, Failed: as ``read_secret``; or not one ASCII word.
    """
    text = read_secret(path, what).decode("ascii", "replace").strip()
    if not text.isascii() or len(text.split()) != 1:
        raise Failed(f"{what} must be one line of ASCII text")
    return text


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that must not be there yet, with its final mode from the first byte on.

    Raises:
        OSError: it cannot be made; ``FileExistsError`` if it is there already.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, data: bytes, mode: int) -> None:
    """Write a file in one step, whether it is there or not.

    Raises:
        OSError: it cannot be written.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write_new(fresh, data, mode)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def make_private_folder(path: Path) -> None:
    """Make a folder for secrets; where it exists, see that it is closed to group and others.

    Raises:
        Failed: it is open to others.
        OSError: it cannot be made.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Failed(f"folder {path} is open to others", hint=f"chmod 700 {path}")


@contextmanager
def private_folder(path: Path) -> Iterator[None]:
    """Make a private folder; where nothing comes of it, what was made is taken away again.

    Raises:
        Failed: it is open to others.
        OSError: it cannot be made.
    """
    missing = [each for each in (path, *path.parents) if not each.exists()]
    try:
        make_private_folder(path)
        yield
    except BaseException:
        for each in missing:
            with suppress(OSError):  # not empty: something came of it
                each.rmdir()
        raise


def _read_stdin(what: str, limit: int) -> bytes:
    data = sys.stdin.buffer.read(limit + 1)
    if not data:
        raise Failed(f"{what} was expected on stdin, and nothing came")
    if len(data) > limit:
        raise Failed(f"{what} on stdin has more than {limit} bytes")
    return data

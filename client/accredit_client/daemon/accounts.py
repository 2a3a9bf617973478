"""Whom a user id counts for: itself, or the user whose subordinate id it is (subuid(5)).

A user to whom ``/etc/subuid`` gives a range can run processes under each of its ids, 65,536 as a
rule. Bounds for each user would be none: so an id of such a range counts as its owner. Ranges of
root bound nobody, since root hands out what is in them; an id that owns a range itself is
somebody, and stays so. What ``accounts`` says is for counting, and never who somebody is.

``parse_ranges`` and ``account_in`` are pure. The file is read again when it is another, in a
thread: its owners' names are looked up, and that may ask a directory service.
"""

import logging
import os
import pwd
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

FILE = Path("/etc/subuid")
MAX_FILE_BYTES = 1024 * 1024
MAX_RANGES = 16_384
MAX_KNOWN = 65_536  # ids that are not looked up again
LOOK_SECONDS = 15.0  # between two looks whether the file is another
_IDS = 2**32
_FIELDS = 3


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """The ids from ``first`` to ``last``, which count as ``owner``."""

    first: int
    last: int
    owner: int


def parse_ranges(text: str, uid_of: Callable[[str], int | None]) -> tuple[Range, ...]:
    """Read ``/etc/subuid``: ``owner:first:count`` in each line, in the order of their ids.

    Lines of another form, of nobody known and of root are passed over, as who grants the ids does.

    Args:
        text: the file.
        uid_of: the user id of a name; None for nobody's.
    """
    found = []
    for line in text.splitlines()[:MAX_RANGES]:
        fields = line.strip().split(":")
        if len(fields) != _FIELDS or not all(_is_number(each) for each in fields[1:]):
            continue
        name, first, count = fields[0], int(fields[1]), int(fields[2])
        owner = int(name) if _is_number(name) else uid_of(name)
        if owner and count and first + count <= _IDS:
            found.append(Range(first, first + count - 1, owner))
    return tuple(sorted(found))


def account_in(ranges: Sequence[Range], uid: int) -> int:
    """Whom a user id counts for.

    Args:
        ranges: in their order; where two overlap, the one that begins last counts.
        uid: the id.
    """
    if any(each.owner == uid for each in ranges):
        return uid
    for each in reversed(ranges[: bisect_right(ranges, uid, key=lambda one: one.first)]):
        if uid <= each.last:
            return each.owner
    return uid


def itself(uid: int) -> int:
    """Whom a user id counts for where nobody has subordinate ids."""
    return uid


class Accounts:
    """What the file says now.

    Args:
        file: as ``/etc/subuid``.
    """

    def __init__(self, file: Path = FILE) -> None:
        self._file = file
        self._seen: tuple[int, ...] | None = None
        # One value: it is exchanged by a thread while the event loop asks.
        self._said: tuple[tuple[Range, ...], dict[int, int]] = ((), {})

    def of(self, uid: int) -> int:
        """Whom a user id counts for."""
        ranges, known = self._said
        account = known.get(uid)
        if account is None:
            account = account_in(ranges, uid)
            if len(known) < MAX_KNOWN:
                known[uid] = account
        return account

    def look(self) -> None:
        """Read the file, where it is another than it was; may block. A missing one has no ranges.

        One that cannot be read changes nothing: what it said before still bounds.
        """
        try:
            with self._file.open("rb") as file:
                seen = _version(os.fstat(file.fileno()))
                if seen == self._seen:
                    return
                text = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            seen, text = (), b""
        except OSError as error:
            log.error("subordinate ids in %s cannot be read: %s", self._file, error.strerror)  # noqa: TRY400 (one line each)
            return
        if len(text) > MAX_FILE_BYTES:
            log.error(
                "%s is larger than %d bytes: the rest is left out", self._file, MAX_FILE_BYTES
            )
        lines = text[:MAX_FILE_BYTES].decode(errors="replace")
        self._said = (parse_ranges(lines, _uid_of), {})
        self._seen = seen


def _version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len(str(_IDS))


def _uid_of(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError, OSError):
        return None

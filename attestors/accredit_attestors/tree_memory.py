"""What a measured tree looked like, so that an unchanged file is not read again.

A file is unchanged while device, inode, mode, owners, size, mtime and ctime are what they were. No
program can set a ctime back, short of setting the clock or writing to the disk below the
filesystem. What was written in the very moment of reading could look the same before and after (as
git's *racily clean* files do), so only what is older than a filesystem's timestamps are coarse is
*settled*; the rest is read again.

A memory is of one tree, one selection and one inspection: what was allowed is not asked again
while it is unchanged. It is not for several threads at once.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from accredit_attestors.listing import Entry, Measured

COARSEST_TIMESTAMP_NS = 2_000_000_000
"""The coarsest times of a filesystem in use: FAT's two seconds. ext4, XFS, btrfs: milliseconds."""

State = tuple[int, ...]
_SIZE = 3  # the place of st_size in a state


@dataclass(slots=True, eq=False)
class Leaf:
    """A file or link of a directory, as it was read."""

    name: str
    path: str
    state: State
    settled: bool
    target: str | None = None
    """Where a link leads."""
    entry: Entry | None = None
    """Its line; None until it is hashed."""

    @property
    def size(self) -> int:
        """Bytes that a file has."""
        return self.state[_SIZE]


@dataclass(slots=True, eq=False)
class Folder:
    """One directory, as it was read."""

    state: State
    settled: bool
    folders: list[tuple[str, str]] = field(default_factory=list)
    """Name and path of each directory in it that is walked."""
    leaves: list[Leaf] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """Name and path of what is excluded."""
    seen: int = 0
    """Entries that are not left out, measured or not."""
    size: int = 0
    """Bytes of its files."""


@dataclass(slots=True, eq=False)
class TreeMemory:
    """One tree's directories by path, and its listing, where the last measure was complete.

    Attributes:
        clock: nanoseconds since 1970, of the clock that the filesystem's times are taken from.
    """

    clock: Callable[[], int] = time.time_ns
    folders: dict[str, Folder] = field(default_factory=dict)
    measured: Measured | None = None

    @property
    def entries(self) -> int:
        """How many files and links it remembers."""
        return sum(len(folder.leaves) for folder in self.folders.values())


def state_of(status: os.stat_result) -> State:
    """What differs as soon as a file, a link or a directory's names were changed."""
    return (
        status.st_ino,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_size,
        status.st_mode,
        status.st_dev,
        status.st_uid,
        status.st_gid,
    )


def settled(status: os.stat_result, read_at: int) -> bool:
    """Whether what is read at ``read_at`` (ns) or later could not change with these times kept."""
    return max(status.st_mtime_ns, status.st_ctime_ns) + COARSEST_TIMESTAMP_NS < read_at

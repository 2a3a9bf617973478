"""On which filesystem something lies, found out without asking that filesystem.

A filesystem may be served by a program (FUSE) or over the network: whoever serves it may never
answer, and may tell each who asks something else. What is opened with ``O_PATH`` asks nobody, and
the kernel's own list says which mount it is on. So it is known what may be asked, by whom, and
whose word the answer is, before anything is asked.

``parse_mounts`` and ``standing_of`` are pure.
"""

import os
import select
import threading
from dataclasses import dataclass
from enum import Enum, auto

from accredit_attestors.errors import InvalidTree

OVERLAY = "overlay"
# One filesystem of several hosts' disks (gfs2, ocfs2) waits for the others' locks as for a server.
_LOCAL = frozenset(
    {"bcachefs", "btrfs", "cramfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "iso9660"}
    | {"jffs2", "jfs", "nilfs2", "ntfs3", OVERLAY, "ramfs", "reiserfs", "romfs", "rootfs"}
    | {"squashfs", "tmpfs", "ubifs", "udf", "vfat", "xfs", "zfs"}
)
_NETWORK = frozenset(
    {"9p", "afs", "ceph", "cifs", "gfs2", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "smb3"}
    | {"virtiofs"}
)
_CHUNK = 64 * 1024
_INFO_BYTES = 1024  # of /proc/self/fdinfo, which has four lines for a file


class Standing(Enum):
    """Whose word a filesystem's content is."""

    LOCAL = auto()
    """This kernel's: it answers at once."""
    NETWORK = auto()
    """A server's that root of this host has chosen: it may not answer."""
    OTHER = auto()
    """Anybody's, as with FUSE: nothing is asked there."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the kernel's list.

    Attributes:
        number: names it among all mounts of the host.
        point: where it is.
        kind: of its filesystem.
    """

    number: int
    point: str
    kind: str


def parse_mounts(mountinfo: str) -> tuple[Mount, ...]:
    """Read ``/proc/<pid>/mountinfo`` (proc_pid_mountinfo(5)).

    Raises:
        InvalidTree: it is not of the documented form.
    """
    found = []
    # By line feeds alone, which no line has inside: a point's name may have any other end of lines.
    for line in filter(None, mountinfo.split("\n")):
        fields = line.split(" ")
        try:
            kind = fields[fields.index("-") + 1]
            found.append(Mount(int(fields[0]), _unescaped(fields[4]), kind))
        except (IndexError, ValueError):
            raise InvalidTree("the caller's mounts are not of the documented form") from None
    return tuple(found)


def standing_of(kind: str | None) -> Standing:
    """Whose word the content of a kind of filesystem is; None for one that is not known."""
    if kind in _LOCAL:
        return Standing.LOCAL
    return Standing.NETWORK if kind in _NETWORK else Standing.OTHER


def place_of(descriptor: int) -> tuple[int, int | None]:
    """The mount that an open file is on, and its number there; None before Linux 5.14."""
    lines = _told_of(descriptor)
    inode = _field(lines, b"\nino:\t")
    return int(_field(lines, b"\nmnt_id:\t")), int(inode) if inode else None


def number_of(pidfd: int) -> str:
    """The number of the process that a pidfd is of, ``-1`` where it has ended; empty for others."""
    return _field(_told_of(pidfd), b"\nPid:\t").decode()


def _told_of(descriptor: int) -> bytes:
    told = os.open(f"/proc/self/fdinfo/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(told, _INFO_BYTES)
    finally:
        os.close(told)


def _field(lines: bytes, name: bytes) -> bytes:
    # Asked before each answer: no line is taken apart that is not needed.
    return lines.partition(name)[2].partition(b"\n")[0]


class HostMounts:
    """The mounts of the daemon's own namespace, the host's; for several threads.

    The list is read again when the kernel says that it is another (proc_pid_mounts(5)).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._list: int | None = None
        self._changes = select.poll()
        self._kinds: dict[int, str] = {}

    def kind(self, mount: int) -> str | None:
        """The kind of a mount; None where it is in another namespace."""
        with self._lock:
            first = self._list is None
            if self._list is None:
                self._list = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
                self._changes.register(self._list, select.POLLPRI)
            if self._changes.poll(0) or first:
                self._kinds = {each.number: each.kind for each in parse_mounts(_read(self._list))}
            return self._kinds.get(mount)

    def is_local(self, mount: int) -> bool:
        """Whether a mount is one of these, and this kernel answers for it at once."""
        return standing_of(self.kind(mount)) is Standing.LOCAL


HOST = HostMounts()
"""One for the daemon: there is one host."""


def _read(mounts: int) -> str:
    os.lseek(mounts, 0, os.SEEK_SET)
    chunks = []
    while chunk := os.read(mounts, _CHUNK):
        chunks.append(chunk)
    return os.fsdecode(b"".join(chunks))


def local_file(path: str) -> os.stat_result | None:
    """What stands at a path, where everything on the way to it is local and no link.

    None where it is not, or nothing is there: then nobody was asked.
    """
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in path.split("/")[1:]:
            below = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
            if not HOST.is_local(place_of(here)[0]):
                return None
        return os.fstat(here)
    except (OSError, ValueError):
        return None
    finally:
        os.close(here)


def _unescaped(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text

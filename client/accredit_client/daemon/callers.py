"""Who is calling: the process at the other end of a unix socket, pinned when it is accepted.

In this order: the kernel's word about who connected (``SO_PEERCRED``), a handle of that very
process (``SO_PEERPIDFD`` since Linux 6.5), its ``/proc`` directory, its start, its program and as
whom it runs; and last that it still runs, so that all of this was said of it. ``check`` says all of
it again before each credential. All of that is the kernel's to say, and an event loop may ask it:
nobody who serves a filesystem is waited for. Whatever is not as expected is a refusal: an
``EINVAL`` of the kernel (the process had already gone when it was asked for) like anything else.

It is the process that *connected* which is pinned. A process that connects, hands its socket to
another and then starts a signed program in its own place is taken for that program; what that
means is in ``docs/node-daemon.md``.
"""

import errno
import os
import socket
import struct
from pathlib import Path
from typing import Self

from accredit_attestors.errors import InvalidTree
from accredit_client.daemon.executables import EXECUTABLES
from accredit_client.daemon.mounts import (
    HOST,
    OVERLAY,
    Standing,
    local_file,
    parse_mounts,
    standing_of,
)
from accredit_client.daemon.process import Executable, PinnedProcess, Status, file_of, looking
from accredit_client.daemon.selectors import cgroup_selectors, unix_selectors
from accredit_client.errors import CallerChanged, CallerGone, CallerRefused

_UCRED = struct.Struct("iII")
_SO_PEERPIDFD = 77
_NO_PEERPIDFD = frozenset({errno.ENOPROTOOPT, errno.EOPNOTSUPP})


class Caller:
    """One connected process, pinned; give it back with ``close``. Safe for threads.

    Attributes:
        pid: its number in the daemon's pid namespace.
        uid: effective, when it connected.
        gid: effective, when it connected.
        process: the process, held.
        executable: the program that it ran when it was accepted.
    """

    pid: int
    uid: int
    gid: int

    def __init__(self, process: PinnedProcess, *, uid: int, gid: int) -> None:
        """Pin a process that is held already; ``of`` does so for a connection.

        Raises:
            CallerGone, CallerChanged, CallerRefused: as ``check``.
        """
        self.process = process
        self.pid, self.uid, self.gid = process.pid, uid, gid
        self.executable = process.executable()
        self.check()

    @classmethod
    def of(cls, connection: socket.socket) -> Self:
        """Pin the process that connected; right after the accept.

        Raises:
            CallerGone: it has ended.
            CallerRefused: the kernel does not tell it for sure.
        """
        pid, uid, gid = _credentials(connection)
        process = _process(connection, pid)
        try:
            return cls(process, uid=uid, gid=gid)
        except BaseException:
            process.close()
            raise

    def check(self) -> None:
        """Check that it is the same process, in the same program, as the same user and group.

        Raises:
            CallerGone: it has ended.
            CallerChanged: it runs another program, or as somebody else.
            CallerRefused: it cannot be told.
        """
        now, (uid, gid) = self.process.executable(), self.process.effective_ids()
        self.process.check_running()
        self._compare(now, uid, gid)

    def status(self) -> Status:
        """As whom it runs now, with all its ids, groups and capabilities.

        Raises:
            CallerGone, CallerChanged, CallerRefused: as ``check``.
        """
        now, status = self.process.executable(), self.process.status()
        self.process.check_running()
        self._compare(now, status.uids[1], status.gids[1])
        return status

    @property
    def local(self) -> bool:
        """Whether its program can be looked at without waiting for anybody who serves it."""
        return self.executable.device is not None

    def standing(self) -> Standing:
        """Whose word its program's content is; may take as long as reading all its mounts.

        Raises:
            CallerGone, CallerRefused: it cannot be told.
        """
        mount = self.executable.mount
        kind = HOST.kind(mount)
        if kind is None:
            try:
                mounts = parse_mounts(self.process.read("mountinfo"))
            except InvalidTree as error:
                raise CallerRefused(str(error)) from None
            kind = next((each.kind for each in mounts if each.number == mount), None)
            # Who has a user namespace can lay one over files that another program serves.
            if kind == OVERLAY and not self.process.same_namespace("user"):
                kind = None
        return standing_of(kind)

    def selectors(self, *, program: bool = True) -> frozenset[str]:
        """What can be said of it now; ``selectors`` has the list. Reads its program once.

        May wait for whoever serves the program's file, unless it is ``local``. Of a program that
        anybody may serve neither path nor content is said.

        Args:
            program: whether its program is read, for ``unix:sha256:``. That can take a second, and
                nobody has to be given it who is not meant anyway.

        Raises:
            CallerGone, CallerChanged, CallerRefused: as ``check``.
        """
        status = self.status()
        cgroups = self.process.read("cgroup")
        standing = self.standing()
        known = standing is not Standing.OTHER
        sha256 = self._program_sha256() if program and known else None
        said = unix_selectors(
            uid=self.uid,
            gid=self.gid,
            groups=status.groups,
            path=self._path_for_all(standing) if known else None,
            sha256=sha256,
        ) | cgroup_selectors(cgroups)
        self.check()
        return said

    def _program_sha256(self) -> str | None:
        program = self.process.open("exe", os.O_RDONLY)
        try:
            if file_of(program) != self.executable.file:
                raise CallerChanged(f"process {self.pid} runs another program")
            return EXECUTABLES.sha256(program)
        finally:
            os.close(program)

    def _path_for_all(self, standing: Standing) -> str | None:
        """The program's path, where it leads the daemon to the very file.

        Anybody may have a mount namespace of their own in which any path leads to a file of theirs.
        """
        if self.executable.deleted:
            return None
        path = self.executable.path
        program = self.process.open("exe", os.O_PATH)
        try:
            if file_of(program) != self.executable.file:
                raise CallerChanged(f"process {self.pid} runs another program")
            runs = os.fstat(program)
        finally:
            os.close(program)
        found = local_file(path) if standing is Standing.LOCAL else _served_file(path)
        same = found is not None and os.path.samestat(found, runs)
        return path if same else None

    def again(self) -> Self:
        """The same process, held once more: for who has to know of it after its connection.

        Raises:
            CallerGone, CallerChanged, CallerRefused: as ``check``.
        """
        process = self.process.again()
        try:
            other = type(self)(process, uid=self.uid, gid=self.gid)
            other.check_same_as(self)
        except BaseException:
            process.close()
            raise
        return other

    def check_same_as(self, other: "Caller") -> None:
        """Check that two callers are one process, in one program, as one user and group.

        Raises:
            CallerChanged: they are not.
        """
        if self.pinned != other.pinned:
            raise CallerChanged(f"process {self.pid} runs another program, or is another one")

    @property
    def pinned(self) -> tuple[object, ...]:
        """What it is recognised by: process, user, group and program."""
        program = self.executable
        process = (self.pid, self.process.start_time, self.uid, self.gid)
        return (*process, *program.file, program.path)

    def close(self) -> None:
        """Let the process go; whatever is asked afterwards raises ``CallerGone``."""
        self.process.close()

    def _compare(self, now: Executable, uid: int, gid: int) -> None:
        # The file may be deleted meanwhile (an update); its inode stays the process's own.
        if (now.file, now.path) != (self.executable.file, self.executable.path):
            raise CallerChanged(f"process {self.pid} runs another program")
        if (uid, gid) != (self.uid, self.gid):
            raise CallerChanged(f"process {self.pid} runs as another user or group")


def _credentials(connection: socket.socket) -> tuple[int, int, int]:
    if connection.family != socket.AF_UNIX:
        raise CallerRefused("only a unix socket says who connected")
    with looking():
        told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(told)
    if pid <= 0:
        raise CallerRefused("the process is in a pid namespace that the daemon does not see")
    return pid, uid, gid


def _process(connection: socket.socket, pid: int) -> PinnedProcess:
    try:
        pidfd = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if error.errno in _NO_PEERPIDFD:
            return _process_by_number(pid)
        # EINVAL or ENODATA, by the kernel's age: it was reaped before it was asked for.
        raise CallerGone("the process that connected is gone") from error
    os.set_inheritable(pidfd, False)
    return PinnedProcess(pid, pidfd)


def _process_by_number(pid: int) -> PinnedProcess:
    """For Linux before 6.5: whoever has the number now, unless it changes hands meanwhile."""
    first = PinnedProcess.of_pid(pid)
    try:
        second = PinnedProcess.of_pid(pid)
        second.close()
        _check_one(first, second)
        first.check_same()
    except BaseException:
        first.close()
        raise
    return first


def _check_one(first: PinnedProcess, second: PinnedProcess) -> None:
    if second.start_time != first.start_time:
        raise CallerChanged(f"process {first.pid} is another one now")


def _served_file(path: str) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except (OSError, ValueError):
        return None

"""One process of this host, held so that its number cannot come to mean another.

A process is held by its pidfd and by one descriptor of ``/proc/<pid>``. While the pidfd says that
it runs, its number belongs to it: so whatever is read through the descriptor is read of it, if the
pidfd is asked *after* the reading. Reads of an ended process fail; they never reach its successor.

The parsers are pure. Linux only, with ``/proc`` of the daemon's own pid namespace; a daemon that
is not root reads only its own user's processes.
"""

import errno
import os
import re
import select
import signal as signal_module
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from accredit_client.daemon.mounts import HOST, number_of, place_of
from accredit_client.errors import CallerChanged, CallerGone, CallerRefused

MAX_PROC_FILE_BYTES = 8 * 1024 * 1024
"""Of a file in ``/proc`` that is read: 65,536 supplementary groups, 40,000 mounts."""

_FIRST_CHUNK = 4 * 1024  # most files are smaller, and room for more takes time to make
_CHUNK = 64 * 1024
_DELETED = " (deleted)"
_NUMBER = re.compile(r"[0-9]{1,10}")
_GONE = frozenset({errno.ESRCH, errno.ENOENT})


@dataclass(frozen=True, slots=True)
class Stat:
    """What is taken from ``/proc/<pid>/stat``."""

    state: str
    """``R``, ``S``, …; ``Z`` for one that has ended."""
    parent: int
    start_time: int
    """Ticks of the clock between the boot and the process's start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What is taken from ``/proc/<pid>/status``: as whom a process runs."""

    uids: tuple[int, int, int, int]
    """Real, effective, saved, filesystem."""
    gids: tuple[int, int, int, int]
    groups: frozenset[int]
    """Supplementary."""
    capabilities: int
    """Permitted, as bits; they hold in the process's own user namespace."""
    no_new_privs: bool
    seccomp: int = 0
    """0 where no system call is filtered."""
    umask: int = 0o077


@dataclass(frozen=True, slots=True)
class Executable:
    """The program that a process runs, as far as it can be known without asking its filesystem."""

    mount: int
    """Which mount it is on."""
    inode: int
    device: int | None
    """None where its filesystem was not asked: not a local one of the daemon's own mounts."""
    path: str
    """As the kernel names it; without the note that its file was deleted."""
    deleted: bool

    @property
    def file(self) -> tuple[int, int, int | None]:
        """Which file it is, whatever it is called."""
        return self.mount, self.inode, self.device


def parse_stat(text: str) -> Stat:
    """Read ``/proc/<pid>/stat`` (proc_pid_stat(5)).

    The name in parentheses is chosen by the process and may hold spaces, parentheses and line
    feeds: fields are counted from the last closing one.

    Raises:
        CallerRefused: it does not have that form.
    """
    _, closing, after = text.rpartition(")")
    fields = after.split()
    try:
        state, parent, started = fields[0], fields[1], fields[19]
    except IndexError:
        raise CallerRefused("stat of the process has too few fields") from None
    if not closing or not _NUMBER.fullmatch(parent) or not started.isdecimal():
        raise CallerRefused("stat of the process is not of the documented form")
    return Stat(state, int(parent), int(started))


def parse_status(text: str) -> Status:
    """Read ``/proc/<pid>/status`` (proc_pid_status(5)).

    Raises:
        CallerRefused: a line is missing or not of the documented form.
    """
    try:
        return Status(
            uids=_four(_line(text, "Uid")),
            gids=_four(_line(text, "Gid")),
            groups=frozenset(map(int, _line(text, "Groups").split())),
            capabilities=int(_line(text, "CapPrm"), 16) | int(_line(text, "CapEff"), 16),
            # Since Linux 4.10; without it nothing says that it holds.
            no_new_privs=_line(text, "NoNewPrivs", "0").strip() == "1",
            seccomp=int(_line(text, "Seccomp", "0")),
            umask=int(_line(text, "Umask", "077"), 8),
        )
    except ValueError:
        raise CallerRefused("status of the process is not of the documented form") from None


def parse_effective_ids(text: str) -> tuple[int, int]:
    """Read the effective user and group from ``/proc/<pid>/status``, and nothing else of it.

    Raises:
        CallerRefused: as ``parse_status``.
    """
    try:
        return _four(_line(text, "Uid"))[1], _four(_line(text, "Gid"))[1]
    except ValueError:
        raise CallerRefused("status of the process is not of the documented form") from None


def _line(text: str, name: str, otherwise: str | None = None) -> str:
    """What stands in a line of ``status``; sought, as eight of some sixty are wanted, and often.

    None of them is the first, which has the process's own name, with its line feeds escaped.
    """
    before = f"\n{name}:"
    begin = text.find(before)
    if begin >= 0:
        return text[begin + len(before) :].partition("\n")[0]
    if otherwise is None:
        raise ValueError(name)
    return otherwise


def _four(text: str) -> tuple[int, int, int, int]:
    first, second, third, fourth = map(int, text.split())
    return first, second, third, fourth


class PinnedProcess:
    """A process that is held; give its descriptors back with ``close``. Safe for threads.

    Attributes:
        pid: its number in the daemon's pid namespace.
        start_time: in ticks since the boot; with ``pid`` it names the process until the next one.
    """

    def __init__(self, pid: int, pidfd: int) -> None:
        """Take ``pidfd`` over, and hold the process.

        Raises:
            CallerGone: it has ended.
            CallerRefused: ``pidfd`` is not of ``pid``, or the process cannot be looked at.
        """
        self.pid = pid
        self._lock = threading.RLock()
        self._pidfd, self._directory = pidfd, -1
        self._ending = select.poll()
        try:
            with looking():
                _check_number(pid, pidfd)
                self._ending.register(pidfd, select.POLLIN)
                self._directory = os.open(
                    f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                )
                self.start_time = self.stat().start_time
            # Only now it is known whose directory was opened.
            self.check_running()
        except BaseException:
            self.close()
            raise

    @classmethod
    def of_pid(cls, pid: int) -> Self:
        """Hold whatever process has this number now.

        Raises:
            CallerGone: none has.
            CallerRefused: it cannot be looked at.
        """
        with looking():
            return cls(pid, os.pidfd_open(pid))

    def again(self) -> Self:
        """The same process, held once more.

        Raises:
            CallerGone: it has ended, or is let go.
        """
        with self._lock, looking():
            if self._pidfd < 0:
                raise CallerGone(f"process {self.pid} is let go")
            return type(self)(self.pid, os.dup(self._pidfd))

    def check_running(self) -> None:
        """Check that it has not ended: what was read of it before this, was read of it.

        Raises:
            CallerGone: it has, or is closed.
        """
        with self._lock, looking():
            if self._pidfd < 0:
                raise CallerGone(f"process {self.pid} is let go")
            if self._ending.poll(0):
                raise CallerGone(f"process {self.pid} has ended")

    def check_same(self) -> None:
        """Check that it runs, and is the one that was held first.

        Raises:
            CallerGone: it has ended.
            CallerChanged: its number is another process's.
        """
        started = self.stat().start_time
        self.check_running()
        if started != self.start_time:
            raise CallerChanged(f"process {self.pid} is another one now")

    def stat(self) -> Stat:
        """Its state, parent and start."""
        return parse_stat(self.read("stat"))

    def status(self) -> Status:
        """As whom it runs."""
        return parse_status(self.read("status"))

    def effective_ids(self) -> tuple[int, int]:
        """As which user and group it runs: asked before each answer, and so read apart."""
        return parse_effective_ids(self.read("status"))

    def executable(self) -> Executable:
        """The program that it runs; waits for nobody who serves its file."""
        program = self.open("exe", os.O_PATH)
        try:
            with looking():
                mount, inode, device = file_of(program)
                path = os.readlink(f"/proc/self/fd/{program}")  # noqa: PTH115 (as the kernel says it)
        finally:
            os.close(program)
        plain = path.removesuffix(_DELETED)
        return Executable(mount, inode, device, plain, deleted=plain != path)

    def same_namespace(self, name: str) -> bool:
        """Whether it is in the daemon's own namespace of this kind, as ``user``."""
        ours = Path(f"/proc/self/ns/{name}").stat()
        with self._lock, looking():
            theirs = os.stat(f"ns/{name}", dir_fd=self._opened())
        return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)

    def same_root(self) -> bool:
        """Whether its root directory is the daemon's own, of the same mount."""
        with looking():
            ours, theirs = os.open("/", os.O_PATH), self.open("root", os.O_PATH)
            try:
                return file_of(ours) == file_of(theirs)
            finally:
                os.close(ours)
                os.close(theirs)

    def read(self, name: str) -> str:
        """One of its files in ``/proc``; bytes that are no UTF-8 become surrogates.

        Raises:
            CallerGone: it has ended.
            CallerRefused: it may not be read, or is larger than ``MAX_PROC_FILE_BYTES``.
        """
        descriptor = self.open(name, os.O_RDONLY)
        with looking():
            try:
                chunks, size, chunk_bytes = [], 0, _FIRST_CHUNK
                while size <= MAX_PROC_FILE_BYTES and (chunk := os.read(descriptor, chunk_bytes)):
                    chunks.append(chunk)
                    size, chunk_bytes = size + len(chunk), _CHUNK
            finally:
                os.close(descriptor)
        if size > MAX_PROC_FILE_BYTES:
            raise CallerRefused(f"{name} of process {self.pid} is too large")
        return os.fsdecode(b"".join(chunks))

    def open(self, name: str, flags: int) -> int:
        """Open one of its files in ``/proc``; ``root`` and ``exe`` lead where they lead.

        Raises:
            CallerGone: it has ended.
            CallerRefused: it may not be opened.
        """
        with self._lock, looking():
            return os.open(name, flags | os.O_CLOEXEC, dir_fd=self._opened())

    def signal(self, number: int) -> None:
        """Send it a signal; never to a successor of its number.

        Raises:
            CallerGone: it has ended.
        """
        with self._lock, looking():
            if self._pidfd < 0:
                raise CallerGone(f"process {self.pid} is let go")
            signal_module.pidfd_send_signal(self._pidfd, number)

    def fileno(self) -> int:
        """The pidfd, for an event loop: readable once the process has ended."""
        return self._pidfd

    def close(self) -> None:
        """Let it go."""
        with self._lock:
            held, self._pidfd, self._directory = (self._pidfd, self._directory), -1, -1
            for descriptor in held:
                if descriptor >= 0:
                    os.close(descriptor)

    def _opened(self) -> int:
        if self._directory < 0:
            raise CallerGone(f"process {self.pid} is let go")
        return self._directory


class _Looking:
    """What ``looking`` gives; not a generator, which would cost more than what it guards."""

    def __enter__(self) -> None:
        """Nothing is to be done."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not isinstance(error, OSError):
            return
        if error.errno in _GONE:
            raise CallerGone("the process has ended") from error
        raise CallerRefused(f"the process cannot be looked at: {error.strerror}") from error


_LOOKING = _Looking()


def looking() -> _Looking:
    """Say what an error of the kernel means for the process that is looked at."""
    return _LOOKING


def file_of(descriptor: int) -> tuple[int, int, int | None]:
    """Which file is open: mount, number, and device where its filesystem can be asked.

    Raises:
        CallerRefused: the kernel is older than 5.14, and only that filesystem could tell.
    """
    mount, inode = place_of(descriptor)
    if HOST.is_local(mount):
        status = os.fstat(descriptor)
        return mount, status.st_ino, status.st_dev
    if inode is None:
        raise CallerRefused("the kernel does not say which program runs without asking for it")
    return mount, inode, None


def _check_number(pid: int, pidfd: int) -> None:
    held = number_of(pidfd)
    if held == "-1":
        raise CallerGone(f"process {pid} has ended")
    if held != str(pid):
        raise CallerRefused(f"process {pid} is not the one that the kernel holds")

"""What code a process runs, observed: its code root as the process itself sees it.

In this order: the process is the one that was pinned; it is none that could write anything, nor
one that could mount something over its code; its program is not its own to write; then from its
root directory (``/proc/<pid>/root``) to the code root, directory by directory and through no link;
then the tree itself (``accredit_attestors.tree``); and the process again. Whatever of this the
agent could write ends it: a measure of what the measured can change says nothing.

What was found is remembered for each tree, selection and set of ids, so that an unchanged tree is
looked at and not read. What all this cannot see is in ``docs/node-daemon.md``.
"""

import errno
import os
import pwd
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from accredit_attestors.errors import InvalidTree, shown
from accredit_attestors.tree import (
    DEFAULT_LIMITS,
    Limits,
    Selection,
    TreeMemory,
    measure_directory,
    unreadable,
)
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.mounts import Standing, parse_mounts
from accredit_client.daemon.process import PinnedProcess
from accredit_client.daemon.writers import NOBODY, Writers, almighty, may_have_more
from accredit_client.errors import CallerChanged, Writable

MAX_REMEMBERED_ENTRIES = 500_000
"""Files and links in all remembered trees together: about 300 MB."""
MAX_CODE_ROOT_LENGTH = 1024
MAX_STEPS = 256
"""Names on the way to a program, those in links counted."""

_ACL = "system.posix_acl_access"
_NO_ACL = frozenset({errno.ENODATA, errno.EOPNOTSUPP})
_CACHES = frozenset({"__pycache__"})

_Key = tuple[int, int, Selection, Writers]


@dataclass(slots=True)
class _Tree:
    """One remembered tree, measured by one thread at a time."""

    memory: TreeMemory
    lock: threading.Lock = field(default_factory=threading.Lock)


class CodeMeasurer:
    """Measures code roots; one for all callers of a daemon, for several threads.

    A measure reads files, and waits for the measure of the same tree that is under way: call it in
    a thread of its own, never in an event loop.

    Args:
        limits: how much is measured at most.
        clock: nanoseconds since 1970, of the clock that the filesystems' times are taken from.
    """

    def __init__(
        self, *, limits: Limits = DEFAULT_LIMITS, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._trees: OrderedDict[_Key, _Tree] = OrderedDict()

    def measure(self, caller: Caller, code_root: str, selection: Selection) -> str:
        """The digest of the tree at ``code_root``, as the caller sees it: ``sha256:<hex>``.

        Args:
            caller: whose code it is.
            code_root: an absolute path without links, ``.`` or ``..``, from the caller's root.
            selection: the manifest's patterns.

        Raises:
            CallerGone, CallerChanged, CallerRefused: as ``Caller.check``.
            InvalidTree: it cannot be measured; as ``accredit_attestors.tree.measure``, or the path
                passes a link, or something that is not the kernel's own is mounted there.
            Writable: the caller could write, or have written, what is measured.
        """
        return self._measured(caller, code_root, selection, others=NOBODY)

    def measure_to_start(
        self,
        caller: Caller,
        code_root: str,
        selection: Selection,
        *,
        requester: Caller,
        program: str,
    ) -> str:
        """The same of a process that is about to become a program, as somebody has asked for.

        That one may be another user, and must not be able to change what is started either: the
        tree, nor the program, nor whatever leads there.

        Args:
            caller: the process, already as its user.
            code_root: as ``measure``.
            selection: as ``measure``.
            requester: who has asked.
            program: the absolute path of what it is to become.

        Raises:
            CallerGone, CallerChanged, CallerRefused, InvalidTree, Writable: as ``measure``.
        """
        others = _writers(requester)
        root = caller.process.open("root", os.O_PATH | os.O_DIRECTORY)
        try:
            check_way(root, program, _writers(caller).with_(others))
        finally:
            os.close(root)
        return self._measured(caller, code_root, selection, others=others)

    def _measured(
        self, caller: Caller, code_root: str, selection: Selection, *, others: Writers
    ) -> str:
        parts = check_code_root(code_root)
        own = _writers(caller)
        writers = own.with_(others)
        process = caller.process
        _check_program(caller, own)
        check_mounts(process.read("mountinfo"), code_root)
        with _opened(process, parts, writers) as descriptor:
            found = os.fstat(descriptor)
            tree = self._tree((found.st_dev, found.st_ino, selection, writers))
            with tree.lock:
                measured = measure_directory(
                    descriptor,
                    selection,
                    name=shown(code_root),
                    limits=self._limits,
                    memory=tree.memory,
                    inspection=_Inspection(writers),
                )
        self._forget()
        # It may have given itself a namespace meanwhile; and this looks whether it is the same.
        if _writers(caller) != own:
            raise CallerChanged(f"process {caller.pid} has other ids than when it was measured")
        return measured.digest

    def _tree(self, key: _Key) -> _Tree:
        with self._lock:
            if key not in self._trees:
                self._trees[key] = _Tree(TreeMemory(clock=self._clock))
            self._trees.move_to_end(key)
            return self._trees[key]

    def _forget(self) -> None:
        """Forget the trees that were not asked for the longest, but never the last one."""
        with self._lock:
            entries = sum(tree.memory.entries for tree in self._trees.values())
            while entries > MAX_REMEMBERED_ENTRIES and len(self._trees) > 1:
                _, tree = self._trees.popitem(last=False)
                entries -= tree.memory.entries


def check_code_root(code_root: str) -> tuple[str, ...]:
    """The names on the way to a code root.

    Raises:
        InvalidTree: not an absolute path in its one spelling, or the root directory itself.
    """
    parts = code_root.split("/")[1:]
    plain = code_root.startswith("/") and all(part not in {"", ".", ".."} for part in parts)
    if not plain or "\0" in code_root or len(code_root) > MAX_CODE_ROOT_LENGTH:
        raise InvalidTree(
            f"code root {shown(code_root)} must be an absolute path below the root directory, "
            "without '.', '..' and doubled or trailing slashes",
        )
    return tuple(parts)


def check_mounts(mountinfo: str, code_root: str) -> None:
    """Check that no program serves the files there (proc_pid_mountinfo(5)).

    Such a filesystem (FUSE) may say one thing to the daemon and another to the agent, and may never
    answer. It is looked for in the list, so that it is not even touched.

    Raises:
        InvalidTree: one is mounted at the code root, on the way to it, or below.
    """
    for each in parse_mounts(mountinfo):
        near = _below(code_root, each.point) or _below(each.point, code_root)
        if near and each.kind.startswith("fuse"):
            raise InvalidTree(f"{shown(each.point)} is served by a program ({shown(each.kind)})")


def check_way(root: int, path: str, writers: Writers) -> None:
    """Check that nobody of these could put another file at a path, or write the one that is there.

    Args:
        root: the directory, open, from which the path leads.
        path: absolute; links on the way are followed, and each place is looked at.
        writers: who must not.

    Raises:
        InvalidTree: nothing is there, or links lead on without end.
        Writable: they could.
    """
    ahead, way = path.split("/"), ""
    for _ in range(MAX_STEPS):
        if not ahead:
            return
        name = ahead.pop(0)
        if name == "..":
            way = way.rpartition("/")[0]
        if name in {"", ".", ".."}:
            continue
        with _directory(root, way) as here:
            _check_way(here, name, f"/{way}", writers)
            status = os.stat(name, dir_fd=here, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                target = os.readlink(name, dir_fd=here)
                ahead = target.split("/") + ahead
                way = "" if target.startswith("/") else way
                continue
            way = f"{way}/{name}".lstrip("/")
            if not ahead:
                _check(writers, status, here, name, shown(f"/{way}"))
    raise InvalidTree(f"{shown(path)} leads on without end")


@contextmanager
def _directory(root: int, way: str) -> Iterator[int]:
    how = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(way or ".", how, dir_fd=root)
    except OSError as error:
        raise unreadable(f"{shown(f'/{way}')} cannot be looked at", error) from error
    try:
        yield descriptor
    except OSError as error:
        raise unreadable(f"in {shown(f'/{way}')} something cannot be looked at", error) from error
    finally:
        os.close(descriptor)


def _below(path: str, directory: str) -> bool:
    return f"{path}/".startswith(f"{directory.rstrip('/')}/")


def _writers(caller: Caller) -> Writers:
    status = caller.status()
    reason = almighty(status)
    if reason is not None:
        raise Writable(
            f"process {caller.pid} could write its own code: {reason}",
            hint="run the agent as a user of its own, without capabilities",
        )
    if not caller.process.same_namespace("user"):
        raise Writable(
            f"process {caller.pid} could mount something over its own code: it is in a user "
            "namespace of its own",
            hint="let the daemon start the agent",
        )
    return Writers.of(status, _memberships(caller.uid, caller.gid))


def _memberships(uid: int, gid: int) -> frozenset[int]:
    """The groups that another process of the same user may have, where the host knows the user."""
    try:
        return frozenset(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
    except (KeyError, OSError):
        return frozenset()


def _check_program(caller: Caller, writers: Writers) -> None:
    if caller.standing() is Standing.OTHER:
        raise InvalidTree("the agent's program is on a filesystem that anybody may serve")
    program = caller.process.open("exe", os.O_PATH)
    try:
        _check(writers, os.fstat(program), program, "", "the agent's program")
    finally:
        os.close(program)


@contextmanager
def _opened(process: PinnedProcess, parts: tuple[str, ...], writers: Writers) -> Iterator[int]:
    """The code root, open for reading, and nothing on the way to it the agent's to change."""
    here = process.open("root", os.O_PATH | os.O_DIRECTORY)
    way = ""
    try:
        for index, part in enumerate(parts):
            _check_way(here, part, way or "/", writers)
            way = f"{way}/{part}"
            how = os.O_RDONLY if index == len(parts) - 1 else os.O_PATH
            try:
                below = os.open(
                    part, how | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here
                )
            except OSError as error:
                what = f"{shown(way)} cannot be measured: it must be a directory and no link"
                raise unreadable(what, error) from error
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def _check_way(directory: int, name: str, way: str, writers: Writers) -> None:
    """Check that the agent could not put something else under a name in a directory."""
    status = os.fstat(directory)
    if status.st_uid not in writers.uids and status.st_mode & stat.S_ISVTX:
        # Only its owner and the directory's may rename or remove what is in there (unlink(2)).
        try:
            child = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            raise unreadable(f"{shown(way)} has no {shown(name)}", error) from error
        if child.st_uid not in writers.uids:
            return
    _check(writers, status, directory, "", shown(way))


def _check(
    writers: Writers, status: os.stat_result, descriptor: int, name: str, called: str
) -> None:
    """Check what is open as ``descriptor`` or, with a ``name``, what has that name in there."""
    acl = _acl(descriptor, name) if may_have_more(status.st_mode) else None
    reason = writers.through(status, acl)
    if reason is not None:
        raise Writable(
            f"{called} could be written by the agent itself: {reason}",
            hint="code and the directories above it must belong to another user, and only that "
            "user may write them",
        )


def _acl(descriptor: int, name: str) -> bytes | None:
    # By way of /proc/self/fd: there is no getxattrat before Linux 6.13, and none for O_PATH.
    held = f"/proc/self/fd/{descriptor}"
    try:
        if name:
            return os.getxattr(f"{held}/{name}", _ACL, follow_symlinks=False)
        return os.getxattr(held, _ACL)
    except OSError as error:
        if error.errno in _NO_ACL:
            return None
        raise unreadable("an access control list cannot be read", error) from error


@dataclass(frozen=True, slots=True)
class _Inspection:
    """Refuses what the agent could write, in the tree and among what Python makes beside it."""

    writers: Writers

    def counted(self, directory: int, name: str, path: str, status: os.stat_result) -> None:
        _check(self.writers, status, directory, name, shown(path))

    def left_out(self, directory: int, name: str, path: str) -> None:
        """Caches are not measured, and Python runs what it finds in them."""
        if name not in _CACHES:
            return
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            raise InvalidTree(f"{shown(path)} must be a directory")
        self.counted(directory, name, path, status)
        cache = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
        try:
            with os.scandir(cache) as names:
                for each in names:
                    below = os.stat(each.name, dir_fd=cache, follow_symlinks=False)
                    if stat.S_ISLNK(below.st_mode):
                        raise InvalidTree(f"{shown(path)} must not have links")
                    self.counted(cache, each.name, f"{path}/{each.name}", below)
        finally:
            os.close(cache)

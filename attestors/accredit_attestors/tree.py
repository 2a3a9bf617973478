"""Measuring a tree of files: one digest over names, kinds and contents.

The measure is the SHA-256 of a listing that ``sha256sum`` and a shell can make as well
(``docs/code-digest.md`` has the script). One line for each entry, sorted by the bytes of its path::

    f <SHA-256 of the content>  <path>      a file
    x <SHA-256 of the content>  <path>      a file that its owner may execute
    l <SHA-256 of the target>   <path>      a symbolic link, not followed

In this order: walk without following any link (``dir_fd``, ``O_NOFOLLOW``: nobody can swap in a
link on the way), refuse what has no content or an ambiguous name, hash, and then check on the
finished listing that every link leads to something that was itself measured. Directories count
only through what is in them. What a tree's owner may leave out is a ``Selection``, which the
manifest carries, so that a measure can be repeated from the manifest alone.

Whoever measures the same tree again and again keeps a ``TreeMemory``: each file is looked at again
(``stat``), and read again only where it changed. Whoever must know more than the content, as who
could write it, gives an ``Inspection``. Neither changes what the digest is.
"""

import errno
import hashlib
import os
import re
import stat
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from accredit_attestors.errors import InvalidTree, Unmeasured, shown
from accredit_attestors.listing import Entry, Measured, check_links
from accredit_attestors.selection import (
    DEFAULT_EXCLUDE,
    DEFAULT_INCLUDE,
    MANIFEST_FILE_NAME,
    Selection,
)
from accredit_attestors.tree_memory import Folder, Leaf, TreeMemory, settled, state_of

__all__ = [
    "DEFAULT_EXCLUDE",
    "DEFAULT_INCLUDE",
    "DEFAULT_LIMITS",
    "MANIFEST_FILE_NAME",
    "Entry",
    "Inspection",
    "Limits",
    "Measured",
    "Selection",
    "TreeMemory",
    "check_links",
    "hash_regular_file",
    "measure",
    "measure_directory",
    "measure_file",
]

_CHUNK = 1024 * 1024
_SMALL = 64 * 1024  # bytes below which passing a file to a thread costs more than hashing it
_JOB_BYTES = 8 * 1024 * 1024
_JOBS_WAITING = 32  # each holds a directory open
_THREADS = min(4, os.cpu_count() or 1)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
NOT_THE_TREES_FAULT = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOBUFS,
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EINTR,
        errno.EAGAIN,
        errno.EBUSY,
        errno.EREMOTEIO,
        errno.EHOSTDOWN,
        errno.ENETDOWN,
    }
)

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is measured at most. A tree beyond a limit is refused, never cut."""

    entries: int = 100_000
    """Files, links and directories."""
    depth: int = 64
    """Directories inside one another."""
    file_bytes: int = 1024**3
    """Bytes of one file."""
    total_bytes: int = 4 * 1024**3
    """Bytes of all files."""


DEFAULT_LIMITS = Limits()


class Inspection(Protocol):
    """Looks at more of a tree than its content; an exception of its ends the measure."""

    def counted(self, directory: int, name: str, path: str, status: os.stat_result) -> None:
        """See a file or directory that is measured; links belong to their directory.

        Args:
            directory: an open descriptor of the directory that it is in, or is.
            name: its name in there; ``.`` for the directory itself.
            path: its path from the root.
            status: what ``lstat`` says of it.
        """

    def left_out(self, directory: int, name: str, path: str) -> None:
        """See something that an ``exclude`` pattern leaves out."""


def measure(root: Path, selection: Selection, *, limits: Limits = DEFAULT_LIMITS) -> Measured:
    """Measure what ``selection`` takes of the tree under ``root``.

    Raises:
        InvalidTree: nothing is taken; a link leads out, or to something that is not measured; a
            FIFO, socket or device; a name that is not UTF-8 or has control characters; a limit is
            passed; a file changes meanwhile or cannot be read.
    """
    try:
        # The root itself may be reached over a link: it was named by whoever asks.
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        what = f"{root} cannot be measured at {shown(str(root))}"
        raise unreadable(what, error) from error
    try:
        return measure_directory(descriptor, selection, name=str(root), limits=limits)
    finally:
        os.close(descriptor)


def measure_directory(
    descriptor: int,
    selection: Selection,
    *,
    name: str,
    limits: Limits = DEFAULT_LIMITS,
    memory: TreeMemory | None = None,
    inspection: Inspection | None = None,
) -> Measured:
    """Measure what ``selection`` takes of the tree under an open directory.

    Args:
        descriptor: of the tree's root, for reading; it stays open.
        selection: the manifest's patterns.
        name: what to call the root in messages.
        limits: how much is measured at most.
        memory: what was found last time, and keeps what is found now. With it a directory that
            changes while it is measured is refused, too.
        inspection: asked of everything new or changed in ``memory``, and each time of everything
            that is left out.

    Raises:
        InvalidTree: as ``measure``.
    """
    remembered = memory or TreeMemory()
    walk = _Walk(selection, limits, remembered, inspection, strict=memory is not None)
    last, remembered.measured = remembered.measured, None
    try:
        with walk.hashing:
            walk.directory(descriptor, "", 0)
    except OSError as error:
        at = f" at {shown(str(error.filename))}" if error.filename else ""
        raise unreadable(f"{name} cannot be measured{at}", error) from error
    same = not walk.changed and walk.folders.keys() == remembered.folders.keys()
    remembered.folders = walk.folders
    if last is not None and same:
        remembered.measured = last
        return last
    measured = _finished(walk.folders, name)
    remembered.measured = measured
    return measured


def measure_file(path: Path, *, max_bytes: int) -> str:
    """``sha256:<hex>`` of one regular file's content.

    Raises:
        InvalidTree: a link, not a regular file, too big, unreadable, or changed meanwhile.
    """
    try:
        descriptor = os.open(path, _OPEN)
        try:
            return f"sha256:{hash_regular_file(descriptor, str(path), max_bytes)[0]}"
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unreadable(f"{path} cannot be measured", error) from error


def unreadable(what: str, error: OSError) -> InvalidTree:
    """What is said of something that could not be read.

    Where whoever reads is to blame, or the disk, nothing was found out: ``Unmeasured``.
    """
    kind = Unmeasured if error.errno in NOT_THE_TREES_FAULT else InvalidTree
    return kind(f"{what}: {error.strerror}")


def hash_regular_file(descriptor: int, path: str, max_bytes: int) -> tuple[str, os.stat_result]:
    """The SHA-256 (hex) of an open regular file's content, and what ``fstat`` says of it.

    Raises:
        InvalidTree: not a regular file, too big, or changed meanwhile.
        OSError: it cannot be read.
    """
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        raise InvalidTree(f"{shown(path)} must be a regular file")
    _check_size(path, before.st_size, max_bytes)
    hashed = hashlib.sha256()
    left = before.st_size
    # One byte more than it should have: a file that grows under the reader never ends.
    while chunk := os.read(descriptor, min(_CHUNK, left + 1)):
        hashed.update(chunk)
        left -= len(chunk)
        if left < 0:
            break
    if left != 0 or state_of(os.fstat(descriptor)) != state_of(before):
        raise Unmeasured(f"{shown(path)} changed while it was measured")
    return hashed.hexdigest(), before


@dataclass(slots=True)
class _Walk:
    """What has been seen on the way down."""

    selection: Selection
    limits: Limits
    memory: TreeMemory
    inspection: Inspection | None
    strict: bool
    folders: dict[str, Folder] = field(default_factory=dict)
    changed: bool = False
    hashing: "_Hashing" = field(init=False)
    read_at: int = field(init=False)
    seen: int = 0
    size: int = 0

    def __post_init__(self) -> None:
        self.hashing = _Hashing()
        # Taken before anything is looked at: what is called settled was settled at its reading.
        self.read_at = self.memory.clock()

    def directory(self, descriptor: int, path: str, depth: int) -> None:
        if depth > self.limits.depth:
            raise InvalidTree(f"{shown(path)} is deeper than {self.limits.depth} directories")
        status = os.fstat(descriptor)
        folder = self._as_remembered(descriptor, path, status)
        if folder is None:
            self.changed = True
            if self.inspection is not None:
                self.inspection.counted(descriptor, ".", path or ".", status)
            folder = self._scanned(descriptor, path, status)
        self.folders[path] = folder
        if self.inspection is not None:
            for name, at in folder.left_out:
                self.inspection.left_out(descriptor, name, at)
        for name, at in folder.folders:
            below = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=descriptor)
            try:
                self.directory(below, at, depth + 1)
            finally:
                os.close(below)
        if self.strict and state_of(os.fstat(descriptor)) != folder.state:
            raise Unmeasured(f"{shown(path or '.')} changed while it was measured")

    def _as_remembered(self, descriptor: int, path: str, status: os.stat_result) -> Folder | None:
        """The directory as it was, if nothing in it has changed."""
        folder = self.memory.folders.get(path)
        if folder is None or not folder.settled or folder.state != state_of(status):
            return None
        for leaf in folder.leaves:
            now = os.stat(leaf.name, dir_fd=descriptor, follow_symlinks=False)
            if not leaf.settled or leaf.entry is None or state_of(now) != leaf.state:
                return None
        self._count(folder.seen)
        self._add(path, folder.size)
        return folder

    def _scanned(self, descriptor: int, path: str, status: os.stat_result) -> Folder:
        folder = Folder(state_of(status), settled(status, self.read_at))
        before = self.memory.folders.get(path)
        known = {leaf.name: leaf for leaf in before.leaves} if before else {}
        with os.scandir(descriptor) as names:
            for name in names:
                below = f"{path}/{name.name}" if path else name.name
                if self.selection.leaves_out(below):
                    folder.left_out.append((name.name, below))
                else:
                    self._entry(descriptor, folder, name.name, below, known.get(name.name))
        self.hashing.add(descriptor, [leaf for leaf in folder.leaves if leaf.entry is None])
        return folder

    def _entry(self, parent: int, folder: Folder, name: str, path: str, known: Leaf | None) -> None:
        _check_name(path)
        self._count(1)
        folder.seen += 1
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            folder.folders.append((name, path))
        elif not self.selection.includes(path):
            return
        elif stat.S_ISLNK(status.st_mode):
            folder.leaves.append(self._link(parent, name, path, status))
        elif stat.S_ISREG(status.st_mode):
            self._add(path, status.st_size)
            folder.size += status.st_size
            leaf = Leaf(name, path, state_of(status), settled(status, self.read_at))
            folder.leaves.append(leaf)
            if known and known.settled and known.state == leaf.state:
                leaf.entry = known.entry
            elif self.inspection is not None:
                self.inspection.counted(parent, name, path, status)
        else:
            raise InvalidTree(f"{shown(path)} must be a file, a directory or a link")

    def _link(self, parent: int, name: str, path: str, status: os.stat_result) -> Leaf:
        target = os.readlink(name, dir_fd=parent)
        entry = Entry("l", hashlib.sha256(os.fsencode(target)).hexdigest(), path)
        at = settled(status, self.read_at)
        return Leaf(name, path, state_of(status), at, target=target, entry=entry)

    def _count(self, entries: int) -> None:
        self.seen += entries
        if self.seen > self.limits.entries:
            raise InvalidTree(f"tree has more than {self.limits.entries} entries")

    def _add(self, path: str, size: int) -> None:
        _check_size(path, size, min(self.limits.file_bytes, self.limits.total_bytes - self.size))
        self.size += size


class _Hashing:
    """Hashes small files at once and large ones in threads, where ``hashlib`` needs no lock.

    Leaving the context waits for all that was added and raises the first error.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._jobs: deque[tuple[Future[None], int]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, _error: object, _traceback: object) -> None:
        try:
            while kind is None and self._jobs:
                self._wait_for_one()
        finally:
            if self._pool is not None:
                self._pool.shutdown(wait=True, cancel_futures=True)
            for job, directory in self._jobs:
                if job.cancelled():
                    os.close(directory)

    def add(self, directory: int, leaves: Sequence[Leaf]) -> None:
        """Have these files of an open directory hashed, each as large as its state says."""
        job: list[Leaf] = []
        size = 0
        for leaf in leaves:
            if leaf.size < _SMALL:
                _hash_leaf(directory, leaf)
                continue
            job.append(leaf)
            size += leaf.size
            if size >= _JOB_BYTES:
                self._submit(directory, job)
                job, size = [], 0
        if job:
            self._submit(directory, job)

    def _submit(self, directory: int, leaves: list[Leaf]) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="accredit-hash")
        if len(self._jobs) == _JOBS_WAITING:
            self._wait_for_one()
        held = os.dup(directory)
        self._jobs.append((self._pool.submit(_hash_leaves, held, leaves), held))

    def _wait_for_one(self) -> None:
        self._jobs.popleft()[0].result()


def _hash_leaves(directory: int, leaves: list[Leaf]) -> None:
    try:
        for leaf in leaves:
            _hash_leaf(directory, leaf)
    finally:
        os.close(directory)


def _hash_leaf(directory: int, leaf: Leaf) -> None:
    descriptor = os.open(leaf.name, _OPEN, dir_fd=directory)
    try:
        sha256, status = hash_regular_file(descriptor, leaf.path, leaf.size)
    finally:
        os.close(descriptor)
    if state_of(status) != leaf.state:
        raise Unmeasured(f"{shown(leaf.path)} changed while it was measured")
    leaf.entry = Entry("x" if status.st_mode & stat.S_IXUSR else "f", sha256, leaf.path)


def _finished(folders: dict[str, Folder], name: str) -> Measured:
    leaves = [leaf for folder in folders.values() for leaf in folder.leaves]
    if not leaves:
        raise InvalidTree(f"{name} has no file that the patterns take")
    check_links(
        {leaf.path: leaf.target for leaf in leaves if leaf.target is not None},
        files={leaf.path for leaf in leaves if leaf.target is None},
        directories=folders.keys(),
    )
    entries = [leaf.entry for leaf in leaves if leaf.entry is not None]
    return Measured(tuple(sorted(entries, key=lambda entry: entry.path.encode())))


def _check_size(path: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise InvalidTree(f"{shown(path)} has {size} bytes, at most {max_bytes} may be read")


def _check_name(path: str) -> None:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidTree(f"path {shown(path)} must be UTF-8") from None
    if _CONTROL.search(path):
        raise InvalidTree(f"path {shown(path)} must not have control characters")

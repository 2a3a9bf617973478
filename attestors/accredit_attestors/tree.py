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
"""

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from accredit_attestors.errors import InvalidTree, shown

MANIFEST_FILE_NAME = "agent.manifest.json"
"""Where an author keeps the signed manifest, which cannot measure itself."""

DEFAULT_INCLUDE = ("**",)
DEFAULT_EXCLUDE = (".git", "__pycache__", MANIFEST_FILE_NAME)
MAX_PATTERNS = 64
MAX_PATTERN_LENGTH = 256
MAX_WILDCARDS = 4  # a regular expression's time grows with its wildcards, to their power

_CHUNK = 1024 * 1024
_MAX_LINK_HOPS = 40  # as Linux
_PATTERN = re.compile(r"[^\x00-\x1f\x7f-\x9f\\\[\]{}!]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Selection:
    """Which paths of a tree are measured: included by a pattern, and excluded by none.

    ``*`` and ``?`` stand for characters other than ``/``, ``**`` for any number of directories. A
    pattern without ``/`` is compared with the name, at any depth; another with the whole path. One
    that matches a directory takes all below it.
    """

    include: tuple[str, ...] = DEFAULT_INCLUDE
    exclude: tuple[str, ...] = DEFAULT_EXCLUDE

    def __post_init__(self) -> None:
        if not self.include:
            raise InvalidTree("include must have at least one pattern")
        for name, patterns in (("include", self.include), ("exclude", self.exclude)):
            if len(patterns) > MAX_PATTERNS:
                raise InvalidTree(
                    f"{name} has {len(patterns)} patterns, the limit is {MAX_PATTERNS}"
                )
            for pattern in patterns:
                _check_pattern(pattern)

    def takes(self, path: str) -> bool:
        """Whether a file or link at ``path`` is measured."""
        return _matches_any(self.include, path) and not self.leaves_out(path)

    def leaves_out(self, path: str) -> bool:
        """Whether ``path``, and all below it, is excluded."""
        return _matches_any(self.exclude, path)


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


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the listing."""

    kind: Literal["f", "x", "l"]
    sha256: str
    path: str

    @property
    def line(self) -> bytes:
        """The line as it is hashed, with its line feed."""
        return f"{self.kind} {self.sha256}  {self.path}\n".encode()


@dataclass(frozen=True, slots=True)
class Measured:
    """A finished listing, in the order of the paths' bytes."""

    entries: tuple[Entry, ...]

    @property
    def digest(self) -> str:
        """``sha256:<hex>`` of all lines."""
        return f"sha256:{hashlib.sha256(b''.join(e.line for e in self.entries)).hexdigest()}"


def measure(root: Path, selection: Selection, *, limits: Limits = DEFAULT_LIMITS) -> Measured:
    """Measure what ``selection`` takes of the tree under ``root``.

    Raises:
        InvalidTree: nothing is taken; a link leads out, or to something that is not measured; a
            FIFO, socket or device; a name that is not UTF-8 or has control characters; a limit is
            passed; a file changes meanwhile or cannot be read.
    """
    walk = _Walk(selection, limits)
    try:
        # The root itself may be reached over a link: it was named by whoever asks.
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            walk.directory(descriptor, "", 0)
        finally:
            os.close(descriptor)
    except OSError as error:
        at = f" at {shown(str(error.filename))}" if error.filename else ""
        raise InvalidTree(f"{root} cannot be measured{at}: {error.strerror}") from error
    if not walk.entries:
        raise InvalidTree(f"{root} has no file that the patterns take")
    check_links(walk.links, files=walk.files, directories=walk.directories)
    return Measured(tuple(sorted(walk.entries, key=lambda entry: entry.path.encode())))


def measure_file(path: Path, *, max_bytes: int) -> str:
    """``sha256:<hex>`` of one regular file's content.

    Raises:
        InvalidTree: a link, not a regular file, too big, unreadable, or changed meanwhile.
    """
    try:
        descriptor = os.open(path, _OPEN)
        try:
            return f"sha256:{_hash_file(descriptor, str(path), max_bytes)[0]}"
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InvalidTree(f"{path} cannot be measured: {error.strerror}") from error


def check_links(
    links: Mapping[str, str], *, files: AbstractSet[str], directories: AbstractSet[str]
) -> None:
    """Check that each link (path → target) ends at a measured file or a walked directory.

    Raises:
        InvalidTree: a link is absolute, leaves the root, goes in circles, or passes or ends at
            something that is missing or was left out and could therefore change unseen.
    """
    for path in links:
        end = _follow(path, links, directories)
        if end not in files and end not in directories:
            raise InvalidTree(f"link {shown(path)} leads to {shown(end)}, which is not measured")


@dataclass(slots=True)
class _Walk:
    """What has been seen on the way down."""

    selection: Selection
    limits: Limits
    entries: list[Entry] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    seen: int = 0
    bytes_left: int = field(init=False)

    def __post_init__(self) -> None:
        self.bytes_left = self.limits.total_bytes

    def directory(self, descriptor: int, path: str, depth: int) -> None:
        if depth > self.limits.depth:
            raise InvalidTree(f"{shown(path)} is deeper than {self.limits.depth} directories")
        self.directories.add(path)
        with os.scandir(descriptor) as names:
            for name in names:
                below = f"{path}/{name.name}" if path else name.name
                if not self.selection.leaves_out(below):
                    self._entry(descriptor, name.name, below, depth)

    def _entry(self, parent: int, name: str, path: str, depth: int) -> None:
        _check_name(path)
        self.seen += 1
        if self.seen > self.limits.entries:
            raise InvalidTree(f"tree has more than {self.limits.entries} entries")
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            descriptor = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=parent)
            try:
                self.directory(descriptor, path, depth + 1)
            finally:
                os.close(descriptor)
        elif self.selection.takes(path):
            if stat.S_ISLNK(mode):
                self._link(parent, name, path)
            elif stat.S_ISREG(mode):
                self._file(parent, name, path)
            else:
                raise InvalidTree(f"{shown(path)} must be a file, a directory or a link")

    def _link(self, parent: int, name: str, path: str) -> None:
        target = os.readlink(name, dir_fd=parent)
        self.links[path] = target
        self.entries.append(Entry("l", hashlib.sha256(os.fsencode(target)).hexdigest(), path))

    def _file(self, parent: int, name: str, path: str) -> None:
        descriptor = os.open(name, _OPEN, dir_fd=parent)
        try:
            limit = min(self.limits.file_bytes, self.bytes_left)
            sha256, status = _hash_file(descriptor, path, limit)
        finally:
            os.close(descriptor)
        self.bytes_left -= status.st_size
        self.files.add(path)
        self.entries.append(Entry("x" if status.st_mode & stat.S_IXUSR else "f", sha256, path))


def _hash_file(descriptor: int, path: str, max_bytes: int) -> tuple[str, os.stat_result]:
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        raise InvalidTree(f"{shown(path)} must be a regular file")
    if before.st_size > max_bytes:
        raise InvalidTree(
            f"{shown(path)} has {before.st_size} bytes, at most {max_bytes} may be read"
        )
    hashed = hashlib.sha256()
    left = before.st_size
    # One byte more than it should have: a file that grows under the reader never ends.
    while chunk := os.read(descriptor, min(_CHUNK, left + 1)):
        hashed.update(chunk)
        left -= len(chunk)
        if left < 0:
            break
    if left != 0 or _state(os.fstat(descriptor)) != _state(before):
        raise InvalidTree(f"{shown(path)} changed while it was measured")
    return hashed.hexdigest(), before


def _state(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _follow(path: str, links: Mapping[str, str], directories: AbstractSet[str]) -> str:
    """Where ``path`` ends, as the kernel would walk it, but on the listing alone."""
    walked: list[str] = []
    ahead = path.split("/")[::-1]
    hops = 0
    while ahead:
        here = "/".join(walked)
        if here not in directories:
            # A link that was left out may stand there: what follows would be anybody's tree.
            raise InvalidTree(f"link {shown(path)} passes {shown(here)}, which is not measured")
        name = ahead.pop()
        if name == ".." and not walked:
            raise InvalidTree(f"link {shown(path)} leads out of the tree")
        if name == "..":
            walked.pop()
        elif name not in {"", "."}:
            walked.append(name)
        target = links.get("/".join(walked))
        if target is None:
            continue
        hops += 1
        if hops > _MAX_LINK_HOPS:
            raise InvalidTree(f"link {shown(path)} goes over more than {_MAX_LINK_HOPS} links")
        if target.startswith("/"):
            raise InvalidTree(f"link {shown(path)} leads to the absolute path {shown(target)}")
        walked.pop()
        ahead.extend(target.split("/")[::-1])
    return "/".join(walked)


def _check_name(path: str) -> None:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidTree(f"path {shown(path)} must be UTF-8") from None
    if _CONTROL.search(path):
        raise InvalidTree(f"path {shown(path)} must not have control characters")


def _check_pattern(pattern: str) -> None:
    if len(pattern) > MAX_PATTERN_LENGTH or not _PATTERN.fullmatch(pattern):
        raise InvalidTree(
            f"pattern {shown(pattern)} must have 1 to {MAX_PATTERN_LENGTH} characters, without "
            "control characters, brackets, braces, '!' and backslash"
        )
    segments = pattern.split("/")
    if any(segment in {"", ".", ".."} for segment in segments):
        raise InvalidTree(
            f"pattern {shown(pattern)} must be a relative path without empty, '.' or '..' segments"
        )
    if any("**" in segment and segment != "**" for segment in segments):
        raise InvalidTree(f"pattern {shown(pattern)} must have '**' as a whole segment")
    if len(re.findall(r"\*\*|\*", pattern)) > MAX_WILDCARDS:
        raise InvalidTree(f"pattern {shown(pattern)} has more than {MAX_WILDCARDS} wildcards")


def _matches_any(patterns: tuple[str, ...], path: str) -> bool:
    return any(_compiled(pattern).fullmatch(path) for pattern in patterns)


@lru_cache(maxsize=4 * MAX_PATTERNS)
def _compiled(pattern: str) -> re.Pattern[str]:
    *directories, last = pattern.split("/")
    anywhere = "" if directories else "(?:.*/)?"
    above = "".join("(?:[^/]+/)*" if each == "**" else _segment(each) + "/" for each in directories)
    end = ".+" if last == "**" else _segment(last)
    return re.compile(f"{anywhere}{above}{end}(?:/.*)?", re.DOTALL)


def _segment(text: str) -> str:
    wild = {"*": "[^/]*", "?": "[^/]"}
    return "".join(wild.get(character) or re.escape(character) for character in text)

"""The socket's file: made so that it is always ours, and there is always one daemon behind it.

Everybody may connect, so everybody may open the file; who is there is known by the kernel. But who
could write in the folder could put a socket of their own in its place and be taken for the daemon:
such a folder is refused. Order: folder → lock (held as long as the daemon lives; the kernel lets go
of it whatever happens) → what stands there (a dead daemon's socket is replaced; a living server, or
something that is no socket, is not) → bind beside it, and rename: the name is never missing.
"""

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from accredit_client.errors import ClientError

MODE = 0o666
FOLDER_MODE = 0o755
MAX_PATH_BYTES = 107  # sun_path, without its end


class SocketRefused(ClientError):
    """The daemon cannot listen there."""


@dataclass(frozen=True, slots=True)
class Listening:
    """A socket that listens, and the lock that says it is ours."""

    path: Path
    socket: socket.socket
    lock: int
    inode: int

    def close(self) -> None:
        """Stop listening. The file goes, unless another one stands there by now."""
        self.socket.close()
        with suppress(FileNotFoundError):
            if self.path.lstat().st_ino == self.inode:
                self.path.unlink()
        os.close(self.lock)


def listen(path: Path, *, backlog: int) -> Listening:
    """Listen at a path; the folder is made where it is missing.

    Raises:
        SocketRefused: another server is there, the folder is not safe, or something is in the way.
    """
    beside = path.with_name(path.name + ".new")
    if not path.is_absolute() or len(os.fsencode(beside)) > MAX_PATH_BYTES:
        limit = MAX_PATH_BYTES - len(".new")
        raise SocketRefused(f"socket must have an absolute path of at most {limit} bytes: {path}")
    try:
        path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        _check_folder(path.parent)
        lock = _locked(path)
        try:
            _check_free(path)
            return _bound(path, beside, lock, backlog)
        except BaseException:
            os.close(lock)
            raise
    except OSError as error:
        raise SocketRefused(
            f"cannot listen at {path}: {error.strerror}",
            hint="the daemon runs as root" if isinstance(error, PermissionError) else None,
        ) from error


def _check_folder(folder: Path) -> None:
    found = folder.stat()
    if found.st_uid not in {0, os.geteuid()}:
        raise SocketRefused(f"{folder} must belong to root or to the daemon's user")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SocketRefused(
            f"{folder} must not be writable by others",
            hint="who can write there can take the daemon's place: choose a folder of its own",
        )
    _check_way({*folder.parents, *folder.resolve().parents})


def _check_way(above: Iterable[Path]) -> None:
    """Nobody else may put another folder in the place of one on the way."""
    for each in above:
        found = each.stat()
        # In a sticky one only the owner of what is in there may rename it, and that is looked at.
        sticky = found.st_mode & stat.S_ISVTX
        others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky
        if others_write or found.st_uid not in {0, os.geteuid()}:
            raise SocketRefused(
                f"{each}, above the socket, must be writable by root or the daemon's user only",
                hint="who can rename a folder on the way can take the daemon's place",
            )


def _locked(path: Path) -> int:
    file = path.with_name(path.name + ".lock")
    lock = os.open(file, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            raise SocketRefused(f"another daemon serves at {path}") from None
        raise
    return lock


def _check_free(path: Path) -> None:
    """What stands there is nothing, or what a dead server left."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise SocketRefused(f"{path} is there and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog is somebody who lives
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return
        except BlockingIOError:
            pass
    raise SocketRefused(f"another server listens at {path}")


def _bound(path: Path, beside: Path, lock: int, backlog: int) -> Listening:
    beside.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        made.setblocking(False)
        made.bind(os.fspath(beside))
        beside.chmod(MODE)
        made.listen(backlog)
        beside.rename(path)
        return Listening(path, made, lock, path.lstat().st_ino)
    except BaseException:
        made.close()
        raise

"""The socket's file: whose it is, what it replaces, and what it never does."""

import os
import socket
from pathlib import Path

import pytest

from accredit_client.daemon.socket_file import SocketRefused, listen


def test_a_dead_daemons_socket_is_replaced(tmp_path: Path) -> None:
    """A file that nobody listens behind does not keep the next daemon out."""
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    listening = listen(path, backlog=8)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
    listening.close()
    assert not path.exists()


def test_two_daemons_are_one_too_many(tmp_path: Path) -> None:
    """The second is refused by name, the first stays; when it is gone, another may come."""
    path = tmp_path / "agent.sock"
    first = listen(path, backlog=8)
    with pytest.raises(SocketRefused, match="another daemon serves"):
        listen(path, backlog=8)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
    first.close()
    listen(path, backlog=8).close()


@pytest.mark.parametrize("backlog", [0, 8])
def test_another_server_is_not_pushed_out(tmp_path: Path, backlog: int) -> None:
    """Whoever listens there without our lock, SPIRE's agent for one, is left in peace."""
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as waiting:
        other.bind(str(path))
        other.listen(backlog)
        if not backlog:
            waiting.connect(str(path))  # the queue is full: connecting would block
        with pytest.raises(SocketRefused, match="another server listens"):
            listen(path, backlog=8)
        assert path.is_socket()


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    """What is no socket is nobody's to delete; a link is not followed."""
    path = tmp_path / "agent.sock"
    path.write_text("precious")
    with pytest.raises(SocketRefused, match="not a socket"):
        listen(path, backlog=8)
    assert path.read_text() == "precious"
    link = tmp_path / "link.sock"
    link.symlink_to(path)
    with pytest.raises(SocketRefused, match="not a socket"):
        listen(link, backlog=8)


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o757])
def test_a_folder_that_others_write_is_refused(tmp_path: Path, mode: int) -> None:
    """Who can write there could put a socket of their own in its place."""
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(SocketRefused, match="writable by others"):
        listen(folder / "agent.sock", backlog=8)
    folder.chmod(0o755)
    listen(folder / "agent.sock", backlog=8).close()


@pytest.mark.parametrize(("mode", "good"), [(0o777, False), (0o775, False), (0o1777, True)])
def test_a_folder_on_the_way_that_others_write_is_refused(
    tmp_path: Path, mode: int, *, good: bool
) -> None:
    """Who can rename the socket's folder can put one of their own there; not where it is sticky."""
    above = tmp_path / "above"
    (above / "run").mkdir(parents=True)
    (above / "run").chmod(0o755)
    above.chmod(mode)
    if good:
        listen(above / "run" / "agent.sock", backlog=8).close()
    else:
        with pytest.raises(SocketRefused, match="above the socket"):
            listen(above / "run" / "agent.sock", backlog=8)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_a_folder_on_the_way_that_is_another_users_is_refused(tmp_path: Path) -> None:
    """Whoever it is has all rights in it."""
    above = tmp_path / "above"
    (above / "run").mkdir(parents=True)
    os.chown(above, 61001, -1)
    with pytest.raises(SocketRefused, match="above the socket"):
        listen(above / "run" / "agent.sock", backlog=8)


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    """Readable by all, since all connect; writable by its owner."""
    path = tmp_path / "run" / "accredit" / "agent.sock"
    before = os.umask(0o022)
    try:
        listening = listen(path, backlog=8)
    finally:
        os.umask(before)
    assert path.parent.stat().st_mode & 0o777 == 0o755
    assert path.stat().st_mode & 0o777 == 0o666
    listening.close()


@pytest.mark.parametrize("path", [Path("agent.sock"), Path("/run") / ("x" * 104)])
def test_a_path_that_cannot_be_is_refused(path: Path) -> None:
    """Relative, or longer than the kernel takes."""
    with pytest.raises(SocketRefused, match="absolute path of at most 103 bytes"):
        listen(path, backlog=8)


def test_the_next_daemons_socket_is_not_removed(tmp_path: Path) -> None:
    """At its end a daemon removes its own file only."""
    path = tmp_path / "agent.sock"
    listening = listen(path, backlog=8)
    path.unlink()
    path.write_text("somebody else's")
    listening.close()
    assert path.exists()

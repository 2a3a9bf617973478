"""Filesystems that somebody serves: never waited for, and not believed where anybody may serve."""

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.calling import AGENT_UID, as_root, calling
from support.fuse import needs_fuse, served

from accredit_attestors.errors import InvalidTree
from accredit_attestors.tree import Selection
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.measuring import CodeMeasurer
from accredit_client.daemon.mounts import (
    HOST,
    HostMounts,
    Mount,
    Standing,
    local_file,
    parse_mounts,
    place_of,
    standing_of,
)
from accredit_client.errors import CallerChanged

SLEEP = Path("/bin/sleep")
PATIENCE = 10.0


def at_once(filesystem: Any, ask: Callable[[], Any]) -> Any:
    """What is asked, answered while the filesystem is silent, and without a question to it."""
    found: list[Any] = []

    def asking() -> None:
        try:
            found.append(ask())
        except BaseException as error:  # noqa: BLE001 (raised again in the test's own thread)
            found.append(error)

    with filesystem.silent():
        thread = threading.Thread(target=asking)
        thread.start()
        thread.join(PATIENCE)
        answered, asked = bool(found), list(filesystem.asked)
    thread.join()
    assert answered, "it waits for the filesystem"
    assert not asked
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


@needs_fuse
def test_a_program_on_a_silent_filesystem_is_pinned_and_checked() -> None:
    """Nothing is asked there; what could only be told from there is not said of the process."""
    with served(SLEEP.read_bytes()) as filesystem, calling() as process:
        process.tell(f"exec {filesystem.program}")

        def ask() -> frozenset[str]:
            with closing(Caller.of(process.connection)) as caller, closing(caller.again()) as again:
                caller.check()
                caller.check_same_as(again)
                assert caller.executable.path == str(filesystem.program)
                assert not caller.local
                assert caller.standing() is Standing.OTHER
                return caller.selectors()

        said = at_once(filesystem, ask)
        assert f"unix:uid:{AGENT_UID}" in said
        assert not [each for each in said if each.startswith(("unix:path:", "unix:sha256:"))]


@needs_fuse
def test_a_program_on_a_silent_filesystem_is_not_measured(tmp_path: Path) -> None:
    """Refused before anything is asked there, however good the code beside it is."""
    (tmp_path / "main.py").write_text("print('signed')\n")
    with served(SLEEP.read_bytes()) as filesystem, calling() as process:
        process.tell(f"exec {filesystem.program}")
        with closing(Caller.of(process.connection)) as caller:
            measure = CodeMeasurer().measure
            with pytest.raises(InvalidTree, match="anybody may serve"):
                at_once(filesystem, lambda: measure(caller, str(tmp_path), Selection()))


@needs_fuse
def test_a_path_that_leads_to_a_silent_filesystem_is_not_followed() -> None:
    """Neither to it, nor by a link, nor below it: a process in mounts of its own can claim any."""
    with served(SLEEP.read_bytes()) as filesystem:
        link = filesystem.point.parent / f"{filesystem.point.name}-link"
        link.symlink_to(filesystem.point)
        try:
            for path in (filesystem.program, filesystem.point, link / "program"):
                assert at_once(filesystem, lambda path=path: local_file(str(path))) is None
        finally:
            link.unlink()
    assert local_file(str(filesystem.point.parent)) is not None


@needs_fuse
def test_another_program_on_such_a_filesystem_has_changed() -> None:
    """It is told by its mount and number: leaving it for a local one is noticed."""
    with (
        served(SLEEP.read_bytes()) as filesystem,
        calling() as process,
        closing(Caller.of(process.connection)) as caller,
    ):
        assert caller.local
        process.tell(f"exec {filesystem.program}")
        with pytest.raises(CallerChanged, match="another program"):
            at_once(filesystem, caller.check)


OVERLAID = """
set -e
mount -t tmpfs none /mnt
mkdir /mnt/lower /mnt/upper /mnt/work /mnt/merged
cp /bin/sleep /mnt/lower/sleep
mount -t overlay none -o lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work /mnt/merged
exec python3 -c "$1" /mnt/merged/sleep
"""
CONNECTING = """
import os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect("\\0{}")
if sys.stdin.readline():
    os.execv(sys.argv[1], [sys.argv[1], "1000"])
"""


@contextmanager
def apart(*command: str) -> Iterator[tuple[socket.socket, Callable[[], None]]]:
    """A process in namespaces of its own that called, and what has it run its other program."""
    address = f"accredit-test-{os.urandom(8).hex()}"
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as resources:
        listener.bind("\0" + address)
        listener.listen()
        listener.settimeout(PATIENCE)
        process = subprocess.Popen(
            ["unshare", *command, CONNECTING.format(address), str(SLEEP)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        resources.callback(process.communicate)
        resources.callback(process.kill)
        connection = resources.enter_context(listener.accept()[0])

        def run_another() -> None:
            assert process.stdin
            assert process.stdout
            process.stdin.write("\n")
            process.stdin.flush()
            name = Path(f"/proc/{process.pid}/comm")
            while name.read_text() != "sleep\n":
                os.sched_yield()

        yield connection, run_another


@as_root
def test_a_program_in_mounts_of_its_own_is_known_as_any_other() -> None:
    """A hardened service: its mounts are not the host's, its program is on a local filesystem."""
    with apart("-m", "python3", "-c") as (connection, run_another):
        with closing(Caller.of(connection)) as caller:
            assert HOST.kind(caller.executable.mount) is None
            assert caller.standing() is Standing.LOCAL
            caller.check()
            said = caller.selectors()
            run_another()
            with pytest.raises(CallerChanged, match="another program"):
                caller.check()
        assert f"unix:path:{caller.executable.path}" in said
        assert [each for each in said if each.startswith("unix:sha256:")]


@as_root
@pytest.mark.parametrize(("namespaces", "known"), [("-m", True), ("-Urm", False)])
def test_an_overlay_is_whose_who_could_lay_it(namespaces: str, *, known: bool) -> None:
    """Root's is local; a user namespace's may lie over files that anybody serves."""
    with apart(namespaces, "sh", "-c", OVERLAID, "sh") as (connection, run_another):
        run_another()
        with closing(Caller.of(connection)) as caller:
            assert caller.executable.path == "/mnt/merged/sleep"
            assert caller.standing() is (Standing.LOCAL if known else Standing.OTHER)
            said = caller.selectors()
    assert any(each.startswith("unix:sha256:") for each in said) is known


LINES = (
    "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
    "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n"
    "30 27 0:30 / /mnt/a\\040b\\134c rw master:1 - fuse.sshfs host:/x rw,allow_other\n"
)


def test_mounts_are_read() -> None:
    """With optional fields or without, and with what is escaped in a path."""
    assert parse_mounts(LINES) == (
        Mount(22, "/proc", "proc"),
        Mount(27, "/", "ext4"),
        Mount(30, "/mnt/a b\\c", "fuse.sshfs"),
    )


@pytest.mark.parametrize("end", ["\x0c", "\x0b", "\r", "\x1c", "\x85", "\u2028"])
def test_a_name_ends_no_line_of_the_list(end: str) -> None:
    """The kernel escapes line feeds and blanks alone; whoever may mount names the point."""
    point = f"/mnt/a{end}b"
    line = f"31 27 0:31 / {point} rw - fuse.sshfs host:/x rw\n"
    assert parse_mounts(LINES + line)[3:] == (Mount(31, point, "fuse.sshfs"),)


@as_root
def test_a_mount_with_a_strange_name_keeps_nobody_out(tmp_path: Path) -> None:
    """The list of the host's mounts is read for everybody: a user's mount must not break it."""
    point = tmp_path / "a\x0cb"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "test", point], check=True)
    try:
        with calling() as process, closing(Caller.of(process.connection)) as caller:
            assert caller.local
    finally:
        subprocess.run(["umount", point], check=True)


@pytest.mark.parametrize(
    ("kind", "standing"),
    [
        ("ext4", Standing.LOCAL),
        ("overlay", Standing.LOCAL),
        ("tmpfs", Standing.LOCAL),
        ("nfs4", Standing.NETWORK),
        ("cifs", Standing.NETWORK),
        ("virtiofs", Standing.NETWORK),
        ("fuse", Standing.OTHER),
        ("fuse.sshfs", Standing.OTHER),
        ("fuseblk", Standing.OTHER),
        ("ext44", Standing.OTHER),
        ("of-tomorrow", Standing.OTHER),
        (None, Standing.OTHER),
    ],
)
def test_whose_word_a_filesystem_is(kind: str | None, standing: Standing) -> None:
    """What nobody here has heard of is anybody's."""
    assert standing_of(kind) is standing


@needs_fuse
def test_a_new_mount_is_seen() -> None:
    """The list is read again when it is another, and not otherwise."""
    mounts = HostMounts()
    with SLEEP.open("rb") as file:
        here, number = place_of(file.fileno())
        assert number == os.fstat(file.fileno()).st_ino
    assert mounts.is_local(here)
    with served(b"x") as filesystem:
        point = os.open(filesystem.point, os.O_PATH)
        try:
            mount, _ = place_of(point)
            assert mounts.kind(mount) == "fuse"
            assert not mounts.is_local(mount)
        finally:
            os.close(point)
    assert mounts.kind(mount) is None

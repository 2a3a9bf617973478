"""Callers: a process is pinned at its connecting, and refused once it is not the same any more."""

import errno
import hashlib
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.calling import AGENT_GID, AGENT_UID, Calling, as_root, calling

from accredit_client.daemon import callers as callers_module
from accredit_client.daemon import executables as executables_module
from accredit_client.daemon import process as process_module
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.executables import Executables
from accredit_client.daemon.process import PinnedProcess, parse_stat, parse_status
from accredit_client.errors import CallerChanged, CallerGone, CallerRefused

SLEEP = "/bin/sleep"
CAT = "/bin/cat"
NEXT_PID = Path("/proc/sys/kernel/ns_last_pid")
UNKNOWN_OPTION = 9999


@contextmanager
def pinned(**more: object) -> Iterator[tuple[Calling, Caller]]:
    """A process that called, and is pinned."""
    with calling(**more) as process, closing(Caller.of(process.connection)) as caller:  # type: ignore[arg-type]
        yield process, caller


STAT = "4242 ({}) S 17 4242 4242 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 123456 1 2 3 4 5\n"


@pytest.mark.parametrize("name", ["python3", "a b", ") R 1 (", "((", "))) Z 1 1 1", "a\nb", ""])
def test_a_process_cannot_forge_its_stat(name: str) -> None:
    """Whatever a process calls itself, its parent and start are where the kernel wrote them."""
    stat = parse_stat(STAT.format(name))
    assert (stat.state, stat.parent, stat.start_time) == ("S", 17, 123456)


@pytest.mark.parametrize(
    "text", ["", "4242 (x) S 17", "no parentheses " * 30, "1 (x) S x" + " 0" * 30]
)
def test_another_form_of_stat_is_refused(text: str) -> None:
    """What is not of the documented form is an error."""
    with pytest.raises(CallerRefused):
        parse_stat(text)


def test_status_is_read() -> None:
    """All four ids of each kind, the groups, the capabilities and the bit that stays."""
    text = (
        "Name:\tUid:\t0\t0\t0\t0\\nUid:\t0\t0\t0\t0\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n"
        "Groups:\t9 10 \nCapPrm:\t0000000000000400\n"
        "CapEff:\t0000000000000001\nNoNewPrivs:\t1\n"
    )
    status = parse_status(text)
    assert status.uids == (1, 2, 3, 4)
    assert status.gids == (5, 6, 7, 8)
    assert status.groups == {9, 10}
    assert status.capabilities == 0x401
    assert status.no_new_privs
    for line in ("Uid", "Gid", "Groups", "CapPrm", "CapEff"):
        with pytest.raises(CallerRefused):
            parse_status(text.replace(f"{line}:", "Other:"))
    with pytest.raises(CallerRefused):
        parse_status(text.replace("1\t2\t3\t4", "1\t2\t3"))
    assert not parse_status(text.replace("NoNewPrivs", "Other")).no_new_privs
    assert parse_status(text.removesuffix("\n")) == status


def test_a_caller_is_who_connected() -> None:
    """Number, user and group are the kernel's word, and hold while the process stays the same."""
    here, there = socket.socketpair(socket.AF_UNIX)
    with here, there, closing(Caller.of(here)) as caller:
        assert (caller.pid, caller.uid, caller.gid) == (os.getpid(), os.geteuid(), os.getegid())
        caller.check()
    with pytest.raises(CallerGone):
        caller.check()


@as_root
def test_what_is_said_of_a_caller() -> None:
    """Its user, group, supplementary groups, program and the SHA-256 of the program."""
    with pinned(groups=[61003, 61004]) as (_, caller):
        assert (caller.uid, caller.gid) == (AGENT_UID, AGENT_GID)
        program = Path(os.path.realpath(caller.executable.path))
        sha256 = hashlib.sha256(program.read_bytes()).hexdigest()
        said = caller.selectors()
        assert {each for each in said if each.startswith("unix:")} == {
            f"unix:uid:{AGENT_UID}",
            f"unix:gid:{AGENT_GID}",
            "unix:supplementary_gid:61003",
            "unix:supplementary_gid:61004",
            f"unix:path:{program}",
            f"unix:sha256:{sha256}",
        }


def test_a_caller_that_ends_is_gone() -> None:
    """Dead, and dead but not yet reaped, and asked for anything at all."""
    with pinned(uid=0) as (process, caller):
        process.process.kill()
        os.waitid(os.P_PID, process.process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(CallerGone):
            caller.check()
        process.end()
        for question in (caller.check, caller.selectors, caller.status):
            with pytest.raises(CallerGone):
                question()


def test_a_caller_that_ends_before_it_is_asked_for_is_refused() -> None:
    """Its connection is still there, and waits for an answer; there is nobody to pin."""
    with calling(uid=0) as process:
        process.end()
        with pytest.raises(CallerGone):
            Caller.of(process.connection)


def test_a_connection_handed_on_is_still_the_ended_ones() -> None:
    """Whoever inherited the connection of a process that ended is not taken for it."""
    with pinned(uid=0) as (process, caller):
        process.tell("fork")  # answered by the child, which has the connection, too
        process.process.wait()
        with pytest.raises(CallerGone):
            caller.check()
        with pytest.raises(CallerGone):
            Caller.of(process.connection)


def test_a_caller_that_runs_another_program_has_changed() -> None:
    """The same process, number and start; another program."""
    with pinned(uid=0) as (process, caller):
        process.tell(f"exec {SLEEP}")
        for question in (caller.check, caller.selectors, caller.status):
            with pytest.raises(CallerChanged, match="another program"):
                question()


@as_root
def test_a_caller_that_becomes_another_user_has_changed() -> None:
    """What it was when it connected is not what it is."""
    with pinned(uid=0) as (process, caller):
        process.tell(f"setuid {AGENT_UID}")
        with pytest.raises(CallerChanged, match="another user"):
            caller.check()


def test_what_is_read_of_a_process_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in /proc beyond the bound is refused, and not read to its end."""
    with closing(PinnedProcess.of_pid(os.getpid())) as process:
        size = len(os.fsencode(process.read("mountinfo")))
        monkeypatch.setattr(process_module, "MAX_PROC_FILE_BYTES", size - 1)
        with pytest.raises(CallerRefused, match="too large"):
            process.read("mountinfo")
        monkeypatch.setattr(process_module, "MAX_PROC_FILE_BYTES", size)
        assert process.read("mountinfo")


def test_a_caller_may_call_itself_anything() -> None:
    """A name with parentheses and spaces changes nothing."""
    with pinned(uid=0) as (process, caller):
        process.tell("name ) S 1 (x")
        caller.check()


def _take_number(pid: int) -> subprocess.Popen[bytes] | None:
    """A process with this very number, if nobody else is faster."""
    for _ in range(50):
        NEXT_PID.write_text(str(pid - 1))
        other = subprocess.Popen([SLEEP, "1000"])
        if other.pid == pid:
            return other
        other.kill()
        other.wait()
    return None


@as_root
def test_a_number_that_is_used_again_is_not_the_caller() -> None:
    """Another process with the caller's number is not the caller, nor pinned in its place."""
    with pinned(uid=0) as (process, caller):
        process.end()
        other = _take_number(caller.pid)
        if other is None:
            pytest.skip("other processes were always faster to take the number")
        try:
            with closing(PinnedProcess.of_pid(caller.pid)) as taken:
                taken.check_same()  # the number is in use
            with pytest.raises(CallerGone):
                caller.check()
            with pytest.raises(CallerGone):
                Caller.of(process.connection)
        finally:
            other.kill()
            other.wait()


def test_an_older_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the handle of the connection the process is held by its number, and checked twice."""
    monkeypatch.setattr(callers_module, "_SO_PEERPIDFD", UNKNOWN_OPTION)
    with pinned(uid=0) as (process, caller):
        assert caller.pid == process.process.pid
        caller.check()
        process.end()
        with pytest.raises(CallerGone):
            caller.check()
        with pytest.raises(CallerGone):
            Caller.of(process.connection)


def test_an_older_kernel_and_a_number_that_changes_hands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two looks that see two starts are a refusal."""
    monkeypatch.setattr(callers_module, "_SO_PEERPIDFD", UNKNOWN_OPTION)
    starts = iter(range(100))
    monkeypatch.setattr(
        PinnedProcess,
        "stat",
        lambda _: parse_stat(STAT.format("x")[:-1].replace("123456", str(next(starts)))),
    )
    here, there = socket.socketpair(socket.AF_UNIX)
    with here, there, pytest.raises(CallerChanged):
        Caller.of(here)


class Telling:
    """A connection whose kernel answers as it is told to."""

    family = socket.AF_UNIX

    def __init__(self, pid: int, answer: int | OSError) -> None:
        self.pid, self.answer = pid, answer

    def getsockopt(self, _level: int, _option: int, size: int = 0) -> object:
        """SO_PEERCRED, or the answer."""
        if size:
            return callers_module._UCRED.pack(self.pid, 0, 0)
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENODATA, errno.EPERM, errno.EBADF])
def test_any_error_of_the_kernel_is_a_refusal(number: int) -> None:
    """EINVAL says that the process is gone; nothing falls back to its number."""
    with pytest.raises(CallerRefused):
        Caller.of(Telling(os.getpid(), OSError(number, "no")))  # type: ignore[arg-type]


def test_a_handle_of_another_process_is_refused() -> None:
    """Number and handle must be of one process."""
    with pytest.raises(CallerRefused, match="not the one"):
        Caller.of(Telling(1, os.pidfd_open(os.getpid())))  # type: ignore[arg-type]


@pytest.mark.parametrize("pid", [0, -1])
def test_a_process_that_is_out_of_sight_is_refused(pid: int) -> None:
    """The kernel tells no number for a process of a pid namespace above ours."""
    with pytest.raises(CallerRefused, match="namespace"):
        Caller.of(Telling(pid, 0))  # type: ignore[arg-type]


def test_only_a_unix_socket_has_callers() -> None:
    """TCP says nothing of processes."""
    with socket.socket() as connection, pytest.raises(CallerRefused):
        Caller.of(connection)


def test_a_program_that_is_replaced_on_disk_stays_the_callers(tmp_path: Path) -> None:
    """An update of the interpreter ends no caller; its path is said of it no more."""
    program = tmp_path / "sleep"
    program.write_bytes(Path(SLEEP).read_bytes())
    program.chmod(0o755)
    with calling(uid=0) as process:
        process.tell(f"exec {program}")
        with closing(Caller.of(process.connection)) as caller:
            assert f"unix:path:{program}" in caller.selectors()
            program.unlink()
            caller.check()
        with closing(Caller.of(process.connection)) as caller:
            said = caller.selectors()
            assert not [each for each in said if each.startswith("unix:path:")]
            assert [each for each in said if each.startswith("unix:sha256:")]


def test_a_program_that_moves_has_changed(tmp_path: Path) -> None:
    """Device and inode are not enough: the path is pinned, too."""
    program = tmp_path / "sleep"
    program.write_bytes(Path(SLEEP).read_bytes())
    program.chmod(0o755)
    with calling(uid=0) as process:
        process.tell(f"exec {program}")
        with closing(Caller.of(process.connection)) as caller:
            program.rename(tmp_path / "elsewhere")
            with pytest.raises(CallerChanged):
                caller.selectors()


@as_root
def test_a_path_in_a_mount_namespace_is_not_believed(tmp_path: Path) -> None:
    """Who mounts a program of its own over another one does not get that one's path."""
    program = tmp_path / "mine"
    program.write_bytes(Path(CAT).read_bytes())
    program.chmod(0o755)
    covered = os.path.realpath(SLEEP)
    script = f"mount --bind {program} {covered} && exec {covered}"
    command = ["unshare", "--mount", "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(b"running\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"running\n"
            held = PinnedProcess.of_pid(process.pid)
            with closing(Caller(held, uid=0, gid=0)) as caller:
                said = caller.selectors()
            assert caller.executable.path == covered
            assert not [each for each in said if each.startswith("unix:path:")]
            sha256 = hashlib.sha256(program.read_bytes()).hexdigest()
            assert f"unix:sha256:{sha256}" in said
        finally:
            process.kill()


def test_a_program_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is older than timestamps are coarse; a larger one than the bound has no SHA-256."""
    program = tmp_path / "program"
    program.write_bytes(b"x" * 100)
    written = program.stat().st_ctime_ns
    reads: list[str] = []
    hashing = executables_module.hash_regular_file

    def noted(descriptor: int, path: str, max_bytes: int) -> tuple[str, os.stat_result]:
        reads.append(path)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return hashing(descriptor, path, max_bytes)

    monkeypatch.setattr(executables_module, "hash_regular_file", noted)
    now = [written]
    programs = Executables(clock=lambda: now[0])
    with program.open("rb") as file:
        expected = hashlib.sha256(b"x" * 100).hexdigest()
        for moment, count in ((written, 1), (written, 2), (written + 10**10, 3), (written, 3)):
            now[0] = moment
            assert programs.sha256(file.fileno()) == expected
            assert len(reads) == count
        monkeypatch.setattr(executables_module, "MAX_EXECUTABLE_BYTES", 99)
        assert programs.sha256(file.fileno()) is None
        monkeypatch.setattr(executables_module, "MAX_EXECUTABLE_BYTES", 100)
        assert programs.sha256(file.fileno()) == expected

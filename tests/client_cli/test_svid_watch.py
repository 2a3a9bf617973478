"""``accredit svid watch`` as an operator runs it: real processes, real signals."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from client_cli.test_run import ACCREDIT
from client_cli.workplace import Agent, World, accredit, mode_of, succeed

from accredit_client.cli import reload
from accredit_client.cli.problems import Failed, NoCommand, WrongUsage
from accredit_client.cli.reload import pid_of, reload_of
from accredit_client.files import read_folder

LISTENER = (
    "import signal; signal.signal(signal.SIGHUP, lambda *_: print('told', flush=True));"
    "print('ready', flush=True)\nwhile True: signal.pause()"
)


def line(stream: IO[str] | None) -> str:
    """One line of a process."""
    assert stream is not None
    return stream.readline()


@contextmanager
def listener(pid_file: Path) -> Iterator["subprocess.Popen[str]"]:
    """A server that reads its files again on SIGHUP, and its pid file."""
    process = subprocess.Popen([sys.executable, "-c", LISTENER], stdout=subprocess.PIPE, text=True)
    try:
        assert line(process.stdout) == "ready\n"
        pid_file.write_text(f"{process.pid}\n/data\n5432\n")
        pid_file.chmod(0o600)
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def watching(agent: Agent, out: Path, *more: str | Path) -> Iterator["subprocess.Popen[str]"]:
    """``accredit svid watch`` under way."""
    process = subprocess.Popen(
        [*ACCREDIT, "svid", "watch", *agent.arguments, "--out", str(out), *map(str, more)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_files_are_kept_and_a_server_is_told(world: World, tmp_path: Path) -> None:
    """First the whole set, then a signal; a revocation makes another CRL and another signal."""
    agent, out, pid_file = world.new_agent(), tmp_path / "out", tmp_path / "server.pid"
    with (
        listener(pid_file) as server,
        watching(agent, out, "--signal", "HUP", "--pid-file", pid_file) as process,
    ):
        assert line(process.stderr).startswith("svid.pem, bundle.pem, crl.pem of spiffe://")
        assert line(process.stderr) == f"SIGHUP to process {server.pid}\n"
        assert line(server.stdout) == "told\n"
        assert mode_of(out) == 0o700
        assert {mode_of(each.resolve()) for each in out.glob("*.pem")} == {0o600}
        assert (out / "svid.pem").read_text().count("BEGIN CERTIFICATE") == 2
        before = (out / "crl.pem").read_bytes()

        succeed("revoke", "agent", world.attested()[0].name, "--reason", "r")
        assert line(process.stderr).startswith("crl.pem of spiffe://")
        assert line(server.stdout) == "told\n"
        assert (out / "crl.pem").read_bytes() != before

        assert line(process.stderr) == f"SIGHUP to process {server.pid}\n"

        process.send_signal(signal.SIGTERM)
        assert line(process.stderr).startswith("stopped; ")
        assert process.wait(30) == 0


def test_one_that_was_killed_goes_on_without_a_token(world: World, tmp_path: Path) -> None:
    """A whole set is left, and the next run takes it up: the same instance, renewed."""
    agent, out = world.new_agent(), tmp_path / "out"
    with watching(agent, out) as process:
        line(process.stderr)
        process.kill()
    left = read_folder(out).identity.svid
    agent.join_token_file.unlink()
    with watching(agent, out) as process:
        assert line(process.stderr).startswith("svid.pem")
        taken_up = read_folder(out).identity.svid
    assert (taken_up.instance, taken_up.serial != left.serial) == (left.instance, True)


def test_a_revoked_one_ends_and_says_so(world: World, tmp_path: Path) -> None:
    """Files that nobody should trust are not kept fresh: the exit code is 1."""
    agent, out = world.new_agent(), tmp_path / "out"
    with watching(agent, out, "--no-crls") as process:
        line(process.stderr)
        assert not (out / "crl.pem").exists()
        succeed("revoke", "agent", agent.name, "--reason", "leaked")
        assert process.stderr is not None
        err = process.stderr.read()  # to its end; communicate would miss what is buffered
        assert process.wait(30) == 1
    assert "is revoked since" in err
    assert "worth nothing any more" in err
    assert "Traceback" not in err


def test_what_cannot_work_spends_no_join_token(world: World, tmp_path: Path) -> None:
    """Options that do not fit, a command that is not there, a folder that others read."""
    agent, shared = world.new_agent(), tmp_path / "shared"
    shared.mkdir(mode=0o755)
    shared.chmod(0o755)
    out = tmp_path / "out"
    for code, words, arguments in (
        (2, "go together", ("--out", out, "--signal", "HUP")),
        (2, "not both", ("--out", out, "--exec", "true", "--signal", "HUP", "--pid-file", out)),
        (2, "one of HUP", ("--out", out, "--signal", "KILL", "--pid-file", out)),
        (127, "was not found", ("--out", out, "--exec", "no-such-command -x")),
        (1, "must be closed", ("--out", shared)),
        (1, "no group", ("--out", out, "--group", "no-such-group")),
    ):
        result = accredit("svid", "watch", *agent.arguments, *arguments)
        assert (result.code, words in result.err) == (code, True), result.err
    succeed("svid", "fetch", *agent.arguments, "--out", out)


@pytest.mark.parametrize("text", ["2", "4194304\n", "77\n/data\n5432\n", " 77 \n"])
def test_which_processes_are_named(text: str) -> None:
    """The first line, as servers write it."""
    assert pid_of(text) in {2, 77, 4194304}


@pytest.mark.parametrize(
    "text",
    ["", "0", "1", "-1", "-77", "+77", "7 7", "077", "4194305", "\n77", "x", "\u0667\u0667", "own"],
)
def test_which_processes_are_not(text: str) -> None:
    """Nobody, init, groups, ourselves, and whatever is no number."""
    with pytest.raises(Failed):
        pid_of(str(os.getpid()) if text == "own" else text)


def test_a_signal_goes_to_a_living_process_of_a_sound_file_only(tmp_path: Path) -> None:
    """One that has ended, a file that others write, a folder, a FIFO: refused, with the reason."""
    pid_file = tmp_path / "pid"
    tell = reload_of("SIGHUP", pid_file, None)
    assert tell is not None
    with pytest.raises(Failed, match="cannot be read"):
        tell()
    with listener(pid_file) as process:
        assert tell() == f"SIGHUP to process {process.pid}"
        assert line(process.stdout) == "told\n"
        for mode in (0o620, 0o602):
            pid_file.chmod(mode)
            with pytest.raises(Failed, match="only its owner"):
                tell()
        pid_file.chmod(0o644)
    with pytest.raises(Failed, match="no process"):
        tell()
    pid_file.unlink()
    os.mkfifo(pid_file, 0o600)
    with pytest.raises(Failed, match="only its owner"):
        tell()


@pytest.mark.skipif(os.geteuid() != 0, reason="files of another user are made by root")
def test_who_owns_the_file_names_only_his_own_processes(tmp_path: Path) -> None:
    """Else a server's account could have any process of the host signalled by root."""
    pid_file = tmp_path / "pid"
    tell = reload_of("HUP", pid_file, None)
    assert tell is not None
    with listener(pid_file) as process:
        os.chown(pid_file, 65534, -1)
        with pytest.raises(Failed, match="not of the user"):
            tell()
        os.chown(pid_file, 0, -1)
        assert str(process.pid) in tell()


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell, a bounded time with everything that was started, and the exit code counts."""
    out = tmp_path / "out"

    def do(command: str) -> str:
        tell = reload_of(None, None, command)
        assert tell is not None
        return tell()

    assert do(f"touch '{out}' ;") == "touch was run"  # a file named ";", and no second command
    assert out.exists()
    Path(";").unlink()
    with pytest.raises(Failed, match="failed with 1"):
        do("false")
    for wrong, error in (("'", WrongUsage), ("", NoCommand), ("no-such-command", NoCommand)):
        with pytest.raises(error):
            reload_of(None, None, wrong)
    monkeypatch.setattr(reload, "COMMAND_TIMEOUT", 0.1)
    with pytest.raises(Failed, match="more than"):
        do("sleep 60")
    assert reload_of(None, None, None) is None

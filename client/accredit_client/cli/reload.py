"""Telling a program that its files are new: by a signal, or by a command.

The process is the one whose number stands in a file, as servers write it. Who may write that file
decides who gets the signal: so it must be a living process, never 0, 1 or a group, not this one,
and of the file's owner unless that is root or us. A command is started without a shell, for a
bounded time.
"""

import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from accredit_client.cli.problems import Failed, NoCommand, WrongUsage

COMMAND_TIMEOUT = 30.0  # seconds that a command may take
MAX_PID = 4_194_304  # Linux's own limit (PID_MAX_LIMIT)

_MAX_PID_FILE_BYTES = 4096
_SIGNALS = {"HUP": signal.SIGHUP, "USR1": signal.SIGUSR1, "USR2": signal.SIGUSR2}
_NUMBER = re.compile(r"[1-9][0-9]{0,9}")

Reload = Callable[[], str]
"""Does it, and returns what it did.

Raises:
    Failed, OSError: it could not be done; it may be tried again.
"""


def reload_of(name: str | None, pid_file: Path | None, command: str | None) -> Reload | None:
    """What the options ask for; None where nobody wants to be told.

    Raises:
        WrongUsage: options that do not go together, or a signal that is none for this.
        NoCommand: the command is not there.
    """
    if command is not None:
        if name is not None or pid_file is not None:
            raise WrongUsage("name either a signal with its pid file or a command, not both")
        return _run(_split(command))
    if (name is None) != (pid_file is None):
        raise WrongUsage("--signal and --pid-file go together")
    if name is None or pid_file is None:
        return None
    number = _SIGNALS.get(name.upper().removeprefix("SIG"))
    if number is None:
        raise WrongUsage(f"signal {name} must be one of {', '.join(_SIGNALS)}")
    return _signal(number, pid_file)


def pid_of(text: str) -> int:
    """The process number in the first line of a pid file (PostgreSQL's has more lines).

    Raises:
        Failed: not a number, or not of a process that may be told.
    """
    first = text.split("\n", 1)[0].strip()
    if not _NUMBER.fullmatch(first):
        raise Failed("the pid file must begin with the number of a process")
    pid = int(first)
    if pid == 1 or pid > MAX_PID or pid == os.getpid():
        raise Failed(f"the pid file names the process {pid}, which gets no signal from here")
    return pid


def _signal(number: signal.Signals, pid_file: Path) -> Reload:
    def tell() -> str:
        pid, owner = _read(pid_file)
        try:
            _send(pid, owner, number, pid_file)
        except ProcessLookupError:
            raise Failed(f"no process {pid} is running, which {pid_file} names") from None
        except PermissionError:
            raise Failed(f"the process {pid} may not be signalled by this user") from None
        return f"{number.name} to process {pid}"

    return tell


def _send(pid: int, owner: int, number: signal.Signals, pid_file: Path) -> None:
    if sys.platform == "linux":
        held = os.pidfd_open(pid)
        try:
            theirs = os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116 (of a process, no file of ours)
            if owner not in {0, os.geteuid(), theirs}:
                raise Failed(f"the process {pid} is not of the user whose {pid_file} names it")
            # Read once more while the process is held: its number is no later one's.
            if _read(pid_file) != (pid, owner):
                raise Failed(f"{pid_file} changed while it was read")
            signal.pidfd_send_signal(held, number)
        except FileNotFoundError:
            raise ProcessLookupError from None
        finally:
            os.close(held)
    else:
        if owner not in {0, os.geteuid()}:
            raise Failed(f"{pid_file} must be of root, or of this user")
        os.kill(pid, number)


def _read(pid_file: Path) -> tuple[int, int]:
    """The number, and whose file says it."""
    try:
        with open(pid_file, "rb", opener=_opener) as file:
            status = os.fstat(file.fileno())
            data = file.read(_MAX_PID_FILE_BYTES)
    except OSError as error:
        raise Failed(f"pid file {pid_file} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Failed(f"pid file {pid_file} must be a file that only its owner writes")
    return pid_of(data.decode("ascii", "replace")), status.st_uid


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO must not keep us waiting


def _split(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise WrongUsage(f"command cannot be read: {error}".lower()) from None
    if not words or shutil.which(words[0]) is None:
        raise NoCommand(f"command {command!r} was not found, or may not be executed")
    return words


def _run(words: list[str]) -> Reload:
    def tell() -> str:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),  # what it says stands beside our own lines
            start_new_session=True,
        )
        try:
            code = process.wait(COMMAND_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise Failed(f"{words[0]} took more than {COMMAND_TIMEOUT:.0f} s") from None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)  # with whatever it started
                process.wait()
        if code != 0:
            raise Failed(f"{words[0]} failed with {code}")
        return f"{words[0]} was run"

    return tell

"""Real processes that call: they connect to a unix socket, as whom and how they are told to."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

AGENT_UID, AGENT_GID = 61001, 61002
"""Ids that no account of the machine has."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to run processes as others")

_SCRIPT = """
import ctypes, os, resource, socket, sys
address, uid, gid, groups, root = sys.argv[1:6]
if root:
    os.chroot(root); os.chdir("/")
os.set_inheritable(1, False)
if uid != "0":
    os.setgroups([int(each) for each in groups.split(",") if each])
    os.setresgid(*[int(gid)] * 3)
    os.setresuid(*[int(uid)] * 3)
connection = socket.socket(socket.AF_UNIX)
connection.connect("\\0" + address)
print("connected", flush=True)
for line in sys.stdin:
    command, _, argument = line.strip().partition(" ")
    if command == "exec":
        os.execv(argument, [argument, "1000"])
    elif command == "setuid":
        os.setresuid(*[int(argument)] * 3)
    elif command == "limit":
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(argument), 2 * int(argument)))
        os.nice(5)
    elif command == "name":
        ctypes.CDLL(None).prctl(15, argument.encode(), 0, 0, 0)  # PR_SET_NAME
    elif command == "unshare":
        libc = ctypes.CDLL(None)
        assert libc.unshare(0x10000000) == 0  # CLONE_NEWUSER, where it has all capabilities
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        assert libc.capset(header, (ctypes.c_uint32 * 6)()) == 0  # and gives them up
    elif command == "fork":
        child = os.fork()
        if child:
            os._exit(0)
    print("done", flush=True)
"""


@dataclass
class Calling:
    """A process that has connected, and the daemon's end of its connection."""

    process: subprocess.Popen[str]
    connection: socket.socket

    def tell(self, command: str) -> None:
        """Have it do something, and wait until it has."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        # An exec ends the pipe, which is not inherited: then it runs the other program.
        assert self.process.stdout.readline() in {"done\n", ""}

    def end(self) -> None:
        """End and reap it."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def calling(
    *,
    uid: int = AGENT_UID,
    gid: int = AGENT_GID,
    groups: Sequence[int] = (),
    root: Path | None = None,
    python: str = sys.executable,
) -> Iterator[Calling]:
    """A process that connects; ended at the end."""
    address = f"accredit-test-{os.urandom(8).hex()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + address)  # without a path that the other user would have to reach
        listener.listen()
        # Not as the other user from the start: that one may not even read our interpreter.
        process = subprocess.Popen(
            [
                python,
                "-ISc",
                _SCRIPT,
                address,
                str(uid),
                str(gid),
                ",".join(map(str, groups)),
                str(root or ""),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout
            assert process.stdout.readline() == "connected\n"
            connection, _ = listener.accept()
            with connection:
                yield Calling(process, connection)
        finally:
            process.kill()
            process.communicate()

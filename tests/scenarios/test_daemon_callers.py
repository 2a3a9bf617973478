"""Callers that are not what they were when they connected, at a real daemon."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived
from support.calling import AGENT_GID, AGENT_UID, as_root
from support.fuse import needs_fuse, served
from support.node_daemon import Host, host, until

pytestmark = [as_root, pytest.mark.interop]

PYTHON = Path(sys.executable).resolve()
SLEEP = "/bin/sleep"
CALL = "/SpiffeWorkloadAPI/FetchX509SVID"
DENIED = "7"
HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", CALL),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
    ("workload.spiffe.io", "true"),
]
SCRIPT = """
import os, socket, sys
path, handing = sys.argv[1], socket.socket(fileno=int(sys.argv[2]))
uid, gid = int(sys.argv[3]), int(sys.argv[4])
# Not as the user from the start: that one may not even read our interpreter.
os.setgroups([])
os.setresgid(gid, gid, gid)
os.setresuid(uid, uid, uid)
connection = socket.socket(socket.AF_UNIX)
connection.connect(path)
socket.send_fds(handing, [b"x"], [connection.fileno()])
if sys.stdin.readline():
    os.execv("/bin/sleep", ["/bin/sleep", "1000"])
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Host]:
    """A host with an agent and a running daemon."""
    with host() as made:
        made.agent()
        made.listed()
        made.daemon()
        yield made


class Connected:
    """A process of the agent's user that connected, and handed its connection to the test."""

    def __init__(self, place: Host, resources: ExitStack, python: Path) -> None:
        here, there = socket.socketpair(socket.AF_UNIX)
        with there:
            arguments = (str(place.socket), str(there.fileno()), str(AGENT_UID), str(AGENT_GID))
            self.process = subprocess.Popen(
                [python, "-Sc", SCRIPT, *arguments],
                stdin=subprocess.PIPE,
                text=True,
                env={"PYTHONHOME": sys.base_prefix},  # for an interpreter that stands elsewhere
                pass_fds=[there.fileno()],
            )
        resources.callback(self.end)
        with here:
            here.settimeout(30)
            _, descriptors, _, _ = socket.recv_fds(here, 1, 1)
        self.connection = resources.enter_context(socket.socket(fileno=descriptors[0]))
        self.connection.settimeout(30)

    def run_another(self) -> None:
        """Have it run another program in its own place."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        program = Path(f"/proc/{self.process.pid}/exe")
        until(lambda: program.samefile(SLEEP))

    def end(self) -> None:
        """End and reap it."""
        self.process.kill()
        self.process.communicate()

    def asked(self) -> str:
        """The status that its question ends with; empty where it is answered."""
        http2 = H2Connection(H2Configuration(header_encoding="utf-8"))
        http2.initiate_connection()
        http2.send_headers(1, HEADERS)
        http2.send_data(1, bytes(5), end_stream=True)
        with suppress(ConnectionError):
            self.connection.sendall(http2.data_to_send())
            return self._answer(http2)
        return "closed"

    def _answer(self, http2: H2Connection) -> str:
        while received := self.connection.recv(65536):
            for event in http2.receive_data(received):
                if isinstance(event, DataReceived):
                    return ""
                for name, value in getattr(event, "headers", None) or ():
                    if name == "grpc-status":
                        return str(value)
        return "closed"


@contextmanager
def connected(place: Host, python: Path = PYTHON) -> Iterator[Connected]:
    """One such process."""
    with ExitStack() as resources:
        yield Connected(place, resources, python)


def test_a_caller_that_stays_is_answered(place: Host) -> None:
    """It connected, it still runs, in the same program: whoever it handed the connection to."""
    with connected(place) as caller:
        assert caller.asked() == ""


def test_a_caller_that_ends_gets_nothing(place: Host) -> None:
    """Somebody else holds its connection, and its number may be another's by now."""
    with connected(place) as caller:
        accepted(place)
        caller.end()
        assert caller.asked() == DENIED


def test_a_caller_that_ends_before_it_is_accepted_gets_nothing(place: Host) -> None:
    """There is nobody to pin any more: closed, or found out at its question."""
    with connected(place) as caller:
        caller.end()
        assert caller.asked() in {DENIED, "closed"}


def test_a_caller_that_runs_another_program_gets_nothing(place: Host) -> None:
    """The same process and user, and the very connection; only the program is another."""
    with connected(place) as caller:
        accepted(place)
        caller.run_another()
        assert caller.asked() == DENIED


@needs_fuse
def test_a_caller_on_a_silent_filesystem_keeps_nobody_waiting(place: Host) -> None:
    """It is accepted, refused and checked without a word from there; its neighbours are served."""
    with (
        served(PYTHON.read_bytes()) as filesystem,
        connected(place, filesystem.program) as caller,
        filesystem.silent(),
    ):
        assert caller.asked() == DENIED
        accepted(place)
        assert not filesystem.asked


def accepted(place: Host) -> None:
    """Return once the daemon has accepted who connected before: connections wait in a line."""
    with connected(place) as later:
        assert later.asked() == ""

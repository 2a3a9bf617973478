"""Launched agents: started as their requester and no more, known by birth, followed, ended."""

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.calling import AGENT_GID, AGENT_UID, Calling, as_root, calling

from accredit_attestors.errors import InvalidTree
from accredit_attestors.tree import Selection, measure
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.launch_service import LaunchedAgent, serve_launch
from accredit_client.daemon.launch_wire import LaunchRequest, parse_request
from accredit_client.daemon.launching import Launcher, check_environment, check_requester
from accredit_client.daemon.measuring import CodeMeasurer
from accredit_client.daemon.process import PinnedProcess, Status
from accredit_client.errors import InvalidAnswer, LaunchRefused

SHELL = "/bin/sh"


def anything(_requester: Caller, _request: LaunchRequest) -> None:
    """Allow it."""


@dataclass
class Asking:
    """A daemon that launches, and a process of another user that may ask it to."""

    launcher: Launcher
    requester: Caller
    process: Calling
    folder: Path

    def launch(self, script: str, **environment: str) -> tuple[Any, str]:
        """Run a shell script; its launch when it has ended, and what it wrote."""
        launched, read = self.start(script, **environment)
        launched.wait()
        with os.fdopen(read) as output:
            return launched, output.read()

    def start(self, script: str, **environment: str) -> tuple[Any, int]:
        """Start a shell script; its launch, and what it writes to."""
        request = LaunchRequest(
            command=(SHELL, "-c", script), environment=environment, code_root="/opt/agent"
        )
        read, write = os.pipe()
        directory = os.open("/", os.O_RDONLY)
        null = os.open(os.devnull, os.O_RDWR)
        try:
            descriptors = (null, write, write, directory)
            return self.launcher.launch(self.requester, request, descriptors), read
        finally:
            for each in (write, directory, null):
                os.close(each)


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    """A requester with a supplementary group, and a launcher that allows it everything."""
    with calling(groups=[61003]) as process, closing(Caller.of(process.connection)) as requester:
        yield Asking(Launcher(anything), requester, process, tmp_path)


@as_root
def test_an_agent_has_what_its_requester_has_and_no_more(asking: Asking) -> None:
    """User, group and groups of the requester; no capability, and never one again."""
    asking.process.tell("limit 100")
    script = "cat /proc/self/status; ulimit -n; ulimit -Hn; nice; env; ls /proc/self/fd; pwd"
    launched, text = asking.launch(script, GREETING="hello")
    assert launched.wait() == 0
    lines = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert lines["Uid"].split() == [str(AGENT_UID)] * 4
    assert lines["Gid"].split() == [str(AGENT_GID)] * 4
    assert lines["Groups"].split() == ["61003"]
    assert lines["NoNewPrivs"] == "1"
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(lines[name], 16) == 0
    rest = text.splitlines()[len([each for each in text.splitlines() if ":\t" in each]) :]
    assert rest[:3] == ["100", "200", str(os.nice(0) + 5)]
    assert "GREETING=hello" in rest
    assert not [each for each in rest if each.startswith(("PATH=", "HOME="))]
    assert [each for each in rest if each.isdecimal()][3:] == ["0", "1", "2", "3"]  # 3: ls itself
    assert rest[-1] == "/"


@as_root
@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", -15), ("kill -9 $$", -9)]
)
def test_the_exit_is_told(asking: Asking, script: str, code: int) -> None:
    """The exit code, or the signal that ended it; even where it ends at once."""
    assert asking.launch(script)[0].wait() == code


@as_root
def test_a_launch_is_known_by_birth_and_followed(asking: Asking) -> None:
    """The process, its child, and its orphaned grandchild are of it; others are not."""
    script = "sh -c 'sleep 1000 & echo $!' ; sleep 1000 & echo $!; wait"
    launched, read = asking.start(script)
    with os.fdopen(read) as output:
        orphan, child = (int(output.readline()) for _ in range(2))
        for pid in (child, orphan):
            while Path(f"/proc/{pid}/exe").resolve() != Path("/bin/sleep").resolve():
                os.sched_yield()  # between fork and exec it is the shell
        for pid in (launched.process.pid, child, orphan):
            with closing(_as_caller(pid)) as caller:
                assert asking.launcher.launched_of(caller) is launched
        for pid in (asking.requester.pid, os.getpid(), os.getppid()):
            with closing(_as_caller(pid)) as caller:
                assert asking.launcher.launched_of(caller) is None
        with closing(_as_caller(orphan)) as caller:
            launched.stop()
            assert asking.launcher.launched_of(caller) is None  # its launch is over
            asking.launcher.forget(launched)
            assert asking.launcher.launched_of(caller) is None
            caller.process.signal(signal.SIGKILL)


def _as_caller(pid: int) -> Caller:
    process = PinnedProcess.of_pid(pid)
    status = process.status()
    return Caller(process, uid=status.uids[1], gid=status.gids[1])


@as_root
def test_signals_are_forwarded(asking: Asking) -> None:
    """Those that are for a program to handle, and none that is not listed."""
    script = "trap 'echo caught; exit 3' USR1; echo ready; while :; do sleep 0.01; done"
    launched, read = asking.start(script)
    with os.fdopen(read) as output:
        assert output.readline() == "ready\n"
        with pytest.raises(LaunchRefused):
            launched.signal(signal.SIGSEGV)
        launched.signal(signal.SIGUSR1)
        assert launched.wait() == 3
        assert output.readline() == "caught\n"


@as_root
def test_a_command_that_does_not_start_is_told(asking: Asking) -> None:
    """Missing, not executable, or not the requester's to run: refused, and nothing is left."""
    hidden = asking.folder / "hidden"
    hidden.write_text("#!/bin/sh\n")
    hidden.chmod(0o700)
    for path in ("/bin/missing", "/etc/passwd", str(hidden)):
        request = LaunchRequest(command=(path,), environment={}, code_root="/opt")
        directory = os.open("/", os.O_RDONLY)
        try:
            with pytest.raises(LaunchRefused, match="did not start"):
                asking.launcher.launch(asking.requester, request, (0, 1, 2, directory))
        finally:
            os.close(directory)
    assert asking.launcher._launched == {}


@as_root
def test_a_directory_that_is_not_the_requesters_is_refused(asking: Asking) -> None:
    """A descriptor of a directory is no right to be in it."""
    closed = asking.folder / "closed"
    closed.mkdir(mode=0o700)
    request = LaunchRequest(command=(SHELL, "-c", "pwd"), environment={}, code_root="/opt")
    directory = os.open(closed, os.O_RDONLY)
    try:
        with pytest.raises(LaunchRefused, match="PermissionError"):
            asking.launcher.launch(asking.requester, request, (0, 1, 2, directory))
    finally:
        os.close(directory)


def test_root_has_nothing_started() -> None:
    """Who is root, or has a capability, is refused before anything is measured."""
    with calling(uid=0) as process, closing(Caller.of(process.connection)) as requester:
        status = requester.status()
        with pytest.raises(LaunchRefused, match=r"root|capabilities"):
            check_requester(requester.process, status)


@as_root
def test_a_confined_requester_is_refused(asking: Asking) -> None:
    """What the daemon starts would not be in its namespace, nor behind its filter."""
    status = asking.requester.status()
    check_requester(asking.requester.process, status)
    filtered = Status(
        uids=status.uids,
        gids=status.gids,
        groups=status.groups,
        capabilities=0,
        no_new_privs=True,
        seccomp=2,
    )
    with pytest.raises(LaunchRefused, match="filter"):
        check_requester(asking.requester.process, filtered)
    with subprocess.Popen(
        ["unshare", "--net", "--uts", "sh", "-c", "echo; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout
        assert other.stdout.readline()
        process = PinnedProcess.of_pid(other.pid)
        with pytest.raises(LaunchRefused, match="net namespace"):
            check_requester(process, status)
        process.close()
        other.kill()


@pytest.mark.parametrize(
    "name", ["LD_PRELOAD", "LD_AUDIT", "PYTHONPATH", "PYTHONSTARTUP", "BASH_ENV", "NODE_OPTIONS"]
)
def test_variables_that_load_code_are_refused(name: str) -> None:
    """They are what runs before the measured code; others are not looked at."""
    with pytest.raises(LaunchRefused, match=name):
        check_environment({"HOME": "/", name: ""})
    check_environment({"HOME": "/", f"MY_{name}": "", name.lower(): "", "LANG": "C"})


GOOD: dict[str, Any] = {
    "version": 1,
    "command": ["/bin/sh", ""],
    "environment": {"A": "b=c"},
    "code_root": "/opt",
}


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": True},
        {"version": None},
        {"command": []},
        {"command": "sh"},
        {"command": ["sh"]},
        {"command": ["/bin/sh", 1]},
        {"command": ["/bin/sh", "a\0b"]},
        {"command": ["/bin/sh"] * 1025},
        {"environment": []},
        {"environment": {"A=B": ""}},
        {"environment": {"": ""}},
        {"environment": {"A": 1}},
        {"environment": {"A": "\0"}},
        {"code_root": None},
        {"code_root": ["/opt"]},
        {"more": 1},
    ],
)
def test_requests_of_another_form_are_refused(change: dict[str, Any]) -> None:
    """One version, four members, bounded, no NUL."""
    assert parse_request(GOOD).command == ("/bin/sh", "")
    with pytest.raises(LaunchRefused):
        parse_request(GOOD | change)


@pytest.mark.parametrize("missing", list(GOOD))
def test_requests_that_lack_something_are_refused(missing: str) -> None:
    """All four members must be there."""
    with pytest.raises(LaunchRefused):
        parse_request({key: value for key, value in GOOD.items() if key != missing})


REQUESTER = """
import json, os, socket, struct, sys
os.setgroups([]); os.setresgid(*[{gid}] * 3); os.setresuid(*[{uid}] * 3)
connection = socket.socket(socket.AF_UNIX)
connection.connect("\\0" + sys.argv[1])
os.chdir("/")
directory = os.open("/", os.O_RDONLY)
content = sys.argv[2].encode()
fds = [0, 1, 2, directory][:int(sys.argv[3])]
whole = struct.pack(">I", len(content)) + content
assert socket.send_fds(connection, [whole], fds) == len(whole)
stream = connection.makefile("rb")
def message():
    head = stream.read(4)
    return json.loads(stream.read(struct.unpack(">I", head)[0])) if head else None
print(json.dumps(message()), flush=True)
for line in sys.stdin:
    if line == "wait\\n":
        break
    connection.sendall(struct.pack(">I", len(line.encode())) + line.encode())
print(json.dumps(message()), flush=True)
"""


def _serve(connection: socket.socket, launcher: Launcher) -> None:
    serve_launch(connection, launcher)
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # as the daemon does: nobody waits for more


@contextmanager
def served(
    launcher: Launcher, content: str, *, uid: int = AGENT_UID, descriptors: int = 4
) -> Iterator[subprocess.Popen[str]]:
    """A requester's process that says this to a daemon's socket."""
    address = f"accredit-test-{os.urandom(8).hex()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + address)
        listener.listen()
        script = REQUESTER.format(uid=uid, gid=uid and AGENT_GID)
        requester = subprocess.Popen(
            [sys.executable, "-ISc", script, address, content, str(descriptors)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        connection, _ = listener.accept()
        with connection:
            thread = threading.Thread(target=_serve, args=(connection, launcher))
            thread.start()
            try:
                yield requester
            finally:
                requester.kill()
                requester.communicate()
                thread.join(20)
                assert not thread.is_alive()


def _request(script: str, **more: object) -> str:
    return json.dumps(GOOD | {"command": [SHELL, "-c", script]} | more)


def _said(requester: subprocess.Popen[str]) -> Any:
    assert requester.stdout
    return json.loads(requester.stdout.readline())


def _say(requester: subprocess.Popen[str], text: str) -> None:
    assert requester.stdin
    requester.stdin.write(text + "\n")
    requester.stdin.flush()


@as_root
def test_over_the_socket() -> None:
    """Started, given a signal, and its end told, with the requester's own standard output."""
    launcher = Launcher(anything)
    script = "trap 'exit 5' TERM; echo '\"hello\"'; while :; do sleep 0.01; done"
    with served(launcher, _request(script)) as requester:
        said = [_said(requester), _said(requester)]
        assert "hello" in said
        said.remove("hello")
        assert launcher._launched[said[0]["started"]].requester.uid == AGENT_UID
        _say(requester, '{"signal": 15}')
        _say(requester, "wait")
        assert _said(requester) == {"exited": 5}
    assert launcher._launched == {}


@as_root
def test_an_agent_ends_with_its_requester() -> None:
    """A connection that ends takes the agent with it."""
    launcher = Launcher(anything)
    with served(launcher, _request("exec sleep 1000")) as requester:
        pid = _said(requester)["started"]
        with closing(PinnedProcess.of_pid(pid)) as agent:
            requester.kill()
            waiting = select.poll()
            waiting.register(agent, select.POLLIN)
            assert waiting.poll(20_000)
    assert launcher._launched == {}


@as_root
@pytest.mark.parametrize(
    ("content", "descriptors", "reason"),
    [
        ("{}", 4, "version"),
        ("nonsense", 4, "not JSON"),
        ('{"version": 1, "version": 1}', 4, "twice"),
        (_request("exit", environment={"LD_PRELOAD": "/tmp/x"}), 4, "LD_PRELOAD"),
        (_request("exit", command=["/bin/missing"]), 4, "did not start"),
        (_request("exit"), 3, "descriptors"),
        (_request("exit"), 0, "descriptors"),
    ],
)
def test_a_refusal_is_told(content: str, descriptors: int, reason: str) -> None:
    """Whatever is wrong, the requester hears it, and nothing is left open or running."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    launcher = Launcher(anything)
    with served(launcher, content, descriptors=descriptors) as requester:
        assert reason in _said(requester)["refused"]
    assert launcher._launched == {}
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@as_root
def test_the_code_is_measured_first(tmp_path: Path) -> None:
    """What is not the signed code is not started; what is, is."""
    (tmp_path / "main.py").write_text("print('hello')\n")
    signed = measure(tmp_path, Selection()).digest
    measurer = CodeMeasurer()

    def as_signed(requester: Caller, request: LaunchRequest) -> None:
        if measurer.measure(requester, request.code_root, Selection()) != signed:
            raise InvalidTree("not what was signed")

    launcher = Launcher(as_signed)
    content = _request("exit 4", code_root=str(tmp_path))
    with served(launcher, content) as requester:
        assert "started" in _said(requester)
        _say(requester, "wait")
        assert _said(requester) == {"exited": 4}
    (tmp_path / "main.py").write_text("print('evil')\n")
    with served(launcher, content) as requester:
        assert _said(requester) == {"refused": "not what was signed"}


def _framed(text: str) -> bytes:
    return struct.pack(">I", len(text)) + text.encode()


def test_the_requesters_end() -> None:
    """It has the agent's number and its end, and an error for everything else."""
    ours, theirs = socket.socketpair()
    request = LaunchRequest(command=("/bin/sh",), environment={}, code_root="/opt")
    with ours, theirs:
        theirs.sendall(_framed('{"started": 42}') + _framed('{"killed": 9}'))
        agent = LaunchedAgent(ours, request, (0, 1, 2, 0))
        assert agent.pid == 42
        agent.signal(15)
        assert agent.wait() == -9
        theirs.sendall(_framed('{"refused": "because"}'))
        with pytest.raises(LaunchRefused, match="because"):
            LaunchedAgent(ours, request, (0, 1, 2, 0))
        theirs.sendall(_framed('{"started": "42"}'))
        with pytest.raises(InvalidAnswer):
            LaunchedAgent(ours, request, (0, 1, 2, 0))
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(InvalidAnswer):
            agent.wait()

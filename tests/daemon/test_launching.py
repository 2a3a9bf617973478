"""Launched agents: started as their requester and no more, known by birth, followed, ended."""

import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.calling import AGENT_GID, AGENT_UID, Calling, as_root, calling
from support.fuse import needs_fuse, served
from support.node_host import entry

from accredit_client.daemon import launching
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.launch_plan import Start, check_requester
from accredit_client.daemon.launch_settings import LaunchSettings
from accredit_client.daemon.launch_wire import send_descriptors
from accredit_client.daemon.launching import Launched, Launcher
from accredit_client.daemon.process import PinnedProcess, Status
from accredit_client.errors import CallerGone, LaunchRefused

SHELL = "/bin/sh"
PATIENCE = 20_000  # milliseconds


def anything(_agent: Caller) -> None:
    """Nothing is against it."""


def sent(descriptors: Sequence[int]) -> socket.socket:
    """The daemon's end of a connection, on which these have been sent."""
    ours, theirs = socket.socketpair()
    with theirs:
        send_descriptors(theirs, descriptors)
    return ours


@dataclass
class Asking:
    """A daemon that launches, and a process of another user that may ask it to."""

    requester: Caller
    process: Calling
    folder: Path
    launcher: Launcher = field(default_factory=Launcher)
    running: list[Launched] = field(default_factory=list)

    def launch(self, script: str, **how: Any) -> tuple[int, str]:
        """Run a shell script; its exit, and what it wrote."""
        launched, read = self.start(script, **how)
        with os.fdopen(read) as output:
            return launched.wait(), output.read()

    def start(
        self,
        *command: str,
        user: str = "",
        environment: Mapping[str, str] | None = None,
        code_root: str = "/",
        judge: Any = anything,
        requested: socket.socket | None = None,
    ) -> tuple[Launched, int]:
        """Start a shell script, or a command; its launch, and what it writes to."""
        whole = (SHELL, "-c", *command) if len(command) == 1 else command
        launch = LaunchSettings(command=whole, user=user)
        read, write = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        connection = requested or sent([null, write, write])
        start = Start(command=whole, environment=environment or {}, connection=connection)
        try:
            launched = self.launcher.launch(
                entry(launch=launch, code_root=code_root), self.requester, start, judge
            )
        except BaseException:
            os.close(read)
            raise
        finally:
            for each in (write, null):
                os.close(each)
            connection.close()
        self.running.append(launched)
        return launched, read


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    """A requester with a supplementary group, and a launcher; nothing that it starts is left."""
    with calling(groups=[61003]) as process, closing(Caller.of(process.connection)) as requester:
        made = Asking(requester, process, tmp_path)
        yield made
        for each in made.running:
            made.launcher.forget(each)


@contextmanager
def caller_of(pid: int) -> Iterator[Caller]:
    """A process, as the daemon would know it."""
    process = PinnedProcess.of_pid(pid)
    status = process.status()
    with closing(Caller(process, uid=status.uids[1], gid=status.gids[1])) as caller:
        yield caller


def ended(process: PinnedProcess) -> bool:
    """Whether a process ends in time."""
    waiting = select.poll()
    waiting.register(process, select.POLLIN)
    return bool(waiting.poll(PATIENCE))


@as_root
def test_an_agent_has_what_its_requester_has_and_no_more(asking: Asking) -> None:
    """User, group and groups of the requester; no capability, and never one again."""
    asking.process.tell("limit 100")
    script = "cat /proc/self/status; ulimit -n; ulimit -Hn; nice; env; ls /proc/self/fd; pwd"
    code, text = asking.launch(script, environment={"GREETING": "hello"})
    assert code == 0
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
def test_an_agent_may_have_an_account_of_its_own(asking: Asking) -> None:
    """Its user and groups are the account's, its limits the daemon's and not the requester's."""
    asking.process.tell("limit 100")
    code, text = asking.launch("id -u; id -g; id -G; ulimit -n; umask", user="nobody")
    assert code == 0
    uid, gid, groups, files, umask = text.splitlines()
    assert (uid, gid) == ("65534", "65534")
    assert "61003" not in groups.split()
    assert files != "100"
    assert umask == "0077"


@as_root
@pytest.mark.parametrize(("user", "why"), [("root", "root"), ("no-such-user", "no user")])
def test_an_account_that_cannot_be_an_agents_is_refused(
    asking: Asking, user: str, why: str
) -> None:
    """Root's, and one that this host does not know."""
    with pytest.raises(LaunchRefused, match=why):
        asking.start("exit", user=user)


CGROUPS = next(
    (each for each in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")) if each.is_dir()),
    Path("/sys/fs/cgroup"),
)


@contextmanager
def cgroup(path: str) -> Iterator[Path]:
    """A cgroup of version 2, with those above it; its file of processes."""
    made: list[Path] = []
    here = CGROUPS
    for part in path.split("/"):
        here = here / part
        if not here.exists():
            here.mkdir()
            made.append(here)
    try:
        yield here / "cgroup.procs"
    finally:
        for each in reversed(made):
            for pid in (each / "cgroup.procs").read_text().split():
                with suppress(OSError):
                    (CGROUPS / "cgroup.procs").write_text(pid)
            each.rmdir()


@as_root
@pytest.mark.skipif(
    not os.access(CGROUPS / "cgroup.procs", os.W_OK), reason="needs cgroups of version 2"
)
def test_an_agent_is_in_its_requesters_cgroup_and_in_no_other(asking: Asking) -> None:
    """A user names what is in a cgroup of its own: no name leads anywhere else."""
    name = f"accredit-test-{os.getpid()}"
    own = f"{name}/delegated/x\x0c0::/{name}/victim"
    with cgroup(f"{name}/victim"), cgroup(f"{name}/delegated/x"), cgroup(own) as procs:
        procs.write_text(str(asking.requester.pid))
        code, text = asking.launch("while read -r line; do echo $line; done </proc/self/cgroup")
        asking.process.end()
        assert code == 0
        assert f"0::/{own}" in text.split("\n")


@as_root
@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", -15), ("kill -9 $$", -9)]
)
def test_the_exit_is_told(asking: Asking, script: str, code: int) -> None:
    """The exit code, or the signal that ended it; even where it ends at once."""
    assert asking.launch(script)[0] == code


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
        for pid in (launched.pid, child, orphan):
            with caller_of(pid) as caller:
                assert asking.launcher.launched_of(caller) is launched
                assert asking.launcher.selectors(caller) == launched.entry.selectors
        for pid in (asking.requester.pid, os.getpid(), os.getppid()):
            with caller_of(pid) as caller:
                assert asking.launcher.launched_of(caller) is None
                assert asking.launcher.selectors(caller) == frozenset()


# A sibling of the process that makes it: its parent is that one's parent (clone(2)).
SIBLING = """
import ctypes, os, sys, time
CLONE_PARENT, SIGCHLD = 0x8000, 17
pid = ctypes.CDLL(None).syscall(56 if os.uname().machine == "x86_64" else 220,
                                CLONE_PARENT | SIGCHLD, 0, 0, 0, 0)
if pid == 0:
    time.sleep(1000)
print(pid, flush=True)
time.sleep(1000)
"""


@as_root
def test_a_sibling_that_an_agent_makes_is_of_its_launch_and_ends_with_it(asking: Asking) -> None:
    """CLONE_PARENT leads to the launch's own parent, never to the daemon or to init."""
    launched, read = asking.start("/usr/bin/python3", "-ISc", SIBLING)
    with os.fdopen(read) as output:
        sibling = int(output.readline())
    with caller_of(sibling) as caller:
        assert caller.process.stat().parent == launched.init.pid
        assert asking.launcher.launched_of(caller) is launched
        launched.stop()
        launched.wait()
        assert ended(caller.process)


@as_root
def test_nothing_of_a_launch_outlives_it(asking: Asking) -> None:
    """Children in sessions of their own, orphans, and what ignores being asked, end with it."""
    script = "setsid sh -c 'trap \"\" TERM HUP; echo $$; while :; do sleep 1; done' & wait"
    launched, read = asking.start(script)
    with os.fdopen(read) as output:
        pid = int(output.readline())
    with caller_of(pid) as caller:
        launched.signal(signal.SIGKILL)
        assert launched.wait() == -signal.SIGKILL
        assert ended(caller.process)
        with pytest.raises(CallerGone):
            asking.launcher.launched_of(caller)


# What forks and ends without a pause is in a list of processes only while the list is made.
COMET = """
import os, sys
print("ready", flush=True)
while True:
    if os.fork():
        os._exit(0)
    os.setsid()
"""


@as_root
def test_what_forks_and_ends_without_a_pause_does_not_outlive_a_launch(asking: Asking) -> None:
    """Its parent goes on until the kernel says that nothing is below it any more."""
    launched, read = asking.start("/usr/bin/python3", "-ISc", COMET)
    with os.fdopen(read) as output:
        assert output.readline() == "ready\n"
        assert launched.wait() == 0
        asking.launcher.forget(launched)
        assert output.read() == ""  # nobody holds the other end


@as_root
def test_a_beginning_that_is_held_up_ends_with_its_daemon(asking: Asking) -> None:
    """What stands above it hears the daemon's end while it waits for it."""
    held: list[PinnedProcess] = []

    def stop(agent: Caller) -> None:
        held.extend((agent.process.again(), PinnedProcess.of_pid(agent.process.stat().parent)))
        agent.process.signal(signal.SIGSTOP)
        raise LaunchRefused("the daemon ends")

    with pytest.raises(LaunchRefused, match="the daemon ends"):
        asking.start("echo", judge=stop)
    for process in held:
        with closing(process):
            assert ended(process)


@as_root
def test_nobody_waits_until_a_signal_is_passed_on(asking: Asking) -> None:
    """Whoever is above an agent is stopped here: signals are dropped, the last word is not."""
    launched, read = asking.start("exec sleep 1000")
    os.close(read)
    launched.init.signal(signal.SIGSTOP)
    for _ in range(2 * 65536):
        launched.signal(signal.SIGWINCH)
    launched.stop()
    launched.init.signal(signal.SIGCONT)
    assert launched.wait() == -signal.SIGTERM


@as_root
def test_a_launch_whose_parent_is_killed_ends(asking: Asking) -> None:
    """Nobody could tell any more whose it is: it is not left running."""
    launched, read = asking.start("exec sleep 1000")
    os.close(read)
    with caller_of(launched.pid) as caller:
        launched.init.signal(signal.SIGKILL)
        assert launched.wait() == -signal.SIGKILL
        assert ended(caller.process)


@as_root
def test_an_agent_cannot_end_its_parent(asking: Asking) -> None:
    """It is root's, whose user the agent never is."""
    code, text = asking.launch("kill -9 $PPID 2>/dev/null; echo $?; kill -0 $PPID 2>&1; exit 3")
    assert code == 3
    assert text.splitlines()[0] == "1"


@as_root
def test_what_is_asked_to_end_and_does_not_is_ended(asking: Asking) -> None:
    """After a while, which is the daemon's and no wish of the agent."""
    asking.launcher = Launcher(grace=0.1)
    launched, read = asking.start("trap '' TERM; echo ready; while :; do sleep 1; done")
    with os.fdopen(read) as output:
        assert output.readline() == "ready\n"
        launched.stop("because")
        assert launched.wait() == -signal.SIGKILL
    assert launched.why == "because"


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
@pytest.mark.parametrize("number", [0, 2, 4, 200])
def test_standard_input_output_and_error_must_come(asking: Asking, number: int) -> None:
    """Three, and no other number; nothing is started without."""
    with pytest.raises(LaunchRefused, match="did not send standard input"):
        asking.start("echo", requested=sent([0] * number))
    assert len(asking.launcher) == 0


@needs_fuse
def test_a_descriptor_whose_server_is_silent_holds_up_its_agent_alone(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To close a file may wait for its server, whatever kills who waits: root closes none."""
    monkeypatch.setattr(launching, "START_SECONDS", 1.0)
    with served(b"") as filesystem, ThreadPoolExecutor(1) as thread:
        file = os.open(filesystem.program, os.O_RDONLY)
        requested = sent([file] * 3)
        os.close(file)  # as if it were the requester's alone
        with filesystem.silent():
            started = thread.submit(asking.start, "echo", requested=requested)
            assert wait([started], timeout=3.0).not_done  # for its process, which cannot end
            assert not filesystem.asked
        with pytest.raises(LaunchRefused, match="within"):
            started.result()
    assert len(asking.launcher) == 0


@as_root
def test_a_command_that_does_not_start_is_told(asking: Asking) -> None:
    """Missing, not executable, or not the requester's to run: refused, and nothing is left."""
    hidden = asking.folder / "hidden"
    hidden.write_text("#!/bin/sh\n")
    hidden.chmod(0o700)
    for path in ("/bin/missing", "/etc/passwd", str(hidden)):
        with pytest.raises(LaunchRefused, match="did not start"):
            asking.start(path, "")
    assert len(asking.launcher) == 0


@as_root
def test_a_code_root_that_the_agent_may_not_enter_is_refused(asking: Asking) -> None:
    """It starts there, as its own user."""
    closed = asking.folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(LaunchRefused, match="PermissionError"):
        asking.start("pwd", code_root=str(closed))


@as_root
def test_it_is_judged_as_the_agents_user_and_before_it_runs_anything(asking: Asking) -> None:
    """What is measured is what is about to run; a refusal leaves nothing behind."""
    seen: list[Any] = []
    marker = asking.folder / "ran"

    def refuse(agent: Caller) -> None:
        seen.append((agent.uid, agent.status().no_new_privs, agent.process.again()))
        raise LaunchRefused("no")

    with pytest.raises(LaunchRefused, match="no"):
        asking.start(f"touch {marker}", judge=refuse)
    ((uid, no_new_privs, process),) = seen
    with closing(process):
        assert (uid, no_new_privs) == (AGENT_UID, True)
        assert ended(process)
    assert not marker.exists()
    assert len(asking.launcher) == 0


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


@as_root
def test_a_requester_with_another_root_directory_is_refused(asking: Asking, tmp_path: Path) -> None:
    """What the daemon starts would be outside of it; its neighbour in the host's root is served."""
    check_requester(asking.requester.process, asking.requester.status())
    with (
        calling(root=tmp_path) as process,
        closing(Caller.of(process.connection)) as requester,
        pytest.raises(LaunchRefused, match="root directory"),
    ):
        check_requester(requester.process, requester.status())


@as_root
def test_an_agent_that_is_held_up_before_it_begins_is_given_up(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped, or in a cgroup that was frozen: nobody waits for it for good, and it is ended."""
    seen: list[PinnedProcess] = []

    def stop(agent: Caller) -> None:
        seen.extend((agent.process.again(), PinnedProcess.of_pid(agent.process.stat().parent)))
        agent.process.signal(signal.SIGSTOP)
        monkeypatch.setattr(launching, "START_SECONDS", 0.2)  # from now on: it has begun

    with pytest.raises(LaunchRefused, match="did not start within"):
        asking.start("exit", judge=stop)
    for process in seen:
        with closing(process):
            assert ended(process)
    assert len(asking.launcher) == 0

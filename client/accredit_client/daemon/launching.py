"""Starting an agent for a requester, so that the daemon knows it by birth and follows its children.

In this order: the requester is an ordinary process that lives where the daemon lives (a process
started by the daemon would otherwise leave the requester's container, or its system call filter);
its environment loads no code of its own; whatever the daemon asks for besides (``allow``: the
manifest, the measured code, the command); and then the agent is started as the very user, group
and groups of the requester, in its cgroups, with its limits, without any capability and for good
(``no_new_privs``). Root starts nothing here.

A process is of a launch if its parents lead to the one that was started, each of them alive and
held while it is asked. What was orphaned below it is given to it by the kernel (it is a
subreaper), so a chain that leads elsewhere is not one of ours: refused.
"""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from accredit_client.daemon import launch_child
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.launch_wire import FORWARDED, LaunchRequest
from accredit_client.daemon.process import PinnedProcess, Status, looking
from accredit_client.daemon.writers import almighty
from accredit_client.errors import CallerGone, CallerRefused, LaunchRefused

MAX_ANCESTORS = 64
"""Parents that are asked for on the way from a process to the one that was launched."""
GRACE = 10.0
"""Seconds between asking what was launched to end and ending it."""

Allow = Callable[[Caller, LaunchRequest], None]
"""Decides whether this requester may have this started; raises what refuses it."""

_NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time")
_CGROUPS = Path("/sys/fs/cgroup")
# proc_pid_limits(5); what has no name here is the daemon's own.
_LIMITS = {
    "Max cpu time": resource.RLIMIT_CPU,
    "Max file size": resource.RLIMIT_FSIZE,
    "Max data size": resource.RLIMIT_DATA,
    "Max stack size": resource.RLIMIT_STACK,
    "Max core file size": resource.RLIMIT_CORE,
    "Max resident set": resource.RLIMIT_RSS,
    "Max processes": resource.RLIMIT_NPROC,
    "Max open files": resource.RLIMIT_NOFILE,
    "Max locked memory": resource.RLIMIT_MEMLOCK,
    "Max address space": resource.RLIMIT_AS,
    "Max pending signals": resource.RLIMIT_SIGPENDING,
    "Max msgqueue size": resource.RLIMIT_MSGQUEUE,
    "Max nice priority": resource.RLIMIT_NICE,
    "Max realtime priority": resource.RLIMIT_RTPRIO,
}
_LIMIT = re.compile(r"(Max [a-z ]+?) {2,}(unlimited|[0-9]+) +(unlimited|[0-9]+)\b.*")
_LOADS_CODE = re.compile(
    r"LD_.*|GCONV_PATH|GLIBC_TUNABLES|LOCPATH|PYTHON.*|BASH_ENV|ENV|NODE_.*|RUBY(LIB|OPT)|PERL5?.*"
    r"|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|BASH_FUNC_.*|PHPRC|PHP_INI_SCAN_DIR|LUA_.*"
)


def check_environment(environment: Mapping[str, str]) -> None:
    """Check that no variable makes a loader or interpreter run code that is not measured.

    The names of those that are known; an agent's own way to load code is the agent's.

    Raises:
        LaunchRefused: one does.
    """
    for name in environment:
        if _LOADS_CODE.fullmatch(name):
            raise LaunchRefused(
                f"environment has {name!r}, by which code is run that nobody measured"
            )


def check_requester(process: PinnedProcess, status: Status) -> None:
    """Check that a process of the daemon's own children could stand in for one of its children.

    Raises:
        LaunchRefused: it is root, has capabilities, or is confined in a way that would be lost.
        CallerRefused: it cannot be told.
    """
    reason = almighty(status)
    if reason is not None:
        raise LaunchRefused(
            f"process {process.pid} may have nothing started: {reason}",
            hint="ask as the user that the agent is to run as",
        )
    for name in _NAMESPACES:
        if Path(f"/proc/self/ns/{name}").exists() and not process.same_namespace(name):
            raise LaunchRefused(f"process {process.pid} is in a {name} namespace of its own")
    if status.seccomp:
        raise LaunchRefused(f"process {process.pid} has a system call filter that would be lost")
    if _label(process.read) != _label(_own):
        raise LaunchRefused(f"process {process.pid} has a security label that would be lost")


class Launched:
    """One agent that the daemon has started; for several threads.

    Attributes:
        process: the process itself, held.
        requester: who asked for it: uid and gid are those that it runs as.
        request: what was asked for.
    """

    def __init__(
        self, child: subprocess.Popen[bytes], requester: Caller, request: LaunchRequest
    ) -> None:
        self._child = child
        self.requester = requester
        self.request = request
        # A child's number is not given to another process before somebody waits for it.
        self.process = PinnedProcess.of_pid(child.pid)

    def signal(self, number: int) -> None:
        """Send it one of ``FORWARDED``.

        Raises:
            CallerGone: it has ended.
            LaunchRefused: not one that is forwarded.
        """
        if number not in FORWARDED:
            raise LaunchRefused(f"signal {number} is not forwarded")
        self.process.signal(number)

    def wait(self, seconds: float | None = None) -> int | None:
        """Its exit code, or minus the number of the signal that ended it; None while it runs."""
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, grace: float = GRACE) -> None:
        """Ask it to end, and end it if it does not in time. Its children are init's then."""
        for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, None)):
            try:
                self.process.signal(number)
            except CallerGone:
                break
            if self.wait(seconds) is not None:
                break
        self.wait()


class Launcher:
    """Starts agents, and knows which processes are theirs; for several threads.

    Args:
        allow: asked before each start; measures the code, compares the command.
    """

    def __init__(self, allow: Allow) -> None:
        self._allow = allow
        self._lock = threading.Lock()
        self._launched: dict[int, Launched] = {}

    def launch(
        self, requester: Caller, request: LaunchRequest, descriptors: tuple[int, ...]
    ) -> Launched:
        """Start what is asked for, as the requester.

        Args:
            requester: who asks; it stays the caller's to close.
            request: what to start.
            descriptors: standard input, output, error and the directory; they stay open.

        Raises:
            LaunchRefused: it may not, or the command did not start.
            CallerGone, CallerChanged, CallerRefused: as ``Caller.check``.
            Exception: whatever ``allow`` raises.
        """
        status = requester.status()
        check_requester(requester.process, status)
        check_environment(request.environment)
        self._allow(requester, request)
        plan = _plan(requester, status, request)
        requester.check()  # all that was read for the plan was read of it
        launched = _started(plan, descriptors, requester, request)
        with self._lock:
            self._launched[launched.process.pid] = launched
        return launched

    def launched_of(self, caller: Caller) -> Launched | None:
        """The launch that a process belongs to: it was started, or has a parent that was.

        Raises:
            CallerGone, CallerChanged, CallerRefused: as ``Caller.check``.
        """
        with self._lock:
            launched = dict(self._launched)
        found = _ancestor(caller.process, launched)
        caller.check()
        return found

    def forget(self, launched: Launched) -> None:
        """Forget one that has ended: what is left of its children belongs to nobody."""
        with self._lock:
            self._launched.pop(launched.process.pid, None)
        launched.process.close()


def _ancestor(process: PinnedProcess, launched: Mapping[int, Launched]) -> Launched | None:
    held: list[PinnedProcess] = []
    here = process
    try:
        for _ in range(MAX_ANCESTORS):
            birth = launched.get(here.pid)
            if birth is not None and birth.process.start_time == here.start_time:
                birth.process.check_running()
                return birth
            parent = here.stat().parent
            if parent <= 1 or parent == os.getpid():
                return None
            above = PinnedProcess.of_pid(parent)
            held.append(above)
            # Still its parent, and still there: so it was this one that was held.
            if here.stat().parent != parent or above.start_time > here.start_time:
                return None
            above.check_running()
            here.check_running()
            here = above
    except CallerGone:
        return None
    else:
        return None
    finally:
        for each in held:
            each.close()


def _plan(requester: Caller, status: Status, request: LaunchRequest) -> dict[str, Any]:
    process = requester.process
    with looking():
        return {
            "command": list(request.command),
            "environment": dict(request.environment),
            "uid": requester.uid,
            "gid": requester.gid,
            "groups": sorted(status.groups),
            "umask": status.umask,
            "cgroups": _cgroups(process.read("cgroup"), _own("cgroup")),
            "oom_score_adj": int(process.read("oom_score_adj")),
            "nice": os.getpriority(os.PRIO_PROCESS, process.pid),
            "affinity": sorted(os.sched_getaffinity(process.pid)),
            "limits": parse_limits(process.read("limits")),
        }


def parse_limits(text: str) -> list[tuple[int, tuple[int, int]]]:
    """Read ``/proc/<pid>/limits``: each limit's number with its soft and hard value.

    Raises:
        LaunchRefused: one is missing.
    """
    lines = {found[1]: found for line in text.splitlines() if (found := _LIMIT.fullmatch(line))}
    if not lines.keys() >= _LIMITS.keys():
        raise LaunchRefused("limits of the requester are not of the documented form")
    return [
        (number, (_limit(lines[name][2]), _limit(lines[name][3])))
        for name, number in _LIMITS.items()
    ]


def _limit(text: str) -> int:
    return resource.RLIM_INFINITY if text == "unlimited" else int(text)


def _cgroups(theirs: str, ours: str) -> list[str]:
    """The files by which a process gets into the requester's cgroups."""
    files = []
    for line in sorted(set(theirs.splitlines()) - set(ours.splitlines())):
        _, controllers, path = line.split(":", 2)
        folder = controllers.removeprefix("name=") or "unified"
        hierarchy = _CGROUPS / folder if (_CGROUPS / folder).is_dir() else _CGROUPS
        procs = hierarchy / path.lstrip("/") / "cgroup.procs"
        if ".." in path.split("/") or not procs.exists():
            raise LaunchRefused(f"the requester's cgroup {path[:200]!r} cannot be joined")
        files.append(str(procs))
    return files


def _started(
    plan: dict[str, Any],
    descriptors: tuple[int, ...],
    requester: Caller,
    request: LaunchRequest,
) -> Launched:
    directory = descriptors[3]
    plan_read, plan_write = os.pipe()
    error_read, error_write = os.pipe()
    with os.fdopen(error_read, "rb") as errors:
        with os.fdopen(plan_write, "w") as planned:
            try:
                child = subprocess.Popen(
                    [
                        *(sys.executable, "-I", "-S", launch_child.__file__),
                        *map(str, (plan_read, error_write, directory)),
                    ],
                    stdin=descriptors[0],
                    stdout=descriptors[1],
                    stderr=descriptors[2],
                    pass_fds=(plan_read, error_write, directory),
                    env={},
                    cwd="/",
                )
            finally:
                os.close(plan_read)
                os.close(error_write)
            # Held before it has a plan: so it cannot have ended yet, unless something is wrong.
            launched = _held(child, requester, request)
            with suppress(BrokenPipeError):
                json.dump(plan, planned)
                planned.flush()
        # Closed by the exec, and by nothing before it.
        said = errors.read()
    if said:
        child.wait()
        launched.process.close()
        raise LaunchRefused(f"the command did not start: {said.decode(errors='replace')}")
    return launched


def _held(child: subprocess.Popen[bytes], requester: Caller, request: LaunchRequest) -> Launched:
    try:
        return Launched(child, requester, request)
    except BaseException:
        child.kill()
        child.wait()
        raise


def _label(read: Callable[[str], str]) -> str | None:
    try:
        return read("attr/current").strip("\0\n")
    except (CallerRefused, OSError):
        return None  # no security module gives labels


def _own(name: str) -> str:
    return Path(f"/proc/self/{name}").read_text()

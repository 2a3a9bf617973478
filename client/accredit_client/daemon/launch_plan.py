"""What one launch is started with: read of its requester, and of the entry that grants it.

``check_requester`` is first: an ordinary process that lives where the daemon lives. ``plan_of`` is
what ``launch_init`` is told. Nothing is started here, and nothing is believed before the requester
is checked once more.
"""

import os
import pwd
import re
import resource
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accredit_client.daemon.agents import AgentEntry
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.launch_settings import LaunchSettings
from accredit_client.daemon.process import PinnedProcess, Status, looking
from accredit_client.daemon.writers import almighty
from accredit_client.errors import CallerRefused, LaunchRefused

_NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time")
_CGROUPS = Path("/sys/fs/cgroup")
_UMASK = 0o077
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a requester has said.

    Attributes:
        command: as the entry allows it.
        environment: all of it.
        connection: to it, on which its standard input, output and error are the next to come; they
            are the agent's process's to take, and never the daemon's.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    connection: socket.socket


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
            hint="ask as an ordinary user",
        )
    for name in _NAMESPACES:
        if Path(f"/proc/self/ns/{name}").exists() and not process.same_namespace(name):
            raise LaunchRefused(f"process {process.pid} is in a {name} namespace of its own")
    if not process.same_root():
        raise LaunchRefused(f"process {process.pid} has a root directory of its own")
    if status.seccomp:
        raise LaunchRefused(f"process {process.pid} has a system call filter that would be lost")
    if _label(process.read) != _label(_own):
        raise LaunchRefused(f"process {process.pid} has a security label that would be lost")


def plan_of(entry: AgentEntry, requester: Caller, status: Status, start: Start) -> dict[str, Any]:
    """What ``launch_init`` is told."""
    launch, process = entry.launch, requester.process
    if launch is None:
        raise LaunchRefused(f"{entry.agent} is not started by the daemon")
    with looking():
        plan: dict[str, Any] = {
            "command": list(start.command),
            "directory": entry.code_root,
            "environment": dict(start.environment),
            "cgroups": _cgroups(process.read("cgroup"), _own("cgroup")),
            "oom_score_adj": int(process.read("oom_score_adj")),
        }
        if launch.user:
            return plan | _account(launch) | _own_conditions()
        return plan | {
            "uid": requester.uid,
            "gid": requester.gid,
            "groups": sorted(status.groups),
            "umask": status.umask,
            "nice": os.getpriority(os.PRIO_PROCESS, process.pid),
            "affinity": sorted(os.sched_getaffinity(process.pid)),
            "limits": parse_limits(process.read("limits")),
        }


def _account(launch: LaunchSettings) -> dict[str, Any]:
    try:
        found = pwd.getpwnam(launch.user)
    except KeyError:
        raise LaunchRefused(f"there is no user {launch.user} on this host") from None
    groups = os.getgrouplist(found.pw_name, found.pw_gid)
    if found.pw_uid == 0 or 0 in {found.pw_gid, *groups}:
        raise LaunchRefused(f"{launch.user} is root, or of root's group: nothing runs as that")
    return {"uid": found.pw_uid, "gid": found.pw_gid, "groups": sorted(groups)}


def _own_conditions() -> dict[str, Any]:
    """The daemon's: a requester has no say in the limits of who it is not."""
    return {
        "umask": _UMASK,
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "affinity": sorted(os.sched_getaffinity(0)),
        "limits": [],
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
    # By line feeds alone: of other ends of lines a name that a user chose may have any.
    for line in sorted(set(theirs.split("\n")) - set(ours.split("\n"))):
        _, controllers, path = line.split(":", 2)
        folder = controllers.removeprefix("name=") or "unified"
        hierarchy = _CGROUPS / folder if (_CGROUPS / folder).is_dir() else _CGROUPS
        procs = hierarchy / path.lstrip("/") / "cgroup.procs"
        if ".." in path.split("/") or not procs.exists():
            raise LaunchRefused(f"the requester's cgroup {path[:200]!r} cannot be joined")
        files.append(str(procs))
    return files


def _label(read: Callable[[str], str]) -> str | None:
    try:
        return read("attr/current").strip("\0\n")
    except (CallerRefused, OSError):
        return None  # no security module gives labels


def _own(name: str) -> str:
    return Path(f"/proc/self/{name}").read_text()

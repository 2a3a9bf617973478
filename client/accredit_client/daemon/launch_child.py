"""The process that becomes the agent: run as a script, by the daemon's interpreter, as root.

It reads its plan, gives up everything that the requester does not have, looks whether that is so,
and becomes the command. Nothing of what it imports is read after it stopped being root. What goes
wrong is written to the second descriptor, which closes by itself when the command starts.

    python -I -S launch_child.py PLAN-DESCRIPTOR ERROR-DESCRIPTOR DIRECTORY-DESCRIPTOR
"""

import ctypes
import json
import os
import platform
import resource
import signal
import sys
from pathlib import Path
from typing import Any

_PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 24, 36, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITIES = 64
_CAPABILITY_VERSION_3 = 0x20080522
_KEYCTL_JOIN_SESSION_KEYRING = 1
_SYS_KEYCTL = {"x86_64": 250}  # 219 in the table that all newer architectures share
_FAILED = 127


def main() -> None:
    """Become the command of the plan, or say why not and end."""
    plan_descriptor, errors, directory = map(int, sys.argv[1:4])
    try:
        with os.fdopen(plan_descriptor) as file:
            plan = json.load(file)
        os.set_inheritable(errors, False)
        become(plan)
        # Only now: as the agent's user, who must be allowed to be there.
        os.fchdir(directory)
        os.close(directory)
        os.execve(plan["command"][0], plan["command"], plan["environment"])  # noqa: S606 (no shell)
    except Exception as error:  # noqa: BLE001 (whatever it is, the command does not start)
        os.write(errors, f"{type(error).__name__}: {error}"[:1000].encode())
    os._exit(_FAILED)


def become(plan: dict[str, Any]) -> None:
    """Be in the requester's place, with no more than it has."""
    libc = ctypes.CDLL(None, use_errno=True)
    for procs in plan["cgroups"]:
        Path(procs).write_text("0")
    own = int(Path("/proc/self/oom_score_adj").read_text())
    if plan["oom_score_adj"] > own:  # never harder to kill than the requester
        Path("/proc/self/oom_score_adj").write_text(str(plan["oom_score_adj"]))
    os.setsid()
    _call(libc.syscall(_keyctl(), _KEYCTL_JOIN_SESSION_KEYRING, None) >= 0, "a session keyring")
    os.setpriority(os.PRIO_PROCESS, 0, plan["nice"])
    os.sched_setaffinity(0, plan["affinity"])
    for number, limits in plan["limits"]:
        _limit(number, *limits)
    os.umask(plan["umask"])
    _call(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0, "being a subreaper")
    _call(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no new privileges")
    for each in range(_CAPABILITIES):
        if libc.prctl(_PR_CAPBSET_DROP, each, 0, 0, 0) != 0:
            break  # the kernel knows no more
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    os.setgroups(plan["groups"])
    os.setresgid(*[plan["gid"]] * 3)
    os.setresuid(*[plan["uid"]] * 3)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _call(libc.capset(header, (ctypes.c_uint32 * 6)()) == 0, "giving up capabilities")
    for each in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and so would the command
        signal.signal(each, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    _check(plan)


def _limit(number: int, soft: int, hard: int) -> None:
    """The requester's limit; or ours, where it is lower and we may not raise it."""
    try:
        resource.setrlimit(number, (soft, hard))
    except (OSError, ValueError):
        _, ours = resource.getrlimit(number)
        lower = [each for each in (soft, ours) if each != resource.RLIM_INFINITY]
        resource.setrlimit(number, (min(lower, default=ours), ours))


def _check(plan: dict[str, Any]) -> None:
    text = Path("/proc/self/status").read_text()
    lines = dict(line.partition(":")[::2] for line in text.splitlines())
    expected = {
        "Uid": [plan["uid"]] * 4,
        "Gid": [plan["gid"]] * 4,
        "Groups": sorted(plan["groups"]),
        "NoNewPrivs": [1],
    }
    for name, numbers in expected.items():
        if sorted(map(int, lines[name].split())) != numbers:
            raise PermissionError(f"{name} is {lines[name].split()}, and not {numbers}")
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if int(lines[name], 16):
            raise PermissionError(f"{name} is {lines[name].strip()}, and not empty")


def _keyctl() -> int:
    return _SYS_KEYCTL.get(platform.machine(), 219)


def _call(succeeded: bool, what: str) -> None:
    if not succeeded:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()

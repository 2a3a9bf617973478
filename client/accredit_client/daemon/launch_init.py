"""The process between the daemon and one launched agent: run as a script, as root.

It forks. The child gives up everything that the agent is not to have, looks whether that is so,
waits for the daemon's word (it is measured meanwhile), and becomes the command. Nothing of what it
imports is read after it stopped being root.

This one stays, for three things that only a parent can do: it tells the child's end; whatever is
orphaned below the child is given to it by the kernel, whichever way it was started, so that the
parents of each process of a launch lead here; and nothing of a launch outlives it. The agent's user
cannot end it.

    python -I -S launch_init.py PLAN CONTROL STATUS

``PLAN``: one JSON object, read to its end. ``CONTROL``, read byte by byte: ``GO``, ``STOP``, or the
number of a signal for the child; its end is ``STOP`` as well. ``STATUS``, written: lines of JSON,
``{"ready": PID}``, ``{"started": PID}``, and ``{"exited": CODE}`` or ``{"killed": NUMBER}``; or
``{"failed": WHY}`` in the place of one of the first two.
"""

import ctypes
import json
import os
import platform
import resource
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

GO, STOP = 0, 255
"""Bytes of ``CONTROL``; what is between them is the number of a signal."""
LAST = 5.0
"""Seconds that what is left has to end, once it was killed."""

_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER = 1, 24, 36
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_CAPABILITIES = 64
_CAPABILITY_VERSION_3 = 0x20080522
_KEYCTL_JOIN_SESSION_KEYRING = 1
_SYS_KEYCTL = {"x86_64": 250}  # 219 in the table that all newer architectures share
_FAILED = 127
_READY = b"."
_PAUSE = 0.02  # seconds between two looks, at the end only

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Have one agent run, and end after it."""
    plan_descriptor, control, status = map(int, sys.argv[1:4])
    with os.fdopen(plan_descriptor) as file:
        plan = json.load(file)
    _call(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0, "being a subreaper")
    go_read, go_write = os.pipe()
    said_read, said_write = os.pipe()
    child = os.fork()
    if child == 0:
        for each in (control, status, go_write, said_read):
            os.close(each)
        _child(plan, go_read, said_write)
    for each in (go_read, said_write):
        os.close(each)
    keeper = Keeper(child, control, status, grace=plan["grace"])
    if keeper.begun(go_write, said_read):
        keeper.keep()
    else:
        keeper.end_all()


class Keeper:
    """What the parent does.

    Args:
        child: the process that becomes the agent.
        control: where the daemon's word comes from.
        status: where the daemon is told.
        grace: seconds between asking the child to end and ending it.
    """

    def __init__(self, child: int, control: int, status: int, *, grace: float) -> None:
        self._child = child
        self._control = control
        self._status = status
        self._grace = grace
        self._result: int | None = None
        woken_read, woken_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._woken = woken_read
        self._stopping = False
        signal.set_wakeup_fd(woken_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # systemd asks each process of the daemon's unit by itself.
        signal.signal(signal.SIGTERM, self._asked_to_stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        for each in (0, 1, 2):  # the requester's: it must see their end when the agent closes them
            os.dup2(null, each)

    def begun(self, go: int, said: int) -> bool:
        """See the child through to its command; whether it runs."""
        first = self._heard(said)
        if first != _READY:
            return first is not None and self._failed(said)
        self._tell(ready=self._child)
        if os.read(self._control, 1) != bytes([GO]):
            return False
        with suppress(BrokenPipeError):  # its user has ended it: that is told below
            os.write(go, _READY)
        first = self._heard(said)
        if first != b"":  # closed by the exec
            return first is not None and self._failed(said)
        self._tell(started=self._child)
        return True

    def keep(self) -> None:
        """Pass on what the daemon says, until the child has ended; then end what is left."""
        waiting = select.poll()
        for each in (self._control, self._woken):
            waiting.register(each, select.POLLIN)
        asked: float | None = None
        while self._result is None:
            timeout = None if asked is None else _PAUSE * 1000
            for descriptor, _ in waiting.poll(timeout):
                if descriptor == self._control:
                    said = os.read(self._control, 1)
                    if not said:
                        waiting.unregister(self._control)
                    self._told(said[0] if said else STOP)
                else:
                    os.read(self._woken, 4096)
            self._reap()
            now = time.monotonic()
            if self._stopping and asked is None:
                asked = now
                self._send(signal.SIGTERM)
                self._send(signal.SIGCONT)
            if asked is not None and now >= asked + self._grace:
                self._send(signal.SIGKILL)
            if asked is not None and now >= asked + self._grace + LAST:
                break  # the kernel does not let it go; when it does, it dies with us
        self.end_all()
        result = -signal.SIGKILL if self._result is None else self._result
        self._tell(**({"exited": result} if result >= 0 else {"killed": -result}))

    def end_all(self) -> None:
        """End whatever is below us; what is below that becomes ours meanwhile."""
        end = time.monotonic() + LAST
        while time.monotonic() < end:
            below = _children()
            for each in below:
                os.kill(each, signal.SIGKILL)  # ours until it is waited for: nobody else's number
            self._reap()
            if not below:
                return
            time.sleep(_PAUSE)

    def _heard(self, said: int) -> bytes | None:
        """The child's next byte; empty at its end, None where the daemon is gone."""
        waiting = select.poll()
        for each in (said, self._control):
            waiting.register(each, select.POLLIN)
        while True:
            ready = dict(waiting.poll())
            if said in ready:
                return os.read(said, 1)
            if ready.get(self._control, 0) & select.POLLHUP:
                # A child in a frozen cgroup, say, would be waited for without end.
                os.kill(self._child, signal.SIGKILL)
                return None
            waiting.unregister(self._control)  # a word that comes early is read in its time

    def _told(self, number: int) -> None:
        if number == STOP:
            self._stopping = True
        elif number != GO:
            self._send(number)

    def _asked_to_stop(self, *_: object) -> None:
        self._stopping = True

    def _send(self, number: int) -> None:
        if self._result is None:
            os.kill(self._child, number)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._child:
                self._result = os.waitstatus_to_exitcode(status)

    def _failed(self, said: int) -> bool:
        text = b""
        while chunk := os.read(said, 4096):
            text += chunk
        self._tell(failed=text.decode(errors="replace") or "it ended before it had begun")
        return False

    def _tell(self, **what: int | str) -> None:
        try:
            os.write(self._status, json.dumps(what).encode() + b"\n")
        except BrokenPipeError:
            self._stopping = True  # the daemon is gone


def _children() -> list[int]:
    """Whose parent we are; not every kernel has a list of them (CONFIG_PROC_CHILDREN)."""
    own, found = os.getpid(), []
    for name in os.listdir("/proc"):  # noqa: PTH208 (nothing more is imported here)
        if not name.isdecimal():
            continue
        try:
            text = Path(f"/proc/{name}/stat").read_text(errors="replace")
        except OSError:
            continue
        state, parent = text.rpartition(")")[2].split()[:2]
        if int(parent) == own and state != "Z":
            found.append(int(name))
    return found


def _child(plan: dict[str, Any], go: int, said: int) -> None:
    """Become the command of the plan, or say why not and end."""
    parent = os.getppid()
    try:
        become(plan)
        # Were the parent gone, nobody would know whose this is. Reset by each change of the user.
        _call(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0, "ending with ours")
        # Only now: as the agent's user, who must be allowed to be there.
        os.chdir(plan["directory"])
        os.write(said, _READY)
        if os.read(go, 1) and os.getppid() == parent:
            os.execve(plan["command"][0], plan["command"], plan["environment"])  # noqa: S606 (no shell)
    except Exception as error:  # noqa: BLE001 (whatever it is, the command does not start)
        # The first byte says that it is not ready, or has not started.
        os.write(said, f" {type(error).__name__}: {error}"[:1000].encode())
    os._exit(_FAILED)


def become(plan: dict[str, Any]) -> None:
    """Be in the agent's place, with no more than it is to have."""
    for procs in plan["cgroups"]:
        Path(procs).write_text("0")
    own = int(Path("/proc/self/oom_score_adj").read_text())
    if plan["oom_score_adj"] > own:  # never harder to kill than the requester
        Path("/proc/self/oom_score_adj").write_text(str(plan["oom_score_adj"]))
    os.setsid()
    _call(_libc.syscall(_keyctl(), _KEYCTL_JOIN_SESSION_KEYRING, None) >= 0, "a session keyring")
    os.setpriority(os.PRIO_PROCESS, 0, plan["nice"])
    os.sched_setaffinity(0, plan["affinity"])
    for number, limits in plan["limits"]:
        _limit(number, *limits)
    os.umask(plan["umask"])
    _call(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no new privileges")
    for each in range(_CAPABILITIES):
        if _libc.prctl(_PR_CAPBSET_DROP, each, 0, 0, 0) != 0:
            break  # the kernel knows no more
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    os.setgroups(plan["groups"])
    os.setresgid(*[plan["gid"]] * 3)
    os.setresuid(*[plan["uid"]] * 3)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _call(_libc.capset(header, (ctypes.c_uint32 * 6)()) == 0, "giving up capabilities")
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them; the command would, too
        signal.signal(number, signal.SIG_DFL)
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

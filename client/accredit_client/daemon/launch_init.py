"""The process between the daemon and one launched agent: run as a script, as root.

It forks. The child gives up everything that the agent is not to have, looks whether that is so,
waits for the daemon's word (it is measured meanwhile), and becomes the command. Nothing of what it
imports is read after it stopped being root.

This one stays, for three things that only a parent can do: it tells the child's end; whatever is
orphaned below the child is given to it by the kernel, whichever way it was started, so that the
parents of each process of a launch lead here; and nothing of a launch outlives it. The agent's user
cannot end it.

    python -I -S launch_init.py PLAN CONTROL STATUS REQUESTER

``PLAN``: one JSON object, read to its end. ``CONTROL``, read byte by byte: ``GO``, ``STOP``, or the
number of a signal for the child; its end is ``STOP`` as well. ``STATUS``, written: lines of JSON,
``{"ready": PID}``, ``{"started": PID}``, and ``{"exited": CODE}`` or ``{"killed": NUMBER}``; or
``{"failed": WHY}`` in the place of one of the first two. ``REQUESTER``: a socket, on which one byte
with the agent's standard input, output and error comes; its own process takes them, as its user.
"""

import ctypes
import json
import math
import os
import platform
import resource
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

GO, STOP = 0, 255
"""Bytes of ``CONTROL``; what is between them is the number of a signal."""
LAST = 5.0
"""Seconds after which the end is told, even where something that was killed has not ended."""

_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER = 1, 24, 36
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_CAPABILITIES = 64
_CAPABILITY_VERSION_3 = 0x20080522
_KEYCTL_JOIN_SESSION_KEYRING = 1
_SYS_KEYCTL = {"x86_64": 250}  # 219 in the table that all newer architectures share
_FAILED = 127
_STANDARD = (0, 1, 2)
_READY = b"."
_PAUSE, _LONGEST_PAUSE = 0.02, 1.0  # seconds between two looks at what is left, where nothing ends

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Have one agent run, and end after it."""
    plan_descriptor, control, status, requester = map(int, sys.argv[1:5])
    with os.fdopen(plan_descriptor) as file:
        plan = json.load(file)
    _call(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0, "being a subreaper")
    go_read, go_write = os.pipe()
    said_read, said_write = os.pipe()
    child = os.fork()
    if child == 0:
        for each in (control, status, go_write, said_read):
            os.close(each)
        _child(plan, go_read, said_write, requester)
    for each in (go_read, said_write, requester):
        os.close(each)
    keeper = Keeper(child, control, status, grace=plan["grace"])
    if keeper.begun(go_write, said_read):
        keeper.keep()
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

    def begun(self, go: int, said: int) -> bool:
        """See the child through to its command; whether it runs.

        The child may be stopped by its user meanwhile: the daemon is listened to all the time.
        """
        if not self._says(said):
            return False
        if os.read(said, 1) != _READY:
            return self._failed(said)
        self._tell(ready=self._child)
        if os.read(self._control, 1) != bytes([GO]):
            return False
        with suppress(BrokenPipeError):  # its user has ended it: that is told below
            os.write(go, _READY)
        if not self._says(said):
            return False
        if os.read(said, 1):  # closed by the exec
            return self._failed(said)
        self._tell(started=self._child)
        return True

    def keep(self) -> None:
        """Pass on what the daemon says, until the child has ended; then end what is left."""
        deadline = math.inf
        waiting = select.poll()
        for each in (self._control, self._woken):
            waiting.register(each, select.POLLIN)
        while self._result is None and (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in waiting.poll(None if left == math.inf else left * 1000):
                if descriptor == self._control:
                    said = os.read(self._control, 1)
                    if not said:
                        waiting.unregister(self._control)
                    self._told(said[0] if said else STOP)
                else:
                    os.read(self._woken, 4096)
            if self._stopping and deadline == math.inf:
                self._send(signal.SIGTERM)
                self._send(signal.SIGCONT)
                deadline = time.monotonic() + self._grace
            self._reap()
        self.end_all(LAST)
        result = -signal.SIGKILL if self._result is None else self._result
        self._tell(**({"exited": result} if result >= 0 else {"killed": -result}))

    def end_all(self, seconds: float = math.inf) -> None:
        """End whatever is below us; what is below that becomes ours meanwhile.

        Only the kernel knows whether anything is left: what forks and ends without a pause is in no
        list of processes, and yet always a child of ours. So it is looked for without a pause, too.
        """
        end, pause = time.monotonic() + seconds, _PAUSE
        waiting = select.poll()
        waiting.register(self._woken, select.POLLIN)
        while self._reap() and time.monotonic() < end:
            _kill_children()
            if waiting.poll(pause * 1000):
                os.read(self._woken, 4096)
                pause = _PAUSE
            else:
                pause = min(2 * pause, _LONGEST_PAUSE)  # killed already, and held up in the kernel

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

    def _reap(self) -> bool:
        """Wait for those that have ended; whether any are left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._child:
                self._result = os.waitstatus_to_exitcode(status)

    def _says(self, said: int) -> bool:
        """Wait for the child's next word; whether it comes before one of the daemon's."""
        waiting = select.poll()
        for each in (said, self._control):
            waiting.register(each, select.POLLIN)
        return said in [descriptor for descriptor, _ in waiting.poll()]

    def _failed(self, said: int) -> bool:
        text = os.read(said, 4096)  # written at once; its end may be long in coming
        self._tell(failed=text.decode(errors="replace") or "it ended before it had begun")
        return False

    def _tell(self, **what: int | str) -> None:
        try:
            os.write(self._status, json.dumps(what).encode() + b"\n")
        except BrokenPipeError:
            self._stopping = True  # the daemon is gone


def _kill_children() -> None:
    """Kill each whose parent we are; not every kernel has a list of them (CONFIG_PROC_CHILDREN).

    The newest first, and at once: a process that forks and ends may not live for a whole look.
    """
    own = str(os.getpid())
    for name in reversed(os.listdir("/proc")):  # noqa: PTH208 (nothing more is imported here)
        if not name.isdecimal():
            continue
        with suppress(OSError):
            descriptor = os.open(f"/proc/{name}/stat", os.O_RDONLY)
            try:
                text = os.read(descriptor, 4096)
            finally:
                os.close(descriptor)
            if text.rpartition(b")")[2].split()[1].decode() == own:
                # Ours until it is waited for: nobody else's number.
                os.kill(int(name), signal.SIGKILL)


def _child(plan: dict[str, Any], go: int, said: int, requester: int) -> None:
    """Become the command of the plan, or say why not and end."""
    parent = os.getppid()
    try:
        become(plan)
        # Were the parent gone, nobody would know whose this is. Reset by each change of the user.
        _call(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0, "ending with ours")
        # Only now: as the agent's user, who must be allowed to be there, and who may have to wait.
        _take_standard(requester)
        os.chdir(plan["directory"])
        os.write(said, _READY)
        if os.read(go, 1) and os.getppid() == parent:
            os.execve(plan["command"][0], plan["command"], plan["environment"])  # noqa: S606 (no shell)
    except Exception as error:  # noqa: BLE001 (whatever it is, the command does not start)
        # The first byte says that it is not ready, or has not started.
        os.write(said, f" {type(error).__name__}: {error}"[:1000].encode())
    os._exit(_FAILED)


def _take_standard(requester: int) -> None:
    """Have the requester's standard input, output and error."""
    waiting = select.poll()
    waiting.register(requester, select.POLLIN)
    waiting.poll()
    with socket.socket(fileno=requester) as connection:
        said, descriptors, flags, _ = socket.recv_fds(connection, 1, len(_STANDARD) + 1)
    if not said or len(descriptors) != len(_STANDARD) or flags & socket.MSG_CTRUNC:
        raise ValueError("its requester did not send standard input, output and error")
    for number, each in zip(_STANDARD, descriptors, strict=True):
        os.dup2(each, number)
        os.close(each)


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

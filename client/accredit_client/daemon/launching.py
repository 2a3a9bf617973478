"""Starting an agent for a requester, so that the daemon knows it by birth and follows its children.

In this order: the requester is an ordinary process that lives where the daemon lives (a process
started by the daemon would otherwise leave the requester's container, or its system call filter) →
``launch_init`` is started with a plan, forks, and its child becomes the agent's user: the
requester's own, or the account of the entry, without any capability and for good
(``no_new_privs``) → that very process is measured → the command. Root starts nothing here.

A process is of a launch if its parents lead to that launch's ``launch_init``, each of them alive
and held while it is asked. Whatever way a process was made, an orphan's parent is ``launch_init``.
A requester under Landlock cannot be told from others: what it may have started is what root's file
says, word for word.
"""

import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from accredit_client.daemon import launch_init
from accredit_client.daemon.agents import AgentEntry
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.launch_plan import Start, check_requester, plan_of
from accredit_client.daemon.launch_wire import FORWARDED
from accredit_client.daemon.process import PinnedProcess
from accredit_client.errors import CallerGone, LaunchRefused

MAX_ANCESTORS = 64
"""Parents that are asked for on the way from a process to the one that was launched."""
WALKS = 3
"""Tries to follow them: a parent may end meanwhile."""
GRACE = 10.0
"""Seconds between asking an agent to end and ending it."""
START_SECONDS = 30.0
"""In which a process becomes the agent's user, and then the command."""
KILLED = 9

Judge = Callable[[Caller], None]
"""Asked of the process that is about to become the command; raises what refuses it."""


class Launched:
    """One agent that the daemon has started; for several threads.

    Attributes:
        entry: what it is started by.
        init: its ``launch_init``, held.
        pid: the process that becomes the command.
        why: why the daemon ended it; None where it did not.
    """

    def __init__(
        self, entry: AgentEntry, child: "subprocess.Popen[bytes]", control: int, status: int
    ) -> None:
        """Take the two descriptors over.

        Raises:
            CallerRefused: it cannot be held.
        """
        self.entry = entry
        self.why: str | None = None
        self.pid = 0
        self._child = child
        os.set_blocking(control, False)
        self._control: int | None = control
        self._status = os.fdopen(status, "rb")
        self._lock = threading.Lock()
        # A child's number is not given to another process before somebody waits for it.
        self.init = PinnedProcess.of_pid(child.pid)

    def fileno(self) -> int:
        """Readable when it has ended."""
        return self._status.fileno()

    @contextmanager
    def agent(self) -> Iterator[Caller]:
        """The agent's process as it is now, pinned.

        Raises:
            CallerGone, CallerRefused: it has ended, or cannot be told.
        """
        process = PinnedProcess.of_pid(self.pid)
        try:
            # Its number is its own for as long as its parent has not waited for it.
            if process.stat().parent != self.init.pid:
                raise CallerGone(f"process {self.pid} has ended")
            self.init.check_running()
            status = process.status()
            yield Caller(process, uid=status.uids[1], gid=status.gids[1])
        finally:
            process.close()

    def check_running(self) -> None:
        """Check that the agent has not ended.

        Raises:
            CallerGone, CallerRefused: it has, or cannot be told.
        """
        with self.agent():
            return

    def signal(self, number: int) -> None:
        """Have one of ``FORWARDED`` sent to it.

        Raises:
            LaunchRefused: not one that is forwarded.
        """
        if number not in FORWARDED:
            raise LaunchRefused(f"signal {number} is not forwarded")
        self._say(number)

    def stop(self, why: str | None = None) -> None:
        """Have it asked to end, and ended with all that it has started; does not wait."""
        if why is not None and self.why is None:
            self.why = why
        self._say(launch_init.STOP)

    def begin(self) -> None:
        """Let it become the command.

        Raises:
            LaunchRefused: the command did not start.
        """
        self._say(launch_init.GO)
        self._expect("started")

    def prepared(self) -> None:
        """Wait until it is the agent's user.

        Raises:
            LaunchRefused: it could not be.
        """
        self.pid = self._expect("ready")

    def wait(self) -> int:
        """Wait for its end: its exit code, or minus the number of the signal that ended it."""
        said = self._read()
        if type(said.get("exited")) is int:
            return int(said["exited"])
        return -int(said.get("killed", KILLED))  # whose launch_init was ended ended with it

    def close(self) -> None:
        """Let it go: ended, if it has not."""
        with self._lock:
            if self._control is not None:
                os.close(self._control)
                self._control = None
        self._child.wait()
        self._status.close()
        self.init.close()

    def _say(self, number: int) -> None:
        """Say one byte; nobody waits until it is read. The end of all of them is ``STOP``, too."""
        with self._lock:
            if self._control is None:
                return
            try:
                os.write(self._control, bytes([number]))
            except BrokenPipeError:
                return
            except BlockingIOError:
                if number == launch_init.STOP:
                    os.close(self._control)
                    self._control = None

    def _expect(self, what: str) -> int:
        waiting = select.poll()
        waiting.register(self._status, select.POLLIN)
        if not waiting.poll(START_SECONDS * 1000):
            raise LaunchRefused(f"the command did not start within {START_SECONDS:.0f} seconds")
        said = self._read()
        pid = said.get(what)
        if type(pid) is int:
            return int(pid)
        why = said.get("failed", "it ended before it had begun")
        raise LaunchRefused(f"the command did not start: {str(why).strip()}")

    def _read(self) -> dict[str, Any]:
        line = self._status.readline()
        return json.loads(line) if line.endswith(b"\n") else {}


class Launcher:
    """Starts agents, and knows which processes are theirs; for several threads.

    Args:
        grace: seconds between asking one to end and ending it.
    """

    def __init__(self, *, grace: float = GRACE) -> None:
        self._grace = grace
        self._lock = threading.Lock()
        self._launched: dict[int, Launched] = {}

    def __len__(self) -> int:
        return len(self._launched)

    def launch(
        self,
        entry: AgentEntry,
        requester: Caller,
        start: Start,
        judge: Judge,
    ) -> Launched:
        """Start an agent for a requester.

        Args:
            entry: by which it is granted.
            requester: who asks; it stays the caller's to close.
            start: what was asked for.
            judge: asked once the process is the agent's user, and before it runs anything.

        Raises:
            LaunchRefused: it may not, or the command did not start.
            CallerGone, CallerChanged, CallerRefused: as ``Caller.check``.
            Exception: whatever ``judge`` raises.
        """
        status = requester.status()
        check_requester(requester.process, status)
        plan = plan_of(entry, requester, status, start) | {"grace": self._grace}
        requester.check()  # all that was read for the plan was read of it
        launched = _started(entry, plan, start.connection)
        try:
            launched.prepared()
            with launched.agent() as agent:
                judge(agent)
            with self._lock:
                self._launched[launched.init.pid] = launched
            launched.begin()
        except BaseException:
            self.forget(launched)
            raise
        return launched

    def selectors(self, caller: Caller) -> frozenset[str]:
        """What birth says of a process: ``launched:…``, or nothing.

        Raises:
            CallerGone, CallerChanged, CallerRefused: as ``Caller.check``.
        """
        found = self.launched_of(caller)
        return frozenset() if found is None else found.entry.selectors

    def launched_of(self, caller: Caller) -> Launched | None:
        """The launch that a process belongs to, if any.

        Raises:
            CallerGone, CallerChanged, CallerRefused: as ``Caller.check``.
        """
        with self._lock:
            launched = dict(self._launched)
        found = None
        if launched:
            walks = (_ancestor(caller.process, launched) for _ in range(WALKS))
            found = next((each for each in walks if each is not None), None)
        caller.check()
        return found

    def forget(self, launched: Launched) -> None:
        """Forget one: nothing of it is left, and what was its is nobody's."""
        with self._lock:
            self._launched.pop(launched.init.pid, None)
        launched.close()


def _ancestor(process: PinnedProcess, launched: Mapping[int, Launched]) -> Launched | None:
    held: list[PinnedProcess] = []
    here = process
    try:
        for _ in range(MAX_ANCESTORS):
            birth = launched.get(here.pid)
            if birth is not None and birth.init.start_time == here.start_time:
                birth.init.check_running()
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


def _started(entry: AgentEntry, plan: dict[str, Any], connection: socket.socket) -> Launched:
    """A ``launch_init`` that has its plan."""
    plan_read, plan_write = os.pipe()
    control_read, control_write = os.pipe()
    status_read, status_write = os.pipe()
    passed = (plan_read, control_read, status_write)
    given = (*passed, connection.fileno())
    with os.fdopen(plan_write, "w") as planned:
        try:
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", launch_init.__file__, *map(str, given)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=given,
                env={},
                cwd="/",
            )
        except BaseException:
            for each in (control_write, status_read):
                os.close(each)
            raise
        finally:
            for each in passed:
                os.close(each)
        # Held before it has a plan: so it cannot have ended yet, unless something is wrong.
        try:
            launched = Launched(entry, child, control_write, status_read)
        except BaseException:
            child.kill()
            child.wait()
            os.close(control_write)
            raise
        with suppress(BrokenPipeError):
            json.dump(plan, planned)
            planned.flush()
    return launched

"""The socket on which agents are started: one connection an agent, for as long as it lives.

In this order: room for one more, in all and for its user → who asks, by the kernel's word, and that
some entry is for it → what is wanted, and the entry that grants it → its variables → started and
measured (``launching``) → its identity is had at once, so that it is known of before it asks →
signals are passed on, until it has ended. When the connection ends, the agent is ended; so it is
when its identity is taken back.
"""

import asyncio
import logging
import select
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from accredit_attestors.errors import AttestationError
from accredit_client.daemon.accounts import itself
from accredit_client.daemon.agents import (
    AgentEntry,
    check_may_launch,
    entry_to_launch,
    wants_program,
)
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.certifying import Measuring
from accredit_client.daemon.launch_plan import Start
from accredit_client.daemon.launch_wire import (
    parse_environment,
    parse_request,
    receive,
    send,
    socket_of,
)
from accredit_client.daemon.launching import Launched, Launcher
from accredit_client.daemon.provider import NotYet, Refused
from accredit_client.daemon.settings import InstanceLimits
from accredit_client.daemon.socket_file import Listening, listen
from accredit_client.daemon.workloads import Workload, Workloads
from accredit_client.effects import AsyncWaiter, Clock, TaskWaiter
from accredit_client.errors import CallerChanged, CallerRefused, ClientError, LaunchRefused
from accredit_client.workload.endpoint import SOCKET_VARIABLE

log = logging.getLogger(__name__)

BACKLOG = 128
REQUEST_SECONDS = 10.0
"""In which a requester must have said the next thing that it has to say."""
AGAIN = 1.0
"""Seconds until a process that became another program is asked for anew."""
LAST_LOOK = 1.0
"""Seconds for finding out, at its end, whether an agent's identity was taken back."""
STOP_SECONDS = 20.0
"""That what runs has to end when the daemon stops: more than ``launch_init`` takes."""


class LaunchService:
    """Serves the socket in the running event loop, each connection in a thread of its own.

    Args:
        entries: of the settings.
        launcher: who starts.
        workloads: who has identities.
        measurer: who measures.
        limits: how many agents may run.
        account_of: whom a user id counts for.
        workload_api: the Workload API's socket, which agents are told of.
        clock: the time.
        waiter: how a task waits.
    """

    def __init__(
        self,
        entries: Sequence[AgentEntry],
        launcher: Launcher,
        workloads: Workloads,
        *,
        measurer: Measuring,
        limits: InstanceLimits,
        workload_api: Path,
        clock: Clock,
        account_of: Callable[[int], int] = itself,
        waiter: Callable[[], AsyncWaiter] = TaskWaiter,
    ) -> None:
        self._entries = tuple(entries)
        self._launcher = launcher
        self._workloads = workloads
        self._measurer = measurer
        self._limits = limits
        self._workload_api = workload_api
        self._clock = clock
        self._account_of = account_of
        self._waiter = waiter
        self._listening: Listening | None = None
        self._open: dict[socket.socket, threading.Thread] = {}
        self._of_account: Counter[int] = Counter()

    @property
    def running(self) -> int:
        """How many agents run, or are about to."""
        return len(self._open)

    async def start(self) -> None:
        """Listen, beside the Workload API.

        Raises:
            SocketRefused: see ``socket_file.listen``.
        """
        self._loop = asyncio.get_running_loop()
        self._listening = listen(socket_of(self._workload_api), backlog=BACKLOG)
        self._loop.add_reader(self._listening.socket, self._accept)

    async def stop(self) -> None:
        """Stop: no new agent, and those that run are ended."""
        if self._listening is None:
            return
        self._loop.remove_reader(self._listening.socket)
        self._listening.close()
        self._listening = None
        threads = list(self._open.values())
        for each in tuple(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        end = self._loop.time() + STOP_SECONDS
        for thread in threads:
            await self._loop.run_in_executor(None, thread.join, max(0.0, end - self._loop.time()))

    # In the event loop

    def _accept(self) -> None:
        if self._listening is None:
            return
        try:
            connection, _ = self._listening.socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            log.error("cannot accept a requester: %s", error.strerror)  # noqa: TRY400 (one line)
            return
        try:
            requester = Caller.of(connection)
        except CallerRefused as error:
            log.warning("a requester was not served: %s", error)
            connection.close()
            return
        account = self._account_of(requester.uid)
        full = self._full(account)
        if full is not None:
            log.warning("process %d may have nothing more started: %s", requester.pid, full)
            connection.close()
            requester.close()
            return
        thread = threading.Thread(
            target=self._serve,
            args=(connection, requester, account),
            name=f"accredit-launch-{requester.pid}",
            daemon=True,
        )
        self._open[connection] = thread
        self._of_account[account] += 1
        thread.start()

    def _full(self, account: int) -> str | None:
        if len(self._open) >= self._limits.launches:
            return f"{self._limits.launches} agents are started on this host already"
        if self._of_account[account] >= self._limits.launches_of_uid:
            return f"user {account} has had {self._limits.launches_of_uid} started already"
        return None

    def _over(self, connection: socket.socket, account: int) -> None:
        del self._open[connection]
        connection.close()
        self._of_account[account] -= 1
        if not self._of_account[account]:
            del self._of_account[account]

    async def _identified(self, launched: Launched) -> None:
        """See to it that an agent has its identity, and ends with it."""
        waiter = self._waiter()
        try:
            while True:
                with suppress(CallerChanged), launched.agent() as agent:
                    await self._seen_to(launched, agent)
                launched.check_running()
                await waiter.wait(AGAIN)
        except Refused as refused:
            log.warning("process %d is ended: %s", launched.pid, refused)
            launched.stop(str(refused))
        except CallerRefused:
            return  # it has ended
        except Exception:
            log.exception("process %d is ended: it cannot be followed", launched.pid)
            launched.stop("the daemon failed")

    async def _seen_to(self, launched: Launched, agent: Caller) -> None:
        """The same, for as long as the process is this program.

        Raises:
            Refused: the agent is to end.
            CallerGone, CallerChanged, CallerRefused: it has ended, or is another program by now.
        """
        try:
            workload = await self._workloads.of(agent)
        except NotYet:
            return  # no room on this host at the moment
        except Refused:
            agent.check()
            raise
        await self._followed(launched, workload)

    async def _followed(self, launched: Launched, workload: Workload) -> None:
        """Return once the process has ended, or is another program.

        Raises:
            Refused: its identity was taken back, and it is to end with it.
        """
        entry = launched.entry
        ends = entry.launch is not None and entry.launch.ends_with_identity
        with workload.listening() as changed:
            while True:
                # It may have ended by itself, at its first refusal: that is no success either.
                why = workload.taken_back(entry, self._clock())
                if ends and why is not None:
                    raise Refused(why)
                if workload.gone is not None:
                    return
                await changed.wait()
                changed.clear()

    # In a thread of its own

    def _serve(self, connection: socket.socket, requester: Caller, account: int) -> None:
        connection.settimeout(REQUEST_SECONDS)
        try:
            with closing(requester):
                launched = self._launched(connection, requester)
            try:
                self._accompany(connection, launched)
            finally:
                self._launcher.forget(launched)
        except (ClientError, AttestationError) as error:
            log.warning("process %d has nothing started: %s", requester.pid, error)
            with suppress(OSError):
                send(connection, {"refused": str(error)})
        except OSError as error:
            log.warning("process %d is not served any more: %s", requester.pid, error.strerror)
        except Exception:
            log.exception("what process %d wanted started could not be", requester.pid)
        finally:
            with suppress(RuntimeError):  # the daemon has stopped without us
                self._loop.call_soon_threadsafe(self._over, connection, account)

    def _launched(self, connection: socket.socket, requester: Caller) -> Launched:
        # Who may have nothing started has no place, and is not listened to.
        selectors = self._selectors(requester)
        check_may_launch(self._entries, selectors)
        request = parse_request(self._heard(connection))
        entry = entry_to_launch(self._entries, request, selectors)
        start = Start(
            command=request.command,
            environment=self._environment(connection, entry),
            connection=connection,
        )
        launched = self._launcher.launch(
            entry, requester, start, lambda agent: self._judge(entry, agent, requester, start)
        )
        log.info("process %d is started as %s for %d", launched.pid, entry.agent, requester.pid)
        return launched

    def _heard(self, connection: socket.socket) -> dict[str, Any]:
        message = receive(connection, seconds=REQUEST_SECONDS)
        connection.settimeout(REQUEST_SECONDS)  # for what it is told
        if message is None:
            raise LaunchRefused("the requester has ended")
        return message

    def _selectors(self, requester: Caller) -> frozenset[str]:
        found = requester.selectors(program=False)
        wanted = [each.requesters for each in self._entries if each.launch is not None]
        return requester.selectors() if wants_program(wanted, found) else found

    def _environment(self, connection: socket.socket, entry: AgentEntry) -> dict[str, str]:
        names = entry.launch.environment if entry.launch is not None else ()
        send(connection, {"variables": list(names)})
        given = parse_environment(self._heard(connection), names)
        return {**given, SOCKET_VARIABLE: f"unix://{self._workload_api}"}

    def _judge(self, entry: AgentEntry, agent: Caller, requester: Caller, start: Start) -> None:
        digest = self._measurer.measure_to_start(
            agent,
            entry.code_root,
            entry.selection,
            requester=requester,
            program=start.command[0],
        )
        if not entry.measured_as_signed(digest):
            raise LaunchRefused(f"the code is not what was signed for {entry.agent}")

    def _accompany(self, connection: socket.socket, launched: Launched) -> None:
        identified = asyncio.run_coroutine_threadsafe(self._identified(launched), self._loop)
        try:
            with suppress(OSError):  # where nobody hears it, the agent ends below
                send(connection, {"started": launched.pid})
            self._pass_on(connection, launched)
            connection.settimeout(REQUEST_SECONDS)
            launched.stop()
            code = launched.wait()
            with suppress(TimeoutError):  # it may be told just now why that was
                identified.result(LAST_LOOK)
        finally:
            identified.cancel()
        log.info("process %d has ended with %d", launched.pid, code)
        with suppress(OSError):
            if launched.why is not None:
                send(connection, {"ending": launched.why})
            send(connection, {"exited": code} if code >= 0 else {"killed": -code})

    def _pass_on(self, connection: socket.socket, launched: Launched) -> None:
        """Pass signals on until the agent, or its requester, has ended."""
        waiting = select.poll()
        for each in (connection, launched):
            waiting.register(each, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in waiting.poll()]
            if launched.fileno() in ready:
                return
            try:
                message = receive(connection, seconds=REQUEST_SECONDS)
                if message is None or set(message) != {"signal"}:
                    return
                if type(message["signal"]) is not int:
                    return
                launched.signal(message["signal"])
            except (LaunchRefused, OSError):
                return  # what is not of the protocol ends it, as the connection's end does

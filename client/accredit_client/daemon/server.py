"""The daemon's socket: accepts, counts, binds each connection to its caller, and stops.

In the order of one connection: accepted → room for it, in all and for its user → identified by the
kernel's word (``identify``) → HTTP/2. Served are the Workload API, Envoy's SDS, our own calls,
reflection and health; these last two tell nothing of anybody and ask for no header. A connection
without calls is closed after a while. At the end, calls are told UNAVAILABLE and never OK.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from grpclib.const import Handler as Method
from grpclib.health.service import OVERALL, Health
from grpclib.reflection.service import ServerReflection

from accredit_client.daemon.accounts import itself
from accredit_client.daemon.connection import Connection
from accredit_client.daemon.limits import Limits
from accredit_client.daemon.own_calls import OwnCalls
from accredit_client.daemon.pace import Pace
from accredit_client.daemon.proto.pool import POOL
from accredit_client.daemon.provider import Caller, Provider
from accredit_client.daemon.sds import SecretDiscovery
from accredit_client.daemon.socket_file import Listening, listen
from accredit_client.daemon.workload_api import WorkloadApi

log = logging.getLogger(__name__)

ACCEPTED_AT_ONCE = 64
SWEEP_SECONDS = 15.0
PAUSE_SECONDS = 0.2  # where the process has no file descriptors left

Identify = Callable[[socket.socket], Caller]
"""Who is at the other end; raises where that cannot be known, or must not be served."""


class WorkloadServer:
    """Serves one socket in the running event loop.

    Args:
        provider: who knows the answers.
        identify: who is at the other end of a connection, asked once for each.
        limits: what strangers may cost.
        account_of: whom a user id counts for.
        sds: whether Envoy is served, too.
        wit: whether the WIT profile is.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        identify: Identify,
        limits: Limits | None = None,
        account_of: Callable[[int], int] = itself,
        sds: bool = True,
        wit: bool = False,
    ) -> None:
        self._identify = identify
        self._account_of = account_of
        self._limits = limits or Limits()
        self._table = _table(provider, self._limits, sds=sds, wit=wit)
        self._connections: dict[Connection, int] = {}
        """Each with whom its user counts for."""
        self._paces: dict[int, Pace] = {}
        self._of_account: Counter[int] = Counter()
        self._nobody = asyncio.Event()
        self._nobody.set()
        self._beginning: set[asyncio.Task[object]] = set()
        self._listening: Listening | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    async def start(self, path: Path) -> None:
        """Listen and serve.

        Raises:
            SocketRefused: see ``socket_file.listen``.
        """
        self._listening = listen(path, backlog=self._limits.backlog)
        self._loop = asyncio.get_running_loop()
        self._listen()
        self._timer = self._loop.call_later(SWEEP_SECONDS, self._sweep_and_again)

    async def stop(self) -> None:
        """Stop: no new connection, UNAVAILABLE to each call, then everything is closed."""
        if self._listening is None:
            return
        self._loop.remove_reader(self._listening.socket)
        self._listening.close()
        self._listening = None
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*self._beginning, return_exceptions=True)
        told = [self._loop.create_task(each.stop()) for each in self._connections]
        if told:
            await asyncio.wait(told, timeout=self._limits.stop_seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.stop_seconds):
                await self._nobody.wait()
        # Who has not read by now is not waited for.
        for each in tuple(self._connections):
            each.cut()
        await self._nobody.wait()

    def sweep(self, now: float) -> int:
        """Close connections that had no call for long; returns how many. ``now``: loop's time."""
        over = [
            each
            for each in self._connections
            if each.idle_since is not None and now - each.idle_since >= self._limits.idle_seconds
        ]
        for each in over:
            each.finish()
        # A user who connects anew has what was left, until it has rested.
        for account in [each for each, pace in self._paces.items() if pace.is_rested(now)]:
            if not self._of_account[account]:
                del self._paces[account]
        return len(over)

    def _sweep_and_again(self) -> None:
        self.sweep(self._loop.time())
        self._timer = self._loop.call_later(SWEEP_SECONDS, self._sweep_and_again)

    def _listen(self) -> None:
        if self._listening is not None:
            self._loop.add_reader(self._listening.socket, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            if self._listening is None:
                return
            try:
                accepted, _ = self._listening.socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("cannot accept a connection: %s", error.strerror)  # noqa: TRY400
                self._loop.remove_reader(self._listening.socket)
                self._loop.call_later(PAUSE_SECONDS, self._listen)
                return
            self._begin(accepted)

    def _begin(self, accepted: socket.socket) -> None:
        """Serve an accepted connection, or close it."""
        accepted.setblocking(False)
        if len(self._connections) >= self._limits.connections:
            log.warning("a connection more than %d: closed", self._limits.connections)
            accepted.close()
            return
        try:
            caller = self._identify(accepted)
        except Exception as error:  # noqa: BLE001 (whatever it was: nobody is known to be there)
            log.warning("a connection of nobody known: %s", error)
            accepted.close()
            return
        account = self._account_of(caller.uid)
        if self._of_account[account] >= self._limits.connections_of_uid:
            limit = self._limits.connections_of_uid
            log.warning("a connection more than %d of user %d: closed", limit, account)
            caller.close()
            accepted.close()
            return
        pace = self._paces.setdefault(
            account, Pace(self._limits.given_up, self._limits.given_up_each_second)
        )
        connection = Connection(caller, self._table, self._limits, pace, self._over)
        self._connections[connection] = account
        self._of_account[account] += 1
        self._nobody.clear()
        begun = self._loop.create_task(self._begun(accepted, connection))
        self._beginning.add(begun)
        begun.add_done_callback(self._beginning.discard)

    async def _begun(self, accepted: socket.socket, connection: Connection) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, accepted)
        except OSError as error:
            log.warning("a connection ended at its beginning: %s", error.strerror)
            accepted.close()
            self._over(connection)

    def _over(self, connection: Connection) -> None:
        connection.caller.close()
        account = self._connections.pop(connection)
        self._of_account[account] -= 1
        if not self._of_account[account]:
            del self._of_account[account]
        if not self._connections:
            self._nobody.set()


def _table(provider: Provider, limits: Limits, *, sds: bool, wit: bool) -> Mapping[str, Method]:
    """Every call by its path."""
    services: list[Any] = [WorkloadApi(provider, limits, wit=wit), OwnCalls(provider, limits)]
    if sds:
        services.append(SecretDiscovery(provider, limits))
    health = Health({OVERALL: [], **{each: [] for each in services}})
    every = ServerReflection.extend([*services, health], pool=POOL)
    return {path: entry for each in every for path, entry in each.__mapping__().items()}

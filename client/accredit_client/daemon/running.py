"""The daemon, put together and run: settings in, a served socket until it is told to stop.

In this order: the settings and manifests are read → the socket listens (who calls is told *not
yet*) → the node proves itself or takes up what is on disk → the feed, the CRLs, and whoever asks.
The end: no new connection, UNAVAILABLE to each call, keys forgotten.
"""

import asyncio
import gc
import logging
import resource
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Self

from accredit_attestors.nodes.contract import NodeAttestor
from accredit_attestors.plugins import load_node_attestors
from accredit_client.daemon.accounts import LOOK_SECONDS, Accounts
from accredit_client.daemon.agents import AgentEntry, load_entries
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.core import Core
from accredit_client.daemon.launch_service import LaunchService
from accredit_client.daemon.launching import Launcher
from accredit_client.daemon.measuring import CodeMeasurer
from accredit_client.daemon.node import AsyncNodeIdentity
from accredit_client.daemon.reports import FOLDER
from accredit_client.daemon.server import WorkloadServer
from accredit_client.daemon.settings import Settings
from accredit_client.daemon.tokens import Tokens
from accredit_client.daemon.wits import Wits
from accredit_client.daemon.workloads import Workloads
from accredit_client.effects import Clock, Draw, system_draw, utc_now

log = logging.getLogger(__name__)

FILES_OF_CONNECTION = 3  # the socket, and the two that hold its process
FILES_OF_PROCESS = 2
FILES_OF_LAUNCH = 10  # its connection, what its requester passed, and what holds both processes
OTHER_FILES = 512  # the issuer, files that are measured, the rest
COLLECT_AFTER = 20_000  # new objects: a call makes hundreds, and next to none stays
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Daemon:
    """One daemon. An asynchronous context: served within, stopped after.

    Args:
        settings: what the operator says.
        attestors: the kinds of node evidence.
        clock: the time.
        draw: for the jitter.

    Raises:
        InvalidSettings: a manifest cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        attestors: Callable[[], Mapping[str, NodeAttestor]] = load_node_attestors,
        clock: Clock = utc_now,
        draw: Draw = system_draw,
    ) -> None:
        self.settings = settings
        self.entries: tuple[AgentEntry, ...] = load_entries(settings.agents)
        self._clock, self._draw = clock, draw
        self.node = AsyncNodeIdentity(
            node=settings.node,
            data=settings.data,
            issuer_url=settings.issuer_url,
            trust=settings.trust,
            attestors=attestors,
            clock=clock,
            draw=draw,
        )
        self._resources = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Listen; nobody has an identity before ``attest``."""
        settings, node = self.settings, self.node
        async with AsyncExitStack() as undo:
            accounts = Accounts()
            await asyncio.to_thread(accounts.look)
            undo.push_async_callback(_ended, asyncio.create_task(_following(accounts)))
            tokens = Tokens(
                settings.issuer_url, lambda: node.bundle, lambda: node.facts, clock=self._clock
            )
            undo.push_async_callback(tokens.close)
            undo.push_async_callback(node.aclose)
            measurer, launcher = CodeMeasurer(), Launcher()
            self.workloads = Workloads(
                self.entries,
                node,
                measurer=measurer,
                reports=settings.data / FOLDER,
                limits=settings.limits,
                clock=self._clock,
                draw=self._draw,
                account_of=accounts.of,
                births=launcher.selectors,
            )
            undo.push_async_callback(self.workloads.close)
            self.core = Core(
                node,
                self.workloads,
                tokens,
                Wits(tokens.wit, node, clock=self._clock, draw=self._draw),
                clock=self._clock,
                draw=self._draw,
                crls=settings.crls,
            )
            undo.push_async_callback(self.core.close)
            server = WorkloadServer(
                self.core,
                identify=_identify,
                limits=settings.socket_limits,
                account_of=accounts.of,
                sds=settings.sds,
                wit=settings.wit,
            )
            await server.start(settings.socket)
            undo.push_async_callback(server.stop)
            if any(each.launch is not None for each in self.entries):
                launches = LaunchService(
                    self.entries,
                    launcher,
                    self.workloads,
                    measurer=measurer,
                    limits=settings.limits,
                    workload_api=settings.socket,
                    clock=self._clock,
                    account_of=accounts.of,
                )
                await launches.start()
                undo.push_async_callback(launches.stop)
            self._resources = undo.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._resources.aclose()

    async def attest(self) -> None:
        """Prove which node this is, or take up what is on disk; then follow the feed.

        Raises:
            ClientError, AttestationError: it cannot be, and waiting would not help.
        """
        core, node = self.core, self.node
        node.on_step(core.stepped)
        await node.start()
        if node.feed is not None:
            node.feed.listen(core.facts_came)
        core.start()
        core.stepped()
        await self.workloads.reports.take_up()


def files_needed(settings: Settings) -> int:
    """How many descriptors the daemon may come to hold, within its limits."""
    connections = settings.socket_limits.connections * FILES_OF_CONNECTION
    processes = settings.limits.instances * FILES_OF_PROCESS
    launches = settings.limits.launches * FILES_OF_LAUNCH
    return connections + processes + launches + OTHER_FILES


def prepare_process(settings: Settings) -> None:
    """Let this process have as many descriptors as it may need, and no core file: it has keys.

    A hard limit below what is needed is logged: connections are refused then before their bound.
    """
    needed = files_needed(settings)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        log.warning("the limit of open files is %d, %d may be needed", hard, needed)
    if soft != resource.RLIM_INFINITY and soft < needed:
        more = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, more), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


async def run(daemon: Daemon, ready: Callable[[Daemon], None]) -> None:
    """Serve until a signal says to stop; ``ready`` is called once the node has its identity.

    Raises:
        ClientError, AttestationError: it cannot serve.
    """
    prepare_process(daemon.settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, stop.set)
    try:
        async with daemon:
            attesting = loop.create_task(daemon.attest())
            stopping = loop.create_task(stop.wait())
            await asyncio.wait({attesting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not stop.is_set():
                attesting.result()
                _settle()
                ready(daemon)
                await stopping
            for task in (attesting, stopping):
                task.cancel()
            await asyncio.gather(attesting, stopping, return_exceptions=True)
            log.info("stopping")
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


def _settle() -> None:
    """What is there now stays: the collector need not walk over it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


async def _following(accounts: Accounts) -> None:
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        await asyncio.to_thread(accounts.look)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _identify(connection: socket.socket) -> Caller:
    return Caller.of(connection)

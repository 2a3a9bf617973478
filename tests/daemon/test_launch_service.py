"""The socket on which agents are started: who may, what they get, and how it ends."""

import asyncio
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from support import requester
from support.authority import Authority
from support.calling import AGENT_GID, AGENT_UID, as_root
from support.node_host import MANIFEST, OTHER, SIGNED, WAIT, Place, entry, placed

from accredit_attestors.errors import InvalidTree
from accredit_client.daemon import launch_service
from accredit_client.daemon.agents import AgentEntry
from accredit_client.daemon.launch_service import LaunchService
from accredit_client.daemon.launch_settings import LaunchSettings, launched_selectors
from accredit_client.daemon.launch_wire import socket_of
from accredit_client.daemon.process import PinnedProcess
from accredit_client.daemon.settings import InstanceLimits
from accredit_client.errors import CallerGone, IssuerRefused
from accredit_credentials.revocation import FactKind

pytestmark = [as_root, pytest.mark.anyio]

SHELL = "/bin/sh"
SCRIPT = "trap 'exit 5' TERM; echo '\"here\"'; while :; do sleep 0.01; done"


@pytest.fixture
def anyio_backend() -> str:
    """The daemon's event loop is asyncio's."""
    return "asyncio"


def launchable(script: str = SCRIPT, **settings: Any) -> AgentEntry:
    """An entry by which the requester may have a shell script started."""
    command = (SHELL, "-c", script)
    return entry(
        code_root="/",
        launch=LaunchSettings(command=command, **settings),
        selectors=launched_selectors(MANIFEST, command),
        requesters=frozenset({f"unix:uid:{AGENT_UID}"}),
    )


@dataclass
class Requester:
    """A process of another user that has an agent started."""

    process: asyncio.subprocess.Process
    said: list[Any] = field(default_factory=list)

    async def hears(self) -> Any:
        """The next line that it, or its agent, says."""
        assert self.process.stdout
        async with asyncio.timeout(WAIT):
            line = await self.process.stdout.readline()
        assert line, "it has ended"
        return json.loads(line)

    async def started(self) -> int:
        """The agent's number, once it runs and has said so."""
        said = [await self.hears(), await self.hears()]
        assert "here" in said
        said.remove("here")
        return int(said[0]["started"])

    async def tell(self, text: str) -> None:
        """One line."""
        assert self.process.stdin
        self.process.stdin.write(f"{text}\n".encode())
        await self.process.stdin.drain()


class Host:
    """A daemon that starts agents, and who asks it to."""

    def __init__(self, place: Place, service: LaunchService, path: Path) -> None:
        self.place = place
        self.service = service
        self.path = path
        self.requesters: list[Requester] = []

    async def ask(
        self,
        wanted: AgentEntry,
        *,
        command: Sequence[str] = (),
        uid: int = AGENT_UID,
        environment: dict[str, str] | None = None,
    ) -> Requester:
        """Have it started, by this command or the entry's own."""
        assert wanted.launch
        made = Requester(
            await asyncio.create_subprocess_exec(
                *(sys.executable, requester.__file__, str(uid), str(AGENT_GID)),
                *(str(self.path), wanted.manifest, *(command or wanted.launch.command)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=os.environ | (environment or {}),
            )
        )
        self.requesters.append(made)
        return made

    async def born(self, number: int = 1) -> None:
        """Wait until so many have their identity."""
        await self.place.until(
            lambda: sum(each.tried.is_set() for each in self.place.workloads) >= number
        )

    async def end(self) -> None:
        """End who asks, then the daemon."""
        for each in self.requesters:
            if each.process.returncode is None:
                each.process.kill()
            await each.process.communicate()
        await self.service.stop()


@asynccontextmanager
async def hosting(authority: Authority, *entries: AgentEntry, **limits: int) -> AsyncIterator[Host]:
    """A host with these entries; nothing that was started is left."""
    with tempfile.TemporaryDirectory(prefix="accredit-launch-") as name:
        Path(name).chmod(0o755)  # noqa: ASYNC240 (nothing to wait for)
        path = Path(name) / "agent.sock"
        async with placed(authority, *entries, **limits) as place:
            service = LaunchService(
                entries,
                place.launcher,
                place.workloads,
                measurer=place.code,
                limits=InstanceLimits(**limits),
                workload_api=path,
                clock=place.clock,
            )
            await service.start()
            host = Host(place, service, path)
            try:
                yield host
            finally:
                await host.end()
                assert len(place.launcher) == 0


async def test_an_agent_is_started_has_its_identity_and_its_end_is_told(
    authority: Authority,
) -> None:
    """By the requester's own output, with a signal passed on; and it is an instance at once."""
    wanted = launchable()
    async with hosting(authority, wanted) as host:
        asked = await host.ask(wanted)
        pid = await asked.started()
        await host.born()
        (workload,) = host.place.workloads
        assert workload.caller.pid == pid
        assert workload.caller.uid == AGENT_UID
        assert host.place.held(workload).svid.manifest == MANIFEST
        # What birth said is what the issuer hears, for its record.
        assert wanted.selectors <= set(host.place.node.asked[-1]["selectors"])
        await asked.tell("15")
        await asked.tell("wait")
        assert await asked.hears() == {"code": 5, "why": None}
        await host.place.until(lambda: not len(host.place.workloads))


async def test_a_child_of_an_agent_is_meant_and_its_neighbour_is_not(authority: Authority) -> None:
    """By birth: another process of the same user and program is nobody."""
    script = "sleep 1000 & echo $!; echo '\"here\"'; wait"
    wanted = launchable(script)
    async with hosting(authority, wanted) as host:
        asked = await host.ask(wanted)
        said = [await asked.hears() for _ in range(3)]
        child = next(each for each in said if isinstance(each, int))
        exe = Path(f"/proc/{child}/exe")
        await host.place.until(lambda: exe.resolve().name == "sleep")  # between fork and exec: sh
        launched = next(each for each in said if isinstance(each, dict))["started"]
        for pid, expected in ((child, True), (launched, True), (asked.process.pid, False)):
            with closing(_caller(pid)) as caller:
                found = await asyncio.to_thread(host.place.launcher.selectors, caller)
            assert bool(found) is expected


def _caller(pid: int) -> Any:
    from accredit_client.daemon.callers import Caller  # noqa: PLC0415

    process = PinnedProcess.of_pid(pid)
    status = process.status()
    return Caller(process, uid=status.uids[1], gid=status.gids[1])


async def test_an_agent_ends_with_its_requester(authority: Authority) -> None:
    """A connection that ends takes the agent with it."""
    wanted = launchable()
    async with hosting(authority, wanted) as host:
        asked = await host.ask(wanted)
        with closing(PinnedProcess.of_pid(await asked.started())) as agent:
            asked.process.kill()
            await host.place.until(lambda: _over(agent))


async def test_agents_end_with_the_daemon(authority: Authority) -> None:
    """It cannot say any more whose they are."""
    wanted = launchable()
    async with hosting(authority, wanted) as host:
        asked = await host.ask(wanted)
        with closing(PinnedProcess.of_pid(await asked.started())) as agent:
            await host.service.stop()
            assert _over(agent)
        await asked.tell("wait")
        assert "lost" in await asked.hears()


def _over(process: PinnedProcess) -> bool:
    try:
        process.check_running()
    except CallerGone:
        return True
    return False


@pytest.mark.parametrize("ends", [True, False], ids=["ends with it", "goes on"])
async def test_an_agent_whose_identity_is_taken_back_ends(authority: Authority, ends: bool) -> None:
    """By the daemon, with the reason told; where root's file says so it goes on without."""
    wanted = launchable(ends_with_identity=ends)
    async with hosting(authority, wanted) as host:
        asked = await host.ask(wanted)
        pid = await asked.started()
        await host.born()
        (workload,) = host.place.workloads
        instance = host.place.held(workload).svid.instance
        host.place.node.state(f"instance:{instance}", FactKind.REVOKED, 1)
        host.place.workloads.tell()
        if not ends:
            await asyncio.sleep(0.2)  # the daemon has looked by then, and leaves it alone
            with closing(PinnedProcess.of_pid(pid)) as agent:
                assert not _over(agent)
            await asked.tell("15")
        await asked.tell("wait")
        heard = await asked.hears()
        assert heard["code"] == 5
        assert ("incident" in str(heard["why"])) is ends


async def test_an_agent_may_become_another_program(authority: Authority) -> None:
    """A script that ends in exec is still what was launched, and has its identity."""
    wanted = launchable("echo '\"here\"'; read _; exec sleep 1000")
    async with hosting(authority, wanted) as host:
        asked = await host.ask(wanted)
        await asked.started()
        await host.born()
        (shell,) = host.place.workloads
        assert asked.process.stdin
        asked.process.stdin.close()
        with closing(_caller(shell.caller.pid)) as agent:
            await host.place.until(lambda: agent.process.executable().path.endswith("sleep"))
        host.place.clock.advance(minutes=40)
        for waiter in host.place.waiters:
            waiter.wake()  # its renewal finds another program
        await host.place.until(lambda: shell not in tuple(host.place.workloads))
        await host.born()
        (sleep,) = host.place.workloads
        assert sleep.caller.pid == shell.caller.pid
        assert host.place.held(sleep)


async def test_an_agent_that_ends_by_itself_once_it_is_refused_has_not_done_well(
    authority: Authority,
) -> None:
    """It may be faster than the daemon: the reason is told all the same."""
    wanted = launchable("echo '\"here\"'; exec sleep 1000")
    async with hosting(authority, wanted) as host:
        asked = await host.ask(wanted)
        pid = await asked.started()
        await host.born()
        (workload,) = host.place.workloads
        instance = host.place.held(workload).svid.instance
        host.place.node.state(f"instance:{instance}", FactKind.REVOKED, 1)
        os.kill(pid, 15)  # nobody has looked at the fact yet
        await asked.tell("wait")
        heard = await asked.hears()
        assert heard["code"] == -15
        assert "incident" in heard["why"]


async def test_an_agent_that_the_issuer_refuses_does_not_go_on(authority: Authority) -> None:
    """Its manifest is revoked, say: the reason is told."""
    wanted = launchable()
    async with hosting(authority, wanted) as host:
        host.place.node.failure = IssuerRefused("revoked", "manifest is revoked", 403)
        asked = await host.ask(wanted)
        await asked.tell("wait")
        heard: Any = {}
        while "code" not in heard:  # it may be ended before it has said anything
            heard = await asked.hears()
        assert heard["code"] != 0
        assert "manifest is revoked" in heard["why"]


async def test_an_agent_that_cannot_be_followed_ends(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would end it, were its identity taken back."""
    wanted = launchable()
    async with hosting(authority, wanted) as host:

        def fails(*_: object) -> None:
            raise RuntimeError("unforeseen")

        monkeypatch.setattr(host.place.workloads, "of", fails)
        asked = await host.ask(wanted)
        await asked.tell("wait")
        heard: Any = {}
        while "code" not in heard:  # it may be ended before it has said anything
            heard = await asked.hears()
        assert heard["code"] != 0
        assert heard["why"] == "the daemon failed"


async def test_an_issuer_that_is_away_is_no_reason_to_end(authority: Authority) -> None:
    """The agent runs, and waits for its identity like any other."""
    wanted = launchable()
    async with hosting(authority, wanted) as host:
        host.place.node.failure = IssuerRefused("unavailable", "later", 503)
        asked = await host.ask(wanted)
        pid = await asked.started()
        await host.born()
        with closing(PinnedProcess.of_pid(pid)) as agent:
            assert not _over(agent)
        host.place.node.failure = None
        await host.place.advance(seconds=120)
        (workload,) = host.place.workloads
        assert host.place.held(workload)


@pytest.mark.parametrize(
    ("found", "why"),
    [(OTHER, "not what was signed"), (InvalidTree("a link leaves it"), "a link leaves it")],
)
async def test_code_that_was_not_signed_is_not_started(
    authority: Authority, found: str | Exception, why: str
) -> None:
    """It is measured before it runs; with the signed code it does."""
    wanted = launchable()
    async with hosting(authority, wanted) as host:
        host.place.code.found = found
        asked = await host.ask(wanted)
        assert why in (await asked.hears())["refused"]
        host.place.code.found = SIGNED
        assert await (await host.ask(wanted)).started()


async def test_a_stranger_has_nothing_started(authority: Authority) -> None:
    """Another user, another command, root itself: each is refused, with the reason."""
    wanted = launchable()
    async with hosting(authority, wanted) as host:
        other = await host.ask(wanted, uid=AGENT_UID + 1)
        assert "not for this process" in (await other.hears())["refused"]
        other = await host.ask(wanted, command=[SHELL, "-c", "id"])
        assert "and by nothing else" in (await other.hears())["refused"]
        other = await host.ask(wanted, uid=0)
        assert "not for this process" in (await other.hears())["refused"]


async def test_its_environment_is_what_root_named_and_the_socket(authority: Authority) -> None:
    """Nothing else of the requester's reaches the agent, nor anything of the daemon's."""
    wanted = launchable("env; echo '\"here\"'", environment=("GREETING", "ABSENT"))
    async with hosting(authority, wanted) as host:
        asked = await host.ask(wanted, environment={"GREETING": "hello", "SECRET": "canary"})
        await asked.tell("wait")
        assert asked.process.stdout
        text = (await asked.process.stdout.read()).decode()
        assert "GREETING=hello" in text.splitlines()
        assert f"SPIFFE_ENDPOINT_SOCKET=unix://{host.path}" in text.splitlines()
        assert "canary" not in text
        assert "ABSENT" not in text


async def test_what_one_user_has_started_is_bounded(authority: Authority) -> None:
    """One more is closed without a word, and there is room again after an end."""
    wanted = launchable()
    async with hosting(authority, wanted, launches=2, launches_of_uid=1) as host:
        first = await host.ask(wanted)
        await first.started()
        more = await host.ask(wanted)
        assert "gone" in (await more.hears())["refused"]
        await first.tell("15")
        await first.tell("wait")
        assert (await first.hears())["code"] == 5
        await host.place.until(lambda: not host.service.running)
        assert await (await host.ask(wanted)).started()


async def test_who_says_nothing_or_nonsense_is_refused(authority: Authority) -> None:
    """No message, no request, too large: told, and nothing runs."""
    wanted = replace(launchable(), requesters=frozenset({"unix:uid:0"}))
    async with hosting(authority, wanted) as host:
        for content in (b"\0\0\0\2{}", b"\xff\xff\xff\xff", b"\0"):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.setblocking(False)
                connection.connect(os.fspath(socket_of(host.path)))
                connection.send(content)
                connection.shutdown(socket.SHUT_WR)
                async with asyncio.timeout(WAIT):
                    answer = await asyncio.get_running_loop().sock_recv(connection, 4096)
                assert b"refused" in answer
                assert b"no entry" not in answer


async def test_who_may_have_nothing_started_is_not_waited_for(authority: Authority) -> None:
    """It says nothing, and has its refusal: it takes no place from others."""
    wanted = launchable()
    async with hosting(authority, wanted) as host:
        with socket.socket(socket.AF_UNIX) as connection:  # root's
            connection.setblocking(False)
            connection.connect(os.fspath(socket_of(host.path)))
            async with asyncio.timeout(launch_service.REQUEST_SECONDS / 2):
                answer = await asyncio.get_running_loop().sock_recv(connection, 4096)
            assert b"the selectors of no entry" in answer
        await host.place.until(lambda: not host.service.running)

"""Processes that nobody knew before, and whose connections all come in the same moment."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest
from support.authority import Authority
from support.node_host import Place, entry, placed

from accredit_client.daemon.agents import AgentEntry
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.provider import Refused
from accredit_client.daemon.workloads import Workload


@pytest.fixture
def anyio_backend() -> str:
    """The daemon is asyncio's."""
    return "asyncio"


class Looked(Caller):
    """A connection that counts how often somebody looks at who it is."""

    looks = 0

    def selectors(self, *, program: bool = True) -> frozenset[str]:
        """What can be said of it."""
        Looked.looks += not program  # with its program it is measured, not looked at
        return super().selectors(program=program)


@asynccontextmanager
async def crowded(
    authority: Authority, *entries: AgentEntry
) -> AsyncIterator[tuple[Place, list[asyncio.Task[Workload]]]]:
    """Twenty connections of this process that ask in the same moment."""
    Looked.looks = 0
    async with placed(authority, *entries) as place:
        asking = []
        for _ in range(20):
            here, there = map(place.resources.enter_context, socket.socketpair(socket.AF_UNIX))
            caller = place.resources.enter_context(closing(Looked.of(here)))
            assert there
            asking.append(asyncio.create_task(place.workloads.of(caller)))
        await asyncio.sleep(0)  # all of them have begun to ask
        yield place, asking


@pytest.mark.anyio
async def test_a_process_is_looked_at_once(authority: Authority) -> None:
    """However many of its connections come first: one look, one workload, one instance."""
    async with crowded(authority) as (place, asking):
        found = await asyncio.gather(*asking)
        assert len(set(map(id, found))) == 1
        assert (Looked.looks, place.code.looked, place.node.born) == (1, 1, 1)


@pytest.mark.anyio
async def test_who_gives_up_does_not_give_up_for_the_others(authority: Authority) -> None:
    """The next connection looks; and a refusal is each one's own."""
    async with crowded(authority) as (place, asking):
        asking[0].cancel()
        done = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(done[0], asyncio.CancelledError)
        assert len(set(map(id, done[1:]))) == 1
        assert (Looked.looks, place.node.born) == (2, 1)
    async with crowded(authority, entry(selectors=frozenset({"unix:uid:4000000"}))) as (_, asking):
        done = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(each) for each in done] == [Refused] * 20
        assert Looked.looks == 20

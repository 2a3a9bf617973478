"""The daemon's socket in a process of its own, for the bench: real wire, answers from memory.

Rotates at each line of standard input, and says as JSON when it began and what it holds.
"""

import asyncio
import itertools
import resource
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parents[1]))

from support.authority import Authority
from support.workload import FakeProvider, PeerCaller, state_of
from support.workload_load import say

from accredit_client.daemon.provider import Caller, WorkloadState
from accredit_client.daemon.server import WorkloadServer
from accredit_credentials.spiffe_id import SpiffeId


class Memory(FakeProvider):
    """Each watch has an identity of its own; tokens are cached."""

    def __init__(self, authority: Authority, count: int) -> None:
        super().__init__(authority, state_of(authority))
        self._states = [
            [state_of(authority, f"/ns/a/agent/n{number}") for number in range(count)]
            for _ in range(2)
        ]
        self.turn = 0
        self._next = itertools.count()
        self._tokens: dict[tuple[str, ...], tuple[tuple[SpiffeId, str, str], ...]] = {}

    async def watch(self, caller: Caller) -> AsyncIterator[WorkloadState]:
        """The identity of this turn."""
        number = next(self._next)
        async for _ in self._changes():
            states = self._states[self.turn % 2]
            yield states[number % len(states)]

    async def jwt_svids(
        self, caller: Caller, audience: tuple[str, ...], spiffe_id: SpiffeId | None
    ) -> tuple[tuple[SpiffeId, str, str], ...]:
        """One token for each audience."""
        if audience not in self._tokens:
            self._tokens[audience] = await super().jwt_svids(caller, audience, spiffe_id)
        return self._tokens[audience]


def resident() -> float:
    """Megabytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError("no VmRSS")


async def main(path: Path, count: int) -> None:
    """Serve until standard input ends."""
    provider = Memory(Authority(now=datetime.now(UTC)), count)
    server = WorkloadServer(provider, identify=PeerCaller)
    await server.start(path)
    say(resident=resident())
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    while await reader.readline():
        held = resident()
        provider.turn += 1
        began = time.monotonic()
        provider._wake()
        say(began=began, resident=held)
    await server.stop()


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))

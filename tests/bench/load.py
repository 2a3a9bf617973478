"""A load generator that is light enough not to be the bottleneck: raw HTTP/1.1 over uvloop's TLS.

Each connection keeps one request under way and repeats the ones it was given. What it costs is
measured too: ``Result.generator_cpu`` near 1.0 would mean that it was the generator that was
measured.
"""

import asyncio
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import cast

import uvloop
from issuers import Process

WARM_UP = 0.7
GOOD = (b"HTTP/1.1 200", b"HTTP/1.1 304")


@dataclass
class Result:
    """What a run gave."""

    seconds: float
    latencies: list[float] = field(repr=False)
    failures: list[str]
    generator_cpu: float
    issuer_cpu: float

    @property
    def per_second(self) -> float:
        """Good answers, per second."""
        return len(self.latencies) / self.seconds


@dataclass(frozen=True)
class Client:
    """One connection's TLS context and the requests that it repeats."""

    context: ssl.SSLContext
    requests: Sequence[bytes]


def request(method: str, path: str, body: bytes = b"") -> bytes:
    """One HTTP/1.1 request."""
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class _Connection(asyncio.Protocol):
    def __init__(self, run: "_Run", client: Client) -> None:
        self._run = run
        self._requests = cycle(client.requests)
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._run.transports.append(self._transport)

    def send(self) -> None:
        assert self._transport is not None
        self._sent = time.perf_counter()
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data if self._received else data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return
        at = received.find(b"content-length: ", 0, end)
        length = 0 if at < 0 else int(received[at + 16 : received.index(b"\r\n", at)])
        if len(received) < end + 4 + length:
            return
        self._received = b""
        self._run.answered(received, time.perf_counter(), self._sent)
        if not self._run.over:
            self.send()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self._run.over:
            self._run.failures.append("connection lost")


class _Run:
    def __init__(self) -> None:
        self.transports: list[asyncio.Transport] = []
        self.failures: list[str] = []
        self.latencies: list[float] = []
        self.counting = False
        self.over = False

    def answered(self, answer: bytes, now: float, sent: float) -> None:
        if answer.startswith(GOOD):
            if self.counting:
                self.latencies.append(now - sent)
        else:
            self.failures.append(answer[:400].decode(errors="replace"))

    async def go(self, process: Process, clients: Sequence[Client], seconds: float) -> Result:
        loop = asyncio.get_running_loop()
        connections = []
        for client in clients:
            _, connection = await loop.create_connection(
                lambda client=client: _Connection(self, client),  # type: ignore[misc]
                process.host,
                process.port,
                ssl=client.context,
            )
            connections.append(connection)
        for connection in connections:
            connection.send()
        await asyncio.sleep(WARM_UP)
        own, theirs, begun = time.process_time(), process.cpu_seconds, time.perf_counter()
        self.counting = True
        await asyncio.sleep(seconds)
        self.counting = False
        took = time.perf_counter() - begun
        result = Result(
            seconds=took,
            latencies=self.latencies,
            failures=self.failures,
            generator_cpu=(time.process_time() - own) / took,
            issuer_cpu=(process.cpu_seconds - theirs) / took,
        )
        self.over = True
        for transport in self.transports:
            transport.abort()
        await asyncio.sleep(0.05)
        return result


def drive(process: Process, clients: Sequence[Client], *, seconds: float) -> Result:
    """Load the issuer for some seconds.

    Raises:
        RuntimeError: an answer was neither 200 nor 304, or a connection was lost.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(_Run().go(process, clients, seconds))
    if result.failures:
        raise RuntimeError(f"{len(result.failures)} failures, first: {result.failures[0]}")
    return result

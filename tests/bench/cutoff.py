"""From the word "revoke" to the last verifier that knows: N server-sent event streams.

All N listeners live in one process, on one core: the time includes N TLS records read one after
another, which N real verifiers would read at once. A listener knows once it has the statement with
the fact; verifying it is the price of one signature check, on each verifier's own core.

Once without acknowledgements, and once with them at every second fact: each listener then says so
over a connection of its own, as soon as it has read what was there to be read. That takes time of
the core that reads; the issuer has written to every stream before it reads the first of them.
"""

import asyncio
import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import uvloop
from issuers import Bench, Session
from load import request
from rows import Row, measure, milliseconds, percentile

from accredit_client.tls import peer_check
from accredit_credentials.keys import b64url_decode
from accredit_credentials.spiffe_id import issuer_id
from accredit_credentials.tls import client_context
from accredit_credentials.x509_svid import X509Identity

REVOCATIONS = 8
PROMISED = 0.100
TIMEOUT = 20.0
PAUSE = 0.3  # seconds between two revocations


class _Listener(asyncio.Protocol):
    def __init__(self, crowd: "_Crowd", acknowledging: asyncio.Transport | None) -> None:
        self._crowd = crowd
        self._acknowledging = acknowledging
        self._received = b""
        self._event = b""
        self._listener_id = ""
        self._through = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(request("GET", "/v1/revocations/stream?after=0"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            if line.startswith(b"event: "):
                self._event = line.removeprefix(b"event: ")
            elif line.startswith(b"data: ") and self._event == b"listener":
                self._listener_id = line.removeprefix(b"data: ").decode()
            elif line.startswith(b"data: "):
                payload = line.split(b".")[1].decode()
                through = json.loads(b64url_decode(payload))["through"]
                if through > self._through:
                    self._through = through
                    self._crowd.heard(time.perf_counter())
                    if self._acknowledging is not None and not self._crowd.silent:
                        asyncio.get_running_loop().call_soon(self._acknowledge)

    def _acknowledge(self) -> None:
        body = json.dumps({"listener": self._listener_id, "through": self._through}).encode()
        assert self._acknowledging is not None
        self._acknowledging.write(request("POST", "/v1/revocations/acknowledgements", body))


class _Acknowledged(asyncio.Protocol):
    def __init__(self, crowd: "_Crowd") -> None:
        self._crowd = crowd

    def data_received(self, data: bytes) -> None:
        assert data.startswith(b"HTTP/1.1 200"), data
        self._crowd.acknowledged()


class _Crowd:
    def __init__(self, size: int) -> None:
        self.silent = False
        self._size = size
        self._times: list[float] = []
        self._all = asyncio.Event()
        self._acknowledgements = 0
        self._all_acknowledged = asyncio.Event()

    def heard(self, now: float) -> None:
        self._times.append(now)
        if len(self._times) == self._size:
            self._all.set()

    def acknowledged(self) -> None:
        self._acknowledgements += 1
        if self._acknowledgements == self._size:
            self._all_acknowledged.set()

    async def everyone_acknowledged(self) -> None:
        """Return once the issuer has answered everybody's acknowledgement."""
        await asyncio.wait_for(self._all_acknowledged.wait(), TIMEOUT)
        self._acknowledgements = 0
        self._all_acknowledged.clear()

    async def everyone(self) -> list[float]:
        """When each listener heard, once all of them have."""
        await asyncio.wait_for(self._all.wait(), TIMEOUT)
        times, self._times = self._times, []
        self._all.clear()
        return times


@dataclass(frozen=True)
class _Delays:
    """Seconds from the word: until each listener heard, and until the last acknowledgement."""

    heard: list[float] = field(default_factory=list)
    heard_by_silent: list[float] = field(default_factory=list)
    acknowledged: list[float] = field(default_factory=list)


async def _measure(
    bench: Bench, doomed: list[X509Identity], size: int, *, acknowledging: bool
) -> _Delays:
    loop = asyncio.get_running_loop()
    crowd = _Crowd(size)
    public, admin = _context(bench, None), _context(bench, bench.admin.identity)
    address = bench.process.host, bench.process.port
    transports: list[asyncio.Transport] = []
    for _ in range(size):
        said: asyncio.Transport | None = None
        if acknowledging:
            made = await loop.create_connection(lambda: _Acknowledged(crowd), *address, ssl=public)
            said = made[0]
            transports.append(said)
        listener = partial(_Listener, crowd, said)
        transports.append((await loop.create_connection(listener, *address, ssl=public))[0])
    await crowd.everyone()
    if acknowledging:
        await crowd.everyone_acknowledged()
    reader, writer = await asyncio.open_connection(*address, ssl=admin)
    delays = _Delays()
    for number, identity in enumerate(doomed):
        await asyncio.sleep(PAUSE)
        # In turn: what else the machine does meanwhile hits both alike.
        crowd.silent = acknowledging and number % 2 == 1
        body = {"target": f"instance:{identity.svid.instance}", "reason": "bench"}
        sent = time.perf_counter()
        writer.write(request("POST", "/v1/revocations", json.dumps(body).encode()))
        heard = [heard - sent for heard in await crowd.everyone()]
        await _expect_ok(reader)
        if crowd.silent:
            delays.heard_by_silent.extend(heard)
            continue
        delays.heard.extend(heard)
        if acknowledging:
            await crowd.everyone_acknowledged()
            delays.acknowledged.append(time.perf_counter() - sent)
    writer.transport.abort()
    for transport in transports:
        transport.abort()
    await asyncio.sleep(0.2)
    return delays


async def _expect_ok(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 20"), head
    length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
    await reader.readexactly(int(length))


def _context(bench: Bench, identity: X509Identity | None) -> ssl.SSLContext:
    bundle = bench.wire.bundle
    return client_context(
        bundle=bundle, peer_check=peer_check(issuer_id(bundle.trust_domain)), identity=identity
    )


@measure("cutoff")
def cutoff(session: Session) -> Iterator[Row]:
    """Few and many listeners, silent and acknowledging."""
    bench = session.bench
    for size, acknowledging in ((50, False), (1000, False), (1000, True)):
        doomed = bench.identities(REVOCATIONS * (2 if acknowledging else 1))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            measured = _measure(bench, doomed, size, acknowledging=acknowledging)
            delays = runner.run(measured)
        every = delays.heard
        tail = percentile(every, 0.99)
        full = size == 1000
        note = (
            f"{REVOCATIONS} revocations, {size} listeners in one process; "
            f"first to know {min(every) * 1000:.0f} ms, last {max(every) * 1000:.0f} ms"
        )
        if acknowledging:
            silent = percentile(delays.heard_by_silent, 0.99)
            note += (
                f"; last acknowledged {max(delays.acknowledged) * 1000:.0f} ms; "
                f"the same listeners silent, in turn: {silent * 1000:.0f} ms"
            )
        yield Row(
            name=f"cutoff.{size}{'.acknowledged' if acknowledging else ''}",
            value=tail * 1000,
            unit="ms",
            promise="p99 <= 100 ms with 1,000 verifiers" if full else "",
            met=tail <= PROMISED if full else None,
            note=note,
            **milliseconds(every),
        )

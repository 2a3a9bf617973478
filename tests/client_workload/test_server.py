"""The daemon's socket: what it costs, who is kept out, and how it ends."""

import asyncio
import json
import logging
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from grpclib import Status
from grpclib.client import Channel
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpclib.reflection.v1.reflection_grpc import ServerReflectionStub
from grpclib.reflection.v1.reflection_pb2 import ServerReflectionRequest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, StreamReset
from h2.settings import SettingCodes
from support.authority import Authority
from support.calling import AGENT_UID, as_root
from support.workload import (
    API,
    HEADER,
    FakeProvider,
    Served,
    refused,
    serving,
    state_of,
)

from accredit_client.daemon.accounts import account_in, parse_ranges
from accredit_client.daemon.connection import Connection
from accredit_client.daemon.limits import Limits
from accredit_client.daemon.pace import Pace
from accredit_client.daemon.proto import workload_pb2 as pb
from accredit_client.daemon.proto.pool import POOL
from accredit_client.errors import CallerChanged

pytestmark = pytest.mark.anyio

LOAD = Path(__file__).parents[1] / "support" / "workload_load.py"
X509 = API + "FetchX509SVID"
SMALL = Limits(stop_seconds=0.05, unread_seconds=0.05, unread_bytes=64 * 1024)


class RawPeer:
    """A peer that speaks HTTP/2 and need not behave."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.http2 = H2Connection(H2Configuration(validate_outbound_headers=False))
        self.http2.initiate_connection()
        self.events: list[Event] = []

    def call(self, path: str, body: bytes, *, ended: bool = True) -> int:
        """Begin a call; what is sent as its body is the test's affair."""
        stream = self.http2.get_next_available_stream_id()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *HEADER,
        ]
        self.http2.send_headers(stream, headers)
        self.http2.send_data(stream, body, end_stream=ended)
        return stream

    def flush(self) -> None:
        """Send what was said."""
        self.writer.write(self.http2.data_to_send())

    async def ending(self) -> bytes:
        """All that comes until the other end closes."""
        async with asyncio.timeout(10):
            return await self.reader.read()

    async def event(self, kind: type[Event], *, stream: int | None = None) -> Any:
        """The next event of a kind, of one stream where that is named."""
        async with asyncio.timeout(10):
            while True:
                for each in self.events:
                    if isinstance(each, kind) and stream in {None, getattr(each, "stream_id", 0)}:
                        self.events.remove(each)
                        return each
                self.events += self.http2.receive_data(await self.reader.read(65536))

    async def trailer(self, name: bytes) -> bytes:
        """The value of a header field that is to come."""
        async with asyncio.timeout(10):
            while True:
                for event in self.http2.receive_data(await self.reader.read(65536)):
                    for key, value in getattr(event, "headers", ()):
                        if key == name:
                            return bytes(value)


@pytest.fixture
def passable() -> Iterator[Path]:
    """A folder that other users may pass, as pytest's own may not be."""
    with tempfile.TemporaryDirectory(prefix="accredit-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextmanager
def acting_as(uid: int | None) -> Iterator[None]:
    """With another effective user id: the kernel tells it of who connects meanwhile."""
    if uid is None:
        yield
        return
    before = os.geteuid()
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before)


@asynccontextmanager
async def raw(served: Served, *, uid: int | None = None) -> AsyncIterator[RawPeer]:
    """A connection in the hands of the test, of another user where one is named."""
    connection = socket.socket(socket.AF_UNIX)
    with acting_as(uid):
        connection.connect(os.fsencode(served.path))
    connection.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    try:
        yield RawPeer(reader, writer)
    finally:
        writer.transport.abort()


def prefixed(body: bytes, *, size: int | None = None, compressed: int = 0) -> bytes:
    """A message as gRPC frames it."""
    announced = len(body) if size is None else size
    return bytes([compressed]) + announced.to_bytes(4, "big") + body


@pytest.mark.spec("SPIFFE-64")
async def test_reflection_tells_what_is_served(served: Served) -> None:
    """Without the header: the services by name, and the file that defines them."""
    stub = ServerReflectionStub(served.client().channel)
    requests = [
        ServerReflectionRequest(list_services=""),
        ServerReflectionRequest(file_containing_symbol="SpiffeWorkloadAPI"),
        ServerReflectionRequest(file_by_filename="google/protobuf/struct.proto"),
    ]
    services, ours, known = await stub.ServerReflectionInfo(requests)
    assert {each.name for each in services.list_services_response.service} == {
        "SpiffeWorkloadAPI",
        "accredit.workload.v1.AccreditWorkload",
        "envoy.service.secret.v3.SecretDiscoveryService",
        "grpc.health.v1.Health",
    }
    (file,) = ours.file_descriptor_response.file_descriptor_proto
    assert file == POOL.FindFileByName("workload.proto").serialized_pb
    assert len(known.file_descriptor_response.file_descriptor_proto) == 1


async def test_health_is_told_to_anybody(served: Served) -> None:
    """Without the header: serving."""
    stub = HealthStub(served.client().channel)
    for service in ("", "SpiffeWorkloadAPI"):
        answer = await stub.Check(HealthCheckRequest(service=service))
        assert answer.status == HealthCheckResponse.SERVING


@pytest.mark.spec("SPIFFE-98")
@pytest.mark.parametrize("name", ["FetchX509SVID", "FetchX509Bundles", "FetchJWTBundles"])
async def test_the_end_of_the_daemon_is_unavailable(
    tmp_path: Path, provider: FakeProvider, name: str
) -> None:
    """Open streams are told to come again, and never that all is well."""
    request: dict[str, tuple[Any, Any]] = {
        "FetchX509SVID": (pb.X509SVIDRequest(), pb.X509SVIDResponse),
        "FetchX509Bundles": (pb.X509BundlesRequest(), pb.X509BundlesResponse),
        "FetchJWTBundles": (pb.JWTBundlesRequest(), pb.JWTBundlesResponse),
    }
    async with (
        serving(tmp_path, provider) as served,
        served.client().watch(API + name, *request[name]) as stream,
    ):
        await stream.recv_message()
        ended = asyncio.create_task(refused(stream.recv_message()))
        await asyncio.sleep(0)
        await served.server.stop()
        assert (await ended).status is Status.UNAVAILABLE
    assert provider.watching == 0


@pytest.mark.spec("SPIFFE-98")
async def test_a_provider_that_ends_is_unavailable(served: Served) -> None:
    """A watch that has nothing more to say is no good end."""

    async def watch(_caller: object) -> AsyncIterator[object]:
        yield served.provider.state

    served.provider.watch = watch  # type: ignore[method-assign, assignment]
    request = pb.X509SVIDRequest()
    async with served.client().watch(X509, request, pb.X509SVIDResponse) as stream:
        assert (await refused(_all(stream))).status is Status.UNAVAILABLE


async def _all(stream: Any) -> None:
    while True:
        await stream.recv_message()


async def test_a_message_is_refused_by_its_announced_size(served: Served) -> None:
    """Four gigabytes are not waited for; the largest that may be is read."""
    async with raw(served) as peer:
        peer.call(X509, prefixed(b"", size=2**32 - 1), ended=False)
        peer.flush()
        assert await peer.trailer(b"grpc-status") == b"8"
    limit = Limits().request_bytes
    token = "x" * (limit - 100)
    request = pb.ValidateJWTSVIDRequest(audience="a", svid=token)
    call = served.client().ask(API + "ValidateJWTSVID", request, pb.ValidateJWTSVIDResponse)
    assert (await refused(call)).status is Status.INVALID_ARGUMENT
    request = pb.ValidateJWTSVIDRequest(audience="a", svid="x" * limit)
    call = served.client().ask(API + "ValidateJWTSVID", request, pb.ValidateJWTSVIDResponse)
    assert (await refused(call)).status is Status.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", b"3"),
        (b"\0\0\0", b"3"),
        (prefixed(b"ab", size=3), b"3"),
        (prefixed(b"\xff\xff\xff"), b"3"),
        (prefixed(b"", compressed=1), b"12"),
    ],
)
async def test_what_is_no_message_is_refused(
    served: Served, caplog: pytest.LogCaptureFixture, body: bytes, status: bytes
) -> None:
    """None, cut off, of another type, compressed: a status, and no line in the log."""
    with caplog.at_level(logging.INFO):
        async with raw(served) as peer:
            peer.call(API + "FetchJWTSVID", body)
            peer.flush()
            assert await peer.trailer(b"grpc-status") == status
    assert caplog.text == ""


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x01\x01\x05\x00\x00\x00\x01\xff",
        b"\x16\x03\x01\x00\xa5",
    ],
)
async def test_what_is_no_http2_ends_its_connection_only(
    served: Served, caplog: pytest.LogCaptureFixture, nonsense: bytes
) -> None:
    """Closed, nothing in the log, and the next caller is served."""
    async with raw(served) as peer:
        peer.writer.write(nonsense)
        await peer.ending()
    assert (await served.client().x509()).svids
    assert caplog.text == ""


async def test_a_frame_that_nobody_knows_is_ignored(served: Served) -> None:
    """RFC 9113 §5.5: kinds to come do not end the connection."""
    async with raw(served) as peer:
        peer.flush()
        peer.writer.write(b"\x00\x00\x00\xbe\x00\x00\x00\x00\x00")
        peer.call(API + "FetchJWTSVID", prefixed(b""))
        peer.flush()
        assert await peer.trailer(b"grpc-status") == b"3"


async def test_streams_of_a_connection_are_bounded(tmp_path: Path, provider: FakeProvider) -> None:
    """A client is told how many, and one that takes more loses its connection."""
    async with serving(tmp_path, provider, limits=Limits(streams=2)) as served, raw(served) as peer:
        peer.flush()
        async with asyncio.timeout(10):
            while peer.http2.remote_settings.max_concurrent_streams != 2:
                peer.http2.receive_data(await peer.reader.read(65536))
        peer.flush()  # acknowledged: from now on it binds
        peer.http2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 100
        peer.http2.remote_settings.acknowledge()
        for _ in range(3):
            peer.call(X509, prefixed(b""), ended=False)
        peer.flush()
        await peer.ending()
        await served.until(lambda: served.server.connections == 0)


async def test_a_peer_that_acknowledges_nothing_is_bounded_too(
    tmp_path: Path, provider: FakeProvider
) -> None:
    """What it asks for beyond is refused, to be asked for again; what it has is served on."""
    async with serving(tmp_path, provider, limits=Limits(streams=2)) as served, raw(served) as peer:
        first, second, third = (peer.call(X509, prefixed(b"")) for _ in range(3))
        peer.flush()
        reset = await peer.event(StreamReset)
        assert (reset.stream_id, reset.error_code) == (third, ErrorCodes.REFUSED_STREAM)
        await served.until(lambda: provider.watching == 2)
        peer.http2.reset_stream(first)
        fourth = peer.call(X509, prefixed(b""))
        peer.flush()
        assert (await peer.event(DataReceived, stream=fourth)).data
        provider.set(replace(provider.state, crls=()))  # type: ignore[type-var]
        assert (await peer.event(DataReceived, stream=second)).data


async def test_who_gives_up_calls_without_end_is_cut(
    passable: Path, provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """HTTP/2's rapid reset: so many are a user's on all its connections, and others have theirs."""
    few = Limits(given_up=20, given_up_each_second=0.0)
    async with serving(passable, provider, limits=few) as served:
        async with raw(served) as peer:
            for _ in range(20):
                peer.http2.reset_stream(peer.call(X509, prefixed(b""), ended=False))
            peer.flush()
            peer.call(API + "FetchJWTSVID", prefixed(b""))
            peer.flush()
            assert await peer.trailer(b"grpc-status") == b"3"
            assert "without end" not in caplog.text
            for _ in range(2000):
                peer.http2.reset_stream(peer.call(X509, prefixed(b""), ended=False))
            peer.flush()
            await peer.ending()
        await served.until(lambda: served.server.connections == 0)
        assert caplog.text.count(f"user {os.geteuid()} gives up calls without end") == 1
        assert provider.watching == 0
        async with raw(served) as peer:
            peer.http2.reset_stream(peer.call(X509, prefixed(b""), ended=False))
            peer.flush()
            await peer.ending()
        assert caplog.text.count("without end") == 2


@as_root
async def test_who_gives_up_calls_costs_only_its_user(
    passable: Path, provider: FakeProvider
) -> None:
    """A neighbour who gives one up is served on; and once rested a user is as any other."""
    limits = Limits(given_up=1, given_up_each_second=0.5)
    async with serving(passable, provider, limits=limits) as served:
        async with raw(served, uid=AGENT_UID) as peer:
            for _ in range(2):
                peer.http2.reset_stream(peer.call(X509, prefixed(b""), ended=False))
            peer.flush()
            await peer.ending()
        async with raw(served) as peer:
            peer.http2.reset_stream(peer.call(X509, prefixed(b""), ended=False))
            peer.call(API + "FetchJWTSVID", prefixed(b""))
            peer.flush()
            assert await peer.trailer(b"grpc-status") == b"3"
        await served.until(lambda: served.server.connections == 0)
        now = asyncio.get_running_loop().time()
        served.server.sweep(now)
        assert len(served.server._paces) == 2
        served.server.sweep(now + 10)
        assert not served.server._paces


async def test_calls_that_are_answered_are_not_counted(
    tmp_path: Path, provider: FakeProvider
) -> None:
    """However many a client asks, one after the other or at a time, on one connection."""
    none = Limits(given_up=0)
    async with serving(tmp_path, provider, limits=none) as served:
        client = served.client()
        request = pb.JWTSVIDRequest(audience=["a"])
        for _ in range(20):
            calls = (
                client.ask(API + "FetchJWTSVID", request, pb.JWTSVIDResponse) for _ in range(30)
            )
            for answer in await asyncio.gather(*calls):
                assert answer.svids
        assert served.server.connections == 1


async def test_who_does_not_read_is_cut(
    tmp_path: Path, provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """Answers to pings, too, are bounded: who sends and never reads loses the connection."""
    async with serving(tmp_path, provider, limits=SMALL) as served, raw(served) as peer:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        peer.flush()
        for _ in range(50_000):
            peer.http2.ping(b"12345678")
        peer.flush()
        await served.until(lambda: served.callers and served.callers[0].closed)
    assert "does not read" in caplog.text


async def test_an_answer_does_not_wait_for_ever(
    tmp_path: Path, provider: FakeProvider, authority: Authority
) -> None:
    """Without room in the peer's window a stream is cut, and holds one state until then."""
    async with serving(tmp_path, provider, limits=SMALL) as served, raw(served) as peer:
        peer.http2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1})
        peer.flush()
        peer.call(X509, prefixed(b""))
        peer.flush()
        await served.until(lambda: provider.watching == 1)
        for _ in range(10):
            provider.set(state_of(authority))
        await served.until(lambda: served.callers[0].closed)
        await served.until(lambda: provider.watching == 0)


async def test_a_slow_reader_gets_the_newest(
    tmp_path: Path, provider: FakeProvider, authority: Authority
) -> None:
    """Nine states in between are not told: the tenth is."""
    async with serving(tmp_path, provider) as served:
        request = pb.X509SVIDRequest()
        async with served.client().watch(X509, request, pb.X509SVIDResponse) as stream:
            await stream.recv_message()
            for number in range(10):
                provider.set(state_of(authority, f"/ns/a/agent/n{number}"))
            message = await stream.recv_message()
            assert message.svids[0].spiffe_id.endswith("/n9")


async def test_connections_are_bounded(
    tmp_path: Path, provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """One more than may be is closed at once, and when one goes another may come."""
    for limits in (Limits(connections=2), Limits(connections_of_uid=2)):
        async with serving(tmp_path, provider, limits=limits) as served:
            first, second = served.client(), served.client()
            await first.x509()
            await second.x509()
            async with raw(served) as peer:
                assert await peer.ending() == b""
            assert served.server.connections == 2
            second.channel.close()
            await served.until(lambda: served.server.connections == 1)
            assert (await served.client().x509()).svids
    assert caplog.text.count("a connection more than 2") == 2


@as_root
async def test_connections_of_subordinate_ids_are_their_owners(
    passable: Path, provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """A user that has 65,536 ids has no more connections than one with one; others have theirs."""
    ranges = parse_ranges(f"1000:{AGENT_UID}:2", {}.get)
    async with serving(
        passable,
        provider,
        limits=Limits(connections_of_uid=1),
        account_of=lambda uid: account_in(ranges, uid),
    ) as served:
        async with raw(served, uid=AGENT_UID) as peer:
            peer.call(X509, prefixed(b""))
            peer.flush()
            assert (await peer.event(DataReceived)).data
            async with raw(served, uid=AGENT_UID + 1) as second:
                assert await second.ending() == b""
            assert served.server.connections == 1
            assert (await served.client().x509()).svids
        await served.until(lambda: served.server.connections == 1)
        async with raw(served, uid=AGENT_UID + 1) as second:
            second.call(X509, prefixed(b""))
            second.flush()
            assert (await second.event(DataReceived)).data
    assert "of user 1000: closed" in caplog.text


async def test_who_cannot_be_named_is_not_served(served: Served) -> None:
    """Whatever keeps the caller from being known closes the connection."""

    def nobody(_connection: socket.socket) -> Any:
        raise RuntimeError("no such process")

    served.server._identify = nobody
    async with raw(served) as peer:
        assert await peer.ending() == b""


async def test_a_connection_without_calls_is_closed(served: Served) -> None:
    """After its time, and not while a stream is open, however old."""
    loop = asyncio.get_running_loop()
    idle = served.client()
    await idle.x509()
    request = pb.X509SVIDRequest()
    async with served.client().watch(X509, request, pb.X509SVIDResponse) as stream:
        await stream.recv_message()
        await served.until(lambda: served.server.sweep(loop.time() + 299) == 0)
        await served.until(lambda: served.server.sweep(loop.time() + 301) == 1)
        await served.until(lambda: served.server.connections == 1)
        served.provider.set(replace(served.provider.state, crls=()))  # type: ignore[type-var]
        assert await stream.recv_message()


@pytest.mark.spec("SPIFFE-65")
async def test_a_socket_is_for_everybody_on_the_host(served: Served) -> None:
    """A file that any user may connect to, in a folder that only its owner writes."""
    assert served.path.stat().st_mode & 0o777 == 0o666
    assert not served.path.parent.stat().st_mode & 0o022


@pytest.mark.spec("SPIFFE-100")
async def test_five_hundred_connect_at_once(tmp_path: Path, provider: FakeProvider) -> None:
    """A host that starts: everybody's first connect is answered, none is turned away."""
    async with serving(tmp_path, provider) as served:
        load = await asyncio.create_subprocess_exec(
            *(sys.executable, LOAD, "connects", served.path, "500"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            said, _ = await asyncio.wait_for(load.communicate(b"\n"), 60)
        finally:
            if load.returncode is None:
                load.kill()
        found = json.loads(said.splitlines()[-1])
        assert (found["answered"], found["failures"]) == (500, [])


async def test_without_envoy_there_is_no_sds(tmp_path: Path, provider: FakeProvider) -> None:
    """A site that has no Envoy serves the Workload API only."""
    async with serving(tmp_path, provider, sds=False) as served:
        path = "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets"
        call = served.client().ask(path, pb.X509SVIDRequest(), pb.X509SVIDResponse)
        assert (await refused(call)).status is Status.UNIMPLEMENTED


def test_a_client_of_another_package_may_be_in_the_process() -> None:
    """Our descriptors are in a pool of their own: ``spiffe`` brings a file of the same name."""
    pytest.importorskip("spiffe._proto.workload_pb2")
    assert Channel
    assert pb.DESCRIPTOR.pool is POOL


class CountingCaller:
    """A caller that counts how often it is looked at."""

    pid, uid, gid = 1, 2, 3

    def __init__(self) -> None:
        self.looks = 0
        self.changed = False

    def check(self) -> None:
        """Raises once it has changed."""
        self.looks += 1
        if self.changed:
            raise CallerChanged("another program")

    def close(self) -> None:
        """Nothing is held."""


async def test_who_calls_is_looked_at_once_for_what_leaves_together() -> None:
    """The answers of one turn of the event loop; a later turn looks again, as does a refusal."""
    caller = CountingCaller()
    connection = Connection(caller, {}, Limits(), Pace(1, 1.0), lambda _: None)
    for _ in range(3):
        connection.check_caller()
    assert caller.looks == 1
    await asyncio.sleep(0)
    caller.changed = True
    for _ in range(2):
        with pytest.raises(CallerChanged):
            connection.check_caller()
    assert caller.looks == 3

"""The daemon's socket with a provider in the hands of a test, and a caller of it.

Everything is real but the provider: the server, its socket, HTTP/2, the kernel's word for who is at
the other end. ``FakeProvider`` hands out what the test gives it, to everybody, at once and at each
change; an exception in the place of a state is raised.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from grpclib import GRPCError, Status
from grpclib.client import Channel, StreamStreamMethod, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.exceptions import ProtocolError, StreamTerminatedError
from h2.exceptions import StreamClosedError
from support.authority import Authority

from accredit_client.answers import TaskTokenAnswer
from accredit_client.calls import TaskTokenRequest
from accredit_client.daemon.accounts import itself
from accredit_client.daemon.limits import Limits
from accredit_client.daemon.proto import workload_pb2 as pb
from accredit_client.daemon.provider import (
    Caller,
    Refused,
    RevocationNotice,
    WorkloadState,
    WorkloadSvid,
    WorkloadWit,
)
from accredit_client.daemon.server import WorkloadServer
from accredit_credentials import jwt_svid, wit_svid
from accredit_credentials.jws import epoch
from accredit_credentials.jwt_svid import JwtSvid
from accredit_credentials.keys import generate_key
from accredit_credentials.spiffe_id import SpiffeId
from accredit_credentials.wit_svid import WitSvid

HEADER = (("workload.spiffe.io", "true"),)
API = "/SpiffeWorkloadAPI/"
WAIT = 10.0


class PeerCaller:
    """A caller as the kernel names it; ``changed`` makes it another process than it was."""

    def __init__(self, connection: socket.socket) -> None:
        word = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.pid, self.uid, self.gid = struct.unpack("3i", word)
        self.changed = False
        self.closed = 0

    def check(self) -> None:
        """Raises once the test said so."""
        if self.changed:
            raise RuntimeError("canary-of-a-check")

    def selectors(self) -> frozenset[str]:
        """What is known of it."""
        return frozenset({f"unix:uid:{self.uid}"})

    def close(self) -> None:
        """Counted."""
        self.closed += 1


def crl_of(authority: Authority, number: int = 1) -> bytes:
    """A CRL of the issuing CA, DER."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.issuing.certificate.subject)
        .last_update(authority.now)
        .next_update(authority.now + timedelta(hours=1))
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    return builder.sign(authority.issuing.key, hashes.SHA256()).public_bytes(Encoding.DER)


def state_of(authority: Authority, *paths: str, **fields: Any) -> WorkloadState:
    """A new state with an SVID for each path, newly issued."""
    identities = [authority.issue(authority.id(path)) for path in paths or ("/ns/a/agent/b",)]
    svids = tuple(WorkloadSvid(identity=each) for each in identities)
    return WorkloadState(svids=svids, bundle=authority.bundle, **fields)


class FakeProvider:
    """Hands out what a test gives it."""

    def __init__(self, authority: Authority, state: WorkloadState | Exception) -> None:
        self.authority = authority
        self.state = state
        self.notices: list[RevocationNotice] = []
        self.asked: list[tuple[Any, ...]] = []
        self.watching = 0
        self.hanging = False
        self._changed: set[asyncio.Event] = set()

    def set(self, state: WorkloadState | Exception) -> None:
        """Change what everybody may know."""
        self.state = state
        self._wake()

    def tell(self, notice: RevocationNotice) -> None:
        """Tell of facts."""
        self.notices.append(notice)
        self._wake()

    def _wake(self) -> None:
        for event in self._changed:
            event.set()

    async def _changes(self) -> AsyncIterator[None]:
        event = asyncio.Event()
        self._changed.add(event)
        try:
            while True:
                yield
                await event.wait()
                event.clear()
        finally:
            self._changed.discard(event)

    async def watch(self, caller: Caller) -> AsyncIterator[WorkloadState]:
        """The state, at once and at each change."""
        self.watching += 1
        try:
            async for _ in self._changes():
                yield self._held()
        finally:
            self.watching -= 1

    async def watch_wits(
        self, caller: Caller, spiffe_id: SpiffeId | None
    ) -> AsyncIterator[tuple[WorkloadWit, ...]]:
        """WIT-SVIDs of the test's authority, new ones at each change."""
        async for _ in self._changes():
            self.asked.append(("wit", spiffe_id))
            found = [
                self.wit(each)
                for each in self._held().svids
                if spiffe_id in {None, each.identity.svid.spiffe_id}
            ]
            if not found:
                raise Refused(f"the caller is not {spiffe_id}")
            yield tuple(found)

    def wit(self, svid: WorkloadSvid) -> WorkloadWit:
        """A WIT-SVID for a new key."""
        authority, key, spiffe_id = self.authority, generate_key(), svid.identity.svid.spiffe_id
        content = WitSvid(
            spiffe_id=spiffe_id,
            key=key.public_key(),
            algorithm="ES256",
            expires_at=authority.now + timedelta(minutes=15),
        )
        token = wit_svid.sign(content, authority.wit_key, authority.wit_kid)
        return WorkloadWit(spiffe_id=spiffe_id, token=token, key=key, hint=svid.hint)

    async def jwt_svids(
        self, caller: Caller, audience: tuple[str, ...], spiffe_id: SpiffeId | None
    ) -> tuple[tuple[SpiffeId, str, str], ...]:
        """Tokens of the test's authority."""
        self.asked.append(("jwt", audience, spiffe_id))
        if self.hanging:
            await asyncio.get_running_loop().create_future()
        found = [
            (each.identity.svid.spiffe_id, each.hint)
            for each in self._held().svids
            if spiffe_id in {None, each.identity.svid.spiffe_id}
        ]
        if not found:
            raise Refused(f"the caller is not {spiffe_id}")
        return tuple((each, self.token(each, audience), hint) for each, hint in found)

    def token(self, spiffe_id: SpiffeId, audience: tuple[str, ...]) -> str:
        """A JWT-SVID."""
        authority = self.authority
        svid = JwtSvid(
            spiffe_id=spiffe_id,
            audience=audience,
            issued_at=authority.now,
            expires_at=authority.now + timedelta(minutes=5),
            jti="jti-1",
        )
        return jwt_svid.sign(svid, authority.jwt_key, authority.kid)

    async def validate_jwt(
        self, caller: Caller, audience: str, token: str
    ) -> tuple[SpiffeId, Mapping[str, object]]:
        """The full rules, by the bundles of the state."""
        held = self._held()
        bundles = {held.bundle.trust_domain: held.bundle, **held.federated}
        now = self.authority.now
        svid = jwt_svid.validate(token, bundles=bundles, audience=audience, now=now)
        return svid.spiffe_id, {
            "sub": str(svid.spiffe_id),
            "aud": list(svid.audience),
            "exp": epoch(svid.expires_at),
        }

    async def task_token(
        self, caller: Caller, request: TaskTokenRequest, spiffe_id: SpiffeId | None
    ) -> TaskTokenAnswer:
        """A token that is none."""
        self.asked.append(("task", request, spiffe_id))
        return TaskTokenAnswer(
            access_token="token-canary",
            token_type="Bearer",
            expires_in=300,
            expires_at=self.authority.now + timedelta(minutes=5),
            scope=" ".join(f"{request.resource}:{each}" for each in request.actions),
            audience="https://tickets",
            jti="jti-2",
            task_id=request.task_id or "task-1",
        )

    async def revocations(self, caller: Caller) -> AsyncIterator[RevocationNotice]:
        """An empty notice, then those of the test."""
        yield RevocationNotice(sequence=len(self.notices))
        told = len(self.notices)
        async for _ in self._changes():
            while told < len(self.notices):
                yield self.notices[told]
                told += 1

    def _held(self) -> WorkloadState:
        if isinstance(self.state, Exception):
            raise self.state
        return self.state


class Watching:
    """A stream that raises how it ended, where grpclib's says None."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def send_message(self, message: Any) -> None:
        """Say something."""
        await self._stream.send_message(message)

    async def recv_message(self) -> Any:
        """The next message; a ``GRPCError`` with the status where there is none."""
        message = await self._stream.recv_message()
        if message is None:
            await self._stream.recv_trailing_metadata()
            raise GRPCError(Status.OK, "the stream ended as if all were well")
        return message


async def _let_go(stream: Any) -> None:
    with suppress(ProtocolError, StreamClosedError, StreamTerminatedError):
        await stream.cancel()


class Client:
    """Calls the socket as any gRPC client does."""

    def __init__(self, path: Path) -> None:
        self.channel = Channel(path=str(path))

    async def ask(
        self,
        method: str,
        request: Any,
        reply: Any,
        metadata: Sequence[tuple[str, str]] = HEADER,
    ) -> Any:
        """One question, one answer."""
        call = UnaryUnaryMethod(self.channel, method, type(request), reply)
        return await call(request, timeout=WAIT, metadata=list(metadata))

    @asynccontextmanager
    async def watch(
        self,
        method: str,
        request: Any,
        reply: Any,
        metadata: Sequence[tuple[str, str]] = HEADER,
    ) -> AsyncIterator[Any]:
        """An open stream of answers, with ``recv_message``."""
        call = UnaryStreamMethod(self.channel, method, type(request), reply)
        async with call.open(metadata=list(metadata)) as stream:
            await stream.send_message(request, end=True)
            yield Watching(stream)
            await _let_go(stream)

    @asynccontextmanager
    async def talk(self, method: str, request: Any, reply: Any) -> AsyncIterator[Any]:
        """An open stream in both directions; how it ended is raised where the context ends."""
        call = StreamStreamMethod(self.channel, method, request, reply)
        async with call.open() as stream:
            await stream.send_request()
            yield Watching(stream)
            await _let_go(stream)

    async def x509(self) -> pb.X509SVIDResponse:
        """The first message of FetchX509SVID."""
        watching = self.watch(API + "FetchX509SVID", pb.X509SVIDRequest(), pb.X509SVIDResponse)
        async with watching as stream:
            return await stream.recv_message()


async def refused(awaited: Any) -> GRPCError:
    """How a call ended that must not succeed."""
    try:
        async with asyncio.timeout(WAIT):
            found = await awaited
    except GRPCError as error:
        return error
    raise AssertionError(f"not refused: {found!r}")


@dataclass
class Served:
    """A server that runs, and what a test may look at."""

    path: Path
    provider: FakeProvider
    server: WorkloadServer
    callers: list[PeerCaller]
    clients: list[Client] = field(default_factory=list)

    def client(self) -> Client:
        """Another client, on a connection of its own."""
        self.clients.append(Client(self.path))
        return self.clients[-1]

    async def until(self, true: Any) -> None:
        """Wait for something that the other end does."""
        async with asyncio.timeout(WAIT):
            while not true():  # noqa: ASYNC110 (nobody there tells us)
                await asyncio.sleep(0)


@asynccontextmanager
async def serving(
    folder: Path,
    provider: FakeProvider,
    *,
    limits: Limits | None = None,
    account_of: Callable[[int], int] = itself,
    sds: bool = True,
    wit: bool = False,
) -> AsyncIterator[Served]:
    """Serve until the context ends."""
    callers: list[PeerCaller] = []

    def identify(connection: socket.socket) -> PeerCaller:
        callers.append(PeerCaller(connection))
        return callers[-1]

    server = WorkloadServer(
        provider, identify=identify, limits=limits, account_of=account_of, sds=sds, wit=wit
    )
    path = folder / "agent.sock"
    await server.start(path)
    served = Served(path, provider, server, callers)
    try:
        yield served
    finally:
        for each in served.clients:
            each.channel.close()
        await server.stop()
        assert server.connections == 0
        assert not path.exists()
        assert [each.closed for each in callers] == [1] * len(callers)

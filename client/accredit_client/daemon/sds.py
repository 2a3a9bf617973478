"""Envoy's Secret Discovery Service, version 3, on the same socket.

A proxy beside a workload is a process like any other: it is measured and named as its caller, and
has only its own identities. It sends no header of the Workload Endpoint: Envoy's configuration
knows SDS and not SPIFFE, and SPIRE asks for none either. What the header keeps out (who was talked
into a request) would have to speak HTTP/2, gRPC and protobuf to a unix socket; a site without Envoy
serves no SDS (``WorkloadServer(sds=False)``).

``Subscription`` decides, without a socket, what is sent when (xDS, state of the world): a request
with another nonce than the last is stale; a refusal (NACK) is logged, and the same content is not
sent again; what the names stand for is sent whole whenever it changed. The incremental form is
Unimplemented: Envoy uses it only where it is told to.
"""

import asyncio
import hashlib
import logging
from collections.abc import Mapping

from grpclib.const import Cardinality
from grpclib.const import Handler as Method

from accredit_client.daemon import statuses
from accredit_client.daemon.limits import Limits
from accredit_client.daemon.newest import Newest
from accredit_client.daemon.proto.envoy_discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from accredit_client.daemon.provider import Provider, WorkloadState
from accredit_client.daemon.rpc import Rpc, method
from accredit_client.daemon.secrets import names_of, secret_of

log = logging.getLogger(__name__)

SERVICE = "/envoy.service.secret.v3.SecretDiscoveryService/"
TYPE_URL = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
MAX_NAMES = 128
MAX_SHOWN = 200


class Subscription:
    """What one stream has asked for and was sent."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] | None = None  # nothing was asked yet
        self._sent: tuple[tuple[str, ...], str] | None = None
        self._count = 0

    def ask(self, request: DiscoveryRequest) -> str | None:
        """Take in a request; returns the proxy's words where it refused what it was sent.

        Raises:
            GRPCError: INVALID_ARGUMENT: of another type, or too many names.
        """
        if request.type_url not in {"", TYPE_URL}:
            raise statuses.invalid(f"type_url must be {TYPE_URL}")
        if len(request.resource_names) > MAX_NAMES:
            raise statuses.invalid(f"more than {MAX_NAMES} resource_names")
        if request.response_nonce and request.response_nonce != str(self._count):
            return None
        self._names = tuple(dict.fromkeys(request.resource_names))
        if request.HasField("error_detail"):
            return repr(request.error_detail.message[:MAX_SHOWN])
        return None

    def due(self, state: WorkloadState) -> DiscoveryResponse | None:
        """What is to be sent now, if anything.

        Raises:
            GRPCError: PERMISSION_DENIED: a name that the caller has nothing of.
        """
        if self._names is None:
            return None
        response = response_of(state, self._names)
        now = (self._names, response.version_info)
        if now == self._sent:
            return None
        self._sent = now
        self._count += 1
        response.nonce = str(self._count)
        return response


def response_of(state: WorkloadState, names: tuple[str, ...]) -> DiscoveryResponse:
    """The secrets of these names, of all where none is named; the version is their digest.

    Raises:
        GRPCError: PERMISSION_DENIED: a name that the caller has nothing of.
    """
    response = DiscoveryResponse(type_url=TYPE_URL)
    for name in names or names_of(state):
        secret = secret_of(state, name)
        if secret is None and names:
            raise statuses.denied(f"the caller has no secret {name[:MAX_SHOWN]!r}")
        if secret is not None:
            response.resources.add().Pack(secret, deterministic=True)
    content = response.SerializeToString(deterministic=True)
    response.version_info = hashlib.sha256(content).hexdigest()
    return response


class SecretDiscovery:
    """The service, for all connections."""

    def __init__(self, provider: Provider, limits: Limits) -> None:
        self._provider = provider
        self._limits = limits

    def __mapping__(self) -> Mapping[str, Method]:
        """The calls by their paths, as grpclib wants them."""
        return {
            SERVICE + "StreamSecrets": method(
                self._stream, Cardinality.STREAM_STREAM, DiscoveryRequest, DiscoveryResponse
            ),
            SERVICE + "FetchSecrets": method(
                self._fetch, Cardinality.UNARY_UNARY, DiscoveryRequest, DiscoveryResponse
            ),
            SERVICE + "DeltaSecrets": method(
                _no_delta,
                Cardinality.STREAM_STREAM,
                DeltaDiscoveryRequest,
                DeltaDiscoveryResponse,
            ),
        }

    async def _stream(self, rpc: Rpc) -> None:
        rpc.check_caller()
        subscription, state, arrived = Subscription(), None, asyncio.Event()
        states = Newest(self._provider.watch(rpc.caller), arrived)
        requests = Newest[DiscoveryRequest](rpc, arrived)
        async with states, requests:
            while True:
                await arrived.wait()
                arrived.clear()
                state = states.take() or state
                if request := requests.take():
                    _tell(rpc, subscription.ask(request))
                if state is not None and (response := subscription.due(state)):
                    await rpc.answer(response)

    async def _fetch(self, rpc: Rpc) -> None:
        rpc.check_caller()
        subscription = Subscription()
        subscription.ask(await rpc.request())
        async with Newest(self._provider.watch(rpc.caller)) as states:
            async with asyncio.timeout(self._limits.answer_seconds):
                state = await states.next()
        response = subscription.due(state)
        if response is None:
            raise statuses.invalid("response_nonce is for streams")
        await rpc.answer(response)


async def _no_delta(_rpc: Rpc) -> None:
    raise statuses.unimplemented("incremental SDS is not served: use api_type GRPC")


def _tell(rpc: Rpc, refusal: str | None) -> None:
    if refusal is not None:
        log.warning("process %d refused the secrets it was sent: %s", rpc.caller.pid, refusal)

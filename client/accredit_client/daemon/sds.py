"""Envoy's Secret Discovery Service, version 3, on the same socket.

A proxy beside a workload is a process like any other: it is measured and named as its caller, and
has only its own identities. It sends no header of the Workload Endpoint: Envoy's configuration
knows SDS and not SPIFFE, and SPIRE asks for none either. What the header keeps out (who was talked
into a request) would have to speak HTTP/2, gRPC and protobuf to a unix socket; a site without Envoy
serves no SDS (``WorkloadServer(sds=False)``).

``subscriptions`` decides, without a socket, what is sent when. Of the state of the world the newest
request counts, and an older one that was not looked at yet is dropped; an incremental stream is
read one request after the other. A name that the caller has nothing of ends the first with
PERMISSION_DENIED, and is named as removed in the second, as xDS has it.
"""

import asyncio
import logging
from collections.abc import Mapping

from grpclib.const import Cardinality
from grpclib.const import Handler as Method

from accredit_client.daemon import statuses
from accredit_client.daemon.limits import Limits
from accredit_client.daemon.newest import Each, Newest
from accredit_client.daemon.proto.envoy_discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from accredit_client.daemon.provider import Provider, Refused
from accredit_client.daemon.rpc import Rpc, method
from accredit_client.daemon.subscriptions import DeltaSubscription, WholeSubscription, shown

log = logging.getLogger(__name__)

SERVICE = "/envoy.service.secret.v3.SecretDiscoveryService/"


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
                self._delta,
                Cardinality.STREAM_STREAM,
                DeltaDiscoveryRequest,
                DeltaDiscoveryResponse,
            ),
        }

    async def _stream(self, rpc: Rpc) -> None:
        rpc.check_caller()
        subscription, state, arrived = WholeSubscription(), None, asyncio.Event()
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

    async def _delta(self, rpc: Rpc) -> None:
        rpc.check_caller()
        subscription, state, arrived = DeltaSubscription(), None, asyncio.Event()
        states = Newest(self._provider.watch(rpc.caller), arrived)
        requests = Each[DeltaDiscoveryRequest](rpc, arrived)
        async with states, requests:
            while True:
                await arrived.wait()
                arrived.clear()
                try:
                    state = states.take() or state
                except Refused:
                    # The status says that this is over; what is over, only names can say.
                    if response := subscription.withdrawn():
                        await rpc.answer(response)
                    raise
                if request := requests.take():
                    _tell(rpc, subscription.ask(request))
                if state is not None and (response := subscription.due(state)):
                    if response.removed_resources:
                        names = shown(response.removed_resources)
                        log.warning("process %d has no secret %s", rpc.caller.pid, names)
                    await rpc.answer(response)

    async def _fetch(self, rpc: Rpc) -> None:
        rpc.check_caller()
        subscription = WholeSubscription()
        subscription.ask(await rpc.request())
        async with Newest(self._provider.watch(rpc.caller)) as states:
            async with asyncio.timeout(self._limits.answer_seconds):
                state = await states.next()
        response = subscription.due(state)
        if response is None:
            raise statuses.invalid("response_nonce is for streams")
        await rpc.answer(response)


def _tell(rpc: Rpc, refusal: str | None) -> None:
    if refusal is not None:
        log.warning("process %d refused the secrets it was sent: %s", rpc.caller.pid, refusal)

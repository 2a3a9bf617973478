"""The SPIFFE Workload API: the calls of its X.509, JWT and WIT profiles, and nothing of our own.

Each call: header (Workload Endpoint §3) → request → provider → is the caller still the process that
connected → answer.
Streams carry the whole state at once, then after each change that the stream is about. They end by
a status other than OK only: older clients take OK for "nothing will ever change". The WIT profile
(§7) is optional: where it is not served, its calls are Unimplemented.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar, cast

from google.protobuf.message import Message
from grpclib.const import Cardinality
from grpclib.const import Handler as Method

from accredit_client.daemon import messages, statuses
from accredit_client.daemon.limits import Limits
from accredit_client.daemon.newest import Newest
from accredit_client.daemon.proto import workload_pb2 as pb
from accredit_client.daemon.provider import Provider, WorkloadState
from accredit_client.daemon.rpc import Rpc, method
from accredit_credentials.errors import CredentialError
from accredit_credentials.spiffe_id import SpiffeId

S = TypeVar("S")

SERVICE = "/SpiffeWorkloadAPI/"
MAX_AUDIENCES = 32
MAX_AUDIENCE_BYTES = 1024

_ONE, _STREAM = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM


class WorkloadApi:
    """The service, for all connections."""

    def __init__(self, provider: Provider, limits: Limits, *, wit: bool) -> None:
        self._provider = provider
        self._limits = limits
        self._serves_wit = wit

    def __mapping__(self) -> Mapping[str, Method]:
        """The calls by their paths, as grpclib wants them."""
        return {
            SERVICE + "FetchX509SVID": method(
                self._x509_svids, _STREAM, pb.X509SVIDRequest, pb.X509SVIDResponse
            ),
            SERVICE + "FetchX509Bundles": method(
                self._x509_bundles, _STREAM, pb.X509BundlesRequest, pb.X509BundlesResponse
            ),
            SERVICE + "FetchJWTSVID": method(
                self._jwt_svid, _ONE, pb.JWTSVIDRequest, pb.JWTSVIDResponse
            ),
            SERVICE + "FetchJWTBundles": method(
                self._jwt_bundles, _STREAM, pb.JWTBundlesRequest, pb.JWTBundlesResponse
            ),
            SERVICE + "ValidateJWTSVID": method(
                self._validate, _ONE, pb.ValidateJWTSVIDRequest, pb.ValidateJWTSVIDResponse
            ),
            SERVICE + "FetchWITSVID": method(
                self._wit_svids if self._serves_wit else _no_wit,
                _STREAM,
                pb.WITSVIDRequest,
                pb.WITSVIDResponse,
            ),
            SERVICE + "FetchWITBundles": method(
                self._wit_bundles if self._serves_wit else _no_wit,
                _STREAM,
                pb.WITBundlesRequest,
                pb.WITBundlesResponse,
            ),
        }

    async def _x509_svids(self, rpc: Rpc) -> None:
        await self._stream(rpc, messages.x509_svids)

    async def _x509_bundles(self, rpc: Rpc) -> None:
        await self._stream(rpc, messages.x509_bundles)

    async def _jwt_bundles(self, rpc: Rpc) -> None:
        await self._stream(rpc, messages.jwt_bundles)

    async def _wit_svids(self, rpc: Rpc) -> None:
        request = await opened(rpc)
        rpc.check_caller()  # before the issuer is asked: what it issues is recorded
        spiffe_id = optional_id(request.spiffe_id)
        source = self._provider.watch_wits(rpc.caller, spiffe_id)
        await self._told(rpc, source, messages.wit_svids)

    async def _wit_bundles(self, rpc: Rpc) -> None:
        await self._stream(rpc, messages.wit_bundles)

    async def _stream(self, rpc: Rpc, written: Callable[[WorkloadState], Message]) -> None:
        await opened(rpc)
        await self._told(rpc, self._provider.watch(rpc.caller), written)

    async def _told(
        self, rpc: Rpc, source: AsyncIterator[S], written: Callable[[S], Message]
    ) -> None:
        sent = b""
        async with Newest(source) as states:
            while True:
                message = written(await states.next())
                digest = hashlib.sha256(message.SerializeToString(deterministic=True)).digest()
                if digest != sent:
                    await rpc.answer(message)
                    sent = digest

    async def _jwt_svid(self, rpc: Rpc) -> None:
        request = await opened(rpc)
        audience = tuple(request.audience)
        check_audience(audience)
        spiffe_id = optional_id(request.spiffe_id)
        async with asyncio.timeout(self._limits.answer_seconds):
            found = await self._provider.jwt_svids(rpc.caller, audience, spiffe_id)
        message = pb.JWTSVIDResponse()
        for each, token, hint in found:
            message.svids.add(spiffe_id=str(each), svid=token, hint=hint)
        if not message.svids:
            raise statuses.denied("the caller has no identity")
        await rpc.answer(message)

    async def _validate(self, rpc: Rpc) -> None:
        request = await opened(rpc)
        check_audience((request.audience,))
        if not request.svid:
            raise statuses.invalid("svid must not be empty")
        async with asyncio.timeout(self._limits.answer_seconds):
            spiffe_id, claims = await self._provider.validate_jwt(
                rpc.caller, request.audience, request.svid
            )
        message = pb.ValidateJWTSVIDResponse(spiffe_id=str(spiffe_id))
        message.claims.update(cast("dict[str, Any]", claims))
        await rpc.answer(message)


async def _no_wit(rpc: Rpc) -> None:
    rpc.check_header()
    raise statuses.unimplemented("the WIT-SVID profile is not served here")


async def opened(rpc: Rpc) -> Any:
    """The request, once the header was found good; who asks is checked right before the answer.

    Raises:
        GRPCError: INVALID_ARGUMENT, or as ``Rpc.recv_message``.
    """
    rpc.check_header()
    return await rpc.request()


def check_audience(audience: tuple[str, ...]) -> None:
    """Decide whether a token can be asked for these (§4.5: nothing that is needed is empty).

    Raises:
        GRPCError: INVALID_ARGUMENT.
    """
    if not audience or "" in audience:
        raise statuses.invalid("audience must not be empty")
    if len(audience) > MAX_AUDIENCES:
        raise statuses.invalid(f"audience has {len(audience)} values, the limit is {MAX_AUDIENCES}")
    if any(len(each.encode()) > MAX_AUDIENCE_BYTES for each in audience):
        raise statuses.invalid(f"an audience must have at most {MAX_AUDIENCE_BYTES} bytes")


def optional_id(text: str) -> SpiffeId | None:
    """The ID that was asked for, None for the empty text.

    Raises:
        GRPCError: INVALID_ARGUMENT.
    """
    if not text:
        return None
    try:
        return SpiffeId.parse(text)
    except CredentialError as error:
        raise statuses.invalid(str(error)) from None

"""Our own calls on the same socket: task tokens, and notices of what was taken back.

A service of its own, ``accredit.workload.v1.AccreditWorkload``, beside the Workload API and never
in it (Workload Endpoint §7). Header and caller are checked as there. Notices are added up for a
reader who is slow, and the stream ends where too many wait: the next one begins with all of them.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping

from grpclib import GRPCError, Status
from grpclib.const import Cardinality
from grpclib.const import Handler as Method

from accredit_client.calls import TaskTokenRequest
from accredit_client.daemon import statuses
from accredit_client.daemon.limits import Limits
from accredit_client.daemon.newest import Newest, close
from accredit_client.daemon.proto import accredit_workload_pb2 as pb
from accredit_client.daemon.provider import Provider, RevocationNotice
from accredit_client.daemon.rpc import Rpc, method
from accredit_client.daemon.workload_api import opened, optional_id
from accredit_client.task_tokens import TokenBinding

SERVICE = "/accredit.workload.v1.AccreditWorkload/"
MAX_ACTIONS = 64
MAX_WAITING_FACTS = 1000

_BINDINGS = frozenset(kind.value for kind in TokenBinding)


class OwnCalls:
    """The service, for all connections."""

    def __init__(self, provider: Provider, limits: Limits) -> None:
        self._provider = provider
        self._limits = limits

    def __mapping__(self) -> Mapping[str, Method]:
        """The calls by their paths, as grpclib wants them."""
        return {
            SERVICE + "FetchTaskToken": method(
                self._task_token,
                Cardinality.UNARY_UNARY,
                pb.FetchTaskTokenRequest,
                pb.FetchTaskTokenResponse,
            ),
            SERVICE + "WatchRevocations": method(
                self._revocations,
                Cardinality.UNARY_STREAM,
                pb.WatchRevocationsRequest,
                pb.RevocationNotice,
            ),
        }

    async def _task_token(self, rpc: Rpc) -> None:
        request = await opened(rpc)
        rpc.check_caller()  # before the issuer is asked: what it issues is recorded
        wanted = wanted_token(request)
        spiffe_id = optional_id(request.spiffe_id)
        async with asyncio.timeout(self._limits.answer_seconds):
            answer = await self._provider.task_token(rpc.caller, wanted, spiffe_id)
        message = pb.FetchTaskTokenResponse(
            access_token=answer.access_token,
            token_type=answer.token_type,
            scope=answer.scope,
            audience=answer.audience,
            jti=answer.jti,
            task_id=answer.task_id,
        )
        message.expires_at.FromDatetime(answer.expires_at)
        await rpc.answer(message)

    async def _revocations(self, rpc: Rpc) -> None:
        await opened(rpc)
        waiting = _Waiting()
        async with Newest(waiting.added(self._provider.revocations(rpc.caller))) as notices:
            while True:
                await notices.next()
                await rpc.answer(written(waiting.take()))


class _Waiting:
    """Notices that were not sent yet, as one."""

    def __init__(self) -> None:
        self._notice = RevocationNotice(sequence=0)

    async def added(self, notices: AsyncIterator[RevocationNotice]) -> AsyncIterator[bool]:
        try:
            async for notice in notices:
                facts = (*self._notice.facts, *notice.facts)
                if self._notice.facts and len(facts) > MAX_WAITING_FACTS:
                    text = f"more than {MAX_WAITING_FACTS} facts were not read: connect again"
                    raise GRPCError(Status.RESOURCE_EXHAUSTED, text)
                self._notice = RevocationNotice(sequence=notice.sequence, facts=facts)
                yield True
        finally:
            await close(notices)

    def take(self) -> RevocationNotice:
        notice = self._notice
        self._notice = RevocationNotice(sequence=notice.sequence)
        return notice


def wanted_token(request: pb.FetchTaskTokenRequest) -> TaskTokenRequest:
    """What is asked of the issuer.

    Raises:
        GRPCError: INVALID_ARGUMENT.
    """
    if not request.resource or not request.purpose:
        raise statuses.invalid("resource and purpose must not be empty")
    actions = tuple(request.actions)
    if not actions or "" in actions or len(actions) > MAX_ACTIONS:
        raise statuses.invalid(f"actions must be 1 to {MAX_ACTIONS} names")
    binding = request.binding or TokenBinding.CERTIFICATE.value
    if binding not in _BINDINGS:
        raise statuses.invalid(f"binding must be one of {', '.join(sorted(_BINDINGS))}")
    if bool(request.jkt) != (binding == TokenBinding.DPOP.value):
        raise statuses.invalid("jkt is for the binding dpop, and needed there")
    return TaskTokenRequest(
        resource=request.resource,
        actions=actions,
        purpose=request.purpose,
        task_id=request.task_id or None,
        parent=request.parent or None,
        principal=request.principal or None,
        binding=binding,
        jkt=request.jkt or None,
    )


def written(notice: RevocationNotice) -> pb.RevocationNotice:
    """The notice as a message."""
    message = pb.RevocationNotice(sequence=notice.sequence)
    for fact in notice.facts:
        one = message.facts.add(
            sequence=fact.sequence,
            target=str(fact.target),
            kind=fact.kind.value,
            reason=fact.reason,
        )
        one.at.FromDatetime(fact.at)
        one.expires_at.FromDatetime(fact.expires_at)
    return message

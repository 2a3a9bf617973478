"""Nodes: listing them, attesting them, and what they ask for the processes that they measured.

Every refusal of a node that is known becomes a record before it is answered, as agents' do.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from starlette.concurrency import run_in_threadpool
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.responses import JSONResponse, Response

from accredit_issuer.api import bodies
from accredit_issuer.api.answers import instances_answer, x509_answer
from accredit_issuer.api.callers import AdminCaller, Caller, Callers
from accredit_issuer.api.hot import HotRoute
from accredit_issuer.api.strict_route import StrictRoute
from accredit_issuer.errors import Refusal
from accredit_issuer.issuance.node_instances import InstanceAsked
from accredit_issuer.issuance.node_svids import NodeAttestationRequest
from accredit_issuer.issuer import Issuer
from accredit_issuer.metrics import Metrics
from accredit_issuer.registry.listing import text_of
from accredit_issuer.registry.nodes import RESERVED, NodeAsked
from accredit_issuer.registry.roles import Operation
from accredit_issuer.revocation.stated import stated_against

Answer = dict[str, Any]


class _NodeName(StringConvertor):
    """A node's name in a path; what stands beside the names is none."""

    regex = rf"(?!(?:{'|'.join(sorted(RESERVED))})(?:/|$))[^/]+"


register_url_convertor("node", _NodeName())
Name = Annotated[str, Path(pattern="^[a-z0-9._-]{1,63}$", description="the node")]
InstanceId = Annotated[str, Path(pattern="^[0-9a-f-]{36}$", description="the instance")]


def hot_routes(issuer: Issuer, callers: Callers, metrics: Metrics) -> APIRouter:
    """What nodes ask all day."""
    router = APIRouter(prefix="/v1/nodes", route_class=HotRoute, tags=["nodes"])
    issuance = issuer.issuance
    ByNode = Annotated[Caller, Depends(callers.node)]  # noqa: N806 (a type)

    @router.post("/attestations", summary="Attest a node, and receive its X.509-SVID")
    async def attest(body: bodies.NodeAttestation) -> Answer:
        request = NodeAttestationRequest(
            node=body.node, nonce=body.nonce, csr=body.csr, evidence=body.evidence
        )
        return x509_answer(await metrics.issuing("x509", issuance.nodes.attest(request)))

    @router.post("/instances", summary="An X.509-SVID for a process that the node measured")
    async def instance(body: bodies.NodeInstance, caller: ByNode) -> Answer:
        issued = metrics.issuing("x509", issuance.instances.issue(caller.svid, _asked(body)))
        try:
            return x509_answer(await issued)
        except Refusal as refusal:
            await issuance.refusals.record(caller.name, _what(body), refusal)
            raise

    @router.post("/instances/batch", summary="The same for several, each decided by itself")
    async def batch(body: bodies.NodeInstances, caller: ByNode) -> Answer:
        asked = [_asked(each) for each in body.requests]
        try:
            outcomes = await issuance.instances.issue_all(caller.svid, asked)
        except Refusal as refusal:
            await issuance.refusals.record(caller.name, f"instances x{len(asked)}", refusal)
            raise
        for each, outcome in zip(body.requests, outcomes, strict=True):
            if isinstance(outcome, Refusal):
                metrics.refused("x509", outcome)
                await issuance.refusals.record(caller.name, _what(each), outcome)
        metrics.issued("x509", sum(not isinstance(each, Refusal) for each in outcomes))
        return instances_answer(outcomes)

    return router


def reports(issuer: Issuer, callers: Callers, metrics: Metrics) -> APIRouter:
    """What nodes say of the code that they measure."""
    router = APIRouter(prefix="/v1/nodes", route_class=StrictRoute, tags=["nodes"])
    ByNode = Annotated[Caller, Depends(callers.node_by_any_clock)]  # noqa: N806 (a type)

    @router.post("/instances/{instance}/changed", summary="Say that an instance's code changed")
    async def changed(instance: InstanceId, body: bodies.CodeChanged, caller: ByNode) -> Response:
        def suspend() -> bool:
            return issuer.issuance.instances.changed(
                caller.svid, instance, reason=body.reason, measured=body.measured
            )

        try:
            if await run_in_threadpool(suspend):
                metrics.facts.labels("suspended").inc()
        except Refusal as refusal:
            asked = f"instance {instance} changed"
            await issuer.issuance.refusals.record(caller.name, asked, refusal)
            raise
        mark = (f"instance:{instance}",)
        with issuer.database.read() as connection:
            fact = stated_against(connection, mark).match(mark)
        state = "active" if fact is None else fact.kind.value
        return JSONResponse({"instance": instance, "state": state})

    return router


def routes(issuer: Issuer, callers: Callers) -> APIRouter:
    """What admins ask about nodes."""
    router = APIRouter(prefix="/v1/nodes", route_class=StrictRoute, tags=["nodes"])
    nodes = issuer.nodes
    ByAdmin = Annotated[AdminCaller, Depends(callers.admin)]  # noqa: N806 (a type)
    ByAnyClock = Annotated[AdminCaller, Depends(callers.admin_by_any_clock)]  # noqa: N806

    @router.get("", summary="The nodes, by name")
    def listed(by: ByAdmin) -> Response:
        by.require(Operation.READ, None)
        return JSONResponse({"nodes": nodes.all(issuer.clock())})

    @router.post("", summary="List a node", status_code=201)
    def add(body: bodies.NodeBody, by: ByAdmin) -> Response:
        actor = by.require(Operation.MANAGE_NODES, None)
        now = issuer.guarded_clock()
        asked = NodeAsked(
            name=body.name,
            attestation=body.attestation,
            namespaces=tuple(body.namespaces),
            ca=body.ca,
            certificate=body.certificate,
        )
        nodes.add(asked, by=actor, now=now)
        return JSONResponse(nodes.one(body.name, now), status_code=201)

    @router.get("/{name:node}", summary="One node")
    def show(name: Name, by: ByAdmin) -> Response:
        by.require(Operation.READ, None)
        return JSONResponse(nodes.one(name, issuer.clock()))

    @router.put("/{name:node}/namespaces", summary="Say anew whose agents may run on a node")
    def change(name: Name, body: bodies.NodeNamespacesBody, by: ByAdmin) -> Response:
        actor = by.require(Operation.MANAGE_NODES, None)
        now = issuer.guarded_clock()
        nodes.change(name, tuple(body.namespaces), by=actor, now=now)
        return JSONResponse(nodes.one(name, now))

    @router.post("/{name:node}/join-tokens", summary="A join token for a node", status_code=201)
    def enrol(name: Name, body: bodies.JoinTokenBody, by: ByAdmin) -> Response:
        actor = by.require(Operation.MANAGE_NODES, None)
        made = nodes.enrol(name, body.ttl_seconds, by=actor, now=issuer.guarded_clock())
        answer = {
            "token": made.text,
            "id": made.id,
            "node": name,
            "expires_at": text_of(made.expires_at),
        }
        return JSONResponse(answer, status_code=201)

    @router.delete("/{name:node}", summary="End a node, and all that runs there", status_code=204)
    def remove(name: Name, by: ByAnyClock) -> Response:
        actor = by.require(Operation.MANAGE_NODES, None)
        nodes.remove(name, by=actor, now=issuer.clock())
        return Response(status_code=204)

    return router


def _asked(body: bodies.NodeInstance) -> InstanceAsked:
    return InstanceAsked(
        csr=body.csr,
        manifest=body.manifest,
        code=body.code,
        selectors=tuple(body.selectors),
        instance=body.instance,
    )


def _what(body: bodies.NodeInstance) -> str:
    return f"instance of {body.manifest!r}"

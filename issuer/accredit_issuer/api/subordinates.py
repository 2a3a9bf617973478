"""Other issuers of the trust domain: naming them, and what they ask for."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse, Response

from accredit_credentials.errors import CredentialError
from accredit_credentials.spiffe_id import AgentId
from accredit_issuer.api import bodies
from accredit_issuer.api.callers import AdminCaller, Caller, Callers
from accredit_issuer.api.strict_route import StrictRoute
from accredit_issuer.authority.subordinates import Subordinate
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuer import Issuer
from accredit_issuer.metrics import Metrics
from accredit_issuer.registry.roles import Operation


def routes(issuer: Issuer, callers: Callers, metrics: Metrics) -> APIRouter:
    """The calls of this page."""
    router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["subordinates"])
    subordinates = issuer.subordinates
    ByAdmin = Annotated[AdminCaller, Depends(callers.admin)]  # noqa: N806 (a type)
    ByAgent = Annotated[Caller, Depends(callers.agent)]  # noqa: N806

    @router.post("/issuing-cas", summary="An issuing CA, for a subordinate issuer")
    async def issuing_ca(body: bodies.IssuingCaBody, caller: ByAgent) -> Response:
        try:
            issued = await metrics.issuing("ca", issuer.issuance.issuing_ca(caller.svid, body.csr))
        except Refusal as refusal:
            await issuer.issuance.refusals.record(caller.name, "issuing-ca", refusal)
            raise
        return JSONResponse(issued.view())

    @router.get("/subordinates", summary="The subordinate issuers, and their issuing CAs")
    def listed(by: ByAdmin) -> Response:
        by.require(Operation.READ, None)
        removed = subordinates.removed(issuer.clock())
        return JSONResponse({"subordinates": subordinates.all(), "removed": removed})

    @router.post("/subordinates", summary="Name an agent a subordinate issuer", status_code=201)
    def add(body: bodies.SubordinateBody, by: ByAdmin) -> Response:
        actor = by.require(Operation.MANAGE_SUBORDINATES, None)
        named = Subordinate(
            agent=_agent(body.agent),
            namespaces=tuple(body.namespaces),
            dns_names=tuple(body.dns_names),
        )
        now = issuer.guarded_clock()
        return _answer(subordinates.add(named, by=actor, now=now), status=201)

    @router.delete("/subordinates/{namespace}/{name}", summary="Let it have no further issuing CA")
    def remove(namespace: str, name: str, by: ByAdmin) -> Response:
        actor = by.require(Operation.MANAGE_SUBORDINATES, None)
        agent = _agent(f"{namespace}/{name}")
        return _answer(subordinates.remove(agent, by=actor, now=issuer.guarded_clock()))

    return router


def _agent(text: str) -> AgentId:
    try:
        return AgentId.parse(text)
    except CredentialError as error:
        raise Refusal(Kind.MALFORMED, str(error)) from None


def _answer(view: dict[str, Any], *, status: int = 200) -> Response:
    return JSONResponse(view, status_code=status)

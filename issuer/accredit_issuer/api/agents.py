"""What agents ask for: attestation, renewal, JWT-SVIDs, task tokens.

Every refusal of somebody known becomes a record in the log before it is answered. Strangers are
counted only: they must not be able to fill the log.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse, Response

from accredit_credentials.task_token import BEARER, Binding, BindingKind
from accredit_issuer.api import bodies
from accredit_issuer.api.answers import jwt_answer, task_token_answer, x509_answer
from accredit_issuer.api.callers import Caller, Callers
from accredit_issuer.api.strict_route import StrictRoute
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.issuance import AttestationRequest, TaskTokenRequest
from accredit_issuer.issuer import Issuer
from accredit_issuer.metrics import Metrics
from accredit_issuer.registry.listing import text_of


def routes(issuer: Issuer, callers: Callers, metrics: Metrics) -> APIRouter:
    """The calls of this page."""
    router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["agents"])
    issuance = issuer.issuance
    ByAgent = Annotated[Caller, Depends(callers.agent)]  # noqa: N806 (a type)
    ByAnyone = Annotated[Caller, Depends(callers.anyone)]  # noqa: N806

    @asynccontextmanager
    async def answering(credential: str, actor: str | None, asked: str) -> AsyncIterator[None]:
        """Count and time the outcome; record a refusal of somebody known."""
        with metrics.issuing(credential):
            try:
                yield
            except Refusal as refusal:
                if actor is not None:
                    await issuance.refused(actor, asked, refusal)
                raise

    @router.post("/attestations/nonce", summary="A nonce for one attestation")
    async def nonce(_body: bodies.Empty) -> Response:
        text, end = issuance.nonces.issue(issuer.clock())
        return JSONResponse({"nonce": text, "expires_at": text_of(end)})

    @router.post("/attestations", summary="Attest, and receive an X.509-SVID")
    async def attest(body: bodies.Attestation) -> Response:
        async with answering("x509", None, "attestation"):
            svid = await issuance.attest(
                AttestationRequest(nonce=body.nonce, csr=body.csr, evidence=body.evidence)
            )
        return JSONResponse(x509_answer(svid))

    @router.post("/svids/x509", summary="Renew the X.509-SVID that is shown, for a new key")
    async def renew(body: bodies.Renewal, caller: ByAnyone) -> Response:
        async with answering("x509", caller.name, "x509-svid"):
            match caller.svid.spiffe_id.segments:
                case ("admin", name):
                    admin = issuer.registry.admin(name)
                    svid = await issuance.renew_admin(caller.svid, admin, body.csr)
                case _:
                    svid = await issuance.renew(caller.svid, body.csr, body.evidence)
        return JSONResponse(x509_answer(svid))

    @router.post("/svids/jwt", summary="A JWT-SVID")
    async def jwt_svid(body: bodies.JwtRequest, caller: ByAgent) -> Response:
        async with answering("jwt", caller.name, "jwt-svid"):
            issued = await issuance.jwt_svid(caller.svid, tuple(body.audience))
        return JSONResponse(jwt_answer(issued))

    @router.post("/task-tokens", summary="A task token")
    async def task_token(body: bodies.TaskTokenBody, caller: ByAgent) -> Response:
        asked = f"task-token {body.resource[:63]!r}"
        async with answering("task", caller.name, asked):
            issued = await issuance.task_token(
                caller.svid,
                TaskTokenRequest(
                    resource=body.resource,
                    actions=tuple(body.actions),
                    purpose=body.task.purpose,
                    task_id=body.task.id,
                    parent_id=body.task.parent,
                    principal=body.principal,
                    binding=_binding(body.binding, caller),
                ),
            )
        return JSONResponse(task_token_answer(issued, issuer.clock()))

    return router


def _binding(body: bodies.BindingBody, caller: Caller) -> Binding:
    if (body.kind == "dpop") != (body.jkt is not None):
        raise Refusal(Kind.MALFORMED, "binding.jkt goes with the kind dpop, and only with it")
    if body.kind == "dpop":
        return Binding(BindingKind.DPOP_KEY, body.jkt or "")
    if body.kind == "bearer":
        return BEARER
    return Binding(BindingKind.CERTIFICATE, caller.thumbprint)

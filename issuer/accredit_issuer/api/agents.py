"""What agents ask for: attestation, renewal, JWT-SVIDs, WIT-SVIDs, task tokens.

Every refusal of somebody known becomes a record in the log before it is answered. Strangers are
counted only: they must not be able to fill the log.
"""

from collections.abc import Awaitable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends

from accredit_credentials.leaf_der import SignedLeaf
from accredit_credentials.task_token import BEARER, Binding, BindingKind
from accredit_issuer.api import bodies
from accredit_issuer.api.answers import (
    batch_answer,
    jwt_answer,
    task_token_answer,
    wit_answer,
    x509_answer,
)
from accredit_issuer.api.callers import Caller, Callers
from accredit_issuer.api.hot import HotRoute
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.agent_svids import AttestationRequest
from accredit_issuer.issuance.tokens import TaskTokenRequest
from accredit_issuer.issuer import Issuer
from accredit_issuer.metrics import Metrics
from accredit_issuer.registry.listing import text_of

T = TypeVar("T")
Answer = dict[str, Any]


def routes(issuer: Issuer, callers: Callers, metrics: Metrics) -> APIRouter:  # noqa: C901
    """The calls of this page."""
    router = APIRouter(prefix="/v1", route_class=HotRoute, tags=["agents"])
    issuance = issuer.issuance
    ByAgent = Annotated[Caller, Depends(callers.agent)]  # noqa: N806 (a type)
    ByAnyone = Annotated[Caller, Depends(callers.anyone)]  # noqa: N806

    async def asked_by(caller: Caller, asked: str, issued: Awaitable[T]) -> T:
        """The outcome; a refusal is recorded before it is answered."""
        try:
            return await issued
        except Refusal as refusal:
            await issuance.refusals.record(caller.name, asked, refusal)
            raise

    async def renewed(body: bodies.Renewal, caller: Caller) -> SignedLeaf:
        match caller.svid.spiffe_id.segments:
            case ("admin", name):
                admin = issuer.registry.admin(name)
                return await issuance.admins.renew(caller.svid, admin, body.csr)
            case ("node", _):
                return await issuance.nodes.renew(caller.svid, body.csr)
        return await issuance.agents.renew(caller.svid, body.csr, body.evidence)

    @router.post("/attestations/nonce", summary="A nonce for one attestation")
    async def nonce(_body: bodies.Empty) -> Answer:
        text, end = issuance.agents.nonces.issue(issuer.clock())
        return {"nonce": text, "expires_at": text_of(end)}

    @router.post("/attestations", summary="Attest, and receive an X.509-SVID")
    async def attest(body: bodies.Attestation) -> Answer:
        request = AttestationRequest(nonce=body.nonce, csr=body.csr, evidence=body.evidence)
        return x509_answer(await metrics.issuing("x509", issuance.agents.attest(request)))

    @router.post("/svids/x509", summary="Renew the X.509-SVID that is shown, for a new key")
    async def renew(body: bodies.Renewal, caller: ByAnyone) -> Answer:
        issued = metrics.issuing("x509", renewed(body, caller))
        return x509_answer(await asked_by(caller, "x509-svid", issued))

    @router.post("/svids/x509/batch", summary="X.509-SVIDs for several keys of one instance")
    async def batch(body: bodies.Batch, caller: ByAgent) -> Answer:
        work = issuance.agents.renew_all(caller.svid, body.csrs, body.evidence)
        issued = metrics.issuing("x509", work, number=len(body.csrs))
        return batch_answer(await asked_by(caller, f"x509-svid x{len(body.csrs)}", issued))

    @router.post("/svids/jwt", summary="A JWT-SVID")
    async def jwt_svid(body: bodies.JwtRequest, caller: ByAgent) -> Answer:
        issued = metrics.issuing("jwt", issuance.tokens.jwt_svid(caller.svid, tuple(body.audience)))
        return jwt_answer(await asked_by(caller, "jwt-svid", issued))

    @router.post("/svids/wit", summary="A WIT-SVID, for a new key")
    async def wit_svid(body: bodies.WitRequest, caller: ByAgent) -> Answer:
        issued = metrics.issuing("wit", issuance.tokens.wit_svid(caller.svid, body.csr))
        return wit_answer(await asked_by(caller, "wit-svid", issued))

    @router.post("/task-tokens", summary="A task token")
    async def task_token(body: bodies.TaskTokenBody, caller: ByAgent) -> Answer:
        async def issued() -> Answer:
            request = TaskTokenRequest(
                resource=body.resource,
                actions=tuple(body.actions),
                purpose=body.task.purpose,
                task_id=body.task.id,
                parent_id=body.task.parent,
                principal=body.principal,
                binding=_binding(body.binding, caller),
            )
            token = await issuance.tokens.task_token(caller.svid, request)
            return task_token_answer(token, issuer.clock())

        asked = f"task-token {body.resource[:63]!r}"
        return await asked_by(caller, asked, metrics.issuing("task", issued()))

    return router


def _binding(body: bodies.BindingBody, caller: Caller) -> Binding:
    if (body.kind == "dpop") != (body.jkt is not None):
        raise Refusal(Kind.MALFORMED, "binding.jkt goes with the kind dpop, and only with it")
    if body.kind == "dpop":
        return Binding(BindingKind.DPOP_KEY, body.jkt or "")
    if body.kind == "bearer":
        return BEARER
    return Binding(BindingKind.CERTIFICATE, caller.thumbprint)

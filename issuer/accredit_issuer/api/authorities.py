"""The keys that sign, for operators: where each stands, and the next step by hand.

Every step answers with what it changed. The scheduler takes the same steps by itself when they
are due; see docs/authorities.md.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from starlette.responses import JSONResponse, Response

from accredit_issuer.api import bodies
from accredit_issuer.api.callers import AdminCaller, Callers
from accredit_issuer.api.strict_route import StrictRoute
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.issuer import Issuer
from accredit_issuer.metrics import Metrics
from accredit_issuer.registry.roles import Operation

AuthorityId = Annotated[str, Path(pattern="^[0-9a-f]{1,64}$", description="its key id in hex")]


def routes(issuer: Issuer, callers: Callers, metrics: Metrics) -> APIRouter:
    """The calls of this page."""
    router = APIRouter(prefix="/v1/authorities", route_class=StrictRoute, tags=["authorities"])
    rollover = issuer.rollover
    ByAdmin = Annotated[AdminCaller, Depends(callers.admin)]  # noqa: N806 (a type)

    @router.get("", summary="Every key that signs: state, moments, what is planned")
    def authorities(by: ByAdmin) -> Response:
        by.require(Operation.READ, None)
        return _answer(rollover.overview())

    @router.post("/{kind}/prepare", summary="Make and publish the next key", status_code=201)
    def prepare(kind: AuthorityKind, _body: bodies.Empty, by: ByAdmin) -> Response:
        actor = by.require(Operation.MANAGE_AUTHORITIES, None)
        return _answer(rollover.prepare(kind, by=actor), status=201)

    @router.post("/{authority}/activate", summary="Let a prepared key sign")
    def activate(authority: AuthorityId, body: bodies.ActivationBody, by: ByAdmin) -> Response:
        actor = by.require(Operation.MANAGE_AUTHORITIES, None)
        return _answer(rollover.activate(authority, early=body.early, by=actor))

    @router.post("/{authority}/taint", summary="Have renewed what a key signed")
    def taint(authority: AuthorityId, body: bodies.TaintBody, by: ByAdmin) -> Response:
        actor = by.require(Operation.MANAGE_AUTHORITIES, None)
        return _answer(rollover.taint(authority, body.reason, by=actor))

    @router.post("/{authority}/revoke", summary="Remove a key, and refuse what it signed")
    def revoke(authority: AuthorityId, body: bodies.RemovalBody, by: ByAdmin) -> Response:
        actor = by.require(Operation.MANAGE_AUTHORITIES, None)
        before = issuer.feed.through
        changed = rollover.revoke(authority, body.reason, by=actor)
        metrics.facts.labels("revoked").inc(issuer.feed.through - before)
        return _answer(changed)

    return router


def _answer(authorities: list[dict[str, Any]], *, status: int = 200) -> Response:
    return JSONResponse({"authorities": authorities}, status_code=status)

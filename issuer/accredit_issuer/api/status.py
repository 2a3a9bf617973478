"""The issuer at one look, for admins."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse, Response

from accredit_issuer.api.callers import AdminCaller, Callers
from accredit_issuer.api.confirmations import positions
from accredit_issuer.issuer import Issuer
from accredit_issuer.registry.listing import text_of
from accredit_issuer.registry.roles import Operation
from accredit_issuer.status import Status, look


def routes(issuer: Issuer, callers: Callers) -> APIRouter:
    """The call of this page."""
    router = APIRouter(prefix="/v1", tags=["administration"])
    ByAdmin = Annotated[AdminCaller, Depends(callers.admin)]  # noqa: N806 (a type)

    @router.get("/status", summary="Facts, verifiers, CRLs, authorities, and what is to do")
    def status(by: ByAdmin) -> Response:
        by.require(Operation.READ, None)
        return JSONResponse(
            {"trust_domain": str(issuer.config.trust_domain), **_view(look(issuer))}
        )

    return router


def _view(found: Status) -> dict[str, Any]:
    return {
        "at": text_of(found.at),
        "to_do": [{"urgent": each.urgent, "text": each.text} for each in found.to_do],
        "facts": [
            {"target": each.target.value, "revoked": each.revoked, "suspended": each.suspended}
            for each in found.facts
        ],
        "feed": {
            "through": found.through,
            "streams": found.streams,
            "named": sum(1 for each in found.listeners.named if not each.gone),
            "unnamed": found.listeners.unnamed,
            "silent": found.listeners.silent,
            "verifiers": positions(found.listeners.named),
        },
        "crls": [
            {
                "authority": each.authority,
                "number": each.number,
                "this_update": text_of(each.this_update),
                "next_update": text_of(each.next_update),
                "entries": each.entries,
                "bytes": each.size,
            }
            for each in found.crls
        ],
        "authorities": found.authorities,
    }

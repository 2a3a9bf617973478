"""Whom a fact has reached: verifiers acknowledge it, and admins ask who has.

An acknowledgement is public, as the feed is. It is known by the id with which its stream began, and
named by the SVID that is shown with it, where one is.
"""

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from starlette.responses import JSONResponse, Response

from accredit_issuer.api import bodies
from accredit_issuer.api.callers import AdminCaller, Caller, Callers
from accredit_issuer.api.hot import HotRoute
from accredit_issuer.issuer import Issuer
from accredit_issuer.registry.roles import Operation
from accredit_issuer.revocation.confirmations import Confirmations, Position, Tally, Verifier

LONGEST_WAIT = 10.0  # seconds that one call waits
MAX_SHOWN = 100  # verifiers by name

Through = Annotated[int, Query(ge=1, le=2**63 - 1, description="the fact's sequence number")]
Wait = Annotated[float, Query(ge=0, le=LONGEST_WAIT, description="seconds, until it is complete")]


def hot_routes(issuer: Issuer, callers: Callers) -> APIRouter:
    """What verifiers say."""
    router = APIRouter(prefix="/v1", route_class=HotRoute, tags=["trust"])
    Perhaps = Annotated[Caller | None, Depends(callers.anyone_or_nobody)]  # noqa: N806 (a type)

    @router.post("/revocations/acknowledgements", summary="Say which facts a verifier applies")
    async def acknowledge(body: bodies.Acknowledgement, caller: Perhaps) -> dict[str, Any]:
        verifier = None if caller is None else Verifier(caller.name, caller.svid.instance or "")
        issuer.feed.audience.acknowledge(body.listener, body.through, verifier)
        return {}

    return router


def routes(issuer: Issuer, callers: Callers) -> APIRouter:
    """What admins ask."""
    router = APIRouter(prefix="/v1", tags=["administration"])
    ByAdmin = Annotated[AdminCaller, Depends(callers.admin)]  # noqa: N806 (a type)

    @router.get("/revocations/confirmations", summary="Which verifiers apply the facts up to one")
    async def confirmations(by: ByAdmin, through: Through, wait: Wait = 0.0) -> Response:
        by.require(Operation.READ, None)
        issuer.feed.check_known(through)
        return JSONResponse(_view(await issuer.feed.audience.followed(through, wait)))

    return router


def positions(found: Iterable[Position]) -> list[dict[str, Any]]:
    """Named verifiers, those farthest behind first, as many as are shown."""
    ordered = sorted(found, key=lambda each: (each.through, each.verifier))
    return [
        {
            "spiffe_id": each.verifier.spiffe_id,
            "instance": each.verifier.instance,
            "through": each.through,
            "silent_seconds": round(each.silent, 1),
            "behind_seconds": None if each.behind is None else round(each.behind, 1),
            "gone": each.gone,
        }
        for each in ordered[:MAX_SHOWN]
    ]


def _view(found: Confirmations) -> dict[str, Any]:
    return {
        "through": found.through,
        "complete": found.complete,
        "elapsed_milliseconds": _milliseconds(found.elapsed),
        "named": {
            **_tally(found.named),
            "missing": positions(found.missing),
            "gone": positions(found.gone),
        },
        "unnamed": _tally(found.unnamed),
        "silent": found.silent,
    }


def _tally(tally: Tally) -> dict[str, Any]:
    return {
        "listening": tally.listening,
        "confirmed": tally.confirmed,
        "slowest_milliseconds": _milliseconds(tally.slowest),
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)

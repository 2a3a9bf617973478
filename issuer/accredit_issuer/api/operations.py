"""What operators ask: is it alive, is it ready, what does it count."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response

from accredit_issuer.authority.planning import wanted_kinds
from accredit_issuer.errors import IssuerError
from accredit_issuer.issuer import Issuer
from accredit_issuer.keys.probe import Probe
from accredit_issuer.metrics import Metrics

# Anybody may ask: what the parent says, and where our files are, stands in the log only.
WAITING = "the parent is not to be had, the log says why"


def routes(issuer: Issuer, metrics: Metrics) -> APIRouter:
    """The calls of this page."""
    router = APIRouter(tags=["operations"])
    probe = Probe(issuer.keys)

    @router.get("/health/live", summary="The process answers")
    async def live() -> Response:
        return JSONResponse({"live": True})

    @router.get("/health/ready", summary="It can decide, sign and record")
    def ready() -> Response:
        try:
            issuer.guarded_clock()
            for kind in wanted_kinds(issuer.config):
                issuer.authorities.now_in_force.active(kind)
            probe.check()
            issuer.writer.run(lambda _: None).result(timeout=2)
        except (IssuerError, TimeoutError) as error:
            reason = str(error) or "the database takes no write"
            return JSONResponse({"ready": False, "reason": reason}, status_code=503)
        # Neither is a reason to be unready: what is there, or known of others, goes on being used.
        overdue = issuer.polling.overdue(issuer.clock())
        trouble = issuer.authorities.trouble
        return JSONResponse(
            {
                "ready": True,
                "federation_overdue": overdue,
                **({"upstream": WAITING} if trouble else {}),
            }
        )

    @router.get("/metrics", summary="Prometheus metrics")
    def prometheus() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router

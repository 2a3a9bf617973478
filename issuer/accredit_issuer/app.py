"""The ASGI application of an issuer."""

from fastapi import FastAPI
from starlette.types import ASGIApp

from accredit_issuer.api import (
    admins,
    agents,
    documentation,
    examples,
    history,
    operations,
    problems,
    trust,
)
from accredit_issuer.api.callers import Callers
from accredit_issuer.issuer import Issuer
from accredit_issuer.metrics import Metrics

MAX_BODY = 64 * 1024


class _App(FastAPI):
    def build_middleware_stack(self) -> ASGIApp:
        # Outside of the framework's own limit, which would say no in plain text.
        return problems.RefuseBodies(super().build_middleware_stack(), MAX_BODY)


def make_app(issuer: Issuer) -> FastAPI:
    """Put the calls together; see docs/api.md."""
    app = _App(
        title="Accredit",
        summary="Identity for AI agents",
        version="1",
        docs_url=None,
        redoc_url=None,
        # A redirect would be made of the Host header, which anybody writes.
        redirect_slashes=False,
        max_body_size=MAX_BODY,
        telemetry={"auto_configure": False},
    )
    problems.install(app)
    callers = Callers(issuer)
    metrics = Metrics(issuer)
    app.include_router(trust.routes(issuer))
    app.include_router(agents.routes(issuer, callers, metrics))
    app.include_router(admins.routes(issuer, callers, metrics))
    app.include_router(history.routes(issuer, callers))
    app.include_router(operations.routes(issuer, metrics))
    app.include_router(documentation.routes(app))
    examples.install(app)
    return app

"""The ASGI application of an issuer."""

from fastapi import FastAPI

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


def make_app(issuer: Issuer) -> FastAPI:
    """Put the calls together; see docs/api.md."""
    app = FastAPI(
        title="Accredit",
        summary="Identity for AI agents",
        version="1",
        docs_url=None,
        redoc_url=None,
        max_body_size=MAX_BODY,
        telemetry={"auto_configure": False},
    )
    problems.install(app, max_body=MAX_BODY)
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

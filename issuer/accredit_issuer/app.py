"""The ASGI application of an issuer."""

from fastapi import FastAPI
from starlette.types import ASGIApp

from accredit_issuer.api import (
    admins,
    agents,
    authorities,
    confirmations,
    discovery,
    documentation,
    examples,
    federation,
    history,
    introspection,
    nodes,
    ocsp,
    operations,
    problems,
    signals,
    status,
    status_lists,
    subordinates,
    trust,
)
from accredit_issuer.api.callers import Callers
from accredit_issuer.api.hot import MAX_BODY
from accredit_issuer.issuer import Issuer
from accredit_issuer.metrics import Metrics


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
    # Flat, and what agents ask for first: a request is compared with one route after the other.
    for router in (
        agents.routes(issuer, callers, metrics),
        nodes.hot_routes(issuer, callers, metrics),
        confirmations.hot_routes(issuer, callers),
        confirmations.routes(issuer, callers),
        trust.routes(issuer),
        ocsp.routes(issuer),
        status_lists.routes(issuer),
        introspection.routes(issuer, callers),
        discovery.routes(issuer),
        admins.routes(issuer, callers, metrics),
        authorities.routes(issuer, callers, metrics),
        subordinates.routes(issuer, callers, metrics),
        nodes.reports(issuer, callers, metrics),
        nodes.routes(issuer, callers),
        history.routes(issuer, callers),
        federation.routes(issuer, callers),
        signals.routes(issuer, callers),
        status.routes(issuer, callers),
        operations.routes(issuer, metrics),
        documentation.routes(app),
    ):
        app.router.routes.extend(router.routes)
    examples.install(app)
    return app


def make_public_app(issuer: Issuer) -> FastAPI:
    """The documents that anybody may read under a certificate of a Web CA, and nothing else."""
    app = _App(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        max_body_size=MAX_BODY,
        telemetry={"auto_configure": False},
    )
    problems.install(app)
    routers = [trust.bundle_routes(issuer), discovery.routes(issuer)]
    if issuer.config.status_list_url is not None:
        routers.append(status_lists.routes(issuer))
    for router in routers:
        app.router.routes.extend(router.routes)
    return app

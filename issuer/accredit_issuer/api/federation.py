"""Other trust domains: who is federated, on what terms, and the bundles that verifiers need.

The bundle map says who may do what here: it goes to whoever holds an SVID of ours, and to nobody
else. Relationships are read like everything that lies in no namespace, and changed by the operation
``federate``.
"""

import json
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import CredentialError
from accredit_credentials.federation import Allowance, check_audiences, check_origin
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain
from accredit_issuer.api import bodies
from accredit_issuer.api.callers import AdminCaller, Caller, Callers
from accredit_issuer.api.strict_route import StrictRoute
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.federation.relationships import MAP_REFRESH_HINT, Standing
from accredit_issuer.federation.rules import Relationship
from accredit_issuer.issuer import Issuer
from accredit_issuer.registry.listing import text_of
from accredit_issuer.registry.roles import Operation

Name = Annotated[str, Path(pattern="^[a-z0-9._-]{1,255}$", description="the trust domain")]


def routes(issuer: Issuer, callers: Callers) -> APIRouter:
    """The calls of this page."""
    router = APIRouter(prefix="/v1/federation", route_class=StrictRoute, tags=["federation"])
    relationships, polling = issuer.relationships, issuer.polling
    ByAdmin = Annotated[AdminCaller, Depends(callers.admin)]  # noqa: N806 (a type)
    ByAnyone = Annotated[Caller, Depends(callers.anyone)]  # noqa: N806

    @router.get("/bundles", summary="The bundle map: bundles of others, and what they may ask")
    def bundles(request: Request, _: ByAnyone) -> Response:
        published = relationships.published()
        headers = {"ETag": published.tag, "Cache-Control": f"private, max-age={MAP_REFRESH_HINT}"}
        if request.headers.get("if-none-match") == published.tag:
            return Response(status_code=304, headers=headers)
        return Response(published.document, media_type="application/json", headers=headers)

    @router.get("", summary="All relationships, and how they stand")
    def all_relationships(by: ByAdmin) -> Response:
        by.require(Operation.READ, None)
        now = issuer.clock()
        return JSONResponse({"relationships": [_view(s, now) for s in relationships.all()]})

    @router.post("", summary="Federate with another trust domain", status_code=201)
    def create(body: bodies.FederationBody, by: ByAdmin) -> Response:
        actor = by.require(Operation.FEDERATE, None)
        now = issuer.guarded_clock()
        asked = _relationship(body)
        relationships.create(asked, _bootstrap(body, asked), by=actor, now=now)
        standing = relationships.one(asked.trust_domain)
        return JSONResponse(_view(standing, now), status_code=201)

    @router.put("/{trust_domain}/allows", summary="Say anew what its agents may ask")
    def allow(trust_domain: Name, body: bodies.AllowsBody, by: ByAdmin) -> Response:
        actor = by.require(Operation.FEDERATE, None)
        now = issuer.guarded_clock()
        name = TrustDomain.parse(trust_domain)
        relationships.allow(name, _allowances(body.allows), by=actor, now=now)
        return JSONResponse(_view(relationships.one(name), now))

    @router.post("/{trust_domain}/refresh", summary="Fetch its bundle now")
    def refresh(trust_domain: Name, _: bodies.Empty, by: ByAdmin) -> Response:
        actor = by.require(Operation.FEDERATE, None)
        standing = polling.refresh(TrustDomain.parse(trust_domain), by=actor)
        return JSONResponse(_view(standing, issuer.clock()))

    @router.delete("/{trust_domain}", summary="End a relationship", status_code=204)
    def remove(trust_domain: Name, by: ByAdmin) -> Response:
        actor = by.require(Operation.FEDERATE, None)
        relationships.remove(TrustDomain.parse(trust_domain), by=actor, now=issuer.guarded_clock())
        return Response(status_code=204)

    return router


def _relationship(body: bodies.FederationBody) -> Relationship:
    endpoint = body.endpoint_spiffe_id
    try:
        asked = Relationship(
            trust_domain=TrustDomain.parse(body.trust_domain),
            profile=body.profile,
            endpoint_url=body.endpoint_url,
            endpoint_spiffe_id=None if endpoint is None else SpiffeId.parse(endpoint),
            feed_url=body.feed_url,
            allowances=_allowances(body.allows),
        )
        if asked.feed_url is not None:
            check_origin(asked.feed_url, "feed_url")
    except CredentialError as error:
        raise Refusal(Kind.MALFORMED, str(error)) from None
    return asked


def _bootstrap(body: bodies.FederationBody, asked: Relationship) -> TrustBundle | None:
    if body.bundle is None:
        return None
    try:
        return TrustBundle.parse(asked.trust_domain, json.dumps(body.bundle))
    except CredentialError as error:
        raise Refusal(Kind.MALFORMED, str(error)) from None


def _allowances(values: list[dict[str, Any]]) -> tuple[Allowance, ...]:
    try:
        allowances = tuple(map(Allowance.of_object, values))
        check_audiences(allowances, "allowance's resource")
    except CredentialError as error:
        raise Refusal(Kind.MALFORMED, str(error)) from None
    return allowances


def _view(standing: Standing, now: datetime) -> dict[str, Any]:
    relationship, bundle = standing.relationship, standing.bundle
    silent = int((now - standing.heard_at).total_seconds())
    return {
        "trust_domain": str(standing.trust_domain),
        **relationship.to_object(),
        "created_at": text_of(standing.created_at),
        "created_by": standing.created_by,
        "state": standing.state(now),
        "bundle": bundle
        and {
            "digest": standing.digest,
            "sequence": bundle.sequence,
            "x509_authorities": len(bundle.x509_authorities),
            "jwt_authorities": len(bundle.jwt_authorities),
        },
        "fetched_at": standing.fetched_at and text_of(standing.fetched_at),
        "age_seconds": silent if standing.fetched_at else None,
        "waiting_seconds": None if standing.fetched_at else silent,
        "interval_seconds": int(standing.interval().total_seconds()),
        "attempted_at": standing.attempted_at and text_of(standing.attempted_at),
        "failure": standing.failure,
    }

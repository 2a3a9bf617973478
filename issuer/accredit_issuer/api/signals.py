"""Security events for other products: who is told of facts, and what receivers ask.

Streams are made by admins. A receiver that polls is known by its SVID, and asks for its own stream
alone; to everybody else that stream is not there.
"""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from starlette.responses import JSONResponse, Response

from accredit_credentials import security_event
from accredit_credentials.errors import CredentialError
from accredit_credentials.spiffe_id import SpiffeId
from accredit_issuer.api import bodies
from accredit_issuer.api.callers import AdminCaller, Caller, Callers
from accredit_issuer.api.discovery import VERIFICATION_PATH
from accredit_issuer.api.strict_route import StrictRoute
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.decision import check_not_revoked
from accredit_issuer.issuer import Issuer
from accredit_issuer.registry.listing import text_of
from accredit_issuer.registry.roles import Operation
from accredit_issuer.signals.polling import MAX_EVENTS, Polled
from accredit_issuer.signals.streams import Method, Standing, StreamAsked

EVENTS = [
    security_event.SESSION_REVOKED,
    security_event.SESSION_ESTABLISHED,
    security_event.CREDENTIAL_CHANGE,
]

Name = Annotated[str, Path(pattern="^[a-z0-9._-]{1,63}$", description="the stream")]
StreamId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="the stream's id")]


def routes(issuer: Issuer, callers: Callers) -> APIRouter:
    """The calls of this page."""
    router = APIRouter(route_class=StrictRoute, tags=["security events"])
    streams = issuer.streams
    ByAdmin = Annotated[AdminCaller, Depends(callers.admin)]  # noqa: N806 (a type)
    ByAnyone = Annotated[Caller, Depends(callers.anyone)]  # noqa: N806

    def view(standing: Standing) -> dict[str, Any]:
        return _view(standing, issuer.config.token_issuer, issuer.config.url, issuer.clock())

    @router.get("/v1/ssf/streams", summary="All streams, and how they stand")
    def all_streams(by: ByAdmin) -> Response:
        by.require(Operation.READ, None)
        return JSONResponse({"streams": [view(streams.standing(each)) for each in streams.all()]})

    @router.post("/v1/ssf/streams", summary="Tell another receiver of facts", status_code=201)
    def add(body: bodies.StreamBody, by: ByAdmin) -> Response:
        actor = by.require(Operation.MANAGE_STREAMS, None)
        asked = StreamAsked(
            name=body.name,
            audience=body.audience,
            endpoint_url=body.endpoint_url,
            receiver=_receiver(body.receiver),
        )
        added = streams.add(asked, by=actor, now=issuer.guarded_clock())
        return JSONResponse(view(streams.standing(added)), status_code=201)

    @router.delete(
        "/v1/ssf/streams/{name}", summary="Tell a receiver nothing more", status_code=204
    )
    def remove(name: Name, by: ByAdmin) -> Response:
        actor = by.require(Operation.MANAGE_STREAMS, None)
        streams.remove(name, by=actor, now=issuer.guarded_clock())
        return Response(status_code=204)

    @router.post("/v1/ssf/streams/{name}/verify", summary="Send an event that shows that it works")
    def verify(name: Name, _: bodies.Empty, by: ByAdmin) -> Response:
        actor = by.require(Operation.MANAGE_STREAMS, None)
        return JSONResponse(view(streams.standing(streams.verify_by(name, by=actor))))

    @router.post("/v1/ssf/poll/{stream_id}", summary="What is new for a receiver (RFC 8936)")
    async def poll(stream_id: StreamId, body: bodies.PollBody, caller: ByAnyone) -> Response:
        stream = streams.of_receiver(stream_id, caller.name)
        asked = Polled(
            max_events=MAX_EVENTS if body.maxEvents is None else body.maxEvents,
            at_once=body.returnImmediately,
            acknowledged=tuple(body.ack),
            refused=tuple(body.setErrs),
        )
        answer = await issuer.stream_polling.answer(stream, asked)
        # It may have waited for the very fact that ends who asks.
        check_not_revoked(caller.marks, issuer.revocation.facts)
        return JSONResponse(
            {"sets": dict(answer.sets), "moreAvailable": answer.more},
            headers={"Cache-Control": "no-store"},
        )

    @router.post(VERIFICATION_PATH, summary="Ask for a verification event (SSF)", status_code=204)
    def verify_own(body: bodies.VerificationBody, caller: ByAnyone) -> Response:
        stream = streams.of_receiver(body.stream_id, caller.name)
        streams.verify(stream, state=body.state)
        return Response(status_code=204, headers={"Cache-Control": "no-store"})

    return router


def _receiver(text: str | None) -> SpiffeId | None:
    try:
        return None if text is None else SpiffeId.parse(text)
    except CredentialError as error:
        raise Refusal(Kind.MALFORMED, str(error)) from None


def _view(standing: Standing, issuer: str, url: str, now: datetime) -> dict[str, Any]:
    stream = standing.stream
    polled_at = f"{url}/v1/ssf/poll/{stream.id}"
    return {
        "stream_id": stream.id,
        "name": stream.name,
        "iss": issuer,
        "aud": stream.audience,
        "delivery": {
            "method": stream.method.value,
            "endpoint_url": polled_at if stream.method is Method.POLL else stream.endpoint_url,
        },
        "receiver": stream.receiver,
        "events_delivered": EVENTS,
        "created_at": text_of(stream.created_at),
        "created_by": stream.created_by,
        "state": _state(standing, now),
        "through": stream.through,
        "waiting": standing.waiting,
        "waiting_since": standing.oldest and text_of(standing.oldest),
        "accepted_at": stream.accepted_at and text_of(stream.accepted_at),
        "failure": standing.failure,
    }


def _state(standing: Standing, now: datetime) -> str:
    if standing.failure is not None:
        return "failing"
    return "behind" if standing.behind(now) else "current"

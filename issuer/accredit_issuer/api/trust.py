"""What everyone may have: the bundle, CRLs, the revocation feed."""

import base64
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from accredit_issuer.api.documents import Document, Kept, answer
from accredit_issuer.api.hot_documents import document_of
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuer import Issuer
from accredit_issuer.revocation.crl import Crl
from accredit_issuer.revocation.feed import Feed

LONGEST_WAIT = 30.0  # seconds that one call waits

After = Annotated[int, Query(ge=0, le=2**63 - 1, description="the newest fact that you know")]

Wait = Annotated[float, Query(ge=0, le=LONGEST_WAIT, description="seconds, until there is news")]


def routes(issuer: Issuer) -> APIRouter:
    """The calls of this page."""
    router = bundle_routes(issuer)
    crls, max_age = issuer.revocation.crls, int(issuer.config.heartbeat)
    # All at once: who verifies with some of them must be able to verify every leaf.
    kept = Kept(lambda: crls.current, lambda each: _listed(each, max_age))

    @router.get("/crl/{authority}.crl", summary="The CRL of one issuing CA or root, DER")
    async def crl(
        request: Request, authority: Annotated[str, Path(pattern="^[0-9a-f]{1,64}$")]
    ) -> Response:
        found = crls.of(authority)
        if found is None:
            raise Refusal(Kind.NOT_FOUND, "no authority with a CRL has this key id")
        return answer(document_of(found, max_age), request)

    @router.get("/crls", summary="The CRLs of all issuing CAs and roots, DER in base64")
    def every(request: Request) -> Response:
        return answer(kept.now, request)

    @router.get("/revocations", summary="A signed statement of the facts after a sequence number")
    async def revocations(after: After = 0, wait: Wait = 0.0) -> Response:
        return PlainTextResponse(
            await issuer.feed.awaited(after, wait), headers={"Cache-Control": "no-store"}
        )

    async def known_after(after: After = 0) -> int:
        # Decided before the stream begins: later there is no status left to say no with.
        issuer.feed.check_known(after)
        return after

    @router.get("/revocations/stream", summary="Signed statements as server-sent events")
    async def stream(after: Annotated[int, Depends(known_after)]) -> Response:
        return StreamingResponse(
            _events(issuer.feed, after),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store"},
        )

    return router


def bundle_routes(issuer: Issuer) -> APIRouter:
    """The bundle endpoint alone (SPIFFE Federation §5.2)."""
    router = APIRouter(prefix="/v1", tags=["trust"])
    kept = Kept(
        lambda: issuer.bundle,
        lambda bundle: Document.of(bundle.to_json(), max_age=issuer.config.refresh_hint),
    )

    @router.head("/bundle", include_in_schema=False)
    @router.get("/bundle", summary="The SPIFFE trust bundle")
    async def bundle(request: Request) -> Response:
        return answer(kept.now, request)

    return router


def _listed(crls: tuple[Crl, ...], max_age: int) -> Document:
    listed = [
        {
            "authority": crl.authority,
            "number": crl.times.number,
            "der": base64.b64encode(crl.der).decode(),
        }
        for crl in crls
    ]
    return Document.of_json({"crls": listed}, max_age=max_age)


async def _events(feed: Feed, after: int) -> AsyncIterator[str]:
    # A JWS is one line, and so is an id; nothing in them can end the event early.
    with feed.audience.listening() as listener_id:
        yield f"event: listener\ndata: {listener_id}\n\n"
        async for statement in feed.follow(after):
            yield f"event: statement\ndata: {statement}\n\n"

"""Token Status Lists, for relying parties that do not follow the feed."""

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from accredit_credentials.status_list import MEDIA_TYPE
from accredit_issuer.api.documents import Document, answer
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuer import Issuer
from accredit_issuer.revocation.status_lists import PATH

ListId = Annotated[str, Path(pattern="^[0-9a-f]{1,64}$")]


def routes(issuer: Issuer) -> APIRouter:
    """The calls of this page."""
    router = APIRouter(tags=["trust"])
    lists = issuer.status_lists
    # A list was signed up to half of its ttl ago: held for the other half it is within it.
    max_age = lists.ttl // 2

    @router.head(PATH, include_in_schema=False)
    @router.get(PATH, summary="The Token Status Lists that living task tokens name")
    async def aggregation(request: Request) -> Response:
        listed = {"status_lists": await lists.told_uris()}
        return answer(Document.of_json(listed, max_age=max_age), request)

    @router.head(f"{PATH}/{{list_id}}", include_in_schema=False)
    @router.get(f"{PATH}/{{list_id}}", summary="One Token Status List, signed")
    async def one(list_id: ListId, request: Request) -> Response:
        if "time" in request.query_params:
            # What holds now is no answer to somebody who asks what held then (draft §8.4).
            raise Refusal(Kind.NOT_IMPLEMENTED, "no status list of another time is kept")
        text = await lists.told(list_id)
        return answer(Document.of(text, max_age=max_age, media_type=MEDIA_TYPE), request)

    return router

"""The log: for everyone what proves it, for readers what it says."""

import base64
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import JSONResponse, PlainTextResponse, Response

from accredit_credentials.errors import InvalidProof
from accredit_credentials.tiles import Tile
from accredit_issuer.api.callers import AdminCaller, Callers
from accredit_issuer.audit.explain import explain
from accredit_issuer.audit.log import LogReader
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuer import Issuer
from accredit_issuer.registry.listing import record_of
from accredit_issuer.registry.roles import Operation

MAX_ENTRIES = 512


def routes(issuer: Issuer, callers: Callers) -> APIRouter:
    """The calls of this page."""
    router = APIRouter(prefix="/v1/log", tags=["log"])
    ByAdmin = Annotated[AdminCaller, Depends(callers.admin)]  # noqa: N806 (a type)

    @router.get("/key", summary="The log's verifier key")
    async def key() -> Response:
        return PlainTextResponse(f"{issuer.log.key}\n")

    @router.get("/checkpoint", summary="The newest signed checkpoint")
    async def checkpoint() -> Response:
        return PlainTextResponse(issuer.log.checkpoint, headers={"Cache-Control": "no-store"})

    @router.get("/tile/{path:path}", summary="A hash tile (C2SP tlog-tiles)")
    def tile(path: str) -> Response:
        try:
            wanted = Tile.parse(f"tile/{path}")
        except InvalidProof as error:
            raise Refusal(Kind.MALFORMED, str(error)) from None
        if wanted.level is None:
            raise Refusal(Kind.NOT_FOUND, "entries are for readers: /v1/log/entries")
        # Before the database is asked: the last tile there could be ends beyond its integers.
        hashes = None
        if wanted.exists_in(issuer.log.frontier.size):
            with issuer.database.read() as connection:
                hashes = LogReader(connection).tile(wanted.level, wanted.index, wanted.width)
        if hashes is None:
            raise Refusal(Kind.NOT_FOUND, "the tree has no such tile yet")
        return Response(hashes, media_type="application/octet-stream")

    @router.get("/entries", summary="Entries, for readers")
    def entries(
        by: ByAdmin,
        start: Annotated[int, Query(ge=0, le=2**62)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_ENTRIES)] = 100,
    ) -> Response:
        by.require(Operation.READ, None)
        size = issuer.log.frontier.size
        with issuer.database.read() as connection:
            found = LogReader(connection).entries(start, min(limit, max(0, size - start)))
        return JSONResponse(
            {
                "size": size,
                "entries": [
                    {
                        "index": entry.index,
                        "leaf": base64.b64encode(entry.leaf).decode(),
                        "record": record_of(entry.leaf),
                    }
                    for entry in found
                ],
            }
        )

    @router.get("/explain/{identifier}", summary="Why a credential was allowed, with proofs")
    def explanation(identifier: str, by: ByAdmin) -> Response:
        by.require(Operation.READ, None)
        with issuer.database.read() as connection:
            return JSONResponse(explain(connection, issuer.log, identifier))

    return router

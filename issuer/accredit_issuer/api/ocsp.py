"""OCSP over HTTP (RFC 6960 appendix A), with the caching of RFC 5019 §6.

The answers are signed, so anybody may carry them: their bytes are OCSP's, also where the answer is
no. What HTTP itself refuses (a body of another type, too large) is a problem document.
"""

import base64
import binascii
import hashlib
from datetime import datetime
from email.utils import format_datetime
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from accredit_issuer.api.documents import has_it
from accredit_issuer.errors import IssuerError, Kind, Refusal
from accredit_issuer.issuer import Issuer
from accredit_issuer.revocation.ocsp import MAX_REQUEST, Answer, NotAnswered, Question
from accredit_issuer.revocation.ocsp_answers import failed

MAX_ENCODED = (MAX_REQUEST + 2) // 3 * 4  # characters of base64
REQUEST_TYPE = "application/ocsp-request"
RESPONSE_TYPE = "application/ocsp-response"
NOT_OCSP = Refusal(Kind.UNSUPPORTED_MEDIA_TYPE, f"a body must be {REQUEST_TYPE}")

_log = structlog.get_logger("accredit.ocsp")

_BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_RESPONSES: dict[int | str, dict[str, Any]] = {200: {"content": {RESPONSE_TYPE: _BYTES}}}
_BODY = {"requestBody": {"required": True, "content": {REQUEST_TYPE: _BYTES}}}

AuthorityId = Annotated[str, Path(pattern="^[0-9a-f]{1,64}$")]
Encoded = Annotated[str, Path(description="the request, DER in base64, URL-encoded")]


def routes(issuer: Issuer) -> APIRouter:
    """The calls of this page."""
    router = APIRouter(prefix="/v1/ocsp", tags=["trust"])

    @router.post(
        "/{authority}",
        summary="The status of a certificate of one issuing CA (OCSP)",
        response_class=Response,
        responses=_RESPONSES,
        openapi_extra=_BODY,
    )
    async def post(authority: AuthorityId, request: Request) -> Response:
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != REQUEST_TYPE:
            raise NOT_OCSP
        return _sent(await _answer(issuer, authority, await request.body()), request, issuer)

    @router.get(
        "/{authority}/{encoded:path}",
        summary="The same, so that it can be cached on the way",
        response_class=Response,
        responses=_RESPONSES,
    )
    async def get(authority: AuthorityId, encoded: Encoded, request: Request) -> Response:
        return _sent(await _answer(issuer, authority, _decoded(encoded)), request, issuer)

    return router


def _decoded(encoded: str) -> bytes:
    """The request; what is no base64, or too long, is no request either."""
    if len(encoded) > MAX_ENCODED:
        return b""
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""


async def _answer(issuer: Issuer, authority: str, unverified: bytes) -> Answer:
    try:
        return await issuer.ocsp.told(authority, Question.parse(unverified))
    except NotAnswered as error:
        return failed(error)
    except IssuerError as error:
        _log.error("no OCSP answer", reason=str(error), error=type(error).__name__)
        return failed(error)


def _sent(answer: Answer, request: Request, issuer: Issuer) -> Response:
    begin, end = answer.this_update, answer.next_update
    if not answer.reusable or begin is None or end is None:
        headers = {"Cache-Control": "no-store"}
        return Response(answer.der, media_type=RESPONSE_TYPE, headers=headers)
    now = issuer.clock()
    tag = f'"{hashlib.sha256(answer.der).hexdigest()[:32]}"'
    # Less than what is left: a cache must let go before the answer ends (RFC 5019 §6.2).
    left = max(0, int((end - now).total_seconds()) - 1)
    headers = {
        "ETag": tag,
        "Date": _http(now),
        "Last-Modified": _http(begin),
        "Expires": _http(end),
        "Cache-Control": f"max-age={left}, public, no-transform, must-revalidate",
    }
    if request.method == "GET" and has_it(request.headers.getlist("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    return Response(answer.der, media_type=RESPONSE_TYPE, headers=headers)


def _http(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)

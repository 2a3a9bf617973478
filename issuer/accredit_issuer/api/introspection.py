"""Token introspection over HTTP (RFC 7662): a form with a token in it, by who holds an SVID."""

import re
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from accredit_credentials.jws import MAX_TOKEN_BYTES
from accredit_issuer.api import problems
from accredit_issuer.api.callers import Caller, Callers
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuer import Issuer
from accredit_issuer.registry.roles import Operation, Reach, reach
from accredit_issuer.revocation.introspection import Viewer

PATH = "/v1/introspect"
FORM = "application/x-www-form-urlencoded"
MAX_FIELDS = 8

_ENCODED = re.compile(r"(?:[!-$&-~]|%[0-9A-Fa-f]{2})+")  # printable ASCII, each % an escape
_NOTHING_KEPT = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            FORM: {
                "schema": {
                    "type": "object",
                    "required": ["token"],
                    "properties": {
                        "token": {"type": "string", "minLength": 1, "maxLength": MAX_TOKEN_BYTES},
                        "token_type_hint": {"type": "string"},
                    },
                }
            }
        },
    }
}


def routes(issuer: Issuer, callers: Callers) -> APIRouter:
    """The calls of this page."""
    router = APIRouter(tags=["trust"])
    ByAnyone = Annotated[Caller, Depends(callers.anyone)]  # noqa: N806 (a type)

    @router.post(PATH, summary="Whether a token is good now", openapi_extra=_BODY)
    async def introspect(request: Request, caller: ByAnyone) -> Response:
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != FORM:
            raise Refusal(Kind.UNSUPPORTED_MEDIA_TYPE, f"a body must be {FORM}")
        token = token_in(await request.body())
        now = issuer.guarded_clock()
        answer: dict[str, Any] = issuer.introspection.introspect(token, viewer(caller), now)
        return JSONResponse(answer, headers=_NOTHING_KEPT)

    def viewer(caller: Caller) -> Viewer:
        named = issuer.config.introspectors.get(caller.name, frozenset())
        audiences = named | {caller.name}
        match caller.svid.spiffe_id.segments:
            case ("admin", name):
                admin = issuer.registry.admin(name)
                reaches = {Reach.ALL: None, Reach.OWN: admin.namespaces, None: ()}
                seen = reaches[reach(admin, Operation.READ)]
                return Viewer(audiences=audiences, namespaces=seen)
        return Viewer(audiences=audiences)

    return router


def token_in(body: bytes) -> str:
    """The token of a form (RFC 7662 §2.1); a hint of its type changes nothing and is passed over.

    Raises:
        Refusal: no such form, a parameter twice (RFC 6749 §3.2), or no token. Nothing of the body
            is in the text.
    """
    try:
        text = body.decode("ascii")
        if not _ENCODED.fullmatch(text):
            raise ValueError  # noqa: TRY301 (one answer to all of it)
        fields = parse_qsl(
            text,
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError:
        raise Refusal(Kind.MALFORMED, f"the body must be a form, {FORM}") from None
    if len(fields) != len(dict(fields)):
        raise Refusal(Kind.MALFORMED, "each parameter stands once in the form")
    token = dict(fields).get("token", "")
    if not token:
        raise Refusal(Kind.MALFORMED, "token: the form must have one")
    if len(token) > MAX_TOKEN_BYTES:
        raise problems.TOO_LARGE
    return token

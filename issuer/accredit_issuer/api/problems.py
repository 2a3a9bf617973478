"""How the issuer says no over HTTP: RFC 9457 problem documents from the closed set of kinds.

Whatever goes wrong ends here. What is not ours to tell (a stack trace, what a parser choked on, a
token that was sent) is not told.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from accredit_issuer.errors import Kind, Refusal, Unavailable

RETRY_AFTER = "2"  # seconds
_INTERNAL = "the issuer could not answer; its log says why"

_log = structlog.get_logger("accredit.api")
# A body without a type is refused where one is read. The framework would take any ``…+json``.
_ACCEPTED = frozenset({b"application/json", b""})
# The one call whose body is not ours to choose (RFC 7662 §2.1).
_FORM = frozenset({b"application/x-www-form-urlencoded", b""})
_ACCEPTED_AT = {"/v1/introspect": _FORM}
TOO_LARGE = Refusal(Kind.TOO_LARGE, "a body has at most 65536 bytes")
# Bodies below it are of another type, which its routes look at themselves.
_OTHER_BODIES = "/v1/ocsp/"
NO_SUCH_METHOD = Refusal(Kind.METHOD_NOT_ALLOWED, "the path has no such method")
NOT_JSON = Refusal(Kind.UNSUPPORTED_MEDIA_TYPE, "a body must be application/json")
NO_FORM = Refusal(Kind.UNSUPPORTED_MEDIA_TYPE, "a body must be application/x-www-form-urlencoded")
_OF_STATUS = {
    404: Refusal(Kind.NOT_FOUND, "no such path"),
    413: TOO_LARGE,
    415: NOT_JSON,
}


def document(kind: Kind, detail: str) -> dict[str, Any]:
    """The members of a problem document."""
    return {
        "type": f"urn:accredit:problem:{kind.wire}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
    }


def problem(kind: Kind, detail: str) -> Response:
    """A problem document."""
    response = Response(
        json.dumps(document(kind, detail)),
        status_code=kind.status,
        media_type="application/problem+json",
    )
    if kind in {Kind.UNAVAILABLE, Kind.BUSY}:
        response.headers["Retry-After"] = RETRY_AFTER
    return response


def no_such_method(scope: Scope) -> Response:
    """The refusal of a method, with those that the path has: ``Allow`` (RFC 9110 §15.5.6)."""
    # All routes of the path: the framework looks at the first alone.
    found = [route for route in scope["app"].routes if route.matches(scope)[0] is not Match.NONE]
    methods = {method for route in found for method in getattr(route, "methods", None) or ()}
    response = problem(NO_SUCH_METHOD.kind, NO_SUCH_METHOD.detail)
    response.headers["Allow"] = ", ".join(sorted(methods))
    return response


def install(app: FastAPI) -> None:
    """Map every error of the issuer and of the framework."""
    app.exception_handler(Refusal)(_on_known)
    app.exception_handler(Unavailable)(_on_known)
    app.exception_handler(RequestValidationError)(_on_invalid)
    app.exception_handler(HTTPException)(_on_http)
    app.exception_handler(Exception)(_on_anything_else)


class RefuseBodies:
    """ASGI middleware: a body that is not JSON, or says it is too large, is refused unread.

    A body that does not say so is cut off by the framework's own limit, while it is read. ``limit``
    is in bytes.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse."""
        headers = dict(scope["headers"]) if scope["type"] == "http" else {}
        refusal = None
        if _content_length(headers) > self._limit:
            refusal = TOO_LARGE
        elif not _is_accepted(scope, headers):
            refusal = NO_FORM if scope["path"] in _ACCEPTED_AT else NOT_JSON
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await problem(refusal.kind, refusal.detail)(scope, receive, send)


def _is_accepted(scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
    content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    accepted = _ACCEPTED_AT.get(scope.get("path", ""), _ACCEPTED)
    return content_type in accepted or _has_other_body(scope)


def _has_other_body(scope: Scope) -> bool:
    return bool(scope["path"].startswith(_OTHER_BODIES))


def _content_length(headers: Mapping[bytes, bytes]) -> int:
    value = headers.get(b"content-length", b"0")
    return int(value[:20]) if value.isdigit() else 0


def answer_to(error: Exception) -> Response:
    """What is answered to a request that ended in this error."""
    if isinstance(error, Refusal):
        if error.kind is Kind.INTERNAL:
            _log.error("internal", detail=error.detail)
            return problem(Kind.INTERNAL, _INTERNAL)
        return problem(error.kind, error.detail)
    if isinstance(error, Unavailable):
        _log.error("unavailable", reason=str(error), cause=repr(error.__cause__))
        return problem(Kind.UNAVAILABLE, str(error))
    _log.error("internal", exc_info=error)
    return problem(Kind.INTERNAL, _INTERNAL)


def of_invalid(errors: Sequence[Any]) -> Refusal:
    """The first of the validation's errors.

    Where and what was expected; never the value, which may be a secret in the wrong place.
    """
    first: dict[str, Any] = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part not in {"body", "query", "path"})
    return Refusal(Kind.MALFORMED, f"{where or 'body'}: {_words_of(first)}")


def _words_of(error: Mapping[str, Any]) -> str:
    # The validator says in front whose error it is, which is nothing to whoever reads it.
    return str(error["msg"]).removeprefix("Value error, ").lower()


async def _on_known(_request: Request, error: Exception) -> Response:
    return answer_to(error)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = content_type == "application/json" or _has_other_body(request.scope)
    if request.method == "POST" and not is_json:
        return problem(Kind.UNSUPPORTED_MEDIA_TYPE, "a body must be application/json")
    first: dict[str, Any] = error.errors()[0]
    if first["type"] == "json_invalid":
        why = first.get("ctx", {}).get("error", "not JSON")
        return problem(Kind.MALFORMED, f"the body must be a JSON object: {why}")
    return answer_to(of_invalid(error.errors()))


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    if error.status_code == NO_SUCH_METHOD.kind.status:
        return no_such_method(request.scope)
    known = _OF_STATUS.get(error.status_code)
    if known is not None:
        return problem(known.kind, known.detail)
    return problem(Kind.MALFORMED, "the request cannot be understood")


async def _on_anything_else(_request: Request, _error: Exception) -> Response:
    # The framework hands the error on to the server's log; the caller gets nothing of it.
    return problem(Kind.INTERNAL, _INTERNAL)

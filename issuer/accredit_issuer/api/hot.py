"""The calls that agents make all day, without the framework in between.

A ``HotRoute`` is declared as any other route, so that it is documented and matched like them, and
is executed here: body → caller → call → answer. The framework's own way costs more than deciding,
recording and signing together. ``HotRoutes`` recognises them by method and path before anything
else looks at the request.

Both framings say the same no: problems come from ``problems``, bodies are JSON with one meaning.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import orjson
from fastapi.params import Depends
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from accredit_credentials.strict_json import NotStrictJson, parse_object
from accredit_issuer.api import problems
from accredit_issuer.errors import Kind, Refusal

MAX_BODY = 64 * 1024  # bytes

Endpoint = Callable[..., Awaitable[dict[str, Any]]]

_JSON = (b"content-type", b"application/json")


class Gone(Exception):
    """Whoever asked has hung up: there is nobody to answer."""


class HotRoute(APIRoute):
    """A route with a JSON body, at most one dependency (the caller), and a dict as its answer."""

    def __init__(self, path: str, endpoint: Endpoint, **options: Any) -> None:
        super().__init__(path, endpoint, **{**options, "response_model": None})
        self._call = endpoint
        hints = get_type_hints(endpoint, include_extras=True)
        self._body: tuple[str, type[BaseModel]] | None = None
        self._caller: tuple[str, Callable[[Request], Awaitable[Any]]] | None = None
        for name in inspect.signature(endpoint).parameters:
            if (dependency := _dependency(hints[name])) is not None:
                self._caller = (name, dependency)
            else:
                self._body = (name, hints[name])

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever goes wrong is answered too."""
        if scope["method"] not in (self.methods or ()):
            # The framework hands over what has the path alone, for its own routes to refuse.
            await problems.no_such_method(scope)(scope, receive, send)
            return
        try:
            answer = await self._answer(scope, receive)
        except Gone:
            return
        except Exception as error:  # noqa: BLE001 (every error has an answer, see problems)
            await problems.answer_to(error)(scope, receive, send)
            return
        body = orjson.dumps(answer)
        length = (b"content-length", str(len(body)).encode("ascii"))
        start = {"type": "http.response.start", "status": 200, "headers": [_JSON, length]}
        await send(start)
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        unverified_body = await _read(scope, receive)
        if self._caller is not None:
            name, caller = self._caller
            arguments[name] = await caller(Request(scope))
        if self._body is not None:
            name, model = self._body
            arguments[name] = _parse(model, unverified_body)
        return await self._call(**arguments)


class HotRoutes:
    """ASGI: hot routes first, by exact method and path; everything else is passed on."""

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._routes = {
            (method, route.path): route
            for route in routes
            if isinstance(route, HotRoute)
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        route = None
        if scope["type"] == "http":
            route = self._routes.get((scope["method"], scope["path"]))
        await (self._app if route is None else route.handle)(scope, receive, send)


async def _read(scope: Scope, receive: Receive) -> bytes:
    """The body, if it says that it is JSON and is not too large.

    Raises:
        Refusal: it is something else, or larger.
        Gone: the connection ended.
    """
    content_type = b""
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_type = value
        elif name == b"content-length" and (not value.isdigit() or int(value[:20]) > MAX_BODY):
            raise problems.TOO_LARGE
    if content_type.partition(b";")[0].strip().lower() != b"application/json":
        raise problems.NOT_JSON
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Gone
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise problems.TOO_LARGE
        if not message.get("more_body", False):
            return bytes(body)


def _parse(model: type[BaseModel], body: bytes) -> BaseModel:
    try:
        return model.model_validate(parse_object(body))
    except NotStrictJson as error:
        raise Refusal(Kind.MALFORMED, f"the body must be a JSON object: {error}") from None
    except ValidationError as error:
        raise problems.of_invalid(error.errors(include_input=False, include_url=False)) from None


def _dependency(hint: Any) -> Callable[[Request], Awaitable[Any]] | None:
    if get_origin(hint) is not Annotated:
        return None
    marks = [mark for mark in get_args(hint)[1:] if isinstance(mark, Depends)]
    return marks[0].dependency if marks else None

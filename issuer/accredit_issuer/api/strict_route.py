"""Bodies with one meaning: JSON objects without duplicate members, NaN or half a surrogate.

Two readers that disagree about a body are two requests; the framework would take the last of two
members and never tell.
"""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from accredit_credentials.strict_json import NotStrictJson, parse_object


class StrictRequest(Request):
    """A request whose JSON is read strictly."""

    async def json(self) -> Any:
        """The body.

        Raises:
            json.JSONDecodeError: what the framework answers as a body that is not JSON.
        """
        try:
            return parse_object(await self.body())
        except NotStrictJson as error:
            raise json.JSONDecodeError(str(error), "", 0) from None


class StrictRoute(APIRoute):
    """A route that reads its body with ``StrictRequest``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The framework's handler, given a strict request."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return strict

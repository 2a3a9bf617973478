"""Cuts requests that are under way, once what allowed them was taken back.

``Cutting`` stands around an application, in one task with it. Its questions (``under_way``) are
asked whenever something that is known has changed, and each second. What is cut gets its refusal
where nothing was sent yet, and otherwise the end of its connection, so that nobody takes half of an
answer for all of it. A websocket is closed with 1008, or refused before it was accepted. An
application that computes in a thread is cut when it comes back.
"""

import asyncio
import logging
from typing import Any

from accredit_client.errors import ClientError
from accredit_client.guard import close_websocket, problem_of, send_problem
from accredit_client.under_way import KEY, UnderWay
from accredit_credentials.asgi_peer import App, Scope
from accredit_credentials.errors import CredentialError

log = logging.getLogger(__name__)

LOOK = 0.02  # seconds between two looks at whether anything is known that was not
THOROUGH = 1.0  # seconds between two times that everything is asked
CUT = {"http": "http.response.start", "websocket": "websocket.accept"}
"""What is cut, and the message with which its answer has begun."""


class Cutting:
    """Around an application: its requests end when what allowed them was taken back.

    Args:
        app: the application; within it ``guard`` and ``serving`` leave their questions.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._open: set[UnderWay] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._thorough_at = 0.0

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer one request; what is none, or is looked after already, goes through."""
        task = asyncio.current_task()
        if scope["type"] not in CUT or KEY in scope or task is None:
            await self._app(scope, receive, send)
            return
        request = UnderWay(task)
        scope[KEY] = request

        async def sending(message: dict[str, Any]) -> None:
            if request.refused is not None:
                raise request.refused  # for an application that goes on when it is cancelled
            request.started = request.started or message["type"] == CUT[scope["type"]]
            await send(message)

        self._begin(request)
        try:
            await self._app(scope, receive, sending)
        except asyncio.CancelledError:
            if request.refused is None:
                raise
            task.uncancel()
        except (CredentialError, ClientError) as error:
            if error is not request.refused:
                raise
        finally:
            self._open.discard(request)
        await _end(scope, request, send)

    def _begin(self, request: UnderWay) -> None:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._timer = loop, None
            self._open.clear()
        self._open.add(request)
        if self._timer is None:
            self._thorough_at = loop.time() + THOROUGH
            self._timer = loop.call_later(LOOK, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        thoroughly = loop.time() >= self._thorough_at
        for request in tuple(self._open):
            if not request.stands(thoroughly=thoroughly):
                log.warning("a request under way was cut: %s", request.refused)
                self._open.discard(request)
                request.task.cancel()
        if thoroughly:
            self._thorough_at = loop.time() + THOROUGH
        if self._open:
            self._timer = loop.call_later(LOOK, self._look, loop)


async def _end(scope: Scope, request: UnderWay, send: Any) -> None:
    """Tell whoever was cut."""
    if request.refused is None:
        return
    if scope["type"] == "websocket":
        await close_websocket(send)
    elif not request.started:
        also = ((b"connection", b"close"),)
        await send_problem(problem_of(request.refused, ""), send, also=also)
    # An answer that has begun is left without its end: the server closes the connection.

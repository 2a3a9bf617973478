"""FastAPI: one dependency for each route that needs a task token.

    app = FastAPI()
    install(app, Guard(verifier, public_url="https://tickets.example.org"))

    @app.get("/tickets/{ticket}")
    async def read(
        ticket: str, token: Annotated[TaskToken, Depends(requires("tickets", "read"))]
    ) -> Ticket: ...

On a websocket's route it decides about the handshake, and the websocket is closed once what allowed
it was taken back. A route without the dependency is open: where every route must be covered, use
``asgi.TaskTokenMiddleware``, whose default is to refuse.
"""

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, WebSocket
from fastapi.requests import HTTPConnection
from fastapi.responses import JSONResponse, Response

from accredit_client.cutting import Cutting
from accredit_client.errors import NotReady
from accredit_client.guard import POLICY_VIOLATION, STATE_KEY, Guard, RequestRefused
from accredit_credentials.task_token import TaskToken

_GUARD = "accredit_guard"


def install(app: FastAPI, guard: Guard) -> None:
    """Make ``requires`` work in this application, and cut what was taken back meanwhile."""
    app.add_middleware(Cutting)
    setattr(app.state, _GUARD, guard)
    # Its type is that of one or the other; one handler gets both.
    app.add_exception_handler(RequestRefused, _answer)  # type: ignore[arg-type]


def requires(resource: str, action: str) -> Callable[[HTTPConnection], Awaitable[TaskToken]]:
    """A dependency that gives the task token, once it allows ``action`` on ``resource``."""
    if not resource or not action:
        raise ValueError("requires() must name a resource and an action")

    async def decide(request: HTTPConnection) -> TaskToken:
        guard = getattr(request.app.state, _GUARD, None)
        if not isinstance(guard, Guard):
            raise NotReady("the application has no guard", hint="call install(app, guard) first")
        token = await guard.admit(request.scope, resource=resource, action=action)
        setattr(request.state, STATE_KEY, token)
        return token

    return decide


async def _answer(request: Request | WebSocket, error: Exception) -> Response | None:
    if isinstance(request, WebSocket) and isinstance(error, RequestRefused):
        await request.close(POLICY_VIOLATION)  # not accepted yet: the handshake is refused
        return None
    if not isinstance(error, RequestRefused):
        raise error
    problem = error.problem
    response = JSONResponse(problem.document, problem.status)
    for name, value in problem.headers:
        if name == "content-type":
            response.headers[name] = value
        else:
            response.headers.append(name, value)
    return response

"""A middleware for any ASGI application: no request without a task token that allows it.

Rules say which method and path need which action on which resource. What no rule is about is
refused. The token stands in ``scope["state"]["task_token"]`` for the application behind. A request
that is under way when its token, or its sender, is taken back is cut. A websocket needs a rule of
the method ``WEBSOCKET``, is decided about by its handshake, and is cut alike.

    app = TaskTokenMiddleware(
        app,
        Guard(verifier, public_url="https://tickets.example.org"),
        rules=[
            Rule("GET", "/tickets/{id}", resource="tickets", action="read"),
            Rule("POST", "/tickets", resource="tickets", action="create"),
            Open("GET", "/health"),
        ],
    )

Serve it so that the client's certificate is in the scope: ``serving`` does, and any server that
fills the ASGI TLS extension.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from accredit_client.cutting import Cutting
from accredit_client.guard import (
    STATE_KEY,
    Guard,
    RequestRefused,
    close_websocket,
    not_covered,
    send_problem,
)
from accredit_credentials.asgi_peer import App, Scope

WEBSOCKET = "WEBSOCKET"
"""The method of rules about websockets: none that HTTP has, so that no other rule lets one in."""

_PLACEHOLDER = re.compile(r"\{[a-z_][a-z0-9_]*\}")


@dataclass(frozen=True, slots=True)
class Open:
    """A request that needs no token.

    Attributes:
        method: as ``GET``, or ``WEBSOCKET``; another method needs another rule.
        path: as ``/tickets/{id}``, where braces stand for one segment.
    """

    method: str
    path: str

    def __post_init__(self) -> None:
        _check(self.method, self.path)


@dataclass(frozen=True, slots=True)
class Rule:
    """A request that needs an action on a resource.

    Attributes:
        method: as ``GET``, or ``WEBSOCKET``; another method needs another rule.
        path: as ``/tickets/{id}``, where braces stand for one segment.
        resource: as the manifests declare it.
        action: of that resource.
    """

    method: str
    path: str
    resource: str
    action: str

    def __post_init__(self) -> None:
        _check(self.method, self.path)
        if not self.resource or not self.action:
            raise ValueError(f"rule for {self.method} {self.path} must name resource and action")


class TaskTokenMiddleware:
    """Refuses what no rule and no token allows.

    Args:
        app: the application behind.
        guard: decides about a request's token.
        rules: in order; the first that is about a request decides.
    """

    def __init__(self, app: App, guard: Guard, *, rules: Iterable[Rule | Open]) -> None:
        self._app = app
        self._cutting = Cutting(self._decided)
        self._guard = guard
        self._rules = tuple((rule.method, _pattern(rule.path), rule) for rule in rules)
        if not self._rules:
            raise ValueError("rules must say what is allowed; none would refuse every request")

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Decide about one request, or let the server's start and end through."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            await self._cutting(scope, receive, send)

    async def _decided(self, scope: Scope, receive: Any, send: Any) -> None:
        try:
            rule = self._rule(_method(scope), scope["path"])
            if isinstance(rule, Rule):
                token = await self._guard.admit(scope, resource=rule.resource, action=rule.action)
                scope.setdefault("state", {})[STATE_KEY] = token
        except RequestRefused as refused:
            if scope["type"] == "websocket":
                await refuse_websocket(receive, send)
            else:
                await send_problem(refused.problem, send)
            return
        await self._app(scope, receive, send)

    def _rule(self, method: str, path: str) -> Rule | Open:
        # What the application behind might read in another way is about no rule.
        if not _plain(path):
            raise not_covered()
        for rule_method, pattern, rule in self._rules:
            if rule_method == method and pattern.fullmatch(path):
                return rule
        raise not_covered()


async def refuse_websocket(receive: Any, send: Any) -> None:
    """Refuse a websocket's handshake."""
    await receive()
    await close_websocket(send)


def _method(scope: Scope) -> str:
    """The method that a rule has to have."""
    if scope["type"] == "websocket":
        return WEBSOCKET
    method: str = scope["method"]
    if method == WEBSOCKET:  # said by a request that is none
        raise not_covered()
    return method


def _check(method: str, path: str) -> None:
    if not method.isupper():
        raise ValueError(f"rule's method {method!r} must be in upper case, as GET")
    if not _plain(path):
        raise ValueError(f"rule's path {path!r} must start with / and have no empty segment")


def _plain(path: str) -> bool:
    """Whether everybody reads the path alike: absolute, printable, no empty or dot segments.

    A line break at the end is the case in point: to a pattern that ends in ``$`` it is not there.
    """
    first, *segments = path.split("/")
    *inner, last = segments or [".."]
    dots = {".", ".."}
    return (
        not first
        and path.isprintable()
        and all(s and s not in dots for s in inner)
        and last not in dots
    )


def _pattern(path: str) -> re.Pattern[str]:
    literals = [re.escape(part) for part in _PLACEHOLDER.split(path)]
    return re.compile("[^/]+".join(literals))

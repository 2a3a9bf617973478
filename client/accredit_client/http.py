"""Task tokens on every request of an HTTP client: httpx2 and httpx, with threads and asyncio.

    auth = TaskTokenAuth(identity, resource="tickets", actions=["read"], purpose="summarise 4711")
    with httpx2.Client(transport=identity.transport(peer="spiffe://…"), auth=auth) as client:
        client.get("https://tickets.example.org/tickets/4711")

The token is fetched before the first request and kept (``task_tokens`` says for how long). A 401
is answered once with a new token, and then believed. A token bound to the certificate needs
connections that show it: ``identity.transport`` makes no others.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import httpx2

from accredit_client.async_identity import AsyncAgentIdentity
from accredit_client.effects import Clock, utc_now
from accredit_client.errors import InvalidPeer, IssuerRefused, IssuerUnreachable
from accredit_client.identity import AgentIdentity
from accredit_client.task_tokens import HeldToken, TaskTokens, TokenBinding

if TYPE_CHECKING:
    import httpx

    class _Auth(httpx2.Auth, httpx.Auth):
        """Both packages' base class; each method is overridden below."""

        def auth_flow(self, request: Any) -> Generator[Any, Any, None]: ...
        def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]: ...
        def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]: ...

else:

    def _bases() -> tuple[type, ...]:
        """The base classes that clients check for: of httpx2, and of httpx where it is there."""
        try:
            import httpx  # noqa: PLC0415 (optional)
        except ImportError:
            return (httpx2.Auth,)
        # ``httpx2.alias_httpx`` makes both names one class.
        return tuple(dict.fromkeys((httpx2.Auth, httpx.Auth)))

    _Auth = type("_Auth", _bases(), {})

_UNAUTHORIZED = 401


class TaskTokenAuth(_Auth):
    """Authenticates requests with the token of one task. Safe to share between threads.

    Args:
        identity: started already; an asynchronous one serves asynchronous clients only.
        resource: as the manifest declares it.
        actions: of that resource.
        purpose: what the task is for, in plain words.
        binding: ``certificate``, ``dpop`` or ``bearer``.
        principal: on whose behalf; None for the agent itself.
        task_id: an earlier task of this instance; None begins one.
        parent: the task that this one is a part of.
        clock: the time.
    """

    requires_request_body = False
    requires_response_body = False

    def __init__(
        self,
        identity: AgentIdentity | AsyncAgentIdentity,
        *,
        resource: str,
        actions: Sequence[str],
        purpose: str,
        binding: TokenBinding | str = TokenBinding.CERTIFICATE,
        principal: str | None = None,
        task_id: str | None = None,
        parent: str | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._identity = identity
        self._clock = clock
        self._tokens = TaskTokens(
            resource=resource,
            actions=actions,
            purpose=purpose,
            binding=binding,
            principal=principal,
            task_id=task_id,
            parent=parent,
        )
        self._lock = threading.Lock()
        self._async_lock = asyncio.Lock()

    def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Authenticate one request; the same as ``sync_auth_flow``."""
        return self.sync_auth_flow(request)

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Authenticate one request, and once more where the server says 401."""
        held = self._fetch()
        response = yield self._authenticated(request, held)
        if response.status_code == _UNAUTHORIZED and _repeatable(request):
            yield self._authenticated(request, self._fetch(refused=held))

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Authenticate one request, and once more where the server says 401."""
        held = await self._async_fetch()
        response = yield self._authenticated(request, held)
        if response.status_code == _UNAUTHORIZED and _repeatable(request):
            yield self._authenticated(request, await self._async_fetch(refused=held))

    def _fetch(self, refused: HeldToken | None = None) -> HeldToken:
        if not isinstance(self._identity, AgentIdentity):
            raise TypeError("an AsyncAgentIdentity serves asynchronous clients only")
        with self._lock:
            current = self._current(refused)
            if current is not None:
                return current
            try:
                answer = self._identity.task_token(self._tokens.request())
            except (IssuerUnreachable, IssuerRefused) as error:
                return self._fallback(error, refused)
            return self._tokens.hold(answer, self._clock())

    async def _async_fetch(self, refused: HeldToken | None = None) -> HeldToken:
        if not isinstance(self._identity, AsyncAgentIdentity):
            return await anyio.to_thread.run_sync(self._fetch, refused)
        async with self._async_lock:
            current = self._current(refused)
            if current is not None:
                return current
            try:
                answer = await self._identity.task_token(self._tokens.request())
            except (IssuerUnreachable, IssuerRefused) as error:
                return self._fallback(error, refused)
            return self._tokens.hold(answer, self._clock())

    def _current(self, refused: HeldToken | None) -> HeldToken | None:
        identity = self._identity
        return self._tokens.current(
            self._clock(), identity.x509, refused, tainted=identity.bundle.tainted
        )

    def _fallback(
        self, error: IssuerUnreachable | IssuerRefused, refused: HeldToken | None
    ) -> HeldToken:
        """The older token while it is good, where the issuer is away; otherwise the error."""
        away = isinstance(error, IssuerUnreachable) or error.for_now
        held = self._tokens.fallback(self._clock(), self._identity.x509, refused)
        if not away or held is None:
            raise error
        return held

    def _authenticated(self, request: Any, held: HeldToken) -> Any:
        if request.url.scheme != "https":
            raise InvalidPeer(f"task tokens travel over https only, not to {request.url.host}")
        headers = self._tokens.headers(
            held, method=request.method, url=str(request.url), now=self._clock()
        )
        for name, value in headers:
            request.headers[name] = value
        return request


def _repeatable(request: Any) -> bool:
    """Whether the request's body is still there to be sent again."""
    with suppress(httpx2.RequestNotRead, RuntimeError):  # httpx's own error is a RuntimeError
        return request.content is not None
    return False

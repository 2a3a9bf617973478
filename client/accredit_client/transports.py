"""httpx2 transports that never reuse a connection of an identity that is no longer held.

Every request asks for the context of the moment. When it is another than the last, a new pool
begins, and the old one is closed once its last response is: requests under way finish, and no
later request travels with the old certificate.

A response without end, as of a feed, would keep a connection for ever. When an authority was
dropped since its handshake, it ends within ``LINGER`` of its next byte, as if the connection broke:
whoever reads it opens another. Where an authority was revoked, it ends with that byte.
"""

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Generic, TypeVar

import httpx2

from accredit_client.errors import ClientError
from accredit_credentials.tls import SpiffeContext

DEFAULT_LIMITS = httpx2.Limits(
    max_connections=100, max_keepalive_connections=20, keepalive_expiry=30.0
)

LINGER = 60.0  # seconds that a response may go on after an authority of its time was dropped

Contexts = Callable[[], SpiffeContext]
Monotonic = Callable[[], float]
T = TypeVar("T")


class _Pool(Generic[T]):
    """One transport, the context it connects with, and how many responses still use it."""

    def __init__(self, context: SpiffeContext, transport: T) -> None:
        self.context = context
        self.transport = transport
        self.users = 0
        self.ends_at: float | None = None


class _Pools(Generic[T]):
    """The current pool and its predecessors. Decides; closing is the caller's."""

    def __init__(
        self, contexts: Contexts, make: Callable[[SpiffeContext], T], monotonic: Monotonic
    ) -> None:
        self._contexts = contexts
        self._make = make
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._current: _Pool[T] | None = None

    def enter(self) -> tuple[_Pool[T], T | None]:
        """The pool for a new request, and a transport to close, if any.

        Raises:
            ClientError: nothing is held any more; ``abandon`` then gives what to close.
        """
        context = self._contexts()
        with self._lock:
            pool, idle = self._current, None
            if pool is None or pool.context is not context:
                idle = pool.transport if pool is not None and not pool.users else None
                pool = self._current = _Pool(context, self._make(context))
            pool.users += 1
            return pool, idle

    def leave(self, pool: _Pool[T]) -> T | None:
        """Say that a response is done; returns a transport to close, if any."""
        with self._lock:
            pool.users -= 1
            return pool.transport if pool is not self._current and not pool.users else None

    def check(self, pool: _Pool[T]) -> None:
        """Decide whether a response of this pool may go on.

        Raises:
            httpx2.ReadError: an authority that the connection may rest on is not believed any more,
                or one was revoked: then at once, since whoever took its key may be at the end.
        """
        if pool.ends_at is None:
            try:
                current = self._contexts()
            except ClientError:
                return  # nothing is held now: no more is known than at the handshake
            # Copied first: another connection's handshake may add to it meanwhile.
            if current.refused & pool.context.met.copy():
                raise httpx2.ReadError("the connection rests on an authority that was revoked")
            if current is pool.context or pool.context.authorities <= current.authorities:
                return
            pool.ends_at = self._monotonic() + LINGER
        elif self._monotonic() >= pool.ends_at:
            raise httpx2.ReadError("the connection rests on an authority that was dropped")

    def close(self) -> T | None:
        """Forget the current pool; returns its transport, to close."""
        with self._lock:
            pool, self._current = self._current, None
            return pool.transport if pool is not None else None

    def abandon(self) -> T | None:
        """As ``close``, where requests may be under way: what they use closes after them."""
        with self._lock:
            pool, self._current = self._current, None
            return pool.transport if pool is not None and not pool.users else None


class RotatingTransport(httpx2.BaseTransport):
    """For ``httpx2.Client(transport=…)``."""

    def __init__(
        self,
        contexts: Contexts,
        *,
        limits: httpx2.Limits | None = None,
        monotonic: Monotonic = time.monotonic,
    ) -> None:
        kept = limits or DEFAULT_LIMITS
        self._pools = _Pools(
            contexts,
            lambda context: httpx2.HTTPTransport(verify=context, trust_env=False, limits=kept),
            monotonic,
        )

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request over a connection of the current context."""
        try:
            pool, idle = self._pools.enter()
        except ClientError:
            _close(self._pools.abandon())
            raise
        _close(idle)
        try:
            response = pool.transport.handle_request(request)
        except BaseException:
            self._leave(pool)
            raise
        stream = response.stream
        if not isinstance(stream, httpx2.SyncByteStream):  # a type's promise; httpx2 keeps it
            self._leave(pool)
            raise TypeError("httpx2.HTTPTransport must answer with a synchronous stream")
        response.stream = _Stream(
            stream, lambda: self._pools.check(pool), lambda: self._leave(pool)
        )
        return response

    def close(self) -> None:
        """Close every connection."""
        _close(self._pools.close())

    def _leave(self, pool: _Pool[httpx2.HTTPTransport]) -> None:
        _close(self._pools.leave(pool))


class AsyncRotatingTransport(httpx2.AsyncBaseTransport):
    """For ``httpx2.AsyncClient(transport=…)``."""

    def __init__(
        self,
        contexts: Contexts,
        *,
        limits: httpx2.Limits | None = None,
        monotonic: Monotonic = time.monotonic,
    ) -> None:
        kept = limits or DEFAULT_LIMITS
        self._pools = _Pools(
            contexts,
            lambda context: httpx2.AsyncHTTPTransport(verify=context, trust_env=False, limits=kept),
            monotonic,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request over a connection of the current context."""
        try:
            pool, idle = self._pools.enter()
        except ClientError:
            if (left := self._pools.abandon()) is not None:
                await left.aclose()
            raise
        try:
            if idle is not None:
                await idle.aclose()
            response = await pool.transport.handle_async_request(request)
        except BaseException:
            await self._leave(pool)
            raise
        stream = response.stream
        if not isinstance(stream, httpx2.AsyncByteStream):  # a type's promise; httpx2 keeps it
            await self._leave(pool)
            raise TypeError("httpx2.AsyncHTTPTransport must answer with an asynchronous stream")
        response.stream = _AsyncStream(stream, self, pool)
        return response

    async def aclose(self) -> None:
        """Close every connection."""
        transport = self._pools.close()
        if transport is not None:
            await transport.aclose()

    async def _leave(self, pool: _Pool[httpx2.AsyncHTTPTransport]) -> None:
        transport = self._pools.leave(pool)
        if transport is not None:
            await transport.aclose()


class _Stream(httpx2.SyncByteStream):
    def __init__(
        self, inner: httpx2.SyncByteStream, check: Callable[[], None], done: Callable[[], None]
    ) -> None:
        self._inner = inner
        self._check = check
        self._done: Callable[[], None] | None = done

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._inner:
            self._check()
            yield chunk

    def close(self) -> None:
        done, self._done = self._done, None
        try:
            self._inner.close()
        finally:
            if done is not None:
                done()


class _AsyncStream(httpx2.AsyncByteStream):
    def __init__(
        self,
        inner: httpx2.AsyncByteStream,
        transport: AsyncRotatingTransport,
        pool: _Pool[httpx2.AsyncHTTPTransport],
    ) -> None:
        self._inner = inner
        self._transport = transport
        self._pool: _Pool[httpx2.AsyncHTTPTransport] | None = pool

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            if self._pool is not None:
                self._transport._pools.check(self._pool)  # noqa: SLF001 (one module, one mechanism)
            yield chunk

    async def aclose(self) -> None:
        pool, self._pool = self._pool, None
        try:
            await self._inner.aclose()
        finally:
            if pool is not None:
                await self._transport._leave(pool)  # noqa: SLF001 (one module, one mechanism)


def _close(transport: httpx2.HTTPTransport | None) -> None:
    if transport is not None:
        transport.close()

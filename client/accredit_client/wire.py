"""The issuer over HTTPS: sends ``calls`` and reads the replies, bounded and verified.

The peer must be the issuer of the bundle's trust domain, by its SPIFFE ID; host names prove
nothing here. Only https, only TLS 1.3, no redirect is followed, no proxy of the environment is
used, and no more of an answer is read than its call allows. ``Issuer`` is for threads,
``AsyncIssuer`` for asyncio; what they share decides, they only carry.
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx2

from accredit_client.call import Call, Reply, refusal, retry_after
from accredit_client.errors import (
    ClientError,
    InvalidAnswer,
    InvalidTrust,
    IssuerUnreachable,
    IssuerUntrusted,
)
from accredit_client.tls import peer_check
from accredit_client.transports import AsyncRotatingTransport, RotatingTransport
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import Untrusted
from accredit_credentials.reach import namespaces_of
from accredit_credentials.spiffe_id import issuer_id
from accredit_credentials.tls import PeerCheck, SpiffeContext, client_context
from accredit_credentials.x509_svid import X509Identity, X509Svid

A = TypeVar("A")
Contexts = Callable[[], SpiffeContext]

MAX_PROBLEM_BYTES = 64 * 1024
MAX_TAG = 256  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long to wait, in seconds.

    Attributes:
        connect: for TCP and TLS.
        read: for the next bytes of an answer.
        write: for room to send.
        pool: for a free connection.
        opening: until a stream is open, or refused in full: drop by drop is too slow as well.
    """

    connect: float = 5.0
    read: float = 10.0
    write: float = 5.0
    pool: float = 5.0
    opening: float = 20.0


DEFAULT_TIMEOUTS = Timeouts()


def issuer_context(
    bundle: TrustBundle,
    identity: X509Identity | None = None,
    *,
    also: PeerCheck | None = None,
    foreign: bool = False,
) -> SpiffeContext:
    """A context that talks to the bundle's issuer and to nobody else.

    Args:
        bundle: of the issuer's trust domain.
        identity: what to show.
        also: what else decides about its SVID, such as ``check_issuer_reach`` for one who holds an
            SVID that is not shown.
        foreign: whether it is the issuer of another trust domain, which only a CA without limits
            may speak for.
    """

    def check(svid: X509Svid) -> None:
        if identity is not None:
            check_issuer_reach(svid, identity.svid)
        if also is not None:
            also(svid)

    return client_context(
        bundle=bundle,
        peer_check=peer_check(issuer_id(bundle.trust_domain), also=check),
        identity=identity,
        any_reach=not foreign,
    )


def check_issuer_reach(issuer: X509Svid, holder: X509Svid) -> None:
    """Decide whether the CAs above an issuer's SVID may have issued what ``holder`` has.

    An issuer below another has the issuer's SPIFFE ID, and a CA that is limited to namespaces: it
    is the issuer of those whom such a CA vouches for, and of nobody else.

    Raises:
        Untrusted: one of them is limited to namespaces that no CA of ``holder`` is limited to.
    """
    own = {each for ca in holder.intermediates for each in namespaces_of(ca) or ()}
    for ca in issuer.intermediates:
        limited = namespaces_of(ca)
        if limited is not None and own.isdisjoint(limited):
            raise Untrusted(
                f"the issuer is below a CA that is limited to agents of "
                f"{', '.join(limited)[:160]!r}, which did not issue our SVID"
            )


def check_issuer_url(url: str) -> str:
    """The issuer's address in its one form: ``https://host[:port]``, without a path.

    Raises:
        InvalidTrust: any other form.
    """
    try:
        parts = urlsplit(url)
        odd = parts.username is not None or parts.query or parts.fragment or parts.port == 0
    except ValueError:
        odd = True
        parts = urlsplit("")
    if odd or parts.scheme != "https" or not parts.hostname or parts.path not in {"", "/"}:
        raise InvalidTrust(
            f"issuer URL {url[:80]!r} must have the form https://host or https://host:port"
        )
    return f"https://{parts.netloc}"


class Line:
    """The connection of one request, which any thread may cut, whatever it is waiting for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_cut = False

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Told by httpx2 what happens (its extension ``trace``)."""
        if event != "connection.connect_tcp.complete":
            return
        with self._lock:
            # A second handle: the TLS socket takes the first one's place, before it shakes hands.
            self._socket = info["return_value"].get_extra_info("socket").dup()
        if self._is_cut:
            self.cut()

    def cut(self) -> None:
        """Make the waiting thread's handshake, read or write fail at once."""
        with self._lock:
            self._is_cut = True
            if self._socket is not None:
                with suppress(OSError):  # the other side was faster
                    self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the connection, which is closed by whoever made it."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None


class Issuer:
    """The issuer, for threads. Safe to share between them.

    Args:
        url: ``https://host[:port]``.
        contexts: gives the TLS context of the moment; see ``issuer_context``.
        timeouts: how long to wait.
    """

    def __init__(
        self, url: str, contexts: Contexts, *, timeouts: Timeouts = DEFAULT_TIMEOUTS
    ) -> None:
        self.url = check_issuer_url(url)
        self._opening = timeouts.opening
        self._client = httpx2.Client(
            **_options(self.url, timeouts), transport=RotatingTransport(contexts)
        )

    @classmethod
    def at(
        cls,
        url: str,
        *,
        bundle: TrustBundle,
        identity: X509Identity | None = None,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
    ) -> Self:
        """The issuer of ``bundle``'s trust domain, called with one identity or with none."""
        context = issuer_context(bundle, identity)
        return cls(url, lambda: context, timeouts=timeouts)

    def send(self, call: Call[A]) -> A:
        """Send a call and read its answer.

        Raises:
            IssuerUnreachable: nobody answered, in time and in full.
            IssuerUntrusted: somebody answered who is not the issuer.
            IssuerRefused: the issuer said no.
            InvalidAnswer: the answer is not of the documented form.
        """
        with self._open(call) as response:
            body = bytearray()
            for chunk in response.iter_raw():
                _take(body, chunk, call.limit)
        return call.answer(_reply(response, bytes(body)))

    @contextmanager
    def stream(
        self, call: Call[Any], line: Line | None = None
    ) -> Iterator[Iterator[tuple[str, str]]]:
        """Open a stream of server-sent events.

        Args:
            call: what to ask for.
            line: gets hold of the connection, so that another thread can end every wait.

        Raises:
            IssuerUnreachable, IssuerUntrusted, IssuerRefused: as ``send``.
        """
        line = line or Line()
        opening = threading.Timer(self._opening, line.cut)
        opening.daemon = True
        opening.start()
        try:
            with self._open(call, line) as response:
                if response.status_code != httpx2.codes.OK:
                    body = bytearray()
                    for chunk in response.iter_raw():
                        _take(body, chunk, MAX_PROBLEM_BYTES)
                    raise refusal(_reply(response, bytes(body)))
                opening.cancel()
                source = httpx2.EventSource(response, max_event_size=call.limit)
                yield ((event.event, event.data) for event in source)
        finally:
            opening.cancel()
            line.close()

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _open(self, call: Call[Any], line: Line | None = None) -> Iterator[httpx2.Response]:
        request = _request(call)
        if line is not None:
            # A connection of its own: one that was kept would not be the line's to cut.
            request["headers"]["connection"] = "close"
            request["extensions"] = {"trace": line.trace}
        with _failures(self.url), self._client.stream(**request) as response:
            yield response


class AsyncIssuer:
    """The issuer, for asyncio. As ``Issuer``, with ``await``."""

    def __init__(
        self, url: str, contexts: Contexts, *, timeouts: Timeouts = DEFAULT_TIMEOUTS
    ) -> None:
        self.url = check_issuer_url(url)
        self._opening = timeouts.opening
        self._client = httpx2.AsyncClient(
            **_options(self.url, timeouts), transport=AsyncRotatingTransport(contexts)
        )

    @classmethod
    def at(
        cls,
        url: str,
        *,
        bundle: TrustBundle,
        identity: X509Identity | None = None,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
    ) -> Self:
        """The issuer of ``bundle``'s trust domain, called with one identity or with none."""
        context = issuer_context(bundle, identity)
        return cls(url, lambda: context, timeouts=timeouts)

    async def send(self, call: Call[A]) -> A:
        """Send a call and read its answer; raises as ``Issuer.send``."""
        async with self._open(call) as response:
            body = bytearray()
            async for chunk in response.aiter_raw():
                _take(body, chunk, call.limit)
        return call.answer(_reply(response, bytes(body)))

    @asynccontextmanager
    async def stream(self, call: Call[Any]) -> AsyncIterator[AsyncIterator[tuple[str, str]]]:
        """Open a stream of server-sent events; raises as ``Issuer.stream``."""
        async with AsyncExitStack() as resources:
            try:
                async with asyncio.timeout(self._opening):
                    response = await resources.enter_async_context(self._open(call))
                    if response.status_code != httpx2.codes.OK:
                        body = bytearray()
                        async for chunk in response.aiter_raw():
                            _take(body, chunk, MAX_PROBLEM_BYTES)
                        raise refusal(_reply(response, bytes(body)))
            except TimeoutError as error:
                raise _failure(self.url, error) from error
            source = httpx2.EventSource(response, max_event_size=call.limit)
            yield ((event.event, event.data) async for event in source)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @asynccontextmanager
    async def _open(self, call: Call[Any]) -> AsyncIterator[httpx2.Response]:
        with _failures(self.url):
            async with self._client.stream(**_request(call)) as response:
                yield response


def _options(url: str, timeouts: Timeouts) -> dict[str, Any]:
    return {
        "base_url": url,
        "follow_redirects": False,
        "trust_env": False,
        "timeout": httpx2.Timeout(
            connect=timeouts.connect,
            read=timeouts.read,
            write=timeouts.write,
            pool=timeouts.pool,
        ),
        # Read as it comes: an encoded answer could grow beyond its bound while it is decoded.
        "headers": {"accept-encoding": "identity"},
    }


def _request(call: Call[Any]) -> dict[str, Any]:
    return {
        "method": call.method,
        "url": call.path,
        "content": call.content,
        "headers": dict(call.headers),
    }


def _take(body: bytearray, chunk: bytes, limit: int) -> None:
    if len(body) + len(chunk) > limit:
        raise InvalidAnswer(f"the issuer's answer is larger than {limit} bytes")
    body += chunk


def _reply(response: httpx2.Response, body: bytes) -> Reply:
    headers = response.headers
    return Reply(
        response.status_code,
        body,
        retry_after(headers.get("retry-after")),
        _tag(headers.get("etag")),
    )


def _tag(header: str | None) -> str | None:
    """The tag of a version, where it may be sent back as it came."""
    if header is None or len(header) > MAX_TAG or not (header.isascii() and header.isprintable()):
        return None
    return header


@contextmanager
def _failures(url: str) -> Iterator[None]:
    """Say what went wrong on the way in this package's words."""
    try:
        yield
    except httpx2.HTTPError as error:
        raise _failure(url, error) from error


def _failure(url: str, error: Exception) -> ClientError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return IssuerUntrusted(
                f"{url} is not the issuer that we trust: {_reason(cause)}",
                hint="check the address, and that the trust bundle or pin is this issuer's",
            )
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx2.RemoteProtocolError):
        return IssuerUnreachable(
            f"{url} closed the connection without an answer",
            hint="a certificate that the issuer does not trust any more ends so: log in again, "
            "or attest again",
        )
    return IssuerUnreachable(
        f"{url} did not answer: {_words(error)}",
        hint="check the address, and that the issuer is running",
    )


def _reason(error: ssl.SSLCertVerificationError) -> str:
    # Of our own check the text is the only argument; OpenSSL's has a message and a number.
    own = error.args[0] if len(error.args) == 1 else str(error)
    return str(getattr(error, "verify_message", "") or own)


def _words(error: Exception) -> str:
    """What the system said, where the library says no more than that it failed."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "the name is not known"
        if isinstance(cause, ConnectionRefusedError):
            return "the connection was refused"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx2.TimeoutException):
        return "it took too long"
    return str(error) or type(error).__name__

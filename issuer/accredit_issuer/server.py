"""Serving: TLS 1.3 with the issuer's own SVID, client certificates asked for, uvicorn.

The certificate and the trusted authorities change while the server runs: each handshake gets the
context that is current then. The issuer's own SVID is renewed at half life.

Where the settings say so, a second listener on the same loop serves the public documents under a
certificate of a Web CA (``bundle_endpoint``), with the same deadlines and caps.
"""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from types import FrameType

import structlog
import uvicorn
import uvloop
from starlette.types import ASGIApp

from accredit_credentials.errors import Untrusted
from accredit_credentials.keys import generate_key
from accredit_credentials.tls import front_context, server_context
from accredit_credentials.x509_svid import X509Identity, X509Svid, authority_key_id
from accredit_issuer import bundle_endpoint
from accredit_issuer.api.hot import HotRoutes
from accredit_issuer.api.hot_documents import HotCrls
from accredit_issuer.app import make_app, make_public_app
from accredit_issuer.bundle_endpoint import WebCertificate
from accredit_issuer.connection import Connection
from accredit_issuer.errors import InvalidSettings, IssuerError
from accredit_issuer.issuer import Issuer
from accredit_issuer.scheduler import Scheduler
from accredit_issuer.settings import HttpsWeb

BACKLOG = 4096  # a thousand verifiers that connect again at once
SHUTDOWN_SECONDS = 2
UNREACHABLE_SECONDS = 30  # without a sign that what was sent arrived: a stream's end is seen then
KEEP_ALIVE_SECONDS = 75  # longer than clients keep an idle connection: theirs to close
RETRY_SECONDS = 5.0
LOOK_AGAIN_SECONDS = 30.0  # a sleeping machine's timers stand still: the clock is asked often

_log = structlog.get_logger("accredit.server")


class OwnIdentity:
    """The issuer's own SVID and the TLS context made of it."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._identity: X509Identity | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._outdated = asyncio.Event()
        self._context: ssl.SSLContext | None = None
        self._rebuilding = threading.Lock()

    @property
    def context(self) -> ssl.SSLContext:
        """The newest context."""
        if self._context is None:
            raise IssuerError("the issuer has no SVID of its own yet")
        return self._context

    async def renew(self) -> None:
        """Get a new SVID for a new key."""
        key = generate_key()
        svid = await self._issuer.issuance.own.issue(key.public_key())
        self._identity = X509Identity.of(svid.svid(), key)
        self._issuer.pushing.identity = self._identity
        self.rebuild()

    def rebuild(self) -> None:
        """Make the context anew: another SVID, or other authorities."""
        # Asked for by the event loop and by the scheduler: the older one must not come last.
        with self._rebuilding:
            if self._identity is not None:
                self._context = server_context(
                    bundle=self._issuer.bundle,
                    peer_check=self._check_path,
                    identity=self._identity,
                    client_optional=True,
                    any_reach=True,
                )

    def _check_path(self, svid: X509Svid) -> None:
        """Whoever names a CA of ours stands below it, by the path that is recorded for it.

        Callers with another CA's SVIDs are answered, with a no (``api/callers``).

        Raises:
            Untrusted: the path is another.
        """
        ca = self._issuer.authorities.issuing_ca(authority_key_id(svid.leaf))
        if ca is None:
            return
        if ca.certificate is None or svid.intermediates != (ca.certificate, *ca.chain):
            raise Untrusted("the SVID names an authority of this issuer that it is not below")

    def authorities_changed(self) -> None:
        """Trust the new authorities at once, and get an SVID of them soon. From any thread."""
        self.rebuild()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._outdated.set)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Renew on this loop."""
        self._loop = loop

    async def outdated(self, seconds: float) -> bool:
        """Wait for so long at most; whether the authorities changed meanwhile."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._outdated.wait(), seconds)
        changed = self._outdated.is_set()
        self._outdated.clear()
        return changed

    def seconds_to_half_life(self, now: datetime) -> float:
        """When to renew."""
        if self._identity is None:
            return 0.0
        svid = self._identity.svid
        half = svid.not_before + (svid.not_after - svid.not_before) / 2
        return max(0.0, (half - now).total_seconds())


class _Uvicorn(uvicorn.Server):
    """Stops at a signal as ``Server.stop`` does, and leaves the rest of the stop to its caller."""

    def __init__(self, config: uvicorn.Config, on_signal: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_signal = on_signal

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_signal()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            # Raised again, they would end the process before anything is closed.
            self._captured_signals.clear()


class _Beside(uvicorn.Server):
    """Stops when it is told to: signals are for the server that it runs beside."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class WebListener:
    """The public documents under a certificate of a Web CA; see ``bundle_endpoint``.

    Raises:
        InvalidSettings: the certificate cannot be used.
    """

    def __init__(self, issuer: Issuer, settings: HttpsWeb) -> None:
        self._settings = settings
        self.certificate = WebCertificate(settings)
        self._server = _Beside(_config(make_public_app(issuer), self.certificate.front()))
        self.address: tuple[str, int] | None = None

    def stop(self) -> None:
        """End ``serving`` soon. From any thread."""
        self._server.should_exit = True

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Listen, and look after the certificate.

        Raises:
            InvalidSettings: the address is not to be had.
        """
        listening = _listen(self._settings.host, self._settings.port, "bundle.https_web")
        self.address = listening.getsockname()[:2]
        _log.info("public documents", host=self.address[0], port=self.address[1])
        tasks = [
            asyncio.create_task(self._server.serve(sockets=[listening])),
            asyncio.create_task(self._keep_looking()),
        ]
        try:
            yield
        finally:
            self.stop()
            tasks[1].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            _cut_connections(self._server)
            listening.close()

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(bundle_endpoint.CHECK_SECONDS)
            try:
                self.certificate.look_again()
            except Exception as error:  # noqa: BLE001 (whatever it was, it must be tried again)
                _log.error("web certificate", reason=str(error), error=type(error).__name__)


class Server:
    """Serves one issuer, on a thread of the caller's choice.

    Raises:
        InvalidSettings: the certificate of ``bundle.https_web`` cannot be used.
    """

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._identity = OwnIdentity(issuer)
        app = make_app(issuer)
        front = front_context(lambda: self._identity.context, client_optional=True)
        hot = HotCrls(
            HotRoutes(app, app.routes), issuer.revocation.crls, int(issuer.config.heartbeat)
        )
        self._server = _Uvicorn(_config(hot, front), self._end_streams)
        https_web = issuer.config.https_web
        self.web = WebListener(issuer, https_web) if https_web else None

    def run(self, *, on_ready: Callable[[str, int], None]) -> None:
        """Serve until ``stop`` or a signal; ``on_ready`` is told the address once it listens."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve(on_ready))

    def stop(self) -> None:
        """End ``run``; open streams are closed. From any thread."""
        self._end_streams()
        self._server.should_exit = True

    def _end_streams(self) -> None:
        self._issuer.feed.close()
        self._issuer.stream_polling.close()
        if self.web is not None:
            self.web.stop()

    async def _serve(self, on_ready: Callable[[str, int], None]) -> None:
        await self._identity.renew()
        self._identity.attach(asyncio.get_running_loop())
        self._issuer.authorities.on_change(self._identity.authorities_changed)
        self._issuer.feed.attach(asyncio.get_running_loop())
        listening = _listen(self._issuer.config.host, self._issuer.config.port, "server")
        scheduler = Scheduler(self._issuer)
        scheduler.start()
        try:
            async with (
                _renewing(self._identity, self._issuer),
                self.web.serving() if self.web else contextlib.nullcontext(),
            ):
                on_ready(*listening.getsockname()[:2])
                await self._server.serve(sockets=[listening])
        finally:
            _cut_connections(self._server)
            await asyncio.sleep(0)  # let the loop see the cuts before it is closed
            scheduler.close()
            listening.close()


def _cut_connections(server: uvicorn.Server) -> None:
    """End what would wait for its peer to say goodbye in TLS."""
    for connection in list(server.server_state.connections):
        if (transport := connection.transport) is not None:
            transport.abort()


def _config(app: ASGIApp, front: ssl.SSLContext) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http=Connection,
        loop="none",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,  # nobody stands between: who calls is known by the certificate
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    config.load()
    config.ssl = front
    return config


@contextlib.asynccontextmanager
async def _renewing(identity: OwnIdentity, issuer: Issuer) -> AsyncIterator[None]:
    async def keep_renewing() -> None:
        while True:
            left = identity.seconds_to_half_life(issuer.clock())
            if left > 0 and not await identity.outdated(min(left, LOOK_AGAIN_SECONDS)):
                continue
            try:
                await identity.renew()
            except Exception as error:  # noqa: BLE001 (whatever it was, it must be tried again)
                _log.error("own SVID not renewed", reason=str(error), error=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)

    task = asyncio.create_task(keep_renewing())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _listen(host: str, port: int, section: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; what is accepted inherits it
        milliseconds = UNREACHABLE_SECONDS * 1000
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise InvalidSettings(
            f"cannot listen on {host}:{port} ({section}.host, {section}.port): {error.strerror}"
        ) from error
    return listening

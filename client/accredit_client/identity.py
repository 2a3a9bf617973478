"""An agent's identity: obtained at the start, renewed for as long as it is open.

``AgentIdentity`` renews in one daemon thread, ``AsyncAgentIdentity`` in one asyncio task. Both run
what ``keeper`` decides, and share everything that does not wait: what is held, how it is doing,
and TLS contexts that follow it.

    with AgentIdentity(
        issuer_url="https://issuer.example.org:8443",
        trust=Trust.from_pin("sha256:…"),
        manifest_file=Path("agent.manifest"),
        code_root=Path("."),
        join_token_file=Path("/run/secrets/join-token"),
    ) as identity:
        identity.fetch_jwt_svid("https://tickets.example.org")

Through an outage the identity goes on as long as its SVID is good, and ``status`` says how late it
is. When the issuer has taken it back, or it is over, the next use says so.
"""

import asyncio
import logging
import os
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from accredit_attestors.contract import Attestor
from accredit_attestors.plugins import load_attestors
from accredit_client import calls
from accredit_client.answers import JwtAnswer, TaskTokenAnswer
from accredit_client.calls import Call, TaskTokenRequest
from accredit_client.effects import (
    AsyncWaiter,
    Clock,
    Draw,
    TaskWaiter,
    ThreadWaiter,
    Waiter,
    system_draw,
    utc_now,
)
from accredit_client.errors import Closed, InvalidFolder, IssuerRefused, IssuerUnreachable, NotReady
from accredit_client.files import FOLDER_VARIABLE
from accredit_client.keeper import (
    Blocking,
    Conversation,
    FolderKeeper,
    IssuerKeeper,
    Keeper,
    Latest,
    Status,
    Talk,
    View,
)
from accredit_client.revocations import (
    MAX_STALENESS,
    SILENCE,
    AsyncRevocationFeed,
    RevocationFeed,
)
from accredit_client.tls import FollowingContext, Peer, following_context, peer_check
from accredit_client.trust import Trust
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.revocation_feed import FeedState
from accredit_credentials.tls import (
    SpiffeContext,
    client_context,
    front_context,
    server_context,
)
from accredit_credentials.x509_svid import X509Identity, X509Svid

if TYPE_CHECKING:
    from accredit_client.transports import AsyncRotatingTransport, RotatingTransport
    from accredit_client.wire import AsyncIssuer, Issuer

_log = logging.getLogger("accredit_client")

A = TypeVar("A")
Attestors = Callable[[], Mapping[str, Attestor]]
OnRenewal = Callable[[X509Identity], None]

DEFAULT_PATIENCE = 30.0  # seconds that a start waits for an issuer that is away


class BaseIdentity:
    """What both kinds of identity share: everything that does not wait.

    Args:
        issuer_url: ``https://host[:port]``.
        trust: where trust starts.
        manifest_file: the signed manifest.
        code_root: the directory that the agent's code runs from.
        join_token_file: a file with a join token, closed to group and others.
        revocations: whether to follow the revocation feed and check every peer against it.
        max_staleness: seconds that what is known of revocation may be old.
        patience: seconds that a start waits for an issuer that is away.
        attestors: the kinds of evidence; the installed ones by default.
        clock: the time.
        draw: for the jitter.
    """

    def __init__(
        self,
        *,
        issuer_url: str,
        trust: Trust,
        manifest_file: Path | str | None = None,
        code_root: Path | str | None = None,
        join_token_file: Path | str | None = None,
        revocations: bool = False,
        max_staleness: float = MAX_STALENESS,
        patience: float = DEFAULT_PATIENCE,
        attestors: Attestors = load_attestors,
        clock: Clock = utc_now,
        draw: Draw = system_draw,
    ) -> None:
        keeper = IssuerKeeper(
            issuer_url=issuer_url,
            trust=trust,
            manifest_file=_path(manifest_file),
            code_root=_path(code_root),
            join_token_file=_path(join_token_file),
            attestors=attestors,
            clock=clock,
            draw=draw,
        )
        self._set_up(
            keeper,
            revocations=revocations,
            max_staleness=max_staleness,
            patience=patience,
            draw=draw,
        )

    @classmethod
    def from_folder(
        cls,
        folder: Path | str,
        *,
        revocations: bool = False,
        max_staleness: float = MAX_STALENESS,
        clock: Clock = utc_now,
        draw: Draw = system_draw,
    ) -> Self:
        """The identity in a folder that ``accredit run`` keeps fresh."""
        identity = cls.__new__(cls)
        identity._set_up(  # noqa: SLF001 (another constructor of the same class)
            FolderKeeper(Path(folder), clock=clock, draw=draw),
            revocations=revocations,
            max_staleness=max_staleness,
            patience=0.0,
            draw=draw,
        )
        return identity

    @classmethod
    def discover(cls, *, revocations: bool = False) -> Self:
        """The identity of the folder that the environment names.

        Raises:
            InvalidFolder: the environment names none.
        """
        folder = os.environ.get(FOLDER_VARIABLE)
        if not folder:
            raise InvalidFolder(
                f"{FOLDER_VARIABLE} must name the folder of an identity",
                hint="start this program with accredit run, or construct the identity",
            )
        return cls.from_folder(folder, revocations=revocations)

    def _set_up(
        self,
        keeper: Keeper,
        *,
        revocations: bool,
        max_staleness: float,
        patience: float,
        draw: Draw,
    ) -> None:
        self._keeper = keeper
        self._revocations = revocations
        self._max_staleness = max_staleness
        self._patience = patience
        self._draw = draw
        self._listeners: list[OnRenewal] = []
        self._facts: FeedState | None = None
        self._closing = False
        self._process: int | None = None
        self._issuer_contexts = Latest(_issuer_context, keeper.issuer_view)
        self._public_contexts = Latest(_issuer_context, lambda: (keeper.trusted(), None))

    @property
    def x509(self) -> X509Identity:
        """The SVID of the moment with its key.

        Raises:
            NotReady, IdentityExpired, IdentityRefused, Closed: it may not be used.
        """
        self._check_open()
        return self._keeper.held().identity

    @property
    def bundle(self) -> TrustBundle:
        """The trust bundle of the moment.

        Raises:
            NotReady, Closed: there is none yet, or no more.
        """
        self._check_open()
        return self._keeper.trusted()

    @property
    def status(self) -> Status:
        """How the identity is doing. Never raises."""
        return self._keeper.status()

    @property
    def facts(self) -> FeedState | None:
        """What is known of revocation; None where the feed is not followed."""
        return self._facts

    def on_renewal(self, callback: OnRenewal) -> None:
        """Call ``callback`` with each new identity, from the thread or task that renews."""
        self._listeners.append(callback)

    def client_context(self, *, peer: Peer) -> FollowingContext:
        """A context for connecting to ``peer``, whose new connections show the newest SVID.

        Raises:
            InvalidPeer: nobody is named.
        """
        return following_context(self._client_contexts(peer))

    def server_context(self, *, peer: Peer, client_optional: bool = False) -> ssl.SSLContext:
        """A context for serving ``peer``, whose new handshakes show the newest SVID.

        Args:
            peer: which clients are accepted.
            client_optional: whether a client may come without a certificate.

        Raises:
            InvalidPeer: nobody is named.
        """
        check = peer_check(peer, also=self._check_facts)

        def make(view: View) -> SpiffeContext:
            bundle, identity = view
            if identity is None:
                raise NotReady("there is no SVID to serve with yet")
            return server_context(
                bundle=bundle,
                peer_check=check,
                identity=identity,
                client_optional=client_optional,
            )

        return front_context(Latest(make, self._last_view), client_optional=client_optional)

    def transport(self, *, peer: Peer) -> "RotatingTransport":
        """A transport for ``httpx2.Client`` that connects to ``peer``.

        Raises:
            InvalidPeer: nobody is named.
        """
        from accredit_client.transports import RotatingTransport  # noqa: PLC0415 (slow to import)

        return RotatingTransport(self._client_contexts(peer))

    def async_transport(self, *, peer: Peer) -> "AsyncRotatingTransport":
        """A transport for ``httpx2.AsyncClient`` that connects to ``peer``.

        Raises:
            InvalidPeer: nobody is named.
        """
        from accredit_client.transports import AsyncRotatingTransport  # noqa: PLC0415 (as above)

        return AsyncRotatingTransport(self._client_contexts(peer))

    def _client_contexts(self, peer: Peer) -> Latest:
        check = peer_check(peer, also=self._check_facts)

        def make(view: View) -> SpiffeContext:
            bundle, identity = view
            return client_context(bundle=bundle, peer_check=check, identity=identity)

        return Latest(make, self._view)

    def _check_facts(self, svid: X509Svid) -> None:
        if self._facts is not None:
            now = self._keeper.clock()
            self._facts.check(svid.marks(), now=now, max_age=self._max_staleness)

    def _view(self) -> View:
        self._check_open()
        held = self._keeper.held()
        return held.bundle, held.identity

    def _last_view(self) -> View:
        held = self._keeper.last_held()
        return held.bundle, held.identity

    def _check_open(self) -> None:
        if self._closing:
            raise Closed("this identity was closed")
        if self._process not in {None, os.getpid()}:
            raise Closed(
                "this identity belongs to the process that this one was forked from",
                hint="make one identity in each process, after the fork",
            )

    def _is_after(self, old: X509Identity) -> bool:
        return self._keeper.last_held().identity is not old

    def _renewed(self, old: X509Identity, timeout: float) -> X509Identity:
        if not self._is_after(old):
            raise NotReady(f"no renewal within {timeout:g} seconds") from self.status.last_error
        return self.x509

    def _tell(self, before: int) -> None:
        """Call the listeners, where there is a new identity since ``before``."""
        if self._keeper.renewals == before:
            return
        identity = self._keeper.last_held().identity
        for listener in tuple(self._listeners):
            try:
                listener(identity)
            except Exception:  # noqa: BLE001 (a listener's fault must not end the renewals)
                _log.exception("a listener for renewals failed")

    def _failed(self, error: Exception) -> None:
        pause = self._keeper.failed(error)
        _log.warning("renewal failed, next try in %.1f seconds: %s", pause, error)

    def _gives_up(self, error: Exception, started: datetime) -> bool:
        """Whether a start that failed should fail for good."""
        passing = isinstance(error, IssuerUnreachable) or (
            isinstance(error, IssuerRefused) and error.for_now
        )
        waited = (self._keeper.clock() - started).total_seconds()
        return not passing or waited >= self._patience


class AgentIdentity(BaseIdentity):
    """An identity that one daemon thread renews; takes the arguments of ``BaseIdentity``.

    A context manager: the thread ends with the block.
    """

    feed: RevocationFeed | None = None
    """The revocation feed that is followed, if it was asked for."""

    _issuer: "Issuer | None" = None
    _thread: threading.Thread | None = None
    _resources: ExitStack

    def start(self, *, waiter: Waiter | None = None) -> Self:
        """Obtain the first SVID and begin to renew.

        Args:
            waiter: how to wait.

        Raises:
            IssuerUnreachable, IssuerUntrusted, IssuerRefused: the issuer was not reached, or no.
            AttestationError: there should be evidence, and it cannot be collected.
            Closed: it was closed.
        """
        self._check_open()
        if self._thread is not None:
            return self
        self._process = os.getpid()
        self._waiter = waiter or ThreadWaiter()
        self._changed = threading.Condition()
        with ExitStack() as undo:
            undo.callback(self._hang_up)
            self._begin()
            if self._revocations:
                self.feed = undo.enter_context(self._follow(undo))
                self._facts = self.feed.state
            self._thread = threading.Thread(target=self._run, name="accredit-identity", daemon=True)
            self._thread.start()
            self._resources = undo.pop_all()
        return self

    def close(self) -> None:
        """Stop renewing and join the thread; a call under way ends first."""
        if self._closing:
            return
        self._closing = True
        if self._thread is None or os.getpid() != self._process:
            return
        self._waiter.wake()
        self._thread.join()
        self._resources.close()

    def wait_until_renewed(
        self, timeout: float, *, after: X509Identity | None = None
    ) -> X509Identity:
        """Wait until another identity is held than ``after``, or than now.

        Raises:
            NotReady: there was none in time.
        """
        old = self.x509 if after is None else after
        with self._changed:
            self._changed.wait_for(lambda: self._is_after(old), timeout)
        return self._renewed(old, timeout)

    def fetch_jwt_svid(self, audience: str | Sequence[str]) -> JwtAnswer:
        """A JWT-SVID, for where mTLS cannot reach.

        Raises:
            IssuerUnreachable, IssuerRefused: the issuer was not reached, or said no.
            NotReady, IdentityExpired, IdentityRefused, Closed: the identity may not be used.
        """
        return self._call(calls.jwt_svid(audience=_audiences(audience)))

    def task_token(self, request: TaskTokenRequest) -> TaskTokenAnswer:
        """A task token; raises as ``fetch_jwt_svid``.

        One that is bound to the certificate is bound to the SVID of this moment.
        """
        return self._call(calls.task_token(request))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, call: Call[A]) -> A:
        self._check_open()
        self._keeper.held()
        return self._dial().send(call)

    def _dial(self) -> "Issuer":
        from accredit_client.wire import Issuer  # noqa: PLC0415 (httpx2 is slow to import)

        if self._issuer is None:
            self._issuer = Issuer(self._keeper.issuer_url, self._issuer_contexts)
        return self._issuer

    def _hang_up(self) -> None:
        issuer, self._issuer = self._issuer, None
        if issuer is not None:
            issuer.close()

    def _follow(self, undo: ExitStack) -> RevocationFeed:
        from accredit_client.wire import Issuer, Timeouts  # noqa: PLC0415 (as above)

        url, timeouts = self._keeper.issuer_url, Timeouts(read=SILENCE)
        issuer = undo.enter_context(Issuer(url, self._public_contexts, timeouts=timeouts))
        return RevocationFeed(
            issuer, self._keeper.trusted, clock=self._keeper.clock, draw=self._draw
        )

    def _begin(self) -> None:
        started = self._keeper.clock()
        while True:
            try:
                self._converse(self._keeper.begin())
            except Exception as error:
                pause = self._keeper.failed(error)
                if self._gives_up(error, started):
                    raise
                self._waiter.wait(pause)
            else:
                return

    def _run(self) -> None:
        while not self._closing:
            now = self._keeper.clock()
            pause = self._keeper.pause(now)
            if pause > 0:
                self._waiter.wait(pause)
                continue
            before = self._keeper.renewals
            try:
                self._converse(self._keeper.step(now))
                self._tell(before)
            except Exception as error:  # noqa: BLE001 (a dead thread would be noticed too late)
                self._failed(error)
            with self._changed:
                self._changed.notify_all()

    def _converse(self, talk: Talk) -> None:
        conversation = Conversation(talk)
        while (wanted := conversation.wanted) is not None:
            try:
                result = wanted.run() if isinstance(wanted, Blocking) else self._dial().send(wanted)
            except Exception as error:  # noqa: BLE001 (the talk decides what it means)
                conversation.failed(error)
            else:
                conversation.answered(result)


class AsyncAgentIdentity(BaseIdentity):
    """An identity that one asyncio task renews; takes the arguments of ``BaseIdentity``.

    An asynchronous context manager: the task ends with the block. Reading files and measuring
    code happens in a worker thread, never in the event loop.
    """

    feed: AsyncRevocationFeed | None = None
    """The revocation feed that is followed, if it was asked for."""

    _issuer: "AsyncIssuer | None" = None
    _task: asyncio.Task[None] | None = None
    _resources: AsyncExitStack

    async def start(self, *, waiter: AsyncWaiter | None = None) -> Self:
        """Obtain the first SVID and begin to renew; raises as ``AgentIdentity.start``."""
        self._check_open()
        if self._task is not None:
            return self
        self._process = os.getpid()
        self._waiter = waiter or TaskWaiter()
        self._changed = asyncio.Condition()
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._hang_up)
            await self._begin()
            if self._revocations:
                self.feed = await undo.enter_async_context(await self._follow(undo))
                self._facts = self.feed.state
            self._task = asyncio.create_task(self._run(), name="accredit-identity")
            self._resources = undo.pop_all()
        return self

    async def aclose(self) -> None:
        """Stop renewing and await the task's end."""
        if self._closing:
            return
        self._closing = True
        if self._task is None:
            return
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._resources.aclose()

    async def wait_until_renewed(
        self,
        timeout: float,  # noqa: ASYNC109 (as in the threaded twin)
        *,
        after: X509Identity | None = None,
    ) -> X509Identity:
        """Wait until another identity is held than ``after``, or than now.

        Raises:
            NotReady: there was none in time.
        """
        old = self.x509 if after is None else after
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: self._is_after(old))
        return self._renewed(old, timeout)

    async def fetch_jwt_svid(self, audience: str | Sequence[str]) -> JwtAnswer:
        """A JWT-SVID, for where mTLS cannot reach; raises as ``AgentIdentity.fetch_jwt_svid``."""
        return await self._call(calls.jwt_svid(audience=_audiences(audience)))

    async def task_token(self, request: TaskTokenRequest) -> TaskTokenAnswer:
        """A task token; raises as ``fetch_jwt_svid``."""
        return await self._call(calls.task_token(request))

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _call(self, call: Call[A]) -> A:
        self._check_open()
        self._keeper.held()
        return await self._dial().send(call)

    def _dial(self) -> "AsyncIssuer":
        from accredit_client.wire import AsyncIssuer  # noqa: PLC0415 (httpx2 is slow to import)

        if self._issuer is None:
            self._issuer = AsyncIssuer(self._keeper.issuer_url, self._issuer_contexts)
        return self._issuer

    async def _hang_up(self) -> None:
        issuer, self._issuer = self._issuer, None
        if issuer is not None:
            await issuer.aclose()

    async def _follow(self, undo: AsyncExitStack) -> AsyncRevocationFeed:
        from accredit_client.wire import AsyncIssuer, Timeouts  # noqa: PLC0415 (as above)

        url, timeouts = self._keeper.issuer_url, Timeouts(read=SILENCE)
        issuer = AsyncIssuer(url, self._public_contexts, timeouts=timeouts)
        await undo.enter_async_context(issuer)
        return AsyncRevocationFeed(
            issuer, self._keeper.trusted, clock=self._keeper.clock, draw=self._draw
        )

    async def _begin(self) -> None:
        started = self._keeper.clock()
        while True:
            try:
                await self._converse(self._keeper.begin())
            except Exception as error:
                pause = self._keeper.failed(error)
                if self._gives_up(error, started):
                    raise
                await self._waiter.wait(pause)
            else:
                return

    async def _run(self) -> None:
        while True:
            now = self._keeper.clock()
            pause = self._keeper.pause(now)
            if pause > 0:
                await self._waiter.wait(pause)
                continue
            before = self._keeper.renewals
            try:
                await self._converse(self._keeper.step(now))
                self._tell(before)
            except Exception as error:  # noqa: BLE001 (a dead task would be noticed too late)
                self._failed(error)
            async with self._changed:
                self._changed.notify_all()

    async def _converse(self, talk: Talk) -> None:
        conversation = Conversation(talk)
        while (wanted := conversation.wanted) is not None:
            try:
                if isinstance(wanted, Blocking):
                    result = await asyncio.to_thread(wanted.run)
                else:
                    result = await self._dial().send(wanted)
            except Exception as error:  # noqa: BLE001 (the talk decides what it means)
                conversation.failed(error)
            else:
                conversation.answered(result)


def _issuer_context(view: View) -> SpiffeContext:
    from accredit_client.wire import issuer_context  # noqa: PLC0415 (httpx2 is slow to import)

    bundle, identity = view
    return issuer_context(bundle, identity)


def _audiences(audience: str | Sequence[str]) -> tuple[str, ...]:
    return (audience,) if isinstance(audience, str) else tuple(audience)


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)

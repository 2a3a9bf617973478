"""What the threaded and the asynchronous identity share: everything that does not wait.

Reads the arguments, gives what is held, says how it is doing, and makes TLS contexts that follow
it. When something is due, ``keeper`` says; doing it is ``identity``'s and ``async_identity``'s.
"""

import logging
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from accredit_attestors.contract import Attestor
from accredit_attestors.plugins import load_attestors
from accredit_client.effects import Clock, Draw, system_draw, utc_now
from accredit_client.errors import Closed, InvalidFolder, IssuerRefused, IssuerUnreachable, NotReady
from accredit_client.files import FOLDER_VARIABLE
from accredit_client.keeper import FolderKeeper, IssuerKeeper, Keeper, Latest, Status, View
from accredit_client.revocations import MAX_STALENESS
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

_log = logging.getLogger("accredit_client")

Attestors = Callable[[], Mapping[str, Attestor]]
OnRenewal = Callable[[X509Identity], None]

DEFAULT_PATIENCE = 30.0  # seconds that a start waits for an issuer that is away
REFETCH_TIMEOUT = 5.0  # seconds that somebody waits for a bundle that may have a missing key


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


def _issuer_context(view: View) -> SpiffeContext:
    from accredit_client.wire import issuer_context  # noqa: PLC0415 (httpx2 is slow to import)

    bundle, identity = view
    return issuer_context(bundle, identity)


def audiences_of(audience: str | Sequence[str]) -> tuple[str, ...]:
    """One audience, or several, as a tuple."""
    return (audience,) if isinstance(audience, str) else tuple(audience)


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)

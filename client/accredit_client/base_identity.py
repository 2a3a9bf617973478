"""What the threaded and the asynchronous identity share: everything that does not wait.

Reads the arguments, gives what is held, says how it is doing, and makes TLS contexts that follow
it. When something is due, ``keeper`` says; doing it is ``identity``'s and ``async_identity``'s.
"""

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from accredit_attestors.contract import Attestor
from accredit_attestors.plugins import load_attestors
from accredit_client.effects import Clock, Draw, system_draw, utc_now
from accredit_client.errors import (
    ClientError,
    Closed,
    IdentityRefused,
    InvalidEndpoint,
    InvalidFolder,
    IssuerRefused,
    IssuerUnreachable,
    NotReady,
)
from accredit_client.federation import Federation
from accredit_client.files import FOLDER_VARIABLE, PRIVATE, Access
from accredit_client.folder_keeper import FolderKeeper
from accredit_client.issuer_keeper import IssuerKeeper
from accredit_client.keeper import Held, Keeper, Status
from accredit_client.revocations import MAX_STALENESS
from accredit_client.tls import (
    NO_MAP,
    NOBODY,
    FollowingContext,
    Latest,
    Peer,
    View,
    following_context,
    peer_check,
)
from accredit_client.trust import Trust
from accredit_client.workload import endpoint
from accredit_client.workload.endpoint import SOCKET_VARIABLE
from accredit_client.workload.keeper import DaemonKeeper
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import Revoked, Untrusted
from accredit_credentials.revocation_feed import FeedState
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain
from accredit_credentials.tls import (
    Federated,
    SpiffeContext,
    client_context,
    front_context,
    server_context,
)
from accredit_credentials.x509_svid import X509Identity, X509Svid

if TYPE_CHECKING:
    from accredit_client.transports import AsyncRotatingTransport, RotatingTransport
    from accredit_client.workload.line import Pause

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
        folder: where ``files.write_folder`` keeps this identity: what an earlier process left
            there is taken up at the start, over or not, without a join token.
        folder_access: who may read that folder besides its owner.
        revocations: whether to follow the revocation feed and check every peer against it.
        max_staleness: seconds that what is known of revocation may be old.
        federation: whether agents of federated trust domains are known at all; who of them may do
            what, the issuer's relationships say.
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
        folder: Path | str | None = None,
        folder_access: Access = PRIVATE,
        revocations: bool = False,
        max_staleness: float = MAX_STALENESS,
        federation: bool = False,
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
            folder=_path(folder),
            folder_access=folder_access,
            attestors=attestors,
            clock=clock,
            draw=draw,
        )
        self._set_up(
            keeper,
            revocations=revocations,
            max_staleness=max_staleness,
            federation=federation,
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
        federation: bool = False,
        clock: Clock = utc_now,
        draw: Draw = system_draw,
    ) -> Self:
        """The identity in a folder that ``accredit run`` keeps fresh."""
        identity = cls.__new__(cls)
        identity._set_up(  # noqa: SLF001 (another constructor of the same class)
            FolderKeeper(Path(folder), clock=clock, draw=draw),
            revocations=revocations,
            max_staleness=max_staleness,
            federation=federation,
            patience=0.0,
            draw=draw,
        )
        return identity

    @classmethod
    def from_daemon(
        cls,
        socket: Path | str | None = None,
        *,
        spiffe_id: SpiffeId | str | None = None,
        issuer_url: str | None = None,
        revocations: bool = False,
        max_staleness: float = MAX_STALENESS,
        federation: bool = False,
        patience: float = DEFAULT_PATIENCE,
        clock: Clock = utc_now,
        draw: Draw = system_draw,
        pause: "Pause" = asyncio.sleep,
    ) -> Self:
        """The identity that this host's node daemon gives to this process.

        Args:
            socket: a path, or an address as ``unix:///run/accredit/agent.sock``; by default what
                ``SPIFFE_ENDPOINT_SOCKET`` says.
            spiffe_id: which identity, where the process has several; the default one otherwise.
            issuer_url: where the issuer is, too: its signed feed is followed then, and its word on
                what federated agents may do. Without, revocation is known by the daemon's CRLs,
                and federated agents may be connected to, but are let in nowhere.
            revocations: whether every peer is checked, and refused where nothing is known.
            max_staleness: seconds that what is known may be old; that the daemon may be away.
            federation: whether agents of federated trust domains are known at all.
            patience: seconds that a start waits for a daemon that is away.
            clock: the time.
            draw: for the jitter.
            pause: how the daemon is waited for between two tries.

        Raises:
            InvalidEndpoint: no address, or none that can be used.
            InvalidSpiffeId: ``spiffe_id`` is none.
            MissingExtra: ``accredit[daemon]`` is not installed.
        """
        identity = cls.__new__(cls)
        named = None if spiffe_id is None else SpiffeId.parse(str(spiffe_id))
        keeper = DaemonKeeper(
            _socket(socket),
            spiffe_id=named,
            issuer_url=issuer_url,
            clock=clock,
            draw=draw,
            pause=pause,
        )
        identity._set_up(  # noqa: SLF001 (another constructor of the same class)
            keeper,
            revocations=revocations,
            max_staleness=max_staleness,
            federation=federation,
            patience=patience,
            draw=draw,
        )
        return identity

    @classmethod
    def discover(
        cls,
        *,
        revocations: bool = False,
        federation: bool = False,
        issuer_url: str | None = None,
    ) -> Self:
        """The identity that the environment names: a folder's, or else the node daemon's.

        Args:
            revocations: as everywhere.
            federation: as everywhere.
            issuer_url: for one of the daemon's, as in ``from_daemon``; a folder says it itself.

        Raises:
            InvalidFolder: the environment names none.
            InvalidEndpoint, MissingExtra: as ``from_daemon``.
        """
        folder = os.environ.get(FOLDER_VARIABLE)
        if folder:
            return cls.from_folder(folder, revocations=revocations, federation=federation)
        if os.environ.get(SOCKET_VARIABLE):
            return cls.from_daemon(
                issuer_url=issuer_url, revocations=revocations, federation=federation
            )
        raise InvalidFolder(
            f"{FOLDER_VARIABLE} must name the folder of an identity, "
            f"or {SOCKET_VARIABLE} the node daemon's socket",
            hint="start this program with accredit run, or construct the identity",
        )

    def _set_up(
        self,
        keeper: Keeper,
        *,
        revocations: bool,
        max_staleness: float,
        federation: bool,
        patience: float,
        draw: Draw,
    ) -> None:
        self._keeper = keeper
        if federation:
            keeper.federation = Federation(keeper.clock)
        self._revocations = revocations
        self._max_staleness = max_staleness
        self._patience = patience
        self._draw = draw
        self._daemon = keeper if isinstance(keeper, DaemonKeeper) else None
        self._listeners: list[OnRenewal] = []
        self._facts: FeedState | None = None
        self._closing = False
        self._process: int | None = None
        self._issuer_contexts = Latest(
            self._issuer_context, lambda: self._knowing(keeper.issuer_view())
        )
        self._public_contexts = Latest(
            self._issuer_context, lambda: self._knowing(View(keeper.trusted(), None))
        )
        self._confirming_contexts = Latest(
            self._issuer_context, lambda: self._knowing(self._named_if_possible())
        )

    @property
    def x509(self) -> X509Identity:
        """The SVID of the moment with its key.

        Raises:
            NotReady, IdentityExpired, IdentityRefused, Closed: it may not be used.
        """
        self._check_open()
        return self._own().identity

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

    @property
    def pushed_crls(self) -> tuple[bytes, ...] | None:
        """The CRLs (DER) that the node daemon sent with what is held; None without a daemon."""
        return None if self._daemon is None else self._daemon.crls

    @property
    def federation(self) -> Federation | None:
        """What is known of other trust domains; None where nobody asked for it."""
        return self._keeper.federation

    def now(self) -> datetime:
        """The time, by this identity's clock."""
        return self._keeper.clock()

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
        check = peer_check(peer, also=self.check_client)

        def make(view: View) -> SpiffeContext:
            if view.identity is None:
                raise NotReady("there is no SVID to serve with yet")
            return server_context(
                bundle=view.bundle,
                peer_check=check,
                identity=view.identity,
                client_optional=client_optional,
                federated=self._federated(view),
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
            return client_context(
                bundle=view.bundle,
                peer_check=check,
                identity=view.identity,
                federated=self._federated(view),
            )

        return Latest(make, self._view)

    def bundle_of(self, trust_domain: TrustDomain) -> TrustBundle:
        """The bundle of our own trust domain, or of a federated one.

        Raises:
            Untrusted, Stale: nothing is known of the trust domain, or not any more.
        """
        bundle = self._keeper.trusted()
        if trust_domain == bundle.trust_domain:
            return bundle
        if self.federation is None:
            raise Untrusted(f"no authorities known for the trust domain {trust_domain}")
        return self.federation.bundle(trust_domain)

    def check_client(self, svid: X509Svid) -> None:
        """Decide whether a client that was verified may be talked to.

        Raises:
            Revoked, Stale: its own domain has taken it back, or nobody knows.
            Untrusted: it is of another trust domain, and nothing is allowed to it.
        """
        self._check_facts(svid)
        ours = svid.spiffe_id.trust_domain == self._keeper.trusted().trust_domain
        if not ours and self.federation is not None:
            self.federation.check_agent(svid.spiffe_id, self._keeper.clock())

    def _check_facts(self, svid: X509Svid) -> None:
        """Whether the peer's own trust domain has taken its SVID back, as far as it is asked."""
        trust_domain, now = svid.spiffe_id.trust_domain, self._keeper.clock()
        if trust_domain == self._keeper.trusted().trust_domain:
            if self._facts is not None:
                self._facts.check(svid.marks(), now=now, max_age=self._max_staleness)
            alone = self._revocations and not self._keeper.has_issuer
            self._keeper.check_lists(svid, max_age=self._max_staleness if alone else None)
        elif self.federation is None:
            raise Untrusted(f"no authorities known for {trust_domain}")
        else:
            # Their facts for their SVIDs: ours speak of agents of the same names in our domain.
            domain = self.federation.domain(trust_domain, now)
            self.federation.check_facts(domain, svid.marks(), now=now, max_age=self._max_staleness)

    def _view(self) -> View:
        self._check_open()
        return self._view_of(self._own())

    def _own(self) -> Held:
        """What is held, unless our own trust domain has taken it back: at the word, not at renewal.

        What is known counts, however old: a peer that knows more says no itself. A suspension that
        is ended is over here, too.
        """
        held = self._keeper.held()
        if self._facts is not None:
            try:
                self._facts.check_known(held.identity.svid.marks())
            except Revoked as error:
                raise IdentityRefused(f"this identity was taken back: {error}") from error
        return held

    def _last_view(self) -> View:
        return self._view_of(self._keeper.last_held())

    def _view_of(self, held: Held) -> View:
        federation = self.federation
        known = NO_MAP if federation is None else federation.map
        return self._knowing(View(held.bundle, held.identity, known))

    def _federated(self, view: View) -> Federated | None:
        if not view.federated.domains:
            return None
        return Federated(view.federated.bundles, self._keeper.clock)

    @contextmanager
    def _logged(self, trust_domain: TrustDomain) -> Iterator[None]:
        """A feed that cannot be followed stays away: its domain is refused, the others go on."""
        try:
            yield
        except ClientError as error:
            _log.warning("the feed of %s cannot be followed: %s", trust_domain, error)

    def _foreign_bundle(self, trust_domain: TrustDomain) -> Callable[[], TrustBundle]:
        federation = self.federation
        if federation is None:
            raise NotReady("this identity knows of no federation")
        return lambda: federation.bundle(trust_domain)

    def _foreign_contexts(self, trust_domain: TrustDomain) -> Latest:
        """Contexts that talk to the issuer of a federated trust domain, as nobody."""
        bundle = self._foreign_bundle(trust_domain)

        def make(view: View) -> SpiffeContext:
            from accredit_client.wire import issuer_context  # noqa: PLC0415 (slow to import)

            def check(svid: X509Svid) -> None:
                state = self._foreign_feed(trust_domain)
                if state is not None:
                    state.check_known(svid.marks())
                met.update(svid.marks())

            met: set[str] = set()
            context = issuer_context(view.bundle, also=check, foreign=True)
            context.refused, context.met = view.refused, met
            return context

        def view() -> View:
            state = self._foreign_feed(trust_domain)
            refused = NOBODY if state is None else state.authorities
            return View(bundle(), None, refused=refused)

        return Latest(make, view)

    def _foreign_feed(self, trust_domain: TrustDomain) -> FeedState | None:
        return None if self.federation is None else self.federation.feed_of(trust_domain)

    def _named_if_possible(self) -> View:
        """What to meet the issuer with where being known is not needed."""
        try:
            return self._keeper.issuer_view()
        except ClientError:
            return View(self._keeper.trusted(), None)

    def _knowing(self, view: View) -> View:
        return view if self._facts is None else view._replace(refused=self._facts.authorities)

    def _issuer_context(self, view: View) -> SpiffeContext:
        from accredit_client.wire import (  # noqa: PLC0415 (httpx2 is slow to import)
            check_issuer_reach,
            issuer_context,
        )

        def check(svid: X509Svid) -> None:
            # Whatever is shown: whoever issued what is held is the issuer, until it is over too.
            if (holder := self._keeper.holder) is not None:
                check_issuer_reach(svid, holder)
            # What is known counts, however old: the issuer is who would tell of newer facts.
            if self._facts is not None:
                self._facts.check_known(svid.marks())
            met.update(svid.marks())

        met: set[str] = set()
        context = issuer_context(view.bundle, view.identity, also=check)
        context.refused, context.met = view.refused, met
        return context

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

    def _begin_failed(self, error: Exception, started: datetime) -> float:
        """Seconds until a start that failed is tried again.

        Raises:
            Exception: the very error, where waiting does not help or has gone on for long enough.
        """
        pause = self._keeper.failed(error)
        if self._gives_up(error, started):
            raise error
        _log.warning("no identity yet, next try in %.1f seconds: %s", pause, error)
        return pause

    def _gives_up(self, error: Exception, started: datetime) -> bool:
        passing = isinstance(error, IssuerUnreachable) or (
            isinstance(error, IssuerRefused) and error.for_now
        )
        waited = (self._keeper.clock() - started).total_seconds()
        return not passing or waited >= self._patience


def audiences_of(audience: str | Sequence[str]) -> tuple[str, ...]:
    """One audience, or several, as a tuple."""
    return (audience,) if isinstance(audience, str) else tuple(audience)


def _socket(socket: Path | str | None) -> Path:
    """Where the daemon is: a path, an address, or what the environment says."""
    if isinstance(socket, Path):
        return endpoint.absolute(socket)
    if socket is not None:
        return endpoint.path_of(socket)
    address = os.environ.get(SOCKET_VARIABLE)
    if not address:
        raise InvalidEndpoint(f"{SOCKET_VARIABLE} must name the node daemon's socket")
    return endpoint.parse(address)


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)

"""TLS contexts that follow an identity, and the peers that they talk to.

A context is never changed once made (``accredit_credentials.tls``): a new SVID, a new bundle or a
dropped authority makes a new one (``Latest``). What an application holds is therefore a stand-in
that hands each new connection to the context that is current then: ``following_context`` for
clients, the front context of ``accredit_credentials.tls`` for servers.

Who the peer may be is always said: an ID, several, ``members_of`` a trust domain, or a predicate.
Nobody named means ``InvalidPeer``. Whoever it is must be of the bundle's own trust domain, or of a
federated one where the identity was told of federation.

A connection that exists keeps the certificate it was made with. ``wire`` and ``transports`` leave
such connections alone once the context has moved on; other pools must be told to (see
``following_context``).
"""

import ssl
import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from accredit_client.errors import InvalidPeer
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.bundle_map import BundleMap
from accredit_credentials.errors import InvalidSpiffeId, Untrusted
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain
from accredit_credentials.tls import PeerCheck, SpiffeContext
from accredit_credentials.x509_svid import X509Identity, X509Svid

NO_MAP = BundleMap()

Predicate = Callable[[SpiffeId], bool]
Peer = str | SpiffeId | Iterable[str | SpiffeId] | Predicate
"""Whom to talk to."""


NOBODY: frozenset[str] = frozenset()


class View(NamedTuple):
    """What a TLS context is made from."""

    bundle: TrustBundle
    identity: X509Identity | None
    federated: BundleMap = NO_MAP
    refused: frozenset[str] = NOBODY


class Latest:
    """The context made from what is held now; made again whenever that changes."""

    def __init__(self, make: Callable[[View], SpiffeContext], view: Callable[[], View]) -> None:
        self._make = make
        self._view = view
        self._lock = threading.Lock()
        self._made: tuple[View, SpiffeContext] | None = None

    def __call__(self) -> SpiffeContext:
        """The context of this moment."""
        view = self._view()
        with self._lock:
            made = self._made
            # By identity: equal certificates would take longer to compare than to look up.
            if made is None or any(old is not new for old, new in zip(made[0], view, strict=True)):
                made = self._made = (view, self._make(view))
            return made[1]


def members_of(*trust_domains: TrustDomain | str) -> Predicate:
    """Any holder of an SVID of one of these trust domains.

    Raises:
        InvalidPeer: none is named.
    """
    if not trust_domains:
        raise InvalidPeer("members_of must name a trust domain")
    domains = frozenset(
        each if isinstance(each, TrustDomain) else TrustDomain.parse(each) for each in trust_domains
    )
    return lambda spiffe_id: spiffe_id.trust_domain in domains


def predicate_of(peer: Peer) -> Predicate:
    """Read whom to talk to.

    Raises:
        InvalidPeer: nobody is named, or not by a SPIFFE ID.
    """
    if callable(peer):
        return peer
    named = [peer] if isinstance(peer, str | SpiffeId) else list(peer)
    if not named:
        raise InvalidPeer("peer must name whom to talk to; an empty list talks to nobody")
    try:
        accepted = frozenset(SpiffeId.parse(str(one)) for one in named)
    except InvalidSpiffeId as error:
        raise InvalidPeer(
            f"peer: {error}", hint="for a whole trust domain say members_of(trust_domain)"
        ) from error
    return accepted.__contains__


def peer_check(peer: Peer, *, also: PeerCheck | None = None) -> PeerCheck:
    """Decide about the peer of a handshake: its ID, and whatever ``also`` says.

    Raises:
        InvalidPeer: nobody is named.
    """
    accepts = predicate_of(peer)

    def check(svid: X509Svid) -> None:
        if not accepts(svid.spiffe_id):
            raise Untrusted(f"{svid.spiffe_id} is not one that we talk to")
        if also is not None:
            also(svid)

    return check


class FollowingContext(SpiffeContext):
    """A client context that makes each connection with the context that is current then.

    It holds no authority itself: a library that finds a way around ``wrap_socket`` and
    ``wrap_bio`` trusts nobody.
    """

    current: Callable[[], SpiffeContext]
    _alpn: list[str] | None = None

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Remember the protocols for the connections to come."""
        self._alpn = list(alpn_protocols)

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """Make a connection on a socket."""
        return self._now().wrap_socket(*args, **kwargs)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Make a connection on memory buffers, as asyncio does."""
        return self._now().wrap_bio(*args, **kwargs)

    def _now(self) -> SpiffeContext:
        context = self.current()
        if self._alpn is not None:
            context.set_alpn_protocols(self._alpn)
        return context


def following_context(current: Callable[[], SpiffeContext]) -> FollowingContext:
    """A client context for any library that takes an ``ssl.SSLContext``.

    A connection pool may keep a connection, with its old certificate, for as long as it likes: set
    its idle time well below half an SVID's life (httpx: 5 s by default), or use ``transports``,
    which retires connections as soon as the identity was renewed.
    """
    context = FollowingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.current = current
    return context

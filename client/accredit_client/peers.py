"""Clients' certificates: verified once for each bundle, asked about at each request.

A connection outlives its handshake. Whether the SVID is over by now, or of an authority that was
dropped since, is decided with the time and the bundle of the request. Facts are the caller's.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from accredit_credentials import x509_svid
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.spiffe_id import TrustDomain
from accredit_credentials.x509_svid import X509Svid

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Peer:
    """A client's SVID, what facts can match it, and the bundle that it was verified with.

    ``bundle`` is None where its chain is not known, and the handshake's word stands.
    """

    svid: X509Svid
    marks: tuple[str, ...]
    bundle: TrustBundle | None


class Peers:
    """The certificates that came. Safe to share between threads."""

    def __init__(self, size: int) -> None:
        self._known: Bounded[bytes, Peer] = Bounded(size)

    def look(
        self,
        certificate: bytes,
        chain: tuple[bytes, ...] | None,
        *,
        bundle_of: Callable[[TrustDomain], TrustBundle],
        now: datetime,
    ) -> Peer:
        """Decide whether its own trust domain vouches for a certificate now.

        Args:
            certificate: the leaf, in DER.
            chain: what the client sent, leaf first; None where that is not known.
            bundle_of: the bundle of a trust domain, or ``Untrusted``.
            now: the time.

        Raises:
            InvalidCertificate: it is not an SVID.
            Untrusted: no authority of its domain's bundle vouches for it.
            Expired: its time is over, or not yet come.
        """
        peer = self._known.get(certificate)
        # The leaf says whose bundle decides; that it is of that domain is what is verified then.
        svid = x509_svid.parse_der(certificate) if peer is None else peer.svid
        bundle = bundle_of(svid.spiffe_id.trust_domain) if chain is not None else None
        if peer is None or peer.bundle is not bundle:
            if chain is not None and bundle is not None:
                svid = x509_svid.parse_der(certificate, chain[1:])
                x509_svid.validate(svid, bundles={bundle.trust_domain: bundle}, now=now)
            peer = Peer(svid, svid.marks(), bundle)
            self._known.put(certificate, peer)
        x509_svid.check_time(peer.svid, now=now)
        return peer


class Bounded(Generic[K, V]):
    """A dictionary that forgets its oldest entry when it is full. Reading takes no lock."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: dict[K, V] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        """What is remembered."""
        return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        """Remember, and forget the oldest for it."""
        if self._size <= 0:
            return
        with self._lock:
            self._values.pop(key, None)
            while len(self._values) >= self._size:
                del self._values[next(iter(self._values))]
            self._values[key] = value

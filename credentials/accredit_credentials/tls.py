"""TLS between holders of SVIDs: ``ssl.SSLContext`` objects that decide by SPIFFE ID.

OpenSSL checks the chain against one trust domain's authorities, strictly as RFC 5280 says; the
peer's SVID must then be of that trust domain, and ``PeerCheck`` decides about it, inside the
handshake, for sockets and for asyncio alike: no byte is read or written before. A context is never
changed once made: renewal, a new bundle or a dropped authority means a new context. Servers that
must not restart hand out a *front* context (``front_context``) that picks the newest at each
handshake.

TLS 1.3 only, no session tickets given and no resumed session taken: it would skip every check and
come back as who its holder once was.

The one place in this package that touches the operating system: Python's OpenSSL takes a private
key from a file only, so an anonymous memory file holds it for the length of one call.
"""

import os
import ssl
from collections.abc import Callable
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cryptography import x509

from accredit_credentials.errors import CredentialError, Untrusted
from accredit_credentials.reach import check_reach
from accredit_credentials.spiffe_id import issuer_id
from accredit_credentials.x509_svid import X509Identity, X509Svid, parse_der

if TYPE_CHECKING:
    from collections.abc import Iterator

    from accredit_credentials.bundle import TrustBundle
    from accredit_credentials.spiffe_id import TrustDomain

PeerCheck = Callable[[X509Svid], None]
"""Raises ``CredentialError`` where the peer is not one that we talk to."""


class SpiffeContext(ssl.SSLContext):
    """A context that decides about the peer's SVID at the end of the handshake."""

    trust_domain: "TrustDomain | None" = None
    peer_check: PeerCheck | None = None
    peer_optional: bool = False
    any_reach: bool = False
    """Whether CAs that are limited to namespaces may speak for anybody: for an issuer, which then
    takes only what it signed itself."""

    def verify_peer(self, der: bytes | None, authorities: tuple[bytes, ...] = ()) -> None:
        """Decide about the peer's certificate; None is a peer without one.

        ``authorities`` are those above it, as OpenSSL verified them.

        Raises:
            ssl.SSLCertVerificationError: the peer is refused; the message says why.
        """
        try:
            if der is None:
                if not self.peer_optional:
                    raise Untrusted("peer has no certificate")
            elif self.peer_check is not None:
                svid = parse_der(der)
                self._check_svid(svid, self.peer_check)
                if not self.any_reach and svid.spiffe_id != issuer_id(svid.spiffe_id.trust_domain):
                    check_reach(svid.spiffe_id, [_certificate(each) for each in authorities])
        except CredentialError as error:
            raise ssl.SSLCertVerificationError(f"peer refused: {error}") from error

    def _check_svid(self, svid: X509Svid, peer_check: PeerCheck) -> None:
        # The authorities of one trust domain never speak for another (SPIFFE Federation §4.2).
        if svid.spiffe_id.trust_domain != self.trust_domain:
            raise Untrusted(f"{svid.spiffe_id} is not of the trust domain {self.trust_domain}")
        peer_check(svid)


# OpenSSL shakes hands by itself in the first read or write of a connection that did not before
# (``do_handshake_on_connect=False``): each of them goes through the check first.


class _Socket(ssl.SSLSocket):
    _peer_verified = False

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        _verify(self)
        self._peer_verified = True

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 (ssl's own name)
        if not self._peer_verified:
            self.do_handshake()
        return super().read(len, buffer)

    def write(self, data: Any) -> int:
        if not self._peer_verified:
            self.do_handshake()
        return super().write(data)

    def send(self, data: Any, flags: int = 0) -> int:
        if not self._peer_verified:
            self.do_handshake()
        return super().send(data, flags)


class _Object(ssl.SSLObject):
    _peer_verified = False

    def do_handshake(self) -> None:
        super().do_handshake()
        _verify(self)
        self._peer_verified = True

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 (ssl's own name)
        if not self._peer_verified:
            self.do_handshake()
        return super().read(len, buffer)

    def write(self, data: Any) -> int:
        if not self._peer_verified:
            self.do_handshake()
        return super().write(data)


SpiffeContext.sslsocket_class = _Socket
SpiffeContext.sslobject_class = _Object


def client_context(
    *, bundle: "TrustBundle", peer_check: PeerCheck, identity: X509Identity | None = None
) -> SpiffeContext:
    """A context for connecting to holders of SVIDs of ``bundle``'s trust domain.

    Host names are not compared: the peer's SPIFFE ID is, by ``peer_check``.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, bundle, peer_check)
    if identity is not None:
        load_identity(context, identity)
    return context


def server_context(
    *,
    bundle: "TrustBundle",
    peer_check: PeerCheck,
    identity: X509Identity,
    client_optional: bool = False,
    any_reach: bool = False,
) -> SpiffeContext:
    """A context for serving with an SVID; clients show theirs, or may where optional."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, bundle, peer_check)
    context.any_reach = any_reach
    context.peer_optional = client_optional
    if client_optional:
        context.verify_mode = ssl.CERT_OPTIONAL
    load_identity(context, identity)
    return context


def front_context(
    current: Callable[[], ssl.SSLContext], *, client_optional: bool = False
) -> SpiffeContext:
    """A server context that hands each handshake to the context that is current then.

    The callback fires with and without SNI, and switches certificate and trust alike. Whether a
    client certificate is asked for stays with the front: OpenSSL reads that only once.
    """
    front = SpiffeContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(front)
    front.verify_mode = ssl.CERT_OPTIONAL if client_optional else ssl.CERT_REQUIRED

    def switch(sock: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _old: Any) -> None:
        sock.context = current()

    front.sni_callback = switch
    return front


def load_identity(context: ssl.SSLContext, identity: X509Identity) -> None:
    """Give a context its own certificate chain and key, without a file on any disk."""
    with _memory_file(identity.svid.pem.encode() + identity.key_pem) as path:
        context.load_cert_chain(path)


def _context(protocol: int, bundle: "TrustBundle", peer_check: PeerCheck) -> SpiffeContext:
    if not bundle.x509_authorities:
        raise Untrusted(f"no X.509 authorities known for {bundle.trust_domain}")
    context = SpiffeContext(protocol)
    _harden(context)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=bundle.x509_pem)
    context.trust_domain = bundle.trust_domain
    context.peer_check = peer_check
    return context


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET
    # Strict asks each certificate for its authority's key identifier, which facts about an
    # authority are matched by. Each authority of the bundle is an anchor, self-signed or not.
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    if context.protocol is ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0


def _verify(connection: ssl.SSLSocket | ssl.SSLObject) -> None:
    context = connection.context
    if not isinstance(context, SpiffeContext):
        raise ssl.SSLCertVerificationError("connection left the contexts that check SPIFFE IDs")
    if connection.session_reused:
        raise ssl.SSLCertVerificationError("peer refused: a resumed session proves nothing now")
    context.verify_peer(connection.getpeercert(binary_form=True), _authorities_of(connection))


def _authorities_of(connection: ssl.SSLSocket | ssl.SSLObject) -> tuple[bytes, ...]:
    """The CAs of the path that OpenSSL found, DER; it is public from Python 3.13 on."""
    chain = connection._sslobj.get_verified_chain() or ()  # type: ignore[union-attr]  # noqa: SLF001
    return tuple(ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in chain[1:])


@lru_cache(maxsize=64)  # many peers, few CAs
def _certificate(der: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(der)


@contextmanager
def _memory_file(content: bytes) -> "Iterator[str]":
    descriptor = os.memfd_create("accredit", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)

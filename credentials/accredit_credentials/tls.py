"""TLS between holders of SVIDs: ``ssl.SSLContext`` objects that decide by SPIFFE ID.

OpenSSL checks the chain against one trust domain's authorities, strictly as RFC 5280 says; the
peer's SVID must then be of that trust domain, and ``PeerCheck`` decides about it, inside the
handshake, for sockets and for asyncio alike: no byte is read or written before. A context is never
changed once made: renewal, a new bundle or a dropped authority means a new context. Servers that
must not restart hand out a *front* context (``front_context``) that picks the newest at each
handshake.

A context may know other trust domains too (``Federated``). OpenSSL has one store for all
authorities: it lets in who any of them vouches for, and then the chain is validated once more, with
the bundle of the leaf's own trust domain and nothing else.

TLS 1.3 only, no session tickets given and no resumed session taken: it would skip every check and
come back as who its holder once was.

The one place in this package that touches the operating system: Python's OpenSSL takes a private
key from a file only, so an anonymous memory file holds it for the length of one call.
"""

import _ssl
import os
import ssl
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from accredit_credentials.bundle import UNREADABLE
from accredit_credentials.errors import CredentialError, InvalidCertificate, Untrusted
from accredit_credentials.key_identifier import derived_key_ids, stated_key_id
from accredit_credentials.path_length import check_path_lengths
from accredit_credentials.reach import check_reach
from accredit_credentials.x509_svid import (
    X509Identity,
    X509Svid,
    parse_der,
    unverified_svid,
    validate,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from accredit_credentials.bundle import TrustBundle
    from accredit_credentials.spiffe_id import TrustDomain

_DER = serialization.Encoding.DER

PeerCheck = Callable[[X509Svid], None]
"""Raises ``CredentialError`` where the peer is not one that we talk to."""


@dataclass(frozen=True, slots=True)
class Federated:
    """Other trust domains that peers may be of.

    Attributes:
        bundles: by trust domain; never our own.
        clock: the time, by which a chain is validated.
    """

    bundles: "Mapping[TrustDomain, TrustBundle]"
    clock: "Callable[[], datetime]"


class SpiffeContext(ssl.SSLContext):
    """A context that decides about the peer's SVID at the end of the handshake."""

    trust_domain: "TrustDomain | None" = None
    authorities: "frozenset[x509.Certificate]" = frozenset()
    refused: "frozenset[str]" = frozenset()
    """The authorities that were taken back when it was made, as marks."""
    met: "set[str] | frozenset[str]" = frozenset()
    """The marks of those that were let in, where that is noted: a later context that refuses one
    of them ends what rests on this one."""
    federated: Federated | None = None
    peer_check: PeerCheck | None = None
    peer_optional: bool = False
    any_reach: bool = False
    """Whether CAs that are limited to namespaces may speak for anybody: where ``peer_check``, or
    who is served, decides about the authorities itself."""

    def verify_peer(self, der: bytes | None, authorities: tuple[bytes, ...] = ()) -> None:
        """Decide about the peer's certificate; None is a peer without one.

        ``authorities`` are those above it, as OpenSSL verified them, the anchor last. What
        ``peer_check`` is given has them as its intermediates, but for the anchor.

        Raises:
            ssl.SSLCertVerificationError: the peer is refused; the message says why.
        """
        try:
            if der is None:
                if not self.peer_optional:
                    raise Untrusted("peer has no certificate")
            elif self.peer_check is not None:
                path = _path_of(authorities)
                svid = unverified_svid([_leaf(der), *path[:-1]])
                check_path_lengths(path)
                self._check_svid(svid, self.peer_check)
                if not self.any_reach:
                    check_reach(svid.spiffe_id, path)
        except CredentialError as error:
            raise ssl.SSLCertVerificationError(f"peer refused: {error}") from error

    def verify_chain(self, chain: tuple[bytes, ...]) -> None:
        """Decide about a peer that may be of another trust domain, by what it sent.

        Raises:
            ssl.SSLCertVerificationError: the peer is refused; the message says why.
        """
        if not chain or self.federated is None:
            self.verify_peer(None)
            return
        try:
            svid = parse_der(chain[0], chain[1:])
            validate(
                svid,
                bundles=self.federated.bundles,
                now=self.federated.clock(),
                any_reach=self.any_reach,
            )
            if self.peer_check is not None:
                self.peer_check(svid)
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

    def __del__(self) -> None:
        # ``ssl`` lets go of a socket that was cut between connecting and shaking hands without
        # closing it, and nobody else ever held it.
        with suppress(OSError):
            self.close()

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
    *,
    bundle: "TrustBundle",
    peer_check: PeerCheck,
    identity: X509Identity | None = None,
    federated: Federated | None = None,
    any_reach: bool = False,
) -> SpiffeContext:
    """A context for connecting to holders of SVIDs of ``bundle``'s trust domain, or federated ones.

    Host names are not compared: the peer's SPIFFE ID is, by ``peer_check``. With ``any_reach`` it
    also decides about CAs that are limited to namespaces.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, bundle, peer_check)
    context.any_reach = any_reach
    if federated is not None and federated.bundles:
        _federate(context, bundle, federated, identity)
    if identity is not None:
        load_identity(context, identity)
    return context


def server_context(
    *,
    bundle: "TrustBundle",
    peer_check: PeerCheck,
    identity: X509Identity,
    client_optional: bool = False,
    federated: Federated | None = None,
    any_reach: bool = False,
) -> SpiffeContext:
    """A context for serving with an SVID; clients show theirs, or may where optional."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, bundle, peer_check)
    context.any_reach = any_reach
    if federated is not None and federated.bundles:
        _federate(context, bundle, federated, identity)
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


def sent_chain(connection: ssl.SSLSocket | ssl.SSLObject) -> tuple[bytes, ...]:
    """The certificates that the peer sent, in DER, leaf first; empty where it has none.

    Of a resumed session the leaf alone is known.

    Python makes this public with 3.13; below it has been there, unlisted, since 3.10.
    """
    leaf = connection.getpeercert(binary_form=True)
    if leaf is None:
        return ()
    owner: Any = connection
    if not hasattr(owner, "get_unverified_chain"):
        owner = owner._sslobj  # noqa: SLF001
    chain = owner.get_unverified_chain() or (leaf,)
    return tuple(
        each if isinstance(each, bytes) else each.public_bytes(_ssl.ENCODING_DER) for each in chain
    )


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
    context.authorities = frozenset(bundle.x509_authorities)
    context.peer_check = peer_check
    return context


def _federate(
    context: SpiffeContext,
    bundle: "TrustBundle",
    federated: Federated,
    identity: X509Identity | None,
) -> None:
    """Let OpenSSL's store know the authorities of other domains; who is whose is decided after.

    OpenSSL looks an issuer up by name and key identifier and tries no second one: an authority of
    another domain that takes the names of ours would shut our own agents out. It stays outside,
    and so does every one that OpenSSL cannot read: nothing that is not ours makes ours fail.
    """
    ours = (*bundle.x509_authorities, *(identity.svid.intermediates if identity else ()))
    taken = set(map(_name_and_key, ours))
    kept: list[x509.Certificate] = []
    for trust_domain in sorted(federated.bundles, key=str):
        for certificate in federated.bundles[trust_domain].x509_authorities:
            names = _own_names(certificate)
            if names is None or names in taken or not _load(context, certificate):
                continue
            kept.append(certificate)
    context.authorities |= frozenset(kept)
    own = {bundle.trust_domain: bundle}
    context.federated = Federated({**federated.bundles, **own}, federated.clock)


def _load(context: ssl.SSLContext, certificate: "x509.Certificate") -> bool:
    """Let OpenSSL's store know one authority; says whether OpenSSL could read it."""
    try:
        context.load_verify_locations(cadata=certificate.public_bytes(_DER))
    except (ssl.SSLError, ValueError):
        return False
    return True


@lru_cache(maxsize=4096)  # the same authorities come back with each new context
def _own_names(certificate: "x509.Certificate") -> "tuple[bytes, bytes] | None":
    """What an authority of another domain is looked up by, where that can be its own only.

    It signed itself, and its key identifier is derived from its key (RFC 5280 §4.2.1.2 method 1,
    RFC 7093 §2): neither the identifier nor the key of an issuing CA of ours can be in it, of
    which this context may not even know. Without an identifier nothing below it is accepted
    anyway, since OpenSSL is strict.
    """
    try:
        certificate.verify_directly_issued_by(certificate)
        name, derived = certificate.subject.public_bytes(), derived_key_ids(certificate)
    except (InvalidSignature, *UNREADABLE):
        return None
    key_id = stated_key_id(certificate)
    return (name, key_id) if key_id is not None and key_id in derived else None


def _name_and_key(certificate: "x509.Certificate") -> "tuple[bytes, bytes | None]":
    return certificate.subject.public_bytes(), stated_key_id(certificate)


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
    if context.federated is not None:
        context.verify_chain(sent_chain(connection))
    else:
        context.verify_peer(connection.getpeercert(binary_form=True), _authorities_of(connection))


def _authorities_of(connection: ssl.SSLSocket | ssl.SSLObject) -> tuple[bytes, ...]:
    """The CAs of the path that OpenSSL found, DER; public as ``sent_chain`` is."""
    owner: Any = connection
    if not hasattr(owner, "get_verified_chain"):
        owner = owner._sslobj  # noqa: SLF001
    chain = owner.get_verified_chain() or ()
    return tuple(
        each if isinstance(each, bytes) else each.public_bytes(_ssl.ENCODING_DER)
        for each in chain[1:]
    )


def _leaf(leaf: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(leaf)
    except UNREADABLE as error:
        raise InvalidCertificate("peer's certificate cannot be read") from error


def _path_of(authorities: tuple[bytes, ...]) -> tuple[x509.Certificate, ...]:
    """The CAs above a leaf, each of them readable, its key too: facts are matched by it.

    Raises:
        InvalidCertificate: there is none, or one cannot be read.
    """
    if not authorities:
        raise InvalidCertificate("peer's certificate has no authority above it")
    try:
        return tuple(map(_authority, authorities))
    except UNREADABLE as error:
        raise InvalidCertificate("an authority of the peer cannot be read") from error


@lru_cache(maxsize=64)  # many peers, few CAs
def _authority(content: bytes) -> x509.Certificate:
    certificate = x509.load_der_x509_certificate(content)
    derived_key_ids(certificate)
    return certificate


@contextmanager
def _memory_file(content: bytes) -> "Iterator[str]":
    descriptor = os.memfd_create("accredit", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)

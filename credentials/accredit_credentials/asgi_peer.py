"""The client's TLS certificate, where an ASGI application can see it.

uvicorn verifies the client certificate and then keeps it to itself. ``exposing_peer`` makes a
protocol class whose connections carry it as the ASGI TLS extension (``scope["extensions"]["tls"]
["client_cert_chain"]``, PEM, leaf first); ``peer_certificate`` reads the leaf back, ``peer_chain``
what the client sent with it. The leaf is there because the handshake verified it: who calls may
trust what they get, as of that handshake.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

from accredit_credentials.tls import sent_chain

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]
P = TypeVar("P", bound=type)

_PEER = "accredit.peer_certificate_der"
_CHAIN = "accredit.peer_chain_der"


def exposing_peer(protocol_class: P) -> P:
    """A subclass of a uvicorn HTTP protocol that puts the client certificate into each scope."""

    class ExposingPeer(protocol_class):  # type: ignore[misc, valid-type]
        app: App

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            connection = transport.get_extra_info("ssl_object")
            chain = sent_chain(connection) if connection is not None else ()
            if chain:
                self.app = _with_peer(self.app, chain)

    return ExposingPeer  # type: ignore[return-value]


def peer_certificate(scope: Scope) -> bytes | None:
    """The DER of the client's verified leaf certificate, or None where it showed none."""
    tls = (scope.get("extensions") or {}).get("tls")
    if tls is None:
        return None
    der: bytes | None = tls.get(_PEER)
    if der is not None:
        return der
    chain = tls.get("client_cert_chain")
    return ssl.PEM_cert_to_DER_cert(chain[0]) if chain else None


def peer_chain(scope: Scope) -> tuple[bytes, ...] | None:
    """The DER of what the client sent, leaf first; None where nobody tells more than the leaf."""
    tls = (scope.get("extensions") or {}).get("tls") or {}
    chain: tuple[bytes, ...] | None = tls.get(_CHAIN)
    if chain is not None:
        return chain
    pem = tls.get("client_cert_chain") or ()
    return tuple(map(ssl.PEM_cert_to_DER_cert, pem)) if len(pem) > 1 else None


def _with_peer(app: App, chain: tuple[bytes, ...]) -> App:
    tls = {
        "client_cert_chain": tuple(map(ssl.DER_cert_to_PEM_cert, chain)),
        _PEER: chain[0],
        _CHAIN: chain,
    }

    async def with_peer(scope: Scope, receive: Any, send: Any) -> None:
        scope.setdefault("extensions", {})["tls"] = tls
        await app(scope, receive, send)

    return with_peer

"""Serving an ASGI application with uvicorn and an SVID: mTLS that follows renewal.

Each new connection is served with the newest SVID and the newest bundle; no restart, no file. The
client's verified certificate is in every scope. A connection that is open when the identity is
renewed keeps the certificates of its handshake: ``keep_alive`` bounds how long an idle one stays.

Needs uvicorn, which the light client does not bring (``pip install accredit[issuer]``, or uvicorn
itself).
"""

from contextlib import suppress
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from accredit_client.base_identity import BaseIdentity
from accredit_client.tls import Peer
from accredit_credentials.asgi_peer import App, exposing_peer

KEEP_ALIVE = 30  # seconds


def uvicorn_config(
    app: App,
    identity: BaseIdentity,
    *,
    host: str,
    port: int,
    peer: Peer,
    client_optional: bool = False,
    keep_alive: int = KEEP_ALIVE,
    **options: Any,
) -> uvicorn.Config:
    """The configuration of a server that holds ``identity``.

    Args:
        app: the application.
        identity: started already.
        host: the address to listen on.
        port: the port to listen on; 0 for any.
        peer: which clients are accepted, as for ``identity.server_context``.
        client_optional: whether a client may come without a certificate, as with DPoP tokens.
        keep_alive: seconds for which an idle connection stays open.
        options: further options of ``uvicorn.Config``.

    Raises:
        InvalidPeer: nobody is named.
    """
    context = identity.server_context(peer=peer, client_optional=client_optional)
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=exposing_peer(AutoHTTPProtocol),
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=keep_alive,
        ssl_context_factory=lambda _config, _default: context,
        **options,
    )


def serve(
    app: App,
    identity: BaseIdentity,
    *,
    host: str,
    port: int,
    peer: Peer,
    client_optional: bool = False,
) -> None:
    """Serve until the process is told to stop, by SIGTERM or Ctrl-C."""
    config = uvicorn_config(
        app, identity, host=host, port=port, peer=peer, client_optional=client_optional
    )
    with suppress(KeyboardInterrupt):  # uvicorn has stopped in order, and tells of the signal again
        uvicorn.Server(config).run()

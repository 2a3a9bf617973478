"""Serving an ASGI application with uvicorn and an SVID: mTLS that follows renewal.

Each new connection is served with the newest SVID and the newest bundle; no restart, no file. The
client's verified certificate is in every scope. A connection that is open when the identity is
renewed keeps the certificates of its handshake: ``keep_alive`` bounds how long an idle one stays,
and at each request the client's chain is verified again, with the bundle of that moment. Who is not
believed any more is told so, and the connection ends; so does an answer that is under way.

Needs uvicorn, which the light client does not bring (the extra ``issuer`` does, or uvicorn
itself).
"""

from contextlib import suppress
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from accredit_client.base_identity import BaseIdentity
from accredit_client.cutting import CUT, Cutting
from accredit_client.guard import close_websocket, problem_of, send_problem
from accredit_client.peers import Peers
from accredit_client.tls import Peer
from accredit_client.under_way import under_way
from accredit_client.verify import DEFAULT_CACHE_SIZE
from accredit_credentials.asgi_peer import App, Scope, exposing_peer, peer_chain
from accredit_credentials.errors import CredentialError, Expired

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
        Cutting(StillWelcome(app, identity)),
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


class StillWelcome:
    """Serves nobody whose certificate would not be accepted in a handshake now."""

    def __init__(self, app: App, identity: BaseIdentity) -> None:
        self._app = app
        self._identity = identity
        self._peers = Peers(DEFAULT_CACHE_SIZE)

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Decide about one request; what is no request goes through."""
        chain = peer_chain(scope) if scope["type"] in CUT else None
        try:
            if chain is not None:
                self._check(chain)
        except CredentialError as error:
            if scope["type"] == "websocket":
                await close_websocket(send)
            else:
                await send_problem(problem_of(error, ""), send, also=((b"connection", b"close"),))
            return
        request = under_way(scope)
        if chain is not None and request is not None:
            request.ask(lambda: self._check_still(chain), self._known)
        await self._app(scope, receive, send)

    def _check(self, chain: tuple[bytes, ...]) -> None:
        identity = self._identity
        peer = self._peers.look(chain[0], chain, bundle_of=identity.bundle_of, now=identity.now())
        identity.check_client(peer.svid)

    def _check_still(self, chain: tuple[bytes, ...]) -> None:
        with suppress(Expired):  # it was good when the request came
            self._check(chain)

    def _known(self) -> object:
        facts = self._identity.facts
        return None if facts is None else facts.through, self._identity.bundle.sequence


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

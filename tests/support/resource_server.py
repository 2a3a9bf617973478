"""A real resource server on loopback: uvicorn, mTLS with an identity, any ASGI application."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from accredit_client.base_identity import BaseIdentity
from accredit_client.serving import uvicorn_config
from accredit_client.tls import Peer

TIMEOUT = 20.0  # seconds; nothing takes as long unless something is broken


@contextmanager
def resource_server(
    app: Any, identity: BaseIdentity, *, peer: Peer, client_optional: bool = False
) -> Iterator[str]:
    """Serve until the block ends; gives the URL."""
    # It listens before it serves: the first connection waits in the backlog.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        config = uvicorn_config(
            app,
            identity,
            host=host,
            port=port,
            peer=peer,
            client_optional=client_optional,
            log_config=None,
            lifespan="off",
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"https://{host}:{port}"
        finally:
            server.should_exit = True
            thread.join(TIMEOUT)
            assert not thread.is_alive()

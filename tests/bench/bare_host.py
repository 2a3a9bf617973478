"""A server with the issuer's connections and TLS and no application, for the bench.

Answers every request with the same bytes, and says as JSON where it listens.
"""

import json
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parents[1]))

import uvicorn
import uvloop
from starlette.types import Message, Receive, Scope, Send
from support.authority import Authority

from accredit_credentials.tls import server_context
from accredit_issuer.connection import Connection
from accredit_issuer.server import BACKLOG

CHARACTERS = 240  # of a CRL without entries


async def constant(_scope: Scope, _receive: Receive, send: Send) -> None:
    """The answer."""
    await send(START)
    await send(BODY)


START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"etag", b'"1796119827-851ffccb39f9eb0c"'),
        (b"cache-control", b"max-age=10"),
        (b"content-length", str(CHARACTERS).encode()),
        (b"content-type", b"application/pkix-crl"),
    ],
}
BODY: Message = {"type": "http.response.body", "body": b"x" * CHARACTERS}


async def main() -> None:
    """Serve until the process is told to stop."""
    authority = Authority(now=datetime.now(UTC))
    config = uvicorn.Config(
        constant,
        http=Connection,
        loop="none",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        lifespan="off",
    )
    config.load()
    config.ssl = server_context(
        bundle=authority.bundle,
        peer_check=lambda _: None,
        identity=authority.issue(),
        client_optional=True,
    )
    listening = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    host, port = listening.getsockname()
    print(json.dumps({"host": host, "port": port}), flush=True)  # noqa: T201 (to the bench)
    await uvicorn.Server(config).serve(sockets=[listening])


if __name__ == "__main__":
    uvloop.run(main())

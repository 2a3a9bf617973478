"""A receiver of security events as others run it: a real HTTPS server on loopback.

It answers as it is told, keeps every SET that it was sent, and verifies with PyJWT alone.
"""

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import trustme

TIMEOUT = 20.0


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer; ``padding`` bytes follow the body, ``silent`` never answers."""

    status: int = 202
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    padding: int = 0
    silent: bool = False


@dataclass
class EventReceiver:
    """What a receiver was sent, and how it answers."""

    host: str = "localhost"
    port: int = 0
    reply: Reply = Reply()
    accepted: list[str] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    certificates: list[bytes | None] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Where events are pushed to."""
        return f"https://{self.host}:{self.port}/events"

    def wait(self, number: int, *, asked: bool = False) -> None:
        """Return once so many were accepted, or asked for."""
        kept: list[Any] = self.asked if asked else self.accepted
        with self.changed:
            assert self.changed.wait_for(lambda: len(kept) >= number, TIMEOUT), (number, len(kept))

    @property
    def jtis(self) -> list[str]:
        """The ``jti`` of each accepted event, in the order they came."""
        return [unverified(token)["jti"] for token in self.accepted]


def unverified(token: str) -> dict[str, Any]:
    """What a SET says."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


@contextmanager
def event_receiver(
    ca: trustme.CA, *, named: str = "localhost", clients: str | None = None
) -> Iterator[EventReceiver]:
    """Serve with a certificate for ``named``; ``clients`` are asked for one of this CA, in PEM."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(named).configure_cert(context)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=clients)
    made = EventReceiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = TIMEOUT

        def do_POST(self) -> None:
            token = self.rfile.read(int(self.headers["Content-Length"])).decode()
            with made.changed:
                reply = made.reply
                made.asked.append({k.lower(): v for k, v in self.headers.items()})
                made.certificates.append(self.connection.getpeercert(binary_form=True))
                if reply.status == 202 and not reply.silent:
                    made.accepted.append(token)
                made.changed.notify_all()
            if reply.silent:
                made.stopped.wait(TIMEOUT)
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body) + reply.padding))
            self.end_headers()
            self.wfile.write(reply.body + b" " * reply.padding)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def finish_request(self, request: Any, client_address: Any) -> None:
            with context.wrap_socket(request, server_side=True) as connection:
                super().finish_request(connection, client_address)

        def shutdown_request(self, request: Any) -> None:
            request.close()

        def handle_error(self, *_: object) -> None:
            pass  # clients that hang up and handshakes that fail are what the tests are about

    with Server(("127.0.0.1", 0), Handler) as server:
        made.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield made
        finally:
            made.stopped.set()
            server.shutdown()
            thread.join(TIMEOUT)

"""A bundle endpoint as others run it: a real HTTPS server on loopback that says what a test wants.

``web_endpoint`` has a certificate of a CA that stands for the Web PKI, ``spiffe_endpoint`` an
X.509-SVID. Both count what they were asked, with which headers, and how much they sent.
"""

import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import trustme

from accredit_credentials.bundle import TrustBundle
from accredit_credentials.tls import load_identity
from accredit_credentials.x509_svid import X509Identity

CHUNK = b" " * 16384
TIMEOUT = 20.0


@dataclass(frozen=True, kw_only=True)
class Served:
    """One answer; ``padding`` bytes of spaces follow the body, ``silent`` never answers."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    padding: int = 0
    silent: bool = False


def document(value: TrustBundle | Mapping[str, Any] | str | bytes, **headers: str) -> Served:
    """A bundle, as an endpoint serves it."""
    if isinstance(value, TrustBundle):
        value = value.to_json()
    elif isinstance(value, Mapping):
        value = json.dumps(value, indent=2)
    body = value.encode() if isinstance(value, str) else value
    return Served(body=body, headers={"Content-Type": "application/json", **headers})


def redirect(location: str, status: int = 302) -> Served:
    """A redirect."""
    return Served(status=status, headers={"Location": location})


@dataclass
class BundleEndpoint:
    """A server that answers each path as it is told; 404 where it is told nothing."""

    host: str
    port: int = 0
    answers: dict[str, Served] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    sent: int = 0
    asked: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Where the bundle is."""
        return self.at("/bundle")

    def at(self, path: str) -> str:
        """The URL of a path."""
        return f"https://{self.host}:{self.port}{path}"

    def serve(self, answer: TrustBundle | Mapping[str, Any] | Served) -> None:
        """Say what ``url`` answers from now on."""
        self.answers["/bundle"] = answer if isinstance(answer, Served) else document(answer)


@contextmanager
def endpoint(context: ssl.SSLContext, host: str = "localhost") -> Iterator[BundleEndpoint]:
    """Serve with a TLS context."""
    made = BundleEndpoint(host)

    class Handler(BaseHTTPRequestHandler):
        timeout = TIMEOUT

        def do_GET(self) -> None:
            made.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
            made.asked.set()
            answer = made.answers.get(self.path, Served(status=404))
            if answer.silent:
                made.stopped.wait(TIMEOUT)
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)
            made.sent += len(answer.body)
            for _ in range(answer.padding // len(CHUNK)):
                self.wfile.write(CHUNK)
                made.sent += len(CHUNK)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def finish_request(self, request: Any, client_address: Any) -> None:
            # On the connection's own thread: a client that refuses us stops nobody else.
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


@contextmanager
def web_endpoint(
    ca: trustme.CA, host: str = "localhost", *, named: str | None = None
) -> Iterator[BundleEndpoint]:
    """Serve with a certificate for ``named``, or for the host itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(named or host).configure_cert(context)
    with endpoint(context, host) as made:
        yield made


@contextmanager
def spiffe_endpoint(identity: X509Identity, host: str = "127.0.0.1") -> Iterator[BundleEndpoint]:
    """Serve with an X.509-SVID; clients are asked for nothing (SPIFFE Federation §5.2.2.3)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_identity(context, identity)
    with endpoint(context, host) as made:
        yield made

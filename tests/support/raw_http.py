"""HTTPS without a client library's good manners: any request, any bytes, and what came back."""

import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from accredit_client.wire import issuer_context
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.x509_svid import X509Identity

TIMEOUT = 20.0


@dataclass(frozen=True)
class Answer:
    """A status, headers in lower case, and a body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def kind(self) -> str:
        """The kind of problem; checks that it is a problem document with this very status."""
        assert self.headers["content-type"] == "application/problem+json", self
        document = self.json
        assert set(document) == {"type", "title", "status", "detail"}
        assert document["status"] == self.status
        return str(document["type"]).removeprefix("urn:accredit:problem:")


@dataclass
class RawClient:
    """One caller at one issuer."""

    url: str
    context: ssl.SSLContext

    @classmethod
    def at(cls, url: str, bundle: TrustBundle, identity: X509Identity | None = None) -> "RawClient":
        """A caller with one identity or with none."""
        return cls(url, issuer_context(bundle, identity))

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        chunked: bool = False,
    ) -> Answer:
        """Send one request on a new connection; a body that is not bytes is sent as JSON."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, context=self.context, timeout=TIMEOUT
        )
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        try:
            if chunked:
                sent["Transfer-Encoding"] = "chunked"
                pieces: Iterator[bytes] = (body[at : at + 4096] for at in range(0, len(body), 4096))
                connection.request(method, path, pieces, sent, encode_chunked=True)
            else:
                connection.request(method, path, body, sent)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    @contextmanager
    def connected(self) -> Iterator[ssl.SSLSocket]:
        """A connection for raw bytes."""
        parts = urlsplit(self.url)
        address = (parts.hostname or "", parts.port or 443)
        with (
            socket.create_connection(address, timeout=TIMEOUT) as plain,
            self.context.wrap_socket(plain) as connection,
        ):
            yield connection

    def send(self, data: bytes) -> Answer:
        """Send raw bytes and read one response."""
        with self.connected() as connection:
            connection.sendall(data)
            response = http.client.HTTPResponse(connection)
            response.begin()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())

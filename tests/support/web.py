"""A Web CA, and an issuer that shows its public documents under a certificate of that CA."""

import http.client
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme
from support.raw_http import TIMEOUT, Answer

NAME = "localhost"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Web:
    """The operator's files of one Web CA, and a relying party that trusts this CA only."""

    folder: Path
    port: int = field(default_factory=free_port)
    ca: trustme.CA = field(default_factory=trustme.CA, repr=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.renew()

    @property
    def certificate_file(self) -> Path:
        """The chain."""
        return self.folder / "web.pem"

    @property
    def key_file(self) -> Path:
        """The key."""
        return self.folder / "web.key"

    @property
    def url(self) -> str:
        """Where relying parties look."""
        return f"https://{NAME}:{self.port}"

    @property
    def settings(self) -> dict[str, Any]:
        """``[bundle.https_web]``."""
        return {
            "port": self.port,
            "certificate_file": str(self.certificate_file),
            "key_file": str(self.key_file),
        }

    def renew(self, key_type: trustme.KeyType = trustme.KeyType.ECDSA) -> bytes:
        """Put a new certificate and key into the files; returns the PEM of the leaf."""
        issued = self.ca.issue_cert(NAME, key_type=key_type)
        chain = [blob.bytes() for blob in issued.cert_chain_pems]
        self.certificate_file.write_bytes(b"".join(chain))
        self.key_file.write_bytes(issued.private_key_pem.bytes())
        return chain[0]

    def context(self) -> ssl.SSLContext:
        """What a relying party trusts."""
        context = ssl.create_default_context()
        context.load_verify_locations(cadata=self.ca.cert_pem.bytes().decode())
        return context

    def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Ask on a new connection, with the name compared."""
        connection = http.client.HTTPSConnection(
            NAME, self.port, context=self.context(), timeout=TIMEOUT
        )
        try:
            connection.request(method, path, body or None, dict(headers or {}))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def shown(self, context: ssl.SSLContext | None = None, *, name: str | None = NAME) -> str:
        """The PEM of the leaf that a new handshake shows; without a name none is sent."""
        context = context or self.context()
        context.check_hostname = name is not None
        with (
            socket.create_connection(("127.0.0.1", self.port), TIMEOUT) as raw,
            context.wrap_socket(raw, server_hostname=name) as connection,
        ):
            return ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"")

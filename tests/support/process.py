"""``accredit-issuer`` as an operator runs it: a process, its settings, its signals."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from sqlalchemy import select
from support.raw_http import RawClient

from accredit_client.wire import Issuer as IssuerClient
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.spiffe_id import TrustDomain
from accredit_credentials.x509_svid import X509Identity
from accredit_issuer.settings import Config, load
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import authorities

TIMEOUT = 30
COMMAND = (sys.executable, "-c", "from accredit_issuer.cli import main; main()")


def write_settings(folder: Path, more: str = "", *, port: int = 0) -> Path:
    """Settings with a port of their own, or this one, which stays the same over restarts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
        port = probe.getsockname()[1]
    file = folder / "issuer.toml"
    file.write_text(f'trust_domain = "example.org"\n[server]\nport = {port}\n{more}')
    subprocess.run(
        [*COMMAND, "init", "--config", str(file)],
        check=True, capture_output=True, timeout=TIMEOUT,
    )  # fmt: skip
    return file


@dataclass
class IssuerProcess:
    """A process that serves."""

    file: Path
    process: "subprocess.Popen[str]" = field(init=False, repr=False)
    url: str = field(init=False)
    clients: ExitStack = field(default_factory=ExitStack, repr=False)

    def __post_init__(self) -> None:
        self.start()

    @property
    def command(self) -> list[str]:
        """How it is run."""
        return [*COMMAND, "run", "--json", "--config", str(self.file)]

    @property
    def config(self) -> Config:
        """Its settings."""
        return load(self.file)

    @property
    def first_token(self) -> str:
        """The token of the first admin."""
        return (self.config.data / "first-admin.token").read_text().strip()

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, text=True, env={**os.environ}
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the issuer did not start"
        ready = json.loads(line)
        self.url = f"https://{ready['host']}:{ready['port']}"

    def send_signal(self, sent: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(sent)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        """The status it ended with."""
        status = self.process.wait(TIMEOUT)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status

    @property
    def bundle(self) -> TrustBundle:
        """The roots, as an operator hands them to clients."""
        database = Database(self.config.database)
        with database.read() as connection:
            rows = connection.execute(
                select(authorities.c.public, authorities.c.chain).where(
                    authorities.c.kind == "root"
                )
            ).all()
        database.close()
        roots = tuple(
            x509.load_pem_x509_certificates(f"{row.public}{row.chain}".encode())[-1] for row in rows
        )
        return TrustBundle(TrustDomain.parse("example.org"), roots)

    def caller(self, identity: X509Identity | None = None) -> RawClient:
        """A caller without manners."""
        return RawClient.at(self.url, self.bundle, identity)

    def connect(self, identity: X509Identity | None = None) -> IssuerClient:
        """A client."""
        client = IssuerClient.at(self.url, bundle=self.bundle, identity=identity)
        self.clients.callback(client.close)
        return client


@contextmanager
def issuer_process(file: Path) -> Iterator[IssuerProcess]:
    """Run an issuer, and end it."""
    process = IssuerProcess(file)
    try:
        with process.clients:
            yield process
    finally:
        if process.process.poll() is None:
            process.kill()


def stop(process: IssuerProcess) -> Any:
    """Stop it as an operator does."""
    process.send_signal(signal.SIGTERM)
    return process.wait()

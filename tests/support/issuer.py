"""A real issuer for tests: its own folder, database and keys, serving TLS on loopback.

``running_issuer`` serves it on a thread of this process; everything is real but the clock, where a
test gives one. ``Enrolled`` is an admin who logged in; ``register_agent`` and ``attest`` do what CI
and an agent runtime do, over the wire.
"""

import threading
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from accredit_attestors import manifest as manifests
from accredit_attestors.agent_file import load as load_agent_file
from accredit_attestors.contract import CollectContext
from accredit_attestors.plugins import load_attestors
from accredit_client import calls
from accredit_client.call import Call
from accredit_client.wire import Issuer as IssuerClient
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.keys import generate_key
from accredit_credentials.spiffe_id import AgentId
from accredit_credentials.x509_svid import X509Identity, parse_pem
from accredit_issuer.clock import Clock, system_clock
from accredit_issuer.issuer import Issuer, initialise, open_issuer
from accredit_issuer.keys.key_manager import KeyManager
from accredit_issuer.server import Server
from accredit_issuer.settings import Config, Settings, check

TRUST_DOMAIN = "example.org"


def make_config(folder: Path, **settings: Any) -> Config:
    """Settings of a test's issuer: a free port, everything else as given."""
    raw = {"trust_domain": TRUST_DOMAIN, "server": {"port": 0}, **settings}
    return check(Settings.model_validate(raw), folder=folder)


@dataclass
class RunningIssuer:
    """An issuer that serves."""

    issuer: Issuer
    url: str
    first_token: str = field(repr=False)
    clients: ExitStack = field(default_factory=ExitStack)

    def connect(self, identity: X509Identity | None = None) -> IssuerClient:
        """A client with one identity or with none; closed with the issuer."""
        client = IssuerClient.at(self.url, bundle=self.bundle, identity=identity)
        self.clients.callback(client.close)
        return client

    @property
    def bundle(self) -> TrustBundle:
        """The bundle as it is now."""
        return self.issuer.bundle


@contextmanager
def running_issuer(
    folder: Path, *, clock: Clock = system_clock, **settings: Any
) -> Iterator[RunningIssuer]:
    """Make an issuer in ``folder`` and serve it."""
    config = make_config(folder, **settings)
    token = initialise(config, clock).text
    with serving(config, clock=clock) as (issuer, url):
        running = RunningIssuer(issuer, url, token)
        with running.clients:
            yield running


@contextmanager
def serving(
    config: Config, *, clock: Clock = system_clock, keys: KeyManager | None = None
) -> Iterator[tuple[Issuer, str]]:
    """Serve an issuer that exists, with ``keys`` instead of those that the settings name."""
    issuer = open_issuer(config, clock, keys=keys)
    server = Server(issuer)
    ready = threading.Event()
    address: list[Any] = []

    def on_ready(*where: Any) -> None:
        address.extend(where)
        ready.set()

    thread = threading.Thread(target=server.run, kwargs={"on_ready": on_ready})
    thread.start()
    try:
        assert ready.wait(20), "the issuer did not start"
        yield issuer, f"https://{address[0]}:{address[1]}"
    finally:
        server.stop()
        thread.join(20)
        issuer.close()


@dataclass
class Admin:
    """An admin who logged in."""

    client: IssuerClient
    identity: X509Identity

    def send(self, call: Call[Any]) -> Any:
        """Send one call."""
        return self.client.send(call)


@dataclass
class AgentFolder:
    """A sample agent on disk: its code, its signed manifest."""

    root: Path
    agent: str
    key: Any = field(repr=False)

    @property
    def manifest_file(self) -> Path:
        """The signed manifest."""
        return self.root / "agent.manifest.json"

    @property
    def envelope(self) -> str:
        """Its text."""
        return self.manifest_file.read_text()

    def sign(self, now: Any) -> None:
        """Measure and sign it anew."""
        manifest = load_agent_file(self.root / "agent.toml").manifest(now)
        self.manifest_file.write_bytes(manifests.sign(manifest, self.key))


def log_in(running: RunningIssuer, token: str) -> Admin:
    """Spend a one-time token for an admin's SVID."""
    key = generate_key()
    call = calls.enrolment(token=token, csr=calls.certificate_request(key))
    answer = running.connect().send(call)
    identity = X509Identity.of(parse_pem(answer.certificates), key)
    return Admin(running.connect(identity), identity)


AGENT_TOML = """\
[agent]
name = "support/summarizer"
version = "1.0.0"
owner = "maria@example.org"
purpose = "Summarises tickets"

[[resource]]
name = "tickets"
audience = "https://tickets.example.org"

[resource.actions]
read = "low"
comment = "medium"
purge = "high"

[delegation]
max_depth = 1
to = ["support/summarizer"]
"""


def write_agent(folder: Path, *, key: Any, now: datetime, toml: str = AGENT_TOML) -> AgentFolder:
    """An agent's folder, signed with ``key``."""
    folder.mkdir(parents=True)
    (folder / "agent.toml").write_text(toml)
    (folder / "main.py").write_text("print('hello')\n")
    name = agent_name(toml)
    agent = AgentFolder(folder, name, key)
    agent.sign(now)
    return agent


def agent_name(toml: str) -> str:
    """The agent's name in its file."""
    return str(tomllib.loads(toml)["agent"]["name"])


def register(
    running: RunningIssuer, admin: Admin, agent: AgentFolder, *, signer: str = "ci"
) -> None:
    """Make the signer known for the agent's namespace, and register its manifest."""
    public = manifests.public_key_pem(agent.key.public_key()).decode()
    namespace = agent.agent.partition("/")[0]
    admin.send(calls.add_signer(name=signer, public_key=public, namespaces=[namespace]))
    admin.send(calls.register_manifest(envelope=agent.envelope))


def join_token_file(admin: Admin, agent: AgentFolder) -> Path:
    """A fresh join token for the agent, in a file as its runtime gets it."""
    answer = admin.send(calls.join_token(AgentId.parse(agent.agent), ttl_seconds=60))
    file = agent.root.parent / f"join-{answer.id}.token"
    file.touch(mode=0o600)
    file.write_text(answer.token)
    return file


def evidence_for(agent: AgentFolder, nonce: str, join_token: Path) -> list[dict[str, Any]]:
    """What the agent's runtime collects."""
    context = CollectContext(
        nonce=nonce,
        manifest_file=agent.manifest_file,
        code_root=agent.root,
        join_token_file=join_token,
    )
    collected = [attestor.collect(context) for attestor in load_attestors().values()]
    return [evidence.to_json() for evidence in collected if evidence is not None]


def attest(running: RunningIssuer, agent: AgentFolder, join_token: Path) -> X509Identity:
    """Attest a new instance of the agent over the wire."""
    client = running.connect()
    nonce = client.send(calls.nonce()).nonce
    key = generate_key()
    answer = client.send(
        calls.attestation(
            nonce=nonce,
            csr=calls.certificate_request(key),
            evidence=evidence_for(agent, nonce, join_token),
        )
    )
    return X509Identity.of(parse_pem(answer.certificates), key)


def attest_node(
    running: RunningIssuer, admin: Admin, name: str, namespaces: tuple[str, ...] = ("support",)
) -> X509Identity:
    """List a node and attest it by a join token, over the wire."""
    admin.send(calls.add_node(name, attestation="join_token", namespaces=namespaces))
    token = admin.send(calls.node_join_token(name, ttl_seconds=60)).token
    client = running.connect()
    nonce = client.send(calls.nonce()).nonce
    key = generate_key()
    call = calls.node_attestation(
        node=name,
        nonce=nonce,
        csr=calls.certificate_request(key),
        evidence={"kind": "join_token", "nonce": nonce, "payload": {"token": token}},
    )
    return X509Identity.of(parse_pem(client.send(call).certificates), key)

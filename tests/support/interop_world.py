"""A running issuer, an agent, and what outside judges are shown of them."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from support.issuer import (
    Admin,
    AgentFolder,
    RunningIssuer,
    attest,
    join_token_file,
    log_in,
    register,
    running_issuer,
    write_agent,
)
from support.judges import PemFiles, pem_of

from accredit_attestors.manifest import generate_signer_key
from accredit_client import calls
from accredit_client.files import FolderContent, write_folder
from accredit_credentials.x509_svid import X509Identity
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.clock import system_clock


@dataclass
class World:
    """A running issuer and what judges are shown of it."""

    running: RunningIssuer
    admin: Admin
    agent: AgentFolder
    identity: X509Identity
    folder: Path = field(repr=False)

    @property
    def root(self) -> x509.Certificate:
        """The one root of the bundle."""
        (root,) = self.running.bundle.x509_authorities
        return root

    @property
    def issuing_ca(self) -> x509.Certificate:
        """The CA that signed the agent's SVID."""
        (issuing_ca,) = self.identity.svid.intermediates
        return issuing_ca

    @property
    def root_file(self) -> Path:
        """The root in a file."""
        file = self.folder / "root.pem"
        file.write_text(pem_of(self.root))
        return file

    @property
    def address(self) -> tuple[str, int]:
        """Where the issuer listens."""
        parts = urlsplit(self.running.url)
        assert parts.hostname
        assert parts.port
        return parts.hostname, parts.port

    def files(self, identity: X509Identity) -> PemFiles:
        """An identity in files of its own."""
        return PemFiles.write(self.folder / identity.svid.serial, identity)

    def another(self) -> X509Identity:
        """A new instance of the agent."""
        return attest(self.running, self.agent, join_token_file(self.admin, self.agent))

    def crl(self) -> bytes:
        """The issuing CA's CRL, over the wire."""
        ski = self.issuing_ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        return self.running.connect().send(calls.crl(ski.value.digest.hex()))

    @property
    def responder(self) -> str:
        """Where the issuing CA's OCSP responder is asked, on loopback."""
        access = self.identity.svid.leaf.extensions.get_extension_for_class(
            x509.AuthorityInformationAccess
        )
        (described,) = access.value
        return self.running.url + urlsplit(str(described.access_location.value)).path

    def crl_file(self, folder: Path) -> Path:
        """``crl.pem`` as ``svid watch`` writes it now: the CRLs of all issuing CAs and roots."""
        crls = self.running.connect().send(calls.crls())
        url, bundle = self.running.url, self.running.bundle
        write_folder(folder, FolderContent(url, bundle, self.identity, crls))
        return folder / "crl.pem"

    def replace_issuing_ca(self) -> str:
        """Let another issuing CA sign; the id of the one that did."""
        old = self.running.issuer.authorities.now_in_force.active(AuthorityKind.X509).id
        (made,) = self.admin.send(calls.prepare_authority("x509"))
        self.admin.send(calls.activate_authority(made.id, early=True))
        return old

    def server_certificate(self) -> x509.Certificate:
        """What the issuer's own server shows."""
        return x509.load_pem_x509_certificate(ssl.get_server_certificate(self.address).encode())


@contextmanager
def make_world(
    folder: Path, *, name: str, crl_url: str | None = None, heartbeat: float = 10.0
) -> Iterator[World]:
    """Serve a new issuer of all kinds of credential, with a DNS name, and attest one agent.

    ``crl_url``: where its certificates say that their CRL is; nowhere by default.
    """
    server = {"port": 0, "names": [name]}
    named: dict[str, Any] = {"ocsp_url": "http://ocsp.example.org", "heartbeat": heartbeat}
    if crl_url is not None:
        named["crl_url"] = crl_url
    with running_issuer(
        folder / "issuer", server=server, wit={"enabled": True}, revocation=named
    ) as running:
        admin = log_in(running, running.first_token)
        agent = write_agent(folder / "agent", key=generate_signer_key(), now=system_clock())
        register(running, admin, agent)
        identity = attest(running, agent, join_token_file(admin, agent))
        yield World(running, admin, agent, identity, folder)

"""Nodes at an issuer without sockets, and what they ask for."""

from dataclasses import dataclass
from typing import Any

from support.offline import DIGEST, Offline

from accredit_attestors.former_svid import collect_former
from accredit_attestors.signing import VerifiedManifest
from accredit_client.calls import certificate_request
from accredit_credentials.keys import generate_key, public_key_der
from accredit_credentials.x509_svid import X509Identity, X509Svid
from accredit_issuer.issuance.node_instances import InstanceAsked
from accredit_issuer.issuance.node_svids import NodeAttestationRequest
from accredit_issuer.registry.changes import Local
from accredit_issuer.registry.nodes import NodeAsked

BY = Local("test")
SELECTORS = ("unix:uid:1001",)


@dataclass
class Nodes:
    """Nodes of an offline issuer."""

    offline: Offline

    def list(self, name: str = "build-7", *namespaces: str, **fields: Any) -> None:
        """List a node."""
        asked = NodeAsked(
            name=name,
            namespaces=namespaces or ("support",),
            **{"attestation": "join_token", **fields},
        )
        self.offline.issuer.nodes.add(asked, by=BY, now=self.offline.clock())

    def token(self, name: str = "build-7") -> str:
        """A fresh join token."""
        nodes = self.offline.issuer.nodes
        return nodes.enrol(name, None, by=BY, now=self.offline.clock()).text

    def nonce(self) -> str:
        """A fresh nonce."""
        return self.offline.issuer.issuance.agents.nonces.issue(self.offline.clock())[0]

    def attest(self, name: str = "build-7", token: str | None = None) -> X509Identity:
        """A node's SVID, for a join token."""
        shown = {"token": token or self.token(name)}
        nonce = self.nonce()
        return self.show(name, {"kind": "join_token", "nonce": nonce, "payload": shown}, nonce)

    def show(self, name: str, evidence: Any, nonce: str, key: Any = None) -> X509Identity:
        """A node's SVID, for evidence."""
        key = key or generate_key()
        request = NodeAttestationRequest(
            node=name, nonce=nonce, csr=certificate_request(key), evidence=[evidence]
        )
        issued = self.offline.do(self.offline.issuer.issuance.nodes.attest(request))
        return X509Identity.of(issued.svid(), key)

    def come_back(
        self, former: X509Identity, name: str = "build-7", *, key: Any = None
    ) -> X509Identity:
        """A node's SVID, for the key of one that is over."""
        key, nonce = key or generate_key(), self.nonce()
        evidence = collect_former(former, nonce=nonce, public_key=public_key_der(key.public_key()))
        return self.show(name, evidence.to_json(), nonce, key)

    def new(self, name: str = "build-7", *namespaces: str) -> X509Svid:
        """A node that is listed and has attested."""
        self.list(name, *namespaces)
        return self.attest(name).svid

    def run(self, node: X509Svid, manifest: VerifiedManifest, **changes: Any) -> X509Svid:
        """An instance on a node, or its renewal."""
        return self.offline.do(
            self.offline.issuer.issuance.instances.issue(node, asked_of(manifest, **changes))
        ).svid()


def asked_of(manifest: VerifiedManifest, **changes: Any) -> InstanceAsked:
    """What an honest node asks for, with changes."""
    good: dict[str, Any] = {
        "csr": certificate_request(generate_key()),
        "manifest": manifest.digest,
        "code": DIGEST,
        "selectors": () if "instance" in changes else SELECTORS,
    }
    return InstanceAsked(**{**good, **changes})

"""A running issuer, with callers that say what they like on the wire."""

from pathlib import Path
from typing import Any

from support.issuer import (
    Admin,
    AgentFolder,
    RunningIssuer,
    attest,
    evidence_for,
    join_token_file,
    log_in,
    register,
    write_agent,
)
from support.raw_http import RawClient

from accredit_attestors.manifest import generate_signer_key
from accredit_client.calls import certificate_request
from accredit_credentials.keys import generate_key
from accredit_credentials.x509_svid import X509Identity
from accredit_issuer.clock import system_clock

CSR = certificate_request(generate_key())


class Wire:
    """A running issuer, an admin, an agent, and callers without manners."""

    def __init__(self, running: RunningIssuer, folder: Path) -> None:
        self.running = running
        self.admin: Admin = log_in(running, running.first_token)
        self.agent: AgentFolder = write_agent(
            folder / "agent", key=generate_signer_key(), now=system_clock()
        )
        register(running, self.admin, self.agent)
        self.identity: X509Identity = attest(running, self.agent, self.token())
        self.nobody = self.caller(None)
        self.as_admin = self.caller(self.admin.identity)
        self.as_agent = self.caller(self.identity)

    def caller(self, identity: X509Identity | None) -> RawClient:
        """A caller."""
        return RawClient.at(self.running.url, self.running.bundle, identity)

    def token(self) -> Path:
        """A join token in a file."""
        return join_token_file(self.admin, self.agent)

    def evidence(self, **payloads: Any) -> dict[str, Any]:
        """The body of an attestation; ``payloads`` replace those of kinds of evidence."""
        nonce = self.nobody.ask("POST", "/v1/attestations/nonce", {}).json["nonce"]
        evidence = evidence_for(self.agent, nonce, self.token())
        for each in evidence:
            each["payload"] = payloads.get(each["kind"], each["payload"])
        return {"nonce": nonce, "csr": certificate_request(generate_key()), "evidence": evidence}

    def log_kinds(self) -> list[str]:
        """The kinds of all records."""
        size = self.running.issuer.log.frontier.size
        answer = self.as_admin.ask("GET", f"/v1/log/entries?start={max(0, size - 500)}&limit=500")
        return [entry["record"]["kind"] for entry in answer.json["entries"]]

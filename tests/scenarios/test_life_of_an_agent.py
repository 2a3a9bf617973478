"""The whole story over the wire: an agent earns, uses, renews and loses its identity."""

from pathlib import Path

import pytest
from support.issuer import (
    attest,
    evidence_for,
    join_token_file,
    log_in,
    register,
    running_issuer,
    write_agent,
)

from accredit_attestors.manifest import generate_signer_key
from accredit_client import calls
from accredit_client.errors import IssuerRefused
from accredit_credentials import jwt_svid, task_token
from accredit_credentials.keys import generate_key
from accredit_credentials.x509_svid import parse_pem, validate
from accredit_issuer.clock import system_clock


def test_an_agent_earns_uses_renews_and_loses_its_identity(tmp_path: Path) -> None:
    """From a signed manifest to a credential, and from one word to nothing."""
    with running_issuer(tmp_path / "issuer") as running:
        admin = log_in(running, running.first_token)
        agent = write_agent(tmp_path / "agent", key=generate_signer_key(), now=system_clock())
        register(running, admin, agent)
        identity = attest(running, agent, join_token_file(admin, agent))
        bundles = {running.bundle.trust_domain: running.bundle}
        validate(identity.svid, bundles=bundles, now=system_clock())
        client = running.connect(identity)

        token = client.send(calls.jwt_svid(audience=["https://api.example.org"])).token
        svid = jwt_svid.validate(
            token, bundles=bundles, audience="https://api.example.org", now=system_clock()
        )
        assert svid.spiffe_id == identity.svid.spiffe_id

        wanted = calls.TaskTokenRequest(
            resource="tickets", actions=("read",), purpose="summarise 4711"
        )
        answer = client.send(calls.task_token(wanted))
        granted = task_token.verify(
            answer.access_token,
            bundle=running.bundle,
            issuer=running.issuer.config.url,
            audience="https://tickets.example.org",
            now=system_clock(),
        )
        task_token.check_grant(granted, resource="tickets", action="read")

        key = generate_key()
        evidence = evidence_for(agent, identity.svid.serial, join_token_file(admin, agent))
        measured = [each for each in evidence if each["kind"] == "code_digest"]
        renewed = client.send(
            calls.x509_svid(csr=calls.certificate_request(key), evidence=measured)
        )
        assert parse_pem(renewed.certificates).instance == identity.svid.instance

        facts = admin.send(
            calls.revoke(target=f"agent:{agent.agent}", kind="revoked", reason="incident 1")
        )
        assert facts[0].sequence == 1
        with pytest.raises(IssuerRefused) as refused:
            client.send(calls.task_token(wanted))
        assert refused.value.kind == "revoked"
        story = admin.send(calls.log_explain(answer.jti))
        kinds = [entry.record["kind"] for entry in story.entries]
        assert kinds == [
            "signer.added",
            "manifest.registered",
            "agent.enrolled",
            "instance.attested",
            "credential.issued",
            "fact.stated",
        ]

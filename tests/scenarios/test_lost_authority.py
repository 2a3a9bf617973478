"""An issuing CA or JWT key is stolen: it is revoked, and the issuer goes on with another."""

from pathlib import Path

import pytest
from support.issuer import (
    RunningIssuer,
    attest,
    join_token_file,
    log_in,
    register,
    running_issuer,
    serving,
    write_agent,
)

from accredit_attestors.manifest import generate_signer_key
from accredit_client import calls
from accredit_client.errors import IssuerRefused
from accredit_credentials.jwt_svid import validate
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.clock import system_clock
from accredit_issuer.registry.changes import Local
from accredit_issuer.registry.roles import Admin, Role


def test_a_stolen_issuing_ca_is_replaced_at_once(tmp_path: Path) -> None:
    """What it signed is dead, what the next one signs is good, and a restart changes nothing."""
    with running_issuer(tmp_path / "issuer") as running:
        admin = log_in(running, running.first_token)
        agent = write_agent(tmp_path / "agent", key=generate_signer_key(), now=system_clock())
        register(running, admin, agent)
        old = running.connect(attest(running, agent, join_token_file(admin, agent)))
        spare = join_token_file(admin, agent)
        stolen = _active(running, AuthorityKind.X509)
        admin.send(calls.revoke(target=f"authority:{stolen}", kind="revoked", reason="stolen"))
        assert _active(running, AuthorityKind.X509) != stolen
        for client in (admin.client, old):
            with pytest.raises(IssuerRefused) as refused:
                client.send(calls.whoami())
            assert refused.value.kind == "revoked"
        renewed = running.connect(attest(running, agent, spare))
        assert renewed.send(calls.whoami()).spiffe_id.path.endswith("/summarizer")
        back = running.issuer.administration.invite(
            Admin("first", Role.ADMIN), by=Local("operator"), now=system_clock()
        )
        log_in(running, back.text)
        config = running.issuer.config
    with serving(config) as (issuer, url):
        again = RunningIssuer(issuer, url, "")
        with again.clients:
            assert _active(again, AuthorityKind.X509) != stolen
            assert again.connect().send(calls.nonce()).nonce


def test_a_stolen_jwt_key_is_replaced_at_once(tmp_path: Path) -> None:
    """Tokens go on, under another key that the bundle names."""
    with running_issuer(tmp_path / "issuer") as running:
        admin = log_in(running, running.first_token)
        agent = write_agent(tmp_path / "agent", key=generate_signer_key(), now=system_clock())
        register(running, admin, agent)
        holder = running.connect(attest(running, agent, join_token_file(admin, agent)))
        stolen = _active(running, AuthorityKind.JWT)
        admin.send(calls.revoke(target=f"authority:{stolen}", kind="revoked", reason="stolen"))
        token = holder.send(calls.jwt_svid(audience=["https://api.example.org"])).token
        svid = validate(
            token,
            bundles={running.bundle.trust_domain: running.bundle},
            audience="https://api.example.org",
            now=system_clock(),
        )
        assert svid.authority == _active(running, AuthorityKind.JWT) != stolen
        assert stolen not in running.bundle.jwt_authorities


def _active(running: RunningIssuer, kind: AuthorityKind) -> str:
    return running.issuer.authorities.now_in_force.active(kind).id

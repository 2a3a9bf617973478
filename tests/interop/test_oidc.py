"""PyJWT as an OpenID Connect relying party: it knows our ``iss`` and a Web CA, and finds the rest.

What clouds and model providers do: discovery at the issuer's URL under a Web PKI certificate, keys
by ``jwks_uri``, and then issuer, audience, time and signature.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from support.clock import SettableClock
from support.issuer import (
    RunningIssuer,
    attest,
    join_token_file,
    log_in,
    register,
    running_issuer,
    write_agent,
)
from support.web import Web

from accredit_attestors.manifest import generate_signer_key
from accredit_client import calls
from accredit_client.errors import IssuerRefused
from accredit_client.wire import Issuer

AUDIENCE = "https://sts.cloud.example"
TICKETS = "https://tickets.example.org"
SPIFFE_ID = "spiffe://example.org/ns/support/agent/summarizer"
REQUIRED = ["iss", "sub", "aud", "exp", "iat"]


@dataclass
class Provider:
    """A running issuer, an agent of it, and its public documents."""

    running: RunningIssuer
    agent: Issuer
    web: Web
    old: str

    def jwt_svid(self) -> str:
        """A JWT-SVID for the relying party."""
        return self.agent.send(calls.jwt_svid(audience=[AUDIENCE])).token

    def task_token(self, principal: str | None = None) -> str:
        """A task token."""
        wanted = calls.TaskTokenRequest(
            resource="tickets", actions=("read",), purpose="interop", principal=principal
        )
        return self.agent.send(calls.task_token(wanted)).access_token

    def accept(self, token: str, *, audience: str = AUDIENCE) -> dict[str, Any]:
        """Decide as a relying party that was told the issuer's URL and nothing else."""
        issuer = self.web.url
        found = self.web.ask("GET", "/.well-known/openid-configuration")
        discovered = json.loads(found.body)
        assert discovered["issuer"] == issuer
        keys = jwt.PyJWKClient(discovered["jwks_uri"], ssl_context=self.web.context())
        claims: dict[str, Any] = jwt.decode(
            token,
            keys.get_signing_key_from_jwt(token),
            algorithms=discovered["id_token_signing_alg_values_supported"],
            audience=audience,
            issuer=issuer,
            options={"require": REQUIRED},
        )
        assert set(claims) <= set(discovered["claims_supported"])
        return claims


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """An issuer whose tokens name the URL where its public documents are; ten minutes have passed.

    ``old`` is a JWT-SVID from its beginning.
    """
    now = datetime.now(UTC)
    clock = SettableClock(now - timedelta(minutes=10))
    folder = tmp_path_factory.mktemp("oidc")
    web = Web(folder / "web")
    with running_issuer(
        folder / "issuer",
        clock=clock,
        server={"port": 0, "token_issuer": web.url},
        bundle={"https_web": web.settings},
    ) as running:
        admin = log_in(running, running.first_token)
        agent = write_agent(folder / "agent", key=generate_signer_key(), now=clock())
        register(running, admin, agent)
        identity = attest(running, agent, join_token_file(admin, agent))
        holder = running.connect(identity)
        old = holder.send(calls.jwt_svid(audience=[AUDIENCE])).token
        clock.now = now
        yield Provider(running, holder, web, old)


def test_a_jwt_svid_is_accepted_by_discovery_alone(provider: Provider) -> None:
    """A relying party that knows ``iss`` and Web CAs only verifies an agent's JWT-SVID."""
    assert provider.accept(provider.jwt_svid())["sub"] == SPIFFE_ID


def test_another_audience_is_refused(provider: Provider) -> None:
    """The same token is nothing to somebody else."""
    with pytest.raises(jwt.InvalidAudienceError):
        provider.accept(provider.jwt_svid(), audience="https://other.example")


def test_an_expired_one_is_refused(provider: Provider) -> None:
    """One that was issued ten minutes ago is over."""
    with pytest.raises(jwt.ExpiredSignatureError):
        provider.accept(provider.old)


def test_a_task_token_is_refused(provider: Provider) -> None:
    """A task token is for its resource, and not for the relying party."""
    with pytest.raises(jwt.InvalidAudienceError):
        provider.accept(provider.task_token())


def test_a_task_token_has_no_other_agents_name(provider: Provider) -> None:
    """An agent cannot have another SPIFFE ID put into ``sub``, under the keys of discovery."""
    for name in ("spiffe://example.org/ns/payments/agent/payer", SPIFFE_ID):
        with pytest.raises(IssuerRefused, match="SPIFFE ID"):
            provider.task_token(principal=name)
    assert provider.task_token(principal="user:maria@example.org")


def test_a_stranger_with_our_name_is_refused(provider: Provider, tmp_path: Path) -> None:
    """Another issuer that calls itself by our URL signs with keys that discovery does not name."""
    with running_issuer(
        tmp_path / "other", server={"port": 0, "token_issuer": provider.web.url}
    ) as other:
        admin = log_in(other, other.first_token)
        agent = write_agent(tmp_path / "agent", key=generate_signer_key(), now=datetime.now(UTC))
        register(other, admin, agent)
        identity = attest(other, agent, join_token_file(admin, agent))
        foreign = other.connect(identity).send(calls.jwt_svid(audience=[AUDIENCE])).token
    with pytest.raises(jwt.PyJWKClientError):
        provider.accept(foreign)


def test_documents_are_not_taken_from_another_name(provider: Provider) -> None:
    """Under a certificate that the Web CA did not make, a relying party reads nothing."""
    stranger = Web(provider.web.folder / "stranger", port=provider.web.port)
    keys = jwt.PyJWKClient(
        f"{provider.web.url}/.well-known/jwks.json", ssl_context=stranger.context()
    )
    with pytest.raises(jwt.PyJWKClientConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        keys.get_signing_key_from_jwt(provider.jwt_svid())

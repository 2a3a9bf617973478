"""PyJWT as a relying party that knows JWT and JWKS, and nothing of SPIFFE or Accredit."""

from typing import Any

import jwt
import pytest
from support.interop_world import World

from accredit_client import calls

AUDIENCE = "https://api.example.org"
TICKETS = "https://tickets.example.org"
REQUIRED = ["iss", "sub", "aud", "exp", "iat", "jti"]


def relying_party(world: World, token: str, *, audience: str, issuer: str) -> dict[str, Any]:
    """Verify as an OpenID Connect relying party does: key by kid, one algorithm, all claims."""
    jwks = world.running.connect().send(calls.unverified_bundle())
    keys = jwt.PyJWKSet.from_json(jwks.decode())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        algorithms=["ES256"],
        audience=audience,
        issuer=issuer,
        options={"require": REQUIRED, "verify_signature": True},
    )
    return claims


def jwt_svid(world: World) -> str:
    """A JWT-SVID over the wire."""
    answer = world.running.connect(world.identity).send(calls.jwt_svid(audience=[AUDIENCE]))
    return answer.token


def task_token(world: World, principal: str | None = None) -> str:
    """A task token over the wire."""
    wanted = calls.TaskTokenRequest(
        resource="tickets", actions=("read",), purpose="interop", principal=principal
    )
    return world.running.connect(world.identity).send(calls.task_token(wanted)).access_token


def test_a_jwt_svid_is_an_identity_token(world: World) -> None:
    """A relying party verifies our JWT-SVID with the keys of the bundle and all claims required."""
    issuer = world.running.issuer.config.url
    claims = relying_party(world, jwt_svid(world), audience=AUDIENCE, issuer=issuer)
    assert claims["sub"] == str(world.identity.svid.spiffe_id)


def test_a_task_token_is_an_access_token(world: World) -> None:
    """A resource server verifies our task token, and finds what RFC 9068 and RFC 8705 promise."""
    token = task_token(world, "user:maria@example.org")
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"
    claims = relying_party(world, token, audience=TICKETS, issuer=world.running.issuer.config.url)
    assert claims["sub"] == "user:maria@example.org"
    assert claims["client_id"] == claims["act"]["sub"] == str(world.identity.svid.spiffe_id)
    assert claims["scope"] == "tickets:read"
    assert claims["exp"] - claims["iat"] <= 300
    assert set(claims["cnf"]) == {"x5t#S256"}


def test_it_refuses_another_audience_and_another_issuer(world: World) -> None:
    """What was made for somebody else, or is said to be of somebody else, is refused."""
    issuer = world.running.issuer.config.url
    with pytest.raises(jwt.InvalidAudienceError):
        relying_party(world, jwt_svid(world), audience=TICKETS, issuer=issuer)
    with pytest.raises(jwt.InvalidIssuerError):
        relying_party(world, jwt_svid(world), audience=AUDIENCE, issuer="https://other.example")


def test_a_changed_token_is_refused(world: World) -> None:
    """One claim changed, and the signature does not hold."""
    header, _, signature = task_token(world).split(".")
    _, payload, _ = jwt_svid(world).split(".")
    with pytest.raises(jwt.InvalidSignatureError):
        relying_party(
            world,
            f"{header}.{payload}.{signature}",
            audience=AUDIENCE,
            issuer=world.running.issuer.config.url,
        )

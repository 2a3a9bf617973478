"""Times at the end of what can be said are refused, like any other time that is not now."""

from datetime import UTC, datetime

import pytest

from accredit_credentials import jws, task_token
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import Expired
from accredit_credentials.keys import generate_key
from accredit_credentials.spiffe_id import TrustDomain

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DOMAIN = TrustDomain.parse("b.example")
KEY = generate_key()
BUNDLE = TrustBundle(DOMAIN, (), {"k": KEY.public_key()}, 1)
AGENT = "spiffe://b.example/ns/a/agent/x"


def foreign(issued_at: int, expires_at: int) -> task_token.TaskToken:
    """Verify a token of another trust domain, made at and good until these seconds."""
    claims = {
        "iss": "spiffe://b.example",
        "sub": AGENT,
        "client_id": AGENT,
        "aud": "https://r.example.org",
        "jti": "j",
        "iat": issued_at,
        "exp": expires_at,
        "authorization_details": [
            {
                "type": "accredit:resource",
                "identifier": "r",
                "locations": ["l"],
                "actions": ["read"],
            }
        ],
        "task": {"id": "t", "purpose": "p"},
        "agent": {"version": "1", "instance": "i", "manifest": "m", "assurance": "self"},
    }
    return task_token.verify_foreign(
        jws.sign(claims, KEY, header={"kid": "k", "typ": "at+jwt"}),
        bundle=BUNDLE,
        own_issuer="https://own",
        audience="https://r.example.org",
        now=NOW,
    )


@pytest.mark.parametrize("issued_at", [jws.MAX_EPOCH, jws.MAX_EPOCH - 299])
def test_a_token_of_the_last_second(issued_at: int) -> None:
    """A foreign token that was made in the year 9999 is refused as any from the future."""
    with pytest.raises(Expired, match="is not valid before"):
        foreign(issued_at, jws.MAX_EPOCH)


def test_a_token_that_never_ends() -> None:
    """One that was made now and ends in the year 9999 is good for five minutes."""
    now = int(NOW.timestamp())
    assert foreign(now, jws.MAX_EPOCH).expires_at == NOW + task_token.MAX_FOREIGN_LIFE
    with pytest.raises(Expired):
        foreign(now - 400, jws.MAX_EPOCH)

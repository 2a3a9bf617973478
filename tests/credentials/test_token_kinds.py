"""One key signs several kinds of token: none of them passes for another."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from support.authority import INSTANCE, MANIFEST, NOW, Authority
from support.tokens import forge

from accredit_credentials import dpop, jwt_svid, revocation_feed, task_token
from accredit_credentials.errors import InvalidToken
from accredit_credentials.jwt_svid import AgentBlock
from accredit_credentials.keys import jwk_of

AUTHORITY = Authority()
ISSUER, AUDIENCE, METHOD = "https://issuer.example", "https://tickets.example", "POST"
DOMAIN_ID = str(AUTHORITY.trust_domain.id)

# One payload that satisfies every parser at once: only ``typ`` tells the kinds apart.
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "sub": str(AUTHORITY.id()),
    "client_id": str(AUTHORITY.id()),
    "aud": AUDIENCE,
    "jti": "0196f0a0-0000-7000-8000-0000000000ff",
    "iat": int(NOW.timestamp()),
    "exp": int((NOW + timedelta(minutes=5)).timestamp()),
    "authorization_details": [
        {
            "type": task_token.DETAIL_TYPE,
            "identifier": "tickets",
            "locations": [AUDIENCE],
            "actions": ["read"],
        }
    ],
    "task": {"id": "t", "purpose": "p", "ancestors": []},
    "agent": AgentBlock(
        version="1", instance=INSTANCE, manifest=MANIFEST, assurance="node"
    ).to_claim(),
    "after": 0,
    "through": 0,
    "facts": [],
    "htm": METHOD,
    "htu": AUDIENCE,
}
HEADERS: dict[str, dict[str, Any]] = {
    "JWT-SVID": {"kid": AUTHORITY.kid, "typ": "JWT"},
    "JWT-SVID as JOSE": {"kid": AUTHORITY.kid, "typ": "JOSE"},
    "JWT-SVID without typ": {"kid": AUTHORITY.kid},
    "task token": {"kid": AUTHORITY.kid, "typ": "at+jwt"},
    "statement": {"kid": AUTHORITY.kid, "typ": revocation_feed.TYPE},
    "DPoP proof": {"jwk": jwk_of(AUTHORITY.jwt_key.public_key()), "typ": "dpop+jwt"},
}
READERS: dict[str, Callable[[str], object]] = {
    "JWT-SVID": lambda token: jwt_svid.validate(
        token, bundles=AUTHORITY.bundles, audience=AUDIENCE, now=NOW
    ),
    "task token": lambda token: task_token.verify(
        token, bundle=AUTHORITY.bundle, issuer=ISSUER, audience=AUDIENCE, now=NOW
    ),
    "statement": lambda token: revocation_feed.verify(token, bundle=AUTHORITY.bundle),
    "DPoP proof": lambda token: dpop.verify_proof(
        token, method=METHOD, url=AUDIENCE, access_token=None, now=NOW
    ),
}


@pytest.mark.spec("SPIFFE-28")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", HEADERS)
def test_each_reader_reads_its_own_kind_only(kind: str, reader: str) -> None:
    """The full matrix: a token that says everything is read by the reader of its type alone."""
    issuer = DOMAIN_ID if reader == "statement" else ISSUER
    header = {"alg": "ES256", **HEADERS[kind]}
    token = forge(header, {**CLAIMS, "iss": issuer}, AUTHORITY.jwt_key)
    if kind.startswith(reader):
        READERS[reader](token)
    else:
        with pytest.raises(InvalidToken, match="header"):
            READERS[reader](token)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", HEADERS)
def test_no_reader_takes_another_kind_with_its_own_header(kind: str, reader: str) -> None:
    """Changing ``typ`` after the signature breaks the signature."""
    header = {"alg": "ES256", **HEADERS[kind]}
    own = next(h for name, h in HEADERS.items() if name.startswith(reader))
    if own == HEADERS[kind]:
        return
    token = forge(header, CLAIMS, AUTHORITY.jwt_key)
    relabelled = forge({"alg": "ES256", **own}, CLAIMS, AUTHORITY.jwt_key)
    swapped = f"{relabelled.rpartition('.')[0]}.{token.rpartition('.')[2]}"
    with pytest.raises(Exception, match="signature"):
        READERS[reader](swapped)

"""One key signs several kinds of token: none of them passes for another."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from support.authority import INSTANCE, MANIFEST, NOW, Authority
from support.tokens import forge

from accredit_credentials import (
    dpop,
    jwt_svid,
    revocation_feed,
    security_event,
    status_list,
    task_token,
    wit_svid,
    workload_proof,
)
from accredit_credentials.errors import InvalidToken
from accredit_credentials.jwt_svid import AgentBlock
from accredit_credentials.keys import jwk_of
from accredit_credentials.wit_svid import UnprovenWit, WitSvid

AUTHORITY = Authority()
ISSUER, AUDIENCE, METHOD = "https://issuer.example", "https://tickets.example", "POST"
DOMAIN_ID = str(AUTHORITY.trust_domain.id)
PUBLIC = AUTHORITY.jwt_key.public_key()
# A trust domain that takes its JWT key for WIT-SVIDs, too, as none should: the type still decides.
SHARED = replace(AUTHORITY.bundle, wit_authorities={AUTHORITY.kid: PUBLIC})
WIT = UnprovenWit(
    claimed=WitSvid(spiffe_id=AUTHORITY.id(), key=PUBLIC, algorithm="ES256", expires_at=NOW),
    token_hash="hash",
)

# One payload that satisfies every parser at once (but for what some forbid, see ``payload``):
# only ``typ`` tells the kinds apart.
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
    "wth": WIT.token_hash,
    "ttl": 30,
    "status_list": {"bits": 2, "lst": "eNo76fITAAPfAgc"},
    "sub_id": {"format": "opaque", "id": "task:t"},
    "events": {security_event.SESSION_REVOKED: {}},
}
HEADERS: dict[str, dict[str, Any]] = {
    "JWT-SVID": {"kid": AUTHORITY.kid, "typ": "JWT"},
    "JWT-SVID as JOSE": {"kid": AUTHORITY.kid, "typ": "JOSE"},
    "JWT-SVID without typ": {"kid": AUTHORITY.kid},
    "task token": {"kid": AUTHORITY.kid, "typ": "at+jwt"},
    "statement": {"kid": AUTHORITY.kid, "typ": revocation_feed.TYPE},
    "status list": {"kid": AUTHORITY.kid, "typ": status_list.TYPE},
    "DPoP proof": {"jwk": jwk_of(PUBLIC), "typ": "dpop+jwt"},
    "WIT-SVID": {"kid": AUTHORITY.kid, "typ": "wit+jwt"},
    "workload proof": {"typ": "wpt+jwt"},
    "security event": {"kid": AUTHORITY.kid, "typ": "secevent+jwt"},
}
READERS: dict[str, Callable[[str], object]] = {
    "JWT-SVID": lambda token: jwt_svid.validate(
        token, bundles=AUTHORITY.bundles, audience=AUDIENCE, now=NOW
    ),
    "task token": lambda token: task_token.verify(
        token, bundle=AUTHORITY.bundle, issuer=ISSUER, audience=AUDIENCE, now=NOW
    ),
    "statement": lambda token: revocation_feed.verify(token, bundle=AUTHORITY.bundle),
    "status list": lambda token: status_list.verify(
        token, bundle=AUTHORITY.bundle, issuer=ISSUER, uri=str(AUTHORITY.id()), now=NOW
    ),
    "DPoP proof": lambda token: dpop.verify_proof(
        token, method=METHOD, url=AUDIENCE, access_token=None, now=NOW
    ),
    "WIT-SVID": lambda token: wit_svid.validate(
        token, bundles={AUTHORITY.trust_domain: SHARED}, now=NOW
    ),
    "workload proof": lambda token: workload_proof.verify_proof(
        token, WIT, audience=AUDIENCE, now=NOW, max_lifetime=600
    ),
    "security event": lambda token: security_event.verify(
        token, issuer=ISSUER, audience=AUDIENCE, authorities=AUTHORITY.bundle.jwt_authorities
    ),
}


def payload(reader: str) -> dict[str, Any]:
    """What a reader takes, if only the type is its own."""
    if reader == "statement":
        return {**CLAIMS, "iss": DOMAIN_ID}
    if reader == "WIT-SVID":
        borne_by_nobody = {name: value for name, value in CLAIMS.items() if name != "aud"}
        return {**borne_by_nobody, "cnf": {"jwk": {**jwk_of(PUBLIC), "alg": "ES256"}}}
    if reader == "security event":
        return {name: value for name, value in CLAIMS.items() if name not in {"sub", "exp"}}
    return CLAIMS


@pytest.mark.spec("SPIFFE-28")
@pytest.mark.spec("SPIFFE-37")
@pytest.mark.spec("SPIFFE-48")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", HEADERS)
def test_each_reader_reads_its_own_kind_only(kind: str, reader: str) -> None:
    """The full matrix: a token that says everything is read by the reader of its type alone."""
    header = {"alg": "ES256", **HEADERS[kind]}
    token = forge(header, payload(reader), AUTHORITY.jwt_key)
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

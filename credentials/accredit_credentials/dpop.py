"""DPoP: proof that the sender of one request holds the key that its token is bound to (RFC 9449).

``create_proof`` for clients; ``verify_proof`` for servers decides everything of §4.3 except
whether the ``jti`` was seen before: the caller keeps that memory (``DpopProof.jti``, for as long
as ``max_age``).
"""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from hmac import compare_digest
from urllib.parse import urlsplit

from accredit_credentials import jws
from accredit_credentials.errors import Expired, InvalidKey, InvalidToken, WrongHolder
from accredit_credentials.keys import (
    PrivateKey,
    b64url,
    check_public_key,
    jwk_of,
    jwk_thumbprint,
    key_of_jwk,
)

TYPES: frozenset[str | None] = frozenset({"dpop+jwt"})
MAX_PROOF_BYTES = 4 * 1024
MAX_AGE = 60.0  # seconds
CLOCK_LEEWAY = 5.0  # seconds that a proof may come from the future

_DEFAULT_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class DpopProof:
    """A verified proof: the thumbprint of its key, and its id for the replay memory."""

    key_thumbprint: str
    jti: str = field(repr=False)
    issued_at: datetime


def create_proof(
    key: PrivateKey,
    *,
    method: str,
    url: str,
    access_token: str | None,
    jti: str,
    now: datetime,
) -> str:
    """Make a proof for one request (§4.2); ``jti`` must be fresh and unguessable."""
    claims = {"jti": jti, "htm": method, "htu": _target(url), "iat": jws.epoch(now)}
    if access_token is not None:
        claims["ath"] = token_hash(access_token)
    jwk = jwk_of(check_public_key(key.public_key()))
    return jws.sign(claims, key, header={"typ": "dpop+jwt", "jwk": jwk})


def verify_proof(
    proof: str,
    *,
    method: str,
    url: str,
    access_token: str | None,
    now: datetime,
    max_age: float = MAX_AGE,
) -> DpopProof:
    """Decide whether ``proof`` was made for this request, this token and this moment (§4.3).

    Raises:
        InvalidToken: not of the form of a proof.
        Untrusted: the signature is not of the key inside.
        WrongHolder: made for another method, address or token.
        Expired: older than ``max_age`` seconds, or from the future.
    """
    unverified = jws.parse(
        proof, types=TYPES, extra_header=frozenset({"jwk"}), limit=MAX_PROOF_BYTES
    )
    jwk = unverified.header.get("jwk")
    if not isinstance(jwk, dict):
        raise InvalidToken("DPoP proof must carry its public key as 'jwk'")
    try:
        key = key_of_jwk(jwk)
    except InvalidKey as error:
        raise InvalidToken(f"DPoP proof's key: {error}") from None
    jws.verify(unverified, key)
    claims = unverified.claims
    if jws.text_claim(claims, "htm") != method:
        raise WrongHolder("DPoP proof was made for another method")
    if _target(jws.text_claim(claims, "htu")) != _target(url):
        raise WrongHolder("DPoP proof was made for another address")
    if access_token is not None and not compare_digest(
        jws.text_claim(claims, "ath").encode(), token_hash(access_token).encode()
    ):
        raise WrongHolder("DPoP proof was made for another token")
    issued_at = jws.time_claim(claims, "iat")
    age = (now - issued_at).total_seconds()
    if not -CLOCK_LEEWAY <= age <= max_age:
        raise Expired(f"DPoP proof must be at most {max_age:.0f} seconds old")
    return DpopProof(jwk_thumbprint(key), jws.text_claim(claims, "jti"), issued_at)


def token_hash(access_token: str) -> str:
    """The claim ``ath``: base64url SHA-256 of the token (§4.2)."""
    return b64url(hashlib.sha256(access_token.encode()).digest())


def _target(url: str) -> str:
    """The address without query and fragment, in one spelling of scheme, host and port (§4.3)."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise InvalidToken("DPoP proof's address is not a URL") from None
    scheme = parts.scheme.lower()
    authority = f"[{host}]" if ":" in host else host
    if port is not None and port != _DEFAULT_PORTS.get(scheme):
        authority += f":{port}"
    return f"{scheme}://{authority}{parts.path or '/'}"

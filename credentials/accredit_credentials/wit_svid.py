"""WIT-SVIDs: make them, and decide whether one is good now. A WIT alone authenticates nobody.

A WIT-SVID says which key is whose. Anyone may have seen it, so ``validate`` returns an
``UnprovenWit``: who shows it has to prove that it holds that key, and ``workload_proof`` decides
that (WIT-SVID §4, §7.1). In order: form and header (§2), subject (§3.1), that the subject's own
trust domain signed it with a key for WITs (§6.2), no audience (§3.8), the key (§3.2), time (§3.4 to
§3.6: ``iat`` limits nothing).

``sign`` writes what ``claims_of`` lists: no ``iss``, which would let a relying party of OpenID
Connect find our keys and take the token for one of its own (§3.7), and no ``aud``.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from accredit_credentials import jws
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import InvalidKey, InvalidSpiffeId, InvalidToken, Untrusted
from accredit_credentials.jwt_svid import CLOCK_LEEWAY, AgentBlock, token_marks
from accredit_credentials.keys import (
    PrivateKey,
    PublicKey,
    b64url,
    jwk_of,
    jws_algorithms,
    key_of_jwk,
)
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain

TYPE = "wit+jwt"
TYPES: frozenset[str | None] = frozenset({TYPE})


@dataclass(frozen=True, slots=True, kw_only=True)
class WitSvid:
    """What a WIT-SVID says.

    Attributes:
        key: of the workload; whoever holds its private part is ``spiffe_id``.
        algorithm: the only one that a proof of possession may be made with.
        issued_at: for the records; nothing is decided by it.
    """

    spiffe_id: SpiffeId
    key: PublicKey = field(repr=False)
    algorithm: str
    expires_at: datetime
    not_before: datetime | None = None
    issued_at: datetime | None = None
    jti: str | None = None
    agent: AgentBlock | None = None
    authority: str | None = None

    def marks(self) -> tuple[str, ...]:
        """What a revocation fact can match: ``kind:value`` texts, see ``revocation``."""
        return token_marks(self.spiffe_id, self.jti, self.authority, self.agent)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnprovenWit:
    """A WIT-SVID that is good now, shown by nobody knows whom.

    Attributes:
        claimed: what it says. It holds for who proves possession of ``claimed.key``.
        token_hash: what a proof names it by (``wth``).
    """

    claimed: WitSvid
    token_hash: str


def claims_of(svid: WitSvid) -> dict[str, Any]:
    """The claims that ``sign`` writes (WIT-SVID §3)."""
    claims: dict[str, Any] = {
        "sub": str(svid.spiffe_id),
        "exp": jws.epoch(svid.expires_at),
        "cnf": {"jwk": {**jwk_of(svid.key), "alg": svid.algorithm}},
    }
    if svid.not_before is not None:
        claims["nbf"] = jws.epoch(svid.not_before)
    if svid.issued_at is not None:
        claims["iat"] = jws.epoch(svid.issued_at)
    if svid.jti is not None:
        claims["jti"] = svid.jti
    if svid.agent is not None:
        claims["agent"] = svid.agent.to_claim()
    return claims


def sign(svid: WitSvid, key: PrivateKey, kid: str) -> str:
    """Sign a WIT-SVID; the header has ``alg``, ``kid`` and ``typ`` only (WIT-SVID §2)."""
    return jws.sign(claims_of(svid), key, header={"kid": kid, "typ": TYPE})


def token_hash(token: str) -> str:
    """What a proof names a WIT by: base64url SHA-256 of its text (draft-ietf-wimse-wpt §2)."""
    return b64url(hashlib.sha256(token.encode()).digest())


def validate(
    token: str,
    *,
    bundles: Mapping[TrustDomain, TrustBundle],
    now: datetime,
    leeway: float = CLOCK_LEEWAY,
) -> UnprovenWit:
    """Decide whether a WIT-SVID is good at ``now``: not whether its sender is who it names.

    Raises:
        InvalidToken: not of the form of a WIT-SVID.
        Untrusted: the subject's trust domain did not sign it.
        Expired: ``now`` is outside its validity.
    """
    unverified = jws.parse(token, types=TYPES, ignores_unknown=True)
    claims = unverified.claims
    try:
        subject = SpiffeId.parse(jws.text_claim(claims, "sub"))
    except InvalidSpiffeId as error:
        raise InvalidToken(f"token's subject: {error}") from None
    bundle = bundles.get(subject.trust_domain)
    if bundle is None or not bundle.wit_authorities:
        raise Untrusted(f"no WIT authorities known for {subject.trust_domain}")
    authority = jws.verify_with(unverified, bundle.wit_authorities)
    if "aud" in claims:
        raise InvalidToken("WIT-SVID must not have the claim 'aud'")
    key, algorithm = _confirmed_key(claims)
    svid = WitSvid(
        spiffe_id=subject,
        key=key,
        algorithm=algorithm,
        expires_at=jws.time_claim(claims, "exp"),
        not_before=jws.time_claim(claims, "nbf") if "nbf" in claims else None,
        issued_at=jws.time_claim(claims, "iat") if "iat" in claims else None,
        jti=jws.optional_text_claim(claims, "jti"),
        agent=AgentBlock.of_claim(claims["agent"]) if "agent" in claims else None,
        authority=authority,
    )
    jws.check_time(not_before=svid.not_before, expires_at=svid.expires_at, now=now, leeway=leeway)
    return UnprovenWit(claimed=svid, token_hash=token_hash(token))


def _confirmed_key(claims: Mapping[str, Any]) -> tuple[PublicKey, str]:
    """The key in ``cnf`` and its one algorithm; members beside ``jwk`` mean nothing (RFC 7800)."""
    confirmation = claims.get("cnf")
    jwk = confirmation.get("jwk") if isinstance(confirmation, dict) else None
    if not isinstance(jwk, dict):
        raise InvalidToken("WIT-SVID must have the workload's public key as cnf.jwk")
    try:
        key = key_of_jwk(jwk)
    except InvalidKey as error:
        raise InvalidToken(f"WIT-SVID's cnf.jwk: {error}") from None
    algorithm = jwk.get("alg")
    if not isinstance(algorithm, str) or algorithm not in jws_algorithms(key):
        raise InvalidToken("WIT-SVID's cnf.jwk must have an 'alg' that goes with its key")
    return key, algorithm

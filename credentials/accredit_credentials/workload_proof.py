"""Workload Proof Tokens: that the sender of a request holds the key of its WIT-SVID.

draft-ietf-wimse-wpt-02. ``create_proof`` for workloads; ``verify_proof`` for who is called: it
takes a WIT that was found good (``wit_svid.validate``) and returns whose request it is. In order:
form and header, the algorithm that the WIT prescribes, signature, audience, the very WIT, time.
Whether the ``jti`` was seen before is the caller's to remember, until ``ProvenWit.proof_ends``.

A proof is for one request to one audience, which the caller knows from its own settings and never
from the request. What a request carries beside it (method, body, other tokens) is not protected.
"""

from dataclasses import dataclass, field
from datetime import datetime
from hmac import compare_digest

from accredit_credentials import jws
from accredit_credentials.errors import Expired, InvalidToken, Untrusted, WrongAudience, WrongHolder
from accredit_credentials.keys import PrivateKey
from accredit_credentials.wit_svid import UnprovenWit, WitSvid, token_hash

TYPE = "wpt+jwt"
TYPES: frozenset[str | None] = frozenset({TYPE})
MAX_PROOF_BYTES = 4 * 1024
LIFETIME = 30.0  # seconds that a proof is made for
MAX_LIFETIME = 60.0  # seconds from now on that one may be good for
CLOCK_LEEWAY = 5.0  # seconds that the sender's clock may be ahead

# Claims that bind other tokens of the request (§2; ``ath`` until -01). We look at none of those.
_OTHER_TOKENS = ("ath", "oth", "tth")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenWit:
    """Whose request it is: the WIT's key was used for it.

    Attributes:
        svid: what the WIT says, now of its sender.
        proof_id: of the proof, for the memory of those that were seen.
        proof_ends: until when to remember it.
    """

    svid: WitSvid
    proof_id: str = field(repr=False)
    proof_ends: datetime


def create_proof(
    key: PrivateKey, *, wit: str, audience: str, jti: str, expires_at: datetime
) -> str:
    """Make a proof for one request (§2).

    Args:
        key: the private key of the WIT.
        wit: the WIT-SVID that is sent with it.
        audience: the target URI without query and fragment, or what the callee has agreed on.
        jti: fresh and unguessable.
        expires_at: ``LIFETIME`` from now.
    """
    claims = {
        "aud": audience,
        "exp": jws.epoch(expires_at),
        "jti": jti,
        "wth": token_hash(wit),
    }
    return jws.sign(claims, key, header={"typ": TYPE})


def verify_proof(
    proof: str,
    wit: UnprovenWit,
    *,
    audience: str,
    now: datetime,
    max_lifetime: float = MAX_LIFETIME,
) -> ProvenWit:
    """Decide whether ``proof`` was made with the WIT's key, for this audience and this moment.

    Raises:
        InvalidToken: not of the form of a proof, or it speaks of other tokens.
        WrongHolder: made with another key or algorithm, or for another WIT.
        WrongAudience: made for somebody else, or for others, too.
        Expired: over, or good for longer than a proof may be.
    """
    unverified = jws.parse(proof, types=TYPES, limit=MAX_PROOF_BYTES)
    claimed = wit.claimed
    if unverified.header["alg"] != claimed.algorithm:
        raise WrongHolder(f"proof must be made with {claimed.algorithm}, as its WIT-SVID says")
    try:
        jws.verify(unverified, claimed.key)
    except Untrusted:
        raise WrongHolder("proof's signature is not of the key of its WIT-SVID") from None
    claims = unverified.claims
    if jws.audience_claim(claims) != (audience,):
        raise WrongAudience("proof must be made for this audience alone")
    if not compare_digest(jws.text_claim(claims, "wth").encode(), wit.token_hash.encode()):
        raise WrongHolder("proof was made for another WIT-SVID")
    if unread := [name for name in _OTHER_TOKENS if name in claims]:
        raise InvalidToken(f"proof binds other tokens, which nobody looks at: {', '.join(unread)}")
    ends = jws.time_claim(claims, "exp")
    jws.check_time(not_before=None, expires_at=ends, now=now, leeway=0.0)
    if (ends - now).total_seconds() > max_lifetime + CLOCK_LEEWAY:
        raise Expired(f"proof must be good for at most {max_lifetime:.0f} seconds")
    return ProvenWit(svid=claimed, proof_id=jws.text_claim(claims, "jti"), proof_ends=ends)

"""JWT-SVIDs: make them, and decide whether one is valid now.

``validate`` decides, in order: form and header (JWT-SVID §2), subject (§3.1), that the subject's
own trust domain signed it (§4), audience (§3.2), time (§3.3). ``sign`` writes what ``claims_of``
lists: the claims of the specification plus ``iss``, ``iat`` and ``jti``, so that OIDC relying
parties accept it, and Accredit's ``agent`` block.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from accredit_credentials import jws
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import (
    InvalidSpiffeId,
    InvalidToken,
    Untrusted,
    WrongAudience,
)
from accredit_credentials.keys import PrivateKey
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain
from accredit_credentials.x509_svid import identity_marks

TYPES: frozenset[str | None] = frozenset({None, "JWT", "JOSE"})
CLOCK_LEEWAY = 10.0  # seconds that a validator's clock may be behind the issuer's


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentBlock:
    """What Accredit says about the agent in every token it signs (claim ``agent``).

    Attributes:
        version: the manifest's version of the agent.
        instance: the running process, a UUID.
        manifest: ``sha256:<hex>`` of the manifest.
        assurance: who measured it: self, node, platform or hardware.
    """

    version: str
    instance: str
    manifest: str
    assurance: str

    def to_claim(self) -> dict[str, str]:
        """The claim's value."""
        return {
            "version": self.version,
            "instance": self.instance,
            "manifest": self.manifest,
            "assurance": self.assurance,
        }

    @classmethod
    def of_claim(cls, value: object) -> "AgentBlock":
        """Read the claim's value.

        Raises:
            InvalidToken: a member is missing or not a text.
        """
        if not isinstance(value, dict):
            raise InvalidToken("token must have the claim 'agent', an object")
        return cls(
            version=jws.text_claim(value, "version"),
            instance=jws.text_claim(value, "instance"),
            manifest=jws.text_claim(value, "manifest"),
            assurance=jws.text_claim(value, "assurance"),
        )

    def marks(self) -> tuple[str, str]:
        """What a revocation fact can match."""
        return (f"instance:{self.instance}", f"manifest:{self.manifest}")


def token_marks(
    spiffe_id: SpiffeId, jti: str | None, authority: str | None, agent: AgentBlock | None
) -> tuple[str, ...]:
    """What a revocation fact can match of an identity token, as far as it says it."""
    marks = list(identity_marks(spiffe_id))
    if jti:
        marks.append(f"jti:{jti}")
    if authority:
        marks.append(f"authority:{authority}")
    if agent:
        marks.extend(agent.marks())
    return tuple(marks)


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtSvid:
    """A JWT-SVID that was verified, or that is to be signed."""

    spiffe_id: SpiffeId
    audience: tuple[str, ...]
    expires_at: datetime
    issued_at: datetime | None = None
    issuer: str | None = None
    jti: str | None = None
    agent: AgentBlock | None = None
    authority: str | None = None

    def marks(self) -> tuple[str, ...]:
        """What a revocation fact can match: ``kind:value`` texts, see ``revocation``."""
        return token_marks(self.spiffe_id, self.jti, self.authority, self.agent)


def claims_of(svid: JwtSvid) -> dict[str, Any]:
    """The claims that ``sign`` writes (JWT-SVID §3)."""
    claims: dict[str, Any] = {
        "sub": str(svid.spiffe_id),
        "aud": list(svid.audience),
        "exp": jws.epoch(svid.expires_at),
    }
    if svid.issuer is not None:
        claims["iss"] = svid.issuer
    if svid.issued_at is not None:
        claims["iat"] = jws.epoch(svid.issued_at)
    if svid.jti is not None:
        claims["jti"] = svid.jti
    if svid.agent is not None:
        claims["agent"] = svid.agent.to_claim()
    return claims


def sign(svid: JwtSvid, key: PrivateKey, kid: str) -> str:
    """Sign a JWT-SVID; the header has ``alg``, ``kid`` and ``typ`` only (JWT-SVID §2)."""
    return jws.sign(claims_of(svid), key, header={"kid": kid, "typ": "JWT"})


def validate(
    token: str,
    *,
    bundles: Mapping[TrustDomain, TrustBundle],
    audience: str,
    now: datetime,
    leeway: float = CLOCK_LEEWAY,
) -> JwtSvid:
    """Decide whether a JWT-SVID is valid for ``audience`` at ``now`` (JWT-SVID §4).

    Raises:
        InvalidToken: not of the form of a JWT-SVID.
        Untrusted: the subject's trust domain did not sign it.
        WrongAudience: made for somebody else.
        Expired: ``now`` is outside its validity.
    """
    unverified = jws.parse(token, types=TYPES)
    claims = unverified.claims
    try:
        subject = SpiffeId.parse(jws.text_claim(claims, "sub"))
    except InvalidSpiffeId as error:
        raise InvalidToken(f"token's subject: {error}") from None
    bundle = bundles.get(subject.trust_domain)
    if bundle is None or not bundle.jwt_authorities:
        raise Untrusted(f"no JWT authorities known for {subject.trust_domain}")
    authority = jws.verify_with(unverified, bundle.jwt_authorities)
    svid = JwtSvid(
        spiffe_id=subject,
        audience=jws.audience_claim(claims),
        expires_at=jws.time_claim(claims, "exp"),
        issued_at=jws.time_claim(claims, "iat") if "iat" in claims else None,
        issuer=jws.optional_text_claim(claims, "iss"),
        jti=jws.optional_text_claim(claims, "jti"),
        agent=AgentBlock.of_claim(claims["agent"]) if "agent" in claims else None,
        authority=authority,
    )
    if audience not in svid.audience:
        raise WrongAudience("token was made for another audience")
    not_before = jws.time_claim(claims, "nbf") if "nbf" in claims else svid.issued_at
    jws.check_time(not_before=not_before, expires_at=svid.expires_at, now=now, leeway=leeway)
    return svid

"""Token introspection (RFC 7662): is this token good now, and may you be told?

For resource servers that cannot follow the feed and must not be late, one question a request. Both
halves have one answer, ``active: false``: a token that is over, forged, revoked, suspended, not
recorded or somebody else's is told from another by nobody (§2.2). In order: form, signature, issuer
and time → may the caller see it (``may_see``) → is this very text what was released → do the facts
stand against it. Of task tokens and JWT-SVIDs; whoever holds it is the caller's to check, by
``cnf``.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from hmac import compare_digest
from typing import Any

from sqlalchemy import select

from accredit_credentials import jws, jwt_svid, task_token
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import CredentialError, InvalidToken
from accredit_credentials.jwt_svid import JwtSvid
from accredit_credentials.spiffe_id import SpiffeId
from accredit_credentials.task_token import BindingKind, TaskToken
from accredit_issuer.authority.authorities import Authorities
from accredit_issuer.revocation.revocation import Revocation
from accredit_issuer.settings import Config
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import credentials, releases

Token = TaskToken | JwtSvid

_KINDS = {TaskToken: "task", JwtSvid: "jwt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """Who asks, as far as it decides what it may see.

    Attributes:
        audiences: those that it answers for; its own SPIFFE ID is one.
        namespaces: those whose agents it may read about, as an admin; None is all.
    """

    audiences: frozenset[str]
    namespaces: tuple[str, ...] | None = ()


def may_see(viewer: Viewer, token: Token) -> bool:
    """Decide whether somebody may be told of a token: one made for it, or by an agent it reads of.

    Default deny: an agent learns nothing of tokens that are for others, its own included.
    """
    if not viewer.audiences.isdisjoint(_audiences(token)):
        return True
    if viewer.namespaces is None:
        return True
    match _agent(token).segments:
        case ("ns", namespace, "agent", *_):
            return namespace in viewer.namespaces
    return False


def answer_about(token: Token) -> dict[str, Any]:
    """What is told of a good token (§2.2): what it says, and what RFC 7662 has names for."""
    if isinstance(token, TaskToken):
        dpop = token.binding.kind is BindingKind.DPOP_KEY
        return {
            "active": True,
            "token_type": "DPoP" if dpop else "Bearer",
            **task_token.claims_of(token),
        }
    return {
        "active": True,
        "token_type": "Bearer",
        "client_id": str(token.spiffe_id),
        **jwt_svid.claims_of(token),
    }


def inactive() -> dict[str, Any]:
    """All that is told of any other (§2.2)."""
    return {"active": False}


class Introspection:
    """Answers about tokens of this issuer."""

    def __init__(
        self, config: Config, database: Database, authorities: Authorities, revocation: Revocation
    ) -> None:
        self._issuer = config.token_issuer
        self._database = database
        self._authorities = authorities
        self._revocation = revocation

    def introspect(self, unverified: str, viewer: Viewer, now: datetime) -> dict[str, Any]:
        """What this viewer is told of this text."""
        try:
            token = verified(unverified, self._authorities.now_in_force.bundle, self._issuer, now)
        except CredentialError:
            return inactive()
        if (
            not may_see(viewer, token)
            or not self._is_released(unverified, token)
            or self._revocation.facts.match(token.marks()) is not None
        ):
            return inactive()
        return answer_about(token)

    def _is_released(self, text: str, token: Token) -> bool:
        """Whether this very token was released: a key that was stolen signs others, too."""
        query = (
            select(releases.c.sha256)
            .join_from(credentials, releases, releases.c.number == credentials.c.number)
            .where(credentials.c.id == token.jti, credentials.c.kind == _KINDS[type(token)])
        )
        with self._database.read() as connection:
            digest = connection.execute(query).scalar()
        return digest is not None and compare_digest(digest, hashlib.sha256(text.encode()).digest())


def verified(text: str, bundle: TrustBundle, issuer: str, now: datetime) -> Token:
    """A token of this issuer for whomever it is, at its time.

    Raises:
        CredentialError: it is none.
    """
    unverified = jws.parse(text, types=task_token.TYPES | jwt_svid.TYPES)
    audience = jws.audience_claim(unverified.claims)[0]
    if unverified.header.get("typ") in task_token.TYPES:
        return task_token.verify(text, bundle=bundle, issuer=issuer, audience=audience, now=now)
    bundles = {bundle.trust_domain: bundle}
    svid = jwt_svid.validate(text, bundles=bundles, audience=audience, now=now)
    if svid.issuer != issuer or svid.jti is None:
        raise InvalidToken(f"token must be of the issuer {issuer}, and have a jti")
    return svid


def _audiences(token: Token) -> frozenset[str]:
    audience = token.audience
    return frozenset({audience} if isinstance(audience, str) else audience)


def _agent(token: Token) -> SpiffeId:
    return token.client if isinstance(token, TaskToken) else token.spiffe_id

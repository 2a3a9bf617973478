"""Task tokens: one agent, one task, one audience, the actions that were granted, one holder.

An RFC 9068 access token (``typ: at+jwt``) with RFC 9396 ``authorization_details``, bound to its
holder by ``cnf`` (RFC 8705 §3.1 or RFC 9449 §6.1). A resource server decides in this order:
``verify`` (form, signature, issuer, audience, time), ``check_holder`` (who presents it),
``check_grant`` (what it may do), and its revocation facts against ``TaskToken.marks``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from hmac import compare_digest
from typing import Any, TypeGuard

from accredit_credentials import jws
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import (
    InvalidSpiffeId,
    InvalidToken,
    NotGranted,
    Untrusted,
    WrongAudience,
    WrongHolder,
)
from accredit_credentials.jwt_svid import CLOCK_LEEWAY, AgentBlock
from accredit_credentials.keys import PrivateKey
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain
from accredit_credentials.status_list import StatusReference
from accredit_credentials.x509_svid import identity_marks

TYPES: frozenset[str | None] = frozenset({"at+jwt"})
DETAIL_TYPE = "accredit:resource"
MAX_DEPTH = 8
MAX_GRANTS = 32
MAX_FOREIGN_LIFE = timedelta(minutes=5)  # of a token that another trust domain made


class BindingKind(StrEnum):
    """How the holder shows that the token is its own."""

    CERTIFICATE = "x5t#S256"  # the TLS client certificate, RFC 8705 §3.1
    DPOP_KEY = "jkt"  # the key of a DPoP proof, RFC 9449 §6.1
    BEARER = "bearer"  # nothing: only where the manifest allows it


@dataclass(frozen=True, slots=True)
class Binding:
    """The one holder of a token; ``thumbprint`` is base64url SHA-256, empty for bearer."""

    kind: BindingKind
    thumbprint: str = ""


BEARER = Binding(BindingKind.BEARER)
_CONFIRMATIONS = {kind.value: kind for kind in (BindingKind.CERTIFICATE, BindingKind.DPOP_KEY)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """What came with a request: thumbprints of what its sender proved to hold.

    Attributes:
        certificate: of the TLS client certificate, if the handshake had one.
        dpop_key: of the key of a verified DPoP proof, if the request had one.
    """

    certificate: str | None = None
    dpop_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Actions on one declared resource at one location."""

    resource: str
    location: str
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One piece of work.

    Attributes:
        id: a UUID.
        purpose: what it is for, in the caller's words.
        ancestors: the ids of its parents, the first task first; empty for a first task.
    """

    id: str
    purpose: str
    ancestors: tuple[str, ...] = ()

    @property
    def parent(self) -> str | None:
        """The id of the task that this one was made for."""
        return self.ancestors[-1] if self.ancestors else None

    @property
    def depth(self) -> int:
        """How many tasks stand above it."""
        return len(self.ancestors)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskToken:
    """A task token that was verified, or that is to be signed.

    ``status`` is for whoever asks a Token Status List; who follows the feed needs none.
    """

    issuer: str
    principal: str
    client: SpiffeId
    audience: str
    jti: str
    issued_at: datetime
    expires_at: datetime
    grants: tuple[Grant, ...]
    task: Task
    agent: AgentBlock
    binding: Binding
    authority: str | None = None
    status: StatusReference | None = None

    @property
    def scope(self) -> str:
        """The grants as an OAuth scope: ``resource:action``, separated by spaces."""
        return " ".join(f"{g.resource}:{action}" for g in self.grants for action in g.actions)

    def marks(self) -> tuple[str, ...]:
        """What a revocation fact can match: ``kind:value`` texts, see ``revocation``."""
        authority = (f"authority:{self.authority}",) if self.authority else ()
        return (
            f"jti:{self.jti}",
            f"task:{self.task.id}",
            *(f"task:{ancestor}" for ancestor in self.task.ancestors),
            *self.agent.marks(),
            *identity_marks(self.client),
            *authority,
        )


def claims_of(token: TaskToken) -> dict[str, Any]:
    """The claims that ``sign`` writes (RFC 9068 §2.2, RFC 9396 §9.1, RFC 8693 §4.1)."""
    claims: dict[str, Any] = {
        "iss": token.issuer,
        "sub": token.principal,
        "client_id": str(token.client),
        "aud": token.audience,
        "jti": token.jti,
        "iat": jws.epoch(token.issued_at),
        "exp": jws.epoch(token.expires_at),
        "scope": token.scope,
        "authorization_details": [
            {
                "type": DETAIL_TYPE,
                "identifier": grant.resource,
                "locations": [grant.location],
                "actions": list(grant.actions),
            }
            for grant in token.grants
        ],
        "task": {
            "id": token.task.id,
            "purpose": token.task.purpose,
            "parent": token.task.parent,
            "depth": token.task.depth,
            "ancestors": list(token.task.ancestors),
        },
        "agent": token.agent.to_claim(),
    }
    if token.principal != str(token.client):
        claims["act"] = {
            "sub": str(token.client),
            "iss": token.issuer,
            "sub_profile": "ai_agent",
        }
    if token.binding.kind is not BindingKind.BEARER:
        claims["cnf"] = {token.binding.kind.value: token.binding.thumbprint}
    if token.status is not None:
        claims["status"] = token.status.to_claim()
    return claims


def sign(token: TaskToken, key: PrivateKey, kid: str) -> str:
    """Sign a task token."""
    return jws.sign(claims_of(token), key, header={"kid": kid, "typ": "at+jwt"})


def verify(
    token: str,
    *,
    bundle: TrustBundle,
    issuer: str,
    audience: str,
    now: datetime,
    leeway: float = CLOCK_LEEWAY,
) -> TaskToken:
    """Decide whether ``issuer`` made this token for ``audience`` and its time is now.

    Says nothing yet about who presents it, what it may do, or revocation.

    Raises:
        InvalidToken: not of the form of a task token.
        Untrusted: another issuer, or no authority of the bundle signed it.
        WrongAudience: made for somebody else.
        Expired: ``now`` is outside its validity.
    """
    verified = _signed_by(bundle, jws.parse(token, types=TYPES))
    if verified.issuer != issuer:
        raise Untrusted(f"token must be of the issuer {issuer}")
    _check_made_for(verified, audience, now, leeway)
    return verified


def unverified_trust_domain(token: str) -> TrustDomain:
    """The trust domain that a token's agent says it is of: whose bundle has to decide.

    Raises:
        InvalidToken: not of the form of a task token.
    """
    claims = jws.parse(token, types=TYPES).claims
    return _client_id(claims).trust_domain


def verify_foreign(
    token: str,
    *,
    bundle: TrustBundle,
    own_issuer: str,
    audience: str,
    now: datetime,
    leeway: float = CLOCK_LEEWAY,
) -> TaskToken:
    """Decide whether another trust domain made this token for us, and its time is now.

    Its ``iss`` is that domain's own matter, as long as it is not ours: the keys of its bundle say
    who signed, and they speak for SPIFFE IDs of that domain only: the agent, everyone in ``act``
    (RFC 8693 §4.1), which is there where the agent acts for somebody else, and ``sub`` where it is
    a SPIFFE ID. Any other ``sub`` is that domain's word, and nobody of ours. A token ends
    ``MAX_FOREIGN_LIFE`` after it was made, however long its issuer lets it live: nobody there is
    bound by our rules.

    Raises:
        InvalidToken, Untrusted, WrongAudience, Expired: as ``verify``.
    """
    unverified = jws.parse(token, types=TYPES)
    verified = _signed_by(bundle, unverified)
    if _plain(verified.issuer) == _plain(own_issuer):
        raise Untrusted(f"token of {bundle.trust_domain} must not be of the issuer {own_issuer}")
    _check_actors(unverified.claims.get("act"), bundle.trust_domain)
    _check_principal(verified, unverified.claims)
    # Compared before it is added: what they say may be the last second that a datetime can say.
    if verified.expires_at - verified.issued_at > MAX_FOREIGN_LIFE:
        verified = replace(verified, expires_at=verified.issued_at + MAX_FOREIGN_LIFE)
    _check_made_for(verified, audience, now, leeway)
    return verified


def _signed_by(bundle: TrustBundle, unverified: jws.UnverifiedJws) -> TaskToken:
    authority = jws.verify_with(unverified, bundle.jwt_authorities)
    verified = _of_claims(unverified.claims, authority)
    if verified.client.trust_domain != bundle.trust_domain:
        raise Untrusted(f"token's agent must be of the trust domain {bundle.trust_domain}")
    return verified


def _check_made_for(token: TaskToken, audience: str, now: datetime, leeway: float) -> None:
    if token.audience != audience:
        raise WrongAudience(f"token was made for another audience, expected {audience}")
    check_time(token, now=now, leeway=leeway)


def _check_principal(token: TaskToken, claims: Mapping[str, Any]) -> None:
    """Whom the agent acts for is nobody whom its domain's keys do not speak for."""
    if token.principal == str(token.client):
        return
    if claims.get("act") is None:
        raise InvalidToken("token must say in act who acts, where sub is not the agent itself")
    # However it is spelt: who reads it later may be less strict.
    if not _plain(token.principal).startswith("spiffe:"):
        return
    try:
        principal = _client_of(token.principal)
    except InvalidSpiffeId as error:
        raise InvalidToken(f"token's sub: {error}") from None
    if str(principal) != token.principal:
        raise InvalidToken(f"token's sub must be spelt {principal}")
    if principal.trust_domain != token.client.trust_domain:
        raise Untrusted(f"token's sub must be of {token.client.trust_domain}, as its agent")


def _plain(text: str) -> str:
    return text.strip().casefold().rstrip("/")


def _check_actors(value: object, trust_domain: TrustDomain) -> None:
    """Everyone who acts, down to the first, is of the domain whose keys say so."""
    depth = 0
    while value is not None:
        depth += 1
        if not isinstance(value, dict) or depth > MAX_DEPTH:
            raise InvalidToken(f"token's act must be at most {MAX_DEPTH} objects in each other")
        try:
            actor = _client_of(jws.text_claim(value, "sub"))
        except InvalidSpiffeId as error:
            raise InvalidToken(f"token's act: {error}") from None
        if actor.trust_domain != trust_domain:
            raise Untrusted(f"everyone in the token's act must be of {trust_domain}")
        value = value.get("act")


def check_time(token: TaskToken, *, now: datetime, leeway: float = CLOCK_LEEWAY) -> None:
    """Decide whether ``now`` is inside the token's validity.

    Raises:
        Expired: it is over, or has not begun.
    """
    jws.check_time(not_before=token.issued_at, expires_at=token.expires_at, now=now, leeway=leeway)


def check_holder(token: TaskToken, presented: Presented) -> None:
    """Decide whether the one who presents the token is the one that it is bound to.

    Raises:
        WrongHolder: nothing was presented, or another key.
    """
    match token.binding.kind:
        case BindingKind.CERTIFICATE:
            shown, what = presented.certificate, "TLS client certificate"
        case BindingKind.DPOP_KEY:
            shown, what = presented.dpop_key, "DPoP proof"
        case BindingKind.BEARER:
            return
    if shown is None:
        raise WrongHolder(f"token is bound to a key, and the request has no {what}")
    if not compare_digest(shown.encode(), token.binding.thumbprint.encode()):
        raise WrongHolder(f"token is bound to another key than that of the {what}")


def check_grant(token: TaskToken, *, resource: str, action: str) -> None:
    """Decide whether the token carries ``action`` on ``resource``.

    Raises:
        NotGranted: it does not.
    """
    for grant in token.grants:
        if grant.resource == resource and action in grant.actions:
            return
    raise NotGranted(f"token does not carry {resource}:{action}")


def _of_claims(claims: Mapping[str, Any], authority: str) -> TaskToken:
    audience = jws.audience_claim(claims)
    if len(audience) != 1:
        raise InvalidToken(f"task token must have one audience, not {len(audience)}")
    client = _client_id(claims)
    return TaskToken(
        issuer=jws.text_claim(claims, "iss"),
        principal=jws.text_claim(claims, "sub"),
        client=client,
        audience=audience[0],
        jti=jws.text_claim(claims, "jti"),
        issued_at=jws.time_claim(claims, "iat"),
        expires_at=jws.time_claim(claims, "exp"),
        grants=_grants_of(claims.get("authorization_details")),
        task=_task_of(claims.get("task")),
        agent=AgentBlock.of_claim(claims.get("agent")),
        binding=_binding_of(claims),
        authority=authority,
        status=StatusReference.of_claims(claims),
    )


_client_of = lru_cache(maxsize=1024)(SpiffeId.parse)  # a server sees the same agents all day


def _client_id(claims: Mapping[str, Any]) -> SpiffeId:
    try:
        return _client_of(jws.text_claim(claims, "client_id"))
    except InvalidSpiffeId as error:
        raise InvalidToken(f"token's client_id: {error}") from None


def _grants_of(value: object) -> tuple[Grant, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_GRANTS:
        raise InvalidToken(f"token must have 1 to {MAX_GRANTS} authorization_details")
    return tuple(map(_grant_of, value))


def _grant_of(detail: object) -> Grant:
    # An unknown type might mean a condition: what is not understood is not granted.
    if not isinstance(detail, dict) or detail.get("type") != DETAIL_TYPE:
        raise InvalidToken(f"token's authorization_details must have the type {DETAIL_TYPE}")
    locations, actions = detail.get("locations"), detail.get("actions")
    if not _texts(locations) or len(locations) != 1 or not _texts(actions):
        raise InvalidToken("token's authorization_details must have one location and its actions")
    return Grant(
        resource=jws.text_claim(detail, "identifier"),
        location=locations[0],
        actions=tuple(actions),
    )


def _task_of(value: object) -> Task:
    if not isinstance(value, dict):
        raise InvalidToken("token must have the claim 'task', an object")
    ancestors = value.get("ancestors", [])
    if ancestors != [] and not _texts(ancestors):
        raise InvalidToken("token's task must list the ids of its ancestors")
    if len(ancestors) > MAX_DEPTH:
        raise InvalidToken(f"token's task has {len(ancestors)} ancestors, the limit is {MAX_DEPTH}")
    return Task(
        id=jws.text_claim(value, "id"),
        purpose=jws.text_claim(value, "purpose"),
        ancestors=tuple(ancestors),
    )


def _binding_of(claims: Mapping[str, Any]) -> Binding:
    if "cnf" not in claims:
        return BEARER
    confirmation = claims["cnf"]
    if isinstance(confirmation, dict) and len(confirmation) == 1:
        (member,) = confirmation
        if kind := _CONFIRMATIONS.get(member):
            return Binding(kind, jws.text_claim(confirmation, member))
    # An unknown confirmation is a condition that we cannot check.
    raise InvalidToken("token's cnf must be one of x5t#S256 and jkt")


def _texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and {*map(type, value)} == {str} and "" not in value

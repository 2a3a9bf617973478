"""Security Event Tokens (RFC 8417), and what a revocation fact is called in other products' words.

A fact becomes one event of CAEP 1.0, in the form that the Shared Signals Framework 1.0 gives to
SETs: typed ``secevent+jwt``, about ``sub_id`` (RFC 9493), with one event, without ``exp`` and
``sub``: nobody can take it for a token that lets somebody in (RFC 8417 §4.5).

Which event, and about whom (docs/adr/0022-streams-remember-how-far-they-are.md):

- An agent, an admin and a node have a SPIFFE ID, and are named by it (``uri``); a token is named by
  its ``jti`` (``jwt_id``). Whatever else a fact can be about is named as the feed names it, and as
  credentials carry it: ``kind:value`` (``opaque``).
- A certificate or an authority that falls is a ``credential-change``. Everything else that is
  revoked or suspended is a ``session-revoked``; restored, it is a ``session-established``: CAEP has
  no event that takes a ``session-revoked`` back.

An event says what the public feed says, and whether an admin was behind it; nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from accredit_credentials import jws
from accredit_credentials.errors import InvalidToken, Untrusted, WrongAudience
from accredit_credentials.keys import PrivateKey, PublicKey
from accredit_credentials.revocation import FactKind, RevocationFact, TargetKind
from accredit_credentials.spiffe_id import AgentId, TrustDomain, admin_id, node_id

TYPE = "secevent+jwt"
TYPES: frozenset[str | None] = frozenset({TYPE, f"application/{TYPE}"})
MEDIA_TYPE = f"application/{TYPE}"

_CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
SESSION_REVOKED = _CAEP + "session-revoked"
SESSION_ESTABLISHED = _CAEP + "session-established"
CREDENTIAL_CHANGE = _CAEP + "credential-change"
VERIFICATION = "https://schemas.openid.net/secevent/ssf/event-type/verification"

# What a reason is written in is not known: BCP 47 has a tag for just that.
_UNDETERMINED = "und"


class InitiatingEntity(StrEnum):
    """Who is behind an event (CAEP §2), as far as we can tell."""

    ADMIN = "admin"
    SYSTEM = "system"  # the issuer itself, or a node that measured something


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityEvent:
    """What a SET says.

    Attributes:
        issuer: the transmitter, as its configuration names it.
        audience: the one receiver that it is for.
        jti: the same each time the same event is sent to the same receiver.
        txn: the same in every SET about the same event, whoever receives it; None for none.
        issued_at: in whole seconds.
        subject: whom it is about, a subject identifier (RFC 9493).
        kind: the event type's URI.
        claims: what the event says.
    """

    issuer: str
    audience: str
    jti: str
    issued_at: int
    subject: Mapping[str, Any]
    kind: str
    txn: str | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)


def of_fact(
    fact: RevocationFact,
    by: InitiatingEntity,
    *,
    trust_domain: TrustDomain,
    issuer: str,
    audience: str,
    jti: str,
) -> SecurityEvent:
    """The event that tells a fact.

    It is issued at the fact's own moment: sent again later, it is the very same.
    """
    kind, special = _event_of(fact)
    moment = jws.epoch(fact.at)
    return SecurityEvent(
        issuer=issuer,
        audience=audience,
        jti=jti,
        txn=f"{trust_domain}/fact/{fact.sequence}",
        issued_at=moment,
        subject=_subject_of(fact, trust_domain, issuer),
        kind=kind,
        claims={
            **special,
            "event_timestamp": moment,
            "initiating_entity": by.value,
            "reason_admin": {_UNDETERMINED: fact.reason},
        },
    )


def verification(
    *, issuer: str, audience: str, jti: str, stream: str, issued_at: int, state: str | None
) -> SecurityEvent:
    """The event that shows that a stream works (SSF §8.1.4); ``state`` is whoever asked's own."""
    return SecurityEvent(
        issuer=issuer,
        audience=audience,
        jti=jti,
        issued_at=issued_at,
        subject={"format": "opaque", "id": stream},
        kind=VERIFICATION,
        claims={} if state is None else {"state": state},
    )


def sign(event: SecurityEvent, key: PrivateKey, kid: str) -> str:
    """The SET, signed."""
    claims: dict[str, Any] = {
        "iss": event.issuer,
        "jti": event.jti,
        "iat": event.issued_at,
        "aud": event.audience,
        "sub_id": dict(event.subject),
        "events": {event.kind: dict(event.claims)},
    }
    if event.txn is not None:
        claims["txn"] = event.txn
    return jws.sign(claims, key, header={"kid": kid, "typ": TYPE})


def verify(
    text: str, *, issuer: str, audience: str, authorities: Mapping[str, PublicKey]
) -> SecurityEvent:
    """Decide whether a transmitter made this SET for this receiver.

    Whether it came before is for whoever keeps their ``jti``.

    Raises:
        InvalidToken: not a SET of the Shared Signals Framework.
        Untrusted: another transmitter, or none of these authorities signed it.
        WrongAudience: for another receiver.
    """
    unverified = jws.parse(text, types=TYPES)
    jws.verify_with(unverified, authorities)
    claims = unverified.claims
    if jws.text_claim(claims, "iss") != issuer:
        raise Untrusted(f"security event must be issued by {issuer}")
    if jws.audience_claim(claims) != (audience,):
        raise WrongAudience(f"security event must be for {audience} alone")
    if foreign := sorted({"sub", "exp"} & claims.keys()):
        raise InvalidToken(f"security event must not have the claim {foreign[0]!r}")
    kind, said = _one_event(claims.get("events"))
    subject = claims.get("sub_id")
    if not isinstance(subject, Mapping) or not isinstance(subject.get("format"), str):
        raise InvalidToken("security event must have 'sub_id', an object with a format")
    return SecurityEvent(
        issuer=issuer,
        audience=audience,
        jti=jws.text_claim(claims, "jti"),
        txn=jws.optional_text_claim(claims, "txn"),
        issued_at=jws.epoch(jws.time_claim(claims, "iat")),
        subject=subject,
        kind=kind,
        claims=said,
    )


def _one_event(value: object) -> tuple[str, Mapping[str, Any]]:
    if isinstance(value, Mapping) and len(value) == 1:
        [(kind, said)] = value.items()
        if isinstance(said, Mapping):
            return kind, said
    raise InvalidToken("security event must have 'events', an object with one event")


def _event_of(fact: RevocationFact) -> tuple[str, dict[str, str]]:
    restored = fact.kind is FactKind.RESTORED
    change = "update" if restored else "revoke"
    match fact.target.kind:
        case TargetKind.SERIAL:
            return CREDENTIAL_CHANGE, {
                "credential_type": "x509",
                "change_type": change,
                "x509_serial": fact.target.value,
            }
        case TargetKind.AUTHORITY:
            # An issuing CA's key or a JWT key: CAEP has no name for either, and allows others.
            return CREDENTIAL_CHANGE, {"credential_type": "signing-key", "change_type": change}
    return SESSION_ESTABLISHED if restored else SESSION_REVOKED, {}


def _subject_of(fact: RevocationFact, trust_domain: TrustDomain, issuer: str) -> dict[str, str]:
    value = fact.target.value
    match fact.target.kind:
        case TargetKind.AGENT:
            spiffe_id = AgentId.parse(value).spiffe_id(trust_domain)
        case TargetKind.ADMIN:
            spiffe_id = admin_id(trust_domain, value)
        case TargetKind.NODE:
            spiffe_id = node_id(trust_domain, value)
        case TargetKind.JTI:
            return {"format": "jwt_id", "iss": issuer, "jti": value}
        case _:
            return {"format": "opaque", "id": str(fact.target)}
    return {"format": "uri", "uri": str(spiffe_id)}

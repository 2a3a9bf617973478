"""Security events: what a fact becomes, in which form, and what no receiver may take for one."""

from dataclasses import replace
from typing import Any

import pytest
from support.authority import HOUR, NOW, Authority
from support.tokens import claims_in, forge

from accredit_credentials import security_event
from accredit_credentials.errors import InvalidToken, UnknownAuthority, Untrusted, WrongAudience
from accredit_credentials.keys import generate_key
from accredit_credentials.revocation import FactKind, RevocationFact, Target
from accredit_credentials.security_event import InitiatingEntity, SecurityEvent
from accredit_credentials.spiffe_id import TrustDomain

ISSUER, RECEIVER = "https://issuer.example.org:8443", "https://siem.example.org"
CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
SERIAL = "39b6319efb6e1c0d52b7c1d1a3f0e6b2a9c4d801"


def event_of(target: str, kind: FactKind = FactKind.REVOKED) -> SecurityEvent:
    """What a fact about this target becomes."""
    fact = RevocationFact(
        sequence=7,
        target=Target.parse(target),
        kind=kind,
        at=NOW,
        expires_at=NOW + HOUR,
        reason="prompt injection, INC-4711",
    )
    return security_event.of_fact(
        fact,
        InitiatingEntity.ADMIN,
        trust_domain=TrustDomain.parse("example.org"),
        issuer=ISSUER,
        audience=RECEIVER,
        jti="s.7",
    )


# --- what a fact becomes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "subject"),
    [
        ("agent:support/triage", "spiffe://example.org/ns/support/agent/triage"),
        ("admin:maria", "spiffe://example.org/admin/maria"),
        ("node:build-7", "spiffe://example.org/node/build-7"),
    ],
)
def test_who_has_a_spiffe_id_is_named_by_it(target: str, subject: str) -> None:
    """A fact about an agent, an admin or a node ends the sessions of a SPIFFE ID."""
    event = event_of(target)
    assert event.kind == CAEP + "session-revoked"
    assert event.subject == {"format": "uri", "uri": subject}


@pytest.mark.parametrize(
    "target", ["namespace:support", "task:t1", "manifest:sha256:5e", "owner:m"]
)
def test_who_has_none_is_named_as_the_feed_does(target: str) -> None:
    """A namespace is no workload: it gets no SPIFFE ID that nobody holds, but the feed's name."""
    assert event_of(target).subject == {"format": "opaque", "id": target}


def test_a_token_is_named_by_its_jti() -> None:
    """A token that is revoked is a session that ended, known by issuer and ``jti``."""
    event = event_of("jti:abc")
    assert event.kind == CAEP + "session-revoked"
    assert event.subject == {"format": "jwt_id", "iss": ISSUER, "jti": "abc"}


def test_a_certificate_and_an_authority_are_credentials() -> None:
    """They are told as changed credentials, the certificate with its serial number."""
    certificate, authority = event_of(f"serial:{SERIAL}"), event_of("authority:7d9c")
    assert certificate.kind == authority.kind == CAEP + "credential-change"
    assert certificate.claims["credential_type"] == "x509"
    assert certificate.claims["x509_serial"] == SERIAL
    assert certificate.claims["change_type"] == authority.claims["change_type"] == "revoke"
    assert "x509_serial" not in authority.claims


def test_a_suspension_ends_sessions_and_its_end_lets_them_begin() -> None:
    """Suspended is told as revoked is, restored as an event of its own: never the other way."""
    kinds = {kind: event_of("task:t1", kind).kind for kind in FactKind}
    assert kinds == {
        FactKind.REVOKED: CAEP + "session-revoked",
        FactKind.SUSPENDED: CAEP + "session-revoked",
        FactKind.RESTORED: CAEP + "session-established",
    }
    assert event_of(f"serial:{SERIAL}", FactKind.RESTORED).claims["change_type"] == "update"


def test_an_event_says_when_by_whom_and_why() -> None:
    """The optional claims of CAEP are those of the fact, and ``txn`` is the same for everybody."""
    event = event_of("task:t1")
    assert event.claims == {
        "event_timestamp": int(NOW.timestamp()),
        "initiating_entity": "admin",
        "reason_admin": {"und": "prompt injection, INC-4711"},
    }
    assert event.txn == "example.org/fact/7"
    assert event.issued_at == int(NOW.timestamp())


# --- signed ---------------------------------------------------------------------------------------


def signed(authority: Authority, event: SecurityEvent | None = None) -> str:
    """An event of this trust domain, signed."""
    return security_event.sign(event or event_of("task:t1"), authority.jwt_key, authority.kid)


def read(authority: Authority, text: str) -> SecurityEvent:
    """What the receiver makes of it."""
    return security_event.verify(
        text,
        issuer=ISSUER,
        audience=RECEIVER,
        authorities=authority.bundle.jwt_authorities,
    )


@pytest.mark.parametrize("target", ["agent:support/triage", "jti:abc", f"serial:{SERIAL}"])
def test_a_receiver_reads_what_was_signed(authority: Authority, target: str) -> None:
    """What comes out is what went in."""
    event = event_of(target)
    assert read(authority, signed(authority, event)) == event


def test_a_set_cannot_be_taken_for_a_token(authority: Authority) -> None:
    """It is typed, has neither ``sub`` nor ``exp``, and one event (SSF §4)."""
    claims = claims_in(signed(authority))
    assert not {"sub", "exp", "nbf", "scope"} & claims.keys()
    assert len(claims["events"]) == 1
    assert claims["aud"] == RECEIVER


def test_a_verification_names_the_stream(authority: Authority) -> None:
    """It is about the stream itself, with the state of whoever asked, and about no fact."""
    event = security_event.verification(
        issuer=ISSUER, audience=RECEIVER, jti="v", stream="s", issued_at=1, state="mine"
    )
    assert read(authority, signed(authority, event)) == event
    assert event.subject == {"format": "opaque", "id": "s"}
    assert event.claims == {"state": "mine"}
    assert event.txn is None


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"iss": "https://other.example"}, Untrusted, "issued by"),
        ({"iss": f"{ISSUER}/"}, Untrusted, "issued by"),
        ({"aud": "https://other.example"}, WrongAudience, "alone"),
        ({"aud": [RECEIVER, "https://other.example"]}, WrongAudience, "alone"),
        ({"exp": 1}, InvalidToken, "exp"),
        ({"sub": "spiffe://example.org/x"}, InvalidToken, "sub"),
        ({"events": None}, InvalidToken, "events"),
        ({"events": {}}, InvalidToken, "one event"),
        ({"events": {"a": {}, "b": {}}}, InvalidToken, "one event"),
        ({"events": {"a": "b"}}, InvalidToken, "one event"),
        ({"events": ["a"]}, InvalidToken, "one event"),
        ({"sub_id": None}, InvalidToken, "sub_id"),
        ({"sub_id": {"id": "x"}}, InvalidToken, "sub_id"),
        ({"jti": None}, InvalidToken, "jti"),
        ({"iat": None}, InvalidToken, "iat"),
        ({"iat": True}, InvalidToken, "iat"),
    ],
)
def test_a_receiver_refuses_what_is_off(
    authority: Authority, change: dict[str, Any], error: type[Exception], says: str
) -> None:
    """Each claim in turn: another's, missing or of another form; None takes it away."""
    claims = {**claims_in(signed(authority)), **change}
    kept = {name: value for name, value in claims.items() if value is not None}
    header = {"alg": "ES256", "kid": authority.kid, "typ": "secevent+jwt"}
    with pytest.raises(error, match=says):
        read(authority, forge(header, kept, authority.jwt_key))


def test_a_receiver_refuses_another_signer(authority: Authority) -> None:
    """A key that the transmitter does not publish signs nothing for it."""
    with pytest.raises(Untrusted):
        read(authority, security_event.sign(event_of("task:t1"), generate_key(), authority.kid))
    with pytest.raises(UnknownAuthority):
        read(authority, security_event.sign(event_of("task:t1"), authority.jwt_key, "other"))


def test_what_is_sent_again_is_the_same(authority: Authority) -> None:
    """Two signatures of one event differ, and nothing that they sign does."""
    first, second = signed(authority), signed(authority)
    assert first != second
    assert claims_in(first) == claims_in(second)
    assert claims_in(signed(authority, replace(event_of("task:t1"), jti="s.8"))) != claims_in(first)

"""Task tokens: for whom, when, by whom presented, and what they carry."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from support.authority import INSTANCE, MANIFEST, NOW, Authority
from support.tokens import claims_in, forge

from accredit_credentials import task_token
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import (
    Expired,
    InvalidToken,
    NotGranted,
    Untrusted,
    WrongAudience,
    WrongHolder,
)
from accredit_credentials.jwt_svid import AgentBlock
from accredit_credentials.keys import b64url_decode, generate_key
from accredit_credentials.task_token import (
    BEARER,
    Binding,
    BindingKind,
    Grant,
    Presented,
    Task,
    TaskToken,
)

ISSUER = "https://issuer.example"
AUDIENCE = "https://tickets.example"
PRINCIPAL = "mailto:alice@example.org"
CERTIFICATE, DPOP_KEY, OTHER = "c" * 43, "d" * 43, "o" * 43
TASK, PARENT, FIRST = (f"0196f0a0-0000-7000-8000-00000000000{n}" for n in (3, 2, 1))
JTI = "0196f0a0-0000-7000-8000-0000000000ff"
Changed = Callable[..., str]


def token_of(authority: Authority, **changes: Any) -> TaskToken:
    """A good task token, to be signed."""
    good = TaskToken(
        issuer=ISSUER,
        principal=PRINCIPAL,
        client=authority.id(),
        audience=AUDIENCE,
        jti=JTI,
        issued_at=NOW,
        expires_at=NOW + timedelta(minutes=5),
        grants=(
            Grant(resource="tickets", location=AUDIENCE, actions=("read", "comment")),
            Grant(resource="mail", location=AUDIENCE, actions=("send",)),
        ),
        task=Task(id=TASK, purpose="triage ticket 12", ancestors=(FIRST, PARENT)),
        agent=AgentBlock(version="1.2.0", instance=INSTANCE, manifest=MANIFEST, assurance="node"),
        binding=Binding(BindingKind.DPOP_KEY, DPOP_KEY),
    )
    return replace(good, **changes)


def signed(authority: Authority, **changes: Any) -> str:
    """A good task token, signed."""
    return task_token.sign(token_of(authority, **changes), authority.jwt_key, authority.kid)


@pytest.fixture
def changed(authority: Authority) -> Changed:
    """Signs the good claims again, with some changed; None removes one."""

    def change(**claims: object) -> str:
        good = {**claims_in(signed(authority)), **claims}
        kept = {name: value for name, value in good.items() if value is not None}
        header = {"alg": "ES256", "kid": authority.kid, "typ": "at+jwt"}
        return forge(header, kept, authority.jwt_key)

    return change


def verify(token: str, authority: Authority, **changes: Any) -> TaskToken:
    """Verify as the good resource server at the good time."""
    expected = {"bundle": authority.bundle, "issuer": ISSUER, "audience": AUDIENCE, "now": NOW}
    return task_token.verify(token, **{**expected, **changes})


@pytest.mark.parametrize(
    "binding",
    [
        Binding(BindingKind.DPOP_KEY, DPOP_KEY),
        Binding(BindingKind.CERTIFICATE, CERTIFICATE),
        BEARER,
    ],
)
def test_what_is_signed_comes_back(binding: Binding, authority: Authority) -> None:
    """Every field survives the way, whatever binds the token."""
    expected = replace(token_of(authority, binding=binding), authority=authority.kid)
    assert verify(signed(authority, binding=binding), authority) == expected


def test_the_claims_are_those_of_the_standards(authority: Authority) -> None:
    """RFC 9068, RFC 9396, RFC 8693 and RFC 7800 find what they name."""
    token = signed(authority)
    assert (
        b64url_decode(token.split(".", 1)[0])
        == b'{"alg":"ES256","kid":"6a77742d31","typ":"at+jwt"}'
    )
    assert claims_in(token) == {
        "iss": ISSUER,
        "sub": PRINCIPAL,
        "client_id": "spiffe://example.org/ns/support/agent/triage",
        "aud": AUDIENCE,
        "jti": JTI,
        "iat": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 300,
        "scope": "tickets:read tickets:comment mail:send",
        "authorization_details": [
            {
                "type": "accredit:resource",
                "identifier": "tickets",
                "locations": [AUDIENCE],
                "actions": ["read", "comment"],
            },
            {
                "type": "accredit:resource",
                "identifier": "mail",
                "locations": [AUDIENCE],
                "actions": ["send"],
            },
        ],
        "task": {
            "id": TASK,
            "purpose": "triage ticket 12",
            "parent": PARENT,
            "depth": 2,
            "ancestors": [FIRST, PARENT],
        },
        "agent": {
            "version": "1.2.0",
            "instance": INSTANCE,
            "manifest": MANIFEST,
            "assurance": "node",
        },
        "act": {
            "sub": "spiffe://example.org/ns/support/agent/triage",
            "iss": ISSUER,
            "sub_profile": "ai_agent",
        },
        "cnf": {"jkt": DPOP_KEY},
    }


def test_an_agent_on_its_own_behalf_acts_for_nobody(authority: Authority) -> None:
    """Where the agent is its own principal there is no ``act``."""
    token = signed(authority, principal=str(authority.id()))
    assert "act" not in claims_in(token)
    assert verify(token, authority).principal == str(authority.id())


@pytest.mark.parametrize(
    "claim",
    [
        *("iss", "sub", "client_id", "aud", "jti", "iat", "exp"),
        *("authorization_details", "task", "agent"),
    ],
)
def test_each_required_claim_is_required(
    claim: str, authority: Authority, changed: Changed
) -> None:
    """Drop one after the other: each absence is refused."""
    verify(changed(), authority)
    with pytest.raises(InvalidToken):
        verify(changed(**{claim: None}), authority)


@pytest.mark.parametrize(
    ("claim", "members"),
    [
        ("task", ("id", "purpose")),
        ("agent", ("version", "instance", "manifest", "assurance")),
    ],
)
@pytest.mark.parametrize("value", [None, "", 1, ["x"]])
def test_each_member_of_a_block_is_required(
    claim: str, members: tuple[str, ...], value: object, authority: Authority, changed: Changed
) -> None:
    """Task and agent are complete or the token is refused."""
    block = claims_in(signed(authority))[claim]
    for member in members:
        with pytest.raises(InvalidToken, match=member):
            verify(changed(**{claim: {**block, member: value}}), authority)


DETAIL = {
    "type": "accredit:resource",
    "identifier": "tickets",
    "locations": [AUDIENCE],
    "actions": ["read"],
}


@pytest.mark.parametrize(
    "details",
    [
        [],
        {},
        "tickets",
        [None],
        ["tickets"],
        [DETAIL] * (task_token.MAX_GRANTS + 1),
        [DETAIL, {**DETAIL, "type": "openid_credential"}],
        [{**DETAIL, "type": "accredit:resource "}],
        [{**DETAIL, "type": ["accredit:resource"]}],
        [{**DETAIL, "identifier": ""}],
        [{**DETAIL, "identifier": ["tickets"]}],
        [{**DETAIL, "actions": []}],
        [{**DETAIL, "actions": "read"}],
        [{**DETAIL, "actions": ["read", ""]}],
        [{**DETAIL, "actions": ["read", 1]}],
        [{**DETAIL, "actions": [["read"]]}],
        [{**DETAIL, "locations": []}],
        [{**DETAIL, "locations": [AUDIENCE, "https://other.example"]}],
        [{**DETAIL, "locations": AUDIENCE}],
    ],
)
def test_what_is_not_understood_is_not_granted(
    details: object, authority: Authority, changed: Changed
) -> None:
    """No grant, too many, one of an unknown type or form: the whole token is refused."""
    with pytest.raises(InvalidToken):
        verify(changed(authorization_details=details), authority)


@pytest.mark.parametrize(
    "ancestors", [None, "x", {}, [1], [""], [["x"]], ["x"] * (task_token.MAX_DEPTH + 1)]
)
def test_a_task_lists_its_ancestors(
    ancestors: object, authority: Authority, changed: Changed
) -> None:
    """Ancestors of another form, or deeper than the limit, are refused: revocation needs them."""
    task = {"id": TASK, "purpose": "x", "ancestors": ancestors}
    with pytest.raises(InvalidToken, match="ancestors"):
        verify(changed(task=task), authority)


@pytest.mark.parametrize(
    "confirmation",
    [
        {},
        [],
        "jkt",
        None,
        {"jkt": ""},
        {"jkt": 1},
        {"jkt": None},
        {"JKT": DPOP_KEY},
        {"jwk": {"kty": "EC"}},
        {"kid": "k"},
        {"bearer": "x"},
        {"jkt": DPOP_KEY, "x5t#S256": CERTIFICATE},
        {"jkt": DPOP_KEY, "unknown": "x"},
    ],
)
def test_a_confirmation_that_is_not_understood_is_refused(
    confirmation: object, authority: Authority
) -> None:
    """A condition that cannot be checked never turns a bound token into a bearer token."""
    claims = {**claims_in(signed(authority)), "cnf": confirmation}
    header = {"alg": "ES256", "kid": authority.kid, "typ": "at+jwt"}
    with pytest.raises(InvalidToken):
        verify(forge(header, claims, authority.jwt_key), authority)


@pytest.mark.parametrize(
    "issuer",
    [f"{ISSUER}/", ISSUER.upper(), f"https://evil.example/{ISSUER}", f"{ISSUER}.evil.example"],
)
def test_the_issuer_is_compared_as_a_whole(
    issuer: str, authority: Authority, changed: Changed
) -> None:
    """Every prefix and suffix twin of the issuer is refused."""
    with pytest.raises(Untrusted, match="issuer"):
        verify(changed(iss=issuer), authority)


@pytest.mark.parametrize(
    ("audience", "error"),
    [
        ("https://other.example", WrongAudience),
        (f"{AUDIENCE}/", WrongAudience),
        ([AUDIENCE, "https://other.example"], InvalidToken),
        ([], InvalidToken),
        ("", InvalidToken),
    ],
)
def test_a_token_has_one_audience(
    audience: object, error: type[Exception], authority: Authority, changed: Changed
) -> None:
    """One audience, compared as a whole; a second one is refused even beside the right one."""
    assert verify(changed(aud=[AUDIENCE]), authority).audience == AUDIENCE
    with pytest.raises(error):
        verify(changed(aud=audience), authority)


@pytest.mark.parametrize(
    ("seconds", "valid"), [(-10.5, False), (-10, True), (299.9, True), (300, False), (1e6, False)]
)
def test_a_token_lives_from_its_issue_to_its_expiry(
    seconds: float, valid: bool, authority: Authority
) -> None:
    """Ten seconds of leeway before its issue, none after its expiry."""
    now = NOW + timedelta(seconds=seconds)
    if valid:
        verify(signed(authority), authority, now=now)
    else:
        with pytest.raises(Expired):
            verify(signed(authority), authority, now=now)


@pytest.mark.parametrize("claim", ["exp", "iat"])
@pytest.mark.parametrize("value", [True, "1790000000", -1, 1e300, 10**300, [1], {}])
def test_a_time_of_another_form_is_refused(
    claim: str, value: object, authority: Authority, changed: Changed
) -> None:
    """A bool, a text, a negative and a huge time never mean forever."""
    with pytest.raises(InvalidToken, match=claim):
        verify(changed(**{claim: value}), authority)


def test_only_the_issuers_keys_speak(authority: Authority, other_authority: Authority) -> None:
    """Another key, another trust domain's key and another domain's agent are refused."""
    good = token_of(authority)
    with pytest.raises(Untrusted, match="signature"):
        verify(task_token.sign(good, generate_key(), authority.kid), authority)
    with pytest.raises(Untrusted, match="not in the trust bundle"):
        verify(task_token.sign(good, authority.jwt_key, "other"), authority)
    with pytest.raises(Untrusted, match="not in the trust bundle"):
        verify(signed(authority), authority, bundle=TrustBundle(authority.trust_domain))
    with pytest.raises(Untrusted, match="trust domain"):
        verify(signed(authority, client=other_authority.id()), authority)


@pytest.mark.parametrize("client", ["triage", "spiffe://example.org/a/..", "", 1, ["x"]])
def test_a_client_is_a_spiffe_id(client: object, authority: Authority, changed: Changed) -> None:
    """Anything but one SPIFFE ID as ``client_id`` is refused, twice."""
    for _ in range(2):
        with pytest.raises(InvalidToken):
            verify(changed(client_id=client), authority)


NOTHING = Presented()
BOTH = Presented(certificate=CERTIFICATE, dpop_key=DPOP_KEY)


@pytest.mark.parametrize(
    ("binding", "presented", "accepted"),
    [
        (BEARER, NOTHING, True),
        (BEARER, BOTH, True),
        (Binding(BindingKind.CERTIFICATE, CERTIFICATE), Presented(certificate=CERTIFICATE), True),
        (Binding(BindingKind.CERTIFICATE, CERTIFICATE), BOTH, True),
        (Binding(BindingKind.CERTIFICATE, CERTIFICATE), NOTHING, False),
        (Binding(BindingKind.CERTIFICATE, CERTIFICATE), Presented(certificate=OTHER), False),
        (Binding(BindingKind.CERTIFICATE, CERTIFICATE), Presented(certificate=""), False),
        (Binding(BindingKind.CERTIFICATE, CERTIFICATE), Presented(dpop_key=CERTIFICATE), False),
        (Binding(BindingKind.DPOP_KEY, DPOP_KEY), Presented(dpop_key=DPOP_KEY), True),
        (Binding(BindingKind.DPOP_KEY, DPOP_KEY), BOTH, True),
        (Binding(BindingKind.DPOP_KEY, DPOP_KEY), NOTHING, False),
        (Binding(BindingKind.DPOP_KEY, DPOP_KEY), Presented(dpop_key=OTHER), False),
        (Binding(BindingKind.DPOP_KEY, DPOP_KEY), Presented(dpop_key=DPOP_KEY + "="), False),
        (Binding(BindingKind.DPOP_KEY, DPOP_KEY), Presented(certificate=DPOP_KEY), False),
        (Binding(BindingKind.DPOP_KEY, "é"), Presented(dpop_key=DPOP_KEY), False),
    ],
)
def test_only_the_holder_presents_a_token(
    binding: Binding, presented: Presented, accepted: bool, authority: Authority
) -> None:
    """A bound token needs the very key, in the very way; only a bearer token needs nothing."""
    token = token_of(authority, binding=binding)
    if accepted:
        task_token.check_holder(token, presented)
    else:
        with pytest.raises(WrongHolder):
            task_token.check_holder(token, presented)


@pytest.mark.parametrize(
    ("resource", "action"), [("tickets", "read"), ("tickets", "comment"), ("mail", "send")]
)
def test_what_was_granted_is_carried(resource: str, action: str, authority: Authority) -> None:
    """Each action on each resource of the grants is carried."""
    task_token.check_grant(token_of(authority), resource=resource, action=action)


@pytest.mark.parametrize(
    ("resource", "action"),
    [
        ("tickets", "send"),
        ("mail", "read"),
        ("tickets", "delete"),
        ("tickets", "Read"),
        ("tickets", "rea"),
        ("tickets", "read "),
        ("tickets", "*"),
        ("tickets", ""),
        ("*", "read"),
        ("ticket", "read"),
        ("", "read"),
    ],
)
def test_nothing_else_is_carried(resource: str, action: str, authority: Authority) -> None:
    """Actions of one resource are not those of another; there are no wildcards."""
    with pytest.raises(NotGranted, match=f"{resource}:{action}".replace("*", r"\*")):
        task_token.check_grant(token_of(authority), resource=resource, action=action)


def test_a_token_can_be_revoked_by_all_it_carries(authority: Authority) -> None:
    """Its marks name its task, every ancestor, agent, instance, manifest, itself, its authority."""
    assert set(verify(signed(authority), authority).marks()) == {
        f"jti:{JTI}",
        f"task:{TASK}",
        f"task:{PARENT}",
        f"task:{FIRST}",
        f"instance:{INSTANCE}",
        f"manifest:{MANIFEST}",
        "agent:support/triage",
        "namespace:support",
        f"authority:{authority.kid}",
    }


def test_depth_and_parent_follow_from_the_ancestors() -> None:
    """A first task has no parent and stands at depth 0."""
    assert (Task(id=FIRST, purpose="x").parent, Task(id=FIRST, purpose="x").depth) == (None, 0)
    nested = Task(id=TASK, purpose="x", ancestors=(FIRST, PARENT))
    assert (nested.parent, nested.depth) == (PARENT, 2)

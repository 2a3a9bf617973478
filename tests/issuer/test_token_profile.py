"""What tokens may be signed: each bound, and its nearest neighbour on either side."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from support.authority import NOW

from accredit_credentials.jwt_svid import AgentBlock, JwtSvid
from accredit_credentials.keys import generate_key
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain
from accredit_credentials.task_token import BEARER, Grant, Task, TaskToken
from accredit_credentials.wit_svid import WitSvid
from accredit_issuer.authority.lifecycle import AuthorityKind, Standing, State
from accredit_issuer.authority.profile import ProfileViolation
from accredit_issuer.authority.token_profile import TokenProfile, WitProfile

SECOND = timedelta(seconds=1)
AGENT = SpiffeId.parse("spiffe://example.org/ns/support/agent/triage")
BLOCK = AgentBlock(version="1", instance="i", manifest="sha256:" + "a" * 64, assurance="self")
PROFILE = TokenProfile(
    trust_domain=TrustDomain("example.org"), issuer="https://issuer", max_lifetime=300 * SECOND
)
JWT = JwtSvid(
    spiffe_id=AGENT,
    audience=("https://api",),
    expires_at=NOW + 300 * SECOND,
    issued_at=NOW,
    issuer="https://issuer",
    jti="j",
    agent=BLOCK,
    authority="k",
)
TASK = TaskToken(
    issuer="https://issuer",
    principal="user:maria",
    client=AGENT,
    audience="https://tickets",
    jti="j",
    issued_at=NOW,
    expires_at=NOW + 300 * SECOND,
    grants=(Grant(resource="tickets", location="https://tickets", actions=("read",)),),
    task=Task(id="t", purpose="p", ancestors=()),
    agent=BLOCK,
    binding=BEARER,
    authority="k",
)
FOREIGN = SpiffeId.parse("spiffe://example.com/ns/support/agent/triage")


@pytest.mark.parametrize("token", [JWT, TASK])
@pytest.mark.parametrize("life", [SECOND, 300 * SECOND])
def test_what_lies_within_the_bounds_is_allowed(token: Any, life: timedelta) -> None:
    """A token on the inner side of each bound comes back as it was, for its key."""
    wanted = replace(token, expires_at=NOW + life)
    checked = PROFILE.check(wanted, "k", NOW)
    assert (checked.content, checked.authority) == (wanted, "k")


@pytest.mark.parametrize(
    ("bound", "changes"),
    [
        ("issuer", {"issuer": "https://issuer/"}),
        ("issuer", {"issuer": "https://issuer.evil.example"}),
        ("key", {"authority": "other"}),
        ("key", {"authority": None}),
        ("iat", {"issued_at": NOW + SECOND}),
        ("iat", {"issued_at": NOW - SECOND}),
        ("exp", {"expires_at": NOW}),
        ("exp", {"expires_at": NOW + 301 * SECOND}),
        ("whole seconds", {"expires_at": NOW + timedelta(seconds=5, microseconds=1)}),
        ("jti", {"jti": ""}),
    ],
)
@pytest.mark.parametrize("token", [JWT, TASK])
def test_each_bound_is_named_where_it_is_broken(
    token: Any, bound: str, changes: dict[str, Any]
) -> None:
    """A token just outside of one bound is not signed, and the error names the bound."""
    with pytest.raises(ProfileViolation, match=bound):
        PROFILE.check(replace(token, **changes), "k", NOW)


@pytest.mark.parametrize(
    ("token", "bound", "changes"),
    [
        (JWT, "trust domain", {"spiffe_id": FOREIGN}),
        (JWT, "path", {"spiffe_id": SpiffeId.parse("spiffe://example.org")}),
        (JWT, "audience", {"audience": ()}),
        (JWT, "audience", {"audience": ("https://api", "")}),
        (JWT, "agent", {"agent": None}),
        (TASK, "trust domain", {"client": FOREIGN}),
        (TASK, "audience", {"audience": ""}),
        (TASK, "grants", {"grants": ()}),
    ],
)
def test_what_only_one_kind_has(token: Any, bound: str, changes: dict[str, Any]) -> None:
    """Whom it speaks of, whom it is for and what it grants are bounded too."""
    with pytest.raises(ProfileViolation, match=bound):
        PROFILE.check(replace(token, **changes), "k", NOW)


def test_a_key_has_a_name() -> None:
    """Nothing is signed for a key without an id."""
    with pytest.raises(ProfileViolation, match="key"):
        PROFILE.check(replace(JWT, authority=""), "", NOW)


WIT_PROFILE = WitProfile(
    trust_domain=TrustDomain("example.org"), max_lifetime=900 * SECOND, backdate=10 * SECOND
)
WIT_KEY = Standing(
    id="k",
    kind=AuthorityKind.WIT,
    state=State.ACTIVE,
    prepared_at=NOW - 3600 * SECOND,
    activated_at=NOW - 3600 * SECOND,
    retired_at=None,
    expires_at=NOW + 3600 * SECOND,
)
WIT = WitSvid(
    spiffe_id=AGENT,
    key=generate_key().public_key(),
    algorithm="ES256",
    expires_at=NOW + 900 * SECOND,
    not_before=NOW - 10 * SECOND,
    issued_at=NOW,
    jti="j",
    agent=BLOCK,
    authority="k",
)


@pytest.mark.parametrize("life", [SECOND, 900 * SECOND])
def test_a_wit_svid_within_its_bounds_is_allowed(life: timedelta) -> None:
    """On the inner side of each bound it comes back as it was, for its key."""
    wanted = replace(WIT, expires_at=NOW + life)
    checked = WIT_PROFILE.check(wanted, WIT_KEY, NOW)
    assert (checked.content, checked.authority) == (wanted, "k")


@pytest.mark.parametrize(
    ("bound", "changes"),
    [
        ("trust domain", {"spiffe_id": FOREIGN}),
        ("path", {"spiffe_id": SpiffeId.parse("spiffe://example.org")}),
        ("key", {"authority": "other"}),
        ("key", {"authority": None}),
        ("iat", {"issued_at": NOW + SECOND}),
        ("iat", {"issued_at": None}),
        ("nbf", {"not_before": NOW}),
        ("nbf", {"not_before": None}),
        ("exp", {"expires_at": NOW}),
        ("exp", {"expires_at": NOW + 901 * SECOND}),
        ("whole seconds", {"expires_at": NOW + timedelta(seconds=5, microseconds=1)}),
        ("cnf", {"algorithm": "ES384"}),
        ("cnf", {"key": rsa.generate_private_key(65537, 2048).public_key()}),
        ("jti", {"jti": None}),
        ("agent", {"agent": None}),
    ],
)
def test_each_bound_of_a_wit_svid_is_named(bound: str, changes: dict[str, Any]) -> None:
    """Just outside of one bound it is not signed, and the error names the bound."""
    with pytest.raises(ProfileViolation, match=bound):
        WIT_PROFILE.check(replace(WIT, **changes), WIT_KEY, NOW)


@pytest.mark.parametrize(
    ("bound", "changes"),
    [
        ("key", {"kind": AuthorityKind.JWT}),
        ("key", {"kind": AuthorityKind.X509}),
        ("exp", {"expires_at": NOW + 899 * SECOND}),
    ],
)
def test_a_wit_svid_is_signed_by_a_wit_key(bound: str, changes: dict[str, Any]) -> None:
    """A key of another use signs none, and no key signs one that outlives it."""
    with pytest.raises(ProfileViolation, match=bound):
        WIT_PROFILE.check(WIT, replace(WIT_KEY, **changes), NOW)

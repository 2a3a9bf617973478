"""JWT-SVIDs: which are valid, for whom, and when."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from support.authority import INSTANCE, MANIFEST, NOW, Authority
from support.tokens import claims_in, forge

from accredit_credentials import jwt_svid
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import (
    CredentialError,
    Expired,
    InvalidToken,
    Untrusted,
    WrongAudience,
)
from accredit_credentials.jwt_svid import AgentBlock, JwtSvid
from accredit_credentials.keys import b64url_decode, generate_key
from accredit_credentials.spiffe_id import SpiffeId

AUDIENCE = "https://tickets.example"
Changed = Callable[..., str]


def svid_of(authority: Authority, **changes: Any) -> JwtSvid:
    """A good JWT-SVID, to be signed."""
    good = JwtSvid(
        spiffe_id=authority.id(),
        audience=(AUDIENCE,),
        expires_at=NOW + timedelta(minutes=5),
        issued_at=NOW,
        issuer="https://issuer.example",
        jti="0196f0a0-0000-7000-8000-000000000001",
        agent=AgentBlock(version="1.2.0", instance=INSTANCE, manifest=MANIFEST, assurance="node"),
    )
    return replace(good, **changes)


@pytest.fixture
def token(authority: Authority) -> str:
    """A good JWT-SVID."""
    return jwt_svid.sign(svid_of(authority), authority.jwt_key, authority.kid)


@pytest.fixture
def changed(authority: Authority, token: str) -> Changed:
    """Signs the good claims again, with some changed; None removes one."""

    def change(**claims: object) -> str:
        good = {**claims_in(token), **claims}
        kept = {name: value for name, value in good.items() if value is not None}
        return forge({"alg": "ES256", "kid": authority.kid, "typ": "JWT"}, kept, authority.jwt_key)

    return change


def validate(token: str, authority: Authority, **changes: Any) -> JwtSvid:
    """Validate for the good audience at the good time."""
    return jwt_svid.validate(
        token, **{"bundles": authority.bundles, "audience": AUDIENCE, "now": NOW, **changes}
    )


@pytest.mark.spec("SPIFFE-30")
def test_what_is_signed_comes_back(authority: Authority, token: str) -> None:
    """Every field of a JWT-SVID survives the way, with the authority that signed it."""
    assert validate(token, authority) == replace(svid_of(authority), authority=authority.kid)


@pytest.mark.spec("SPIFFE-26")
@pytest.mark.spec("SPIFFE-27")
@pytest.mark.spec("SPIFFE-28")
@pytest.mark.spec("SPIFFE-29")
def test_the_header_has_three_members(authority: Authority, token: str) -> None:
    """We write alg, kid and typ, and nothing else."""
    expected = b'{"alg":"ES256","kid":"6a77742d31","typ":"JWT"}'
    assert b64url_decode(token.split(".", 1)[0]) == expected


@pytest.mark.spec("SPIFFE-28")
@pytest.mark.parametrize("typ", [{"typ": "JWT"}, {"typ": "JOSE"}, {}])
def test_the_types_of_the_specification_are_read(
    typ: dict[str, str], authority: Authority, token: str
) -> None:
    """``typ`` may be JWT, JOSE or absent."""
    header = {"alg": "ES256", "kid": authority.kid, **typ}
    assert validate(forge(header, claims_in(token), authority.jwt_key), authority)


@pytest.mark.spec("SPIFFE-28")
@pytest.mark.parametrize("typ", ["at+jwt", "wit+jwt", "jwt", "JWS", "", 1])
def test_any_other_type_is_refused(typ: object, authority: Authority, token: str) -> None:
    """A token made for another use is no JWT-SVID, whoever signed it."""
    header = {"alg": "ES256", "kid": authority.kid, "typ": typ}
    with pytest.raises(InvalidToken, match="typ"):
        validate(forge(header, claims_in(token), authority.jwt_key), authority)


@pytest.mark.spec("SPIFFE-26")
@pytest.mark.parametrize("name", ["jku", "jwk", "x5c", "crit", "cty"])
def test_any_other_header_is_refused(name: str, authority: Authority, token: str) -> None:
    """A header member that the specification does not name is refused, well signed or not."""
    header = {"alg": "ES256", "kid": authority.kid, name: "x"}
    with pytest.raises(InvalidToken, match="header"):
        validate(forge(header, claims_in(token), authority.jwt_key), authority)


@pytest.mark.spec("SPIFFE-30")
@pytest.mark.spec("SPIFFE-31")
@pytest.mark.spec("SPIFFE-32")
@pytest.mark.parametrize("claim", ["sub", "aud", "exp"])
def test_each_required_claim_is_required(
    claim: str, authority: Authority, changed: Changed
) -> None:
    """Without subject, audience or expiry there is no JWT-SVID."""
    validate(changed(), authority)
    with pytest.raises(InvalidToken, match=claim):
        validate(changed(**{claim: None}), authority)


@pytest.mark.parametrize("claim", ["iss", "iat", "jti", "agent"])
def test_what_only_accredit_writes_may_be_absent(
    claim: str, authority: Authority, changed: Changed
) -> None:
    """A JWT-SVID of another issuer, with the claims of the specification only, is valid."""
    validate(changed(**{claim: None}), authority)


@pytest.mark.spec("SPIFFE-30")
@pytest.mark.parametrize(
    "subject",
    [
        "triage",
        "https://example.org/triage",
        "spiffe://example.org/a/../b",
        "spiffe://example.org/a?b",
        "spiffe://example.org:443/a",
        "spiffe://example.org/a\n",
        "",
        1,
        ["spiffe://example.org/a"],
    ],
)
def test_a_subject_is_a_spiffe_id(subject: object, authority: Authority, changed: Changed) -> None:
    """Anything but one SPIFFE ID as ``sub`` is refused."""
    with pytest.raises(InvalidToken):
        validate(changed(sub=subject), authority)


@pytest.mark.spec("SPIFFE-31")
@pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE], ["other", AUDIENCE]])
def test_one_of_the_audiences_is_enough(
    audience: object, authority: Authority, changed: Changed
) -> None:
    """The own value has to be among the audiences."""
    assert AUDIENCE in validate(changed(aud=audience), authority).audience


@pytest.mark.spec("SPIFFE-31")
@pytest.mark.parametrize(
    "audience",
    [
        "https://other.example",
        f"{AUDIENCE}/",
        f"{AUDIENCE}.evil.example",
        AUDIENCE.upper(),
        f"https://evil.example/{AUDIENCE}",
        [AUDIENCE[:-1], "other"],
    ],
)
def test_another_audience_is_refused(
    audience: object, authority: Authority, changed: Changed
) -> None:
    """An audience is compared as a whole: no prefix, suffix or other case."""
    with pytest.raises(WrongAudience):
        validate(changed(aud=audience), authority)


@pytest.mark.spec("SPIFFE-31")
@pytest.mark.parametrize("audience", [[], "", [""], [AUDIENCE, 1], [AUDIENCE, None], 1, {}])
def test_an_audience_of_another_form_is_refused(
    audience: object, authority: Authority, changed: Changed
) -> None:
    """A list with one foreign element is no list of audiences, even with ours in it."""
    with pytest.raises(InvalidToken, match="aud"):
        validate(changed(aud=audience), authority)


def test_an_empty_audience_accepts_nothing(authority: Authority, token: str) -> None:
    """A validator that was told no audience refuses."""
    with pytest.raises(WrongAudience):
        validate(token, authority, audience="")


@pytest.mark.spec("SPIFFE-32")
@pytest.mark.parametrize(
    ("seconds", "valid"),
    [(-10.5, False), (-10, True), (0, True), (299.999, True), (300, False), (1e6, False)],
)
def test_a_jwt_svid_lives_from_its_issue_to_its_expiry(
    seconds: float, valid: bool, authority: Authority, token: str
) -> None:
    """The leeway serves a clock that is behind; it never lengthens a life."""
    now = NOW + timedelta(seconds=seconds)
    if valid:
        validate(token, authority, now=now)
    else:
        with pytest.raises(Expired):
            validate(token, authority, now=now)


def test_not_before_counts_before_issued_at(authority: Authority, changed: Changed) -> None:
    """``nbf`` in the future is refused although ``iat`` is past."""
    with pytest.raises(Expired, match="not valid before"):
        validate(changed(nbf=NOW.timestamp() + 60), authority)


@pytest.mark.spec("SPIFFE-32")
@pytest.mark.parametrize("expiry", [True, "1790000000", -1, 0, 1e300, 10**300, [1], {}])
def test_an_expiry_of_another_form_is_refused(
    expiry: object, authority: Authority, changed: Changed
) -> None:
    """A bool, a text, a negative and a huge expiry never mean forever."""
    with pytest.raises((InvalidToken, Expired)):
        validate(changed(exp=expiry), authority)


@pytest.mark.parametrize("claim", ["iat", "nbf", "jti", "iss", "agent"])
@pytest.mark.parametrize("value", [True, "", [], {}, -1])
def test_an_optional_claim_of_another_form_is_refused(
    claim: str, value: object, authority: Authority, changed: Changed
) -> None:
    """What is there has to make sense."""
    with pytest.raises(InvalidToken):
        validate(changed(**{claim: value}), authority)


@pytest.mark.spec("SPIFFE-35")
def test_another_trust_domain_cannot_speak_for_ours(
    authority: Authority, other_authority: Authority
) -> None:
    """A JWT-SVID for our subject under another domain's key is refused, both bundles known."""
    bundles = authority.bundles | other_authority.bundles
    stolen = jwt_svid.sign(svid_of(authority), other_authority.jwt_key, other_authority.kid)
    with pytest.raises(Untrusted, match="signature"):
        validate(stolen, authority, bundles=bundles)
    theirs = svid_of(authority, spiffe_id=other_authority.id())
    own = jwt_svid.sign(theirs, other_authority.jwt_key, other_authority.kid)
    assert validate(own, authority, bundles=bundles).spiffe_id == other_authority.id()


@pytest.mark.spec("SPIFFE-35")
@pytest.mark.spec("SPIFFE-54")
def test_without_authorities_nothing_is_valid(authority: Authority, token: str) -> None:
    """No bundle, an empty bundle and one with X.509 authorities only refuse every JWT-SVID."""
    domain = authority.trust_domain
    x509_only = TrustBundle(domain, (authority.root.certificate,))
    for bundles in ({}, {domain: TrustBundle(domain)}, {domain: x509_only}):
        with pytest.raises(Untrusted, match="no JWT authorities"):
            validate(token, authority, bundles=bundles)


def test_another_key_of_the_same_name_is_not_trusted(authority: Authority) -> None:
    """The key id chooses among our keys; it proves nothing."""
    forged = jwt_svid.sign(svid_of(authority), generate_key(), authority.kid)
    with pytest.raises(Untrusted, match="signature"):
        validate(forged, authority)


def test_a_jwt_svid_can_be_revoked_by_all_it_carries(authority: Authority, token: str) -> None:
    """Its marks name agent, namespace, instance, manifest, its own id and its authority."""
    assert set(validate(token, authority).marks()) == {
        "agent:support/triage",
        "namespace:support",
        f"instance:{INSTANCE}",
        f"manifest:{MANIFEST}",
        "jti:0196f0a0-0000-7000-8000-000000000001",
        f"authority:{authority.kid}",
    }


@pytest.mark.parametrize(
    ("path", "marks"),
    [
        ("/ns/a/agent/b/instance/" + INSTANCE, {"agent:a/b", "namespace:a"}),
        ("/ns/a/agent/b/else", {"agent:a/b", "namespace:a"}),
        ("/ns/UPPER/agent/b", {"agent:UPPER/b", "namespace:UPPER"}),
        ("/admin/alice", {"admin:alice"}),
        ("/accredit/issuer", set()),
        ("/some/service", set()),
    ],
)
def test_marks_follow_from_any_identity(path: str, marks: set[str], authority: Authority) -> None:
    """Any SPIFFE ID has marks, even one that Accredit would not give to an agent."""
    domain = authority.trust_domain
    svid = JwtSvid(spiffe_id=SpiffeId(domain, path), audience=("a",), expires_at=NOW)
    assert set(svid.marks()) == marks


def test_no_error_carries_the_token(authority: Authority, changed: Changed) -> None:
    """Messages end in logs: none has a part of the token in it."""
    refused = [changed(exp=1), changed(aud="other"), changed(sub="x"), changed(sub=None)]
    for token in refused:
        with pytest.raises(CredentialError) as caught:
            validate(token, authority)
        assert not any(part in str(caught.value) for part in token.split("."))

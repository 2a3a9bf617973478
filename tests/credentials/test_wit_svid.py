"""WIT-SVIDs: which are good, when, and that none of them authenticates anybody by itself."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from support.authority import INSTANCE, MANIFEST, NOW, Authority
from support.tokens import claims_in, forge, forge_hmac

from accredit_credentials import wit_svid
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import CredentialError, Expired, InvalidToken, Untrusted
from accredit_credentials.jwt_svid import AgentBlock
from accredit_credentials.keys import PublicKey, b64url_decode, generate_key, jwk_of
from accredit_credentials.wit_svid import UnprovenWit, WitSvid

KEY = generate_key()
JTI = "0196f0a0-0000-7000-8000-000000000002"
RSA_KEY = rsa.generate_private_key(65537, 2048)
Changed = Callable[..., str]


def svid_of(authority: Authority, **changes: Any) -> WitSvid:
    """A good WIT-SVID, to be signed."""
    good = WitSvid(
        spiffe_id=authority.id(),
        key=KEY.public_key(),
        algorithm="ES256",
        expires_at=NOW + timedelta(minutes=15),
        not_before=NOW - timedelta(seconds=10),
        issued_at=NOW,
        jti=JTI,
        agent=AgentBlock(version="1.2.0", instance=INSTANCE, manifest=MANIFEST, assurance="node"),
    )
    return replace(good, **changes)


@pytest.fixture
def token(authority: Authority) -> str:
    """A good WIT-SVID."""
    return wit_svid.sign(svid_of(authority), authority.wit_key, authority.wit_kid)


@pytest.fixture
def changed(authority: Authority, token: str) -> Changed:
    """Signs the good claims again, with some changed; None removes one."""

    def change(header: Mapping[str, Any] | None = None, **claims: object) -> str:
        good = {**claims_in(token), **claims}
        kept = {name: value for name, value in good.items() if value is not None}
        head = {"alg": "ES256", "kid": authority.wit_kid, "typ": "wit+jwt", **(header or {})}
        known = {name: value for name, value in head.items() if value is not None}
        return forge(known, kept, authority.wit_key)

    return change


def validate(token: str, authority: Authority, **changes: Any) -> UnprovenWit:
    """Validate at the good time."""
    bundle = authority.bundle_with_wits
    good = {"bundles": {bundle.trust_domain: bundle}, "now": NOW}
    return wit_svid.validate(token, **{**good, **changes})


@pytest.mark.spec("SPIFFE-40")
@pytest.mark.spec("SPIFFE-41")
def test_what_is_signed_comes_back_as_a_claim(authority: Authority, token: str) -> None:
    """Every field survives the way, with the authority that signed it and the token's hash."""
    expected = replace(svid_of(authority), authority=authority.wit_kid)
    assert validate(token, authority) == UnprovenWit(
        claimed=expected, token_hash=wit_svid.token_hash(token)
    )


@pytest.mark.spec("SPIFFE-48")
def test_what_was_validated_names_nobody(authority: Authority, token: str) -> None:
    """Without a proof there is no identity to read, but a claim and what to prove it by."""
    unproven = validate(token, authority)
    assert {each.name for each in fields(unproven)} == {"claimed", "token_hash"}
    assert not hasattr(unproven, "spiffe_id")


@pytest.mark.spec("SPIFFE-36")
@pytest.mark.spec("SPIFFE-37")
@pytest.mark.spec("SPIFFE-39")
def test_the_header_has_three_members(token: str) -> None:
    """We write alg, kid and typ, and nothing else."""
    expected = b'{"alg":"ES256","kid":"7769742d31","typ":"wit+jwt"}'
    assert b64url_decode(token.split(".", 1)[0]) == expected


@pytest.mark.spec("SPIFFE-46")
@pytest.mark.spec("SPIFFE-47")
def test_the_claims_name_no_audience_and_no_issuer(token: str) -> None:
    """We write neither aud nor iss: no relying party may take it for one of its own."""
    claims = claims_in(token)
    assert claims.keys() == {"sub", "exp", "nbf", "iat", "jti", "cnf", "agent"}
    assert claims["cnf"] == {"jwk": {**jwk_of(KEY.public_key()), "alg": "ES256"}}


@pytest.mark.spec("SPIFFE-36")
@pytest.mark.parametrize("kid", [None, "", 1, "7769742D31", "7769742d31 "])
def test_the_key_is_named_by_its_very_id(
    kid: object, authority: Authority, changed: Changed
) -> None:
    """Without ``kid``, or with another spelling of it, no key of the bundle is tried."""
    validate(changed(), authority)
    with pytest.raises((InvalidToken, Untrusted)):
        validate(changed({"kid": kid}), authority)


@pytest.mark.spec("SPIFFE-37")
@pytest.mark.parametrize("typ", [None, "JWT", "JOSE", "at+jwt", "wpt+jwt", "WIT+JWT", "", 1])
def test_any_other_type_is_refused(typ: object, authority: Authority, changed: Changed) -> None:
    """``typ`` is ``wit+jwt``, letter for letter."""
    with pytest.raises(InvalidToken, match="typ"):
        validate(changed({"typ": typ}), authority)


@pytest.mark.spec("SPIFFE-38")
@pytest.mark.parametrize("algorithm", ["none", "HS256", "EdDSA", "ES256K", "es256"])
def test_any_other_algorithm_is_refused(
    algorithm: str, authority: Authority, token: str, changed: Changed
) -> None:
    """Neither no signature, nor one with a shared secret, nor a curve that nobody agreed on."""
    with pytest.raises(InvalidToken, match="alg"):
        validate(changed({"alg": algorithm}), authority)
    header = {"alg": "HS256", "kid": authority.wit_kid, "typ": "wit+jwt"}
    with pytest.raises(InvalidToken, match="alg"):
        validate(forge_hmac(header, claims_in(token), b"secret"), authority)


@pytest.mark.spec("SPIFFE-38")
@pytest.mark.parametrize(
    "key",
    [generate_key(), ec.generate_private_key(ec.SECP384R1()), RSA_KEY],
    ids=["P-256", "P-384", "RSA"],
)
def test_the_algorithms_of_our_keys_are_read(key: Any, authority: Authority) -> None:
    """A WIT-SVID of another issuer may be signed with any key that a bundle may have."""
    bundle = replace(authority.bundle, wit_authorities={"k": key.public_key()})
    token = wit_svid.sign(svid_of(authority), key, "k")
    assert validate(token, authority, bundles={bundle.trust_domain: bundle})


@pytest.mark.spec("SPIFFE-39")
@pytest.mark.parametrize("name", ["jku", "jwk", "x5c", "cty", "b64", "x-unknown"])
def test_an_unknown_header_is_passed_over(
    name: str, authority: Authority, changed: Changed
) -> None:
    """What nobody knows changes nothing: no key is taken from it."""
    found = validate(changed({name: "x"}), authority)
    assert found.claimed == validate(changed(), authority).claimed


@pytest.mark.spec("SPIFFE-39")
@pytest.mark.parametrize("critical", [["x-unknown"], ["exp"], [], "x", True])
def test_a_critical_header_is_refused(
    critical: object, authority: Authority, changed: Changed
) -> None:
    """We know no extension that a sender could insist on."""
    with pytest.raises(InvalidToken, match="crit"):
        validate(changed({"x-unknown": "x", "crit": critical}), authority)


@pytest.mark.spec("SPIFFE-40")
@pytest.mark.spec("SPIFFE-41")
@pytest.mark.spec("SPIFFE-43")
@pytest.mark.parametrize("claim", ["sub", "exp", "cnf"])
def test_each_required_claim_is_required(
    claim: str, authority: Authority, changed: Changed
) -> None:
    """Without subject, expiry or key there is no WIT-SVID."""
    with pytest.raises(InvalidToken, match=claim):
        validate(changed(**{claim: None}), authority)


@pytest.mark.spec("SPIFFE-42")
@pytest.mark.parametrize("claim", ["iat", "nbf", "jti", "agent"])
def test_what_is_optional_may_be_absent(claim: str, authority: Authority, changed: Changed) -> None:
    """A WIT-SVID of another issuer, with the claims that must be there only, is good."""
    validate(changed(**{claim: None}), authority)


@pytest.mark.spec("SPIFFE-42")
def test_the_same_id_is_good_again(authority: Authority, token: str) -> None:
    """A WIT-SVID is shown many times: its ``jti`` is no defence against replay."""
    assert validate(token, authority) == validate(token, authority)


@pytest.mark.spec("SPIFFE-40")
@pytest.mark.parametrize("subject", ["triage", "https://example.org/a", "spiffe://e/a?b", "", 1])
def test_a_subject_is_a_spiffe_id(subject: object, authority: Authority, changed: Changed) -> None:
    """Anything but one SPIFFE ID as ``sub`` is refused."""
    with pytest.raises(InvalidToken):
        validate(changed(sub=subject), authority)


def jwk(key: PublicKey, **members: object) -> dict[str, Any]:
    """A public key for ``cnf``, with members changed; None removes one."""
    found = {**jwk_of(key), "alg": "ES256", **members}
    return {name: value for name, value in found.items() if value is not None}


USELESS: list[object] = [
    {},
    {"jwk": None},
    {"jkt": "abc"},
    {"jwk": "abc"},
    {"jwk": {"kty": "oct", "k": "AAAA", "alg": "HS256"}},
    {"jwk": jwk(KEY.public_key(), alg=None)},
    {"jwk": jwk(KEY.public_key(), alg="none")},
    {"jwk": jwk(KEY.public_key(), alg="HS256")},
    {"jwk": jwk(KEY.public_key(), alg="ES384")},
    {"jwk": jwk(KEY.public_key(), alg="RS256")},
    {"jwk": jwk(KEY.public_key(), alg=["ES256"])},
    {"jwk": jwk(KEY.public_key(), d="AAAA")},
    {"jwk": jwk(KEY.public_key(), x="AAAA")},
    {"jwk": jwk(RSA_KEY.public_key(), alg="ES256")},
    {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43, "alg": "EdDSA"}},
    [],
    "abc",
]


@pytest.mark.spec("SPIFFE-41")
@pytest.mark.parametrize("confirmation", USELESS, ids=range(len(USELESS)))
def test_a_key_that_cannot_be_proved_is_refused(
    confirmation: object, authority: Authority, changed: Changed
) -> None:
    """No key, a shared secret, a private key, or none of the nine algorithms that goes with it."""
    with pytest.raises(InvalidToken):
        validate(changed(cnf=confirmation), authority)


@pytest.mark.spec("SPIFFE-41")
@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_an_rsa_key_names_its_one_algorithm(
    algorithm: str, authority: Authority, changed: Changed
) -> None:
    """Of the six that an RSA key can do, the WIT-SVID says which one a proof has to use."""
    confirmation = {"jwk": jwk(RSA_KEY.public_key(), alg=algorithm), "x-unknown": "x"}
    assert validate(changed(cnf=confirmation), authority).claimed.algorithm == algorithm


@pytest.mark.spec("SPIFFE-43")
@pytest.mark.spec("SPIFFE-44")
@pytest.mark.parametrize(
    ("seconds", "good"),
    [(-20.5, False), (-20, True), (0, True), (899.999, True), (900, False), (1e6, False)],
)
def test_a_wit_svid_lives_from_not_before_to_its_expiry(
    seconds: float, good: bool, authority: Authority, token: str
) -> None:
    """The leeway serves a clock that is behind; it never lengthens a life."""
    now = NOW + timedelta(seconds=seconds)
    if good:
        validate(token, authority, now=now)
    else:
        with pytest.raises(Expired):
            validate(token, authority, now=now)


@pytest.mark.spec("SPIFFE-45")
def test_when_it_was_issued_limits_nothing(authority: Authority, changed: Changed) -> None:
    """``iat`` in the future is a record of somebody's clock; ``nbf`` in the future is refused."""
    soon = NOW.timestamp() + 60
    validate(changed(iat=soon), authority)
    with pytest.raises(Expired, match="not valid before"):
        validate(changed(nbf=soon), authority)


@pytest.mark.spec("SPIFFE-43")
@pytest.mark.parametrize("expiry", [True, "1790000000", -1, 0, 1e300, [1], {}])
def test_an_expiry_of_another_form_is_refused(
    expiry: object, authority: Authority, changed: Changed
) -> None:
    """A bool, a text, a negative and a huge expiry never mean forever."""
    with pytest.raises((InvalidToken, Expired)):
        validate(changed(exp=expiry), authority)


@pytest.mark.spec("SPIFFE-47")
@pytest.mark.parametrize("audience", ["https://tickets.example", [], [""]])
def test_an_audience_is_refused(audience: object, authority: Authority, changed: Changed) -> None:
    """Whatever has an audience was made to be borne."""
    with pytest.raises(InvalidToken, match="aud"):
        validate(changed(aud=audience), authority)


@pytest.mark.spec("SPIFFE-46")
def test_an_issuer_is_passed_over(authority: Authority, changed: Changed) -> None:
    """Another issuer may name itself: who signed follows from the subject's trust domain."""
    assert validate(changed(iss="https://issuer.example"), authority)


def test_another_trust_domain_cannot_speak_for_ours(
    authority: Authority, other_authority: Authority
) -> None:
    """A WIT-SVID for our subject under another domain's key is refused, both bundles known."""
    known = (authority.bundle_with_wits, other_authority.bundle_with_wits)
    bundles = {each.trust_domain: each for each in known}
    stolen = wit_svid.sign(svid_of(authority), other_authority.wit_key, other_authority.wit_kid)
    with pytest.raises(Untrusted, match="signature"):
        validate(stolen, authority, bundles=bundles)


@pytest.mark.spec("SPIFFE-50")
@pytest.mark.spec("SPIFFE-54")
def test_keys_of_another_use_sign_no_wit_svid(authority: Authority, token: str) -> None:
    """A bundle with JWT keys only knows no WIT-SVID, even where it is the very same key."""
    same = TrustBundle(
        authority.trust_domain, jwt_authorities={authority.wit_kid: authority.wit_key.public_key()}
    )
    for bundles in ({}, {authority.trust_domain: same}, authority.bundles):
        with pytest.raises(Untrusted, match="no WIT authorities"):
            validate(token, authority, bundles=bundles)


@pytest.mark.spec("SPIFFE-50")
def test_the_jwt_key_of_a_trust_domain_signs_no_wit_svid(authority: Authority) -> None:
    """Where both kinds of key are published, each signs its own kind of token only."""
    for kid in (authority.kid, authority.wit_kid):
        forged = wit_svid.sign(svid_of(authority), authority.jwt_key, kid)
        with pytest.raises(Untrusted):
            validate(forged, authority)


def test_a_wit_svid_can_be_revoked_by_all_it_carries(authority: Authority, token: str) -> None:
    """Its marks name agent, namespace, instance, manifest, its own id and its authority."""
    assert set(validate(token, authority).claimed.marks()) == {
        "agent:support/triage",
        "namespace:support",
        f"instance:{INSTANCE}",
        f"manifest:{MANIFEST}",
        f"jti:{JTI}",
        f"authority:{authority.wit_kid}",
    }


def test_no_error_carries_the_token(authority: Authority, changed: Changed) -> None:
    """Messages end in logs: none has a part of the token in it."""
    for token in (changed(exp=1), changed(aud="other"), changed(sub="x"), changed(cnf={})):
        with pytest.raises(CredentialError) as caught:
            validate(token, authority)
        assert not any(part in str(caught.value) for part in token.split("."))

"""Workload proofs: made with one key, for one WIT-SVID, one audience, one moment."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from support.authority import NOW, Authority
from support.tokens import claims_in, forge, forge_hmac

from accredit_credentials import wit_svid, workload_proof
from accredit_credentials.errors import (
    CredentialError,
    Expired,
    InvalidToken,
    WrongAudience,
    WrongHolder,
)
from accredit_credentials.jws import usual_algorithm
from accredit_credentials.keys import PrivateKey, generate_key, jwk_of
from accredit_credentials.wit_svid import UnprovenWit, WitSvid
from accredit_credentials.workload_proof import LIFETIME, ProvenWit

KEY = generate_key()
OTHER_KEY = generate_key()
AUDIENCE = "https://tickets.example/v1/tickets/12"
PROOF_ID = "vXk3cQ2mRk6b0Z1y"
HEADER = {"alg": "ES256", "typ": "wpt+jwt"}
Changed = Callable[..., str]


def wit_of(authority: Authority, key: PrivateKey = KEY, **changes: Any) -> str:
    """A WIT-SVID for a key."""
    svid = WitSvid(
        spiffe_id=authority.id(),
        key=key.public_key(),
        algorithm=usual_algorithm(key.public_key()),
        expires_at=NOW + timedelta(minutes=15),
    )
    return wit_svid.sign(replace(svid, **changes), authority.wit_key, authority.wit_kid)


def unproven(wit: str, authority: Authority) -> UnprovenWit:
    """The WIT-SVID, found good."""
    bundle = authority.bundle_with_wits
    return wit_svid.validate(wit, bundles={bundle.trust_domain: bundle}, now=NOW)


@pytest.fixture
def wit(authority: Authority) -> str:
    """A good WIT-SVID."""
    return wit_of(authority)


def proof_of(wit: str, key: PrivateKey = KEY, **changes: Any) -> str:
    """A good proof, with some of its inputs changed."""
    good = {
        "wit": wit,
        "audience": AUDIENCE,
        "jti": PROOF_ID,
        "expires_at": NOW + timedelta(seconds=LIFETIME),
    }
    return workload_proof.create_proof(key, **{**good, **changes})


@pytest.fixture
def changed(wit: str) -> Changed:
    """Signs the good proof again, with claims or header changed; None removes one."""

    def change(header: dict[str, Any] | None = None, **claims: object) -> str:
        good = {**claims_in(proof_of(wit)), **claims}
        kept = {name: value for name, value in good.items() if value is not None}
        return forge(HEADER if header is None else header, kept, KEY)

    return change


def verify(proof: str, wit: str, authority: Authority, **changes: Any) -> ProvenWit:
    """Verify a proof for the good audience at the good time."""
    good = {"audience": AUDIENCE, "now": NOW}
    return workload_proof.verify_proof(proof, unproven(wit, authority), **{**good, **changes})


@pytest.mark.spec("SPIFFE-48")
@pytest.mark.parametrize(
    "key",
    [KEY, ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)],
    ids=["P-256", "P-384", "RSA"],
)
def test_who_holds_the_key_is_who_the_wit_names(key: PrivateKey, authority: Authority) -> None:
    """A proof turns a claim into whose request it is, and says until when to remember it."""
    wit = wit_of(authority, key)
    proven = verify(proof_of(wit, key), wit, authority)
    assert proven == ProvenWit(
        svid=unproven(wit, authority).claimed,
        proof_id=PROOF_ID,
        proof_ends=NOW + timedelta(seconds=LIFETIME),
    )


@pytest.mark.spec("SPIFFE-48")
def test_another_key_proves_nothing(authority: Authority, wit: str) -> None:
    """Who has only seen the WIT-SVID signs with a key of their own, and is refused."""
    with pytest.raises(WrongHolder, match="key"):
        verify(proof_of(wit, OTHER_KEY), wit, authority)


@pytest.mark.spec("SPIFFE-48")
def test_the_wit_itself_is_no_proof(authority: Authority, wit: str) -> None:
    """Shown twice it proves no more than once; and a proof is no WIT-SVID."""
    with pytest.raises(InvalidToken, match="typ"):
        verify(wit, wit, authority)
    with pytest.raises(InvalidToken, match="typ"):
        unproven(proof_of(wit), authority)


@pytest.mark.spec("SPIFFE-48")
def test_a_proof_for_another_wit_of_the_same_key_is_refused(authority: Authority, wit: str) -> None:
    """A later WIT-SVID does not inherit proofs that were made for an earlier one."""
    later = wit_of(authority, jti="later")
    with pytest.raises(WrongHolder, match="another WIT"):
        verify(proof_of(wit), later, authority)


def test_the_wit_says_the_algorithm(authority: Authority) -> None:
    """An RSA key can do six algorithms; a proof with another than the WIT-SVID's is refused."""
    key = rsa.generate_private_key(65537, 2048)
    wit = wit_of(authority, key, algorithm="PS256")
    with pytest.raises(WrongHolder, match="PS256"):
        verify(proof_of(wit, key), wit, authority)


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_an_unsigned_proof_is_refused(algorithm: str, authority: Authority, wit: str) -> None:
    """Neither no signature nor one with the public key as a secret."""
    header = {"alg": algorithm, "typ": "wpt+jwt"}
    with pytest.raises(InvalidToken, match="alg"):
        verify(forge_hmac(header, claims_in(proof_of(wit)), b"secret"), wit, authority)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "ES256"},
        {"alg": "ES256", "typ": "dpop+jwt"},
        {"alg": "ES256", "typ": "JWT"},
        {**HEADER, "jwk": jwk_of(OTHER_KEY.public_key())},
        {**HEADER, "crit": ["exp"]},
    ],
)
def test_a_header_of_another_form_is_refused(
    header: dict[str, Any], authority: Authority, wit: str, changed: Changed
) -> None:
    """The key comes from the WIT-SVID and never from the proof."""
    verify(changed(), wit, authority)
    with pytest.raises(InvalidToken, match="header"):
        verify(changed(header), wit, authority)


@pytest.mark.parametrize("claim", ["aud", "exp", "jti", "wth"])
def test_each_claim_is_required(
    claim: str, authority: Authority, wit: str, changed: Changed
) -> None:
    """Without any of the four there is no proof."""
    with pytest.raises(InvalidToken, match=claim):
        verify(changed(**{claim: None}), wit, authority)


@pytest.mark.parametrize(
    "audience",
    [
        "https://tickets.example/v1/tickets/1",
        "https://tickets.example/v1/tickets/12?x",
        AUDIENCE.upper(),
        [AUDIENCE, "https://other.example"],
    ],
)
def test_a_proof_is_for_one_audience(
    audience: object, authority: Authority, wit: str, changed: Changed
) -> None:
    """Another audience, or more than one: whoever received it could show it to us."""
    verify(changed(aud=[AUDIENCE]), wit, authority)
    with pytest.raises(WrongAudience):
        verify(changed(aud=audience), wit, authority)


@pytest.mark.spec("SPIFFE-49")
@pytest.mark.parametrize(
    ("seconds", "good"), [(-36, False), (-35, True), (0, True), (29.9, True), (30, False)]
)
def test_a_proof_lives_for_seconds(
    seconds: float, good: bool, authority: Authority, wit: str
) -> None:
    """Over at its end, and refused where it would be good for longer than a minute."""
    now = NOW + timedelta(seconds=seconds)
    if good:
        verify(proof_of(wit), wit, authority, now=now)
    else:
        with pytest.raises(Expired):
            verify(proof_of(wit), wit, authority, now=now)


@pytest.mark.spec("SPIFFE-49")
@pytest.mark.parametrize("expiry", [True, "1790000000", 0, 1e300])
def test_an_endless_proof_is_refused(
    expiry: object, authority: Authority, wit: str, changed: Changed
) -> None:
    """No form of ``exp`` means forever."""
    with pytest.raises((InvalidToken, Expired)):
        verify(changed(exp=expiry), wit, authority)


@pytest.mark.parametrize("claim", ["tth", "oth", "ath"])
def test_a_proof_that_speaks_of_other_tokens_is_refused(
    claim: str, authority: Authority, wit: str, changed: Changed
) -> None:
    """Whoever binds a second token wants it looked at, and we look at none."""
    with pytest.raises(InvalidToken, match=claim):
        verify(changed(**{claim: "x"}), wit, authority)


def test_no_error_carries_a_proof(authority: Authority, wit: str, changed: Changed) -> None:
    """Messages end in logs, and a proof in a log could be shown again."""
    for proof in (changed(exp=1), changed(aud="x"), changed(wth="x"), proof_of(wit, OTHER_KEY)):
        with pytest.raises(CredentialError) as caught:
            verify(proof, wit, authority)
        assert not any(part in str(caught.value) for part in proof.split("."))

"""DPoP proofs: made for one request, one token, one moment, by one key."""

from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from support.authority import NOW
from support.tokens import claims_in, forge, forge_hmac

from accredit_credentials import dpop
from accredit_credentials.dpop import DpopProof, create_proof, verify_proof
from accredit_credentials.errors import (
    CredentialError,
    Expired,
    InvalidToken,
    Untrusted,
    WrongHolder,
)
from accredit_credentials.keys import PrivateKey, b64url, generate_key, jwk_of, jwk_thumbprint

KEY = generate_key()
OTHER_KEY = generate_key()
JWK = jwk_of(KEY.public_key())
HEADER = {"alg": "ES256", "typ": "dpop+jwt", "jwk": JWK}
URL = "https://tickets.example/v1/tickets/12"
TOKEN = "header.payload.signature"
JTI = "vXk3cQ2mRk6b0Z1y"


def proof_of(key: PrivateKey = KEY, **changes: Any) -> str:
    """A good proof, with some of its inputs changed."""
    good = {"method": "POST", "url": URL, "access_token": TOKEN, "jti": JTI, "now": NOW}
    return create_proof(key, **{**good, **changes})


def verify(proof: str, **changes: Any) -> DpopProof:
    """Verify a proof against the good request."""
    good = {"method": "POST", "url": URL, "access_token": TOKEN, "now": NOW}
    return verify_proof(proof, **{**good, **changes})


def changed(header: dict[str, Any] | None = None, **claims: object) -> str:
    """The good proof, signed again with claims or header changed; None removes one."""
    good = {**claims_in(proof_of()), **claims}
    kept = {name: value for name, value in good.items() if value is not None}
    return forge(HEADER if header is None else header, kept, KEY)


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-256", "P-384", "RSA"],
)
def test_a_proof_names_its_key_and_its_id(key: PrivateKey) -> None:
    """Whoever verifies learns the thumbprint to compare and the id to remember."""
    assert verify(proof_of(key)) == DpopProof(jwk_thumbprint(key.public_key()), JTI, NOW)


def test_a_proof_without_a_token_is_for_getting_one() -> None:
    """At the token endpoint there is no token yet; elsewhere its absence is refused."""
    proof = proof_of(access_token=None)
    assert "ath" not in claims_in(proof)
    verify(proof, access_token=None)
    with pytest.raises(InvalidToken, match="ath"):
        verify(proof)


@pytest.mark.parametrize(
    ("made_for", "expected"),
    [
        ({"method": "GET"}, {}),
        ({"method": "post"}, {}),
        ({"url": "https://tickets.example/v1/tickets/13"}, {}),
        ({"url": "https://tickets.example/v1/tickets/12/"}, {}),
        ({"url": "https://tickets.example/v1/Tickets/12"}, {}),
        ({"url": "http://tickets.example/v1/tickets/12"}, {}),
        ({"url": "https://tickets.example:8443/v1/tickets/12"}, {}),
        ({"url": "https://evil.example/v1/tickets/12"}, {}),
        ({"url": "https://tickets.example.evil.example/v1/tickets/12"}, {}),
        ({"url": "/v1/tickets/12"}, {}),
        ({"access_token": "header.payload.other"}, {}),
        ({"access_token": TOKEN + "="}, {}),
        ({}, {"method": "PUT"}),
        ({}, {"url": "https://tickets.example/"}),
        ({}, {"access_token": "x"}),
    ],
)
def test_a_proof_for_another_request_is_refused(
    made_for: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Another method, address or token: the proof was made for something else."""
    with pytest.raises(WrongHolder):
        verify(proof_of(**made_for), **expected)


@pytest.mark.parametrize(
    ("made_for", "asked"),
    [
        ("https://tickets.example/a", "https://tickets.example:443/a"),
        ("https://tickets.example:443/a", "https://tickets.example/a"),
        ("http://tickets.example:80/a", "http://tickets.example/a"),
        ("HTTPS://Tickets.Example/a", "https://tickets.example/a"),
        ("https://tickets.example", "https://tickets.example/"),
        ("https://tickets.example/a?b=c#d", "https://tickets.example/a?e=f"),
        ("https://[2001:DB8::1]/a", "https://[2001:db8::1]:443/a"),
    ],
)
def test_one_address_has_several_spellings(made_for: str, asked: str) -> None:
    """Default port, case of scheme and host, query and fragment make no difference."""
    verify(proof_of(url=made_for), url=asked)


@pytest.mark.parametrize(
    ("made_for", "asked"),
    [
        ("https://tickets.example:80/a", "https://tickets.example/a"),
        ("http://tickets.example:443/a", "http://tickets.example/a"),
        ("https://tickets.example/A", "https://tickets.example/a"),
        ("https://tickets.example/a/", "https://tickets.example/a"),
        ("https://tickets.example//a", "https://tickets.example/a"),
        ("https://tickets.example.:443/a", "https://tickets.example/a"),
    ],
)
def test_and_their_neighbours_are_others(made_for: str, asked: str) -> None:
    """A port of the other scheme, the case of a path and a slash make a difference."""
    with pytest.raises(WrongHolder, match="address"):
        verify(proof_of(url=made_for), url=asked)


@pytest.mark.parametrize(
    "address", ["https://[::1", "https://a:b/", "https://a:99999999/", "https://a\u2100b/"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    """What no URL parser reads is refused as a form, not as an accident."""
    with pytest.raises(InvalidToken, match="URL"):
        verify(changed(htu=address))


@pytest.mark.parametrize(
    ("seconds", "valid"),
    [(-6, False), (-5, True), (0, True), (60, True), (60.5, False), (61, False), (1e7, False)],
)
def test_a_proof_is_fresh(seconds: float, valid: bool) -> None:
    """At most a minute old, at most five seconds from the future."""
    now = NOW + timedelta(seconds=seconds)
    if valid:
        verify(proof_of(), now=now)
    else:
        with pytest.raises(Expired):
            verify(proof_of(), now=now)


@pytest.mark.parametrize("claim", ["jti", "htm", "htu", "iat", "ath"])
@pytest.mark.parametrize("value", [None, "", True, [], {}, ["x"], -1])
def test_each_claim_is_required(claim: str, value: object) -> None:
    """Drop or spoil one after the other: each is refused."""
    verify(changed())
    with pytest.raises(InvalidToken, match=claim):
        verify(changed(**{claim: value}))


@pytest.mark.parametrize("claim", ["jti", "htm", "htu", "ath"])
def test_no_text_that_is_none_gets_through(claim: str) -> None:
    """Half a surrogate pair is refused before it meets a hash, a log or a replay memory."""
    with pytest.raises(InvalidToken, match="JSON"):
        verify(changed(**{claim: "\ud800"}))


@pytest.mark.parametrize("claim", ["htm", "ath"])
def test_a_text_beyond_ascii_is_only_wrong(claim: str) -> None:
    """A claim that is no ASCII is compared like any other."""
    with pytest.raises(WrongHolder):
        verify(changed(**{claim: "é"}))


def without(*names: str) -> dict[str, Any]:
    """The good key with members missing."""
    return {name: value for name, value in JWK.items() if name not in names}


PRIVATE = KEY.private_numbers().private_value.to_bytes(32)


@pytest.mark.parametrize(
    "jwk",
    [
        None,
        {},
        [],
        "jwk",
        [JWK],
        without("x"),
        without("kty"),
        {**JWK, "kty": "oct", "k": "AAAA"},
        {**JWK, "kty": ["EC"]},
        {**JWK, "crv": "P-521"},
        {**JWK, "crv": "secp256k1"},
        {**JWK, "x": JWK["y"]},
        {**JWK, "x": b64url(b"\x00" * 32), "y": b64url(b"\x00" * 32)},
        {**JWK, "d": b64url(PRIVATE)},
        {"kty": "OKP", "crv": "Ed25519", "x": b64url(b"\x01" * 32)},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
    ],
)
def test_a_proof_carries_one_public_key(jwk: object) -> None:
    """No key, a private, a symmetric, a broken and a weak key are refused."""
    header = {**HEADER, "jwk": jwk} if jwk is not None else without_jwk()
    with pytest.raises(InvalidToken):
        verify(changed(header))


def without_jwk() -> dict[str, Any]:
    """The good header without its key."""
    return {name: value for name, value in HEADER.items() if name != "jwk"}


def test_the_signature_is_of_the_key_inside() -> None:
    """Somebody else's key in the header does not make the proof theirs."""
    with pytest.raises(Untrusted):
        verify(changed({**HEADER, "jwk": jwk_of(OTHER_KEY.public_key())}))
    thumbprint = verify(proof_of(OTHER_KEY)).key_thumbprint
    assert thumbprint != verify(proof_of()).key_thumbprint


@pytest.mark.parametrize(
    "header",
    [
        {**HEADER, "alg": "none"},
        {**HEADER, "alg": "HS256"},
        {**HEADER, "alg": "ES384"},
        {**HEADER, "alg": "RS256"},
        {**HEADER, "typ": "JWT"},
        {**HEADER, "typ": "at+jwt"},
        {**HEADER, "typ": "DPoP+jwt"},
        {**HEADER, "x5c": ["MIIB"]},
        {**HEADER, "jku": "https://evil.example"},
        {**HEADER, "crit": ["jwk"]},
        {**HEADER, "kid": 1},
    ],
)
def test_a_header_of_another_kind_is_refused(header: dict[str, Any]) -> None:
    """The algorithm goes with the key inside, the type is a proof's, and nothing else is there."""
    with pytest.raises((InvalidToken, Untrusted)):
        verify(changed(header))


def test_the_key_inside_is_no_secret() -> None:
    """HS256 with the public key as its secret is refused."""
    public = KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(InvalidToken, match="alg"):
        verify(forge_hmac({**HEADER, "alg": "HS256"}, claims_in(proof_of()), public))


def test_a_proof_has_a_limit() -> None:
    """A proof comes from anybody: it is short, or it is refused unread."""
    with pytest.raises(InvalidToken, match="limit"):
        verify(changed(extra="x" * dpop.MAX_PROOF_BYTES))


def test_no_proof_shows_in_a_repr_or_an_error() -> None:
    """Neither the id nor the token nor the proof ends in a log."""
    assert JTI not in repr(verify(proof_of()))
    proof = proof_of(method="GET")
    with pytest.raises(CredentialError) as caught:
        verify(proof)
    assert not any(secret in str(caught.value) for secret in (JTI, TOKEN, *proof.split(".")))

"""Keys: which are accepted, their JWK and thumbprint, and every neighbour that must be refused."""

import hashlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519
from hypothesis import given, settings
from hypothesis import strategies as st

from accredit_credentials.errors import InvalidKey
from accredit_credentials.keys import (
    PublicKey,
    b64url,
    b64url_decode,
    check_public_key,
    generate_key,
    jwk_of,
    jwk_thumbprint,
    jws_algorithms,
    key_of_jwk,
    private_jwk_of,
    public_key_der,
    public_key_digest,
)

# RFC 7638 §3.1: the key, and its thumbprint.
RFC7638_JWK = {
    "kty": "RSA",
    "n": (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86z"
        "wu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5Js"
        "GY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMic"
        "AtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-"
        "bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csF"
        "Cur-kEgU8awapJzKnqDKgw"
    ),
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}
RFC7638_THUMBPRINT = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
# RFC 9449 §4.1 and §6.1: a DPoP proof's key, and its thumbprint.
RFC9449_JWK = {
    "kty": "EC",
    "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
    "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
    "crv": "P-256",
}
RFC9449_THUMBPRINT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"

P256_PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1
P256 = ec.generate_private_key(ec.SECP256R1()).public_key()
P384 = ec.generate_private_key(ec.SECP384R1()).public_key()
RSA_JWK = {name: RFC7638_JWK[name] for name in ("kty", "n", "e")}
RSA = key_of_jwk(RFC7638_JWK)


def rsa_key(bits: int, exponent: int = 65537) -> rsa.RSAPublicKey:
    """A public key of that size: nobody needs to hold its private half, so it costs nothing."""
    return rsa.RSAPublicNumbers(exponent, (1 << (bits - 1)) | 1).public_key()


def rsa_jwk(bits: int, exponent: int = 65537) -> dict[str, str]:
    """The same key as a JWK."""
    numbers = rsa_key(bits, exponent).public_numbers()
    return {
        "kty": "RSA",
        "n": b64url(numbers.n.to_bytes(bits // 8)),
        "e": b64url(exponent.to_bytes((exponent.bit_length() + 7) // 8)),
    }


def test_a_generated_key_is_p256_and_accepted() -> None:
    """The key that we make by default is one that we accept."""
    key = generate_key().public_key()
    assert key.curve.name == "secp256r1"
    assert check_public_key(key) is key


@pytest.mark.parametrize("key", [P256, P384, RSA, rsa_key(2048), rsa_key(3072), rsa_key(4096)])
def test_the_keys_of_the_field_are_accepted(key: PublicKey) -> None:
    """P-256, P-384 and RSA 2048 to 4096 pass, and come back from their JWK as the same key."""
    assert check_public_key(key) is key
    assert key_of_jwk(jwk_of(key)) == key


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP521R1()).public_key(),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
        ec.generate_private_key(ec.BrainpoolP256R1()).public_key(),
        ed25519.Ed25519PrivateKey.generate().public_key(),
        x25519.X25519PrivateKey.generate().public_key(),
        dsa.DSAPublicNumbers(
            4, dsa.DSAParameterNumbers((1 << 2047) | 1, (1 << 255) | 1, 2)
        ).public_key(),
        rsa_key(1024),
        rsa_key(2040),
        rsa_key(2047),
        rsa_key(4097),
        rsa_key(8192),
        rsa_key(16384),
        rsa_key(2048, exponent=3),
        rsa_key(2048, exponent=65539),
        generate_key(),
        b"key",
        None,
    ],
)
def test_any_other_key_is_refused(key: object) -> None:
    """Weak, huge and unusual keys, private keys and no key at all are refused by kind."""
    with pytest.raises(InvalidKey):
        check_public_key(key)


@pytest.mark.spec("SPIFFE-27")
@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        (P256, {"ES256"}),
        (P384, {"ES384"}),
        (RSA, {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    ],
)
def test_the_algorithm_comes_from_the_key(key: PublicKey, algorithms: set[str]) -> None:
    """A key verifies its own algorithms of the standard's list, never none or an HMAC."""
    assert jws_algorithms(key) == algorithms


@pytest.mark.parametrize(
    ("jwk", "thumbprint"),
    [(RFC7638_JWK, RFC7638_THUMBPRINT), (RFC9449_JWK, RFC9449_THUMBPRINT)],
)
def test_thumbprints_are_the_published_ones(jwk: dict[str, str], thumbprint: str) -> None:
    """The thumbprint is the RFC's, whatever optional members and order the JWK has."""
    assert jwk_thumbprint(key_of_jwk(jwk)) == thumbprint
    assert jwk_thumbprint(key_of_jwk(dict(reversed(jwk.items())))) == thumbprint


def test_a_jwk_has_the_required_members_and_nothing_else() -> None:
    """Optional members of a JWK that was read do not come back."""
    assert jwk_of(RSA) == RSA_JWK
    assert jwk_of(key_of_jwk(RFC9449_JWK)) == RFC9449_JWK
    assert jwk_of(P384).keys() == {"kty", "crv", "x", "y"}


@given(st.sampled_from([ec.SECP256R1(), ec.SECP384R1()]), st.integers(1, 2**255))
@settings(deadline=None)
def test_every_ec_key_round_trips(curve: ec.EllipticCurve, secret: int) -> None:
    """Any point comes back from its JWK, leading zeros of a coordinate included."""
    key = ec.derive_private_key(secret, curve).public_key()
    assert key_of_jwk(jwk_of(key)) == key


@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "k"])
@pytest.mark.parametrize("jwk", [RFC7638_JWK, RFC9449_JWK])
def test_a_private_jwk_is_refused_and_not_shown(jwk: dict[str, str], member: str) -> None:
    """A private member refuses the whole JWK, and its value stands in no message."""
    with pytest.raises(InvalidKey, match="private") as refusal:
        key_of_jwk({**jwk, member: "canary"})
    assert "canary" not in str(refusal.value)


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        {"kty": None},
        {"kty": ["EC"]},
        {"kty": "ec"},
        {"kty": "oct"},
        {"kty": "OKP", "crv": "Ed25519", "x": b64url(bytes(32))},
        {"kty": "EC"},
        {**RFC9449_JWK, "kty": "RSA"},
        {**RSA_JWK, "kty": "EC"},
        {**RFC9449_JWK, "crv": "P-384"},
        {**RFC9449_JWK, "crv": "P-521"},
        {**RFC9449_JWK, "crv": "secp256k1"},
        {**RFC9449_JWK, "crv": "p-256"},
        {**RFC9449_JWK, "crv": ["P-256"]},
        {**RFC9449_JWK, "crv": None},
    ],
)
def test_a_jwk_of_another_kind_is_refused(jwk: dict[str, object]) -> None:
    """Only EC on P-256 or P-384, and RSA, in exactly this spelling."""
    with pytest.raises(InvalidKey):
        key_of_jwk(jwk)


@pytest.mark.parametrize(
    "jwk",
    [
        rsa_jwk(1024),
        rsa_jwk(8192),
        rsa_jwk(16384),
        rsa_jwk(2048, exponent=3),
        {**RSA_JWK, "e": "AAEAAQAB"},  # an exponent of six bytes
        {**RSA_JWK, "e": b64url(b"\x01\x00\x00")},  # even
        {**RSA_JWK, "e": RSA_JWK["n"]},
        {**RSA_JWK, "n": "AQAB"},
        {**RSA_JWK, "n": b64url(bytes(256))},
    ],
)
def test_a_jwk_of_an_unaccepted_rsa_key_is_refused(jwk: dict[str, str]) -> None:
    """What check_public_key refuses does not come in as a JWK either."""
    with pytest.raises(InvalidKey):
        key_of_jwk(jwk)


@pytest.mark.parametrize("bad", [None, 1, ["AQAB"], b"AQAB", "", "AQAB=", "AQAB\n", "AQ AB", "é"])
@pytest.mark.parametrize(("jwk", "member"), [(RSA_JWK, "e"), (RSA_JWK, "n"), (RFC9449_JWK, "x")])
def test_a_member_that_is_not_base64url_is_refused(
    jwk: dict[str, str], member: str, bad: object
) -> None:
    """A number of a JWK is a canonical base64url string, and it is there."""
    with pytest.raises(InvalidKey, match="base64url"):
        key_of_jwk({**jwk, member: bad})
    with pytest.raises(InvalidKey, match="base64url"):
        key_of_jwk({name: value for name, value in jwk.items() if name != member})


def test_a_point_off_the_curve_is_refused() -> None:
    """One changed bit, swapped coordinates and the zero point are no keys."""
    x, y = (b64url_decode(RFC9449_JWK[name]) for name in ("x", "y"))
    for wrong_x, wrong_y in [
        (x, y[:-1] + bytes([y[-1] ^ 1])),
        (y, x),
        (bytes(32), bytes(32)),
        (x[1:], y),
        (b"\x00" + x, y),
        (x, y + b"\x00"),
    ]:
        with pytest.raises(InvalidKey):
            key_of_jwk({**RFC9449_JWK, "x": b64url(wrong_x), "y": b64url(wrong_y)})


def test_a_coordinate_beyond_the_prime_is_refused() -> None:
    """OpenSSL reduces x + p to x; a key with a second spelling would pass a list of spellings."""
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    y = pow(b, (P256_PRIME + 1) // 4, P256_PRIME)  # the point (0, √b)
    jwk = {"kty": "EC", "crv": "P-256", "y": b64url(y.to_bytes(32))}
    assert jwk_of(key_of_jwk({**jwk, "x": b64url(bytes(32))}))["x"] == b64url(bytes(32))
    with pytest.raises(InvalidKey):
        key_of_jwk({**jwk, "x": b64url(P256_PRIME.to_bytes(32))})


@pytest.mark.parametrize("key", [P256, RSA, ed25519.Ed25519PrivateKey.generate().public_key()])
def test_a_key_is_named_by_the_digest_of_its_der(
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey,
) -> None:
    """The digest is over the SubjectPublicKeyInfo, that any tool can compute."""
    assert serialization.load_der_public_key(public_key_der(key)) == key
    expected = hashlib.sha256(public_key_der(key)).hexdigest()
    assert public_key_digest(key) == f"sha256:{expected}"


@given(st.binary(max_size=64))
def test_base64url_round_trips(data: bytes) -> None:
    """Every value has a text without padding, read from str and bytes alike."""
    text = b64url(data)
    assert b64url_decode(text) == data
    assert b64url_decode(text.encode()) == data


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "AAAAA",
        "AA=",
        "AA==",
        "AAA=",
        "=",
        "AB",  # spare bits
        "AAB",  # spare bits
        "+A",
        "/A",
        "A A",
        "AAAA\n",
        "AA\r\nAA",
        " AAAA",
        "AAAA.",
        "AA*A",
        "AA\x00A",
        "éAAA",
        "\N{FULLWIDTH LATIN CAPITAL LETTER A}AAA",
    ],
)
def test_a_second_spelling_of_base64url_is_refused(text: str) -> None:
    """One value has one text: no padding, no other alphabet, no blanks, no spare bits."""
    with pytest.raises(ValueError):  # noqa: PT011 (the contract is any ValueError)
        b64url_decode(text)


@given(st.text(max_size=12))
def test_what_base64url_accepts_it_writes(text: str) -> None:
    """Any text is refused, or is exactly what its value is written as."""
    try:
        data = b64url_decode(text)
    except ValueError:
        return
    assert b64url(data) == text


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()])
def test_a_private_jwk_is_the_whole_key_pair(curve: ec.EllipticCurve) -> None:
    """Whoever reads the JWK signs as the key does: the same point, the same secret, its size."""
    key = ec.generate_private_key(curve)
    jwk = private_jwk_of(key)
    assert jwk.keys() == {"alg", "crv", "d", "kty", "x", "y"}
    assert {name: jwk[name] for name in ("crv", "kty", "x", "y")} == jwk_of(key.public_key())
    assert jwk["alg"] == {"P-256": "ES256", "P-384": "ES384"}[jwk["crv"]]
    secret = b64url_decode(jwk["d"])
    assert len(secret) == (curve.key_size + 7) // 8
    assert int.from_bytes(secret) == key.private_numbers().private_value

"""The one accepted form of a signed token."""

import json
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from support.tokens import forge, forge_hmac

from accredit_credentials import jws
from accredit_credentials.errors import InvalidToken, Untrusted
from accredit_credentials.keys import PrivateKey, b64url, generate_key, jwk_of, jws_algorithms

KEY = generate_key()
KEYS: dict[str, PrivateKey] = {
    "P-256": KEY,
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "RSA": rsa.generate_private_key(65537, 2048),
}
TYPES: frozenset[str | None] = frozenset({"JWT"})
HEADER = {"alg": "ES256", "kid": "k", "typ": "JWT"}
CLAIMS = {"sub": "x"}
TOKEN = forge(HEADER, CLAIMS, KEY)


def parse(token: str) -> jws.UnverifiedJws:
    """Parse as most callers do."""
    return jws.parse(token, types=TYPES)


def test_what_is_signed_is_read_and_verified() -> None:
    """Claims come back as they were signed, under the key that signed them."""
    token = jws.sign({"sub": "é"}, KEY, header={"kid": "k", "typ": "JWT"})
    unverified = parse(token)
    assert dict(unverified.claims) == {"sub": "é"}
    assert unverified.kid == "k"
    assert jws.verify_with(unverified, {"k": KEY.public_key()}) == "k"


@pytest.mark.spec("SPIFFE-27")
@pytest.mark.parametrize("key_kind", KEYS)
@pytest.mark.parametrize(
    "alg",
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384"],
)
def test_the_algorithm_has_to_go_with_our_key(alg: str, key_kind: str) -> None:
    """The whole matrix: a header may name only an algorithm of the very key that we hold."""
    key = KEYS[key_kind]
    signing_input = f"{b64url(json.dumps({**HEADER, 'alg': alg}).encode())}.{b64url(b'{}')}"
    signer = next(k for k in KEYS.values() if alg in jws_algorithms(k.public_key()))
    signature = jws._ALGORITHMS[alg].sign(signing_input.encode(), signer)
    unverified = parse(f"{signing_input}.{b64url(signature)}")
    if alg in jws_algorithms(key.public_key()):
        jws.verify(unverified, key.public_key())
    else:
        with pytest.raises(Untrusted, match="does not go with the key"):
            jws.verify(unverified, key.public_key())


@pytest.mark.parametrize("key_kind", KEYS)
def test_we_sign_with_the_algorithm_of_the_key(key_kind: str) -> None:
    """``alg`` is written by the key: ES256, ES384 or RS256, and verifies."""
    key = KEYS[key_kind]
    expected = {"P-256": "ES256", "P-384": "ES384", "RSA": "RS256"}[key_kind]
    unverified = parse(jws.sign(CLAIMS, key, header={"typ": "JWT"}))
    assert unverified.header["alg"] == expected
    jws.verify(unverified, key.public_key())


@pytest.mark.spec("SPIFFE-27")
@pytest.mark.spec("SPIFFE-33")
@pytest.mark.parametrize(
    "alg",
    [
        *("none", "None", "NONE", "", "HS256", "HS384", "HS512"),
        *("EdDSA", "ES256K", "ES512", "es256", "ES256 "),
        *(None, 1, True, ["ES256"], {"ES256": 1}),
    ],
)
def test_any_other_algorithm_is_refused_before_anything_else(alg: object) -> None:
    """Neither ``none`` nor a symmetric nor an unknown algorithm gets as far as a key."""
    with pytest.raises(InvalidToken, match="alg"):
        parse(forge({**HEADER, "alg": alg}, CLAIMS, KEY))


def test_a_missing_algorithm_is_refused() -> None:
    """Without ``alg`` nothing is verified."""
    with pytest.raises(InvalidToken, match="alg"):
        parse(forge({"typ": "JWT"}, CLAIMS, KEY))


@pytest.mark.spec("SPIFFE-27")
@pytest.mark.parametrize("encoding", [serialization.Encoding.PEM, serialization.Encoding.DER])
def test_a_public_key_is_no_secret(encoding: serialization.Encoding) -> None:
    """HS256 with our own public key as its secret is refused."""
    public = KEY.public_key().public_bytes(
        encoding, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(InvalidToken, match="alg"):
        parse(forge_hmac({**HEADER, "alg": "HS256"}, CLAIMS, public))


@pytest.mark.spec("SPIFFE-27")
def test_no_signature_is_no_signature() -> None:
    """A token of ``none`` and one with its signature cut off are refused."""
    unsigned = f"{b64url(json.dumps({**HEADER, 'alg': 'none'}).encode())}.{b64url(b'{}')}."
    with pytest.raises(InvalidToken, match="alg"):
        parse(unsigned)
    with pytest.raises(Untrusted):
        jws.verify(parse(TOKEN.rpartition(".")[0] + "."), KEY.public_key())


@pytest.mark.spec("SPIFFE-26")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jwk", jwk_of(KEY.public_key())),
        ("jku", "https://evil.example/keys"),
        ("x5c", ["MIIB"]),
        ("x5u", "https://evil.example/cert"),
        ("x5t", "abc"),
        ("x5t#S256", "abc"),
        ("crit", ["exp"]),
        ("crit", []),
        ("b64", False),
        ("b64", True),
        ("zip", "DEF"),
        ("cty", "JWT"),
        ("enc", "A128GCM"),
        ("Alg", "none"),
        ("iss", "spiffe://example.org"),
        ("", ""),
    ],
)
def test_a_header_has_nothing_else(name: str, value: object) -> None:
    """Nothing but alg, kid and typ: no key, no address of a key, no critical extension."""
    with pytest.raises(InvalidToken, match="header must not have"):
        parse(forge({**HEADER, name: value}, CLAIMS, KEY))


@pytest.mark.parametrize("kid", [1, True, ["k"], {"k": 1}, 1.5])
def test_a_key_id_is_a_text(kid: object) -> None:
    """A ``kid`` of another type is refused, whether or not anyone asks for it."""
    with pytest.raises(InvalidToken, match="kid"):
        parse(forge({**HEADER, "kid": kid}, CLAIMS, KEY))


@pytest.mark.parametrize("header", [{}, {"kid": ""}, {"kid": None}])
def test_a_key_has_to_be_named_where_one_is_looked_up(header: dict[str, Any]) -> None:
    """Without a key id no authority of a bundle is tried."""
    unverified = parse(forge({"alg": "ES256", "typ": "JWT", **header}, CLAIMS, KEY))
    with pytest.raises(InvalidToken, match="kid"):
        jws.verify_with(unverified, {"": KEY.public_key()})


@pytest.mark.parametrize("kid", ["K", "k ", "other", "k\n"])
def test_an_unknown_key_is_not_trusted(kid: str) -> None:
    """A key id is compared as a whole and in its case."""
    unverified = parse(forge({**HEADER, "kid": kid}, CLAIMS, KEY))
    with pytest.raises(Untrusted, match="not in the trust bundle"):
        jws.verify_with(unverified, {"k": KEY.public_key()})


@pytest.mark.parametrize("typ", ["jwt", "JWT ", "application/JWT", "", None, 1, ["JWT"], True])
def test_a_type_is_one_of_the_accepted(typ: object) -> None:
    """``typ`` is compared as a whole: a near one, another type and its absence are refused."""
    with pytest.raises(InvalidToken, match="typ"):
        parse(forge({**HEADER, "typ": typ}, CLAIMS, KEY))


@pytest.mark.spec("SPIFFE-25")
@pytest.mark.parametrize(
    "token",
    [
        json.dumps({"protected": "e30", "payload": "e30", "signature": "AA"}),
        json.dumps({"payload": "e30", "signatures": [{"protected": "e30", "signature": "AA"}]}),
        json.dumps({"header": {"alg": "ES256"}, "payload": "e30", "signature": "AA"}),
        json.dumps({"a.b.c": 1}),
    ],
)
def test_only_the_compact_form_is_read(token: str) -> None:
    """JSON serialization, flattened or general, with or without unprotected header, is refused."""
    with pytest.raises(InvalidToken):
        parse(token)


H, P, S = TOKEN.split(".")


@pytest.mark.parametrize(
    "form",
    [
        "",
        ".",
        "..",
        "{H}.{P}",
        "{H}.{P}.{S}.",
        ".{H}.{P}.{S}",
        "{H}.{P}.{S}.{S}",
        "{H}..{S}",
        ".{P}.{S}",
        "{H}.{P}.{S}=",
        "{H}.{P}.{S}==",
        "{H}==.{P}.{S}",
        "{H}.{P}==.{S}",
        "{H}.{P}.{S}\n",
        "{H}.{P}.{S}\r\n",
        " {H}.{P}.{S}",
        "{H}.\n{P}.{S}",
        "{H}.{P}.A{S}AA",
        "{H}.{P}.!{S}",
        "{H}.{P}.+/{S}",
        "{H}.{P}.é{S}",
        "{H}.{P}.{S}\0",
        "Bearer {H}.{P}.{S}",
        "W10.{P}.{S}",
        "{H}.W10.{S}",
        "{H}.bnVsbA.{S}",
    ],
)
def test_a_neighbour_of_a_good_token_is_refused(form: str) -> None:
    """Padding, line breaks, foreign characters, missing and additional parts are refused."""
    parse(TOKEN)
    with pytest.raises(InvalidToken) as caught:
        parse(form.format(H=H, P=P, S=S))
    assert S[:20] not in str(caught.value)


def test_spare_bits_of_base64_are_refused() -> None:
    """One signature has one spelling: a last character with other spare bits is refused."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = alphabet[alphabet.index(S[-1]) ^ 1]  # 64 bytes leave four spare bits
    with pytest.raises(InvalidToken, match="canonical"):
        parse(f"{H}.{P}.{S[:-1]}{twin}")


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        ('{"alg":"none","alg":"ES256","typ":"JWT"}', "{}"),
        ('{"alg":"ES256","typ":"JWT"}', '{"sub":"a","sub":"b"}'),
        ('{"alg":"ES256","typ":"JWT"}', '{"a":{"sub":"a","sub":"b"}}'),
        ('{"alg":"ES256","typ":"JWT"}', '{"a":NaN}'),
        ('{"alg":"ES256","typ":"JWT"}', '{"a":1e400}'),
        ('{"alg":"ES256","typ":"JWT"}', '{"a":"\\ud800"}'),
        ('{"alg":"ES256","typ":"JWT"}', '{"a":' + "[" * 5000 + "}"),
        ('{"alg":"ES256","typ":"JWT","kid":"\\udfff"}', "{}"),
    ],
)
def test_json_with_two_meanings_is_refused(header: str, claims: str) -> None:
    """A validly signed token whose JSON could be read in two ways is refused."""
    with pytest.raises(InvalidToken, match="JSON"):
        parse(forge(header, claims, KEY))


@pytest.mark.parametrize("size", [jws.MAX_TOKEN_BYTES, jws.MAX_STATEMENT_BYTES, 10_000_000])
@pytest.mark.parametrize("form", [".", "A", "A..", "..A", "é"])
def test_huge_nonsense_is_refused_before_it_is_read(form: str, size: int) -> None:
    """Ten megabytes of dots cost nothing, not even under the limit of a whole statement."""
    token = form.replace(form[-1], form[-1] * size)
    started = perf_counter()
    for limit in (jws.MAX_TOKEN_BYTES, jws.MAX_STATEMENT_BYTES):
        with pytest.raises(InvalidToken):
            jws.parse(token, types=TYPES, limit=limit)
    assert perf_counter() - started < 0.5


def test_a_header_has_a_limit_of_its_own() -> None:
    """A statement may be long, its header may not: headers are remembered."""
    header = {**HEADER, "kid": "k" * 4000}
    with pytest.raises(InvalidToken, match="header"):
        jws.parse(forge(header, CLAIMS, KEY), types=TYPES, limit=jws.MAX_STATEMENT_BYTES)


def test_a_token_of_exactly_the_limit_is_read() -> None:
    """The limit itself is accepted; one character more is not."""
    jws.parse(TOKEN, types=TYPES, limit=len(TOKEN))
    with pytest.raises(InvalidToken, match="limit"):
        jws.parse(TOKEN, types=TYPES, limit=len(TOKEN) - 1)


def test_another_payload_under_the_same_signature_is_refused() -> None:
    """One changed claim, one changed header and another key all break the signature."""
    other = b64url(json.dumps({"sub": "y"}).encode())
    header = b64url(json.dumps({**HEADER, "kid": "j"}).encode())
    for token in (f"{H}.{other}.{S}", f"{header}.{P}.{S}"):
        with pytest.raises(Untrusted, match="signature"):
            jws.verify(parse(token), KEY.public_key())
    with pytest.raises(Untrusted, match="signature"):
        jws.verify(parse(TOKEN), generate_key().public_key())


@pytest.mark.parametrize("signature", [b"", b"\x00" * 64, b"\x01" * 63, b"\x01" * 65, b"\xff" * 64])
def test_a_signature_that_is_none_is_refused(signature: bytes) -> None:
    """Empty, zero, short, long and out-of-range signatures are refused alike."""
    with pytest.raises(Untrusted, match="signature"):
        jws.verify(parse(f"{H}.{P}.{b64url(signature)}"), KEY.public_key())


def test_a_header_cannot_be_changed_by_who_reads_it() -> None:
    """The header that is remembered for the next token is read-only."""
    header: Any = parse(TOKEN).header
    with pytest.raises(TypeError):
        header["alg"] = "none"
    assert parse(TOKEN).header["alg"] == "ES256"


def test_no_token_shows_in_a_repr() -> None:
    """What may be logged carries neither claims nor signature."""
    shown = repr(parse(forge(HEADER, {"sub": "canary"}, KEY)))
    assert "canary" not in shown
    assert "signature" not in shown


@pytest.mark.parametrize("value", [0, 1, 1_780_000_000, 1_780_000_000.5, jws.MAX_EPOCH])
def test_a_time_is_seconds_since_1970(value: float) -> None:
    """Whole and fractional seconds of the years 1970 to 9999 are read as UTC."""
    assert jws.time_claim({"exp": value}, "exp") == datetime.fromtimestamp(value, UTC)


@pytest.mark.parametrize(
    "value",
    [
        *(True, False, None, "1780000000", [1], {}),
        *(-1, -0.5, jws.MAX_EPOCH + 1, 1e30, 10**400),
        *(float("inf"), float("-inf"), float("nan")),
    ],
)
def test_anything_else_is_no_time(value: object) -> None:
    """A bool, a text, a negative, a huge and an endless number are refused."""
    with pytest.raises(InvalidToken, match="exp"):
        jws.time_claim({"exp": value}, "exp")


@pytest.mark.parametrize("claims", [{}, {"exp": None}])
def test_a_time_that_is_required_is_required(claims: dict[str, Any]) -> None:
    """An absent time is refused, not taken as forever."""
    with pytest.raises(InvalidToken, match="exp"):
        jws.time_claim(claims, "exp")


@pytest.mark.parametrize(
    ("value", "audiences"), [("a", ("a",)), (["a"], ("a",)), (["a", "b"], ("a", "b"))]
)
def test_an_audience_is_a_text_or_several(value: object, audiences: tuple[str, ...]) -> None:
    """Both forms of ``aud`` are read."""
    assert jws.audience_claim({"aud": value}) == audiences


@pytest.mark.spec("SPIFFE-31")
@pytest.mark.parametrize("value", [None, "", [], [""], ["a", ""], ["a", 1], [["a"]], 1, {"a": 1}])
def test_anything_else_is_no_audience(value: object) -> None:
    """Absent, empty or of another type: there is no audience."""
    with pytest.raises(InvalidToken, match="aud"):
        jws.audience_claim({"aud": value})


def test_a_moment_without_time_zone_is_not_guessed() -> None:
    """A naive datetime is refused before it is signed in the machine's own zone."""
    with pytest.raises(ValueError, match="time zone"):
        jws.epoch(datetime(2026, 1, 1))  # noqa: DTZ001 (the point of the test)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_we_sign_only_what_we_would_read(value: float) -> None:
    """A number that is not JSON is not signed."""
    with pytest.raises(ValueError, match="JSON"):
        jws.sign({"a": value}, KEY)

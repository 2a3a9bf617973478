"""Signed tokens in their one accepted form: JWS compact serialization (RFC 7515 §7.1).

Decides form (three canonical base64url parts, bounded), header (only ``alg``, ``kid`` and ``typ``,
plus what a caller names or passes over), and signature. The algorithm has to be one that goes with
the key we hold: the header chooses nothing. The arithmetic is PyJWT's and cryptography's; the
envelope is ours, because what a verifier accepts is this product.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from jwt.algorithms import get_default_algorithms

from accredit_credentials.errors import Expired, InvalidToken, UnknownAuthority, Untrusted
from accredit_credentials.keys import (
    PrivateKey,
    PublicKey,
    b64url,
    b64url_decode,
    check_public_key,
    jws_algorithms,
)
from accredit_credentials.strict_json import NotStrictJson, parse_object

MAX_TOKEN_BYTES = 16 * 1024
MAX_STATEMENT_BYTES = 8 * 1024 * 1024  # signed documents, such as a snapshot of revocation facts
MAX_EPOCH = 253_402_300_799  # the last second that a datetime can say

# Those that go with a key that we accept; ``none`` and HS* are not even known here.
_ALGORITHMS = {
    name: algorithm
    for name, algorithm in get_default_algorithms().items()
    if name in {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384"}
}
_ECDSA = {  # and the size of each of the two numbers (RFC 7518 §3.4)
    "ES256": (ec.ECDSA(hashes.SHA256()), 32),
    "ES384": (ec.ECDSA(hashes.SHA384()), 48),
}
_HEADER = frozenset({"alg", "kid", "typ"})
_MAX_HEADER_CHARS = 4096
_NUMBERS = frozenset({int, float})


@dataclass(frozen=True, slots=True)
class UnverifiedJws:
    """A well-formed token whose signature nobody has checked."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any] = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def kid(self) -> str:
        """The key id.

        Raises:
            InvalidToken: absent or not a text.
        """
        kid = self.header.get("kid")
        if not isinstance(kid, str) or not kid:
            raise InvalidToken("token header must name its key by 'kid'")
        return kid


def parse(
    token: str,
    *,
    types: frozenset[str | None],
    extra_header: frozenset[str] = frozenset(),
    ignores_unknown: bool = False,
    limit: int = MAX_TOKEN_BYTES,
) -> UnverifiedJws:
    """Read a compact JWS whose payload is a JSON object. Verifies nothing.

    Args:
        token: the compact serialization.
        types: the accepted values of ``typ``; None accepts its absence.
        extra_header: header members allowed beside ``alg``, ``kid`` and ``typ``.
        ignores_unknown: pass over any other member but ``crit``, of whose extensions we know none
            (RFC 7515 §4.1.11).
        limit: the longest accepted token, in characters.

    Raises:
        InvalidToken: anything is off. The token itself is never in the message.
    """
    if len(token) > limit:
        raise InvalidToken(f"token has {len(token)} characters, the limit is {limit}")
    if not token.isascii() or token.count(".") != 2:  # noqa: PLR2004 (header.payload.signature)
        raise InvalidToken("token must be a JWS in compact form")
    signing_input, _, signature_part = token.rpartition(".")
    header_part, _, payload_part = signing_input.partition(".")
    if len(header_part) > _MAX_HEADER_CHARS:
        raise InvalidToken(f"token header has more than {_MAX_HEADER_CHARS} characters")
    try:
        header = _header_of(header_part)
        claims = parse_object(b64url_decode(payload_part))
        signature = b64url_decode(signature_part)
    except NotStrictJson as error:
        raise InvalidToken(f"token's header and payload must be JSON objects: {error}") from None
    except ValueError:
        raise InvalidToken("token's parts must be canonical base64url") from None
    refused = {"crit"} & header.keys() if ignores_unknown else header.keys() - _HEADER
    if foreign := refused - extra_header:
        raise InvalidToken(f"token header must not have {_names(foreign)}")
    alg, kid, typ = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(alg, str) or alg not in _ALGORITHMS:
        raise InvalidToken(f"token header must have an 'alg' of {', '.join(_ALGORITHMS)}")
    if not (kid is None or isinstance(kid, str)):
        raise InvalidToken("token header must have a text as its 'kid'")
    if not (typ is None or isinstance(typ, str)) or typ not in types:
        expected = " or ".join(sorted(str(t) for t in types if t))
        raise InvalidToken(f"token header must have the typ {expected}")
    return UnverifiedJws(header, claims, signing_input.encode(), signature)


def verify(jws: UnverifiedJws, key: PublicKey) -> None:
    """Check the signature with a key that we hold.

    Raises:
        Untrusted: the header's algorithm does not go with the key, or the signature is wrong.
    """
    if jws.header["alg"] not in jws_algorithms(key):
        raise Untrusted("token's alg does not go with the key that is known for it")
    if not _is_signed(jws, key):
        raise Untrusted("token's signature is not of the key that it names")


def verify_with(jws: UnverifiedJws, authorities: Mapping[str, PublicKey]) -> str:
    """Check the signature with the authority that the header names; returns its key id.

    Raises:
        UnknownAuthority: no such authority.
        Untrusted: the signature is wrong.
    """
    kid = jws.kid
    key = authorities.get(kid)
    if key is None:
        raise UnknownAuthority("token names a key that is not in the trust bundle")
    verify(jws, key)
    return kid


def sign(
    claims: Mapping[str, Any], key: PrivateKey, *, header: Mapping[str, Any] | None = None
) -> str:
    """Sign claims as a compact JWS; ``alg`` comes from the key."""
    algorithm = signing_algorithm(key)
    members = header or {}
    if any(not isinstance(value, str) for value in members.values()):
        head = b64url(_encode({"alg": algorithm, **members}).encode())
    else:
        head = _short_header(algorithm, tuple(members.items()))
    signing_input = f"{head}.{b64url(_encode(claims).encode())}"
    return f"{signing_input}.{b64url(_signature(signing_input.encode(), key, algorithm))}"


@lru_cache(maxsize=64)  # asked for at each signature, and an issuer has very few keys
def signing_algorithm(key: PrivateKey) -> str:
    """The algorithm that we sign with: ES256, ES384 or RS256."""
    return usual_algorithm(check_public_key(key.public_key()))


def usual_algorithm(key: PublicKey) -> str:
    """The one that we sign with, of those that go with a key."""
    algorithms = jws_algorithms(key)
    return "RS256" if "RS256" in algorithms else next(iter(algorithms))


def text_claim(claims: Mapping[str, Any], name: str) -> str:
    """A required claim that is a non-empty text.

    Raises:
        InvalidToken: absent, empty or of another type.
    """
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidToken(f"token must have the claim {name!r}, a text")
    return value


def optional_text_claim(claims: Mapping[str, Any], name: str) -> str | None:
    """A claim that is a non-empty text, or None where it is absent."""
    return text_claim(claims, name) if name in claims else None


def time_claim(claims: Mapping[str, Any], name: str) -> datetime:
    """A required NumericDate claim (RFC 7519 §2), with time zone UTC.

    Raises:
        InvalidToken: absent, not a number, or outside the years 1970 to 9999.
    """
    value: Any = claims.get(name)
    if type(value) not in _NUMBERS or not 0 <= value <= MAX_EPOCH:  # a bool is no number here
        raise InvalidToken(f"token must have the claim {name!r}, seconds since 1970")
    return datetime.fromtimestamp(value, UTC)


def audience_claim(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """The claim ``aud`` as a tuple (RFC 7519 §4.1.3).

    Raises:
        InvalidToken: absent, empty, or not texts.
    """
    value = claims.get("aud")
    audiences = [value] if isinstance(value, str) else value
    if (
        not isinstance(audiences, list)
        or not audiences
        or not all(isinstance(audience, str) and audience for audience in audiences)
    ):
        raise InvalidToken("token must have the claim 'aud' with at least one audience")
    return tuple(audiences)


def check_time(
    *, not_before: datetime | None, expires_at: datetime, now: datetime, leeway: float
) -> None:
    """Decide whether ``now`` is inside the token's validity, give or take ``leeway`` seconds.

    The leeway serves clocks that are behind; it never lengthens a life.

    Raises:
        Expired: it is over, or has not begun.
    """
    if now >= expires_at:
        raise Expired(f"token expired at {expires_at:%Y-%m-%dT%H:%M:%SZ}")
    if not_before is not None and now.timestamp() + leeway < not_before.timestamp():
        raise Expired(f"token is not valid before {not_before:%Y-%m-%dT%H:%M:%SZ}")


def epoch(moment: datetime) -> int:
    """A moment as NumericDate, whole seconds.

    Raises:
        ValueError: a moment without time zone: the machine's own zone would be guessed.
    """
    if moment.tzinfo is None:
        raise ValueError("moment must have a time zone")
    return int(moment.timestamp())


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


@lru_cache(maxsize=256)  # the tokens of one key have one header
def _short_header(algorithm: str, members: tuple[tuple[str, str], ...]) -> str:
    return b64url(_encode({"alg": algorithm, **dict(members)}).encode())


def _signature(signing_input: bytes, key: PrivateKey, algorithm: str) -> bytes:
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return _ALGORITHMS[algorithm].sign(signing_input, key)
    scheme, size = _ECDSA[algorithm]
    r, s = decode_dss_signature(key.sign(signing_input, scheme))
    return r.to_bytes(size) + s.to_bytes(size)


def _is_signed(jws: UnverifiedJws, key: PublicKey) -> bool:
    algorithm = jws.header["alg"]
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return bool(_ALGORITHMS[algorithm].verify(jws.signing_input, key, jws.signature))
    # The same as PyJWT's, without the 5 µs that it adds to each request of a resource server.
    scheme, size = _ECDSA[algorithm]
    r, s = jws.signature[:size], jws.signature[size:]
    if len(s) != size:
        return False
    der = encode_dss_signature(int.from_bytes(r), int.from_bytes(s))
    try:
        key.verify(der, jws.signing_input, scheme)
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=256)
def _header_of(part: str) -> Mapping[str, Any]:
    """Read the header; the tokens of one key share its very text, so it is read once."""
    return MappingProxyType(parse_object(b64url_decode(part)))


def _names(names: frozenset[str] | set[str]) -> str:
    return ", ".join(repr(name[:20]) for name in sorted(names))

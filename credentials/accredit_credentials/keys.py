"""Which keys are accepted, and how a key is written as a JWK.

Decides kind, size and curve of a key (``check_public_key``), the one JWS algorithm that goes with
it, its JWK (RFC 7517, RFC 7518 §6, RFC 8037) and its thumbprint (RFC 7638). The algorithm always
comes from the key that we hold, never from a token's header.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from accredit_credentials.errors import InvalidKey

_ACCEPTED = "RSA 2048 to 4096, P-256 or P-384"

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
SignerPublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey
SignerPrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 4096  # a verifier's time grows with the key: huge keys are an attack, not strength

# Base64url into base64 for the strict decoder; what base64url does not know becomes foreign.
_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/\0\0\0")
# The last characters whose spare bits are zero, by the length's remainder: one value, one spelling.
_LAST_CHARACTERS = {1: b"", 2: b"AQgw", 3: b"AEIMQUYcgkosw048"}

# SubjectPublicKeyInfo of a P-256 point that is not compressed, before its two coordinates: the only
# spelling of such a key that is written anywhere here.
P256_HEAD = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
P256_SIZE = 91  # bytes, with the coordinates

_CURVES: dict[str, tuple[str, str, int, type[ec.EllipticCurve]]] = {
    # OpenSSL name: JWK crv, JWS alg, bytes of a coordinate, class
    "secp256r1": ("P-256", "ES256", 32, ec.SECP256R1),
    "secp384r1": ("P-384", "ES384", 48, ec.SECP384R1),
}


def generate_key() -> ec.EllipticCurvePrivateKey:
    """Make a P-256 key: the fastest that every client of the field accepts."""
    return ec.generate_private_key(ec.SECP256R1())


def check_public_key(key: object) -> PublicKey:
    """Return ``key`` if a credential may be bound to it or verified with it.

    Raises:
        InvalidKey: anything but RSA 2048 to 4096 with exponent 65537, P-256 or P-384.
    """
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in _CURVES:
            raise InvalidKey(f"curve {key.curve.name} is not accepted, expected {_ACCEPTED}")
        return key
    if isinstance(key, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise InvalidKey(f"RSA key has {key.key_size} bits, expected {_ACCEPTED}")
        if key.public_numbers().e != 65537:  # noqa: PLR2004 (F4, the exponent everyone uses)
            raise InvalidKey("RSA key must have the public exponent 65537")
        return key
    raise InvalidKey(f"key of kind {type(key).__name__} is not accepted, expected {_ACCEPTED}")


def jws_algorithms(key: PublicKey) -> frozenset[str]:
    """The JWS algorithms that a verifier accepts for this key (JWT-SVID §2.1)."""
    if isinstance(key, rsa.RSAPublicKey):
        return frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
    return frozenset({_CURVES[key.curve.name][1]})


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """The public key of who asked for a certificate, together with its encoding.

    To encode a key takes the library as long as a fifth of a signature, and several look at it.

    Attributes:
        key: the key.
        der: the same as DER SubjectPublicKeyInfo.
    """

    key: PublicKey
    der: bytes = field(repr=False)

    @classmethod
    def of(cls, key: PublicKey) -> Self:
        """Encode a key."""
        return cls(key, public_key_der(key))


def public_key_der(key: PublicKey | SignerPublicKey) -> bytes:
    """The key as DER SubjectPublicKeyInfo."""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def public_key_digest(key: PublicKey | SignerPublicKey) -> str:
    """``sha256:<hex>`` of the DER SubjectPublicKeyInfo: how Accredit names a key."""
    return "sha256:" + hashlib.sha256(public_key_der(key)).hexdigest()


def jwk_of(key: PublicKey) -> dict[str, str]:
    """The public key's required JWK members and nothing else."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        crv, _, size, _ = _CURVES[key.curve.name]
        point = key.public_numbers()
        return {
            "crv": crv,
            "kty": "EC",
            "x": b64url(point.x.to_bytes(size)),
            "y": b64url(point.y.to_bytes(size)),
        }
    numbers = key.public_numbers()
    return {"e": b64url(_integer(numbers.e)), "kty": "RSA", "n": b64url(_integer(numbers.n))}


def private_jwk_of(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    """The whole key pair as a JWK with its algorithm (RFC 7518 §6.2.2): a secret."""
    public = check_public_key(key.public_key())
    _, alg, size, _ = _CURVES[key.curve.name]
    d = key.private_numbers().private_value
    return {**jwk_of(public), "alg": alg, "d": b64url(d.to_bytes(size))}


def key_of_jwk(jwk: Mapping[str, Any]) -> PublicKey:
    """Read a public key out of a JWK; a private member is refused.

    Raises:
        InvalidKey: another kty or curve, a malformed number, a private key.
    """
    if any(member in jwk for member in ("d", "p", "q", "dp", "dq", "qi", "k")):
        raise InvalidKey("JWK carries a private key, expected a public one")
    kty = jwk.get("kty")
    if kty == "EC":
        return _ec_key_of_jwk(jwk)
    if kty == "RSA":
        n, e = (_member(jwk, name) for name in ("n", "e"))
        if len(n) > MAX_RSA_BITS // 8 + 1:
            raise InvalidKey(f"RSA key is larger than {MAX_RSA_BITS} bits")
        try:
            numbers = rsa.RSAPublicNumbers(e=int.from_bytes(e), n=int.from_bytes(n))
            return check_public_key(numbers.public_key())
        except ValueError as error:
            raise InvalidKey("JWK is not an RSA key") from error
    raise InvalidKey(f"JWK kty must be EC or RSA, not {str(kty)[:20]!r}")


def _ec_key_of_jwk(jwk: Mapping[str, Any]) -> PublicKey:
    for crv, _, size, curve in _CURVES.values():
        if jwk.get("crv") == crv:
            x, y = (_member(jwk, name) for name in ("x", "y"))
            if len(x) != size or len(y) != size:
                raise InvalidKey(f"JWK coordinates of {crv} must have {size} bytes")
            numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve())
            try:
                key = numbers.public_key()
            except ValueError as error:
                raise InvalidKey(f"JWK is not a point of {crv}") from error
            # OpenSSL reduces a coordinate beyond the field's prime: one key has one spelling.
            if key.public_numbers() != numbers:
                raise InvalidKey(f"JWK is not a point of {crv}")
            return key
    raise InvalidKey(f"JWK crv must be P-256 or P-384, not {str(jwk.get('crv'))[:20]!r}")


def jwk_thumbprint(key: PublicKey) -> str:
    """The key's SHA-256 JWK thumbprint, base64url (RFC 7638 §3)."""
    members = ",".join(f'"{name}":"{value}"' for name, value in sorted(jwk_of(key).items()))
    return b64url(hashlib.sha256(f"{{{members}}}".encode()).digest())


def b64url(data: bytes) -> str:
    """Base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def b64url_decode(text: str | bytes) -> bytes:
    """Decode base64url in its one canonical form: no padding, no line break, no spare bits.

    Raises:
        ValueError: any other form.
    """
    raw = text.encode("ascii") if isinstance(text, str) else text
    spare = len(raw) % 4
    if spare and raw[-1:] not in _LAST_CHARACTERS[spare]:
        raise ValueError("not canonical base64url")
    padded = raw.translate(_TO_STANDARD) + b"=" * (-spare % 4)
    return binascii.a2b_base64(padded, strict_mode=True)


def _member(jwk: Mapping[str, Any], name: str) -> bytes:
    value = jwk.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidKey(f"JWK member {name!r} must be a base64url string")
    try:
        return b64url_decode(value)
    except (ValueError, binascii.Error) as error:
        raise InvalidKey(f"JWK member {name!r} must be a base64url string") from error


def _integer(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8)

"""Proof that somebody holds a private key now: a signature over a challenge.

The challenge says what it is for, in which trust domain, for which nonce, and which key of a
certificate request it speaks for. So a signature that was made for one of these is good for no
other, and who relays it gets a certificate for a key that is not his. Fixes one signature algorithm
for each kind of key.
"""

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from accredit_attestors.errors import InvalidEvidence, PossessionRefused
from accredit_credentials.errors import InvalidKey
from accredit_credentials.keys import PrivateKey, PublicKey, b64url, b64url_decode, check_public_key
from accredit_credentials.spiffe_id import TrustDomain

MAX_SIGNATURE_LENGTH = 1024  # characters; RSA 4096 has 683

_HASHES: dict[int, hashes.HashAlgorithm] = {256: hashes.SHA256(), 384: hashes.SHA384()}
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What is signed.

    Attributes:
        purpose: the kind of evidence; no two kinds have one in common.
        trust_domain: whose issuer asked.
        nonce: of the attempt.
        public_key: of the certificate request beside it, as DER SubjectPublicKeyInfo.
    """

    purpose: str
    trust_domain: TrustDomain
    nonce: str
    public_key: bytes

    def __bytes__(self) -> bytes:
        # No part can hold a line feed, so the lines have one reading.
        lines = (
            "accredit-possession-v1",
            self.purpose,
            self.trust_domain.name,
            self.nonce,
            hashlib.sha256(self.public_key).hexdigest(),
        )
        return "".join(f"{line}\n" for line in lines).encode("ascii")


def prove(key: PrivateKey, challenge: Challenge) -> str:
    """Sign a challenge: ECDSA with the curve's hash, or RSASSA-PSS with SHA-256; base64url."""
    message = bytes(challenge)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return b64url(key.sign(message, ec.ECDSA(_HASHES[key.curve.key_size])))
    return b64url(key.sign(message, _PSS, hashes.SHA256()))


def check(key: PublicKey, signature: str, challenge: Challenge) -> None:
    """Decide whether the holder of ``key`` signed this challenge.

    Raises:
        InvalidEvidence: the signature is not base64url, or too long.
        PossessionRefused: another key signed, or something else.
    """
    if len(signature) > MAX_SIGNATURE_LENGTH:
        raise InvalidEvidence(
            f"signature has {len(signature)} characters, the limit is {MAX_SIGNATURE_LENGTH}"
        )
    try:
        raw = b64url_decode(signature)
    except ValueError:
        raise InvalidEvidence("signature must be base64url without padding") from None
    message = bytes(challenge)
    try:
        # The key is judged before it works: a huge one costs nothing.
        judged = check_public_key(key)
        if isinstance(judged, rsa.RSAPublicKey):
            judged.verify(raw, message, _PSS, hashes.SHA256())
        else:
            judged.verify(raw, message, ec.ECDSA(_HASHES[judged.curve.key_size]))
    except InvalidKey as error:
        raise PossessionRefused(str(error)) from None
    except InvalidSignature:
        raise PossessionRefused(
            f"{challenge.purpose} evidence is not signed by the key that it is to show"
        ) from None

"""Signed envelopes: DSSE v1, read strictly.

An envelope is not trusted for being well formed. ``Envelope.parse`` gives what somebody wrote;
``Envelope.verify`` gives the payload and the keys that signed those very bytes, and nothing else
from the envelope may be used. The key's kind decides the algorithm: Ed25519, or ECDSA with SHA-256
on P-256. ``keyid`` only says which trusted key to try, so one signature costs one check at most.

Specification: https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md
"""

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from accredit_attestors.errors import InvalidEnvelope, UntrustedSigner, shown
from accredit_attestors.signer_keys import check_signer_private_key, check_signer_public_key
from accredit_attestors.strict import Members, load_json
from accredit_credentials.keys import SignerPrivateKey, SignerPublicKey, public_key_digest

MAX_ENVELOPE_BYTES = 64 * 1024
MAX_SIGNATURES = 8
MAX_KEYID_LENGTH = 256


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature, and the name of the key that is said to have made it."""

    keyid: str
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class VerifiedPayload:
    """The signed bytes, and the trusted keys that signed them, in the envelope's order."""

    payload: bytes = field(repr=False)
    keyids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload with its type and signatures, none of it verified."""

    payload_type: str
    unverified_payload: bytes = field(repr=False)
    signatures: tuple[Signature, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read an envelope's JSON form.

        Raises:
            InvalidEnvelope: too big, not JSON, a key missing, unknown or repeated, or a value
                that is not in standard, padded base64.
        """
        if len(data) > MAX_ENVELOPE_BYTES:
            raise InvalidEnvelope(
                f"envelope has {len(data)} bytes, the limit is {MAX_ENVELOPE_BYTES}"
            )
        members = Members.of(
            load_json(data, what="envelope", error=InvalidEnvelope),
            where="envelope",
            error=InvalidEnvelope,
            known=("payloadType", "payload", "signatures"),
        )
        entries = members.each("signatures", known=("keyid", "sig"))
        if not 1 <= len(entries) <= MAX_SIGNATURES:
            raise InvalidEnvelope(
                f"envelope has {len(entries)} signatures, expected 1 to {MAX_SIGNATURES}"
            )
        signatures = tuple(
            Signature(_keyid(entry), _standard_base64(entry, "sig")) for entry in entries
        )
        if len({signature.keyid for signature in signatures}) != len(signatures):
            raise InvalidEnvelope("envelope has two signatures of one keyid")
        return cls(members.text("payloadType"), _standard_base64(members, "payload"), signatures)

    def to_json(self) -> bytes:
        """The envelope's JSON form, compact, in one spelling."""
        document = {
            "payload": base64.b64encode(self.unverified_payload).decode(),
            "payloadType": self.payload_type,
            "signatures": [
                {"keyid": signature.keyid, "sig": base64.b64encode(signature.value).decode()}
                for signature in self.signatures
            ],
        }
        return json.dumps(document, separators=(",", ":")).encode()

    def signed_by(self, key: SignerPrivateKey) -> Self:
        """The envelope with this key's signature added, in place of an earlier one.

        Raises:
            InvalidSigner: the key's kind is not accepted.
        """
        message = pae(self.payload_type, self.unverified_payload)
        signer = check_signer_private_key(key)
        if isinstance(signer, ed25519.Ed25519PrivateKey):
            value = signer.sign(message)
        else:
            value = signer.sign(message, ec.ECDSA(hashes.SHA256()))
        added = Signature(public_key_digest(signer.public_key()), value)
        others = tuple(each for each in self.signatures if each.keyid != added.keyid)
        return replace(self, signatures=(*others, added))

    def verify(self, keys: Iterable[SignerPublicKey], *, payload_type: str) -> VerifiedPayload:
        """Return the payload if at least one of the trusted ``keys`` signed it as this type.

        Raises:
            InvalidEnvelope: the payload is of another type.
            InvalidSigner: a trusted key is of a kind that is not accepted.
            UntrustedSigner: no trusted key has signed.
        """
        if self.payload_type != payload_type:
            raise InvalidEnvelope(
                f"envelope has payloadType {shown(self.payload_type)}, expected {payload_type}"
            )
        trusted = {public_key_digest(key): check_signer_public_key(key) for key in keys}
        message = pae(self.payload_type, self.unverified_payload)
        keyids = tuple(
            signature.keyid
            for signature in self.signatures
            if signature.keyid in trusted
            and _is_signed(trusted[signature.keyid], signature.value, message)
        )
        if not keyids:
            raise UntrustedSigner("envelope has no valid signature of a trusted signer")
        return VerifiedPayload(self.unverified_payload, keyids)


def pae(payload_type: str, payload: bytes) -> bytes:
    """What is really signed: type and payload, each with its length (DSSE §PAE)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _is_signed(key: SignerPublicKey, value: bytes, message: bytes) -> bool:
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(value, message)
        else:
            key.verify(value, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _keyid(members: Members) -> str:
    keyid = members.text("keyid")
    if not 1 <= len(keyid) <= MAX_KEYID_LENGTH:
        raise InvalidEnvelope(
            f"{members.where}: keyid must have 1 to {MAX_KEYID_LENGTH} characters"
        )
    return keyid


def _standard_base64(members: Members, key: str) -> bytes:
    text = members.text(key)
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    # Spare bits would give one signature several spellings: only the canonical one is taken.
    if not data or base64.b64encode(data).decode() != text:
        raise InvalidEnvelope(f"{members.where}: {key} must be standard base64 with padding")
    return data

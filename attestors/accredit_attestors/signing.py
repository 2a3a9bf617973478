"""Who may sign a manifest, and who did.

``verify`` decides in this order, and stops at the first no: the envelope's form, a signature by a
trusted key, the statement inside of exactly the bytes that were signed, a signer who speaks for
the agent's namespace, and the manifest's dates. What comes out is a ``VerifiedManifest``; nothing
else should be believed. Does not decide whether the manifest may still be used: revocation and
policy are the issuer's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from accredit_attestors import statement
from accredit_attestors.declaration import Manifest
from accredit_attestors.dsse import MAX_ENVELOPE_BYTES, Envelope
from accredit_attestors.errors import InvalidManifest, InvalidSigner, UntrustedSigner, shown
from accredit_attestors.signer_keys import check_signer_public_key
from accredit_credentials.errors import InvalidSpiffeId
from accredit_credentials.keys import SignerPrivateKey, SignerPublicKey, public_key_digest
from accredit_credentials.spiffe_id import check_name

EVERY_NAMESPACE = "*"


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that may sign manifests of the named namespaces; no namespaces, no manifests."""

    name: str
    key: SignerPublicKey = field(repr=False)
    namespaces: tuple[str, ...]
    """Exact names, or ``*`` for every namespace. Nothing else is a pattern."""

    def __post_init__(self) -> None:
        check_signer_public_key(self.key)
        try:
            check_name(self.name, "signer name")
            for namespace in self.namespaces:
                if namespace != EVERY_NAMESPACE:
                    check_name(namespace, "namespace")
        except InvalidSpiffeId as error:
            raise InvalidSigner(str(error)) from None

    @property
    def keyid(self) -> str:
        """How envelopes name the signer's key."""
        return public_key_digest(self.key)

    def speaks_for(self, namespace: str) -> bool:
        """Whether the signer may sign manifests of this namespace."""
        return EVERY_NAMESPACE in self.namespaces or namespace in self.namespaces


@dataclass(frozen=True, slots=True)
class VerifiedManifest:
    """A manifest that a signer of its namespace signed. Only ``verify`` should make one."""

    manifest: Manifest
    digest: str
    """``sha256:<hex>`` of the signed statement: the manifest's name everywhere."""
    signer: str
    """The name of the signer whose signature was verified."""
    envelope: bytes = field(repr=False)


def sign(manifest: Manifest, key: SignerPrivateKey) -> bytes:
    """Sign a manifest; the envelope's JSON.

    Raises:
        InvalidManifest: the manifest is too big for its envelope.
        InvalidSigner: the key's kind is not accepted.
    """
    payload = statement.to_bytes(manifest)
    if statement.parse(payload) != manifest:
        raise InvalidManifest(f"manifest of {manifest.agent} does not read back as it was written")
    envelope = Envelope(statement.PAYLOAD_TYPE, payload).signed_by(key).to_json()
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise InvalidManifest(
            f"signed manifest has {len(envelope)} bytes, the limit is {MAX_ENVELOPE_BYTES}"
        )
    return envelope


def verify(envelope: bytes, *, signers: Sequence[Signer], now: datetime) -> VerifiedManifest:
    """Return the manifest in ``envelope`` if a trusted signer of its namespace signed it.

    Raises:
        InvalidEnvelope: not an envelope, or one of something else.
        InvalidManifest: what was signed is not a manifest.
        UntrustedSigner: no trusted key signed it, or none that speaks for its namespace.
        ManifestExpired: it is not valid at ``now``.
    """
    verified = Envelope.parse(envelope).verify(
        [signer.key for signer in signers], payload_type=statement.PAYLOAD_TYPE
    )
    manifest = statement.parse(verified.payload)
    signer = _signer(verified.keyids, signers, manifest.agent.namespace)
    manifest.check_valid_at(now)
    digest = statement.manifest_digest(verified.payload)
    return VerifiedManifest(manifest, digest, signer.name, envelope)


def unverified_manifest(envelope: bytes) -> Manifest:
    """What an envelope says, whoever wrote it: for a claimant to know what it should measure.

    Raises:
        InvalidManifest: not an envelope, or not of a manifest.
    """
    parsed = Envelope.parse(envelope)
    if parsed.payload_type != statement.PAYLOAD_TYPE:
        raise InvalidManifest(
            f"envelope has payloadType {shown(parsed.payload_type)}, "
            f"expected {statement.PAYLOAD_TYPE}"
        )
    return statement.parse(parsed.unverified_payload)


def _signer(keyids: tuple[str, ...], signers: Sequence[Signer], namespace: str) -> Signer:
    signed = [signer for keyid in keyids for signer in signers if signer.keyid == keyid]
    for signer in signed:
        if signer.speaks_for(namespace):
            return signer
    names = ", ".join(signer.name for signer in signed)
    raise UntrustedSigner(f"{names} may not sign for namespace {namespace}")

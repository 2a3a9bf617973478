"""The contract between claimant and verifier, which every kind of evidence keeps.

An attestor is a plugin with two sides. ``collect`` runs where the agent runs and has three
outcomes: not mine (``None``), evidence, or an error. ``verify`` runs in the issuer, decides without
any I/O from the evidence and its ``VerifyContext``, and returns selectors with the assurance
behind them, or raises. It never signs, never stores, and never reads a clock. Evidence is bound to
the nonce of one attempt; that a nonce is fresh and used once is the issuer's promise.
"""

import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, Self, runtime_checkable

from accredit_attestors.errors import (
    AssuranceTooLow,
    InvalidEvidence,
    ManifestRequired,
    WrongNonce,
    shown,
)
from accredit_attestors.levels import Assurance
from accredit_attestors.signing import Signer, VerifiedManifest
from accredit_attestors.strict import Members
from accredit_credentials.keys import PublicKey
from accredit_credentials.spiffe_id import AgentId, SpiffeId
from accredit_credentials.x509_svid import X509Identity

__all__ = [
    "Assurance",
    "Attested",
    "Attestor",
    "CollectContext",
    "Evidence",
    "FormerRecord",
    "JoinTokenRecord",
    "Signer",
    "VerifiedManifest",
    "VerifyContext",
]

MAX_PAYLOAD_BYTES = 128 * 1024

_KIND = re.compile(r"[a-z][a-z0-9_]{0,62}")
_LONGEST_ESCAPE = len(r"\ud83d\ude00")  # a character in JSON
_encoded = json.JSONEncoder(allow_nan=False).encode
_NONCE = re.compile(r"[A-Za-z0-9._~-]{1,128}")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a claimant shows: JSON values, for one nonce. The payload may hold a secret."""

    kind: str
    nonce: str
    payload: Mapping[str, object] = field(repr=False, hash=False)

    def __post_init__(self) -> None:
        if not _KIND.fullmatch(self.kind):
            raise InvalidEvidence(
                f"kind {shown(self.kind)} must be 1 to 63 of a-z, 0-9 and '_', from a letter on"
            )
        if not _NONCE.fullmatch(self.nonce):
            raise InvalidEvidence("nonce must be 1 to 128 of letters, digits and - . _ ~")
        _check_payload(self.payload)
        object.__setattr__(self, "payload", MappingProxyType(dict(self.payload)))

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read evidence from a JSON object with ``kind``, ``nonce`` and ``payload``.

        Raises:
            InvalidEvidence: any other form, or more than the limits allow.
        """
        members = Members.of(
            value, where="evidence", error=InvalidEvidence, known=("kind", "nonce", "payload")
        )
        payload = members.members("payload", known=None).values
        return cls(members.text("kind"), members.text("nonce"), payload)

    def to_json(self) -> dict[str, object]:
        """The JSON object that ``parse`` reads."""
        return {"kind": self.kind, "nonce": self.nonce, "payload": dict(self.payload)}

    def members(self, *known: str) -> Members:
        """The payload's keys, which must be among the ``known``.

        Raises:
            InvalidEvidence: there is another.
        """
        where = f"payload of {self.kind} evidence"
        return Members.of(self.payload, where=where, error=InvalidEvidence, known=known)


@dataclass(frozen=True, slots=True)
class JoinTokenRecord:
    """What the issuer keeps of a join token: enough to recognise it, not to use it."""

    id: str
    secret_sha256: str = field(repr=False)
    agent: AgentId
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerRecord:
    """What the issuer keeps of an X.509-SVID that it released.

    Attributes:
        spiffe_id: whose it is.
        serial: in lower-case hexadecimal.
        sha256: of its DER, in hexadecimal.
        key: that it certifies.
    """

    spiffe_id: SpiffeId
    serial: str
    sha256: str
    key: PublicKey = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectContext:
    """What a claimant may show evidence from; ``None`` where there is nothing of the kind."""

    nonce: str
    manifest_file: Path | None = None
    """The signed manifest."""
    code_root: Path | None = None
    """The directory that the agent's code runs from."""
    join_token_file: Path | None = None
    """A file with a join token, closed to group and others."""
    former: X509Identity | None = None
    """An SVID that is over, with its key."""
    public_key: bytes = b""
    """The key of the certificate request beside the evidence, as DER SubjectPublicKeyInfo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyContext:
    """Everything that a verifier may decide from, besides the evidence."""

    nonce: str
    now: datetime
    signers: tuple[Signer, ...] = ()
    manifest: VerifiedManifest | None = None
    """The manifest that the claimant says it runs, verified beforehand."""
    join_token: JoinTokenRecord | None = None
    """The record that ``join_token.token_id`` of the evidence names, if there is one."""
    former: FormerRecord | None = None
    """What is known of the SVID that ``former_svid.serial_of`` the evidence names, if anything."""
    public_key: bytes = b""
    """The key of the certificate request beside the evidence, as DER SubjectPublicKeyInfo."""

    def check_bound(self, evidence: Evidence, kind: str) -> None:
        """Check that evidence is of this kind and made for this attempt.

        Raises:
            InvalidEvidence: it is of another kind.
            WrongNonce: it was made for another nonce.
        """
        if evidence.kind != kind:
            raise InvalidEvidence(f"evidence is of kind {evidence.kind}, expected {kind}")
        if not hmac.compare_digest(evidence.nonce.encode(), self.nonce.encode()):
            raise WrongNonce(f"{kind} evidence was made for another nonce than this attempt's")

    def required_manifest(self, kind: str) -> VerifiedManifest:
        """The verified manifest.

        Raises:
            ManifestRequired: there is none.
        """
        if self.manifest is None:
            raise ManifestRequired(f"{kind} evidence must come with a manifest, and there is none")
        return self.manifest


@dataclass(frozen=True, slots=True)
class Attested:
    """What a verifier made of evidence."""

    kind: str
    selectors: tuple[str, ...]
    """Statements that policies match as whole strings, as ``code:sha256:…``."""
    assurance: Assurance

    def at_least(self, required: Assurance) -> Self:
        """Return this if it is assured enough.

        Raises:
            AssuranceTooLow: the evidence was measured by someone trusted less than ``required``.
        """
        if self.assurance < required:
            raise AssuranceTooLow(
                f"{self.kind} evidence has assurance {self.assurance}, expected {required} or more"
            )
        return self


@runtime_checkable
class Attestor(Protocol):
    """One kind of evidence: how it is collected, beside how it is verified."""

    @property
    def kind(self) -> str:
        """The name in evidence, and of the entry point."""

    def collect(self, context: CollectContext) -> Evidence | None:
        """Collect evidence on the claimant's side; ``None`` if there is none of this kind.

        Raises:
            AttestationError: there should be evidence, and it cannot be collected.
        """

    def verify(self, evidence: Evidence, context: VerifyContext) -> Attested:
        """Decide on the verifier's side what the evidence proves.

        Raises:
            InvalidEvidence: it is not evidence of this kind.
            NotAttested: it is, and proves nothing here and now.
        """


def _check_payload(payload: Mapping[str, object]) -> None:
    if _is_short_text(payload):
        return
    try:
        size = len(_encoded(dict(payload)).encode())
    except (TypeError, ValueError, RecursionError):
        # The cause quotes the value, which may be a secret: it is cut off.
        raise InvalidEvidence("payload must be made of JSON values") from None
    if size > MAX_PAYLOAD_BYTES:
        raise InvalidEvidence(f"payload has {size} bytes, the limit is {MAX_PAYLOAD_BYTES}")


def _is_short_text(payload: Mapping[str, object]) -> bool:
    """Whether it is text only, and within the limit however it is escaped: most evidence is."""
    size = 0
    for name, value in payload.items():
        if type(name) is not str or type(value) is not str:
            return False
        size += len(name) + len(value)
    return size * _LONGEST_ESCAPE <= MAX_PAYLOAD_BYTES // 2

"""The contract between a node and the issuer, which every kind of node evidence keeps.

The same two sides as ``accredit_attestors.contract``: ``collect`` runs on the node and has three
outcomes (not mine, evidence, an error); ``verify`` runs in the issuer, decides without any I/O and
returns selectors, or raises. The node is one that an admin listed beforehand, with the kind by
which it attests: evidence proves that the claimant is that node, never that a node may exist. An
installed attestor is found by its entry point in the group ``accredit.node_attestors``.
"""

import hmac
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from cryptography import x509

from accredit_attestors.contract import Evidence, FormerRecord
from accredit_attestors.errors import InvalidEvidence, WrongNonce
from accredit_credentials.spiffe_id import TrustDomain
from accredit_credentials.x509_svid import X509Identity

__all__ = [
    "Evidence",
    "FormerRecord",
    "ListedNode",
    "NodeAttested",
    "NodeAttestor",
    "NodeCollectContext",
    "NodeJoinTokenRecord",
    "NodeVerifyContext",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedNode:
    """A node as an admin listed it.

    Attributes:
        name: as in its SPIFFE ID.
        kind: of evidence by which it attests.
        authorities: the site's CA certificates, for ``x509pop``.
        certificate: which certificate of that CA is the node's, see ``x509pop``.
    """

    name: str
    kind: str
    authorities: tuple[x509.Certificate, ...] = field(default=(), repr=False)
    certificate: str | None = None


@dataclass(frozen=True, slots=True)
class NodeJoinTokenRecord:
    """What the issuer keeps of a node's join token: enough to recognise it, not to use it."""

    id: str
    secret_sha256: str = field(repr=False)
    node: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCollectContext:
    """What a node may show evidence from; ``None`` where there is nothing of the kind.

    ``public_key`` is that of the certificate request, as DER SubjectPublicKeyInfo.
    """

    trust_domain: TrustDomain
    nonce: str
    public_key: bytes
    join_token_file: Path | None = None
    """A file with a node's join token, closed to group and others."""
    certificate_file: Path | None = None
    """A certificate of the site's own CA and those between them, PEM, leaf first."""
    key_file: Path | None = None
    """Its private key, PEM without a passphrase, closed to group and others."""
    former: X509Identity | None = None
    """A node SVID that is over, with its key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeVerifyContext:
    """Everything that a verifier may decide from, besides the evidence."""

    trust_domain: TrustDomain
    nonce: str
    now: datetime
    public_key: bytes
    node: ListedNode
    join_token: NodeJoinTokenRecord | None = None
    """The record that ``join_token.token_id`` of the evidence names, if there is one."""
    former: FormerRecord | None = None
    """What is known of the SVID that ``former_svid.serial_of`` the evidence names, if anything."""

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


@dataclass(frozen=True, slots=True)
class NodeAttested:
    """What a verifier made of evidence: that the claimant is the listed node, and why."""

    kind: str
    selectors: tuple[str, ...]


@runtime_checkable
class NodeAttestor(Protocol):
    """One kind of node evidence: how it is collected, beside how it is verified."""

    @property
    def kind(self) -> str:
        """The name in evidence, and of the entry point."""

    def collect(self, context: NodeCollectContext) -> Evidence | None:
        """Collect evidence on the node; ``None`` if there is none of this kind.

        Raises:
            AttestationError: there should be evidence, and it cannot be collected.
        """

    def verify(self, evidence: Evidence, context: NodeVerifyContext) -> NodeAttested:
        """Decide in the issuer whether this proves that the claimant is ``context.node``.

        Raises:
            InvalidEvidence: it is not evidence of this kind.
            NotAttested: it is, and proves nothing here and now.
        """

"""The contract between the socket and the daemon's core: what is asked, and what may be answered.

The socket's side (``server``) knows wires and bounds, and nothing of issuers or measurements. The
core implements ``Provider``. Callers are those of ``callers``: one value a connection, made when it
was accepted, and checked before each answer.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from accredit_client.answers import TaskTokenAnswer
from accredit_client.calls import TaskTokenRequest
from accredit_client.errors import ClientError
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.revocation import RevocationFact
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain
from accredit_credentials.x509_svid import X509Identity

MAX_HINT_BYTES = 1024  # SPIFFE Workload API §5.2.1


class Refused(ClientError):
    """The caller has no identity, or not any more. The text is told to it: why, and no secret."""


class NotYet(ClientError):
    """The daemon is starting, or its issuer is away and nothing is held: ask again later."""


class Caller(Protocol):
    """One connected process, pinned when its connection was accepted."""

    @property
    def pid(self) -> int:
        """Its process id, in the daemon's namespace."""
        ...

    @property
    def uid(self) -> int:
        """Its user."""
        ...

    @property
    def gid(self) -> int:
        """Its group."""
        ...

    def check(self) -> None:
        """Decide whether it is still the process that connected; raises where it is not."""
        ...

    def selectors(self) -> frozenset[str]:
        """What is known of it, as ``kind:value`` texts."""
        ...

    def close(self) -> None:
        """Let go of it; called once, when its connection is over."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSvid:
    """One identity of one workload.

    Attributes:
        identity: the SVID and its key.
        hint: what it is for, in an operator's words; empty for none.
    """

    identity: X509Identity
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadState:
    """All that a workload may know now; each message of a stream carries all of it.

    Attributes:
        svids: the first is the default identity.
        bundle: of its own trust domain.
        federated: of others, each at its name.
        crls: DER, of all issuing CAs of its own trust domain that sign leaves: who checks with
            some of them checks every leaf. Of its roots too, where they are the issuer's own.

    Raises:
        ValueError: no SVID, a hint that stands twice or is too long, or a bundle at another name.
    """

    svids: tuple[WorkloadSvid, ...]
    bundle: TrustBundle
    federated: Mapping[TrustDomain, TrustBundle] = field(default_factory=dict)
    crls: tuple[bytes, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not self.svids:
            raise ValueError("a workload without an SVID has no state: it is refused")
        hints = [each.hint for each in self.svids if each.hint]
        if len(hints) != len(set(hints)):
            raise ValueError("hints must be unique among the SVIDs of a workload")
        if any(len(hint.encode()) > MAX_HINT_BYTES for hint in hints):
            raise ValueError(f"a hint must have at most {MAX_HINT_BYTES} bytes")
        if self.bundle.trust_domain in self.federated:
            raise ValueError(f"{self.bundle.trust_domain} is not federated with itself")
        for name, bundle in self.federated.items():
            if bundle.trust_domain != name:
                raise ValueError(f"the bundle of {bundle.trust_domain} stands at the name {name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadWit:
    """One WIT-SVID of one identity, with its key."""

    spiffe_id: SpiffeId
    token: str = field(repr=False)
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationNotice:
    """Facts that came into force.

    Attributes:
        sequence: of the newest fact that is in force here.
        facts: those that are new; in the first notice all that are about the caller.
    """

    sequence: int
    facts: tuple[RevocationFact, ...] = ()


class Provider(Protocol):
    """Whoever knows the answers. Everything is asked in one event loop.

    Any method may raise ``Refused`` and ``NotYet``; a watch also in its midst, which ends it.
    """

    def watch(self, caller: Caller) -> AsyncIterator[WorkloadState]:
        """The caller's state at once, then at each change; it ends by an exception only."""
        ...

    async def jwt_svids(
        self, caller: Caller, audience: tuple[str, ...], spiffe_id: SpiffeId | None
    ) -> tuple[tuple[SpiffeId, str, str], ...]:
        """JWT-SVIDs as (ID, token, hint): of one identity, or of each where none is named."""
        ...

    def watch_wits(
        self, caller: Caller, spiffe_id: SpiffeId | None
    ) -> AsyncIterator[tuple[WorkloadWit, ...]]:
        """As ``watch``: WIT-SVIDs of one identity, or of each where none is named."""
        ...

    async def validate_jwt(
        self, caller: Caller, audience: str, token: str
    ) -> tuple[SpiffeId, Mapping[str, object]]:
        """Whose token it is, and its claims; raises ``CredentialError`` where it is not good."""
        ...

    async def task_token(
        self, caller: Caller, request: TaskTokenRequest, spiffe_id: SpiffeId | None
    ) -> TaskTokenAnswer:
        """A task token for one identity of the caller, the default one where none is named."""
        ...

    def revocations(self, caller: Caller) -> AsyncIterator[RevocationNotice]:
        """What was taken back: one notice at once, then each that comes."""
        ...

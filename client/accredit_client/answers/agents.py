"""Agents as they are registered: manifests, instances, join tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from accredit_client.answers.members import Members
from accredit_credentials.spiffe_id import SpiffeId


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredResource:
    """A resource that a manifest declares; ``actions`` maps each action to its risk."""

    name: str
    audience: str
    actions: Mapping[str, str]

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read one resource."""
        actions = members.member("actions")
        return cls(
            name=members.text("name"),
            audience=members.text("audience"),
            actions={name: actions.text(name) for name in actions.values},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRecord:
    """A registered manifest; ``envelope`` is there where one manifest was asked for."""

    digest: str
    agent: str
    version: str
    owner: str
    purpose: str
    signer: str
    assurance: str
    resources: tuple[DeclaredResource, ...]
    registered_at: datetime
    expires_at: datetime
    state: str
    envelope: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read one manifest."""
        return cls(
            digest=members.text("digest"),
            agent=members.text("agent"),
            version=members.text("version"),
            owner=members.text("owner"),
            purpose=members.text("purpose"),
            signer=members.text("signer"),
            assurance=members.text("assurance"),
            resources=members.each("resources", DeclaredResource.of),
            registered_at=members.moment("registered_at"),
            expires_at=members.moment("expires_at"),
            state=members.text("state"),
            envelope=members.optional_text("envelope"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRecord:
    """A registered agent; ``live`` is how many of its instances hold a valid SVID.

    Attributes:
        details: the whole answer, for what the table does not show (manifests, instances).
    """

    agent: str
    spiffe_id: SpiffeId
    owner: str
    version: str | None
    manifest: str | None
    live: int
    state: str
    details: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read one agent."""
        instances = members.values.get("instances")
        return cls(
            agent=members.text("agent"),
            spiffe_id=members.spiffe_id("spiffe_id"),
            owner=members.text("owner"),
            version=members.optional_text("version"),
            manifest=members.optional_text("manifest"),
            live=len(instances) if isinstance(instances, list) else members.number("instances"),
            state=members.text("state"),
            details=members.values,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinTokenAnswer:
    """A join token, shown once."""

    token: str = field(repr=False)
    id: str
    agent: str
    expires_at: datetime

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read the answer."""
        return cls(
            token=members.text("token"),
            id=members.text("id"),
            agent=members.text("agent"),
            expires_at=members.moment("expires_at"),
        )

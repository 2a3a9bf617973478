"""Nodes, and what the issuer answers them."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from accredit_client.answers.credentials import X509Answer
from accredit_client.answers.members import Members
from accredit_credentials.spiffe_id import SpiffeId


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    """A listed node, and how it stands.

    ``state`` is ``active``, ``suspended`` or ``revoked``; ``svid_expires_at`` is the end of its
    newest living SVID, ``instances`` the number of living ones that run there.
    """

    name: str
    spiffe_id: SpiffeId
    attestation: str
    namespaces: tuple[str, ...]
    ca: str | None = field(repr=False)
    certificate: str | None
    created_at: datetime
    created_by: str
    state: str
    svid_expires_at: datetime | None
    instances: int

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read one node."""
        return cls(
            name=members.text("name"),
            spiffe_id=members.spiffe_id("spiffe_id"),
            attestation=members.text("attestation"),
            namespaces=members.texts("namespaces"),
            ca=members.optional_text("ca"),
            certificate=members.optional_text("certificate"),
            created_at=members.moment("created_at"),
            created_by=members.text("created_by"),
            state=members.text("state"),
            svid_expires_at=members.optional_moment("svid_expires_at"),
            instances=members.number("instances"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeJoinTokenAnswer:
    """A node's join token, shown once."""

    token: str = field(repr=False)
    id: str
    node: str
    expires_at: datetime

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read the answer."""
        return cls(
            token=members.text("token"),
            id=members.text("id"),
            node=members.text("node"),
            expires_at=members.moment("expires_at"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceProblem:
    """Why one of several processes has no SVID. ``kind`` is the last part of the problem's type."""

    kind: str
    status: int
    detail: str

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read a problem document."""
        return cls(
            kind=members.text("type").rpartition(":")[2],
            status=members.number("status"),
            detail=members.text("detail"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceState:
    """How an instance stands after its node said that the code changed."""

    instance: str
    state: str

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read the answer."""
        return cls(instance=members.text("instance"), state=members.text("state"))


def instance_outcome(members: Members) -> X509Answer | InstanceProblem:
    """Read one outcome of several: an SVID, or a problem."""
    if "problem" in members.values:
        return InstanceProblem.of(members.member("problem"))
    return X509Answer.of(members.member("svid"))

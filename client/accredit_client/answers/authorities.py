"""Keys that sign for the trust domain, and who runs an issuer below them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from accredit_client.answers.members import Members


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityRecord:
    """A key that signs for the trust domain.

    Attributes:
        revoked: whether a fact is against it.
        origin: who made its certificate: own, files (given) or parent (another issuer).
        activates_from: when it may be activated without being early.
        planned: which of the moments have not come yet.
        resting: how many unexpired credentials rest on it; None where the issuer does not say.
    """

    id: str
    kind: str
    state: str
    revoked: bool
    parent: str | None
    origin: str
    prepared_at: datetime
    activates_from: datetime | None
    active_from: datetime | None
    last_use: datetime | None
    tainted_at: datetime | None
    removal: datetime
    expires_at: datetime
    planned: tuple[str, ...]
    resting: int | None

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read one authority."""
        return cls(
            id=members.text("id"),
            kind=members.text("kind"),
            state=members.text("state"),
            revoked=members.values.get("revoked") is True,
            parent=members.optional_text("parent"),
            origin=members.optional_text("origin") or "own",
            prepared_at=members.moment("prepared_at"),
            activates_from=members.optional_moment("activates_from"),
            active_from=members.optional_moment("active_from"),
            last_use=members.optional_moment("last_use"),
            tainted_at=members.optional_moment("tainted_at"),
            removal=members.moment("removal"),
            expires_at=members.moment("expires_at"),
            planned=members.texts("planned"),
            resting=members.optional_number("resting"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SubordinateRecord:
    """An agent that runs an issuer of its own below ours.

    Attributes:
        namespaces: whose agents it may issue for.
        dns_names: that may stand in its own server's certificate.
        issuing_cas: the key ids of its newest issuing CAs.
    """

    agent: str
    namespaces: tuple[str, ...]
    dns_names: tuple[str, ...]
    created_at: datetime
    created_by: str
    issuing_cas: tuple[str, ...]

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read one subordinate."""
        return cls(
            agent=members.text("agent"),
            namespaces=members.texts("namespaces"),
            dns_names=members.texts("dns_names"),
            created_at=members.moment("created_at"),
            created_by=members.text("created_by"),
            issuing_cas=members.each("issuing_cas", lambda each: each.text("id")),
        )

"""Who administers the issuer, who signs manifests, and who the caller is."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from accredit_client.answers.members import Members
from accredit_credentials.spiffe_id import SpiffeId


@dataclass(frozen=True, slots=True, kw_only=True)
class WhoamiAnswer:
    """Who the issuer takes us for."""

    spiffe_id: SpiffeId
    role: str | None
    namespaces: tuple[str, ...]
    not_after: datetime | None

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read the answer."""
        return cls(
            spiffe_id=members.spiffe_id("spiffe_id"),
            role=members.optional_text("role"),
            namespaces=members.optional_texts("namespaces"),
            not_after=members.optional_moment("not_after"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """One who administers the issuer. The enrolment token is there once, on creation."""

    name: str
    role: str
    namespaces: tuple[str, ...]
    state: str | None = None
    enrolment_token: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read one admin."""
        return cls(
            name=members.text("name"),
            role=members.text("role"),
            namespaces=members.optional_texts("namespaces"),
            state=members.optional_text("state"),
            enrolment_token=members.optional_text("enrolment_token"),
            expires_at=members.optional_moment("expires_at"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerRecord:
    """One who may sign manifests."""

    name: str
    key_id: str
    namespaces: tuple[str, ...]
    created_at: datetime
    state: str

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read one signer."""
        return cls(
            name=members.text("name"),
            key_id=members.text("key_id"),
            namespaces=members.texts("namespaces"),
            created_at=members.moment("created_at"),
            state=members.text("state"),
        )

"""What agents are given: nonces, SVIDs, task tokens."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from accredit_client.answers.members import Members
from accredit_credentials.spiffe_id import SpiffeId
from accredit_credentials.x509_svid import X509Svid, parse_pem


@dataclass(frozen=True, slots=True, kw_only=True)
class NonceAnswer:
    """A nonce for one attestation."""

    nonce: str = field(repr=False)
    expires_at: datetime

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read the answer."""
        return cls(nonce=members.text("nonce"), expires_at=members.moment("expires_at"))


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Answer:
    """A new X.509-SVID; ``certificates`` is PEM, leaf first, not yet verified."""

    spiffe_id: SpiffeId
    instance: str
    manifest: str | None
    serial: str
    certificates: str = field(repr=False)
    not_before: datetime
    not_after: datetime

    @property
    def svid(self) -> X509Svid:
        """The chain, checked for its form. ``x509_svid.validate`` says whether to believe it.

        Raises:
            InvalidCertificate: it is not an SVID.
        """
        return parse_pem(self.certificates)

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read the answer."""
        return cls(
            spiffe_id=members.spiffe_id("spiffe_id"),
            instance=members.text("instance"),
            manifest=members.optional_text("manifest"),
            serial=members.text("serial"),
            certificates=members.text("certificates"),
            not_before=members.moment("not_before"),
            not_after=members.moment("not_after"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtAnswer:
    """A JWT-SVID."""

    spiffe_id: SpiffeId
    token: str = field(repr=False)
    jti: str
    expires_at: datetime

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read the answer."""
        return cls(
            spiffe_id=members.spiffe_id("spiffe_id"),
            token=members.text("token"),
            jti=members.text("jti"),
            expires_at=members.moment("expires_at"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WitAnswer:
    """A WIT-SVID, not yet verified; worth something with the key that it was asked for only."""

    spiffe_id: SpiffeId
    token: str = field(repr=False)
    jti: str
    expires_at: datetime

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read the answer."""
        return cls(
            spiffe_id=members.spiffe_id("spiffe_id"),
            token=members.text("token"),
            jti=members.text("jti"),
            expires_at=members.moment("expires_at"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTokenAnswer:
    """A task token, for one audience and one holder."""

    access_token: str = field(repr=False)
    token_type: str
    expires_in: int
    expires_at: datetime
    scope: str
    audience: str
    jti: str
    task_id: str

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read the answer."""
        return cls(
            access_token=members.text("access_token"),
            token_type=members.text("token_type"),
            expires_in=members.number("expires_in"),
            expires_at=members.moment("expires_at"),
            scope=members.text("scope"),
            audience=members.text("audience"),
            jti=members.text("jti"),
            task_id=members.member("task").text("id"),
        )

"""Relationships with other trust domains, as the issuer sees them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from accredit_client.answers.members import Members
from accredit_client.errors import InvalidAnswer
from accredit_credentials.errors import InvalidFederation
from accredit_credentials.federation import Allowance


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedBundle:
    """The newest good bundle of another trust domain, as the issuer counts it."""

    digest: str
    sequence: int | None
    x509_authorities: int
    jwt_authorities: int

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read it."""
        return cls(
            digest=members.text("digest"),
            sequence=members.optional_number("sequence"),
            x509_authorities=members.number("x509_authorities"),
            jwt_authorities=members.number("jwt_authorities"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RelationshipRecord:
    """A relationship with another trust domain, and how it stands.

    ``state`` is ``current``, ``waiting`` (for a first bundle), ``unconfirmed`` (the first bundle is
    an admin's, and was never fetched), ``failing`` or ``overdue``; ``allowances`` are as the issuer
    wrote them. Until the first fetch there is no age; ``waiting_seconds`` counts from its start.
    """

    trust_domain: str
    profile: str
    endpoint_url: str
    endpoint_spiffe_id: str | None
    feed_url: str | None
    allowances: tuple[Allowance, ...]
    created_at: datetime
    created_by: str
    state: str
    bundle: FederatedBundle | None
    fetched_at: datetime | None
    age_seconds: int | None
    waiting_seconds: int | None
    interval_seconds: int
    attempted_at: datetime | None
    failure: str | None

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read one relationship."""
        known = members.values.get("bundle") is not None
        return cls(
            trust_domain=members.text("trust_domain"),
            profile=members.text("profile"),
            endpoint_url=members.text("endpoint_url"),
            endpoint_spiffe_id=members.optional_text("endpoint_spiffe_id"),
            feed_url=members.optional_text("feed_url"),
            allowances=members.each("allows", _allowance),
            created_at=members.moment("created_at"),
            created_by=members.text("created_by"),
            state=members.text("state"),
            bundle=FederatedBundle.of(members.member("bundle")) if known else None,
            fetched_at=members.optional_moment("fetched_at"),
            age_seconds=members.optional_number("age_seconds"),
            waiting_seconds=members.optional_number("waiting_seconds"),
            interval_seconds=members.number("interval_seconds"),
            attempted_at=members.optional_moment("attempted_at"),
            failure=members.optional_text("failure"),
        )


def _allowance(members: Members) -> Allowance:
    try:
        return Allowance.of_object(dict(members.values))
    except InvalidFederation as error:
        raise InvalidAnswer(f"the issuer's {members.where}: {error}") from None

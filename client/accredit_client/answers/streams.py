"""Streams of security events, as the issuer sees them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from accredit_client.answers.members import Members


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRecord:
    """A receiver of security events, and how it stands.

    Attributes:
        method: the delivery method, as the Shared Signals Framework names it.
        endpoint_url: where events are pushed to, or polled from.
        receiver: the SPIFFE ID that polls; None where they are pushed.
        state: ``current``, ``behind`` or ``failing``.
        through: the newest fact up to which it accepted everything.
        waiting: events that it has not accepted yet.
        failure: what went wrong last; None where nothing did.
    """

    stream_id: str
    name: str
    iss: str
    aud: str
    method: str
    endpoint_url: str
    receiver: str | None
    created_at: datetime
    created_by: str
    state: str
    through: int
    waiting: int
    waiting_since: datetime | None
    accepted_at: datetime | None
    failure: str | None

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read one."""
        delivery = members.member("delivery")
        return cls(
            stream_id=members.text("stream_id"),
            name=members.text("name"),
            iss=members.text("iss"),
            aud=members.text("aud"),
            method=delivery.text("method"),
            endpoint_url=delivery.text("endpoint_url"),
            receiver=members.optional_text("receiver"),
            created_at=members.moment("created_at"),
            created_by=members.text("created_by"),
            state=members.text("state"),
            through=members.number("through"),
            waiting=members.number("waiting"),
            waiting_since=members.optional_moment("waiting_since"),
            accepted_at=members.optional_moment("accepted_at"),
            failure=members.optional_text("failure"),
        )

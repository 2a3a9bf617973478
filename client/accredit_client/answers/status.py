"""The issuer at one look, as admins see it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from accredit_client.answers.authorities import AuthorityRecord
from accredit_client.answers.members import Members
from accredit_client.answers.revocation import VerifierRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class DutyRecord:
    """Something that somebody has to do."""

    urgent: bool
    text: str

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read one."""
        return cls(urgent=members.truth("urgent"), text=members.text("text"))


@dataclass(frozen=True, slots=True, kw_only=True)
class FactCount:
    """How many facts are in force about one kind of target."""

    target: str
    revoked: int
    suspended: int

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read one."""
        return cls(
            target=members.text("target"),
            revoked=members.number("revoked"),
            suspended=members.number("suspended"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedStatus:
    """The revocation feed and who listens to it.

    Attributes:
        through: the newest fact.
        streams: that are open.
        silent: of these, those that never acknowledged anything.
        verifiers: with a name, those farthest behind first; not all of very many.
    """

    through: int
    streams: int
    named: int
    unnamed: int
    silent: int
    verifiers: tuple[VerifierRecord, ...]

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read it."""
        return cls(
            through=members.number("through"),
            streams=members.number("streams"),
            named=members.number("named"),
            unnamed=members.number("unnamed"),
            silent=members.number("silent"),
            verifiers=members.each("verifiers", VerifierRecord.of),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CrlRecord:
    """The newest CRL of one issuing CA."""

    authority: str
    number: int
    this_update: datetime
    next_update: datetime
    entries: int
    bytes: int

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read one."""
        return cls(
            authority=members.text("authority"),
            number=members.number("number"),
            this_update=members.moment("this_update"),
            next_update=members.moment("next_update"),
            entries=members.number("entries"),
            bytes=members.number("bytes"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusAnswer:
    """Everything that somebody who is woken has to know first.

    Attributes:
        at: when the issuer looked, by its own clock.
        to_do: what somebody has to do, the urgent first.
    """

    trust_domain: str
    at: datetime
    to_do: tuple[DutyRecord, ...]
    facts: tuple[FactCount, ...]
    feed: FeedStatus
    crls: tuple[CrlRecord, ...]
    authorities: tuple[AuthorityRecord, ...]

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read the answer."""
        return cls(
            trust_domain=members.text("trust_domain"),
            at=members.moment("at"),
            to_do=members.each("to_do", DutyRecord.of),
            facts=members.each("facts", FactCount.of),
            feed=FeedStatus.of(members.member("feed")),
            crls=members.each("crls", CrlRecord.of),
            authorities=members.each("authorities", AuthorityRecord.of),
        )

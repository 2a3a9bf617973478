"""Revocation facts and whom they have reached, as admins see them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from accredit_client.answers.members import Members


@dataclass(frozen=True, slots=True, kw_only=True)
class FactRecord:
    """A revocation fact with the one who made it, as admins see it."""

    sequence: int
    target: str
    kind: str
    at: datetime
    expires_at: datetime
    actor: str
    reason: str

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read one fact."""
        return cls(
            sequence=members.number("sequence"),
            target=members.text("target"),
            kind=members.text("kind"),
            at=members.moment("at"),
            expires_at=members.moment("expires_at"),
            actor=members.text("actor"),
            reason=members.text("reason"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewAnswer:
    """What a fact would end, or give back, if it were stated now.

    Attributes:
        would_be: what its targets would be: revoked, suspended or restored.
        credentials: unexpired ones, by kind.
        last_end: when the last of them would end by itself.
    """

    would_be: str
    targets: tuple[str, ...]
    credentials: Mapping[str, int]
    instances: int
    manifests: int
    agents: int
    last_end: datetime | None

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read the answer."""
        counted = members.member("credentials")
        return cls(
            would_be=members.text("would_be"),
            targets=members.texts("targets"),
            credentials={kind: counted.number(kind) for kind in counted.values},
            instances=members.number("instances"),
            manifests=members.number("manifests"),
            agents=members.number("agents"),
            last_end=members.optional_moment("last_end"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierRecord:
    """A verifier that has a name, and up to which fact it applies what it was told.

    Attributes:
        silent_seconds: since it acknowledged anything.
        behind_seconds: since the first fact that it has not confirmed was stated; 0 where there is
            none, None where that is too long ago to be known.
        gone: whether it does not listen any more.
    """

    spiffe_id: str
    instance: str
    through: int
    silent_seconds: float
    behind_seconds: float | None
    gone: bool

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read one verifier."""
        return cls(
            spiffe_id=members.text("spiffe_id"),
            instance=members.text("instance"),
            through=members.number("through"),
            silent_seconds=members.amount("silent_seconds"),
            behind_seconds=members.optional_amount("behind_seconds"),
            gone=members.truth("gone"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedVerifiers:
    """Those with a name: how many, how long the slowest took, and whom a fact has not reached."""

    listening: int
    confirmed: int
    slowest_milliseconds: float | None
    missing: tuple[VerifierRecord, ...]
    gone: tuple[VerifierRecord, ...]

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read them."""
        return cls(
            listening=members.number("listening"),
            confirmed=members.number("confirmed"),
            slowest_milliseconds=members.optional_amount("slowest_milliseconds"),
            missing=members.each("missing", VerifierRecord.of),
            gone=members.each("gone", VerifierRecord.of),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnnamedVerifiers:
    """Those without a name, counted."""

    listening: int
    confirmed: int
    slowest_milliseconds: float | None

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read them."""
        return cls(
            listening=members.number("listening"),
            confirmed=members.number("confirmed"),
            slowest_milliseconds=members.optional_amount("slowest_milliseconds"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmationsAnswer:
    """Which verifiers apply the facts up to one.

    Attributes:
        complete: whether everybody confirmed it of whom that can be expected.
        silent: streams that never acknowledged anything.
    """

    through: int
    complete: bool
    elapsed_milliseconds: float | None
    named: NamedVerifiers
    unnamed: UnnamedVerifiers
    silent: int

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read the answer."""
        return cls(
            through=members.number("through"),
            complete=members.truth("complete"),
            elapsed_milliseconds=members.optional_amount("elapsed_milliseconds"),
            named=NamedVerifiers.of(members.member("named")),
            unnamed=UnnamedVerifiers.of(members.member("unnamed")),
            silent=members.number("silent"),
        )

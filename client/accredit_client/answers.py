"""What the issuer answers, as typed values (docs/api.md).

``Members`` reads one JSON object: a member that is missing or of another type is an
``InvalidAnswer`` that names it; members that we do not know are ignored, so that the issuer may
say more. Nothing here is trusted beyond its form: certificates and signed statements are verified
where they are used.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self, TypeVar

from accredit_client.errors import InvalidAnswer
from accredit_credentials.errors import InvalidFederation, InvalidSpiffeId
from accredit_credentials.federation import Allowance
from accredit_credentials.spiffe_id import SpiffeId
from accredit_credentials.strict_json import NotStrictJson, parse_object
from accredit_credentials.x509_svid import X509Svid, parse_pem

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Members:
    """The members of one JSON object of an answer."""

    values: Mapping[str, Any] = field(repr=False)
    where: str = "answer"

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read a body.

        Raises:
            InvalidAnswer: not one JSON object with one meaning.
        """
        try:
            return cls(parse_object(body))
        except NotStrictJson as error:
            raise InvalidAnswer(f"the issuer's answer must be a JSON object: {error}") from None

    def text(self, name: str) -> str:
        """A text, perhaps empty."""
        return self._of_type(name, str, "a text")

    def optional_text(self, name: str) -> str | None:
        """A text, or None where it is null or left out."""
        return None if self.values.get(name) is None else self.text(name)

    def number(self, name: str) -> int:
        """A whole number."""
        value = self._of_type(name, int, "a whole number")
        if isinstance(value, bool):
            raise self._wrong(name, "a whole number")
        return value

    def moment(self, name: str) -> datetime:
        """A moment in RFC 3339, in UTC."""
        try:
            moment = datetime.fromisoformat(self.text(name))
        except ValueError:
            raise self._wrong(name, "a moment in RFC 3339") from None
        if moment.tzinfo is None:
            raise self._wrong(name, "a moment with its time zone")
        return moment.astimezone(UTC)

    def optional_moment(self, name: str) -> datetime | None:
        """A moment, or None where it is null or left out."""
        return None if self.values.get(name) is None else self.moment(name)

    def spiffe_id(self, name: str) -> SpiffeId:
        """A SPIFFE ID."""
        try:
            return SpiffeId.parse(self.text(name))
        except InvalidSpiffeId as error:
            raise InvalidAnswer(f"{self.where}: {error}") from None

    def octets(self, name: str) -> bytes:
        """Bytes in base64."""
        try:
            return base64.b64decode(self.text(name), validate=True)
        except (ValueError, binascii.Error):
            raise self._wrong(name, "base64") from None

    def texts(self, name: str) -> tuple[str, ...]:
        """An array of texts."""
        values = self._of_type(name, list, "an array of texts")
        if not all(isinstance(value, str) for value in values):
            raise self._wrong(name, "an array of texts")
        return tuple(values)

    def member(self, name: str) -> "Members":
        """An object."""
        return Members(self._of_type(name, dict, "an object"), name)

    def each(self, name: str, read: Callable[["Members"], T]) -> tuple[T, ...]:
        """An array of objects, each read by ``read``."""
        values = self._of_type(name, list, "an array of objects")
        if not all(isinstance(value, dict) for value in values):
            raise self._wrong(name, "an array of objects")
        return tuple(read(Members(value, f"{name}[{i}]")) for i, value in enumerate(values))

    def _of_type(self, name: str, kind: type[T], expected: str) -> T:
        value = self.values.get(name)
        if not isinstance(value, kind):
            raise self._wrong(name, expected)
        return value

    def _wrong(self, name: str, expected: str) -> InvalidAnswer:
        return InvalidAnswer(f"the issuer's {self.where} must have {name!r}, {expected}")


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
            namespaces=_optional_texts(members, "namespaces"),
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
            namespaces=_optional_texts(members, "namespaces"),
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
            sequence=_optional_number(members, "sequence"),
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
            age_seconds=_optional_number(members, "age_seconds"),
            waiting_seconds=_optional_number(members, "waiting_seconds"),
            interval_seconds=members.number("interval_seconds"),
            attempted_at=members.optional_moment("attempted_at"),
            failure=members.optional_text("failure"),
        )


def _optional_number(members: Members, name: str) -> int | None:
    return None if members.values.get(name) is None else members.number(name)


def _allowance(members: Members) -> Allowance:
    try:
        return Allowance.of_object(dict(members.values))
    except InvalidFederation as error:
        raise InvalidAnswer(f"the issuer's {members.where}: {error}") from None


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
            resting=members.number("resting") if "resting" in members.values else None,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One leaf of the log. ``proof`` is there where an explanation was asked for."""

    index: int
    leaf: bytes = field(repr=False)
    record: Mapping[str, Any]
    proof: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read one entry."""
        return cls(
            index=members.number("index"),
            leaf=members.octets("leaf"),
            record=members.member("record").values,
            proof=tuple(
                Members({"proof": text}, members.where).octets("proof")
                for text in _optional_texts(members, "proof")
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """Entries of the log, and how many there are in all."""

    size: int
    entries: tuple[LogEntry, ...]

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read the answer."""
        return cls(size=members.number("size"), entries=members.each("entries", LogEntry.of))


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What the log says about one id, with the proofs and the checkpoint they lead to."""

    id: str
    entries: tuple[LogEntry, ...]
    checkpoint: str = field(repr=False)

    @classmethod
    def of(cls, members: Members) -> Self:
        """Read the answer."""
        return cls(
            id=members.text("id"),
            entries=members.each("entries", LogEntry.of),
            checkpoint=members.text("checkpoint"),
        )


def _optional_texts(members: Members, name: str) -> tuple[str, ...]:
    return () if members.values.get(name) is None else members.texts(name)

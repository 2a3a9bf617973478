"""Relationships with other trust domains, as rows: made, changed, ended, and what was fetched.

Each change of an admin, and each change of a bundle, is one transaction with its record in the
log. What is known of all of them together is the bundle map that verifiers get; it is made once a
change and replaced as a whole.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from accredit_credentials.bundle import TrustBundle
from accredit_credentials.bundle_map import MAX_DOMAINS, BundleMap, FederatedDomain
from accredit_credentials.errors import CredentialError
from accredit_credentials.federation import Allowance, check_allowances
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain
from accredit_issuer.audit.records import Record, RecordKind
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.federation.rules import (
    Profile,
    Relationship,
    check_new,
    interval,
    is_overdue,
    next_attempt,
)
from accredit_issuer.registry.changes import Actor, Changes
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import federations
from accredit_issuer.store.writer import Transaction

MAP_REFRESH_HINT = 30  # seconds after which verifiers ask for the map again
MAX_ALL_BUNDLES = 4 * 1024 * 1024  # bytes of all bundles, so that the map stays within its bound
MAX_FAILURE_LENGTH = 500
AGE_STEP = timedelta(hours=1)  # of ``fetched_at`` in the map: it must not be another at each poll


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A relationship, and how it stands.

    Attributes:
        relationship: what an admin said.
        created_at: when.
        created_by: the admin.
        log_index: where the log says so; tells it from a later one with the same trust domain.
        bundle: the last good one; None before the first.
        digest: SHA-256 of its document, in hex.
        fetched_at: when it was last fetched; None where that never was, whoever gave the first.
        attempted_at: when the endpoint was last asked.
        failure: what went wrong then; None where nothing did.
    """

    relationship: Relationship
    created_at: datetime
    created_by: Actor
    log_index: int
    bundle: TrustBundle | None = field(repr=False)
    digest: str | None
    fetched_at: datetime | None
    attempted_at: datetime | None
    failure: str | None

    @property
    def trust_domain(self) -> TrustDomain:
        """With whom."""
        return self.relationship.trust_domain

    @property
    def given(self) -> bool:
        """Whether the bundle is the one that an admin gave."""
        return self.bundle is not None and self.fetched_at is None

    @property
    def heard_at(self) -> datetime:
        """Since when nothing newer is known."""
        return self.fetched_at or self.created_at

    @property
    def next_attempt(self) -> datetime:
        """When to ask the endpoint again."""
        return next_attempt(self.attempted_at, self.bundle) or self.created_at

    def overdue(self, now: datetime) -> bool:
        """Whether nothing was heard for so long that somebody should look."""
        return is_overdue(self.heard_at, self.bundle, now)

    def state(self, now: datetime) -> str:
        """``overdue``, ``unconfirmed``, ``failing``, ``waiting`` (for a bundle) or ``current``.

        Unconfirmed is a first bundle that an admin gave, and the endpoint did not yet.
        """
        if self.overdue(now):
            return "overdue"
        if self.given:
            return "unconfirmed"
        if self.failure is not None:
            return "failing"
        return "waiting" if self.bundle is None else "current"

    def interval(self) -> timedelta:
        """How often the endpoint is asked."""
        return interval(self.bundle)


@dataclass(frozen=True, slots=True)
class PublishedMap:
    """The bundle map as verifiers get it."""

    document: bytes = field(repr=False)
    tag: str


class Relationships:
    """The relationships of one issuer."""

    def __init__(self, own: TrustDomain, database: Database, changes: Changes) -> None:
        self._own = own
        self._database = database
        self._changes = changes
        self._version = 0
        self._known: tuple[Standing, ...] | None = None
        self._published: PublishedMap | None = None

    def all(self) -> tuple[Standing, ...]:
        """Every relationship, by trust domain."""
        known, version = self._known, self._version
        if known is None:
            with self._database.read() as connection:
                rows = connection.execute(select(federations).order_by(federations.c.trust_domain))
                known = tuple(map(_standing, rows))
            # What changed while these were read is not forgotten again.
            if version == self._version:
                self._known = known
        return known

    def one(self, trust_domain: TrustDomain) -> Standing:
        """The relationship with one trust domain.

        Raises:
            Refusal: there is none.
        """
        for standing in self.all():
            if standing.trust_domain == trust_domain:
                return standing
        raise _unknown(trust_domain)

    def published(self) -> PublishedMap:
        """The bundle map of those whose bundle is known; our own is not in it.

        Its tag is another only where something is another: ages are told to the hour.
        """
        published, version = self._published, self._version
        if published is None:
            document = _map_of(self.all()).to_json().encode()
            tag = f'"{hashlib.sha256(document).hexdigest()[:32]}"'
            published = PublishedMap(document, tag)
            if version == self._version:
                self._published = published
        return published

    def create(
        self, asked: Relationship, bootstrap: TrustBundle | None, *, by: Actor, now: datetime
    ) -> None:
        """Begin a relationship. Saying the same again is no error, and changes nothing.

        Raises:
            Refusal: the values do not fit together, or there is another one with this trust domain.
        """
        try:
            check_new(asked, bootstrap, own=self._own)
        except CredentialError as error:
            raise Refusal(Kind.MALFORMED, str(error)) from None
        document = None if bootstrap is None else bootstrap.to_json()

        def work(transaction: Transaction) -> None:
            row = transaction.execute(_row_of(asked.trust_domain)).first()
            if row is not None:
                if _relationship(row) == asked:
                    return
                raise Refusal(
                    Kind.CONFLICT,
                    f"a relationship with {asked.trust_domain} exists with other values; "
                    "remove it first",
                )
            self._check_endpoint(transaction, asked)
            number = transaction.execute(select(func.count()).select_from(federations)).scalar_one()
            if number >= MAX_DOMAINS:
                raise Refusal(Kind.CONFLICT, f"{MAX_DOMAINS} trust domains are federated already")
            details = asked.to_object()
            if document is not None:
                details["bundle"] = _digest(document)
            index = self._record(
                transaction,
                RecordKind.FEDERATION_ADDED,
                asked.trust_domain,
                details,
                by=by,
                now=now,
            )
            transaction.execute(
                insert(federations).values(
                    trust_domain=str(asked.trust_domain),
                    profile=asked.profile.value,
                    endpoint_url=asked.endpoint_url,
                    endpoint_spiffe_id=_text(asked.endpoint_spiffe_id),
                    feed_url=asked.feed_url,
                    allows=[each.to_object() for each in asked.allowances],
                    created_at=now,
                    created_by=by.name,
                    log_index=index,
                    bundle=document,
                )
            )
            self._check_map(transaction)
            transaction.after_commit(self._changed)

        self._changes.make(work, by=by)

    def allow(
        self,
        trust_domain: TrustDomain,
        allowances: tuple[Allowance, ...],
        *,
        by: Actor,
        now: datetime,
    ) -> None:
        """Say anew what its agents may ask; none is nothing.

        Raises:
            Refusal: no such relationship, or allowances of somebody else.
        """
        try:
            check_allowances(trust_domain, allowances)
        except CredentialError as error:
            raise Refusal(Kind.MALFORMED, str(error)) from None
        allows = [each.to_object() for each in allowances]

        def work(transaction: Transaction) -> None:
            row = transaction.execute(_row_of(trust_domain)).first()
            if row is None:
                raise _unknown(trust_domain)
            if row.allows == allows:
                return
            self._record(
                transaction,
                RecordKind.FEDERATION_CHANGED,
                trust_domain,
                {"allows": allows},
                by=by,
                now=now,
            )
            transaction.execute(
                update(federations)
                .where(federations.c.trust_domain == str(trust_domain))
                .values(allows=allows)
            )
            self._check_map(transaction)
            transaction.after_commit(self._changed)

        self._changes.make(work, by=by)

    def remove(self, trust_domain: TrustDomain, *, by: Actor, now: datetime) -> None:
        """End a relationship: its bundle and its allowances are gone from the map.

        Raises:
            Refusal: no such relationship, or another endpoint is authenticated by its bundle.
        """

        def work(transaction: Transaction) -> None:
            rows = transaction.execute(select(federations)).all()
            relationships = [_relationship(row) for row in rows]
            if all(each.trust_domain != trust_domain for each in relationships):
                raise _unknown(trust_domain)
            for each in relationships:
                if _rests_on(each, trust_domain):
                    raise Refusal(
                        Kind.CONFLICT,
                        f"the endpoint of {each.trust_domain} is authenticated by the bundle of "
                        f"{trust_domain}: remove that relationship first",
                    )
            self._record(
                transaction, RecordKind.FEDERATION_REMOVED, trust_domain, {}, by=by, now=now
            )
            transaction.execute(
                delete(federations).where(federations.c.trust_domain == str(trust_domain))
            )
            transaction.after_commit(self._changed)

        self._changes.make(work, by=by)

    def keep(self, standing: Standing, document: str, *, by: Actor, now: datetime) -> None:
        """Take in a bundle that was fetched and checked; a record is made where it differs.

        Raises:
            Refusal: the relationship ended meanwhile, or all bundles together are too large.
        """
        trust_domain, digest = standing.trust_domain, _digest(document)
        bundle = TrustBundle.parse(trust_domain, document)

        def work(transaction: Transaction) -> None:
            row = transaction.execute(_row_of(trust_domain)).first()
            if row is None or row.log_index != standing.log_index:
                raise _unknown(trust_domain)
            changed = row.bundle is None or _digest(row.bundle) != digest
            if changed:
                self._check_size(transaction, trust_domain, document)
                details: dict[str, Any] = {
                    "bundle": digest,
                    "sequence": bundle.sequence,
                    "x509_authorities": len(bundle.x509_authorities),
                    "jwt_authorities": len(bundle.jwt_authorities),
                }
                self._record(
                    transaction,
                    RecordKind.FEDERATION_BUNDLE_CHANGED,
                    trust_domain,
                    details,
                    by=by,
                    now=now,
                )
            transaction.execute(
                update(federations)
                .where(federations.c.trust_domain == str(trust_domain))
                .values(bundle=document, fetched_at=now, attempted_at=now, failure=None)
            )
            if changed:
                self._check_map(transaction)
            transaction.after_commit(self._changed)

        self._changes.make(work, by=by)

    def fail(self, standing: Standing, reason: str, *, by: Actor, now: datetime) -> None:
        """Note an attempt that brought nothing; what is known stays.

        Raises:
            Unavailable: it could not be written.
        """

        def work(transaction: Transaction) -> None:
            transaction.execute(
                update(federations)
                .where(
                    federations.c.trust_domain == str(standing.trust_domain),
                    federations.c.log_index == standing.log_index,
                )
                .values(attempted_at=now, failure=reason[:MAX_FAILURE_LENGTH])
            )
            transaction.after_commit(self._changed)

        self._changes.make(work, by=by)

    def check(self, by: Actor) -> None:
        """Decide whether it may change something now, for what takes long before it does.

        Raises:
            Refusal: a fact is against it, or its role does not allow it any more.
            Unavailable: it cannot be asked for now.
        """
        self._changes.make(lambda _: None, by=by)

    def _changed(self) -> None:
        self._version += 1
        self._known = None
        self._published = None

    def _check_endpoint(self, transaction: Transaction, asked: Relationship) -> None:
        """Whoever serves the bundle can be authenticated: by itself, by us, or by a third."""
        endpoint = asked.endpoint_spiffe_id
        if endpoint is None or endpoint.trust_domain in {asked.trust_domain, self._own}:
            return
        if transaction.execute(_row_of(endpoint.trust_domain)).first() is None:
            raise Refusal(
                Kind.CONFLICT,
                f"{endpoint} is of a trust domain that is not federated: its endpoint could not "
                "be authenticated",
            )

    def _check_size(
        self, transaction: Transaction, trust_domain: TrustDomain, document: str
    ) -> None:
        others = transaction.execute(
            select(func.coalesce(func.sum(func.length(federations.c.bundle)), 0)).where(
                federations.c.trust_domain != str(trust_domain)
            )
        ).scalar_one()
        if others + len(document) > MAX_ALL_BUNDLES:
            raise Refusal(
                Kind.TOO_LARGE,
                f"the bundles of all trust domains together exceed {MAX_ALL_BUNDLES} bytes",
            )

    @staticmethod
    def _check_map(transaction: Transaction) -> None:
        """Read the map that this change makes, as every verifier will.

        Raises:
            Refusal: they could not read it, or would leave a trust domain out.
        """
        rows = transaction.execute(select(federations)).all()
        try:
            read = BundleMap.parse(_map_of(tuple(map(_standing, rows))).to_json())
        except CredentialError as error:
            raise Refusal(Kind.TOO_LARGE, f"verifiers could not read the map: {error}") from None
        for why in read.left_out.values():
            raise Refusal(Kind.CONFLICT, f"verifiers would leave a trust domain out: {why}")

    @staticmethod
    def _record(
        transaction: Transaction,
        kind: RecordKind,
        trust_domain: TrustDomain,
        details: dict[str, Any],
        *,
        by: Actor,
        now: datetime,
    ) -> int:
        return transaction.record(
            Record(kind=kind, at=now, actor=by.name, subject=str(trust_domain.id), details=details)
        )


def _map_of(standings: tuple[Standing, ...]) -> BundleMap:
    return BundleMap(
        {
            standing.trust_domain: FederatedDomain(
                standing.bundle,
                standing.relationship.allowances,
                standing.relationship.feed_url,
                _to_the_hour(standing.fetched_at),
            )
            for standing in standings
            if standing.bundle is not None
        },
        MAP_REFRESH_HINT,
    )


def _to_the_hour(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    return moment - (moment - datetime.min.replace(tzinfo=moment.tzinfo)) % AGE_STEP


def _row_of(trust_domain: TrustDomain) -> Any:
    return select(federations).where(federations.c.trust_domain == str(trust_domain))


def _standing(row: Row[Any]) -> Standing:
    relationship = _relationship(row)
    known = row.bundle is not None
    return Standing(
        relationship=relationship,
        created_at=row.created_at,
        created_by=row.created_by,
        log_index=row.log_index,
        bundle=TrustBundle.parse(relationship.trust_domain, row.bundle) if known else None,
        digest=_digest(row.bundle) if known else None,
        fetched_at=row.fetched_at,
        attempted_at=row.attempted_at,
        failure=row.failure,
    )


def _relationship(row: Row[Any]) -> Relationship:
    endpoint = row.endpoint_spiffe_id
    return Relationship(
        trust_domain=TrustDomain.parse(row.trust_domain),
        profile=Profile(row.profile),
        endpoint_url=row.endpoint_url,
        endpoint_spiffe_id=SpiffeId.parse(endpoint) if endpoint is not None else None,
        feed_url=row.feed_url,
        allowances=tuple(map(Allowance.of_object, row.allows)),
    )


def _rests_on(relationship: Relationship, trust_domain: TrustDomain) -> bool:
    endpoint = relationship.endpoint_spiffe_id
    return (
        endpoint is not None
        and endpoint.trust_domain == trust_domain
        and relationship.trust_domain != trust_domain
    )


def _text(spiffe_id: SpiffeId | None) -> str | None:
    return None if spiffe_id is None else str(spiffe_id)


def _digest(document: str) -> str:
    return hashlib.sha256(document.encode()).hexdigest()


def _unknown(trust_domain: TrustDomain) -> Refusal:
    return Refusal(Kind.NOT_FOUND, f"there is no relationship with {trust_domain}")

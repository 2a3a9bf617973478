"""Stating facts: one transaction writes the fact, its record, and every projection's new state.

Order: does the target exist and may this kind be said of it → expand what credentials do not carry
→ write facts, CRL entries (``projection``) and CRLs (``crls``) with the log record → commit → put
the facts into force for the issuer's own decisions and tell the feed, before any other write is
looked at.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, insert, select

from accredit_credentials.revocation import (
    EXPANDED,
    MAX_REASON_LENGTH,
    FactKind,
    FactSet,
    RevocationFact,
    Target,
    TargetKind,
)
from accredit_issuer.audit.records import Record, RecordKind, written_moment
from accredit_issuer.authority.authorities import Authorities
from accredit_issuer.clock import Clock
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.decision import check_text
from accredit_issuer.registry.changes import Actor, Changes
from accredit_issuer.revocation.crls import Crls
from accredit_issuer.revocation.feed import Feed
from accredit_issuer.revocation.known_authorities import end_of_authority
from accredit_issuer.revocation.projection import Change, project
from accredit_issuer.settings import Config
from accredit_issuer.store import models
from accredit_issuer.store.models import (
    credentials,
    facts,
    instances,
    manifests,
)
from accredit_issuer.store.writer import Transaction, Writer

# A credential is gone within hours; a fact about one of these also keeps new ones from coming.
LASTING = frozenset(
    {
        TargetKind.NAMESPACE,
        TargetKind.AGENT,
        TargetKind.MANIFEST,
        TargetKind.SIGNER,
        TargetKind.OWNER,
        TargetKind.NODE,
        TargetKind.ADMIN,
        TargetKind.AUTHORITY,
        TargetKind.TASK,
    }
)


@dataclass(frozen=True, slots=True)
class StatedFact:
    """A fact, and who stated it."""

    fact: RevocationFact
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FactRequest:
    """What somebody wants to state."""

    target: Target
    kind: FactKind
    reason: str = field(repr=False)
    actor: Actor
    may_overrule: bool = True
    """Whether the actor may end a suspension that somebody else stated."""


class Revocation:
    """The facts in force, and how new ones come in.

    ``at_most`` tells a moment that has certainly come, also by a clock that is ahead.
    """

    def __init__(
        self, config: Config, authorities: Authorities, feed: Feed, at_most: Clock
    ) -> None:
        self._config = config
        self._feed = feed
        self._at_most = at_most
        self._sequence = 0
        self.facts = FactSet()
        self.on_facts: Callable[[], None] = lambda: None  # once they are in force, before told
        self.crls = Crls(config, authorities, at_most)

    def load(self, connection: Connection, now: datetime) -> None:
        """Take up the facts of the database: all lasting ones, and those not yet expired."""
        rows = connection.execute(select(facts).order_by(facts.c.sequence)).all()
        known = [fact_of(row) for row in rows]
        self._sequence = known[-1].sequence if known else 0
        self.facts = FactSet(fact for fact in known if _matters(fact, now))
        in_force = (fact for fact in known if fact.expires_at > now)
        self._feed.load(in_force, self._sequence, newest=known)

    def state(self, request: FactRequest, changes: Changes, now: datetime) -> list[StatedFact]:
        """State a fact; returns it with those that it was expanded into, once all are durable.

        Raises:
            Refusal: an unknown target, nothing to restore, or revoked already.
            Unavailable: it could not be recorded.
        """
        check_text("reason", request.reason, MAX_REASON_LENGTH)
        return changes.make(
            lambda t: self.state_within(t, request, now), by=request.actor, alone=True
        )

    def publish_crls(self, writer: Writer, now: datetime) -> int:
        """Make the CRLs that are missing or past half of their life; returns how many."""
        return writer.run(lambda t: self.crls.write_due(t, self.facts, now), alone=True).result()

    def forget_expired(self, writer: Writer, now: datetime) -> None:
        """Drop from memory what no living credential can match.

        On the writing thread, where facts come in: one that came meanwhile would be lost.
        """

        def forget() -> None:
            since = self.living_since(now)
            self.facts = FactSet(fact for fact in self.facts if _matters(fact, since))
            self._feed.drop_expired(since)

        writer.run(lambda t: t.after_commit(forget), alone=True).result()

    def state_within(
        self,
        transaction: Transaction,
        request: FactRequest,
        now: datetime,
        *,
        also: Iterable[Target] = (),
    ) -> list[StatedFact]:
        """As ``state``, as part of a transaction that no other work shares; once in it.

        ``also`` are further targets of the same fact, known to exist and not to be revoked.

        Raises:
            Refusal: an unknown target, nothing to restore, or revoked already.
        """
        first, *expanded = self.targets(transaction, request, now)
        targets = [first, *also, *expanded]
        last_end = _last_end(transaction) or now
        stated = [
            RevocationFact(
                sequence=self._sequence + offset,
                target=target,
                kind=request.kind,
                at=now,
                expires_at=max(
                    self._last_match(transaction, target, now),
                    last_end,
                    self._known_until(target, now),
                ),
                reason=request.reason,
            )
            for offset, target in enumerate(targets, start=1)
        ]
        publishing, since = self.crls.publishing, self.living_since(now)
        changes: list[Change] = []
        for fact in stated:
            _write_fact(transaction, fact, request.actor.name)
            changes += project(transaction, fact, since, publishing)
        if request.kind is FactKind.RESTORED:
            # What another suspension still covers goes back on: it never left.
            restored = {fact.target for fact in stated}
            for fact in self.facts:
                if fact.kind is FactKind.SUSPENDED and fact.target not in restored:
                    changes += project(transaction, fact, since, publishing)
        self.crls.write_changed(transaction, changes, self.facts, now)

        def put_into_force() -> None:
            self._sequence = stated[-1].sequence
            for fact in stated:
                self.facts.apply(fact)
            self.on_facts()
            self._feed.publish(stated)

        transaction.after_commit(put_into_force)
        return [StatedFact(fact, request.actor.name) for fact in stated]

    def living_since(self, now: datetime) -> datetime:
        """What ends after this may be alive, though it be over by the clock that a fact is of."""
        return min(now, self._at_most())

    def targets(
        self, transaction: Transaction, request: FactRequest, now: datetime
    ) -> list[Target]:
        """What a fact would be about if it were stated now; nothing is written.

        Raises:
            Refusal: an unknown target, nothing to restore, or revoked already.
        """
        self._check_possible(transaction, request, now)
        return [request.target, *self._expanded(transaction, request, now)]

    def _check_possible(
        self, transaction: Transaction, request: FactRequest, now: datetime
    ) -> None:
        target = request.target
        if not _exists(transaction, target, now):
            raise Refusal(Kind.NOT_FOUND, f"no {target.kind.value} {target.value} is known")
        if request.kind is FactKind.RESTORED and target.kind is TargetKind.MANIFEST:
            self._check_not_covered(transaction, target)
        if request.kind is FactKind.RESTORED and target.kind is TargetKind.INSTANCE:
            self._check_node_stands(transaction, target)
        known = self.standing(transaction, target)
        if request.kind is FactKind.RESTORED:
            if known is None:
                raise Refusal(Kind.CONFLICT, f"{target} is not suspended")
            if known.kind is FactKind.REVOKED:
                raise Refusal(
                    Kind.CONFLICT, f"{target} is revoked: only a suspension can be restored"
                )
            if not request.may_overrule:
                _check_own(transaction, known, request.actor.name)
        elif known is not None and (known.kind is FactKind.REVOKED or known.kind is request.kind):
            raise Refusal(Kind.CONFLICT, f"{target} is {known.kind.value} already")

    def standing(self, transaction: Transaction, target: Target) -> RevocationFact | None:
        """The fact that stands about a target.

        One left the memory when nothing lived that it matched; who slept since may come back, and
        the table is asked then (``issuance.former``).
        """
        mark = (str(target),)
        return self.facts.match(mark) or stated_against(transaction, mark).match(mark)

    def _expanded(
        self, transaction: Transaction, request: FactRequest, now: datetime
    ) -> list[Target]:
        """What a target that no credential carries means in targets that they do."""
        target = request.target
        if target.kind is TargetKind.NODE:
            return self._instances_on(transaction, request, now)
        if target.kind not in EXPANDED:
            return []
        column = manifests.c.signer if target.kind is TargetKind.SIGNER else manifests.c.owner
        rows = transaction.execute(
            select(manifests.c.digest, manifests.c.signer, manifests.c.owner).where(
                column == target.value
            )
        ).all()
        if request.kind is FactKind.RESTORED:
            return [
                Target(TargetKind.MANIFEST, row.digest)
                for row in rows
                if self._is_lifted(transaction, row, target)
            ]
        found = [Target(TargetKind.MANIFEST, row.digest) for row in rows]
        if request.kind is FactKind.REVOKED:
            return found
        # A suspension that is there already stays the one that has to be ended.
        return [each for each in found if self.facts.match([str(each)]) is None]

    def _instances_on(
        self, transaction: Transaction, request: FactRequest, now: datetime
    ) -> list[Target]:
        """The instances that a fact about their node is about, as far as something of them lives.

        What has nothing left gets nothing new either: whoever asks for it is asked for the node.
        """
        if request.kind is FactKind.RESTORED:
            # Suspended through the node, not by themselves: they have one moment in common.
            suspension = self.facts.match([str(request.target)])
            at = now if suspension is None else suspension.at
            with_it = select(facts.c.target).where(
                facts.c.at == at, facts.c.kind == FactKind.SUSPENDED.value
            )
            found = set(transaction.execute(with_it).scalars())
            all_on_it = select(instances.c.id).where(instances.c.node == request.target.value)
            return [
                Target(TargetKind.INSTANCE, each)
                for each in transaction.execute(all_on_it).scalars()
                if f"instance:{each}" in found
                and (known := self.standing(transaction, Target(TargetKind.INSTANCE, each)))
                and known.kind is FactKind.SUSPENDED
            ]
        return [
            Target(TargetKind.INSTANCE, each)
            for each in living_on(transaction, request.target.value, self.living_since(now))
            # A suspension that is there already stays the one that has to be ended.
            if (known := self.facts.match([f"instance:{each}"])) is None
            or (known.kind is FactKind.SUSPENDED and request.kind is FactKind.REVOKED)
        ]

    def _is_lifted(self, transaction: Transaction, manifest: Row[Any], restored: Target) -> bool:
        """Whether a manifest is valid again once this signer or owner is restored."""
        above = [f"signer:{manifest.signer}", f"owner:{manifest.owner}"]
        known = self.facts.match([f"manifest:{manifest.digest}"])
        if known is None or self.facts.match(m for m in above if m != str(restored)) is not None:
            return False
        # Suspended through signer or owner, not by itself: they have one moment in common.
        return bool(
            transaction.execute(
                select(func.count())
                .select_from(facts)
                .where(
                    facts.c.target.in_(above),
                    facts.c.kind == FactKind.SUSPENDED.value,
                    facts.c.at == known.at,
                )
            ).scalar()
        )

    def _check_not_covered(self, transaction: Transaction, target: Target) -> None:
        """Decide whether a manifest's suspension can be ended by itself.

        Raises:
            Refusal: its signer or owner is suspended or revoked, and that covers it.
        """
        manifest = transaction.execute(
            select(manifests.c.signer, manifests.c.owner).where(manifests.c.digest == target.value)
        ).one()
        above = self.facts.match([f"signer:{manifest.signer}", f"owner:{manifest.owner}"])
        if above is not None:
            raise Refusal(Kind.CONFLICT, f"{above.target} is {above.kind.value}, which covers it")

    def _check_node_stands(self, transaction: Transaction, target: Target) -> None:
        """Decide whether an instance's suspension can be ended by itself.

        Raises:
            Refusal: its node is suspended or revoked, and that covers it.
        """
        node = transaction.execute(
            select(instances.c.node).where(instances.c.id == target.value)
        ).scalar()
        above = None if node is None else self.facts.match([f"node:{node}"])
        if above is not None:
            raise Refusal(Kind.CONFLICT, f"{above.target} is {above.kind.value}, which covers it")

    def _known_until(self, target: Target, now: datetime) -> datetime:
        """Until when the fact of before is told: what it says must not outlive what ended it."""
        known = self.facts.match([str(target)])
        return now if known is None else known.expires_at

    def _last_match(self, transaction: Transaction, target: Target, now: datetime) -> datetime:
        """When nothing is alive any more that this target can match, by what is known of it."""
        lifetimes = self._config.lifetimes
        if target.kind is not TargetKind.AUTHORITY:
            return now + lifetimes.longest_credential + lifetimes.backdate
        # It may live longer than our settings say: certified by a parent, or before they changed.
        # Whoever has its key signs until its certificate ends.
        ends = end_of_authority(transaction, target.value, now) or now
        return max(ends, now + lifetimes.issuing_ca) + lifetimes.longest_credential


def stated_against(source: Connection | Transaction, marks: tuple[str, ...]) -> FactSet:
    """Every fact that was ever stated against one of these marks, as they stand."""
    rows = source.execute(select(facts).where(facts.c.target.in_(marks)).order_by(facts.c.sequence))
    return FactSet(fact_of(row) for row in rows)


def living_on(transaction: Transaction, node: str, now: datetime) -> list[str]:
    """The ids of a node's instances of which anything lives, in order."""
    alive = (
        select(credentials.c.number)
        .where(credentials.c.instance == instances.c.id, credentials.c.expires_at > now)
        .exists()
    )
    query = select(instances.c.id).where(instances.c.node == node, alive).order_by(instances.c.id)
    return list(transaction.execute(query).scalars())


def _matters(fact: RevocationFact, now: datetime) -> bool:
    return fact.expires_at > now or fact.target.kind in LASTING


def _check_own(transaction: Transaction, suspension: RevocationFact, actor: str) -> None:
    """Decide whether a suspension is the actor's own.

    Raises:
        Refusal: somebody else stated it.
    """
    stated_by = transaction.execute(
        select(facts.c.actor).where(facts.c.sequence == suspension.sequence)
    ).scalar()
    if stated_by != actor:
        raise Refusal(
            Kind.FORBIDDEN,
            f"{suspension.target} was suspended by {stated_by}: to end that takes a role over all",
        )


def _last_end(transaction: Transaction) -> datetime | None:
    """When the last credential ends: one issued before its lifetime was lowered outlives it."""
    ends = [
        transaction.execute(
            select(func.max(credentials.c.expires_at)).where(credentials.c.kind == kind)
        ).scalar()
        for kind in ("x509", "jwt", "wit", "task")  # each a look-up in the index, never a scan
    ]
    return max((end for end in ends if end is not None), default=None)


def _write_fact(transaction: Transaction, fact: RevocationFact, actor: str) -> None:
    log_index = transaction.record(
        Record(
            kind=RecordKind.FACT_STATED,
            at=fact.at,
            actor=actor,
            subject=str(fact.target),
            details={
                "sequence": fact.sequence,
                "fact": fact.kind.value,
                "reason": fact.reason,
                "expires_at": written_moment(fact.expires_at),
            },
        )
    )
    transaction.execute(
        insert(facts).values(
            sequence=fact.sequence,
            target=str(fact.target),
            kind=fact.kind.value,
            at=fact.at,
            expires_at=fact.expires_at,
            actor=actor,
            reason=fact.reason,
            log_index=log_index,
        )
    )


_EXISTS: dict[TargetKind, Callable[[str], tuple[Any, ColumnElement[bool]]]] = {
    TargetKind.NAMESPACE: lambda v: (manifests, manifests.c.namespace == v),
    TargetKind.AGENT: lambda v: (manifests, manifests.c.agent == v),
    TargetKind.MANIFEST: lambda v: (manifests, manifests.c.digest == v),
    TargetKind.SIGNER: lambda v: (models.signers, models.signers.c.name == v),
    TargetKind.OWNER: lambda v: (manifests, manifests.c.owner == v),
    TargetKind.INSTANCE: lambda v: (credentials, credentials.c.instance == v),
    TargetKind.TASK: lambda v: (models.tasks, models.tasks.c.id == v),
    TargetKind.SERIAL: lambda v: (
        credentials,
        and_(credentials.c.id == v, credentials.c.kind == "x509"),
    ),
    TargetKind.JTI: lambda v: (
        credentials,
        and_(credentials.c.id == v, credentials.c.kind.in_(("jwt", "wit", "task"))),
    ),
    TargetKind.ADMIN: lambda v: (models.admins, models.admins.c.name == v),
    TargetKind.NODE: lambda v: (models.nodes, models.nodes.c.name == v),
}


def _exists(transaction: Transaction, target: Target, now: datetime) -> bool:
    if target.kind is TargetKind.AUTHORITY:
        return end_of_authority(transaction, target.value, now) is not None
    find = _EXISTS.get(target.kind)
    if find is None:
        return False
    table, condition = find(target.value)
    count = transaction.execute(select(func.count()).select_from(table).where(condition)).scalar()
    return bool(count)


def fact_of(row: Row[Any]) -> RevocationFact:
    """A fact as it stands in its table."""
    return RevocationFact(
        sequence=row.sequence,
        target=Target.parse(row.target),
        kind=FactKind(row.kind),
        at=row.at,
        expires_at=row.expires_at,
        reason=row.reason,
    )

"""Stating facts: one transaction writes the fact, its record, and every projection's new state.

Order: does the target exist and may this kind be said of it, and what does it mean in targets that
credentials carry (``expansion``) → write facts, CRL entries (``projection``) and CRLs (``crls``)
with the log record → commit → put the facts into force for the issuer's own decisions and tell the
feed, before any other write is looked at.
"""

from collections.abc import Callable, Iterable
from datetime import datetime

from sqlalchemy import Connection, func, select

from accredit_credentials.revocation import (
    MAX_REASON_LENGTH,
    FactKind,
    FactSet,
    RevocationFact,
    Target,
    TargetKind,
)
from accredit_issuer.authority.authorities import Authorities
from accredit_issuer.clock import Clock
from accredit_issuer.issuance.decision import check_text
from accredit_issuer.registry.changes import Changes
from accredit_issuer.revocation.crls import Crls
from accredit_issuer.revocation.expansion import Standing, targets_of
from accredit_issuer.revocation.feed import Feed
from accredit_issuer.revocation.known_authorities import end_of_authority
from accredit_issuer.revocation.projection import Change, project
from accredit_issuer.revocation.stated import (
    FactRequest,
    StatedFact,
    fact_of,
    standing_about,
    write_fact,
)
from accredit_issuer.settings import Config
from accredit_issuer.store.models import credentials, facts
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
            write_fact(transaction, fact, request.actor.name)
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
        standing = Standing(transaction, self.facts, now, self.living_since(now))
        return targets_of(request, standing)

    def standing(self, transaction: Transaction, target: Target) -> RevocationFact | None:
        """The fact that stands about a target, also one that left the memory."""
        return standing_about(transaction, self.facts, target)

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


def _matters(fact: RevocationFact, now: datetime) -> bool:
    return fact.expires_at > now or fact.target.kind in LASTING


def _last_end(transaction: Transaction) -> datetime | None:
    """When the last credential ends: one issued before its lifetime was lowered outlives it."""
    ends = [
        transaction.execute(
            select(func.max(credentials.c.expires_at)).where(credentials.c.kind == kind)
        ).scalar()
        for kind in ("x509", "jwt", "wit", "task")  # each a look-up in the index, never a scan
    ]
    return max((end for end in ends if end is not None), default=None)

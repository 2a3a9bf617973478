"""The issuer at one look, for whoever is woken: what is in force, who has not heard, what is to do.

Reads what the parts know and a few rows of the database; decides only what somebody has to do. What
the issuer does by itself within minutes is nothing to do, until it has not been done for longer.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from accredit_credentials.revocation import FactKind, TargetKind
from accredit_issuer.authority import overview
from accredit_issuer.authority.lifecycle import AuthorityKind, Due, Standing, State, Step, active_of
from accredit_issuer.authority.planning import rules_of, wanted_kinds
from accredit_issuer.issuer import Issuer
from accredit_issuer.revocation.confirmations import Listeners, Position
from accredit_issuer.revocation.crls import Crls

LATE = timedelta(minutes=10)  # what the scheduler does is done within five
CRL_LATE = 0.75  # of its life: the next one is due at half of it
STILL = 60.0  # seconds: our verifiers acknowledge every 20
BEHIND = 5.0  # seconds that a verifier may take to confirm a fact
ENDS_SOON = timedelta(days=30)  # of what somebody else has to replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Crl:
    """A CRL as it is published now."""

    authority: str
    number: int
    this_update: datetime
    next_update: datetime
    entries: int
    size: int

    def is_late(self, now: datetime) -> bool:
        """Whether the next one should be there by now."""
        return now >= self.this_update + (self.next_update - self.this_update) * CRL_LATE


@dataclass(frozen=True, slots=True)
class Duty:
    """Something that somebody has to do."""

    text: str
    urgent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FactCount:
    """How many facts are in force about one kind of target."""

    target: TargetKind
    revoked: int
    suspended: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One look.

    Attributes:
        authorities: all that were not removed, as ``overview`` shows them.
        streams: of the feed that are open, counted ones and others.
        to_do: the urgent first.
    """

    at: datetime
    facts: tuple[FactCount, ...]
    through: int
    streams: int
    listeners: Listeners
    crls: tuple[Crl, ...]
    authorities: list[dict[str, Any]]
    to_do: tuple[Duty, ...]


def look(issuer: Issuer) -> Status:
    """Look at everything once."""
    now = issuer.clock()
    published = _published(issuer)
    with issuer.database.read() as connection:
        known = [each for each in overview.read(connection) if each.state is not State.REMOVED]
    listeners = issuer.feed.audience.listeners()
    due_before = issuer.authorities.due(now - LATE)
    duties = [
        *_about_service(issuer, now),
        *_about_authorities(known, wanted_kinds(issuer.config), now),
        *_about_steps([step for step in issuer.authorities.due(now) if step in due_before]),
        *_about_crls(published, issuer.revocation.crls, now),
        *_about_verifiers(listeners),
        *_about_streams(issuer, now),
    ]
    return Status(
        at=now,
        facts=_count_facts(issuer),
        through=issuer.feed.through,
        streams=issuer.feed.listeners,
        listeners=listeners,
        crls=published,
        authorities=overview.view(known, known, rules_of(issuer.config), now),
        to_do=tuple(sorted(duties, key=lambda each: not each.urgent)),
    )


def _count_facts(issuer: Issuer) -> tuple[FactCount, ...]:
    counted = Counter((fact.target.kind, fact.kind) for fact in issuer.revocation.facts)
    return tuple(
        FactCount(
            target=target,
            revoked=counted[target, FactKind.REVOKED],
            suspended=counted[target, FactKind.SUSPENDED],
        )
        for target in sorted({target for target, _ in counted})
    )


def _published(issuer: Issuer) -> tuple[Crl, ...]:
    """The CRLs of authorities that were not removed, the newest first."""
    found = [
        Crl(
            authority=each.authority,
            number=each.times.number,
            this_update=each.times.this_update,
            next_update=each.times.next_update,
            entries=len(each.entries),
            size=len(each.der),
        )
        for each in issuer.revocation.crls.current
    ]
    return tuple(sorted(found, key=lambda each: each.this_update, reverse=True))


def _about_service(issuer: Issuer, now: datetime) -> Iterator[Duty]:
    if (why := issuer.guarded_clock.why_wrong(now)) is not None:
        yield Duty(f"nothing is signed: {why}", urgent=True)
    if issuer.authorities.trouble:
        yield Duty("the parent issuer is not to be had: the issuer's log says why")
    if overdue := issuer.polling.overdue(now):
        yield Duty(
            f"{overdue} federated trust domains were not heard for too long: "
            "accredit federation list shows which"
        )


def _about_authorities(
    known: Sequence[Standing], wanted: Sequence[AuthorityKind], now: datetime
) -> Iterator[Duty]:
    for kind in wanted:
        active = active_of(known, kind, now)
        if active is None:
            yield Duty(f"no {kind.value} authority signs: accredit authority show", urgent=True)
        elif active.origin.value == "files" and active.expires_at - now < ENDS_SOON:
            yield Duty(
                f"the CA {active.id[:12]} from files ends at {active.expires_at:%Y-%m-%d %H:%M} "
                "UTC: put another one in its place, and restart"
            )


def _about_steps(late: Sequence[Due]) -> Iterator[Duty]:
    for due in late:
        which = "" if due.id is None else f" {due.id[:12]}"
        yield Duty(
            f"{due.step.value} {due.kind.value}{which} has been due for {_minutes(LATE)} minutes: "
            "the issuer's log says what keeps it",
            urgent=due.step is Step.PREPARE,
        )


def _about_crls(published: Sequence[Crl], held: Crls, now: datetime) -> Iterator[Duty]:
    for authority in sorted(held.unsigned):
        yield Duty(
            f"the key of {authority[:12]} does not answer: its CRL lacks what was revoked since",
            urgent=True,
        )
    for crl in published:
        if now >= crl.next_update:
            yield Duty(
                f"the CRL of {crl.authority[:12]} is over: whoever goes by it refuses all, or none",
                urgent=True,
            )
        elif crl.is_late(now):
            yield Duty(f"the next CRL of {crl.authority[:12]} is late: the issuer's log says why")
    have = {crl.authority for crl in published}
    for authority in held.publishing:
        if authority not in have:
            yield Duty(f"the CA {authority[:12]} has no CRL", urgent=True)


def _about_verifiers(listeners: Listeners) -> Iterator[Duty]:
    still = [each for each in listeners.named if is_still(each)]
    if still:
        yield Duty(
            f"{len(still)} verifiers listen and do not confirm, {still[0].verifier.spiffe_id} "
            "for one: a machine asleep, or a process that hangs"
        )


def _about_streams(issuer: Issuer, now: datetime) -> Iterator[Duty]:
    for standing in map(issuer.streams.standing, issuer.streams.all()):
        if standing.behind(now) and standing.oldest is not None:
            why = f": {standing.failure}" if standing.failure else ""
            yield Duty(
                f"the stream {standing.stream.name} is behind, with {standing.waiting} waiting "
                f"since {standing.oldest:%Y-%m-%d %H:%M} UTC{why}"
            )


def is_still(position: Position) -> bool:
    """Whether a verifier that listens does not go on."""
    behind = position.behind is None or position.behind > BEHIND
    return not position.gone and (behind or position.silent > STILL)


def _minutes(duration: timedelta) -> int:
    return int(duration.total_seconds() // 60)

"""The CRLs of this issuer: held in memory, signed within the transaction that changes them.

A CRL is signed on the writing thread, in the transaction of the fact that asks for it or of the
schedule; readers get it once that is durable, and what is rolled back was never here. At the start
each is made again from its rows; one whose signature is not over them is replaced by the next, with
whatever the facts in force say and no row has.

A key that does not answer keeps no fact from coming into force: its rows are written, and the CRL
is signed by the next fact or run of the schedule at which the key is back. Until then the CRL of
before is served, and the feed has the fact.

An entry leaves on a scheduled CRL, after another scheduled one has carried it that was made when
its certificate had ended (RFC 5280 §3.3). The end of a suspension takes it off at once.

CRLs are of issuing CAs, and of roots of our own for the issuing CAs below them. The last one of an
authority that was removed is served until it is over.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from sqlalchemy import Connection, delete, select

from accredit_credentials.leaf_der import IssuingCa
from accredit_credentials.revocation import FactSet
from accredit_issuer.authority.authorities import Authorities
from accredit_issuer.authority.lifecycle import AuthorityKind, Origin
from accredit_issuer.authority.snapshot import Authority
from accredit_issuer.clock import Clock
from accredit_issuer.errors import Unavailable
from accredit_issuer.revocation.crl import Crl, Entries, next_times, sign_crl
from accredit_issuer.revocation.kept_crls import keep, read_crls
from accredit_issuer.revocation.projection import Change, drop, entries_in, put_on, unlisted
from accredit_issuer.settings import Config
from accredit_issuer.store.models import crls, revoked_certificates
from accredit_issuer.store.writer import Transaction

_log = structlog.get_logger("accredit.crls")


@dataclass(frozen=True, slots=True)
class _Attempt:
    """CRLs that were signed, and the ids of those whose key did not answer."""

    made: list[Crl] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)

    @contextmanager
    def at(self, authority: str) -> Iterator[None]:
        """Go on where this one cannot be signed."""
        try:
            yield
        except Unavailable as error:
            self.failed.add(authority)
            _log.error("a CRL cannot be signed", authority=authority, reason=str(error))


class Crls:
    """The newest CRL of each authority. Reading is for any thread.

    ``at_most`` tells a moment that has certainly come, also by a clock that is ahead.
    """

    def __init__(self, config: Config, authorities: Authorities, at_most: Clock) -> None:
        self._config = config
        self._authorities = authorities
        self._at_most = at_most
        self._held: Mapping[str, Crl] = {}
        self._spent: dict[str, int] = {}  # numbers of CRLs that could not be made again
        self._unsigned: frozenset[str] = frozenset()  # whose key did not answer when rows changed

    def load(self, connection: Connection) -> None:
        """Make again what the database keeps; the authorities are loaded."""
        held: dict[str, Crl] = {}
        try:
            for kept in read_crls(connection):
                if kept.crl is not None:
                    held[kept.crl.authority] = kept.crl
                else:
                    self._spent[kept.row.authority] = kept.row.number
                    _log.warning(
                        "a CRL is not what was signed",
                        authority=kept.row.authority,
                        number=kept.row.number,
                        reason=kept.problem,
                    )
        except (ValueError, TypeError) as error:
            # Number and moments of one are none: as if nothing were known of any.
            _log.warning("the CRLs cannot be read", reason=repr(error))
        self._held = held

    def of(self, authority: str) -> Crl | None:
        """The newest CRL of an authority, by its key id; None where there is none."""
        return self._held.get(authority)

    @property
    def current(self) -> tuple[Crl, ...]:
        """Those of all authorities that were not removed, in the order of their ids."""
        held = self._held
        ids = sorted(authority.id for authority in self._authorities.now_in_force.authorities)
        return tuple(held[each] for each in ids if each in held)

    @property
    def is_one_missing(self) -> bool:
        """Whether an authority that should publish a CRL has none."""
        held = self._held
        return any(each not in held for each in self.publishing)

    @property
    def unsigned(self) -> frozenset[str]:
        """The CAs whose CRL lacks what facts say, because their key did not answer."""
        return self._unsigned

    @property
    def publishing(self) -> tuple[str, ...]:
        """The ids of the authorities that publish a CRL."""
        return tuple(authority.id for authority in self._publishers())

    def write_changed(
        self,
        transaction: Transaction,
        changes: Sequence[Change],
        facts: FactSet,
        now: datetime,
    ) -> None:
        """Sign the CRLs that these changes are of; ``facts`` are those in force before."""
        changed = {change.authority for change in changes}
        attempt = _Attempt()
        for authority in self._publishers():
            if authority.id not in changed:
                continue
            before = self._held.get(authority.id)
            with attempt.at(authority.id):
                if before is None or authority.id in self._unsigned:
                    attempt.made.append(self._scheduled(transaction, authority, facts, now))
                    continue
                entries = _changed(before, changes)
                if entries is not before.entries:
                    begun = before.scheduled_at
                    attempt.made.append(self._write(transaction, authority, entries, now, begun))
        self._publish_after(transaction, attempt, ())

    def write_due(self, transaction: Transaction, facts: FactSet, now: datetime) -> int:
        """Sign the CRLs that are missing, unsigned or past half of their life; returns how many."""
        attempt = _Attempt()
        for authority in self._publishers():
            if self._is_due(authority.id, now):
                with attempt.at(authority.id):
                    attempt.made.append(self._scheduled(transaction, authority, facts, now))
        self._publish_after(transaction, attempt, self._forget_over(transaction, now))
        return len(attempt.made)

    def _publishers(self) -> list[Authority]:
        snapshot = self._authorities.now_in_force
        roots = [
            root
            for root in snapshot.published(AuthorityKind.ROOT)
            if root.standing.origin is Origin.OWN
        ]
        return [*snapshot.published(AuthorityKind.X509), *roots]

    def _is_due(self, authority: str, now: datetime) -> bool:
        if authority in self._unsigned:
            return True
        crl = self._held.get(authority)
        if crl is None or crl.times.this_update > now:
            return True  # by a clock that was ahead: nobody believes it before it begins
        return now >= crl.scheduled_at + self._config.crl_lifetime / 2

    def _scheduled(
        self, transaction: Transaction, authority: Authority, facts: FactSet, now: datetime
    ) -> Crl:
        before = self._held.get(authority.id)
        dropped: list[Change] = []
        # What ended before a moment to come may live.
        if before is not None and before.scheduled_at <= now:
            ahead = now - min(now, self._at_most())
            dropped = drop(transaction, authority.id, before.scheduled_at - ahead)
        if before is not None and authority.id not in self._unsigned:
            entries = _changed(before, dropped)
        else:
            for fact, serial, ends in unlisted(transaction, facts, authority.id, now):
                put_on(transaction, fact, serial, authority.id, ends)
            entries = Entries().changed(entries_in(transaction, authority.id))
        return self._write(transaction, authority, entries, now, None)

    def _write(
        self,
        transaction: Transaction,
        authority: Authority,
        entries: Entries,
        now: datetime,
        scheduled_at: datetime | None,
    ) -> Crl:
        if authority.certificate is None:
            raise Unavailable(f"the authority {authority.id[:16]} has no certificate")
        times = next_times(
            self._last_number(transaction, authority.id), now, self._config.crl_lifetime
        )
        crl = sign_crl(
            IssuingCa(authority.certificate),
            authority.signing_key,
            entries,
            times,
            scheduled_at=scheduled_at or times.this_update,
        )
        keep(transaction, crl)
        return crl

    def _last_number(self, transaction: Transaction, authority: str) -> int:
        kept = transaction.execute(
            select(crls.c.number).where(crls.c.authority == authority)
        ).scalar()
        held = self._held.get(authority)
        return max(kept or 0, held.times.number if held else 0, self._spent.get(authority, 0))

    def _forget_over(self, transaction: Transaction, now: datetime) -> list[str]:
        """Delete what is kept of removed authorities whose last CRL is over."""
        gone = transaction.execute(
            delete(crls)
            .where(crls.c.authority.not_in(self.publishing), crls.c.next_update <= now)
            .returning(crls.c.authority)
        )
        over = list(gone.scalars())
        if over:
            transaction.execute(
                delete(revoked_certificates).where(revoked_certificates.c.authority.in_(over))
            )
        return over

    def _publish_after(
        self, transaction: Transaction, attempt: _Attempt, over: Sequence[str]
    ) -> None:
        def publish() -> None:
            made = {crl.authority: crl for crl in attempt.made}
            held = {**self._held, **made}
            self._held = {each: crl for each, crl in held.items() if each not in over}
            self._unsigned = (self._unsigned - made.keys()) | attempt.failed

        if attempt.made or attempt.failed or over:
            transaction.after_commit(publish)


def _changed(before: Crl, changes: Iterable[Change]) -> Entries:
    return before.entries.changed(
        (each.serial, each.entry) for each in changes if each.authority == before.authority
    )

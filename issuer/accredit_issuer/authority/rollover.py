"""What operators do with authorities: prepare, activate, taint, revoke.

Whether a step is allowed is decided in ``permitted``, how it is carried out in ``authorities``.
Here the revocation facts come to it: they are durable in the same moment as the removal, and in
force before any other write is looked at.
"""

from typing import Any

from accredit_credentials.revocation import (
    MAX_REASON_LENGTH,
    FactKind,
    Target,
    TargetKind,
)
from accredit_issuer.authority import overview
from accredit_issuer.authority.authorities import Authorities
from accredit_issuer.authority.lifecycle import AuthorityKind, Standing
from accredit_issuer.authority.permitted import needs_fact
from accredit_issuer.authority.planning import Rules
from accredit_issuer.authority.subordinates import living_below
from accredit_issuer.clock import Clock
from accredit_issuer.issuance.decision import check_text
from accredit_issuer.registry.changes import Actor, Changes
from accredit_issuer.revocation.revocation import Revocation
from accredit_issuer.revocation.stated import FactRequest
from accredit_issuer.store.database import Database
from accredit_issuer.store.writer import Transaction


class Rollover:
    """The steps of operators. Each returns what it changed, as JSON.

    They are dated by the guarded clock, or not taken; looking is always possible.
    """

    def __init__(
        self,
        *,
        authorities: Authorities,
        revocation: Revocation,
        changes: Changes,
        database: Database,
        rules: Rules,
        clock: Clock,
        guarded_clock: Clock,
    ) -> None:
        self._authorities = authorities
        self._revocation = revocation
        self._changes = changes
        self._database = database
        self._rules = rules
        self._clock = clock
        self._guarded_clock = guarded_clock

    def prepare(self, kind: AuthorityKind, *, by: Actor) -> list[dict[str, Any]]:
        """Make another authority and publish it.

        Raises:
            Refusal: one of this kind is prepared already.
            Unavailable: it could not be recorded, or the clock is wrong.
        """
        return self._shown(
            self._authorities.prepare(kind, self._changes, self._guarded_clock(), by)
        )

    def activate(self, wanted: str, *, early: bool, by: Actor) -> list[dict[str, Any]]:
        """Let a prepared authority sign in place of the one that does.

        Raises:
            Refusal: not prepared, or not published for long enough and not ``early``.
            Unavailable: it could not be recorded, or the clock is wrong.
        """
        now = self._guarded_clock()
        return self._shown(self._authorities.activate(wanted, self._changes, now, by, early=early))

    def taint(self, wanted: str, reason: str, *, by: Actor) -> list[dict[str, Any]]:
        """Have everybody renew who holds something that it signed.

        Raises:
            Refusal: it is active, or tainted or removed already.
            Unavailable: it could not be recorded, or the clock is wrong.
        """
        check_text("reason", reason, MAX_REASON_LENGTH)
        now = self._guarded_clock()
        return self._shown(self._authorities.taint(wanted, reason, self._changes, now, by))

    def revoke(self, wanted: str, reason: str, *, by: Actor) -> list[dict[str, Any]]:
        """Remove an authority now; what it signed is refused from now on.

        Raises:
            Refusal: it is active, or removed already.
            Unavailable: it could not be recorded, or the clock is wrong.
        """
        check_text("reason", reason, MAX_REASON_LENGTH)
        now = self._guarded_clock()

        def state_facts(transaction: Transaction, gone: tuple[Standing, ...]) -> None:
            told = [
                Target(TargetKind.AUTHORITY, each.id)
                for each in gone
                if needs_fact(each, self._rules, now) and not self._is_told(each.id)
            ]
            # What a subordinate has of a root that goes is not valid any more either.
            told += [
                Target(TargetKind.AUTHORITY, key_id)
                for key_id in living_below(transaction, [each.id for each in gone], now)
                if not self._is_told(key_id)
            ]
            if told:
                request = FactRequest(
                    target=told[0], kind=FactKind.REVOKED, reason=reason, actor=by
                )
                self._revocation.state_within(transaction, request, now, also=told[1:])

        return self._shown(
            self._authorities.revoke(wanted, reason, self._changes, now, by, beside=state_facts)
        )

    def overview(self) -> list[dict[str, Any]]:
        """All authorities, as JSON, each with how many unexpired credentials rest on it."""
        now = self._clock()
        with self._database.read() as connection:
            known = overview.read(connection)
            resting = overview.resting(connection, known, now)
        shown = overview.view(known, known, self._rules, now)
        return [{**each, "resting": resting[each["id"]]} for each in shown]

    def _is_told(self, key_id: str) -> bool:
        fact = self._revocation.facts.match((f"authority:{key_id}",))
        return fact is not None and fact.kind is FactKind.REVOKED

    def _shown(self, changed: tuple[Standing, ...]) -> list[dict[str, Any]]:
        ids = {standing.id for standing in changed}
        return [each for each in self.overview() if each["id"] in ids]

"""The authorities in force: taking the steps that are due or that an operator wants, and signing.

``Authorities`` holds one immutable ``Snapshot``; requests read it, ``advance`` and the steps of
operators replace it. Each step writes the authorities' rows, the bundle's new sequence number and
the records in one transaction, and only then is the snapshot replaced. One step at a time; a
parent is asked between two of them, so that nobody waits for its answer but who wants it. What a
step makes of a snapshot is said in ``steps``, what is new in ``preparation``.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection

from accredit_credentials.leaf_der import SignedLeaf
from accredit_credentials.leaf_signing import sign_leaf
from accredit_credentials.x509_template import CaTemplate
from accredit_issuer.authority.lifecycle import (
    AuthorityKind,
    Due,
    Origin,
    Standing,
    State,
    Step,
    due,
    follow,
    next_due,
)
from accredit_issuer.authority.loading import load_authorities
from accredit_issuer.authority.parent import ParentUnavailable
from accredit_issuer.authority.permitted import (
    check_activate,
    check_prepare,
    check_revoke,
    check_taint,
)
from accredit_issuer.authority.planning import rules_of, wanted_kinds
from accredit_issuer.authority.preparation import Asked, Preparation
from accredit_issuer.authority.profile import CheckedLeaf
from accredit_issuer.authority.rows import sequence_of, write
from accredit_issuer.authority.snapshot import Authority, IsRevoked, Snapshot
from accredit_issuer.authority.spent_keys import delete_key, sweep
from accredit_issuer.authority.steps import Taken, activated, distrusted, moved
from accredit_issuer.authority.upstream import OwnRoot, RootCa, Upstream
from accredit_issuer.errors import IssuerError, Refusal, Unavailable
from accredit_issuer.keys.key_manager import KeyManager
from accredit_issuer.registry.changes import Actor, Changes
from accredit_issuer.settings import Config
from accredit_issuer.store.writer import Transaction

RETRY = timedelta(seconds=30)  # until a parent that was not to be had is asked again
MAX_ROUNDS = 4  # prepare, activate, remove, nothing: more would mean that a step changes nothing

_log = structlog.get_logger("accredit.authorities")

T = TypeVar("T")
Beside = Callable[[Transaction, tuple[Standing, ...]], None]


class Authorities:
    """The authorities of this issuer."""

    def __init__(self, config: Config, keys: KeyManager, upstream: Upstream | None = None) -> None:
        self._config = config
        self._keys = keys
        self._upstream = upstream or OwnRoot(config)
        self._rules = rules_of(config)
        self._wanted = wanted_kinds(config)
        self._preparation = Preparation(self._rules, keys, self._upstream)
        self._snapshot: Snapshot | None = None
        self.trouble: str | None = None
        """Why the parent could not be asked the last time; None where it could."""
        # The scheduler and any number of operators take steps, each from what it saw.
        self._stepping = threading.RLock()
        self._asking = threading.Lock()  # taken before ``_stepping``, never within it
        self._unrecorded = set[str]()  # keys that were made, and whose record failed
        self._listeners: list[Callable[[], None]] = []
        self._is_revoked: IsRevoked = lambda _: False

    @property
    def now_in_force(self) -> Snapshot:
        """The newest snapshot."""
        if self._snapshot is None:
            raise Unavailable("the authorities are not loaded yet")
        return self._snapshot

    def heed(self, is_revoked: IsRevoked) -> None:
        """Replace authorities, by their id, that this says are revoked."""
        self._is_revoked = is_revoked

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call this whenever the snapshot was replaced."""
        self._listeners.append(listener)

    def load(self, connection: Connection) -> None:
        """Read the authorities that were not removed.

        Raises:
            AuthorityDamaged: the database holds other ones than were made.
            InvalidSettings: the root that is given was in use before, and is not any more.
            KeyMissing: an authority's key is not there.
            Unavailable: nobody can be asked for keys now.
        """
        loaded = load_authorities(connection, self._keys, self._upstream)
        self._replace(loaded, sequence_of(connection))
        sweep(self._keys, connection)

    def advance(self, changes: Changes, now: datetime, by: Actor) -> list[Due]:
        """Take every step that is due; returns what was done.

        Raises:
            Unavailable: a step could not be recorded. What was recorded stays.
        """
        done: list[Due] = []
        trouble: ParentUnavailable | None = None
        # Kind by kind: an issuing CA needs an active root before it can be made.
        for kind in self._rules:
            try:
                done += self._advance_kind(kind, changes, now, by)
            except ParentUnavailable as error:
                trouble = trouble or error
        with self._stepping:
            self._publish_as_it_is(changes, now, by)
            self._note(trouble)
            if trouble is not None and not self._can_issue(now):
                raise trouble
        return done

    def prepare(
        self, kind: AuthorityKind, changes: Changes, now: datetime, by: Actor
    ) -> tuple[Standing, ...]:
        """Prepare another authority because an operator says so; returns what was changed.

        Raises:
            Refusal: one is prepared already.
            Unavailable: it could not be recorded.
        """

        def take(asked: Asked | None = None) -> tuple[Standing, ...]:
            self._check_prepare(kind, now)
            taken = self._preparation.of(kind, self.now_in_force, now, asked)
            return self._record(taken, changes, now, by)

        with self._stepping:
            if not self._is_parents(kind):
                return take()
            self._check_prepare(kind, now)
        with self._asking:
            with self._stepping:
                self._check_prepare(kind, now)
            return self._with_answer(take, now)

    def activate(
        self, wanted: str, changes: Changes, now: datetime, by: Actor, *, early: bool
    ) -> tuple[Standing, ...]:
        """Let a prepared authority sign; what follows from it, an issuing CA below, comes too.

        Raises:
            Refusal: not prepared, or not published for long enough and not ``early``.
            Unavailable: it could not be recorded.
        """
        with self._stepping:
            is_early = check_activate(self.standings(), wanted, self._rules, now, early=early)
            details = {"early": True} if is_early else {}
            taken = activated(self.now_in_force, wanted, now, details)
            changed = self._record(taken, changes, now, by)
        self._advance_kind(AuthorityKind.X509, changes, now, by)
        return changed

    def taint(
        self, wanted: str, reason: str, changes: Changes, now: datetime, by: Actor
    ) -> tuple[Standing, ...]:
        """Have everybody who holds something of this authority renew, and of those below it.

        Raises:
            Refusal: active, or tainted or removed already.
            Unavailable: it could not be recorded.
        """
        with self._stepping:
            check_taint(self.standings(), wanted)
        self._advance_kind(AuthorityKind.X509, changes, now, by)  # none below it may sign on
        with self._stepping:
            tainted = check_taint(self.standings(), wanted)
            taken = distrusted(
                self.now_in_force, Step.TAINT, tainted, now, wanted=wanted, reason=reason
            )
            return self._record(taken, changes, now, by)

    def revoke(
        self,
        wanted: str,
        reason: str,
        changes: Changes,
        now: datetime,
        by: Actor,
        *,
        beside: Beside,
    ) -> tuple[Standing, ...]:
        """Remove an authority before its time, with the issuing CAs below it.

        ``beside`` is called in the same transaction, with those that go, before they are gone.

        Raises:
            Refusal: active, or removed already.
            Unavailable: it could not be recorded.
        """
        with self._stepping:
            check_revoke(self.standings(), wanted)
        self._advance_kind(AuthorityKind.X509, changes, now, by)
        with self._stepping:
            gone = check_revoke(self.standings(), wanted)
            taken = distrusted(
                self.now_in_force, Step.REVOKE, gone, now, wanted=wanted, reason=reason
            )
            return self._record(
                taken,
                changes,
                now,
                by,
                beside=lambda transaction: beside(transaction, gone),
            )

    def standings(self) -> list[Standing]:
        """Where each authority in use stands, facts included."""
        return [
            replace(a.standing, revoked=self._is_revoked(a.id) or self._disowned(a))
            for a in self.now_in_force.authorities
        ]

    def due(self, now: datetime) -> list[Due]:
        """The steps of every kind that are due and not taken."""
        return [step for kind in self._rules for step in self._due(kind, now)]

    def next_due(self, now: datetime) -> datetime:
        """The next moment at which something can be due."""
        standings = self.standings()
        moments = [next_due(standings, kind, rule, now) for kind, rule in self._rules.items()]
        if self._upstream.follows:
            wait = RETRY if self.trouble else timedelta(seconds=self._config.refresh_hint)
            moments.append(now + wait)
        return min(moments)

    def _disowned(self, authority: Authority) -> bool:
        standing = authority.standing
        return (
            standing.kind is AuthorityKind.X509
            and standing.origin is Origin.PARENT
            and self._upstream.disowns(standing.parent, authority.chain, standing.id)
        )

    def sign_leaf(self, checked: CheckedLeaf) -> SignedLeaf:
        """Sign the very bytes that a profile allowed.

        Raises:
            Unavailable: the CA that it was checked for may not sign.
        """
        key = self.x509_key(checked.ca.certificate)
        return sign_leaf(checked.linted, key)

    def issuing_ca(self, key_id: str | None) -> Authority | None:
        """The issuing CA of this issuer with a key id, where it is there and not removed.

        Who names it proves nothing: a key id is text.
        """
        for authority in self.now_in_force.authorities:
            if authority.id == key_id and authority.kind is AuthorityKind.X509:
                return authority
        return None

    def certifying_root(self) -> RootCa:
        """The active root.

        Raises:
            Unavailable: there is none.
        """
        return self.now_in_force.root()

    def sign_subordinate(
        self, template: CaTemplate, root: RootCa, now: datetime
    ) -> x509.Certificate:
        """Certify the issuing CA of another issuer, as it was decided.

        Raises:
            Unavailable: the root's key is not held.
        """
        return self._upstream.sign(template, root, now)

    def x509_key(self, certificate: x509.Certificate) -> ec.EllipticCurvePrivateKey:
        """The private key of an issuing CA.

        Raises:
            Unavailable: no longer held.
        """
        for authority in self.now_in_force.authorities:
            # The same object mostly: to compare certificates is to compare their bytes.
            found = authority.certificate is certificate or authority.certificate == certificate
            if found and authority.key is not None:
                return authority.key
        raise Unavailable("the issuing CA's key is not held any more")

    def jwt_signer(self) -> tuple[ec.EllipticCurvePrivateKey, str]:
        """The active JWT key and its key id.

        Raises:
            Unavailable: there is none.
        """
        authority = self.now_in_force.active(AuthorityKind.JWT)
        return authority.signing_key, authority.id

    def wit_signer(self) -> tuple[ec.EllipticCurvePrivateKey, Standing]:
        """The active WIT key and where it stands; raises as ``jwt_signer``."""
        authority = self.now_in_force.active(AuthorityKind.WIT)
        return authority.signing_key, authority.standing

    def _advance_kind(
        self, kind: AuthorityKind, changes: Changes, now: datetime, by: Actor
    ) -> list[Due]:
        done: list[Due] = []
        for _ in range(MAX_ROUNDS):
            with self._stepping:
                steps = self._due(kind, now)
                if not steps:
                    return done
                if not self._must_ask(steps):
                    done += self._take(steps, changes, now, by)
                    continue
            with self._asking:
                if self._must_ask(self._due(kind, now)):  # nobody else has asked meanwhile
                    done += self._with_answer(
                        lambda asked: self._take(self._due(kind, now), changes, now, by, asked),
                        now,
                    )
        raise IssuerError(f"authorities do not come to rest: {done[-1:]}")

    def _take(
        self,
        steps: Sequence[Due],
        changes: Changes,
        now: datetime,
        by: Actor,
        asked: Asked | None = None,
    ) -> Sequence[Due]:
        for step in steps:
            self._record(self._taken(step, now, asked), changes, now, by)
        return steps

    def _is_parents(self, kind: AuthorityKind) -> bool:
        return self._upstream.follows and kind is AuthorityKind.X509

    def _must_ask(self, steps: Sequence[Due]) -> bool:
        return any(
            each.step is Step.PREPARE and each.id is None and self._is_parents(each.kind)
            for each in steps
        )

    def _with_answer(self, take: Callable[[Asked], T], now: datetime) -> T:
        """Ask the parent, and then take a step with what it certified, or without.

        Raises:
            Refusal: the step is not possible any more.
            Unavailable: the parent cannot be asked, or it could not be recorded.
        """
        asked = self._preparation.ask_parent(now)
        with self._stepping:
            try:
                taken = take(asked)
            except Refusal:
                delete_key(self._keys, asked.made.id)
                raise
            if self.now_in_force.find(asked.made.id) is None:
                delete_key(self._keys, asked.made.id)  # it is not wanted any more
            return taken

    def _check_prepare(self, kind: AuthorityKind, now: datetime) -> None:
        check_prepare(
            self.standings(),
            kind,
            now,
            given=self._given,
            follows=self._upstream.follows,
            wanted_here=kind in self._wanted,
        )

    def _due(self, kind: AuthorityKind, now: datetime) -> list[Due]:
        rule, follows = self._rules[kind], self._upstream.follows
        if kind is AuthorityKind.ROOT and follows:
            return follow(self.standings(), self._upstream.anchors(), rule, now)
        return due(
            self.standings(),
            kind,
            rule,
            now,
            given=self._given,
            certified_elsewhere=follows,
            wanted_here=kind in self._wanted,
        )

    def _can_issue(self, now: datetime) -> bool:
        """Whether an issuing CA is there to go on with, wanted by the parent or not."""
        return any(
            a.kind is AuthorityKind.X509
            and a.state is State.ACTIVE
            and a.standing.can_sign(now)
            and not self._is_revoked(a.id)
            for a in self.now_in_force.authorities
        )

    def _note(self, trouble: ParentUnavailable | None) -> None:
        if trouble is not None:
            if str(trouble) != self.trouble:  # it is asked again and again: said once
                _log.warning("the parent is not to be had", reason=str(trouble))
        elif self.trouble is not None:
            _log.info("the parent is back")
        self.trouble = None if trouble is None else str(trouble)

    def _taken(self, step: Due, now: datetime, asked: Asked | None) -> list[Taken]:
        snapshot = self.now_in_force
        if step.step is Step.PREPARE and step.id is not None:
            anchor = self._upstream.anchors()[step.id]
            return [self._preparation.root_of_parent(step.id, anchor, now)]
        if step.id is None:
            return self._preparation.of(step.kind, snapshot, now, asked)
        if step.step is Step.ACTIVATE:
            return activated(snapshot, step.id, now)
        return [moved(snapshot, step.id, step.step, now)]

    def _record(
        self,
        taken: Sequence[Taken],
        changes: Changes,
        now: datetime,
        by: Actor,
        *,
        beside: Callable[[Transaction], None] | None = None,
    ) -> tuple[Standing, ...]:
        snapshot = self.now_in_force
        sequence = snapshot.sequence + 1
        rows = [each.change() for each in taken]

        def work(transaction: Transaction) -> None:
            if beside is not None:
                beside(transaction)
            write(transaction, rows, sequence=sequence, now=now, actor=by.name)

        try:
            changes.make(work, by=by, alone=True)
        except IssuerError:
            # Not deleted before the database has taken something else: until then what it could
            # not write may yet be there after a crash.
            self._unrecorded |= {each.authority.id for each in taken if each.made_a_key}
            raise
        changed = list({each.authority.id: each.authority for each in taken}.values())
        ids = {authority.id for authority in changed}
        kept = [a for a in snapshot.authorities if a.id not in ids]
        kept += [a for a in changed if a.state is not State.REMOVED]
        self._replace(kept, sequence)
        for authority in changed:
            if authority.state is State.REMOVED:
                delete_key(self._keys, authority.id)
        while self._unrecorded:
            delete_key(self._keys, self._unrecorded.pop())
        return tuple(authority.standing for authority in changed)

    def _publish_as_it_is(self, changes: Changes, now: datetime, by: Actor) -> None:
        """Count the bundle on where a fact changed it, and no step of an authority did."""
        snapshot = self.now_in_force
        if not snapshot.publishes_by(self._is_revoked):
            sequence = snapshot.sequence + 1
            changes.make(
                lambda t: write(t, (), sequence=sequence, now=now, actor=by.name),
                by=by,
                alone=True,
            )
            self._replace(snapshot.authorities, sequence)

    @property
    def _given(self) -> str | None:
        given = self._upstream.given
        return given.id if given else None

    def _replace(self, authorities: Sequence[Authority], sequence: int) -> None:
        self._snapshot = Snapshot.of(
            authorities, sequence, config=self._config, is_revoked=self._is_revoked
        )
        for listener in self._listeners:
            listener()

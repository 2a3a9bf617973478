"""The authorities in force: who signs now, what the bundle publishes, and taking what is due.

``Authorities`` holds one immutable ``Snapshot``; requests read it, ``advance`` and the steps of
operators replace it. Each step writes the authorities' rows, the bundle's new sequence number and
the records in one transaction, and only then is the snapshot replaced. One step at a time; a parent
is asked between two of them, so that nobody waits for its answer but who wants it.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection, Row, select

from accredit_credentials.bundle import TrustBundle
from accredit_credentials.keys import PublicKey, check_public_key
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
    after,
    due,
    follow,
    next_due,
)
from accredit_issuer.authority.parent import ParentUnavailable
from accredit_issuer.authority.permitted import (
    check_activate,
    check_prepare,
    check_revoke,
    check_taint,
)
from accredit_issuer.authority.planning import rules_of
from accredit_issuer.authority.profile import CheckedLeaf
from accredit_issuer.authority.rows import Change, sequence_of, standing_of, write
from accredit_issuer.authority.stored import Stored, check_certified, check_held
from accredit_issuer.authority.upstream import (
    CertifiedCa,
    IssuingCaRequest,
    OwnRoot,
    RootCa,
    Upstream,
)
from accredit_issuer.errors import InvalidSettings, IssuerError, Refusal, Unavailable
from accredit_issuer.keys.key_manager import KeyManager, ManagedKey
from accredit_issuer.registry.changes import Actor, Changes
from accredit_issuer.settings import Config
from accredit_issuer.store import models
from accredit_issuer.store.writer import Transaction

RETRY = timedelta(seconds=30)  # until a parent that was not to be had is asked again
MAX_ROUNDS = 4  # prepare, activate, remove, nothing: more would mean that a step changes nothing
_GIVEN_STATES = frozenset({State.PREPARED.value, State.ACTIVE.value})
SWEPT = 16  # of those removed last, the keys are looked for once more at the start

_log = structlog.get_logger("accredit.authorities")

T = TypeVar("T")
Beside = Callable[[Transaction, tuple[Standing, ...]], None]


@dataclass(frozen=True, slots=True)
class Authority:
    """A key that signs, with its private part where it still may."""

    standing: Standing
    public: PublicKey = field(repr=False)
    certificate: x509.Certificate | None = field(repr=False)
    key: ec.EllipticCurvePrivateKey | None = field(repr=False)
    chain: tuple[x509.Certificate, ...] = field(default=(), repr=False)
    """Of an issuing CA, what is between it and the trust anchor; of a root, what is above it, the
    anchor last."""

    @property
    def anchor(self) -> x509.Certificate | None:
        """What the bundle publishes of a root."""
        return self.chain[-1] if self.chain else self.certificate

    @property
    def id(self) -> str:
        """The key id in hexadecimal."""
        return self.standing.id

    @property
    def kind(self) -> AuthorityKind:
        """What it signs."""
        return self.standing.kind

    @property
    def state(self) -> State:
        """Where it stands in its life."""
        return self.standing.state


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All authorities in use at one moment, and the bundle that they make."""

    authorities: tuple[Authority, ...]
    sequence: int
    bundle: TrustBundle

    def active(self, kind: AuthorityKind) -> Authority:
        """The one that signs.

        Raises:
            Unavailable: there is none.
        """
        for authority in self.authorities:
            if authority.kind is kind and authority.state is State.ACTIVE:
                return authority
        raise Unavailable(f"no active authority of the kind {kind.value}")

    def published(self, kind: AuthorityKind) -> tuple[Authority, ...]:
        """Those that relying parties have to know."""
        return tuple(a for a in self.authorities if a.kind is kind and a.state is not State.REMOVED)


@dataclass(frozen=True, slots=True)
class _Taken:
    """A step that is about to be recorded: the authority as it leaves it."""

    step: Step
    authority: Authority
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the parent certified, for a key that was made for it."""

    made: ManagedKey
    certified: CertifiedCa = field(repr=False)


class Authorities:
    """The authorities of this issuer."""

    def __init__(self, config: Config, keys: KeyManager, upstream: Upstream | None = None) -> None:
        self._config = config
        self._keys = keys
        self._upstream = upstream or OwnRoot(config)
        self._rules = rules_of(config)
        self._snapshot: Snapshot | None = None
        self.trouble: str | None = None
        """Why the parent could not be asked the last time; None where it could."""
        # The scheduler and any number of operators take steps, each from what it saw.
        self._stepping = threading.RLock()
        self._asking = threading.Lock()  # taken before ``_stepping``, never within it
        self._listeners: list[Callable[[], None]] = []
        self._is_revoked: Callable[[str], bool] = lambda _: False

    @property
    def now_in_force(self) -> Snapshot:
        """The newest snapshot."""
        if self._snapshot is None:
            raise Unavailable("the authorities are not loaded yet")
        return self._snapshot

    def heed(self, is_revoked: Callable[[str], bool]) -> None:
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
        self._check_given(connection)
        rows = connection.execute(
            select(models.authorities).where(models.authorities.c.state != State.REMOVED.value)
        ).all()
        loaded = tuple(map(self._of_row, rows))
        check_certified(map(Stored.of_row, rows), _roots_of(connection))
        self._replace(loaded, sequence_of(connection))
        self._sweep(connection)

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

        def take(asked: _Asked | None = None) -> tuple[Standing, ...]:
            self._check_prepare(kind, now)
            return self._record(self._preparation(kind, now, asked), changes, now, by)

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
            changed = self._record(self._activation(wanted, now, details), changes, now, by)
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
            return self._record(
                self._taken(Step.TAINT, tainted, wanted, reason, now), changes, now, by
            )

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
            return self._record(
                self._taken(Step.REVOKE, gone, wanted, reason, now),
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

    def signed_by_us(self, key_id: str | None) -> bool:
        """Whether a key id is that of an issuing CA of this issuer that is not removed."""
        return any(
            a.id == key_id and a.kind is AuthorityKind.X509 for a in self.now_in_force.authorities
        )

    def certifying_root(self) -> RootCa:
        """The active root.

        Raises:
            Unavailable: there is none.
        """
        return self._root()

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
            if authority.certificate == certificate and authority.key is not None:
                return authority.key
        raise Unavailable("the issuing CA's key is not held any more")

    def jwt_signer(self) -> tuple[ec.EllipticCurvePrivateKey, str]:
        """The active JWT key and its key id.

        Raises:
            Unavailable: there is none.
        """
        authority = self.now_in_force.active(AuthorityKind.JWT)
        if authority.key is None:
            raise Unavailable("the JWT key is not held any more")
        return authority.key, authority.id

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
        asked: _Asked | None = None,
    ) -> Sequence[Due]:
        for step in steps:
            self._record(self._taken_of(step, now, asked), changes, now, by)
        return steps

    def _is_parents(self, kind: AuthorityKind) -> bool:
        return self._upstream.follows and kind is AuthorityKind.X509

    def _must_ask(self, steps: Sequence[Due]) -> bool:
        return any(
            each.step is Step.PREPARE and each.id is None and self._is_parents(each.kind)
            for each in steps
        )

    def _with_answer(self, take: Callable[[_Asked], T], now: datetime) -> T:
        """Ask the parent, and then take a step with what it certified, or without.

        Raises:
            Refusal: the step is not possible any more.
            Unavailable: the parent cannot be asked, or it could not be recorded.
        """
        expires_at = (now + self._rules[AuthorityKind.X509].lifetime).replace(microsecond=0)
        asked = self._asked(None, now, expires_at)
        with self._stepping:
            try:
                taken = take(asked)
            except Refusal:
                self._delete_key(asked.made.id)
                raise
            if self._find(asked.made.id) is None:
                self._delete_key(asked.made.id)  # it is not wanted any more
            return taken

    def _check_prepare(self, kind: AuthorityKind, now: datetime) -> None:
        check_prepare(
            self.standings(), kind, now, given=self._given, follows=self._upstream.follows
        )

    def _due(self, kind: AuthorityKind, now: datetime) -> list[Due]:
        rule, follows = self._rules[kind], self._upstream.follows
        if kind is AuthorityKind.ROOT and follows:
            return follow(self.standings(), self._upstream.anchors(), rule, now)
        return due(
            self.standings(), kind, rule, now, given=self._given, certified_elsewhere=follows
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

    def _taken_of(self, step: Due, now: datetime, asked: _Asked | None) -> list[_Taken]:
        if step.step is Step.PREPARE and step.id is not None:
            anchor = self._upstream.anchors()[step.id]
            return [_Taken(Step.PREPARE, self._of_parent(step.id, anchor, now))]
        if step.id is None:
            return self._preparation(step.kind, now, asked)
        if step.step is Step.ACTIVATE:
            return self._activation(step.id, now)
        return [_Taken(step.step, self._moved(step.id, step.step, now))]

    def _activation(
        self, wanted: str, now: datetime, details: Mapping[str, Any] | None = None
    ) -> list[_Taken]:
        """One begins to sign, and with that the one that did stops."""
        changed = self._moved(wanted, Step.ACTIVATE, now)
        return [
            _Taken(Step.ACTIVATE, changed, details or {}),
            *(
                _Taken(Step.RETIRE, self._moved(a.id, Step.RETIRE, now))
                for a in self.now_in_force.authorities
                if a.kind is changed.kind and a.state is State.ACTIVE
            ),
        ]

    def _taken(
        self, step: Step, standings: Sequence[Standing], wanted: str, reason: str, now: datetime
    ) -> list[_Taken]:
        return [
            _Taken(
                step,
                self._moved(each.id, step, now),
                {"reason": reason} if each.id == wanted else {"reason": reason, "through": wanted},
            )
            for each in standings
        ]

    def _moved(self, wanted: str, step: Step, now: datetime) -> Authority:
        authority = self._find(wanted)
        if authority is None:
            raise IssuerError(f"authority {wanted} is not in use")
        return replace(authority, standing=after(authority.standing, step, now))

    def _find(self, wanted: str) -> Authority | None:
        return next((a for a in self.now_in_force.authorities if a.id == wanted), None)

    def _record(
        self,
        taken: Sequence[_Taken],
        changes: Changes,
        now: datetime,
        by: Actor,
        *,
        beside: Callable[[Transaction], None] | None = None,
    ) -> tuple[Standing, ...]:
        snapshot = self.now_in_force
        sequence = snapshot.sequence + 1
        rows = [
            Change(
                standing=each.authority.standing,
                step=each.step,
                details=each.details,
                public=_public_pem(each.authority) if each.step is Step.PREPARE else None,
                chain=_pem(each.authority.chain),
            )
            for each in taken
        ]

        def work(transaction: Transaction) -> None:
            if beside is not None:
                beside(transaction)
            write(transaction, rows, sequence=sequence, now=now, actor=by.name)

        changes.make(work, by=by, alone=True)
        changed = list({each.authority.id: each.authority for each in taken}.values())
        ids = {authority.id for authority in changed}
        kept = [a for a in snapshot.authorities if a.id not in ids]
        kept += [a for a in changed if a.state is not State.REMOVED]
        self._replace(tuple(kept), sequence)
        for authority in changed:
            if authority.state is State.REMOVED:
                self._delete_key(authority.id)
        return tuple(authority.standing for authority in changed)

    def _delete_key(self, key_id: str) -> None:
        try:
            self._keys.remove(key_id)
        except Unavailable as error:
            # The step stands: nothing signs with the key, and the next start deletes it.
            _log.warning("key not deleted", key=key_id, reason=str(error))

    def _publish_as_it_is(self, changes: Changes, now: datetime, by: Actor) -> None:
        """Count the bundle on where a fact changed it, and no step of an authority did."""
        snapshot = self.now_in_force
        if set(snapshot.bundle.jwt_authorities) != {a.id for a in self._jwt_published(snapshot)}:
            sequence = snapshot.sequence + 1
            changes.make(
                lambda t: write(t, (), sequence=sequence, now=now, actor=by.name),
                by=by,
                alone=True,
            )
            self._replace(snapshot.authorities, sequence)

    def _sweep(self, connection: Connection) -> None:
        """Delete keys whose authority was removed just before the process died."""
        table = models.authorities
        rows = connection.execute(
            select(table.c.id)
            .where(table.c.state == State.REMOVED.value)
            .order_by(table.c.removed_at.desc())
            .limit(SWEPT)
        )
        for row in rows:
            self._delete_key(row.id)

    def _preparation(
        self, kind: AuthorityKind, now: datetime, asked: _Asked | None
    ) -> list[_Taken]:
        expires_at = (now + self._rules[kind].lifetime).replace(microsecond=0)
        match kind:
            case AuthorityKind.ROOT:
                return [_Taken(Step.PREPARE, self._prepare_root(now, expires_at))]
            case AuthorityKind.X509:
                asked = asked or self._asked(self._root(), now, expires_at)
                return self._prepared_issuing_ca(asked, now)
        made = self._keys.generate()
        standing = _prepared(made.id, kind, now, expires_at)
        public = check_public_key(made.private.public_key())
        return [_Taken(Step.PREPARE, Authority(standing, public, None, made.private))]

    def _of_parent(self, key_id: str, anchor: x509.Certificate, now: datetime) -> Authority:
        standing = replace(
            _prepared(key_id, AuthorityKind.ROOT, now, anchor.not_valid_after_utc),
            origin=Origin.PARENT,
        )
        return Authority(standing, check_public_key(anchor.public_key()), anchor, None)

    def _prepare_root(self, now: datetime, expires_at: datetime) -> Authority:
        root = self._upstream.next_root(self._keys, now, expires_at)
        standing = replace(
            _prepared(root.id, AuthorityKind.ROOT, now, root.expires_at),
            origin=self._upstream.origin,
        )
        public = check_public_key(root.certificate.public_key())
        return Authority(standing, public, root.certificate, root.key, root.above)

    def _asked(self, root: RootCa | None, now: datetime, expires_at: datetime) -> _Asked:
        made = self._keys.generate()
        request = IssuingCaRequest(id=made.id, key=made.private, now=now, expires_at=expires_at)
        try:
            return _Asked(made, self._upstream.certify(root, request))
        except Unavailable:
            self._delete_key(made.id)  # another is made when it is tried again
            raise

    def _prepared_issuing_ca(self, asked: _Asked, now: datetime) -> list[_Taken]:
        made, certified = asked.made, asked.certified
        certificate = certified.certificate
        standing = replace(
            _prepared(made.id, AuthorityKind.X509, now, certificate.not_valid_after_utc),
            parent=certified.root,
            origin=Origin.PARENT if self._upstream.follows else Origin.OWN,
        )
        public = check_public_key(made.private.public_key())
        made_ca = Authority(standing, public, certificate, made.private, certified.chain)
        return [*self._parents_choice(certified, now), _Taken(Step.PREPARE, made_ca)]

    def _parents_choice(self, certified: CertifiedCa, now: datetime) -> list[_Taken]:
        """The root that the parent certified with becomes the active one in the same moment."""
        if certified.anchor is None:
            return []
        root = self._find(certified.root)
        if root is not None and root.state is State.ACTIVE:
            return []
        retired = [
            _Taken(Step.RETIRE, self._moved(a.id, Step.RETIRE, now))
            for a in self.now_in_force.authorities
            if a.kind is AuthorityKind.ROOT and a.state is State.ACTIVE
        ]
        if root is not None:
            return [*retired, _Taken(Step.ACTIVATE, self._moved(root.id, Step.ACTIVATE, now))]
        new = self._of_parent(certified.root, certified.anchor, now)
        active = replace(new, standing=after(new.standing, Step.ACTIVATE, now))
        return [*retired, _Taken(Step.PREPARE, new), _Taken(Step.ACTIVATE, active)]

    @property
    def _given(self) -> str | None:
        given = self._upstream.given
        return given.id if given else None

    def _root(self) -> RootCa:
        active = self.now_in_force.active(AuthorityKind.ROOT)
        if active.certificate is None:
            raise Unavailable("the root has no certificate")
        return RootCa(
            id=active.id, certificate=active.certificate, above=active.chain, key=active.key
        )

    def _check_given(self, connection: Connection) -> None:
        """Decide whether the root that is given may be used: a key that was retired is not."""
        given = self._upstream.given
        if given is None:
            return
        row = connection.execute(
            select(models.authorities).where(models.authorities.c.id == given.id)
        ).one_or_none()
        if row is None:
            return
        if row.origin != self._upstream.origin.value or row.state not in _GIVEN_STATES:
            raise InvalidSettings(
                f"upstream.certificate_file: the CA with the key id {given.id} is {row.state} "
                "here already, and no key is used again: give a CA with a new key"
            )
        if row.public + row.chain != _pem((given.certificate, *given.above)):
            raise InvalidSettings(
                f"upstream.certificate_file: the CA with the key id {given.id} is in use here "
                "with other certificates: give a CA with a new key, or those certificates"
            )

    def _of_row(self, row: Row[Any]) -> Authority:
        stored = Stored.of_row(row)
        # Of a root that was given the upstream has the key, for as long as it is given.
        key = None if stored.is_given else self._keys.load(row.id)
        if key is not None:
            check_held(stored, key)
        return Authority(standing_of(row), stored.public, stored.certificate, key, stored.chain)

    def _jwt_published(self, snapshot: Snapshot) -> list[Authority]:
        # Not a revoked one: whoever has it could go on signing with it.
        return [a for a in snapshot.published(AuthorityKind.JWT) if not self._is_revoked(a.id)]

    def _replace(self, authorities: tuple[Authority, ...], sequence: int) -> None:
        # In an order of their own: one sequence number is one document, past a restart too.
        authorities = tuple(sorted(authorities, key=lambda a: (a.standing.prepared_at, a.id)))
        snapshot = Snapshot(authorities, sequence, TrustBundle(self._config.trust_domain))
        roots = snapshot.published(AuthorityKind.ROOT)
        bundle = TrustBundle(
            trust_domain=self._config.trust_domain,
            # Two that were given may have one anchor.
            x509_authorities=tuple(dict.fromkeys(a.anchor for a in roots if a.anchor)),
            jwt_authorities={a.id: a.public for a in self._jwt_published(snapshot)},
            sequence=sequence,
            refresh_hint=self._config.refresh_hint,
            tainted=frozenset(a.id for a in authorities if a.state is State.TAINTED),
        )
        self._snapshot = replace(snapshot, bundle=bundle)
        for listener in self._listeners:
            listener()


def _prepared(key_id: str, kind: AuthorityKind, now: datetime, expires_at: datetime) -> Standing:
    return Standing(
        id=key_id,
        kind=kind,
        state=State.PREPARED,
        prepared_at=now,
        activated_at=None,
        retired_at=None,
        expires_at=expires_at,
    )


def _pem(certificates: Sequence[x509.Certificate]) -> str:
    return "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in certificates)


def _roots_of(connection: Connection) -> dict[str, Stored]:
    """All roots that were ever published: an issuing CA may outlive its root by a moment."""
    table = models.authorities
    rows = connection.execute(select(table).where(table.c.kind == AuthorityKind.ROOT.value))
    return {row.id: Stored.of_row(row) for row in rows}


def _public_pem(authority: Authority) -> str:
    if authority.certificate is not None:
        return _pem([authority.certificate])
    return authority.public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()

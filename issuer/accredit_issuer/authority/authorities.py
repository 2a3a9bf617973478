"""The authorities in force: who signs now, what the bundle publishes, and taking what is due.

``Authorities`` holds one immutable ``Snapshot``; requests read it, ``advance`` and the steps of
operators replace it. Each step writes the authorities' rows, the bundle's new sequence number and
the records in one transaction, and only then is the snapshot replaced. One step at a time.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection, Row, select

from accredit_credentials.bundle import TrustBundle
from accredit_credentials.keys import PublicKey, check_public_key
from accredit_credentials.leaf_der import SignedLeaf
from accredit_credentials.leaf_signing import sign_leaf
from accredit_credentials.x509_template import CaTemplate, ca_builder
from accredit_issuer.authority.lifecycle import (
    AuthorityKind,
    Due,
    Standing,
    State,
    Step,
    after,
    due,
    next_due,
)
from accredit_issuer.authority.permitted import (
    check_activate,
    check_prepare,
    check_revoke,
    check_taint,
)
from accredit_issuer.authority.planning import rules_of
from accredit_issuer.authority.profile import CheckedLeaf, new_serial
from accredit_issuer.authority.rows import Change, sequence_of, standing_of, write
from accredit_issuer.authority.stored import Stored, check_certified, check_held
from accredit_issuer.errors import IssuerError, Unavailable
from accredit_issuer.keys.key_manager import KeyManager
from accredit_issuer.settings import Config
from accredit_issuer.store import models
from accredit_issuer.store.writer import Transaction, Writer

MAX_ROUNDS = 4  # prepare, activate, remove, nothing: more would mean that a step changes nothing
SWEPT = 16  # of those removed last, the keys are looked for once more at the start

_log = structlog.get_logger("accredit.authorities")

Beside = Callable[[Transaction, tuple[Standing, ...]], None]


@dataclass(frozen=True, slots=True)
class Authority:
    """A key that signs, with its private part where it still may."""

    standing: Standing
    public: PublicKey = field(repr=False)
    certificate: x509.Certificate | None = field(repr=False)
    key: ec.EllipticCurvePrivateKey | None = field(repr=False)

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


class Authorities:
    """The authorities of this issuer."""

    def __init__(self, config: Config, keys: KeyManager) -> None:
        self._config = config
        self._keys = keys
        self._rules = rules_of(config)
        self._snapshot: Snapshot | None = None
        # The scheduler and any number of operators take steps, each from what it saw.
        self._stepping = threading.RLock()
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
            KeyMissing: an authority's key is not there.
            Unavailable: nobody can be asked for keys now.
        """
        rows = connection.execute(
            select(models.authorities).where(models.authorities.c.state != State.REMOVED.value)
        ).all()
        loaded = tuple(map(self._of_row, rows))
        check_certified(map(Stored.of_row, rows), _roots_of(connection))
        self._replace(loaded, sequence_of(connection))
        self._sweep(connection)

    def advance(self, writer: Writer, now: datetime, actor: str) -> list[Due]:
        """Take every step that is due; returns what was done.

        Raises:
            Unavailable: a step could not be recorded. What was recorded stays.
        """
        with self._stepping:
            # Kind by kind: an issuing CA needs an active root before it can be made.
            done = [
                step
                for kind in self._rules
                for step in self._advance_kind(kind, writer, now, actor)
            ]
            self._publish_as_it_is(writer, now, actor)
            return done

    def prepare(
        self, kind: AuthorityKind, writer: Writer, now: datetime, actor: str
    ) -> tuple[Standing, ...]:
        """Prepare another authority because an operator says so; returns what was changed.

        Raises:
            Refusal: one is prepared already.
            Unavailable: it could not be recorded.
        """
        with self._stepping:
            check_prepare(self.standings(), kind, now)
            return self._record(
                [_Taken(Step.PREPARE, self._prepare(kind, now))], writer, now, actor
            )

    def activate(
        self, wanted: str, writer: Writer, now: datetime, actor: str, *, early: bool
    ) -> tuple[Standing, ...]:
        """Let a prepared authority sign; what follows from it, an issuing CA below, comes too.

        Raises:
            Refusal: not prepared, or not published for long enough and not ``early``.
            Unavailable: it could not be recorded.
        """
        with self._stepping:
            is_early = check_activate(self.standings(), wanted, self._rules, now, early=early)
            details = {"early": True} if is_early else {}
            changed = self._record(self._activation(wanted, now, details), writer, now, actor)
            self._advance_kind(AuthorityKind.X509, writer, now, actor)
            return changed

    def taint(
        self, wanted: str, reason: str, writer: Writer, now: datetime, actor: str
    ) -> tuple[Standing, ...]:
        """Have everybody who holds something of this authority renew, and of those below it.

        Raises:
            Refusal: active, or tainted or removed already.
            Unavailable: it could not be recorded.
        """
        with self._stepping:
            check_taint(self.standings(), wanted)
            self._advance_kind(AuthorityKind.X509, writer, now, actor)  # none below it may sign on
            tainted = check_taint(self.standings(), wanted)
            return self._record(
                self._taken(Step.TAINT, tainted, wanted, reason, now), writer, now, actor
            )

    def revoke(
        self,
        wanted: str,
        reason: str,
        writer: Writer,
        now: datetime,
        actor: str,
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
            self._advance_kind(AuthorityKind.X509, writer, now, actor)
            gone = check_revoke(self.standings(), wanted)
            return self._record(
                self._taken(Step.REVOKE, gone, wanted, reason, now),
                writer,
                now,
                actor,
                beside=lambda transaction: beside(transaction, gone),
            )

    def standings(self) -> list[Standing]:
        """Where each authority in use stands, facts included."""
        return [
            replace(a.standing, revoked=self._is_revoked(a.id))
            for a in self.now_in_force.authorities
        ]

    def next_due(self, now: datetime) -> datetime:
        """The next moment at which something can be due."""
        standings = self.standings()
        return min(next_due(standings, kind, rule, now) for kind, rule in self._rules.items())

    def sign_leaf(self, checked: CheckedLeaf) -> SignedLeaf:
        """Sign the very bytes that a profile allowed.

        Raises:
            Unavailable: the CA that it was checked for may not sign.
        """
        key = self.x509_key(checked.ca.certificate)
        return sign_leaf(checked.linted, key)

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
        self, kind: AuthorityKind, writer: Writer, now: datetime, actor: str
    ) -> list[Due]:
        done: list[Due] = []
        for _ in range(MAX_ROUNDS):
            steps = due(self.standings(), kind, self._rules[kind], now)
            if not steps:
                return done
            for step in steps:
                self._record(self._taken_of(step, now), writer, now, actor)
            done += steps
        raise IssuerError(f"authorities do not come to rest: {done[-1]}")

    def _taken_of(self, step: Due, now: datetime) -> list[_Taken]:
        if step.id is None:
            return [_Taken(Step.PREPARE, self._prepare(step.kind, now))]
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
        writer: Writer,
        now: datetime,
        actor: str,
        *,
        beside: Callable[[Transaction], None] | None = None,
    ) -> tuple[Standing, ...]:
        snapshot = self.now_in_force
        sequence = snapshot.sequence + 1
        changes = [
            Change(
                standing=each.authority.standing,
                step=each.step,
                details=each.details,
                public=_public_pem(each.authority) if each.step is Step.PREPARE else None,
            )
            for each in taken
        ]

        def work(transaction: Transaction) -> None:
            if beside is not None:
                beside(transaction)
            write(transaction, changes, sequence=sequence, now=now, actor=actor)

        writer.run(work, alone=True).result()
        changed = [each.authority for each in taken]
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

    def _publish_as_it_is(self, writer: Writer, now: datetime, actor: str) -> None:
        """Count the bundle on where a fact changed it, and no step of an authority did."""
        snapshot = self.now_in_force
        if set(snapshot.bundle.jwt_authorities) != {a.id for a in self._jwt_published(snapshot)}:
            sequence = snapshot.sequence + 1
            writer.run(
                lambda t: write(t, (), sequence=sequence, now=now, actor=actor), alone=True
            ).result()
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

    def _prepare(self, kind: AuthorityKind, now: datetime) -> Authority:
        made = self._keys.generate()
        key, key_id = made.private, made.id
        public = check_public_key(key.public_key())
        expires_at = (now + self._rules[kind].lifetime).replace(microsecond=0)
        certificate = (
            None
            if kind is AuthorityKind.JWT
            else self._certify(kind, key, now=now, expires_at=expires_at, key_id=key_id)
        )
        if certificate is not None:
            expires_at = certificate.not_valid_after_utc
        standing = Standing(
            id=key_id,
            kind=kind,
            state=State.PREPARED,
            prepared_at=now,
            activated_at=None,
            retired_at=None,
            expires_at=expires_at,
            parent=(
                self.now_in_force.active(AuthorityKind.ROOT).id
                if kind is AuthorityKind.X509
                else None
            ),
        )
        return Authority(standing, public, certificate, key)

    def _certify(
        self,
        kind: AuthorityKind,
        key: ec.EllipticCurvePrivateKey,
        *,
        now: datetime,
        expires_at: datetime,
        key_id: str,
    ) -> x509.Certificate:
        root = self.now_in_force.active(AuthorityKind.ROOT) if kind is AuthorityKind.X509 else None
        role = "root CA" if root is None else "issuing CA"
        template = CaTemplate(
            trust_domain=self._config.trust_domain,
            # The key id makes the name unique: two CAs of one name confuse whoever builds paths.
            common_name=f"Accredit {role} {key_id[:16]}",
            public_key=check_public_key(key.public_key()),
            serial=new_serial(self._config.replica),
            not_before=(now - self._config.lifetimes.backdate).replace(microsecond=0),
            not_after=min(expires_at, root.standing.expires_at) if root else expires_at,
            path_length=None if root is None else 0,
            issuer=root.certificate if root else None,
        )
        signing_key = root.key if root else key
        if signing_key is None:
            raise Unavailable("the root's key is not held")
        return ca_builder(template).sign(signing_key, hashes.SHA256())

    def _of_row(self, row: Row[Any]) -> Authority:
        stored = Stored.of_row(row)
        key = self._keys.load(row.id)
        check_held(stored, key)
        return Authority(standing_of(row), stored.public, stored.certificate, key)

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
            x509_authorities=tuple(a.certificate for a in roots if a.certificate),
            jwt_authorities={a.id: a.public for a in self._jwt_published(snapshot)},
            sequence=sequence,
            refresh_hint=self._config.refresh_hint,
            tainted=frozenset(a.id for a in authorities if a.state is State.TAINTED),
        )
        self._snapshot = replace(snapshot, bundle=bundle)
        for listener in self._listeners:
            listener()


def _roots_of(connection: Connection) -> dict[str, Stored]:
    """All roots that were ever published: an issuing CA may outlive its root by a moment."""
    table = models.authorities
    rows = connection.execute(select(table).where(table.c.kind == AuthorityKind.ROOT.value))
    return {row.id: Stored.of_row(row) for row in rows}


def _public_pem(authority: Authority) -> str:
    if authority.certificate is not None:
        return authority.certificate.public_bytes(serialization.Encoding.PEM).decode()
    return authority.public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()

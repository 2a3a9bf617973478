"""The authorities in force: who signs now, what the bundle publishes, and taking what is due.

``Authorities`` holds one immutable ``Snapshot``; requests read it, ``advance`` replaces it. Each
step (prepare, activate, retire, remove) writes the authority's row, the bundle's new sequence
number and a record in one transaction, and only then is the snapshot replaced.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from accredit_credentials.bundle import TrustBundle
from accredit_credentials.keys import PublicKey, check_public_key
from accredit_credentials.leaf_der import SignedLeaf
from accredit_credentials.leaf_signing import sign_leaf
from accredit_credentials.x509_template import CaTemplate, ca_builder
from accredit_issuer.audit.records import Record, RecordKind
from accredit_issuer.authority.lifecycle import (
    AuthorityKind,
    Due,
    Rule,
    Standing,
    State,
    Step,
    due,
    next_due,
)
from accredit_issuer.authority.profile import CheckedLeaf, new_serial
from accredit_issuer.errors import IssuerError, Unavailable
from accredit_issuer.keys.key_manager import KeyManager
from accredit_issuer.settings import Config
from accredit_issuer.store import models
from accredit_issuer.store.writer import Transaction, Writer

MAX_ROUNDS = 4  # prepare, activate, retire, remove: more would mean that a step changes nothing

_SEQUENCE = "bundle.sequence"
_RECORD_OF = {
    Step.PREPARE: RecordKind.AUTHORITY_PREPARED,
    Step.ACTIVATE: RecordKind.AUTHORITY_ACTIVATED,
    Step.RETIRE: RecordKind.AUTHORITY_RETIRED,
    Step.REMOVE: RecordKind.AUTHORITY_REMOVED,
}


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
    """All authorities at one moment, and the bundle that they make."""

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


class Authorities:
    """The authorities of this issuer."""

    def __init__(self, config: Config, keys: KeyManager) -> None:
        self._config = config
        self._keys = keys
        self._rules = _rules(config)
        self._snapshot: Snapshot | None = None
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
        """Read the authorities that were not removed."""
        rows = connection.execute(
            select(models.authorities)
            .where(models.authorities.c.state != State.REMOVED.value)
            .order_by(models.authorities.c.prepared_at)
        )
        sequence = connection.scalar(
            select(models.singletons.c.value).where(models.singletons.c.name == _SEQUENCE)
        )
        self._replace(tuple(map(self._of_row, rows)), int(sequence or 0))

    def advance(self, writer: Writer, now: datetime, actor: str) -> list[Due]:
        """Take every step that is due; returns what was done.

        Raises:
            Unavailable: a step could not be recorded. What was recorded stays.
        """
        # Kind by kind: an issuing CA needs an active root before it can be made.
        return [
            step
            for kind, rule in self._rules.items()
            for step in self._advance_kind(kind, rule, writer, now, actor)
        ]

    def next_due(self, now: datetime) -> datetime:
        """The next moment at which something can be due."""
        standings = self._standings()
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
        self, kind: AuthorityKind, rule: Rule, writer: Writer, now: datetime, actor: str
    ) -> list[Due]:
        done: list[Due] = []
        for _ in range(MAX_ROUNDS):
            steps = due(self._standings(), kind, rule, now)
            if not steps:
                return done
            for step in steps:
                self._take(step, writer, now, actor)
            done += steps
        raise IssuerError(f"authorities do not come to rest: {done[-1]}")

    def _standings(self) -> list[Standing]:
        return [
            replace(a.standing, revoked=self._is_revoked(a.id))
            for a in self.now_in_force.authorities
        ]

    def _take(self, step: Due, writer: Writer, now: datetime, actor: str) -> None:
        snapshot = self.now_in_force
        if step.step is Step.PREPARE:
            changed = self._prepare(step.kind, now)
            others = snapshot.authorities
        else:
            before = next(a for a in snapshot.authorities if a.id == step.id)
            changed = _after(before, step.step, now)
            others = tuple(a for a in snapshot.authorities if a.id != step.id)
        sequence = snapshot.sequence + 1

        def work(transaction: Transaction) -> None:
            _write(transaction, changed, new=step.step is Step.PREPARE, sequence=sequence)
            transaction.record(
                Record(
                    kind=_RECORD_OF[step.step],
                    at=now,
                    actor=actor,
                    subject=changed.id,
                    details={"kind": changed.kind.value, "bundle_sequence": sequence},
                )
            )

        writer.run(work, alone=True).result()
        if changed.state is State.REMOVED:
            self._keys.remove(changed.id)
            self._replace(others, sequence)
        else:
            self._replace((*others, changed), sequence)

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
        pem = row.public.encode()
        kind = AuthorityKind(row.kind)
        certificate = None if kind is AuthorityKind.JWT else x509.load_pem_x509_certificate(pem)
        public = certificate.public_key() if certificate else serialization.load_pem_public_key(pem)
        standing = Standing(
            id=row.id,
            kind=kind,
            state=State(row.state),
            prepared_at=row.prepared_at,
            activated_at=row.activated_at,
            retired_at=row.retired_at,
            expires_at=row.expires_at,
        )
        return Authority(standing, check_public_key(public), certificate, self._keys.load(row.id))

    def _replace(self, authorities: tuple[Authority, ...], sequence: int) -> None:
        snapshot = Snapshot(authorities, sequence, TrustBundle(self._config.trust_domain))
        roots = snapshot.published(AuthorityKind.ROOT)
        bundle = TrustBundle(
            trust_domain=self._config.trust_domain,
            x509_authorities=tuple(a.certificate for a in roots if a.certificate),
            jwt_authorities={
                a.id: a.public
                for a in snapshot.published(AuthorityKind.JWT)
                if not self._is_revoked(a.id)  # whoever has it could go on signing with it
            },
            sequence=sequence,
            refresh_hint=self._config.refresh_hint,
        )
        self._snapshot = replace(snapshot, bundle=bundle)
        for listener in self._listeners:
            listener()


def _rules(config: Config) -> Mapping[AuthorityKind, Rule]:
    lifetimes = config.lifetimes
    ahead = timedelta(seconds=3 * config.refresh_hint)
    return {
        AuthorityKind.ROOT: Rule(
            lifetime=lifetimes.root, publish_ahead=ahead, leaf_lifetime=lifetimes.issuing_ca
        ),
        AuthorityKind.X509: Rule(
            # An issuing CA travels with each leaf: nobody has to know it beforehand.
            lifetime=lifetimes.issuing_ca,
            publish_ahead=timedelta(0),
            leaf_lifetime=lifetimes.longest_svid,
        ),
        AuthorityKind.JWT: Rule(
            lifetime=lifetimes.jwt_key,
            publish_ahead=ahead,
            leaf_lifetime=max(lifetimes.jwt_svid, lifetimes.task_token),
        ),
    }


def _after(authority: Authority, step: Step, now: datetime) -> Authority:
    standing = authority.standing
    match step:
        case Step.ACTIVATE:
            standing = replace(standing, state=State.ACTIVE, activated_at=now)
        case Step.RETIRE:
            standing = replace(standing, state=State.RETIRED, retired_at=now)
        case _:
            standing = replace(standing, state=State.REMOVED)
    return replace(authority, standing=standing)


def _write(transaction: Transaction, authority: Authority, *, new: bool, sequence: int) -> None:
    standing = authority.standing
    values = {
        "state": standing.state.value,
        "activated_at": standing.activated_at,
        "retired_at": standing.retired_at,
    }
    table = models.authorities
    if new:
        transaction.execute(
            insert(table).values(
                id=standing.id,
                kind=standing.kind.value,
                public=_public_pem(authority),
                prepared_at=standing.prepared_at,
                expires_at=standing.expires_at,
                **values,
            )
        )
    else:
        transaction.execute(update(table).where(table.c.id == standing.id).values(**values))
    transaction.execute(
        upsert(models.singletons)
        .values(name=_SEQUENCE, value=str(sequence))
        .on_conflict_do_update(index_elements=["name"], set_={"value": str(sequence)})
    )


def _public_pem(authority: Authority) -> str:
    if authority.certificate is not None:
        return authority.certificate.public_bytes(serialization.Encoding.PEM).decode()
    return authority.public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()

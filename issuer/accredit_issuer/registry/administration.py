"""What admins change: signers, manifests, join tokens, other admins.

Each change is one transaction with its record in the log. Whether the admin may make it is decided
before (``roles``), and again with it (``changes``); whether it makes sense is decided here. Saying
the same thing twice is no error; saying something else under the same name is a conflict.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, insert, select

from accredit_attestors import join_token
from accredit_attestors.errors import AttestationError, NotAttested
from accredit_attestors.signer_keys import load_signer_public_key
from accredit_attestors.signing import Signer, VerifiedManifest, verify
from accredit_credentials.errors import InvalidSpiffeId
from accredit_credentials.spiffe_id import AgentId, check_name
from accredit_credentials.x509_svid import identity_marks
from accredit_issuer.audit.records import Record, RecordKind, written_moment
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.decision import check_not_revoked
from accredit_issuer.registry.changes import Actor, Changes
from accredit_issuer.registry.one_time import EnrolmentToken
from accredit_issuer.registry.registry import Registry
from accredit_issuer.registry.roles import PERMISSIONS, Admin, Reach, Role
from accredit_issuer.revocation.revocation import Revocation
from accredit_issuer.settings import Config
from accredit_issuer.store import models
from accredit_issuer.store.writer import Transaction

MAX_NAMESPACES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """A token that was just made: its text is shown once."""

    text: str = field(repr=False)
    id: str
    expires_at: datetime


class Administration:
    """The changes that admins make."""

    def __init__(
        self, config: Config, changes: Changes, registry: Registry, revocation: Revocation
    ) -> None:
        self._config = config
        self._changes = changes
        self._registry = registry
        self._revocation = revocation

    def add_signer(
        self,
        name: str,
        public_key_pem: str,
        namespaces: tuple[str, ...],
        *,
        by: Actor,
        now: datetime,
    ) -> None:
        """Let a key sign manifests of namespaces.

        Raises:
            Refusal: a wrong value, or the name or key is taken.
        """
        signer = _signer(name, public_key_pem, namespaces)

        def work(transaction: Transaction) -> None:
            table = models.signers
            known = transaction.execute(
                select(table).where((table.c.name == name) | (table.c.key_id == signer.keyid))
            ).all()
            if known:
                same = [(row.name, row.key_id, tuple(row.namespaces)) for row in known]
                if same == [(name, signer.keyid, namespaces)]:
                    return
                raise Refusal(Kind.CONFLICT, _other_signer(name, known[0]))
            index = transaction.record(
                Record(
                    kind=RecordKind.SIGNER_ADDED,
                    at=now,
                    actor=by.name,
                    subject=name,
                    details={"key_id": signer.keyid, "namespaces": list(namespaces)},
                )
            )
            transaction.execute(
                insert(table).values(
                    name=name,
                    key_id=signer.keyid,
                    public_key=public_key_pem,
                    namespaces=list(namespaces),
                    created_at=now,
                    created_by=by.name,
                    log_index=index,
                )
            )
            transaction.after_commit(self._registry.signers_changed)

        self._changes.make(work, by=by)

    def verified(self, envelope: str, now: datetime) -> VerifiedManifest:
        """Verify a manifest that is to be registered.

        Raises:
            Refusal: malformed, of a stranger, out of its time, or something of it is revoked.
        """
        try:
            manifest = verify(envelope.encode(), signers=self._registry.signers(), now=now)
        except AttestationError as error:
            raise manifest_refusal(error) from None
        check_not_revoked(self._marks_of(manifest), self._revocation.facts)
        return manifest

    def register(self, manifest: VerifiedManifest, *, by: Actor, now: datetime) -> None:
        """Register a verified manifest.

        Raises:
            Refusal: this version of the agent is registered with other contents.
        """

        def work(transaction: Transaction) -> None:
            declared, table = manifest.manifest, models.manifests
            known = transaction.execute(
                select(table.c.digest).where(
                    table.c.agent == str(declared.agent), table.c.version == declared.version
                )
            ).scalar()
            if known == manifest.digest:
                return
            if known is not None:
                raise Refusal(
                    Kind.CONFLICT,
                    f"{declared.agent}@{declared.version} is registered with the digest {known}; "
                    "give the new manifest a new version",
                )
            index = transaction.record(
                Record(
                    kind=RecordKind.MANIFEST_REGISTERED,
                    at=now,
                    actor=by.name,
                    subject=manifest.digest,
                    details={
                        "agent": str(declared.agent),
                        "version": declared.version,
                        "owner": declared.owner,
                        "signer": manifest.signer,
                    },
                )
            )
            transaction.execute(
                insert(table).values(
                    digest=manifest.digest,
                    agent=str(declared.agent),
                    namespace=declared.agent.namespace,
                    version=declared.version,
                    owner=declared.owner,
                    signer=manifest.signer,
                    envelope=manifest.envelope.decode(),
                    registered_at=now,
                    registered_by=by.name,
                    expires_at=declared.expires_at,
                    log_index=index,
                )
            )

        self._changes.make(work, by=by, about=self._marks_of(manifest))

    def enrol(
        self, agent: AgentId, ttl_seconds: int | None, *, by: Actor, now: datetime
    ) -> Invitation:
        """Make a join token for one instance of an agent.

        Raises:
            Refusal: no manifest of the agent, it is revoked, or an impossible lifetime.
        """
        longest = self._config.lifetimes.join_token
        ttl = longest if ttl_seconds is None else timedelta(seconds=ttl_seconds)
        if not timedelta(seconds=1) <= ttl <= longest:
            raise Refusal(Kind.MALFORMED, f"ttl_seconds must be 1 to {longest.total_seconds():.0f}")
        token = join_token.JoinToken.new()
        expires_at = (now + ttl).replace(microsecond=0)
        kept = join_token.record_of(token, agent=agent, expires_at=expires_at)

        def work(transaction: Transaction) -> None:
            table = models.manifests
            if not transaction.execute(
                select(table.c.digest).where(table.c.agent == str(agent)).limit(1)
            ).first():
                raise Refusal(Kind.NOT_FOUND, f"no manifest of {agent} is registered")
            index = transaction.record(
                Record(
                    kind=RecordKind.AGENT_ENROLLED,
                    at=now,
                    actor=by.name,
                    subject=str(agent),
                    details={
                        "join_token": kept.id,
                        "expires_at": written_moment(expires_at),
                    },
                )
            )
            transaction.execute(
                insert(models.join_tokens).values(
                    id=kept.id,
                    secret_sha256=kept.secret_sha256,
                    agent=str(agent),
                    expires_at=expires_at,
                    created_by=by.name,
                    log_index=index,
                )
            )

        self._changes.make(
            work, by=by, about=identity_marks(agent.spiffe_id(self._config.trust_domain))
        )
        return Invitation(text=token.reveal(), id=token.id, expires_at=expires_at)

    def invite(self, admin: Admin, *, by: Actor, now: datetime) -> Invitation:
        """Add an admin, or give one that exists another one-time token.

        Raises:
            Refusal: a wrong name or namespace, or the admin exists with another role.
        """
        try:
            check_name(admin.name, "admin name")
            for namespace in admin.namespaces:
                check_name(namespace, "namespace")
        except InvalidSpiffeId as error:
            raise Refusal(Kind.MALFORMED, str(error)) from None
        if not admin.namespaces and Reach.OWN in PERMISSIONS[admin.role].values():
            raise Refusal(
                Kind.MALFORMED, f"the role {admin.role.value} needs at least one namespace"
            )
        if len(admin.namespaces) > MAX_NAMESPACES:
            raise Refusal(Kind.MALFORMED, f"at most {MAX_NAMESPACES} namespaces")
        token = EnrolmentToken.new()
        expires_at = (now + self._config.lifetimes.enrolment_token).replace(microsecond=0)
        self._changes.make(
            lambda transaction: _invite(transaction, admin, token, expires_at, by=by.name, now=now),
            by=by,
            about=(f"admin:{admin.name}",),
        )
        return Invitation(text=token.reveal(), id=token.id, expires_at=expires_at)

    def _marks_of(self, manifest: VerifiedManifest) -> tuple[str, ...]:
        agent = manifest.manifest.agent
        return (
            f"signer:{manifest.signer}",
            f"owner:{manifest.manifest.owner}",
            f"manifest:{manifest.digest}",
            *identity_marks(agent.spiffe_id(self._config.trust_domain)),
        )


def manifest_refusal(error: AttestationError) -> Refusal:
    """What a manifest that does not verify means to the one who sent it."""
    kind = Kind.ATTESTATION_REFUSED if isinstance(error, NotAttested) else Kind.MALFORMED
    return Refusal(kind, str(error))


def _signer(name: str, public_key_pem: str, namespaces: tuple[str, ...]) -> Signer:
    if not 1 <= len(namespaces) <= MAX_NAMESPACES:
        raise Refusal(Kind.MALFORMED, f"namespaces must name 1 to {MAX_NAMESPACES} namespaces")
    try:
        return Signer(name, load_signer_public_key(public_key_pem.encode()), namespaces)
    except AttestationError as error:
        raise Refusal(Kind.MALFORMED, str(error)) from None


def _other_signer(name: str, known: Row[Any]) -> str:
    """Why a signer cannot be added beside one that has its name or its key."""
    if known.name != name:
        return f"the key is known as signer {known.name}: a new signer needs a key of its own"
    return (
        f"signer {name} is known with other contents, which cannot be changed: "
        "add a new key under a new name"
    )


def _invite(
    transaction: Transaction,
    admin: Admin,
    token: EnrolmentToken,
    expires_at: datetime,
    *,
    by: str,
    now: datetime,
) -> None:
    table = models.admins
    known = transaction.execute(select(table).where(table.c.name == admin.name)).first()
    if known is not None:
        same = Admin(known.name, Role(known.role), tuple(known.namespaces)) == admin
        if not same:
            namespaces = ", ".join(known.namespaces) or "no namespaces"
            raise Refusal(
                Kind.CONFLICT,
                f"admin {admin.name} exists with the role {known.role} and {namespaces}",
            )
    else:
        transaction.execute(
            insert(table).values(
                name=admin.name,
                role=admin.role.value,
                namespaces=list(admin.namespaces),
                created_at=now,
                created_by=by,
            )
        )
    details: dict[str, Any] = {
        "role": admin.role.value,
        "namespaces": list(admin.namespaces),
        "enrolment_token": token.id,
        "expires_at": written_moment(expires_at),
    }
    transaction.record(
        Record(kind=RecordKind.ADMIN_INVITED, at=now, actor=by, subject=admin.name, details=details)
    )
    transaction.execute(
        insert(models.enrolment_tokens).values(
            id=token.id,
            secret_sha256=token.fingerprint,
            admin=admin.name,
            expires_at=expires_at,
        )
    )

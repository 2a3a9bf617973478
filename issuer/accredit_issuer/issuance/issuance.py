"""Issuing: what each kind of request takes to become a credential.

Each method is one walk through the cycle: who asks → decide → intent → sign → outcome → release.
The decisions are in ``decision``, ``attestation`` and ``tasks``; the order of recording and
signing is in ``cycle``; here they are put together.
"""

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import insert, select, update

from accredit_attestors.contract import Attestor, Evidence, JoinTokenRecord
from accredit_credentials import jwt_svid, task_token
from accredit_credentials.jwt_svid import AgentBlock, JwtSvid
from accredit_credentials.keys import PublicKey, SubjectKey
from accredit_credentials.leaf_der import SignedLeaf
from accredit_credentials.spiffe_id import AgentId, SpiffeId, admin_id, issuer_id
from accredit_credentials.task_token import Binding, TaskToken
from accredit_credentials.x509_svid import X509Svid, identity_marks
from accredit_issuer.audit.records import Record, RecordKind
from accredit_issuer.authority.authorities import Authorities
from accredit_issuer.authority.profile import Profile
from accredit_issuer.authority.subordinates import Subordinates
from accredit_issuer.authority.token_profile import TokenProfile
from accredit_issuer.clock import Clock
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.attestation import (
    attest,
    attest_again,
    join_token_shown,
    parse_evidence,
)
from accredit_issuer.issuance.csr import key_of_request
from accredit_issuer.issuance.cycle import Cycle, Intent, Signed, record_refusal
from accredit_issuer.issuance.decision import (
    Claimant,
    TaskRequest,
    check_not_revoked,
    check_standing,
    decide_jwt_svid,
    decide_task_token,
    decide_x509_svid,
)
from accredit_issuer.issuance.issuing_cas import IssuingCas, SignedCa
from accredit_issuer.issuance.nonces import Nonces
from accredit_issuer.issuance.tasks import TaskChoice, choose_task
from accredit_issuer.issuance.together import Together
from accredit_issuer.issuance.x509_signing import Beside, X509Grant, X509Signing, end_of
from accredit_issuer.registry.one_time import EnrolmentToken
from accredit_issuer.registry.registry import Registry
from accredit_issuer.registry.roles import Admin
from accredit_issuer.revocation.revocation import Revocation
from accredit_issuer.settings import Config
from accredit_issuer.store.database import Database
from accredit_issuer.store.loop_writer import LoopWriter
from accredit_issuer.store.models import enrolment_tokens, instances, join_tokens
from accredit_issuer.store.writer import Transaction, Writer

AT_ONCE = 16  # requests of a batch that are checked without a pause


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationRequest:
    """Evidence and a key, for a nonce."""

    nonce: str
    csr: str
    evidence: Sequence[Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTokenRequest:
    """A task token that is asked for."""

    resource: str
    actions: tuple[str, ...]
    purpose: str
    task_id: str | None
    parent_id: str | None
    principal: str | None
    binding: Binding


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedJwt:
    """A released JWT-SVID."""

    svid: JwtSvid
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedTaskToken:
    """A released task token."""

    content: TaskToken
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Parts:
    """What issuing needs of the rest of the issuer."""

    config: Config
    clock: Clock
    database: Database
    writer: Writer
    authorities: Authorities
    registry: Registry
    revocation: Revocation
    subordinates: Subordinates
    attestors: Mapping[str, Attestor]


class Issuance:
    """Issues every kind of credential."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._writer = LoopWriter(parts.writer)
        with parts.database.read() as connection:
            self._cycle = Cycle(self._writer, parts.revocation, connection)
        self._x509 = X509Signing(parts.config, parts.authorities, self._cycle)
        self._issuing_cas = IssuingCas(
            parts.config, parts.authorities, parts.subordinates, parts.revocation, self._cycle
        )
        self._key_of_request = Together(key_of_request)
        self._config = parts.config
        lifetimes = parts.config.lifetimes
        self._agents = Profile(
            trust_domain=parts.config.trust_domain,
            max_lifetime=lifetimes.x509_svid,
            backdate=lifetimes.backdate,
            replica=parts.config.replica,
        )
        self._admins = Profile(
            trust_domain=parts.config.trust_domain,
            max_lifetime=lifetimes.admin_svid,
            backdate=lifetimes.backdate,
            replica=parts.config.replica,
            needs_manifest=False,
        )
        self._servers = Profile(
            trust_domain=parts.config.trust_domain,
            max_lifetime=lifetimes.server_svid,
            backdate=lifetimes.backdate,
            replica=parts.config.replica,
            dns_names=frozenset(parts.config.names),
            needs_manifest=False,
        )
        tokens = partial(
            TokenProfile,
            trust_domain=parts.config.trust_domain,
            issuer=parts.config.token_issuer,
        )
        self._jwt_svids = tokens(max_lifetime=lifetimes.jwt_svid)
        self._task_tokens = tokens(max_lifetime=lifetimes.task_token)
        self.nonces = Nonces(lifetimes.nonce)

    async def attest(self, request: AttestationRequest) -> SignedLeaf:
        """A new instance's first X.509-SVID.

        Raises:
            Refusal: the nonce, the evidence, the manifest or the key does not hold.
            Unavailable: it could not be recorded or signed.
        """
        now = self._parts.clock()
        self.nonces.check(request.nonce, now)
        evidence = parse_evidence(request.evidence)
        known = join_token_shown(evidence, self._join_token_record)
        if known is None:
            # A stranger: without a join token of ours this will be refused, whatever else it
            # shows. It must not be able to fill the memory of nonces, or the log.
            return await self._attest(request, evidence, now)
        self.nonces.redeem(request.nonce, now)
        try:
            return await self._attest(request, evidence, now)
        except Refusal as refusal:
            if self._is_unspent(known, now):
                await self.refused(f"join-token:{known.id}", "attestation", refusal)
            raise

    async def _attest(
        self, request: AttestationRequest, evidence: Mapping[str, Evidence], now: datetime
    ) -> SignedLeaf:
        subject_key = await self._key_of_request(request.csr)
        registry = self._parts.registry
        attestation = attest(
            evidence,
            attestors=self._parts.attestors,
            nonce=request.nonce,
            signers=registry.signers(),
            join_token_record=self._join_token_record,
            now=now,
        )
        registered = registry.manifest(attestation.manifest.digest)
        agent = registered.manifest.agent
        claimant = Claimant(
            manifest=registered,
            instance=str(uuid.uuid4()),
            assurance=attestation.assurance,
            not_after=None,
            marks=(
                f"signer:{attestation.manifest.signer}",
                f"owner:{registered.manifest.owner}",
                f"manifest:{registered.digest}",
                *identity_marks(agent.spiffe_id(self._config.trust_domain)),
            ),
        )

        def born(transaction: Transaction) -> None:
            self._spend_join_token(transaction, attestation.join_token_id, claimant.instance)
            index = transaction.record(
                Record(
                    kind=RecordKind.INSTANCE_ATTESTED,
                    at=now,
                    actor=str(agent.spiffe_id(self._config.trust_domain)),
                    subject=claimant.instance,
                    details={
                        "manifest": registered.digest,
                        "assurance": str(attestation.assurance),
                        "selectors": list(attestation.selectors),
                    },
                )
            )
            transaction.execute(
                insert(instances).values(
                    id=claimant.instance,
                    agent=str(agent),
                    manifest=registered.digest,
                    assurance=str(attestation.assurance),
                    selectors=list(attestation.selectors),
                    born_at=now,
                    log_index=index,
                )
            )

        grant = self._agent_grants(claimant, now)(subject_key)
        return await self._x509.issue(grant, beside=born)

    async def renew(self, svid: X509Svid, csr: str, evidence: Sequence[Any]) -> SignedLeaf:
        """The next X.509-SVID of an instance, for a new key.

        Raises:
            Refusal: what runs is not what was signed any more, or it may not be renewed.
            Unavailable: it could not be recorded or signed.
        """
        now = self._parts.clock()
        claimant = self.claimant(svid)
        subject_key = await self._key_of_request(csr)
        self._attest_again(claimant, svid, evidence, now)
        return await self._x509.issue(self._agent_grants(claimant, now)(subject_key))

    async def renew_all(
        self, svid: X509Svid, csrs: Sequence[str], evidence: Sequence[Any]
    ) -> list[SignedLeaf]:
        """X.509-SVIDs of an instance for several new keys: all of them, or none.

        Raises:
            Refusal: as ``renew``; or two requests have one key.
            Unavailable: it could not be recorded or signed.
        """
        now = self._parts.clock()
        claimant = self.claimant(svid)
        self._attest_again(claimant, svid, evidence, now)
        keys: list[SubjectKey] = []
        for number, csr in enumerate(csrs, start=1):
            keys.append(key_of_request(csr))
            if not number % AT_ONCE:
                await asyncio.sleep(0)  # others are asking too
        if len({key.der for key in keys}) != len(keys):
            raise Refusal(Kind.MALFORMED, "csrs must have a key of their own each")
        decide = self._agent_grants(claimant, now)
        return await self._x509.issue_all([decide(key) for key in keys])

    async def issuing_ca(self, svid: X509Svid, csr: str) -> SignedCa:
        """An issuing CA for an agent that is a subordinate issuer.

        Raises:
            Refusal: it was not named one, or may have nothing now.
            Unavailable: it could not be recorded or signed.
        """
        now = self._parts.clock()
        claimant = self.claimant(svid)
        check_standing(claimant, self._parts.revocation.facts, now)
        return await self._issuing_cas.issue(svid, claimant, csr, now)

    async def jwt_svid(self, svid: X509Svid, audience: tuple[str, ...]) -> IssuedJwt:
        """A JWT-SVID for an instance.

        Raises:
            Refusal: no audience, or the agent may have nothing now.
            Unavailable: it could not be recorded or signed.
        """
        now = self._parts.clock()
        claimant = self.claimant(svid)
        granted = decide_jwt_svid(
            claimant,
            audience,
            facts=self._parts.revocation.facts,
            lifetimes=self._config.lifetimes,
            now=now,
        )
        key, kid = self._parts.authorities.jwt_signer()
        content = JwtSvid(
            spiffe_id=svid.spiffe_id,
            audience=audience,
            expires_at=granted.expires_at,
            issued_at=now,
            issuer=self._config.token_issuer,
            jti=str(uuid.uuid4()),
            agent=_agent_block(claimant),
            authority=kid,
        )
        intent = _intent(
            claimant,
            id=content.jti or "",
            kind="jwt",
            subject=svid.spiffe_id,
            authority=kid,
            decided_at=now,
            expires_at=granted.expires_at,
            marks=(*content.marks(), *claimant.marks),
            reasons=granted.reasons,
            details={"audience": list(audience)},
        )
        checked = self._jwt_svids.check(content, kid, now)
        token = await self._cycle.issue(
            intent, lambda: _signed(jwt_svid.sign(checked.content, key, checked.authority))
        )
        return IssuedJwt(svid=content, token=token)

    async def task_token(self, svid: X509Svid, request: TaskTokenRequest) -> IssuedTaskToken:
        """A task token for an instance.

        Raises:
            Refusal: more than was declared, a high risk, or a task that is not the instance's.
            Unavailable: it could not be recorded or signed.
        """
        now = self._parts.clock()
        claimant = self.claimant(svid)
        choice = self._choose_task(claimant, svid, request)
        granted = decide_task_token(
            claimant,
            TaskRequest(
                resource=request.resource,
                actions=request.actions,
                purpose=request.purpose,
                principal=request.principal,
                depth=choice.task.depth,
                binding=request.binding,
            ),
            facts=self._parts.revocation.facts,
            lifetimes=self._config.lifetimes,
            now=now,
        )
        key, kid = self._parts.authorities.jwt_signer()
        content = TaskToken(
            issuer=self._config.token_issuer,
            principal=choice.principal,
            client=svid.spiffe_id,
            audience=granted.audience,
            jti=str(uuid.uuid4()),
            issued_at=now,
            expires_at=granted.expires_at,
            grants=(granted.grant,),
            task=choice.task,
            agent=_agent_block(claimant),
            binding=request.binding,
            authority=kid,
        )
        intent = _intent(
            claimant,
            id=content.jti,
            kind="task",
            subject=svid.spiffe_id,
            authority=kid,
            decided_at=now,
            expires_at=granted.expires_at,
            marks=(*content.marks(), *claimant.marks),
            reasons=granted.reasons,
            task=choice.task.id,
            details={
                "audience": granted.audience,
                "scope": content.scope,
                "principal": choice.principal,
                "purpose": choice.task.purpose,
                "task": choice.task.id,
                "parent": choice.task.parent,
            },
        )
        checked = self._task_tokens.check(content, kid, now)
        token = await self._cycle.issue(
            intent,
            lambda: _signed(task_token.sign(checked.content, key, checked.authority)),
            beside=lambda t: choice.record(t, claimant.instance, now),
        )
        return IssuedTaskToken(content=content, token=token)

    async def enrol_admin(self, token_text: str, csr: str) -> SignedLeaf:
        """An admin's first SVID, for a one-time token.

        Raises:
            Refusal: an unknown, spent or expired token, or a key that is not accepted.
            Unavailable: it could not be recorded or signed.
        """
        now = self._parts.clock()
        token = EnrolmentToken.parse(token_text)
        subject_key = await self._key_of_request(csr)
        with self._parts.database.read() as connection:
            row = connection.execute(
                select(enrolment_tokens).where(enrolment_tokens.c.id == token.id)
            ).first()
        if row is None or not token.matches(row.secret_sha256):
            raise Refusal(Kind.UNAUTHENTICATED, "the one-time token is not known")
        if now >= row.expires_at:
            raise Refusal(Kind.UNAUTHENTICATED, "the one-time token is over")
        admin = self._parts.registry.admin(row.admin)
        instance = str(uuid.uuid4())

        def spend(transaction: Transaction) -> None:
            spent = transaction.execute(
                update(enrolment_tokens)
                .where(enrolment_tokens.c.id == token.id, enrolment_tokens.c.redeemed_by.is_(None))
                .values(redeemed_by=instance)
            )
            if spent.rowcount != 1:
                raise Refusal(Kind.CONFLICT, "the one-time token was used before")
            transaction.record(
                Record(
                    kind=RecordKind.ADMIN_ENROLLED,
                    at=now,
                    actor=str(admin_id(self._config.trust_domain, admin.name)),
                    subject=admin.name,
                    details={"enrolment_token": token.id, "instance": instance},
                )
            )

        return await self._issue_admin_svid(admin, instance, subject_key, now, beside=spend)

    async def renew_admin(self, svid: X509Svid, admin: Admin, csr: str) -> SignedLeaf:
        """An admin's next SVID, for a new key.

        Raises:
            Refusal: revoked, or a key that is not accepted.
            Unavailable: it could not be recorded or signed.
        """
        return await self._issue_admin_svid(
            admin,
            svid.instance or str(uuid.uuid4()),
            await self._key_of_request(csr),
            self._parts.clock(),
            shown=svid.marks(),
        )

    async def own_svid(self, public_key: PublicKey) -> SignedLeaf:
        """The SVID of the issuer's own server.

        Raises:
            Unavailable: it could not be recorded or signed.
        """
        now = self._parts.clock()
        ca = self._x509.issuing_ca()
        ends = min(now + self._config.lifetimes.server_svid, end_of(ca))
        return await self._x509.issue(
            X509Grant(
                profile=self._servers,
                ca=ca,
                subject_key=SubjectKey.of(public_key),
                spiffe_id=issuer_id(self._config.trust_domain),
                instance=str(uuid.uuid4()),
                expires_at=ends.replace(microsecond=0),
                now=now,
                reasons=("the issuer's own server",),
                dns_names=self._config.names,
            )
        )

    def claimant(self, svid: X509Svid) -> Claimant:
        """What is known of the holder of an agent's SVID.

        Raises:
            Refusal: not an agent's, or of an instance or manifest that is not known.
        """
        if svid.instance is None or svid.manifest is None:
            raise Refusal(Kind.FORBIDDEN, f"{svid.spiffe_id} is not an agent")
        instance = self._parts.registry.instance(svid.instance)
        manifest = self._parts.registry.manifest(instance.manifest)
        if svid.manifest != instance.manifest:
            raise Refusal(Kind.UNAUTHENTICATED, "the SVID is of another manifest than its instance")
        return Claimant(
            manifest=manifest,
            instance=instance.id,
            assurance=instance.assurance,
            not_after=svid.not_after,
            marks=(
                f"signer:{manifest.signer}",
                f"owner:{manifest.manifest.owner}",
                *svid.marks(),
            ),
        )

    async def refused(self, actor: SpiffeId | str, asked: str, refusal: Refusal) -> None:
        """Record that somebody known was refused.

        Raises:
            Unavailable: it could not be recorded.
        """
        await record_refusal(
            self._writer,
            actor=str(actor),
            asked=asked,
            refusal=refusal,
            now=self._parts.clock(),
        )

    def _choose_task(
        self, claimant: Claimant, svid: X509Svid, request: TaskTokenRequest
    ) -> TaskChoice:
        return choose_task(
            self._parts.database,
            instance=claimant.instance,
            purpose=request.purpose,
            principal=request.principal or str(svid.spiffe_id),
            task_id=request.task_id,
            parent_id=request.parent_id,
        )

    def _attest_again(
        self, claimant: Claimant, svid: X509Svid, evidence: Sequence[Any], now: datetime
    ) -> None:
        attest_again(
            parse_evidence(evidence),
            attestors=self._parts.attestors,
            nonce=svid.serial,
            manifest=claimant.manifest,
            now=now,
        )

    def _agent_grants(self, claimant: Claimant, now: datetime) -> Callable[[SubjectKey], X509Grant]:
        """Decide about an agent's X.509-SVID; what was decided holds for any key of it.

        Raises:
            Refusal: the agent may have nothing now.
        """
        ca = self._x509.issuing_ca()
        granted = decide_x509_svid(
            claimant,
            facts=self._parts.revocation.facts,
            lifetimes=self._config.lifetimes,
            ca_ends=end_of(ca),
            now=now,
        )
        declared = claimant.declared
        spiffe_id = declared.agent.spiffe_id(
            self._config.trust_domain, claimant.instance if declared.instance_in_path else None
        )
        return lambda subject_key: X509Grant(
            profile=self._agents,
            ca=ca,
            subject_key=subject_key,
            spiffe_id=spiffe_id,
            instance=claimant.instance,
            expires_at=granted.expires_at,
            now=now,
            reasons=granted.reasons,
            manifest=claimant.manifest.digest,
            marks=claimant.marks,
        )

    async def _issue_admin_svid(
        self,
        admin: Admin,
        instance: str,
        subject_key: SubjectKey,
        now: datetime,
        *,
        shown: tuple[str, ...] = (),
        beside: Beside | None = None,
    ) -> SignedLeaf:
        ca = self._x509.issuing_ca()
        marks = (f"admin:{admin.name}", *shown)
        check_not_revoked(marks, self._parts.revocation.facts)
        ends = min(now + self._config.lifetimes.admin_svid, end_of(ca))
        return await self._x509.issue(
            X509Grant(
                profile=self._admins,
                ca=ca,
                subject_key=subject_key,
                spiffe_id=admin_id(self._config.trust_domain, admin.name),
                instance=instance,
                expires_at=ends.replace(microsecond=0),
                now=now,
                reasons=(f"admin {admin.name} has the role {admin.role}",),
                marks=marks,
                admin=admin.name,
            ),
            beside=beside,
        )

    def _join_token_record(self, token_id: str) -> JoinTokenRecord | None:
        with self._parts.database.read() as connection:
            row = connection.execute(
                select(join_tokens).where(join_tokens.c.id == token_id)
            ).first()
        if row is None:
            return None
        return JoinTokenRecord(row.id, row.secret_sha256, AgentId.parse(row.agent), row.expires_at)

    def _is_unspent(self, known: JoinTokenRecord, now: datetime) -> bool:
        with self._parts.database.read() as connection:
            redeemed_by = connection.scalar(
                select(join_tokens.c.redeemed_by).where(join_tokens.c.id == known.id)
            )
        return redeemed_by is None and now < known.expires_at

    def _spend_join_token(
        self, transaction: Transaction, token_id: str | None, instance: str
    ) -> None:
        spent = transaction.execute(
            update(join_tokens)
            .where(join_tokens.c.id == token_id, join_tokens.c.redeemed_by.is_(None))
            .values(redeemed_by=instance)
        )
        if spent.rowcount != 1:
            raise Refusal(Kind.ATTESTATION_REFUSED, "the join token was used before")


def _intent(claimant: Claimant, *, subject: SpiffeId, **rest: Any) -> Intent:
    return Intent(
        subject=str(subject),
        instance=claimant.instance,
        manifest=claimant.manifest.digest,
        **rest,
    )


def _signed(token: str) -> Signed[str]:
    return Signed(token, token.encode())


def _agent_block(claimant: Claimant) -> AgentBlock:
    return AgentBlock(
        version=claimant.declared.version,
        instance=claimant.instance,
        manifest=claimant.manifest.digest,
        assurance=str(claimant.assurance),
    )

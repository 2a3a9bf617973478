"""X.509-SVIDs of agents: the first one by attestation, the next ones by renewal.

What a node runs is its node's to renew (``node_instances``). Who slept through a renewal comes back
by the key of the SVID that is over (``former``).
"""

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import insert

from accredit_attestors import former_svid
from accredit_attestors.contract import Evidence
from accredit_attestors.errors import AttestationError
from accredit_attestors.signing import VerifiedManifest
from accredit_credentials.keys import SubjectKey
from accredit_credentials.leaf_der import SignedLeaf
from accredit_credentials.x509_svid import X509Svid, identity_marks
from accredit_issuer.audit.records import Record, RecordKind
from accredit_issuer.authority.profile import Profile
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.attestation import (
    FORMER_SVID,
    attest,
    attest_again,
    attest_former,
    join_token_shown,
    parse_evidence,
    refusal_of,
)
from accredit_issuer.issuance.claimants import claimant_of
from accredit_issuer.issuance.csr import key_of_request
from accredit_issuer.issuance.decision import Claimant, decide_x509_svid
from accredit_issuer.issuance.former import DETAIL, Formers, FormerSvid, decide_former
from accredit_issuer.issuance.join_tokens import JoinTokens
from accredit_issuer.issuance.nonces import Nonces
from accredit_issuer.issuance.parts import Parts
from accredit_issuer.issuance.refusals import Refusals
from accredit_issuer.issuance.together import Together
from accredit_issuer.issuance.x509_signing import X509Grant, X509Signing, end_of
from accredit_issuer.store.models import instances
from accredit_issuer.store.writer import Transaction

AT_ONCE = 16  # requests of a batch that are checked without a pause


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationRequest:
    """Evidence and a key, for a nonce."""

    nonce: str
    csr: str
    evidence: Sequence[Any] = field(repr=False)


class AgentSvids:
    """Issues the X.509-SVIDs of agents."""

    def __init__(
        self,
        parts: Parts,
        x509: X509Signing,
        key_of_request: Together[str, SubjectKey],
        refusals: Refusals,
    ) -> None:
        self._parts = parts
        self._config = parts.config
        self._x509 = x509
        self._key_of_request = key_of_request
        self._refusals = refusals
        self._join_tokens = JoinTokens(parts.database)
        self._formers = Formers(parts.database)
        lifetimes = parts.config.lifetimes
        self._profile = Profile(
            trust_domain=parts.config.trust_domain,
            max_lifetime=lifetimes.x509_svid,
            backdate=lifetimes.backdate,
            replica=parts.config.replica,
        )
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
        if FORMER_SVID in evidence:
            return await self._come_back(request, evidence, now)
        known = join_token_shown(evidence, self._join_tokens.record)
        if known is None:
            # A stranger: without a join token of ours this will be refused, whatever else it
            # shows. It must not be able to fill the memory of nonces, or the log.
            return await self._attest(request, evidence, now)
        self.nonces.redeem(request.nonce, now)
        try:
            return await self._attest(request, evidence, now)
        except Refusal as refusal:
            if self._join_tokens.is_unspent(known, now):
                await self._refusals.record(f"join-token:{known.id}", "attestation", refusal)
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
            join_token_record=self._join_tokens.record,
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
            self._join_tokens.spend(transaction, attestation.join_token_id, claimant.instance)
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

        grant = self.grants(claimant, now)(subject_key)
        return await self._x509.issue(grant, beside=born)

    async def _come_back(
        self, request: AttestationRequest, evidence: Mapping[str, Evidence], now: datetime
    ) -> SignedLeaf:
        """The next X.509-SVID of an instance whose last one is over."""
        subject_key = await self._key_of_request(request.csr)
        try:
            former = self._formers.find(former_svid.serial_of(evidence[FORMER_SVID]))
        except AttestationError as error:
            raise refusal_of(error) from None
        manifest = attest_former(
            evidence,
            attestors=self._parts.attestors,
            nonce=request.nonce,
            signers=self._parts.registry.signers(),
            former=None if former is None else former.record,
            public_key=subject_key.der,
            now=now,
        )
        assert former is not None  # noqa: S101 (no evidence holds without a record)
        # From here on it is somebody known: the nonce is spent, and a refusal is a record.
        self.nonces.redeem(request.nonce, now)
        try:
            claimant = self._same_instance(former, manifest)
            reasons = decide_former(
                former,
                public_key=subject_key.der,
                grace=self._config.lifetimes.grace,
                now=now,
            )
            details = {DETAIL: former.svid.serial}
            grant = self.grants(claimant, now, reasons=reasons, details=details)(subject_key)
            return await self._x509.issue(grant)
        except Refusal as refusal:
            await self._refusals.record(former.svid.spiffe_id, "attestation", refusal)
            raise

    def _same_instance(self, former: FormerSvid, manifest: VerifiedManifest) -> Claimant:
        """Whom an SVID that is over is of, if that is who attests.

        Raises:
            Refusal: not an agent's, of an instance of a node, or of another manifest.
        """
        claimant = claimant_of(self._parts.registry, former.svid)
        self._check_renews_itself(claimant.instance)
        if manifest.digest != claimant.manifest.digest:
            raise Refusal(
                Kind.ATTESTATION_REFUSED,
                f"the instance {claimant.instance} is of the manifest "
                f"{claimant.manifest.digest}: another one takes a join token",
            )
        return claimant

    def _check_renews_itself(self, instance: str) -> None:
        """Decide whether an instance may renew without a node.

        Raises:
            Refusal: a node measured it, and has to measure it each time.
        """
        node = self._parts.registry.instance(instance).node
        if node is not None:
            raise Refusal(
                Kind.FORBIDDEN,
                f"the instance {instance} runs on the node {node}, which alone renews it",
            )

    async def renew(self, svid: X509Svid, csr: str, evidence: Sequence[Any]) -> SignedLeaf:
        """The next X.509-SVID of an instance, for a new key.

        Raises:
            Refusal: what runs is not what was signed any more, or it may not be renewed.
            Unavailable: it could not be recorded or signed.
        """
        now = self._parts.clock()
        claimant = claimant_of(self._parts.registry, svid)
        self._check_renews_itself(claimant.instance)
        subject_key = await self._key_of_request(csr)
        self._attest_again(claimant, svid, evidence, now)
        return await self._x509.issue(self.grants(claimant, now)(subject_key))

    async def renew_all(
        self, svid: X509Svid, csrs: Sequence[str], evidence: Sequence[Any]
    ) -> list[SignedLeaf]:
        """X.509-SVIDs of an instance for several new keys: all of them, or none.

        Raises:
            Refusal: as ``renew``; or two requests have one key.
            Unavailable: it could not be recorded or signed.
        """
        now = self._parts.clock()
        claimant = claimant_of(self._parts.registry, svid)
        self._check_renews_itself(claimant.instance)
        self._attest_again(claimant, svid, evidence, now)
        keys: list[SubjectKey] = []
        for number, csr in enumerate(csrs, start=1):
            keys.append(key_of_request(csr))
            if not number % AT_ONCE:
                await asyncio.sleep(0)  # others are asking too
        if len({key.der for key in keys}) != len(keys):
            raise Refusal(Kind.MALFORMED, "csrs must have a key of their own each")
        decide = self.grants(claimant, now)
        return await self._x509.issue_all([decide(key) for key in keys])

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

    def grants(
        self,
        claimant: Claimant,
        now: datetime,
        *,
        reasons: tuple[str, ...] = (),
        details: Mapping[str, Any] | None = None,
    ) -> Callable[[SubjectKey], X509Grant]:
        """Decide about an agent's X.509-SVID; what was decided holds for any key of it.

        ``reasons`` and ``details`` are added to those of the record.

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
            profile=self._profile,
            ca=ca,
            subject_key=subject_key,
            spiffe_id=spiffe_id,
            instance=claimant.instance,
            expires_at=granted.expires_at,
            now=now,
            reasons=(*granted.reasons, *reasons),
            manifest=claimant.manifest.digest,
            marks=claimant.marks,
            details=details or {},
        )

"""X.509-SVIDs of nodes: by attestation, by the key of a former one, and by renewal.

A node attests by the kind of evidence that it was listed with, and by nothing else; an SVID of its
that is over counts whatever that kind is (``former``). An SVID of a node says nothing of what it
may run: that is asked at each request (``node_instances``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from accredit_attestors.contract import Evidence
from accredit_attestors.errors import AttestationError
from accredit_attestors.former_svid import KIND as FORMER_SVID
from accredit_attestors.former_svid import serial_of
from accredit_attestors.nodes.contract import NodeAttested, NodeVerifyContext
from accredit_attestors.nodes.join_token import KIND as JOIN_TOKEN
from accredit_attestors.nodes.join_token import token_of
from accredit_credentials.keys import SubjectKey
from accredit_credentials.leaf_der import SignedLeaf
from accredit_credentials.spiffe_id import node_id
from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.audit.records import Record, RecordKind
from accredit_issuer.authority.profile import Profile
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.attestation import parse_evidence, refusal_of
from accredit_issuer.issuance.decision import check_not_revoked
from accredit_issuer.issuance.former import DETAIL, Formers, FormerSvid, decide_former
from accredit_issuer.issuance.nonces import Nonces
from accredit_issuer.issuance.parts import Parts
from accredit_issuer.issuance.refusals import Refusals
from accredit_issuer.issuance.together import Together
from accredit_issuer.issuance.x509_signing import X509Grant, X509Signing, end_of
from accredit_issuer.registry.nodes import Node, Nodes, check_listed
from accredit_issuer.store.writer import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAttestationRequest:
    """Which node, a key, and evidence for a nonce."""

    node: str
    nonce: str
    csr: str
    evidence: Sequence[Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProof:
    """Evidence that holds: what it proves, and the SVID that it is about, if one."""

    attested: NodeAttested
    token_id: str | None = None
    former: FormerSvid | None = None


def choose_evidence(evidence: Mapping[str, Evidence], node: Node) -> Evidence:
    """The one piece of evidence by which a node attests.

    Raises:
        Refusal: none, several, or of a kind that does not count for this node.
    """
    if len(evidence) != 1:
        raise Refusal(Kind.MALFORMED, "a node's evidence must be one")
    (shown,) = evidence.values()
    if shown.kind not in {node.attestation, FORMER_SVID}:
        raise Refusal(
            Kind.ATTESTATION_REFUSED, f"the node {node.name} attests by {node.attestation}"
        )
    return shown


class NodeSvids:
    """Issues the X.509-SVIDs of nodes."""

    def __init__(
        self,
        parts: Parts,
        x509: X509Signing,
        key_of_request: Together[str, SubjectKey],
        *,
        refusals: Refusals,
        nonces: Nonces,
    ) -> None:
        self._parts = parts
        self._config = parts.config
        self._x509 = x509
        self._key_of_request = key_of_request
        self._refusals = refusals
        self._nonces = nonces
        self._formers = Formers(parts.database)
        lifetimes = parts.config.lifetimes
        self._profile = Profile(
            trust_domain=parts.config.trust_domain,
            max_lifetime=lifetimes.x509_svid,
            backdate=lifetimes.backdate,
            replica=parts.config.replica,
            needs_manifest=False,
        )

    async def attest(self, request: NodeAttestationRequest) -> SignedLeaf:
        """A node's X.509-SVID, for evidence.

        Raises:
            Refusal: the nonce, the evidence or the key does not hold, or a fact is against it.
            Unavailable: it could not be recorded or signed.
        """
        now = self._parts.clock()
        self._nonces.check(request.nonce, now)
        evidence = parse_evidence(request.evidence)
        subject_key = await self._key_of_request(request.csr)
        node = self._parts.nodes.known(request.node)
        if node is None:
            raise Refusal(Kind.ATTESTATION_REFUSED, f"no node {request.node[:63]!r} is listed")
        proof = self._verify(choose_evidence(evidence, node), node, subject_key, request, now)
        # From here on it is somebody known: the nonce is spent, and a refusal is a record.
        self._nonces.redeem(request.nonce, now)
        try:
            return await self._issue_proved(node, proof, subject_key, now)
        except Refusal as refusal:
            await self._refusals.record(f"node:{node.name}", "node attestation", refusal)
            raise

    async def renew(self, svid: X509Svid, csr: str) -> SignedLeaf:
        """A node's next SVID, for a new key.

        Raises:
            Refusal: it is not listed any more, revoked, or the key is not accepted.
            Unavailable: it could not be recorded or signed.
        """
        node = listed_node(self._parts.nodes, svid)
        subject_key = await self._key_of_request(csr)
        grant = self._grant(
            node,
            subject_key,
            self._parts.clock(),
            reasons=(f"the node {node.name} showed its SVID {svid.serial}",),
            marks=svid.marks(),
        )
        return await self._x509.issue(grant, beside=lambda t: check_listed(t, node))

    def _verify(
        self,
        shown: Evidence,
        node: Node,
        subject_key: SubjectKey,
        request: NodeAttestationRequest,
        now: datetime,
    ) -> NodeProof:
        try:
            token = token_of(shown) if shown.kind == JOIN_TOKEN else None
            known = None if token is None else self._parts.nodes.join_token(token.id)
            former = self._formers.find(serial_of(shown)) if shown.kind == FORMER_SVID else None
            context = NodeVerifyContext(
                trust_domain=self._config.trust_domain,
                nonce=request.nonce,
                now=now,
                public_key=subject_key.der,
                node=node.listed,
                join_token=known,
                former=None if former is None else former.record,
            )
            attested = self._parts.node_attestors[shown.kind].verify(shown, context)
        except AttestationError as error:
            raise refusal_of(error) from None
        return NodeProof(
            attested=attested, token_id=None if token is None else token.id, former=former
        )

    async def _issue_proved(
        self, node: Node, proof: NodeProof, subject_key: SubjectKey, now: datetime
    ) -> SignedLeaf:
        reasons = [f"the node {node.name} attested by {proof.attested.kind}"]
        details: dict[str, Any] = {}
        if proof.former is not None:
            reasons += decide_former(
                proof.former,
                public_key=subject_key.der,
                grace=self._config.lifetimes.grace,
                now=now,
            )
            if proof.former.instance != node.instance:
                raise Refusal(
                    Kind.ATTESTATION_REFUSED, f"the node {node.name} was removed and listed anew"
                )
            details[DETAIL] = proof.former.svid.serial
        grant = self._grant(
            node, subject_key, now, reasons=tuple(reasons), marks=(), details=details
        )

        def attested(transaction: Transaction) -> None:
            check_listed(transaction, node)
            if proof.token_id is not None:
                self._parts.nodes.spend(transaction, proof.token_id, node)
            transaction.record(
                Record(
                    kind=RecordKind.NODE_ATTESTED,
                    at=now,
                    actor=str(grant.spiffe_id),
                    subject=node.name,
                    details={
                        "instance": node.instance,
                        "attestation": proof.attested.kind,
                        "selectors": list(proof.attested.selectors),
                        "join_token": proof.token_id,
                    },
                )
            )

        return await self._x509.issue(grant, beside=attested)

    def _grant(
        self,
        node: Node,
        subject_key: SubjectKey,
        now: datetime,
        *,
        reasons: tuple[str, ...],
        marks: tuple[str, ...],
        details: Mapping[str, Any] | None = None,
    ) -> X509Grant:
        """Decide about a node's X.509-SVID.

        Raises:
            Refusal: a fact is against it.
        """
        marks = (*node.marks, *marks)
        check_not_revoked(marks, self._parts.revocation.facts)
        ca = self._x509.issuing_ca()
        ends = min(now + self._config.lifetimes.x509_svid, end_of(ca))
        return X509Grant(
            profile=self._profile,
            ca=ca,
            subject_key=subject_key,
            spiffe_id=node_id(self._config.trust_domain, node.name),
            instance=node.instance,
            expires_at=ends.replace(microsecond=0),
            now=now,
            reasons=(*reasons, "no revocation fact matches"),
            marks=marks,
            details=details or {},
        )


def listed_node(nodes: Nodes, svid: X509Svid) -> Node:
    """What is known of the node that holds an SVID.

    Raises:
        Refusal: not a node's, or not listed any more.
    """
    match svid.spiffe_id.segments:
        case ("node", name):
            node = nodes.known(name)
            if node is None or node.instance != svid.instance:
                raise Refusal(Kind.FORBIDDEN, f"the node {name} is not listed any more")
            return node
    raise Refusal(Kind.FORBIDDEN, f"{svid.spiffe_id} is not a node")

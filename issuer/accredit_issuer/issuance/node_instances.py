"""Instances that a node runs: the node measured the code, asks, and alone renews.

``decide`` is the decision about one request: the agent's namespace is one of the node's, the code
that the node measured is the manifest's, and a renewal is of this node's own instance for the same
manifest. What holds for every agent (the manifest is valid, nothing is revoked, the assurance is
enough) is decided after it, as for an agent that asks itself. That the node is listed still, for
this namespace, is asked once more where the intent is recorded.
"""

import asyncio
import hmac
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import insert

from accredit_attestors.levels import Assurance
from accredit_attestors.signing import VerifiedManifest
from accredit_credentials.leaf_der import SignedLeaf
from accredit_credentials.x509_svid import X509Svid, identity_marks
from accredit_issuer.audit.records import Record, RecordKind
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.agent_svids import AT_ONCE, AgentSvids
from accredit_issuer.issuance.csr import key_of_request
from accredit_issuer.issuance.decision import Claimant, check_not_revoked, check_text
from accredit_issuer.issuance.node_svids import listed_node
from accredit_issuer.issuance.parts import Parts
from accredit_issuer.issuance.x509_signing import X509Grant, X509Signing
from accredit_issuer.registry.nodes import CodeChange, Node, NodeActor, check_listed
from accredit_issuer.registry.registry import Instance
from accredit_issuer.revocation.stated import stated_against
from accredit_issuer.store.models import instances
from accredit_issuer.store.writer import Transaction

MAX_SELECTORS = 64
MAX_SELECTOR_LENGTH = 1024
MAX_CHANGE_REASON = 300

# What a node can say of a process. Others are the issuer's own words, or an attestor's.
SELECTOR_KINDS = frozenset({"unix", "systemd", "container", "launched"})

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceAsked:
    """What a node asks for one process.

    Attributes:
        csr: with the key that is to be certified.
        manifest: the digest of the manifest that the process is to be of.
        code: the digest that the node measured.
        selectors: what it saw of the process, at the birth of an instance.
        instance: the instance that is renewed; None for a new one.
    """

    csr: str = field(repr=False)
    manifest: str
    code: str
    selectors: tuple[str, ...] = ()
    instance: str | None = None


@dataclass(frozen=True, slots=True)
class _Decided:
    """A request that was granted, and what its instance is born with; None at a renewal."""

    grant: X509Grant
    namespace: str
    birth: dict[str, object] | None


def decide(
    asked: InstanceAsked, node: Node, manifest: VerifiedManifest, known: Instance | None
) -> None:
    """Decide whether a node may have this instance; ``known`` is the one that is to be renewed.

    Raises:
        Refusal: another namespace, other code, another node's instance, or of another manifest.
    """
    agent = manifest.manifest.agent
    if agent.namespace not in node.namespaces:
        raise Refusal(
            Kind.FORBIDDEN, f"the node {node.name} may not run agents of {agent.namespace}"
        )
    declared = manifest.manifest.code.digest
    if not hmac.compare_digest(asked.code.encode(), declared.encode()):
        raise Refusal(
            Kind.ATTESTATION_REFUSED,
            f"code measures {asked.code}, the manifest declares {declared}",
        )
    if asked.instance is None:
        if not asked.selectors:
            raise Refusal(Kind.MALFORMED, "selectors must say what was seen of the process")
        return
    if asked.selectors:
        raise Refusal(Kind.MALFORMED, "selectors belong to the birth of an instance")
    if (
        known is None
        or known.id != asked.instance
        or known.node != node.name
        or known.born_at < node.listed_at
    ):
        raise Refusal(
            Kind.FORBIDDEN, f"the instance {asked.instance} is not one of the node {node.name}"
        )
    if known.manifest != manifest.digest:
        raise Refusal(
            Kind.ATTESTATION_REFUSED,
            f"the instance {known.id} is of the manifest {known.manifest}: another one is another "
            "instance",
        )


def check_form(asked: InstanceAsked) -> None:
    """Decide whether a request says what it can say.

    Raises:
        Refusal: a digest or a selector has another form, or there are too many.
    """
    for name, digest in (("manifest", asked.manifest), ("code", asked.code)):
        if not _DIGEST.fullmatch(digest):
            raise Refusal(Kind.MALFORMED, f"{name} must be sha256: and 64 hexadecimal digits")
    if len(set(asked.selectors)) != len(asked.selectors) or len(asked.selectors) > MAX_SELECTORS:
        raise Refusal(Kind.MALFORMED, f"selectors must be at most {MAX_SELECTORS}, each once")
    for selector in asked.selectors:
        check_text("selector", selector, MAX_SELECTOR_LENGTH)
        kind, _, value = selector.partition(":")
        if kind not in SELECTOR_KINDS or not value:
            raise Refusal(
                Kind.MALFORMED, f"selectors must be of {', '.join(sorted(SELECTOR_KINDS))}"
            )


class NodeInstances:
    """Issues the X.509-SVIDs of what nodes run."""

    def __init__(self, parts: Parts, x509: X509Signing, agents: AgentSvids) -> None:
        self._parts = parts
        self._x509 = x509
        self._agents = agents

    async def issue(self, svid: X509Svid, asked: InstanceAsked) -> SignedLeaf:
        """The X.509-SVID of one instance, for the node that holds ``svid``.

        Raises:
            Refusal: not a listed node, or it may not have it.
            Unavailable: it could not be recorded or signed.
        """
        (outcome,) = await self.issue_all(svid, [asked])
        if isinstance(outcome, Refusal):
            raise outcome
        return outcome

    async def issue_all(
        self, svid: X509Svid, asked: Sequence[InstanceAsked]
    ) -> list[SignedLeaf | Refusal]:
        """As ``issue`` for several; each is decided by itself, what is granted is one release.

        Raises:
            Refusal: not a listed node; two with one key or one instance; a fact came in between.
            Unavailable: it could not be recorded or signed.
        """
        now = self._parts.clock()
        node = listed_node(self._parts.nodes, svid)
        decided: list[_Decided | Refusal] = []
        for number, each in enumerate(asked, start=1):
            try:
                decided.append(self._decide(node, svid, each, now))
            except Refusal as refusal:
                decided.append(refusal)
            if not number % AT_ONCE:
                await asyncio.sleep(0)  # others are asking too
        granted = [each for each in decided if isinstance(each, _Decided)]
        _check_apart(granted)
        leaves = iter(await self._issue(node, svid, granted, now) if granted else [])
        return [each if isinstance(each, Refusal) else next(leaves) for each in decided]

    def changed(self, svid: X509Svid, instance: str, *, reason: str, measured: str | None) -> bool:
        """Suspend an instance whose code changed, as its node says; blocks until it is durable.

        Returns whether it was neither suspended nor revoked before.

        Raises:
            Refusal: not a listed node, or not an instance of it.
            Unavailable: it could not be recorded.
        """
        check_text("reason", reason, MAX_CHANGE_REASON)
        node = listed_node(self._parts.nodes, svid)
        known = self._known(instance)
        if known is None or known.node != node.name:
            raise Refusal(Kind.FORBIDDEN, f"{instance!r} is not one of the node {node.name}")
        declared = self._parts.registry.manifest(known.manifest).manifest.code.digest
        return self._parts.nodes.code_changed(
            CodeChange(instance=known.id, reason=reason, measured=measured, declared=declared),
            by=NodeActor(name=str(svid.spiffe_id), node=node, marks=svid.marks()),
            now=self._parts.unguarded_clock(),
        )

    def _decide(self, node: Node, svid: X509Svid, asked: InstanceAsked, now: datetime) -> _Decided:
        check_form(asked)
        manifest = self._parts.registry.manifest(asked.manifest)
        known = None if asked.instance is None else self._known(asked.instance)
        decide(asked, node, manifest, known)
        if known is not None:
            self._check_stands(known.id)
        agent = manifest.manifest.agent
        instance = asked.instance or str(uuid.uuid4())
        claimant = Claimant(
            manifest=manifest,
            instance=instance,
            assurance=Assurance.NODE,
            not_after=None,
            marks=(
                f"signer:{manifest.signer}",
                f"owner:{manifest.manifest.owner}",
                f"manifest:{manifest.digest}",
                *identity_marks(agent.spiffe_id(self._parts.config.trust_domain)),
                *((f"instance:{instance}",) if known is not None else ()),
                # Nothing is given to a node against which, or against whose SVID, there is a fact.
                *node.marks,
                *svid.marks(),
            ),
        )
        grant = self._agents.grants(
            claimant,
            now,
            reasons=(f"the node {node.name} measured the declared code",),
            details={"node": node.name},
        )(key_of_request(asked.csr))
        birth: dict[str, object] | None = None
        if known is None:
            birth = {
                "id": instance,
                "agent": str(agent),
                "manifest": manifest.digest,
                "selectors": [*asked.selectors, f"code:{asked.code}"],
            }
        return _Decided(grant, agent.namespace, birth)

    def _check_stands(self, instance: str) -> None:
        """Decide whether an instance may go on, whose last SVID may be over for long.

        A fact about it left the memory when nothing that it matched was alive any more. A renewal
        by a node needs no living SVID, so that the table is asked.

        Raises:
            Refusal: it was revoked, or is suspended.
        """
        mark = f"instance:{instance}"
        with self._parts.database.read() as connection:
            check_not_revoked((mark,), stated_against(connection, (mark,)))

    async def _issue(
        self, node: Node, svid: X509Svid, granted: Sequence[_Decided], now: datetime
    ) -> list[SignedLeaf]:
        def beside(transaction: Transaction) -> None:
            check_listed(transaction, node, *(each.namespace for each in granted))
            for each in granted:
                if each.birth is not None:
                    _born(transaction, each.birth, node, str(svid.spiffe_id), now)

        return await self._x509.issue_all([each.grant for each in granted], beside=beside)

    def _known(self, instance: str) -> Instance | None:
        try:
            return self._parts.registry.instance(instance)
        except Refusal:
            return None


def _born(
    transaction: Transaction, birth: dict[str, object], node: Node, actor: str, now: datetime
) -> None:
    index = transaction.record(
        Record(
            kind=RecordKind.INSTANCE_ATTESTED,
            at=now,
            actor=actor,
            subject=str(birth["id"]),
            details={
                "manifest": birth["manifest"],
                "assurance": str(Assurance.NODE),
                "selectors": birth["selectors"],
                "node": node.name,
            },
        )
    )
    transaction.execute(
        insert(instances).values(
            **birth, assurance=str(Assurance.NODE), born_at=now, log_index=index, node=node.name
        )
    )


def _check_apart(granted: Sequence[_Decided]) -> None:
    """Decide whether requests of one call are about different keys and instances.

    Raises:
        Refusal: two have one in common.
    """
    for name, values in (
        ("key", [each.grant.subject_key.der for each in granted]),
        ("instance", [each.grant.instance for each in granted]),
    ):
        if len(set(values)) != len(values):
            raise Refusal(Kind.MALFORMED, f"requests must be of different {name}s")

"""Nodes: hosts with a node daemon, which an admin listed, and how far each may go.

Kept here: who is listed, with which namespaces and by which evidence; the one-use tokens of those
that attest by one. Every change is one transaction with its record. A node has an ``instance`` (a
UUID) in all of its SVIDs: listed again after it was removed it gets another, so that what the first
one had stays ended. Removing a node revokes its SVIDs and all that runs there, by facts about
instances: the name stays free. ``revoke node:<name>`` ends the name itself.

That a node may run an agent is decided in ``issuance.node_instances``.
"""

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from accredit_attestors.errors import AttestationError
from accredit_attestors.nodes import former_svid, x509pop
from accredit_attestors.nodes.contract import ListedNode, NodeJoinTokenRecord
from accredit_attestors.nodes.join_token import KIND as JOIN_TOKEN
from accredit_attestors.nodes.join_token import NodeJoinToken
from accredit_credentials.errors import InvalidSpiffeId
from accredit_credentials.revocation import FactKind, FactSet, Target, TargetKind
from accredit_credentials.spiffe_id import check_name, node_id
from accredit_issuer.audit.records import Record, RecordKind, written_moment
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.decision import check_not_revoked
from accredit_issuer.registry.administration import Invitation
from accredit_issuer.registry.changes import Actor, Changes
from accredit_issuer.registry.listing import text_of
from accredit_issuer.revocation.expansion import living_on
from accredit_issuer.revocation.revocation import Revocation
from accredit_issuer.revocation.stated import FactRequest
from accredit_issuer.settings import Config
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import credentials, instances, node_join_tokens, nodes
from accredit_issuer.store.writer import Transaction

MAX_NAMESPACES = 64  # of one node
RESERVED = frozenset({"instances", "attestations"})  # paths of the API beside the nodes' names


@dataclass(frozen=True, kw_only=True)
class Node:
    """A listed node.

    Attributes:
        name: as in its SPIFFE ID.
        instance: a UUID, in all of its SVIDs.
        attestation: the kind of evidence by which it attests.
        namespaces: whose agents may run there.
        ca: the site's CA certificates in PEM, for ``x509pop``.
        certificate: which certificate of that CA is the node's.
        listed_at: since when; what is older under its name was another node's.
    """

    name: str
    instance: str
    attestation: str
    namespaces: tuple[str, ...]
    listed_at: datetime
    ca: str | None = field(default=None, repr=False)
    certificate: str | None = None

    @cached_property
    def listed(self) -> ListedNode:
        """As verifiers of evidence take it.

        Raises:
            InvalidEvidence: the CA in its row cannot be read.
        """
        return ListedNode(
            name=self.name,
            kind=self.attestation,
            authorities=() if self.ca is None else x509pop.load_authorities(self.ca),
            certificate=self.certificate,
        )

    @property
    def marks(self) -> tuple[str, ...]:
        """What a revocation fact about the node can match."""
        return (f"node:{self.name}", f"instance:{self.instance}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAsked:
    """A node that an admin wants to list."""

    name: str
    attestation: str
    namespaces: tuple[str, ...]
    ca: str | None = field(default=None, repr=False)
    certificate: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeActor(Actor):
    """A node that says something of what runs there.

    Attributes:
        name: its SPIFFE ID.
        node: what is known of it.
        marks: what a fact about the SVID that it showed can match.
    """

    name: str
    node: Node
    marks: tuple[str, ...] = field(repr=False)

    def check(self, transaction: Transaction, facts: FactSet) -> None:
        """Ask for facts and its row again.

        Raises:
            Refusal: a fact is against it, or it is not listed any more.
        """
        check_not_revoked((*self.marks, *self.node.marks), facts)
        check_listed(transaction, self.node)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeChange:
    """What a node found.

    Attributes:
        instance: the instance's id.
        reason: in its words.
        measured: the digest, where the code could be measured.
        declared: the digest in the instance's manifest.
    """

    instance: str
    reason: str
    measured: str | None
    declared: str


def check_asked(asked: NodeAsked, kinds: frozenset[str]) -> None:
    """Decide whether such a node can be listed at all; ``kinds`` of evidence are installed.

    Raises:
        Refusal: a name, a namespace, a kind of evidence or what belongs to it is wrong.
    """
    try:
        check_name(asked.name, "node name")
    except InvalidSpiffeId as error:
        raise Refusal(Kind.MALFORMED, str(error)) from None
    if asked.name in RESERVED:
        raise Refusal(Kind.MALFORMED, f"no node can be called {asked.name}")
    check_namespaces(asked.namespaces)
    if asked.attestation not in kinds - {former_svid.KIND}:
        known = ", ".join(sorted(kinds - {former_svid.KIND}))
        raise Refusal(Kind.MALFORMED, f"attestation must be one of {known}")
    by_certificate = asked.attestation == x509pop.KIND
    if by_certificate != (asked.ca is not None) or by_certificate != (
        asked.certificate is not None
    ):
        raise Refusal(
            Kind.MALFORMED, "ca and certificate belong to the attestation x509pop, which needs both"
        )
    if asked.ca is None or asked.certificate is None:
        return
    try:
        x509pop.check_authorities(x509pop.load_authorities(asked.ca))
        x509pop.check_rule(asked.certificate)
    except AttestationError as error:
        raise Refusal(Kind.MALFORMED, str(error)) from None


def check_namespaces(namespaces: tuple[str, ...]) -> None:
    """Decide whether these can be a node's namespaces.

    Raises:
        Refusal: none, too many, one twice, or a name that is none.
    """
    if not 1 <= len(set(namespaces)) == len(namespaces) <= MAX_NAMESPACES:
        raise Refusal(
            Kind.MALFORMED, f"namespaces must name 1 to {MAX_NAMESPACES} namespaces, each once"
        )
    try:
        for namespace in namespaces:
            check_name(namespace, "namespace")
    except InvalidSpiffeId as error:
        raise Refusal(Kind.MALFORMED, str(error)) from None


def check_listed(transaction: Transaction, node: Node, *namespaces: str) -> None:
    """Decide, where nothing comes in between, whether a node is listed still, for namespaces.

    Raises:
        Refusal: it was removed, or a namespace was taken from it.
    """
    row = transaction.execute(select(nodes).where(nodes.c.name == node.name)).first()
    if row is None or row.instance != node.instance:
        raise Refusal(Kind.FORBIDDEN, f"the node {node.name} is not listed any more")
    if missing := sorted(set(namespaces) - set(row.namespaces)):
        raise Refusal(Kind.FORBIDDEN, f"the node {node.name} may not run {', '.join(missing)}")


class Nodes:
    """The nodes of one issuer."""

    def __init__(
        self,
        config: Config,
        changes: Changes,
        database: Database,
        revocation: Revocation,
        kinds: frozenset[str],
    ) -> None:
        self._config = config
        self._changes = changes
        self._database = database
        self._revocation = revocation
        self._kinds = kinds
        self._known: dict[str, Node] | None = None
        self._version = 0

    # Look-ups

    def known(self, name: str) -> Node | None:
        """A listed node; None where there is none of the name."""
        known, version = self._known, self._version
        if known is None:
            with self._database.read() as connection:
                known = {row.name: _of(row) for row in connection.execute(select(nodes))}
            # One that changed while these were read is not forgotten again.
            if version == self._version:
                self._known = known
        return known.get(name)

    def one(self, name: str, now: datetime) -> dict[str, Any]:
        """One node, as JSON.

        Raises:
            Refusal: there is none of the name.
        """
        with self._database.read() as connection:
            row = connection.execute(select(nodes).where(nodes.c.name == name)).first()
            if row is None:
                raise _not_listed(name)
            return self._view(connection, row, now)

    def all(self, now: datetime) -> list[dict[str, Any]]:
        """All nodes by name, as JSON."""
        with self._database.read() as connection:
            rows = connection.execute(select(nodes).order_by(nodes.c.name)).all()
            return [self._view(connection, row, now) for row in rows]

    def join_token(self, token_id: str) -> NodeJoinTokenRecord | None:
        """What is kept of a node's join token; None where there is none."""
        with self._database.read() as connection:
            row = connection.execute(
                select(node_join_tokens).where(node_join_tokens.c.id == token_id)
            ).first()
        if row is None:
            return None
        return NodeJoinTokenRecord(row.id, row.secret_sha256, row.node, row.expires_at)

    @staticmethod
    def spend(transaction: Transaction, token_id: str, node: Node) -> None:
        """Use a join token up, for this node.

        Raises:
            Refusal: it was used before.
        """
        spent = transaction.execute(
            update(node_join_tokens)
            .where(node_join_tokens.c.id == token_id, node_join_tokens.c.redeemed_by.is_(None))
            .values(redeemed_by=node.instance)
        )
        if spent.rowcount != 1:
            raise Refusal(Kind.ATTESTATION_REFUSED, "the join token was used before")

    # Changes

    def add(self, asked: NodeAsked, *, by: Actor, now: datetime) -> None:
        """List a node.

        Raises:
            Refusal: wrong values, or the name is listed with other ones.
            Unavailable: it could not be recorded.
        """
        check_asked(asked, self._kinds)
        instance = str(uuid.uuid4())
        values = {
            "attestation": asked.attestation,
            "namespaces": list(asked.namespaces),
            "ca": asked.ca,
            "certificate": asked.certificate,
        }

        def work(transaction: Transaction) -> None:
            row = transaction.execute(select(nodes).where(nodes.c.name == asked.name)).first()
            if row is not None:
                if all(getattr(row, name) == value for name, value in values.items()):
                    return
                raise Refusal(
                    Kind.CONFLICT,
                    f"the node {asked.name} is listed with other values: change or remove it",
                )
            index = transaction.record(
                Record(
                    kind=RecordKind.NODE_ADDED,
                    at=now,
                    actor=by.name,
                    subject=asked.name,
                    details={"instance": instance, **values},
                )
            )
            transaction.execute(
                insert(nodes).values(
                    name=asked.name,
                    instance=instance,
                    created_at=now,
                    created_by=by.name,
                    log_index=index,
                    **values,
                )
            )
            transaction.after_commit(self._changed)

        self._changes.make(work, by=by, about=(f"node:{asked.name}",))

    def change(self, name: str, namespaces: tuple[str, ...], *, by: Actor, now: datetime) -> None:
        """Say anew whose agents may run on a node. What runs there of others is not renewed.

        Raises:
            Refusal: wrong values, or no such node.
            Unavailable: it could not be recorded.
        """
        check_namespaces(namespaces)

        def work(transaction: Transaction) -> None:
            row = transaction.execute(select(nodes).where(nodes.c.name == name)).first()
            if row is None:
                raise _not_listed(name)
            if tuple(row.namespaces) == namespaces:
                return
            transaction.record(
                Record(
                    kind=RecordKind.NODE_CHANGED,
                    at=now,
                    actor=by.name,
                    subject=name,
                    details={"namespaces": list(namespaces)},
                )
            )
            transaction.execute(
                update(nodes).where(nodes.c.name == name).values(namespaces=list(namespaces))
            )
            transaction.after_commit(self._changed)

        self._changes.make(work, by=by, about=(f"node:{name}",))

    def remove(self, name: str, *, by: Actor, now: datetime) -> None:
        """List a node no more: its SVIDs and all that runs there are revoked with it.

        Raises:
            Refusal: there is none of the name.
            Unavailable: it could not be recorded.
        """

        def work(transaction: Transaction) -> None:
            row = transaction.execute(select(nodes).where(nodes.c.name == name)).first()
            if row is None:
                raise _not_listed(name)
            self._revoke_all(transaction, _of(row), by, now)
            transaction.record(
                Record(
                    kind=RecordKind.NODE_REMOVED,
                    at=now,
                    actor=by.name,
                    subject=name,
                    details={"instance": row.instance},
                )
            )
            transaction.execute(delete(nodes).where(nodes.c.name == name))
            transaction.after_commit(self._changed)

        self._changes.make(work, by=by, alone=True)

    def enrol(self, name: str, ttl_seconds: int | None, *, by: Actor, now: datetime) -> Invitation:
        """Make a join token for a node that attests by one.

        Raises:
            Refusal: no such node, it attests by something else, or an impossible lifetime.
            Unavailable: it could not be recorded.
        """
        longest = self._config.lifetimes.join_token
        ttl = longest if ttl_seconds is None else timedelta(seconds=ttl_seconds)
        if not timedelta(seconds=1) <= ttl <= longest:
            raise Refusal(Kind.MALFORMED, f"ttl_seconds must be 1 to {longest.total_seconds():.0f}")
        token = NodeJoinToken.new()
        expires_at = (now + ttl).replace(microsecond=0)

        def work(transaction: Transaction) -> None:
            row = transaction.execute(select(nodes).where(nodes.c.name == name)).first()
            if row is None:
                raise _not_listed(name)
            if row.attestation != JOIN_TOKEN:
                raise Refusal(
                    Kind.CONFLICT, f"the node {name} attests by {row.attestation}, without a token"
                )
            index = transaction.record(
                Record(
                    kind=RecordKind.NODE_ENROLLED,
                    at=now,
                    actor=by.name,
                    subject=name,
                    details={"join_token": token.id, "expires_at": written_moment(expires_at)},
                )
            )
            transaction.execute(
                insert(node_join_tokens).values(
                    id=token.id,
                    secret_sha256=token.fingerprint,
                    node=name,
                    expires_at=expires_at,
                    created_by=by.name,
                    log_index=index,
                )
            )

        self._changes.make(work, by=by, about=(f"node:{name}",))
        return Invitation(text=token.reveal(), id=token.id, expires_at=expires_at)

    def code_changed(self, change: CodeChange, *, by: NodeActor, now: datetime) -> bool:
        """Suspend an instance whose code changed, as its node says. Said twice it is no error.

        Returns whether it was neither suspended nor revoked before. What was suspended for another
        reason gets the record all the same.

        Raises:
            Refusal: the node is not listed any more.
            Unavailable: it could not be recorded.
        """
        target = Target(TargetKind.INSTANCE, change.instance)

        def work(transaction: Transaction) -> bool:
            standing = self._revocation.standing(transaction, target)
            said = f"code changed on the node {by.node.name}: "
            if standing is not None and (
                standing.kind is FactKind.REVOKED or standing.reason.startswith(said)
            ):
                return False
            transaction.record(
                Record(
                    kind=RecordKind.INSTANCE_CHANGED,
                    at=now,
                    actor=by.name,
                    subject=change.instance,
                    details={
                        "node": by.node.name,
                        "reason": change.reason,
                        "measured": change.measured,
                        "declared": change.declared,
                    },
                )
            )
            if standing is not None:
                return False  # suspended for another reason: whoever ends that finds the record
            request = FactRequest(
                target=target,
                kind=FactKind.SUSPENDED,
                reason=f"{said}{change.reason}",
                actor=by,
            )
            self._revocation.state_within(transaction, request, now)
            return True

        return self._changes.make(work, by=by, alone=True)

    def _revoke_all(self, transaction: Transaction, node: Node, by: Actor, now: datetime) -> None:
        since = self._revocation.living_since(now)
        own = transaction.execute(
            select(func.count())
            .select_from(credentials)
            .where(credentials.c.instance == node.instance, credentials.c.expires_at > since)
        ).scalar()
        living = [*([node.instance] if own else []), *living_on(transaction, node.name, since)]
        ended = self._revocation.facts
        targets = [
            Target(TargetKind.INSTANCE, each)
            for each in living
            if (known := ended.match([f"instance:{each}"])) is None
            or known.kind is not FactKind.REVOKED
        ]
        if not targets:
            return
        request = FactRequest(
            target=targets[0],
            kind=FactKind.REVOKED,
            reason=f"the node {node.name} was removed",
            actor=by,
        )
        self._revocation.state_within(transaction, request, now, also=targets[1:])

    def _changed(self) -> None:
        self._version += 1
        self._known = None

    def _view(self, connection: Connection, row: Row[Any], now: datetime) -> dict[str, Any]:
        own = select(func.max(credentials.c.expires_at)).where(
            credentials.c.instance == row.instance, credentials.c.expires_at > now
        )
        running = (
            select(func.count(credentials.c.instance.distinct()))
            .join(instances, instances.c.id == credentials.c.instance)
            .where(
                instances.c.node == row.name,
                credentials.c.kind == "x509",
                credentials.c.expires_at > now,
            )
        )
        end = connection.scalar(own)
        fact = self._revocation.facts.match(_of(row).marks)
        return {
            "name": row.name,
            "spiffe_id": str(node_id(self._config.trust_domain, row.name)),
            "attestation": row.attestation,
            "namespaces": row.namespaces,
            "ca": row.ca,
            "certificate": row.certificate,
            "created_at": text_of(row.created_at),
            "created_by": row.created_by,
            "state": "active" if fact is None else fact.kind.value,
            "svid_expires_at": None if end is None else text_of(end),
            "instances": connection.scalar(running),
        }


def _of(row: Row[Any]) -> Node:
    return Node(
        name=row.name,
        instance=row.instance,
        attestation=row.attestation,
        namespaces=tuple(row.namespaces),
        ca=row.ca,
        certificate=row.certificate,
        listed_at=row.created_at,
    )


def _not_listed(name: str) -> Refusal:
    return Refusal(Kind.NOT_FOUND, f"no node {name[:63]!r} is listed")

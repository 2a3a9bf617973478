"""Which rows of the state must have a record in the log, and what that record must say.

Each row that ``KEPT`` speaks of has the index of its record; the record names the row. So both
directions can be asked: does this row's record say what the row says, and is the row that this
record tells of still there. Secrets (of one-time tokens) are in no record: a changed one is not
found this way.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, Row, Select, Table, select

from accredit_credentials.errors import InvalidSpiffeId
from accredit_credentials.spiffe_id import AgentId, TrustDomain, node_id
from accredit_issuer.audit.recorded import Recorded
from accredit_issuer.audit.records import RecordKind, written_moment
from accredit_issuer.store.models import (
    credentials,
    facts,
    instances,
    join_tokens,
    log_leaves,
    manifests,
    node_join_tokens,
    releases,
    signers,
)

Said = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Rows of one table and their records.

    Attributes:
        record: the kind of their records.
        name: what one is called.
        key: the column that names a row.
        key_of: the same, as its record says it.
        indexes: key and index of the record, for ``key.in_(...)``.
    """

    record: RecordKind
    name: str
    key: Column[Any]
    key_of: Callable[[Recorded], object] = field(default=lambda record: record.subject)
    indexes: Select[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptTable(Kept):
    """The same, where the row says everything that the record does.

    Attributes:
        table: with a column ``log_index``.
        said: what the record must say, by member; given the row and the trust domain.
        newer: details that records of earlier versions do not have.
    """

    table: Table
    said: Callable[[Row[Any], TrustDomain], Said]
    newer: frozenset[str] = frozenset()

    def rows(self) -> Select[Any]:
        """Every row with the leaf at its index."""
        return select(self.table, log_leaves.c.leaf).outerjoin_from(
            self.table, log_leaves, log_leaves.c.index == self.table.c.log_index
        )

    def differences(self, row: Row[Any], record: Recorded, trust_domain: TrustDomain) -> list[str]:
        """Where the record says something else than the row."""
        said: dict[str, object] = {"kind": self.record, **self.said(row, trust_domain)}
        for name in self.newer - record.details.keys():
            del said[f"details.{name}"]
        return record.differences(said)

    def is_terse(self, record: Recorded) -> bool:
        """Whether a record is of an earlier version, and says less than its row."""
        return not self.newer <= record.details.keys()


def _signer(row: Row[Any], _trust_domain: TrustDomain) -> Said:
    return {
        "at": written_moment(row.created_at),
        "actor": row.created_by,
        "subject": row.name,
        "details.key_id": row.key_id,
        "details.namespaces": row.namespaces,
    }


def _manifest(row: Row[Any], _trust_domain: TrustDomain) -> Said:
    return {
        "at": written_moment(row.registered_at),
        "actor": row.registered_by,
        "subject": row.digest,
        "details.agent": row.agent,
        "details.version": row.version,
        "details.owner": row.owner,
        "details.signer": row.signer,
    }


def _instance(row: Row[Any], trust_domain: TrustDomain) -> Said:
    try:
        agent = AgentId.parse(row.agent).spiffe_id(trust_domain)
        actor = str(agent if row.node is None else node_id(trust_domain, row.node))
    except InvalidSpiffeId:
        actor = row.agent
    return {
        "at": written_moment(row.born_at),
        "actor": actor,
        "subject": row.id,
        "details.manifest": row.manifest,
        "details.assurance": row.assurance,
        "details.selectors": row.selectors,
        "details.node": row.node,
    }


def _join_token(row: Row[Any], _trust_domain: TrustDomain) -> Said:
    return {
        "actor": row.created_by,
        "subject": row.agent,
        "details.join_token": row.id,
        "details.expires_at": written_moment(row.expires_at),
    }


def _node_join_token(row: Row[Any], _trust_domain: TrustDomain) -> Said:
    return {
        "actor": row.created_by,
        "subject": row.node,
        "details.join_token": row.id,
        "details.expires_at": written_moment(row.expires_at),
    }


def _fact(row: Row[Any], _trust_domain: TrustDomain) -> Said:
    return {
        "at": written_moment(row.at),
        "actor": row.actor,
        "subject": row.target,
        "details.sequence": row.sequence,
        "details.fact": row.kind,
        "details.reason": row.reason,
        "details.expires_at": written_moment(row.expires_at),
    }


def _indexes(table: Table, key: Column[Any]) -> Select[Any]:
    return select(key.label("key"), table.c.log_index)


CREDENTIALS = Kept(
    record=RecordKind.CREDENTIAL_ISSUED,
    name="release of credential",
    key=credentials.c.id,
    indexes=select(credentials.c.id.label("key"), releases.c.log_index).join_from(
        credentials, releases, releases.c.number == credentials.c.number
    ),
)

TABLES = (
    KeptTable(
        record=RecordKind.SIGNER_ADDED,
        name="signer",
        key=signers.c.name,
        indexes=_indexes(signers, signers.c.name),
        table=signers,
        said=_signer,
    ),
    KeptTable(
        record=RecordKind.MANIFEST_REGISTERED,
        name="manifest",
        key=manifests.c.digest,
        indexes=_indexes(manifests, manifests.c.digest),
        table=manifests,
        said=_manifest,
    ),
    KeptTable(
        record=RecordKind.INSTANCE_ATTESTED,
        name="instance",
        key=instances.c.id,
        indexes=_indexes(instances, instances.c.id),
        table=instances,
        said=_instance,
    ),
    KeptTable(
        record=RecordKind.AGENT_ENROLLED,
        name="join token",
        key=join_tokens.c.id,
        key_of=lambda record: record.details.get("join_token"),
        indexes=_indexes(join_tokens, join_tokens.c.id),
        table=join_tokens,
        said=_join_token,
        newer=frozenset({"expires_at"}),
    ),
    KeptTable(
        record=RecordKind.NODE_ENROLLED,
        name="node join token",
        key=node_join_tokens.c.id,
        key_of=lambda record: record.details.get("join_token"),
        indexes=_indexes(node_join_tokens, node_join_tokens.c.id),
        table=node_join_tokens,
        said=_node_join_token,
    ),
    KeptTable(
        record=RecordKind.FACT_STATED,
        name="fact",
        key=facts.c.sequence,
        key_of=lambda record: record.details.get("sequence"),
        indexes=_indexes(facts, facts.c.sequence),
        table=facts,
        said=_fact,
        newer=frozenset({"expires_at"}),
    ),
)

KEPT: Mapping[str, Kept] = {kept.record: kept for kept in (CREDENTIALS, *TABLES)}

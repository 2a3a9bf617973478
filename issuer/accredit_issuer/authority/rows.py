"""Authorities as the database keeps them: a row each, the bundle's sequence number, a record.

One step of one or several authorities is one transaction: rows, sequence number and records agree
whenever the process dies.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from accredit_credentials.keys import PublicKey
from accredit_credentials.x509_svid import authority_key_id
from accredit_issuer.audit.records import Record, RecordKind, written_moment
from accredit_issuer.authority.lifecycle import AuthorityKind, Origin, Standing, State, Step
from accredit_issuer.store import models
from accredit_issuer.store.writer import Transaction

_SEQUENCE = "bundle.sequence"
_RECORD_OF = {
    Step.PREPARE: RecordKind.AUTHORITY_PREPARED,
    Step.ACTIVATE: RecordKind.AUTHORITY_ACTIVATED,
    Step.RETIRE: RecordKind.AUTHORITY_RETIRED,
    Step.TAINT: RecordKind.AUTHORITY_TAINTED,
    Step.REMOVE: RecordKind.AUTHORITY_REMOVED,
    Step.REVOKE: RecordKind.AUTHORITY_REVOKED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One authority as a step leaves it.

    Attributes:
        details: what else the record should say.
        public: certificate or public key in PEM, where the authority is new.
        chain: of a new issuing CA what is between it and the trust anchor, of a new root what is
            above it, PEM, nearest first.
    """

    standing: Standing
    step: Step
    details: Mapping[str, Any] = field(default_factory=dict)
    public: str | None = field(default=None, repr=False)
    chain: str = field(default="", repr=False)


def standing_of(row: Row[Any]) -> Standing:
    """What the life cycle needs to know of a row."""
    return Standing(
        id=row.id,
        kind=AuthorityKind(row.kind),
        state=State(row.state),
        prepared_at=row.prepared_at,
        activated_at=row.activated_at,
        retired_at=row.retired_at,
        tainted_at=row.tainted_at,
        removed_at=row.removed_at,
        expires_at=row.expires_at,
        parent=_parent_of(row),
        origin=Origin(row.origin),
    )


def sequence_of(connection: Connection) -> int:
    """The bundle's sequence number; 0 before the first."""
    value = connection.scalar(
        select(models.singletons.c.value).where(models.singletons.c.name == _SEQUENCE)
    )
    return int(value or 0)


def write(
    transaction: Transaction,
    changes: Sequence[Change],
    *,
    sequence: int,
    now: datetime,
    actor: str,
) -> None:
    """Write rows, records and the bundle's new sequence number."""
    for change in changes:
        _write_row(transaction, change)
        transaction.record(
            Record(
                kind=_RECORD_OF[change.step],
                at=now,
                actor=actor,
                subject=change.standing.id,
                details={
                    "kind": change.standing.kind.value,
                    "bundle_sequence": sequence,
                    **_made_of(change),
                    **change.details,
                },
            )
        )
    transaction.execute(
        upsert(models.singletons)
        .values(name=_SEQUENCE, value=str(sequence))
        .on_conflict_do_update(index_elements=["name"], set_={"value": str(sequence)})
    )


def _write_row(transaction: Transaction, change: Change) -> None:
    standing = change.standing
    table = models.authorities
    values: dict[str, Any] = {
        "state": standing.state.value,
        "activated_at": standing.activated_at,
        "retired_at": standing.retired_at,
        "tainted_at": standing.tainted_at,
        "removed_at": standing.removed_at,
    }
    if change.public is None:
        transaction.execute(update(table).where(table.c.id == standing.id).values(**values))
        return
    values |= {
        "kind": standing.kind.value,
        "public": change.public,
        "chain": change.chain,
        "origin": standing.origin.value,
        "parent": standing.parent,
        "prepared_at": standing.prepared_at,
        "expires_at": standing.expires_at,
    }
    if standing.kind is AuthorityKind.ROOT and standing.origin is Origin.PARENT:
        # The parent may take a root up again that it had dropped; nothing of ours comes back.
        statement = upsert(table).values(id=standing.id, **values)
        transaction.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))
        return
    transaction.execute(insert(table).values(id=standing.id, **values))


def _made_of(change: Change) -> dict[str, Any]:
    """What is said once, of an authority that is new: all that its row says and no step changes."""
    if change.public is None:
        return {}
    standing = change.standing
    return {
        "expires_at": written_moment(standing.expires_at),
        "origin": standing.origin.value,
        "parent": standing.parent,
        "public_sha256": public_digest(change.public, change.chain),
    }


def pem_of(certificates: Iterable[x509.Certificate]) -> str:
    """Certificates as a row has them, one after the other."""
    return "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in certificates)


def public_pem(public: PublicKey, certificate: x509.Certificate | None) -> str:
    """What a row has of an authority for others to know: its certificate, or its public key."""
    if certificate is not None:
        return pem_of([certificate])
    return public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def public_digest(public: str, chain: str) -> str:
    """What stands in a row for others to know, as its record has it: SHA-256 of the PEM, hex."""
    return hashlib.sha256(f"{public}{chain}".encode()).hexdigest()


def _parent_of(row: Row[Any]) -> str | None:
    if row.parent is not None or row.kind != AuthorityKind.X509.value:
        return row.parent  # type: ignore[no-any-return]
    # Made before parents were written down: its certificate names the key that signed it.
    return authority_key_id(x509.load_pem_x509_certificate(row.public.encode()))

"""Why a credential was allowed: every record of the log that its story is made of, with proofs.

The story of a credential: the signer was added, the manifest registered, the agent enrolled, the
instance attested, the credential issued, and what was said against any of them. Each record comes
with the proof that it is in the tree of the checkpoint, so that the reader needs to trust nobody.
"""

import base64
import json
from typing import Any

from sqlalchemy import Connection, Row, select

from accredit_credentials.spiffe_id import SpiffeId
from accredit_credentials.x509_svid import identity_marks
from accredit_issuer.audit.log import Log, LogReader
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.store.models import (
    credentials,
    facts,
    instances,
    join_tokens,
    manifests,
    nodes,
    releases,
    signers,
    tasks,
)

MAX_FACTS = 100


def explain(connection: Connection, log: Log, identifier: str) -> dict[str, Any]:
    """The story of a credential (serial or jti) or of an instance.

    Raises:
        Refusal: neither is known by this id.
    """
    head = log.head
    size = head.frontier.size
    credential = connection.execute(
        select(credentials).where(credentials.c.id == identifier)
    ).first()
    instance_id = credential.instance if credential is not None else identifier
    instance = connection.execute(select(instances).where(instances.c.id == instance_id)).first()
    if credential is None and instance is None:
        raise Refusal(Kind.NOT_FOUND, "no credential and no instance is known by this id")
    indexes = [
        *_origin(connection, instance),
        *_release(connection, credential),
        *_facts(connection, credential, instance),
    ]
    reader = LogReader(connection)
    return {
        "id": identifier,
        "checkpoint": head.checkpoint,
        "entries": [_entry(reader, index, size) for index in sorted(set(indexes)) if index < size],
    }


def _entry(reader: LogReader, index: int, size: int) -> dict[str, Any]:
    entry = reader.entries(index, 1)[0]
    return {
        "index": index,
        "leaf": base64.b64encode(entry.leaf).decode(),
        "record": json.loads(entry.leaf),
        "proof": [base64.b64encode(digest).decode() for digest in reader.inclusion(index, size)],
    }


def _origin(connection: Connection, instance: Row[Any] | None) -> list[int]:
    """How the instance came to be: signer, manifest, enrolment, attestation."""
    if instance is None:
        return []
    registered = select(manifests.c.log_index, manifests.c.signer).where(
        manifests.c.digest == instance.manifest
    )
    found = [instance.log_index]
    for manifest in connection.execute(registered):
        found.append(manifest.log_index)
        found += connection.execute(
            select(signers.c.log_index).where(signers.c.name == manifest.signer)
        ).scalars()
    found += connection.execute(
        select(nodes.c.log_index).where(nodes.c.name == instance.node)
    ).scalars()
    found += connection.execute(
        select(join_tokens.c.log_index).where(join_tokens.c.redeemed_by == instance.id)
    ).scalars()
    return found


def _release(connection: Connection, credential: Row[Any] | None) -> list[int]:
    if credential is None:
        return []
    return list(
        connection.execute(
            select(releases.c.log_index).where(releases.c.number == credential.number)
        ).scalars()
    )


def _tasks(connection: Connection, task: str | None) -> list[str]:
    """A task and those above it, as targets."""
    above = connection.execute(select(tasks.c.ancestors).where(tasks.c.id == task)).scalar()
    return [f"task:{each}" for each in (*(above or ()), task)]


def _facts(
    connection: Connection, credential: Row[Any] | None, instance: Row[Any] | None
) -> list[int]:
    """What was said against it."""
    targets: list[str] = []
    if credential is not None:
        kind = "serial" if credential.kind in {"x509", "ca"} else "jti"
        targets += [
            f"{kind}:{credential.id}",
            f"authority:{credential.authority}",
            *_tasks(connection, credential.task),
            f"admin:{credential.admin}",
            f"instance:{credential.instance}",
            *identity_marks(SpiffeId.parse(credential.subject)),
        ]
    if instance is not None:
        targets += [
            f"instance:{instance.id}",
            f"manifest:{instance.manifest}",
            f"agent:{instance.agent}",
            f"namespace:{instance.agent.partition('/')[0]}",
            *([f"node:{instance.node}"] if instance.node is not None else []),
        ]
    query = (
        select(facts.c.log_index)
        .where(facts.c.target.in_(targets))
        .order_by(facts.c.sequence.desc())  # the newest decide
        .limit(MAX_FACTS)
    )
    return list(connection.execute(query).scalars())

"""The rest of the state under audit: each row against its record, and against what it rests on."""

import hashlib
from collections.abc import Mapping

from sqlalchemy import select

from accredit_attestors.errors import AttestationError
from accredit_attestors.manifest import verify as verify_manifest
from accredit_attestors.signing import Signer as ManifestSigner
from accredit_issuer.audit.kept_rows import TABLES, KeptTable
from accredit_issuer.audit.recorded import InvalidRecord, record_of
from accredit_issuer.audit.records import RecordKind, written_moment
from accredit_issuer.audit.scope import Scope
from accredit_issuer.audit.subordinate_rows import (
    CERTIFIED,
    WITHOUT_CREDENTIAL,
    check_certified,
)
from accredit_issuer.registry.registry import signer_of
from accredit_issuer.store.models import (
    admins,
    enrolment_tokens,
    federations,
    instances,
    join_tokens,
    manifests,
    node_join_tokens,
    nodes,
    signers,
    streams,
    subordinates,
)

_SHOWN = "join_token:id:"  # the selector of a join token


def check_rows(scope: Scope) -> None:
    """Compare each row that has a record with it."""
    for table in TABLES:
        _rows(scope, table)


def _rows(scope: Scope, table: KeptTable) -> None:
    for row in scope.stream(table.rows()):
        about = f"{table.name} {getattr(row, table.key.name)}"
        if table.record == RecordKind.FACT_STATED:
            scope.report.examined["facts"] += 1
        try:
            record = record_of(row)
        except InvalidRecord as error:
            scope.report.add(about, f"it has no record: {error}")
            continue
        scope.report.terse += table.is_terse(record)
        if different := table.differences(row, record, scope.config.trust_domain):
            scope.report.add(
                about,
                f"its row and log entry {record.index} differ in: {', '.join(different)}",
            )


def check_join_tokens(scope: Scope) -> None:
    """Each instance has spent the join token that it was attested with, and nobody else has.

    What a node measured has none.
    """
    for row in scope.stream(select(instances.c.id, instances.c.selectors, instances.c.node)):
        shown = [each.removeprefix(_SHOWN) for each in row.selectors if each.startswith(_SHOWN)]
        if row.node is not None:
            if shown:
                scope.report.add(f"instance {row.id}", "it has a join token, and runs on a node")
            continue
        spent = select(join_tokens.c.redeemed_by).where(join_tokens.c.id.in_(shown))
        if scope.connection.execute(spent).scalars().all() != [row.id]:
            scope.report.add(f"instance {row.id}", "its join token is not spent by it")
    spent_by = (
        select(join_tokens.c.id, join_tokens.c.redeemed_by, instances.c.selectors)
        .outerjoin_from(join_tokens, instances, instances.c.id == join_tokens.c.redeemed_by)
        .where(join_tokens.c.redeemed_by.is_not(None))
    )
    for row in scope.stream(spent_by):
        if f"{_SHOWN}{row.id}" not in (row.selectors or ()):
            problem = f"its row says that {row.redeemed_by} spent it, which never showed it"
            scope.report.add(f"join token {row.id}", problem)


def check_manifests(scope: Scope) -> None:
    """Signers' keys are those of their records, and each manifest is what one signed."""
    known: list[ManifestSigner] = []
    for row in scope.connection.execute(select(signers)).all():
        try:
            signer = signer_of(row)
        except (AttestationError, ValueError):
            scope.report.add(f"signer {row.name}", "its key cannot be read")
            continue
        if signer.keyid != row.key_id:
            scope.report.add(f"signer {row.name}", "its key is not the one that its id says")
        known.append(signer)
    for row in scope.stream(select(manifests)):
        try:
            verified = verify_manifest(row.envelope.encode(), signers=known, now=row.registered_at)
        except AttestationError as error:
            scope.report.add(f"manifest {row.digest}", f"its envelope does not verify: {error}")
            continue
        declared = verified.manifest
        holds = {
            "digest": verified.digest == row.digest,
            "agent": str(declared.agent) == row.agent,
            "namespace": declared.agent.namespace == row.namespace,
            "version": declared.version == row.version,
            "owner": declared.owner == row.owner,
            "signer": verified.signer == row.signer,
            "end": declared.expires_at == row.expires_at,
        }
        if wrong := ", ".join(name for name, same in holds.items() if not same):
            scope.report.add(
                f"manifest {row.digest}", f"its row and what was signed differ in: {wrong}"
            )


def check_admins(scope: Scope) -> None:
    """Admins and their one-time tokens are those that the log says were invited."""
    rows = {row.name: row for row in scope.connection.execute(select(admins))}
    for name, row in rows.items():
        record = scope.told.invited.get(name)
        if record is None:
            scope.report.add(f"admin {name}", "the log does not say that anybody invited it")
        elif different := record.differences(
            {
                "at": written_moment(row.created_at),
                "actor": row.created_by,
                "details.role": row.role,
                "details.namespaces": row.namespaces,
            }
        ):
            scope.report.add(
                f"admin {name}",
                f"its row and log entry {record.index} differ in: {', '.join(different)}",
            )
    for missing in scope.told.invited.keys() - rows.keys():
        scope.report.add(f"admin {missing}", "it was invited, and the database has none")
    _one_time_tokens(scope)


def _one_time_tokens(scope: Scope) -> None:
    """Each one-time token is as its invitation says, and spent if, and by whom, the log says.

    Nothing ever deletes one. Earlier invitations say no end, and then no record tells who
    spent the token: these are counted.
    """
    told = dict(scope.told.enrolment)
    for row in scope.connection.execute(select(enrolment_tokens)):
        about = f"one-time token {row.id}"
        invitation = told.pop(row.id, None)
        if invitation is None or invitation.subject != row.admin:
            problem = f"the log does not say that {row.admin} was given it"
            scope.report.add(about, problem)
            continue
        spent = scope.told.spent.get(row.id)
        if "expires_at" not in invitation.details:
            scope.report.terse += 1
            if spent is None:
                continue
        elif invitation.details["expires_at"] != written_moment(row.expires_at):
            scope.report.add(about, "its row and its invitation differ in: expires_at")
        if row.redeemed_by != (spent and spent.details.get("instance")):
            scope.report.add(about, "its row and the log differ in who spent it")
    for missing in told:
        scope.report.add(f"one-time token {missing}", "the database does not have it")


def check_federations(scope: Scope) -> None:
    """Relationships and bundles of other trust domains are those that the log tells of."""
    told = dict(scope.told.federations)
    for row in scope.connection.execute(select(federations)):
        about = f"relationship with {row.trust_domain}"
        said = told.pop(f"spiffe://{row.trust_domain}", None)
        kept = {
            "profile": row.profile,
            "endpoint_url": row.endpoint_url,
            "endpoint_spiffe_id": row.endpoint_spiffe_id,
            "feed_url": row.feed_url,
            "allows": row.allows,
            "bundle": row.bundle and hashlib.sha256(row.bundle.encode()).hexdigest(),
        }
        _compare(scope, about, said, kept, unsaid="the log does not say that anybody began it")
    for missing in told:
        scope.report.add(f"relationship with {missing}", "the database does not have it")


def check_subordinates(scope: Scope) -> None:
    """Those that may have issuing CAs of ours are those that the log tells of."""
    told = dict(scope.told.subordinates)
    for row in scope.connection.execute(select(subordinates)):
        said = told.pop(row.agent, None)
        kept = {"namespaces": row.namespaces, "dns_names": row.dns_names}
        unsaid = "the log does not say who named it"
        _compare(scope, f"subordinate {row.agent}", said, kept, unsaid=unsaid)
    for missing in told:
        scope.report.add(f"subordinate {missing}", "the database does not have it")
    for row in scope.stream(CERTIFIED):
        scope.add(f"certificate {row.credential}", check_certified(row))
    for row in scope.stream(WITHOUT_CREDENTIAL):
        scope.report.add(f"certificate {row.serial}", "nothing was decided that it is of")


def check_nodes(scope: Scope) -> None:
    """Nodes are those that the log tells of, and so is who spent their join tokens."""
    told = dict(scope.told.nodes)
    for row in scope.connection.execute(select(nodes)):
        said = told.pop(row.name, None)
        kept = {
            "instance": row.instance,
            "attestation": row.attestation,
            "namespaces": row.namespaces,
            "ca": row.ca,
            "certificate": row.certificate,
            "created_at": written_moment(row.created_at),
            "created_by": row.created_by,
            "log_index": row.log_index,
        }
        _compare(scope, f"node {row.name}", said, kept, unsaid="the log does not say who listed it")
    for missing in told:
        scope.report.add(f"node {missing}", "the database does not have it")
    ran_on = select(instances.c.id, instances.c.node).where(instances.c.node.is_not(None))
    known = {name for name, _ in scope.told.node_instances}
    for row in scope.stream(ran_on):
        if row.node not in known:
            scope.report.add(f"instance {row.id}", f"nobody ever listed its node {row.node}")
    for row in scope.stream(select(node_join_tokens.c.id, node_join_tokens.c.redeemed_by)):
        if row.redeemed_by != scope.told.node_spent.get(row.id):
            problem = "its row and the log differ in who spent it"
            scope.report.add(f"node join token {row.id}", problem)


def check_streams(scope: Scope) -> None:
    """Who is told of facts is who the log says. How far each one is, the log does not know."""
    told = dict(scope.told.streams)
    for row in scope.connection.execute(select(streams)):
        said = told.pop(row.name, None)
        kept = {
            "id": row.id,
            "audience": row.audience,
            "endpoint_url": row.endpoint_url,
            "receiver": row.receiver,
            "created_at": written_moment(row.created_at),
            "created_by": row.created_by,
            "log_index": row.log_index,
        }
        _compare(
            scope, f"stream {row.name}", said, kept, unsaid="the log does not say who added it"
        )
    for missing in told:
        scope.report.add(f"stream {missing}", "the database does not have it")


def _compare(
    scope: Scope,
    what: str,
    said: Mapping[str, object] | None,
    kept: Mapping[str, object],
    *,
    unsaid: str,
) -> None:
    """A row holds what the log said of it; ``unsaid`` is the finding where it said nothing."""
    if said is None:
        scope.report.add(what, unsaid)
    elif wrong := ", ".join(name for name, value in kept.items() if said.get(name) != value):
        scope.report.add(what, f"its row and the log differ in: {wrong}")

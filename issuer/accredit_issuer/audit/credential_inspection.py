"""Credentials under audit: each against its record, its authority and the CRLs."""

from datetime import timedelta
from typing import Any

from sqlalchemy import Row, select

from accredit_credentials.errors import CredentialError
from accredit_credentials.revocation import FactKind
from accredit_issuer.audit.authority_inspection import ReadAuthorities
from accredit_issuer.audit.examination import CERTIFICATES, X509, Bounds, Issued, examine
from accredit_issuer.audit.recorded import InvalidRecord, record_of
from accredit_issuer.audit.scope import Scope
from accredit_issuer.settings import (
    LONGEST_JWT_SVID,
    LONGEST_TASK_TOKEN,
    LONGEST_WIT_SVID,
    LONGEST_X509_SVID,
    Config,
)
from accredit_issuer.store.models import (
    credentials,
    instances,
    log_leaves,
    releases,
    revoked_certificates,
)

MAX_NAMED = 100  # intents without a release


def check_credentials(scope: Scope, known: ReadAuthorities) -> None:
    """Look at each credential again; one that a fact matches must be on the CRL of its CA."""
    bounds = _bounds_of(scope.config)
    for row in scope.stream(_CREDENTIALS):
        scope.step(1)
        if row.released is None:
            scope.report.unreleased += 1
            if row.expires_at > scope.now and len(scope.report.unexpired) < MAX_NAMED:
                scope.report.unexpired.append(row.id)
            continue
        issued = _issued(row)
        signer = known.signer_of(issued.authority)
        problems = examine(issued, signer, bounds)
        problems += _node(scope, issued)
        if issued.kind == X509 and issued.expires_at > scope.now:
            problems += _revoked(scope, known, issued)
        scope.add(issued.what, problems)
        scope.report.older += issued.is_older
        scope.report.examined["certificates" if issued.kind in CERTIFICATES else "tokens"] += 1
    for row in scope.stream(_WITHOUT_INTENT):
        scope.report.add(f"release {row.number}", "nothing was decided that it is of")


def _node(scope: Scope, issued: Issued) -> list[str]:
    """Whether a node's credential is of an instance that the node of this name had."""
    prefix = f"{scope.config.trust_domain.id}/node/"
    if not issued.subject.startswith(prefix):
        return []
    if (issued.subject.removeprefix(prefix), issued.instance) in scope.told.node_instances:
        return []
    return [f"nobody listed a node with the instance {issued.instance}"]


def _revoked(scope: Scope, known: ReadAuthorities, issued: Issued) -> list[str]:
    """Whether an unexpired certificate that a fact matches is on the CRL of its authority."""
    try:
        fact = scope.told.facts.match(issued.marks())
    except (CredentialError, ValueError):
        return []  # the subject or the serial: said already
    if fact is None or not known.has_crl(issued.authority):
        return []
    if not known.is_listed(issued.authority, issued.id):
        return [f"fact {fact.sequence} matches it, and it is not on the CRL of its authority"]
    query = select(revoked_certificates.c.suspended).where(
        revoked_certificates.c.serial == issued.id
    )
    if scope.connection.scalar(query) and fact.kind is FactKind.REVOKED:
        return [f"fact {fact.sequence} revokes it, and it is on the CRL as suspended"]
    return []


def _bounds_of(config: Config) -> Bounds:
    return Bounds(
        trust_domain=config.trust_domain,
        longest={
            X509: timedelta(seconds=LONGEST_X509_SVID),
            "jwt": timedelta(seconds=LONGEST_JWT_SVID),
            "wit": timedelta(seconds=LONGEST_WIT_SVID),
            "task": timedelta(seconds=LONGEST_TASK_TOKEN),
        },
        backdate=config.lifetimes.backdate,
    )


def _issued(row: Row[Any]) -> Issued:
    try:
        record = record_of(row)
    except InvalidRecord:
        record = None
    return Issued(
        id=row.id,
        kind=row.kind,
        subject=row.subject,
        instance=row.instance,
        admin=row.admin,
        task=row.task,
        authority=row.authority,
        decided_at=row.decided_at,
        expires_at=row.expires_at,
        log_index=row.log_index,
        sha256=row.sha256,
        certificate=row.certificate,
        agent=row.agent,
        manifest=row.manifest,
        record=record,
        status=(row.status_list, row.status_index),
    )


_CREDENTIALS = (
    select(
        credentials,
        releases.c.number.label("released"),
        releases.c.log_index,
        releases.c.sha256,
        releases.c.certificate,
        instances.c.agent,
        instances.c.manifest,
        log_leaves.c.leaf,
    )
    .outerjoin_from(credentials, releases, releases.c.number == credentials.c.number)
    .outerjoin(instances, instances.c.id == credentials.c.instance)
    .outerjoin(log_leaves, log_leaves.c.index == releases.c.log_index)
    .order_by(credentials.c.number)
)
_WITHOUT_INTENT = (
    select(releases.c.number)
    .outerjoin_from(releases, credentials, credentials.c.number == releases.c.number)
    .where(credentials.c.number.is_(None))
)

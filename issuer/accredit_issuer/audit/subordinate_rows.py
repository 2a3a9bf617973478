"""Issuing CAs of subordinates: credential, row, record and certificate say one thing.

The table ``subordinate_ca`` is where the issuer looks when one is to be revoked. A row that is
missing hides a CA; a certificate with other names than its record reaches further than was granted.
What was granted at that moment is ``replay``'s matter.
"""

from collections.abc import Iterator
from typing import Any

from cryptography import x509
from sqlalchemy import Row, select

from accredit_credentials.bundle import UNREADABLE
from accredit_credentials.errors import CredentialError, InvalidSpiffeId
from accredit_credentials.reach import namespaces_of
from accredit_credentials.spiffe_id import AgentId, SpiffeId
from accredit_credentials.x509_template import subject_key_id
from accredit_issuer.audit.recorded import InvalidRecord, Recorded
from accredit_issuer.store.models import credentials, log_leaves, releases, subordinate_cas

CERTIFIED = (
    select(
        credentials.c.id.label("credential"),
        credentials.c.subject,
        credentials.c.authority,
        credentials.c.decided_at,
        credentials.c.expires_at.label("ends"),
        subordinate_cas,
        releases.c.log_index,
        releases.c.certificate,
        log_leaves.c.leaf,
    )
    .outerjoin_from(credentials, subordinate_cas, subordinate_cas.c.serial == credentials.c.id)
    .outerjoin(releases, releases.c.number == credentials.c.number)
    .outerjoin(log_leaves, log_leaves.c.index == releases.c.log_index)
    .where(credentials.c.kind == "ca")
)
WITHOUT_CREDENTIAL = (
    select(subordinate_cas.c.serial)
    .outerjoin_from(
        subordinate_cas,
        credentials,
        (credentials.c.id == subordinate_cas.c.serial) & (credentials.c.kind == "ca"),
    )
    .where(credentials.c.id.is_(None))
)


def check_certified(row: Row[Any]) -> Iterator[str]:
    """What is wrong with one row of ``CERTIFIED``."""
    record = _record(row)
    said = {} if record is None else dict(record.details)
    if row.serial is None:
        yield "the table of subordinates' issuing CAs does not have it"
    else:
        holds = {
            "id": record is None or row.id == said.get("certified"),
            "agent": _subject_is(row.subject, row.agent),
            "root": row.root == row.authority,
            "issued_at": row.issued_at == row.decided_at,
            "expires_at": row.expires_at == row.ends,
        }
        if wrong := ", ".join(name for name, same in holds.items() if not same):
            yield f"its row among subordinates' issuing CAs differs in: {wrong}"
    if row.certificate is not None and record is not None:
        yield from _certificate(row.certificate, said)


def _certificate(der: bytes, said: dict[str, Any]) -> Iterator[str]:
    try:
        certificate = x509.load_der_x509_certificate(der)
        holds = {
            "certified": subject_key_id(certificate) == said.get("certified"),
            "namespaces": sorted(namespaces_of(certificate) or ()) == _sorted(said, "namespaces"),
            "dns_names": sorted(_dns_names(certificate)) == _sorted(said, "dns_names"),
        }
    except (*UNREADABLE, CredentialError):
        return  # said of the credential
    if wrong := ", ".join(name for name, same in holds.items() if not same):
        yield f"its certificate and its record differ in: {wrong}"


def _record(row: Row[Any]) -> Recorded | None:
    try:
        return None if row.leaf is None else Recorded.of_leaf(row.log_index, row.leaf)
    except InvalidRecord:
        return None  # said of the credential


def _subject_is(subject: str, agent: str) -> bool:
    try:
        return str(AgentId.from_spiffe_id(SpiffeId.parse(subject))) == agent
    except InvalidSpiffeId:
        return False


def _sorted(said: dict[str, Any], name: str) -> list[str]:
    found = said.get(name)
    return sorted(map(str, found)) if isinstance(found, list) else []


def _dns_names(certificate: x509.Certificate) -> list[str]:
    limits = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    return [n.value for n in limits.permitted_subtrees or () if isinstance(n, x509.DNSName)]

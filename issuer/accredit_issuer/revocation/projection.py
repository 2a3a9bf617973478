"""From facts to entries of CRLs: the rows of ``revoked_certificate``.

Each function writes rows and returns just what that changed, so that the CRLs in memory need not
read the others again. Rows are of authorities that publish a CRL now: the last CRL of one that was
removed stays what it is. An issuing CA of ours, or of a subordinate, is an entry of its root's.

``unlisted`` asks the other way round: what a fact in force matches, and no row has.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509
from sqlalchemy import ColumnElement, Connection, Executable, Row, and_, delete, literal, select
from sqlalchemy.dialects.sqlite import insert as upsert

from accredit_credentials.bundle import UNREADABLE
from accredit_credentials.crl_der import entry_of
from accredit_credentials.errors import CredentialError
from accredit_credentials.revocation import FactKind, FactSet, RevocationFact, Target, TargetKind
from accredit_credentials.spiffe_id import SpiffeId
from accredit_credentials.x509_svid import identity_marks
from accredit_credentials.x509_template import subject_key_id
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.authority.rows import standing_of
from accredit_issuer.errors import IssuerError
from accredit_issuer.revocation.carriers import CERTIFICATE, carry
from accredit_issuer.store import models
from accredit_issuer.store.models import (
    credentials,
    facts,
    instances,
    releases,
    revoked_certificates,
    subordinate_cas,
)
from accredit_issuer.store.writer import Transaction

BATCH = 1000  # rows that are held at a time

_ENTRY = (
    revoked_certificates.c.authority,
    revoked_certificates.c.serial,
    revoked_certificates.c.at,
    revoked_certificates.c.suspended,
)


class EntriesDamaged(IssuerError):
    """A row of ``revoked_certificate`` is none; the text names the authority."""


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of one CRL: put on it, changed, or taken off (``entry`` is None)."""

    authority: str
    serial: str
    entry: bytes | None


@dataclass(frozen=True, slots=True)
class CertifiedCa:
    """An issuing CA below a root, of ours or of a subordinate.

    Attributes:
        id: its key id.
        serial: of its certificate, in hexadecimal.
    """

    id: str
    serial: str
    root: str
    expires_at: datetime


def project(
    transaction: Transaction, fact: RevocationFact, now: datetime, publishing: Collection[str]
) -> list[Change]:
    """Bring the entries in line with one fact.

    ``publishing`` are the ids of the authorities that publish a CRL.
    """
    if fact.kind is FactKind.RESTORED:
        return _lift(transaction, fact.target, publishing)
    changes: list[Change] = []
    condition = carry(fact.target.kind, [fact.target.value], [CERTIFICATE])
    if condition is not None:
        chosen = select(
            credentials.c.id,
            credentials.c.authority,
            literal(fact.sequence),
            literal(fact.kind is FactKind.SUSPENDED),
            literal(fact.at, revoked_certificates.c.at.type),
            credentials.c.expires_at,
        ).where(
            credentials.c.expires_at > now,
            credentials.c.authority.in_(publishing),
            condition,
        )
        names = ["serial", "authority", "fact", "suspended", "at", "expires_at"]
        insert = upsert(revoked_certificates).from_select(names, chosen)
        changes += _written(transaction, insert, fact)
    if fact.target.kind is TargetKind.AUTHORITY:
        for ca in certified_cas(transaction, publishing, now):
            if ca.id == fact.target.value:
                changes += put_on(transaction, fact, ca.serial, ca.root, ca.expires_at)
    return changes


def put_on(
    transaction: Transaction,
    fact: RevocationFact,
    serial: str,
    authority: str,
    expires_at: datetime,
) -> list[Change]:
    """Put one certificate on because of one fact."""
    insert = upsert(revoked_certificates).values(
        serial=serial,
        authority=authority,
        fact=fact.sequence,
        suspended=fact.kind is FactKind.SUSPENDED,
        at=fact.at,
        expires_at=expires_at,
    )
    return _written(transaction, insert, fact)


def drop(transaction: Transaction, authority: str, before: datetime) -> list[Change]:
    """Take off what ended before a moment."""
    return _deleted(
        transaction,
        and_(
            revoked_certificates.c.authority == authority,
            revoked_certificates.c.expires_at < before,
        ),
    )


def entries_in(
    source: Transaction | Connection, authority: str
) -> Iterator[tuple[str, bytes | None]]:
    """The rows of one authority, encoded.

    Raises:
        EntriesDamaged: one of them cannot be read.
    """
    query: Executable = select(*_ENTRY).where(revoked_certificates.c.authority == authority)
    try:
        for batch in source.execute(query).partitions(BATCH):
            for row in batch:
                yield row.serial, _encoded(row)
    except (ValueError, TypeError) as error:
        raise EntriesDamaged(
            f"the database has an entry of the CRL of {authority} that cannot be read: restore a "
            "backup, and see what 'accredit-issuer audit' finds"
        ) from error


def unlisted(
    source: Transaction | Connection, in_force: FactSet, authority: str, now: datetime
) -> list[tuple[RevocationFact, str, datetime]]:
    """What is to be on the CRL of an authority and has no row: fact, serial number, end."""
    listed = select(revoked_certificates.c.serial)
    living = (
        select(credentials, instances.c.manifest)
        .outerjoin_from(credentials, instances, instances.c.id == credentials.c.instance)
        .where(
            credentials.c.kind == CERTIFICATE,
            credentials.c.expires_at > now,
            credentials.c.authority == authority,
            credentials.c.id.not_in(listed),
        )
    )
    found = [
        (fact, row.id, row.expires_at)
        for row in source.execute(living).all()
        if (fact := _matched(in_force, row)) is not None
    ]
    cas = [
        (fact, ca.serial, ca.expires_at)
        for ca in certified_cas(source, [authority], now)
        if (fact := in_force.match((f"authority:{ca.id}",))) is not None
    ]
    known = set(
        source.execute(listed.where(revoked_certificates.c.authority == authority)).scalars()
        if cas
        else ()
    )
    return found + [each for each in cas if each[1] not in known]


def marks_of(row: Row[Any]) -> frozenset[str]:
    """What can put a certificate on the CRL; ``row`` is a credential's, with its manifest.

    Raises:
        InvalidSpiffeId: its subject is none.
    """
    return frozenset(
        {
            f"serial:{row.id}",
            f"authority:{row.authority}",
            f"instance:{row.instance}",
            f"manifest:{row.manifest}",
            f"admin:{row.admin}",
            *identity_marks(SpiffeId.parse(row.subject)),
        }
    )


def _matched(in_force: FactSet, row: Row[Any]) -> RevocationFact | None:
    try:
        return in_force.match(marks_of(row))
    except CredentialError:
        return None  # its subject cannot be read: an audit says so


def certified_cas(
    source: Transaction | Connection, roots: Collection[str], now: datetime
) -> list[CertifiedCa]:
    """The issuing CAs below these roots whose certificates have not ended.

    A subordinate's is known from its row, or from the certificate that was released: who takes the
    row away keeps no CA from being revoked.
    """
    found = {ca.serial: ca for ca in _released_cas(source, roots, now)}
    table = subordinate_cas
    for row in source.execute(
        select(table).where(table.c.root.in_(roots), table.c.expires_at > now)
    ):
        found[row.serial] = CertifiedCa(row.id, row.serial, row.root, row.expires_at)
    own = select(models.authorities).where(
        models.authorities.c.kind == AuthorityKind.X509.value, models.authorities.c.expires_at > now
    )
    for row in source.execute(own):
        try:
            parent = standing_of(row).parent
            certificate = x509.load_pem_x509_certificate(row.public.encode())
        except UNREADABLE:
            continue  # one that is in use was read at the start
        if parent is not None and parent in roots:
            serial = format(certificate.serial_number, "x")
            found[serial] = CertifiedCa(row.id, serial, parent, row.expires_at)
    return list(found.values())


def _released_cas(
    source: Transaction | Connection, roots: Collection[str], now: datetime
) -> Iterator[CertifiedCa]:
    released = source.execute(
        select(credentials, releases.c.certificate)
        .join_from(credentials, releases, releases.c.number == credentials.c.number)
        .where(
            credentials.c.kind == "ca",
            credentials.c.expires_at > now,
            credentials.c.authority.in_(roots),
        )
    )
    for row in released:
        try:
            key_id = subject_key_id(x509.load_der_x509_certificate(row.certificate or b""))
        except (*UNREADABLE, CredentialError):
            continue  # its row may have it
        yield CertifiedCa(key_id, row.id, row.authority, row.expires_at)


def _written(transaction: Transaction, insert: Any, fact: RevocationFact) -> list[Change]:
    """Put rows on: a revocation wins over a suspension, and keeps its moment."""
    statement = (
        insert.on_conflict_do_update(
            index_elements=["serial"], set_={"suspended": False, "fact": fact.sequence}
        )
        if fact.kind is FactKind.REVOKED
        else insert.on_conflict_do_nothing()
    )
    return _changes(transaction.execute(statement.returning(*_ENTRY)).all())


def _lift(transaction: Transaction, target: Target, publishing: Collection[str]) -> list[Change]:
    """Take the certificates off that only a suspension of this target had put on."""
    suspension = select(facts.c.sequence).where(
        facts.c.target == str(target), facts.c.kind == FactKind.SUSPENDED.value
    )
    return _deleted(
        transaction,
        and_(
            revoked_certificates.c.suspended,
            revoked_certificates.c.fact.in_(suspension),
            revoked_certificates.c.authority.in_(publishing),
        ),
    )


def _deleted(transaction: Transaction, condition: ColumnElement[bool]) -> list[Change]:
    statement = delete(revoked_certificates).where(condition)
    gone = transaction.execute(
        statement.returning(revoked_certificates.c.authority, revoked_certificates.c.serial)
    )
    return [Change(row.authority, row.serial, None) for row in gone.all()]


def _changes(rows: Iterable[Row[Any]]) -> list[Change]:
    return [Change(row.authority, row.serial, _encoded(row)) for row in rows]


def _encoded(row: Row[Any]) -> bytes:
    return entry_of(int(row.serial, 16), row.at, suspended=row.suspended)

"""Authorities and CRLs under audit: each row against the log, each entry against its fact.

Credentials come after them, and ask here who signed them and what is on the CRLs.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, select

from accredit_credentials.errors import CredentialError
from accredit_credentials.revocation import FactKind
from accredit_issuer.audit.authority_rows import (
    OWN,
    ReadAuthority,
    check_chain,
    is_older,
    read_authority,
)
from accredit_issuer.audit.examination import X509, Signer
from accredit_issuer.audit.scope import Scope
from accredit_issuer.authority.lifecycle import AuthorityKind, State
from accredit_issuer.revocation.crl import Entries
from accredit_issuer.revocation.kept_crls import read_crls
from accredit_issuer.revocation.projection import CertifiedCa, certified_cas, marks_of
from accredit_issuer.store.models import (
    authorities,
    credentials,
    facts,
    instances,
    revoked_certificates,
)


class ReadAuthorities:
    """Every authority and every CRL as it was read, for those who come after to ask."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._authorities: dict[str, ReadAuthority] = {}
        self._crls: dict[str, Entries] = {}
        self._cas: dict[str, CertifiedCa] = {}

    def check(self) -> None:
        """Read every authority, and compare it with what the log tells of it."""
        rows = self._scope.connection.execute(select(authorities)).all()
        for row in rows:
            history = self._scope.told.histories.get(row.id, ())
            self._authorities[row.id] = read_authority(row, history)
            self._scope.report.terse += is_older(history)
        roots = {
            each.stored.id: each.stored
            for each in self._authorities.values()
            if each.row.kind == AuthorityKind.ROOT and each.stored is not None
        }
        for authority in self._authorities.values():
            about = f"authority {authority.row.id}"
            self._scope.add(about, (*authority.problems, *check_chain(authority, roots)))
        for missing in self._scope.told.histories.keys() - self._authorities.keys():
            self._scope.report.add(
                f"authority {missing}", "the log tells of it, and the database does not have it"
            )
        self._scope.report.examined["authorities"] = len(rows)

    def check_crls(self) -> None:
        """Make every CRL again, and compare its entries with their facts."""
        connection = self._scope.connection
        for kept in read_crls(connection):
            self._crls[kept.row.authority] = kept.entries
            self._scope.add(f"CRL of {kept.row.authority}", [kept.problem] if kept.problem else [])
        self._scope.report.examined["crls"] = len(self._crls)
        roots = [each.row.id for each in self._authorities.values() if _is_root(each)]
        self._cas = {ca.serial: ca for ca in certified_cas(connection, roots, _EVER)}
        for row in self._scope.stream(_CRL_ENTRIES):
            self._scope.add(f"certificate {row.serial}", self._entry(row))
        for ca in self._cas.values():
            self._scope.add(f"certificate {ca.serial}", self._missing(ca))

    def signer_of(self, authority: str) -> Signer | None:
        """What an authority signs with, where it is known and can be read."""
        known = self._authorities.get(authority)
        return None if known is None else known.signer

    def has_crl(self, authority: str) -> bool:
        """Whether an authority publishes a CRL; of what a removed one signed, nothing is valid."""
        known = self._authorities.get(authority)
        if known is None or known.row.state == State.REMOVED:
            return False
        return not _is_root(known) or known.row.origin == OWN

    def is_listed(self, authority: str, serial: str) -> bool:
        """Whether the CRL of an authority has a serial number."""
        listed = self._crls.get(authority)
        try:
            return listed is not None and serial in listed
        except ValueError:
            return False  # no serial number: said of its entry, or of its credential

    def _missing(self, ca: CertifiedCa) -> list[str]:
        """Whether an issuing CA that a fact matches is on the CRL of its root."""
        fact = self._scope.told.facts.match((f"authority:{ca.id}",))
        if fact is None or ca.expires_at <= self._scope.now or not self.has_crl(ca.root):
            return []
        if self.is_listed(ca.root, ca.serial):
            return []
        return [f"fact {fact.sequence} matches it, and it is not on the CRL of its root"]

    def _entry(self, row: Row[Any]) -> list[str]:
        """An entry of a CRL against its certificate and the fact that it is of."""
        ca = self._cas.get(row.serial)
        if row.sequence is None or (ca is None and row.id is None):
            return ["it is on the CRL, for no fact or no credential of ours"]
        try:
            marks = marks_of(row) if ca is None else frozenset({f"authority:{ca.id}"})
        except CredentialError:
            return []  # the subject: said of the credential
        holds = {
            "authority": row.on_crl_of == (row.authority if ca is None else ca.root),
            "expires_at": row.until == (row.expires_at if ca is None else ca.expires_at),
            "credential": ca is not None or row.kind == X509,
            "fact": row.target in marks,
            "suspended": row.said
            == (FactKind.SUSPENDED.value if row.suspended else FactKind.REVOKED.value),
            "at": row.at == row.stated_at or self._was_on_it(row, marks),
        }
        wrong = ", ".join(name for name, same in holds.items() if not same)
        return [f"its entry of the CRL, its row and its fact differ in: {wrong}"] if wrong else []

    def _was_on_it(self, row: Row[Any], marks: frozenset[str]) -> bool:
        """Whether it was suspended at the moment of its entry: revoked then, it keeps that."""
        earlier = select(facts.c.sequence).where(
            facts.c.target.in_(marks), facts.c.at == row.at, facts.c.sequence < row.sequence
        )
        return not row.suspended and self._scope.connection.execute(earlier).first() is not None


def _is_root(authority: ReadAuthority) -> bool:
    return bool(authority.row.kind == AuthorityKind.ROOT)


_EVER = datetime.min.replace(tzinfo=UTC)
_CRL_ENTRIES = (
    select(
        revoked_certificates.c.serial,
        revoked_certificates.c.authority.label("on_crl_of"),
        revoked_certificates.c.suspended,
        revoked_certificates.c.at,
        revoked_certificates.c.expires_at.label("until"),
        facts.c.sequence,
        facts.c.target,
        facts.c.kind.label("said"),
        facts.c.at.label("stated_at"),
        credentials.c.id,
        credentials.c.kind,
        credentials.c.subject,
        credentials.c.instance,
        credentials.c.admin,
        credentials.c.authority,
        credentials.c.expires_at,
        instances.c.manifest,
    )
    .outerjoin_from(revoked_certificates, facts, facts.c.sequence == revoked_certificates.c.fact)
    .outerjoin(credentials, credentials.c.id == revoked_certificates.c.serial)
    .outerjoin(instances, instances.c.id == credentials.c.instance)
)

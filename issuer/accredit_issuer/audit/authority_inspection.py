"""Authorities and CRLs under audit: each row against the log, each entry against its fact.

Credentials come after them, and ask here who signed them and what is on the CRLs.
"""

from typing import Any

from sqlalchemy import Row, select

from accredit_credentials.errors import CredentialError
from accredit_credentials.revocation import FactKind
from accredit_credentials.spiffe_id import SpiffeId
from accredit_credentials.x509_svid import identity_marks
from accredit_issuer.audit.authority_rows import (
    ReadAuthority,
    ReadCrl,
    check_chain,
    is_older,
    read_authority,
    read_crl,
)
from accredit_issuer.audit.examination import X509, Signer
from accredit_issuer.audit.scope import Scope
from accredit_issuer.authority.lifecycle import AuthorityKind, State
from accredit_issuer.store.models import (
    authorities,
    credentials,
    crls,
    facts,
    instances,
    revoked_certificates,
)


class ReadAuthorities:
    """Every authority and every CRL as it was read, for those who come after to ask."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._authorities: dict[str, ReadAuthority] = {}
        self._crls: dict[str, ReadCrl] = {}

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
        """Read every CRL, and compare the entries of the next ones with their facts."""
        for row in self._scope.connection.execute(select(crls)).all():
            read = read_crl(row, self._authorities.get(row.authority))
            self._crls[row.authority] = read
            self._scope.add(f"CRL of {row.authority}", read.problems)
        self._scope.report.examined["crls"] = len(self._crls)
        for row in self._scope.stream(_CRL_ENTRIES):
            problems = self._entry(row)
            if self.has_crl(row.authority) and not self.is_listed(row.authority, row.serial):
                problems.append("it is to be on the CRL of its authority, and is not")
            self._scope.add(f"certificate {row.serial}", problems)

    def signer_of(self, authority: str) -> Signer | None:
        """What an authority signs with, where it is known and can be read."""
        known = self._authorities.get(authority)
        return None if known is None else known.signer

    def has_crl(self, authority: str) -> bool:
        """Whether an authority publishes a CRL; of what a removed one signed, nothing is valid."""
        known = self._authorities.get(authority)
        return known is not None and known.row.state != State.REMOVED

    def is_listed(self, authority: str, serial: str) -> bool:
        """Whether the CRL of an authority has a serial number."""
        listed = self._crls.get(authority)
        try:
            return listed is not None and int(serial, 16) in listed.serials
        except ValueError:
            return False  # no serial number: said of its entry, or of its credential

    def _entry(self, row: Row[Any]) -> list[str]:
        """An entry of the next CRL against its credential and the fact that it is of."""
        if row.sequence is None or row.id is None:
            return ["it is to be on the CRL, for no fact or no credential of ours"]
        try:
            marks = _marks(row)
        except CredentialError:
            return []  # the subject: said of the credential
        holds = {
            "authority": row.authority == row.signed_by,
            "expires_at": row.expires_at == row.ends,
            "credential": row.credential == X509,
            "fact": row.target in marks,
            "suspended": row.kind
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


def _marks(row: Row[Any]) -> frozenset[str]:
    """What can put a certificate on the CRL.

    Raises:
        InvalidSpiffeId: its subject is none.
    """
    return frozenset(
        {
            f"serial:{row.id}",
            f"authority:{row.signed_by}",
            f"instance:{row.instance}",
            f"manifest:{row.manifest}",
            f"admin:{row.admin}",
            *identity_marks(SpiffeId.parse(row.subject)),
        }
    )


_CRL_ENTRIES = (
    select(
        revoked_certificates,
        facts.c.sequence,
        facts.c.target,
        facts.c.kind,
        facts.c.at.label("stated_at"),
        credentials.c.id,
        credentials.c.kind.label("credential"),
        credentials.c.subject,
        credentials.c.instance,
        credentials.c.admin,
        credentials.c.authority.label("signed_by"),
        credentials.c.expires_at.label("ends"),
        instances.c.manifest,
    )
    .outerjoin_from(revoked_certificates, facts, facts.c.sequence == revoked_certificates.c.fact)
    .outerjoin(credentials, credentials.c.id == revoked_certificates.c.serial)
    .outerjoin(instances, instances.c.id == credentials.c.instance)
)

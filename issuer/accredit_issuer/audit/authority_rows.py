"""Authorities, looked at again: pure, over the rows and the records as they stand.

An authority's id is a digest of its key, and the log says when an id was prepared, activated,
retired and removed: a row with another key, another state or other moments is found.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Row

from accredit_credentials.bundle import UNREADABLE
from accredit_credentials.errors import CredentialError
from accredit_credentials.leaf_der import IssuingCa
from accredit_credentials.x509_template import subject_key_id
from accredit_issuer.audit.examination import Signer
from accredit_issuer.audit.recorded import Recorded
from accredit_issuer.audit.records import written_moment
from accredit_issuer.authority.lifecycle import TOKEN_KINDS, AuthorityKind
from accredit_issuer.authority.rows import public_digest
from accredit_issuer.authority.stored import AuthorityDamaged, Stored, check_certified
from accredit_issuer.keys.key_manager import key_id_of

PREFIX = "authority."
OWN = "own"  # origin of what this issuer certified itself

# What each record leaves the row with: its state, and the column of its moment.
_STATES = {
    "authority.prepared": "prepared",
    "authority.activated": "active",
    "authority.retired": "retired",
    "authority.tainted": "tainted",
    "authority.removed": "removed",
    "authority.revoked": "removed",
}
_MOMENTS = {
    "authority.prepared": "prepared_at",
    "authority.activated": "activated_at",
    "authority.retired": "retired_at",
    "authority.tainted": "tainted_at",
    "authority.removed": "removed_at",
    "authority.revoked": "removed_at",
}


@dataclass(frozen=True, slots=True)
class ReadAuthority:
    """An authority's row, read: what it says, and what is wrong with it."""

    row: Row[Any]
    certificate: x509.Certificate | None = field(repr=False)
    signer: Signer
    stored: Stored | None = field(repr=False)
    problems: tuple[str, ...]


def read_authority(row: Row[Any], history: Sequence[Recorded]) -> ReadAuthority:
    """An authority against its id and its records, oldest first."""
    problems = list(_history(row, history))
    certificate, signer = None, Signer(row.kind, None)
    try:
        if row.kind in TOKEN_KINDS:
            key = serialization.load_pem_public_key(row.public.encode())
        else:
            certificate = x509.load_pem_x509_certificate(row.public.encode())
            key = certificate.public_key()
            signer = Signer(row.kind, IssuingCa(certificate))
            # What is above a CA that was given may end before it.
            if _given(row):
                ends = [c.not_valid_after_utc for c in (certificate, *_above(row))]
            else:
                ends = [certificate.not_valid_after_utc]
            if min(ends) != row.expires_at:
                problems.append("its certificate ends at another time than its row says")
        if certificate is not None and _given(row):
            if subject_key_id(certificate) != row.id:
                problems.append("its key identifier is not its id")
        elif not isinstance(key, ec.EllipticCurvePublicKey) or key_id_of(key) != row.id:
            problems.append("its key is not the one that its id says")
    except (*UNREADABLE, CredentialError):
        problems.append("its public part cannot be read")
    try:
        stored = Stored.of_row(row)
    except AuthorityDamaged:
        stored = None
    return ReadAuthority(row, certificate, signer, stored, tuple(problems))


def check_chain(authority: ReadAuthority, roots: Mapping[str, Stored]) -> list[str]:
    """Whether what its row says is above it signed its certificate; ``roots`` by their ids."""
    if authority.stored is None:
        return []  # it cannot be read, or is of another key: said already
    try:
        check_certified([authority.stored], roots)
    except AuthorityDamaged as error:
        return [error.problem]
    return []


def _given(row: Row[Any]) -> bool:
    """Whether it is a root that was made by somebody else, of any key and any key identifier."""
    return bool(row.kind == AuthorityKind.ROOT and row.origin != OWN)


def _above(row: Row[Any]) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(row.chain.encode()) if row.chain else []


def _history(row: Row[Any], history: Sequence[Recorded]) -> Iterator[str]:
    known = [record for record in history if record.kind in _STATES]
    if not known or known[0].kind != "authority.prepared":
        yield "the log does not say that it was prepared"
        return
    # A root of a parent issuer may come back: what counts is its newest life.
    made = max(i for i, record in enumerate(known) if record.kind == "authority.prepared")
    known = known[made:]
    if known[0].details.get("kind") != row.kind:
        yield f"the log says that it is of another kind than {row.kind}"
    yield from _made(row, known[0])
    # A kind of record that we do not know may have changed the state too.
    if len(known) == len(history) and _STATES[known[-1].kind] != row.state:
        yield f"the log says that it is {_STATES[known[-1].kind]}, and its row {row.state}"
    said = {_MOMENTS[record.kind]: record.at for record in known if record.kind in _MOMENTS}
    if row.removed_at is None:
        said.pop("removed_at", None)  # earlier versions did not write it down
    for column in dict.fromkeys(_MOMENTS.values()):
        moment = getattr(row, column)
        if (None if moment is None else written_moment(moment)) != said.get(column):
            yield f"the log says another {column}"


def _made(row: Row[Any], prepared: Recorded) -> Iterator[str]:
    """What no step changes, as far as the record says it."""
    holds = {
        "expires_at": written_moment(row.expires_at),
        "origin": row.origin,
        "parent": row.parent,
        "public_sha256": public_digest(row.public, row.chain),
    }
    for name, value in holds.items():
        if name in prepared.details and prepared.details[name] != value:
            yield f"the log says another {name}"


def is_older(history: Sequence[Recorded]) -> bool:
    """Whether its record is of before records said what an authority was made as."""
    prepared = [record for record in history if record.kind == "authority.prepared"]
    return bool(prepared) and "public_sha256" not in prepared[-1].details

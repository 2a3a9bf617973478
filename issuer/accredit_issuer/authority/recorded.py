"""Whether the log tells of the roots whose key we do not hold.

Of a root that somebody else made there is no private key here that would prove its row, and so
whoever can write the database could add one of his own. The log he cannot write: its checkpoint is
signed. A root that is given is published only where a record under that checkpoint says so.
"""

from collections.abc import Iterable

from sqlalchemy import Connection, LargeBinary, func, literal, select

from accredit_credentials.errors import InvalidProof
from accredit_credentials.merkle import Frontier, leaf_hash, verify_inclusion
from accredit_issuer.audit.log import LogReader
from accredit_issuer.audit.recorded import InvalidRecord, Recorded
from accredit_issuer.audit.records import RecordKind
from accredit_issuer.authority.lifecycle import AuthorityKind, Origin, State
from accredit_issuer.authority.rows import public_digest
from accredit_issuer.authority.stored import AuthorityDamaged
from accredit_issuer.store.models import authorities, log_leaves


def check_recorded(connection: Connection, frontier: Frontier) -> None:
    """Decide whether the log tells of each given root that is in use, as its row has it.

    ``frontier`` is that of the checkpoint. Reads the whole log where there is such a root.

    Raises:
        AuthorityDamaged: it does not.
    """
    given = connection.execute(
        select(authorities).where(
            authorities.c.kind == AuthorityKind.ROOT.value,
            authorities.c.origin != Origin.OWN.value,
            authorities.c.state != State.REMOVED.value,
        )
    ).all()
    if not given:
        return
    told = {record.subject: record for record in _prepared(connection, frontier)}  # the newest
    for row in given:
        record = told.get(row.id)
        holds = {
            "kind": row.kind,
            "origin": row.origin,
            "public_sha256": public_digest(row.public, row.chain),
        }
        if record is None or any(record.details.get(n) != value for n, value in holds.items()):
            raise AuthorityDamaged(row.id, "the log does not tell of a given root like this")


def _prepared(connection: Connection, frontier: Frontier) -> Iterable[Recorded]:
    """The records of prepared authorities, oldest first, each proved to be in the tree."""
    kind = literal(f'"{RecordKind.AUTHORITY_PREPARED.value}"'.encode(), LargeBinary)
    query = (
        select(log_leaves.c.index, log_leaves.c.leaf)
        .where(func.instr(log_leaves.c.leaf, kind) > 0, log_leaves.c.index < frontier.size)
        .order_by(log_leaves.c.index)
    )
    reader, root = LogReader(connection), frontier.root()
    for index, leaf in connection.execute(query).all():
        try:
            record = Recorded.of_leaf(index, leaf)
            verify_inclusion(
                leaf_hash=leaf_hash(leaf),
                index=index,
                size=frontier.size,
                proof=reader.inclusion(index, frontier.size),
                root=root,
            )
        except (InvalidRecord, InvalidProof, LookupError):
            continue  # it proves nothing
        if record.kind == RecordKind.AUTHORITY_PREPARED:
            yield record

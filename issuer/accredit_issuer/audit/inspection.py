"""Everything that the issuer keeps, examined over one snapshot of the database.

In order: the log against its signed checkpoint, and against one that was kept elsewhere → every
record: was it possible where it stands, is what it tells of still there → authorities and CRLs →
every credential → every other row of the state against its record. What is wrong with one thing is
said of it, and the next is looked at. Rows are read in batches: what is held in memory are the
facts in force, the authorities, the admins and a little of each manifest.

Reads only, in one transaction: a running issuer goes on meanwhile, and what it writes is not seen.
"""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from accredit_issuer.audit import credential_inspection, log_inspection, state_inspection
from accredit_issuer.audit.authority_inspection import ReadAuthorities
from accredit_issuer.audit.log import Log
from accredit_issuer.audit.report import Report
from accredit_issuer.audit.scope import Scope
from accredit_issuer.settings import Config
from accredit_issuer.store.models import credentials, log_leaves
from accredit_issuer.store.schema import differences


def amount(connection: Connection) -> int:
    """How many steps an inspection takes: one a record, one a credential."""
    return sum(
        connection.scalar(select(func.count()).select_from(table)) or 0
        for table in (log_leaves, credentials)
    )


def inspect(
    connection: Connection,
    config: Config,
    log: Log,
    now: datetime,
    *,
    kept: str | None = None,
    step: Callable[[int], None] = lambda _: None,
) -> Report:
    """Examine everything. ``log`` is not loaded yet; ``kept`` is a checkpoint of elsewhere."""
    scope = Scope(connection=connection, config=config, log=log, now=now, step=step)
    known = ReadAuthorities(scope)
    parts: dict[str, Callable[[Scope], None]] = {
        "database": _storage,
        "log": log_inspection.check_tree,
        "checkpoint": lambda scope: log_inspection.check_kept_checkpoint(scope, kept),
        "records": log_inspection.check_records,
        "authorities": lambda _: known.check(),
        "CRLs": lambda _: known.check_crls(),
        "credentials": lambda scope: credential_inspection.check_credentials(scope, known),
        "state": state_inspection.check_rows,
        "join tokens": state_inspection.check_join_tokens,
        "manifests": state_inspection.check_manifests,
        "admins": state_inspection.check_admins,
        "federation": state_inspection.check_federations,
        "nodes": state_inspection.check_nodes,
        "streams": state_inspection.check_streams,
        "subordinates": state_inspection.check_subordinates,
    }
    for name, part in parts.items():
        # Each as far as its rows can be read; the next one whatever came before.
        try:
            part(scope)
        except (SQLAlchemyError, ValueError, TypeError, AttributeError) as error:
            # A column holds what is not of its type: SQLite lets anybody write that.
            why = str(error).partition("\n")[0]
            scope.report.add(name, f"cannot be read to the end: {why}")
    return scope.report


def _storage(scope: Scope) -> None:
    """What follows trusts SQLite: that an index names the rows that are there, each once.

    And that a table is one: a view in its place shows what it likes, when it likes.
    """
    scope.add("schema", differences(scope.connection))
    said = scope.connection.scalar(text("PRAGMA integrity_check(1)"))
    if said != "ok":
        scope.report.add("database", f"SQLite finds it damaged: {said}")

"""The log under audit: its tree, a checkpoint of elsewhere, and whether what it tells of is there.

Each record is held against those before it (``replay``).

Reading the records also notes what they tell (``told``), for the parts that come after.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from sqlalchemy import func, select

from accredit_credentials import checkpoint as signed_note
from accredit_credentials.errors import CredentialError
from accredit_credentials.merkle import Frontier
from accredit_issuer.audit.kept_rows import KEPT, Kept
from accredit_issuer.audit.log import LogDamaged, LogReader, NodeReader
from accredit_issuer.audit.recorded import InvalidRecord, Recorded
from accredit_issuer.audit.replay import Replay
from accredit_issuer.audit.scope import BATCH, Scope
from accredit_issuer.registry.targets import namespace_of
from accredit_issuer.store.models import log_leaves


def check_tree(scope: Scope) -> None:
    """Whether the log is what its signed checkpoint says."""
    try:
        scope.log.load(scope.connection)
        LogReader(scope.connection).check(scope.log.frontier)
    except LogDamaged as error:
        scope.report.add("log", str(error))
    scope.report.size = scope.log.frontier.size
    scope.report.checkpoint = scope.log.checkpoint


def check_kept_checkpoint(scope: Scope, kept: str | None) -> None:
    """Whether the log goes on from where it was when somebody kept a checkpoint."""
    if kept is None:
        return
    try:
        known = signed_note.verify(kept, origin=scope.log.origin, keys=[scope.log.key])
        size = scope.log.frontier.size
        if known.size > size:
            scope.report.add(
                "log", f"it has {size} records, and had {known.size} when a checkpoint was kept"
            )
        elif Frontier.load(known.size, NodeReader(scope.connection)).root() != known.root:
            scope.report.add("log", f"its first {known.size} records are not those of then")
    except (CredentialError, LookupError) as error:
        scope.report.add("checkpoint", f"the one that was kept cannot be compared: {error}")


def check_records(scope: Scope) -> None:
    """Read every record, note what it tells, and look for what it tells of."""
    last = scope.connection.scalar(select(func.max(log_leaves.c.index)))
    reader = LogReader(scope.connection)
    replay = Replay(
        scope.config.trust_domain, lambda target: namespace_of(scope.connection, target)
    )
    for start in range(0, -1 if last is None else last + 1, BATCH):
        records = list(_read(scope, reader, start, min(BATCH, (last or 0) + 1 - start)))
        by_kind: defaultdict[str, list[Recorded]] = defaultdict(list)
        for record in records:
            by_kind[record.kind].append(record)
            try:
                scope.told.note(record, scope.now)
                scope.add(f"log entry {record.index}", replay.judge(record))
            except InvalidRecord as error:
                scope.report.add(f"log entry {record.index}", str(error))
        for kind, of_it in by_kind.items():
            if kind in KEPT:
                _told_of(scope, KEPT[kind], of_it)
        scope.report.examined["records"] += len(records)
        scope.step(len(records))


def _read(scope: Scope, reader: LogReader, start: int, number: int) -> Iterator[Recorded]:
    entries = reader.entries(start, number)
    if len(entries) < number:
        scope.report.add("log", f"{number - len(entries)} records from {start} on are missing")
    for entry in entries:
        try:
            yield Recorded.of_leaf(entry.index, entry.leaf)
        except InvalidRecord as error:
            scope.report.add(f"log entry {entry.index}", str(error))


def _told_of(scope: Scope, kept: Kept, records: Sequence[Recorded]) -> None:
    """Whether what records tell of is still there, and knows its record."""
    keys = {record.index: _plain(kept.key_of(record)) for record in records}
    found = scope.connection.execute(kept.indexes.where(kept.key.in_(set(keys.values()))))
    known = {row.key: row.log_index for row in found}
    for record in records:
        key = keys[record.index]
        if key not in known:
            problem = f"it tells of the {kept.name} {key}, which the database does not have"
            scope.report.add(f"log entry {record.index}", problem)
        elif known[key] != record.index:
            problem = f"it tells of the {kept.name} {key}, whose row names entry {known[key]}"
            scope.report.add(f"log entry {record.index}", problem)


def _plain(key: object) -> str | int | None:
    """A key as the database takes it: what else stands in a record names nothing."""
    return key if isinstance(key, str | int) else None

"""Inserting many rows of one table at once, by the driver's own prepared statements.

What is written for each credential takes this way: SQLAlchemy would cost more here than SQLite.
Values are converted as the columns' types would, so that SQLAlchemy reads them back.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from typing import Any

from sqlalchemy import JSON, Connection, Table

from accredit_issuer.store.models import Moment

Row = Sequence[Any]
"""The values of one row, in the order of the columns."""

# Rows of one statement. Between two statements the interpreter's lock changes hands, and the event
# loop takes its time to give it back.
AT_ONCE = (64, 16, 4, 1)


class BulkInsert:
    """The insert of whole rows into one table; a column that is not given is NULL."""

    def __init__(self, table: Table) -> None:
        names = [column.name for column in table.columns]
        columns = ", ".join(f'"{name}"' for name in names)
        places = f"({', '.join('?' * len(names))})"
        insert = f'INSERT INTO "{table.name}" ({columns}) VALUES '  # noqa: S608 (names of ours)
        self._statements = [(size, insert + ", ".join([places] * size)) for size in AT_ONCE]
        self._names = names
        self._known = frozenset(names)
        self._conversions = [
            (index, convert)
            for index, column in enumerate(table.columns)
            if (convert := _conversion(column.type)) is not None
        ]

    def row(self, values: Mapping[str, Any]) -> Row:
        """One row as the driver takes it.

        Raises:
            KeyError: the table has no such column.
        """
        if not self._known.issuperset(values):
            unknown = sorted(values.keys() - self._known)
            raise KeyError(f"no such columns: {', '.join(unknown)}")
        row = list(map(values.get, self._names))
        for index, convert in self._conversions:
            if row[index] is not None:
                row[index] = convert(row[index])
        return row

    def write(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Insert the rows as part of the connection's transaction."""
        driver: Any = connection.connection.driver_connection
        written = 0
        for size, statement in self._statements:
            while len(rows) - written >= size:
                values = chain.from_iterable(rows[written : written + size])
                driver.execute(statement, list(values))
                written += size


@lru_cache(maxsize=256)  # what is written together has its moments in common
def stored_moment(moment: datetime) -> str:
    """A moment as ``Moment`` has it stored.

    Raises:
        ValueError: without a time zone.
    """
    if moment.tzinfo is None:
        raise ValueError("a moment must have a time zone")
    return moment.astimezone(UTC).isoformat(" ", "microseconds")[:26]


def _conversion(kind: object) -> Callable[[Any], Any] | None:
    if isinstance(kind, Moment):
        return stored_moment
    return json.dumps if isinstance(kind, JSON) else None

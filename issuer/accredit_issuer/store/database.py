"""The database: one engine that writes, one that reads, and the schema brought up to date.

SQLite with a write-ahead log and ``synchronous=FULL``: what was committed survives a power cut.
Only ``writer.Writer`` uses the writing engine.
"""

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event

from accredit_issuer.store.schema import check_schema, migrate

WAL_PAGES = 4000  # of 4 KiB, then what the write-ahead log holds is copied into the database


class Database:
    """Two engines on one SQLite file."""

    def __init__(self, file: Path) -> None:
        self.writing = _engine(file, begin="BEGIN IMMEDIATE", query_only=False)
        self.reading = _engine(file, begin="BEGIN", query_only=True)

    def migrate(self) -> None:
        """Bring the schema up to date, in one transaction.

        Raises:
            SchemaDamaged: it is then not the one that the migrations make.
        """
        with self.writing.begin() as connection:
            migrate(connection)
            check_schema(connection)

    def read(self) -> Connection:
        """A connection that cannot write; use it in a ``with``."""
        return self.reading.connect()

    def close(self) -> None:
        """Close every connection."""
        self.writing.dispose()
        self.reading.dispose()


def _engine(file: Path, *, begin: str, query_only: bool) -> Engine:
    engine = create_engine(
        f"sqlite:///{file}",
        connect_args={"check_same_thread": False},
        # A reader waits for nobody: the event loop is one of them.
        max_overflow=-1,
        # An error ends in the log; what was to be stored does not.
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        # The driver's own idea of transactions would begin them late: ours is explicit.
        connection.isolation_level = None
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            # Serial numbers are random: the pages of their index change again and again before
            # they have to be copied back.
            f"wal_autocheckpoint={WAL_PAGES}",
            "foreign_keys=ON",
            "trusted_schema=OFF",  # what a changed schema calls may do nothing
            "busy_timeout=5000",
            f"query_only={int(query_only)}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine

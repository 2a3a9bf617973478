"""The schema: brought up to date, and compared with the one that the migrations make.

Whoever can write the database can put a view where a table was, or a trigger behind one: what is
read is then no row that anybody wrote, and another one at another hour. So nothing is read from a
database whose schema is not, word for word, that of a new one.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import StaticPool

from accredit_issuer.errors import IssuerError

_MIGRATIONS = Path(__file__).parent / "migrations"
# What SQLite writes down for itself when somebody has it look for better plans.
_STATISTICS = frozenset({"sqlite_stat1", "sqlite_stat4"})


class SchemaDamaged(IssuerError):
    """The database has a view, a trigger or a table that the issuer did not make, or lacks one."""


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """One table, index, view or trigger; ``sql`` with each gap one space."""

    kind: str
    name: str
    table: str
    sql: str

    @property
    def what(self) -> str:
        """What to call it."""
        return f"the {self.kind} {self.name}"


def migrate(connection: Connection) -> None:
    """Bring the schema up to date."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def check_schema(connection: Connection) -> None:
    """Decide whether the schema is the one that the migrations make.

    Raises:
        SchemaDamaged: it is another.
    """
    if different := differences(connection):
        raise SchemaDamaged(
            f"somebody changed the database's schema: {'; '.join(different)}. Restore a backup, "
            "or find out who did it, and with which rows ('accredit-issuer audit')"
        )


def differences(connection: Connection) -> list[str]:
    """What is there and should not be, or is not as it should be: empty where nothing is."""
    found, wanted = _parts(connection), _expected()
    there, named = ({(part.kind, part.name) for part in parts} for parts in (found, wanted))
    return [
        *(
            f"{part.what} is not as it was made"
            if (part.kind, part.name) in named
            else f"{part.what} is not ours"
            for part in sorted(found - wanted)
        ),
        *(f"the {kind} {name} is missing" for kind, name in sorted(named - there)),
    ]


def _parts(connection: Connection) -> frozenset[Part]:
    rows = connection.execute(text("SELECT type, name, tbl_name, sql FROM sqlite_master"))
    return frozenset(
        Part(row.type, row.name, row.tbl_name, " ".join((row.sql or "").split()))
        for row in rows
        if not (row.type == "table" and row.name in _STATISTICS)
    )


@cache
def _expected() -> frozenset[Part]:
    """The schema of a new database; made once a process, in memory."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    try:
        with engine.begin() as connection:
            migrate(connection)
            return _parts(connection)
    finally:
        engine.dispose()

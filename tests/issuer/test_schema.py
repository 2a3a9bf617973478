"""A database with a view, a trigger or anything else that we did not make is not read from."""

import re
from pathlib import Path

import pytest
from sqlalchemy import text
from support.offline import Offline, offline_issuer

from accredit_issuer.audit.inspection import inspect
from accredit_issuer.audit.log import Log
from accredit_issuer.audit.report import Report
from accredit_issuer.store.database import Database
from accredit_issuer.store.schema import SchemaDamaged, check_schema, differences

CHANGES = {
    "a view that shows a row at some hours": (
        (
            "ALTER TABLE admin RENAME TO admin_real",
            "CREATE VIEW admin AS SELECT * FROM admin_real WHERE strftime('%H', 'now') <> '03'",
        ),
        ("the view admin is not ours", "the table admin_real is not ours",
         "the table admin is missing"),
    ),
    "a view beside the tables": (
        ("CREATE VIEW more AS SELECT 1 AS one",), ("the view more is not ours",)),
    "a trigger": (
        ("CREATE TRIGGER t AFTER INSERT ON fact BEGIN DELETE FROM enrolment_token; END",),
        ("the trigger t is not ours",),
    ),
    "a trigger instead of a deletion": (
        ("CREATE TRIGGER t BEFORE UPDATE ON join_token BEGIN SELECT RAISE(IGNORE); END",),
        ("the trigger t is not ours",),
    ),
    "a table": (("CREATE TABLE more (a)",), ("the table more is not ours",)),
    "a column": (
        ("ALTER TABLE fact ADD COLUMN more TEXT",), ("the table fact is not as it was made",)),
    "a default": (
        ("ALTER TABLE enrolment_token DROP COLUMN redeemed_by",
         "ALTER TABLE enrolment_token ADD COLUMN redeemed_by VARCHAR DEFAULT 'x'"),
        ("the table enrolment_token is not as it was made",),
    ),
    "an index": (
        ("CREATE UNIQUE INDEX more ON fact (target)",), ("the index more is not ours",)),
    "an index gone": (
        ("DROP INDEX uq_manifest_agent_version",),
        ("the index uq_manifest_agent_version is missing",),
    ),
    "an index of less": (
        ("DROP INDEX ix_fact_target", "CREATE INDEX ix_fact_target ON fact (target) WHERE 0"),
        ("the index ix_fact_target is not as it was made",),
    ),
}  # fmt: skip


def audited(offline: Offline) -> Report:
    """What an audit of an open issuer finds."""
    log = Log(offline.config.log_origin, offline.issuer.keys.load_log_key())
    with offline.issuer.database.read() as connection:
        return inspect(connection, offline.config, log, offline.clock())


def change(offline: Offline, *statements: str) -> None:
    """Statements by somebody who has the file of an issuer that is stopped."""
    offline.issuer.close()
    database = Database(offline.config.database)
    with database.writing.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    database.close()


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CHANGES.items()])
def test_a_changed_schema_stops_the_start(
    tmp_path: Path, case: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    """The issuer says what is not its own and does not start, and nothing of it is changed."""
    statements, said = case
    with offline_issuer(tmp_path / "issuer") as offline:
        change(offline, *statements)
        with pytest.raises(SchemaDamaged, match=re.escape(said[0])) as refused:
            offline.reopen()
        assert "\n" not in str(refused.value)
        database = Database(offline.config.database)
        with database.read() as connection:
            assert set(said) <= set(differences(connection))
        database.close()


def test_an_audit_finds_a_changed_schema(offline: Offline) -> None:
    """Of an issuer that runs and looked before; the schema is put back, and nothing is found."""
    with offline.issuer.database.writing.begin() as connection:
        connection.execute(text("CREATE VIEW more AS SELECT 1 AS one"))
    (found,) = audited(offline).findings
    assert (found.about, found.problem) == ("schema", "the view more is not ours")
    with offline.issuer.database.writing.begin() as connection:
        connection.execute(text("DROP VIEW more"))
    assert audited(offline).ok


def test_what_sqlite_does_by_itself_is_no_change(offline: Offline) -> None:
    """Statistics for better plans, a file made compact: it starts, and an audit finds nothing."""
    change(offline, "ANALYZE")
    database = Database(offline.config.database)
    with database.writing.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("VACUUM")
        connection.exec_driver_sql("BEGIN")
    database.close()
    offline.reopen()
    assert audited(offline).ok


def test_a_migrated_database_is_as_a_new_one(tmp_path: Path) -> None:
    """Migrated twice it is the same, and no connection lets a schema call what it likes."""
    database = Database(tmp_path / "issuer.db")
    for _ in range(2):
        database.migrate()
    with database.read() as reading, database.writing.connect() as writing:
        check_schema(reading)
        for connection in (reading, writing):
            assert connection.scalar(text("PRAGMA trusted_schema")) == 0
    database.close()

"""``accredit-issuer audit`` of the log: its tree, its records, a checkpoint kept elsewhere.

Each test changes a copy of one issuer's database by SQL, as somebody with the file could.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from support.audit_world import AuditWorld, Case, Tampering, audited, cases, check_found, sql
from support.offline import Offline

from accredit_credentials.merkle import Frontier, leaf_hash
from accredit_issuer.audit.log import Log
from accredit_issuer.cli.audit import lines
from accredit_issuer.store.database import Database


def change_leaf(old: bytes, new: bytes, *, rehash: bool) -> Tampering:
    """A record says something else, and perhaps its stored hash is made to match."""

    def tamper(connection: Connection, _world: AuditWorld) -> None:
        rows = connection.execute(text('SELECT "index", leaf FROM log_leaf')).all()
        index, leaf = next((row[0], row[1]) for row in rows if old in row[1])
        changed = leaf.replace(old, new)
        connection.execute(
            text('UPDATE log_leaf SET leaf = :leaf WHERE "index" = :index'),
            {"leaf": changed, "index": index},
        )
        if rehash:
            connection.execute(
                text('UPDATE log_leaf SET hash = :hash WHERE "index" = :index'),
                {"hash": leaf_hash(changed), "index": index},
            )

    return tamper


LOG: dict[str, Case] = {
    "a record changed": (
        change_leaf(b'"fact":"revoked"', b'"fact":"forgets"', rehash=False),
        "log", "is not what its hash says"),
    "a record and its hash": (
        change_leaf(b'"fact":"revoked"', b'"fact":"forgets"', rehash=True), "log", "do not lead"),
    "a record that says another": (
        change_leaf(b'"reason":"test"', b'"reason":"none"', rehash=True), "fact 1", "reason"),
    "a record that is none": (
        change_leaf(b'"actor":"issuer"', b'"actor":1 ', rehash=True),
        "log entry 0", "is not a record"),
    "a record without its kind": (
        change_leaf(b"credential.issued", b"credential.unsaid", rehash=True),
        "certificate {first}", "is not its record"),
    "a record of no fact": (
        change_leaf(b'"fact":"revoked"', b'"fact":"forgets"', rehash=True),
        "log entry", "it is not a revocation fact"),
    "a record gone": (
        sql('DELETE FROM log_leaf WHERE "index" = 9'), "log", "1 records from 0 on are missing"),
    "the newest record gone": (
        sql('DELETE FROM log_leaf WHERE "index" = (SELECT max("index") FROM log_leaf)'),
        "log", "log's"),
    "no checkpoint": (
        sql("DELETE FROM singleton WHERE name = 'log.checkpoint'"), "log", "no checkpoint"),
}  # fmt: skip


@pytest.mark.parametrize("case", cases(LOG))
def test_what_was_changed_is_found_and_named(
    audit_world: AuditWorld, audit_copy: Database, case: Case
) -> None:
    """A log that was changed behind the issuer's back is found, and named."""
    check_found(audit_world, audit_copy, case)


def rewrite(world: AuditWorld, database: Database, change: Callable[[dict[str, Any]], None]) -> int:
    """Another history, signed by the log's key; returns how many records it has."""
    log = Log(world.config.log_origin, world.log_key)
    with database.writing.begin() as connection:
        rows = connection.execute(text('SELECT "index", leaf FROM log_leaf ORDER BY "index"')).all()
        leaves = []
        for index, leaf in rows:
            record = json.loads(leaf)
            change(record)
            leaves.append(json.dumps(record, sort_keys=True, separators=(",", ":")).encode())
            connection.execute(
                text('UPDATE log_leaf SET leaf = :l, hash = :h WHERE "index" = :i'),
                {"l": leaves[-1], "h": leaf_hash(leaves[-1]), "i": index},
            )
        frontier, _ = Frontier().extend(leaf_hash(leaf) for leaf in leaves)
        connection.execute(
            text("UPDATE singleton SET value = :v WHERE name = 'log.checkpoint'"),
            {"v": log.sign(frontier)},
        )
    return len(leaves)


def as_before(record: dict[str, Any]) -> None:
    """A record as earlier versions wrote it."""
    newer = {
        "agent.enrolled": ("expires_at",),
        "admin.invited": ("expires_at",),
        "authority.prepared": ("expires_at", "origin", "parent", "public_sha256"),
    }
    for name in newer.get(record["kind"], ()):
        del record["details"][name]
    if record["kind"] == "admin.enrolled":
        record["kind"] = "issuer.noted"  # there was none


def test_records_of_an_earlier_version_are_counted(
    audit_world: AuditWorld, audit_copy: Database
) -> None:
    """They say less: what they say is compared, and the rest of their rows is no finding."""
    rewrite(audit_world, audit_copy, as_before)
    report = audit_world.audit(audit_copy)
    assert report.findings == []
    # Four authorities, four join tokens, one one-time token.
    assert report.terse == 9
    assert "note  9 rows have records of an earlier version, which say less" in lines(report)
    for statement in ("DELETE FROM enrolment_token", "UPDATE join_token SET created_by = 'eve'"):
        with audit_copy.writing.begin() as connection:
            connection.execute(text(statement))
    found = {f.about.split()[0] for f in audit_world.audit(audit_copy).findings}
    assert found == {"one-time", "join"}


def test_a_rewritten_history_is_found_by_a_kept_checkpoint(
    audit_world: AuditWorld, audit_copy: Database
) -> None:
    """Whoever has the log's key signs another past; a checkpoint of elsewhere tells."""

    def blame_eve(record: dict[str, Any]) -> None:
        if record["actor"] == "test":
            record["actor"] = "eve"

    size = rewrite(audit_world, audit_copy, blame_eve)
    with audit_copy.writing.begin() as connection:
        connection.execute(text("UPDATE fact SET actor = 'eve'"))
        connection.execute(text("UPDATE signer SET created_by = 'eve'"))
        connection.execute(text("UPDATE manifest SET registered_by = 'eve'"))
        connection.execute(text("UPDATE join_token SET created_by = 'eve'"))
        connection.execute(text("UPDATE node SET created_by = 'eve'"))
        connection.execute(text("UPDATE stream SET created_by = 'eve'"))
        connection.execute(text("UPDATE node_join_token SET created_by = 'eve'"))
    assert audit_world.audit(audit_copy).ok  # it is consistent in itself
    found = audit_world.audit(audit_copy, kept=audit_world.checkpoint).findings
    assert [f.problem for f in found] == [f"its first {size} records are not those of then"]


def test_a_log_that_became_shorter_is_found_by_a_kept_checkpoint(
    offline: Offline, tmp_path: Path
) -> None:
    """A restored backup is consistent in itself, and shorter than what somebody saw."""
    offline.agent()
    offline.issuer.close()
    shutil.copy(offline.config.database, tmp_path / "backup.db")
    offline.reopen()
    offline.agent()
    kept = offline.issuer.log.checkpoint
    offline.issuer.close()
    shutil.copy(tmp_path / "backup.db", offline.config.database)
    offline.reopen()
    assert audited(offline).ok
    assert "had" in audited(offline, kept=kept).findings[0].problem
    assert "cannot be compared" in audited(offline, kept="nonsense").findings[0].problem

"""The log: it grows with the commit or not at all, damage is seen, and proofs prove."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, delete, update
from support.clock import NOW

from accredit_credentials import checkpoint as notes
from accredit_credentials.checkpoint import Checkpoint
from accredit_credentials.merkle import (
    leaf_hash,
    root_of_hashes,
    verify_consistency,
    verify_inclusion,
)
from accredit_credentials.tiles import TILE_WIDTH
from accredit_issuer.audit.log import Log, LogDamaged, LogReader
from accredit_issuer.audit.records import Record, RecordKind
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import log_leaves, log_tile_roots, singletons

KEY = Ed25519PrivateKey.generate()
ORIGIN = "example.org/accredit-log"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    database = Database(tmp_path / "issuer.db")
    database.migrate()
    yield database
    database.close()


def grow(database: Database, log: Log, leaves: list[bytes]) -> None:
    """Add leaves in one transaction."""
    growth = log.grow()
    with database.writing.begin() as connection:
        for leaf in leaves:
            growth.append(leaf)
        growth.keep()
        growth.write(connection)
    growth.publish()


def filled(database: Database, size: int, step: int = 1000) -> Log:
    """A log of ``size`` leaves."""
    log = Log(ORIGIN, KEY)
    leaves = [b"leaf %d" % index for index in range(size)]
    for begin in range(0, size, step):
        grow(database, log, leaves[begin : begin + step])
    return log


def loaded(database: Database) -> Log:
    """The log as a restart finds it."""
    log = Log(ORIGIN, KEY)
    with database.read() as connection:
        log.load(connection)
    return log


def roots(size: int) -> dict[tuple[int, int], bytes]:
    """The roots of full tiles, computed from all leaves."""
    hashes = [leaf_hash(b"leaf %d" % index) for index in range(size)]
    found: dict[tuple[int, int], bytes] = {}
    for level, span in ((1, 256), (2, 65536)):
        for index in range(size // span):
            found[level, index] = root_of_hashes(hashes[index * span : (index + 1) * span])
    return found


@pytest.mark.parametrize("step", [1, 100, 256, 255, 1000])
def test_the_tree_does_not_depend_on_how_it_grew(database: Database, step: int) -> None:
    """Leaf by leaf or at once: the same root, the same tile roots, the same after a restart."""
    size = 520
    log = filled(database, size, step)
    expected = root_of_hashes([leaf_hash(b"leaf %d" % index) for index in range(size)])
    assert log.frontier.root() == loaded(database).frontier.root() == expected
    with database.read() as connection:
        kept = {
            (level, at): root for level, at, root in connection.execute(log_tile_roots.select())
        }
        LogReader(connection).check(log.frontier)
    assert kept == roots(size)


def test_past_the_second_level_of_tiles(database: Database) -> None:
    """With more than 65,536 leaves the tiles of level 2 are kept, found, and prove."""
    size = 65536 + 300
    log = filled(database, size, step=20000)
    assert loaded(database).frontier == log.frontier
    with database.read() as connection:
        kept = {
            (level, at): root for level, at, root in connection.execute(log_tile_roots.select())
        }
        assert kept == roots(size)
        reader = LogReader(connection)
        assert reader.tile(1, 0) == b"".join(kept[1, index] for index in range(256))
        assert reader.tile(2, 0, 1) == kept[2, 0]
        assert reader.tile(2, 0) is None
        assert reader.tile(0, 256, 44) == reader.tile(0, 256, 45)[:-32]  # type: ignore[index]
        for index in (0, 255, 256, 65535, 65536, size - 1):
            verify_inclusion(
                leaf_hash=leaf_hash(b"leaf %d" % index),
                index=index,
                size=size,
                proof=reader.inclusion(index, size),
                root=log.frontier.root(),
            )


def test_proofs_prove(database: Database) -> None:
    """Every leaf's inclusion, and consistency with every earlier checkpoint, verify."""
    log = Log(ORIGIN, KEY)
    seen: list[Checkpoint] = []
    for index in range(20):
        grow(database, log, [b"leaf %d.%d" % (index, n) for n in range(index * 3 + 1)])
        seen.append(notes.verify(log.checkpoint, origin=ORIGIN, keys=[log.key]))
    newest = seen[-1]
    with database.read() as connection:
        reader = LogReader(connection)
        for old in seen:
            verify_consistency(
                old_size=old.size,
                new_size=newest.size,
                old_root=old.root,
                new_root=newest.root,
                proof=reader.consistency(old.size, newest.size),
            )
        for entry in reader.entries(0, newest.size):
            verify_inclusion(
                leaf_hash=leaf_hash(entry.leaf),
                index=entry.index,
                size=newest.size,
                proof=reader.inclusion(entry.index, newest.size),
                root=newest.root,
            )


def test_only_what_was_kept_is_written(database: Database) -> None:
    """``take_back`` forgets what came since the last ``keep`` and nothing before it."""
    log = Log(ORIGIN, KEY)
    growth = log.grow()
    assert growth.append(b"a") == 0
    growth.keep()
    assert growth.append(b"b") == 1
    growth.take_back()
    assert growth.append(b"c") == 1
    growth.append(b"d")
    growth.keep()
    growth.append(b"e")
    growth.take_back()
    with database.writing.begin() as connection:
        growth.write(connection)
    growth.publish()
    with database.read() as connection:
        assert [e.leaf for e in LogReader(connection).entries(0, 10)] == [b"a", b"c", b"d"]
    assert log.frontier.size == 3


def test_nothing_is_seen_before_it_is_durable(database: Database) -> None:
    """Until ``publish`` the log is what it was; where nothing was added it stays so."""
    log = filled(database, 3)
    before = log.head
    growth = log.grow()
    with database.writing.begin() as connection:
        growth.write(connection)
    growth.publish()
    assert log.head is before
    growth.append(b"x")
    growth.keep()
    with database.writing.begin() as connection:
        growth.write(connection)
        assert log.head is before
        connection.rollback()
    assert loaded(database).frontier == before.frontier


Damage = Callable[[Connection], object]
SEEN_AT_START: dict[str, Damage] = {
    "the last leaf is missing": lambda c: c.execute(
        delete(log_leaves).where(log_leaves.c.index == 599)
    ),
    "a leaf in the middle is missing": lambda c: c.execute(
        delete(log_leaves).where(log_leaves.c.index == 100)
    ),
    "the first leaf is missing": lambda c: c.execute(
        delete(log_leaves).where(log_leaves.c.index == 0)
    ),
    "the hash of a late leaf is another": lambda c: c.execute(
        update(log_leaves).where(log_leaves.c.index == 550).values(hash=b"x" * 32)
    ),
    "a hash has another length": lambda c: c.execute(
        update(log_leaves).where(log_leaves.c.index == 550).values(hash=b"x")
    ),
    "a tile root is another": lambda c: c.execute(
        update(log_tile_roots).where(log_tile_roots.c.index == 0).values(hash=b"x" * 32)
    ),
    "a tile root is missing": lambda c: c.execute(
        delete(log_tile_roots).where(log_tile_roots.c.index == 1)
    ),
    "one leaf too many": lambda c: c.execute(
        log_leaves.insert().values(index=600, leaf=b"x", hash=leaf_hash(b"x"))
    ),
    "there is no checkpoint": lambda c: c.execute(delete(singletons)),
    "the checkpoint is of another key": lambda c: c.execute(
        update(singletons).values(value=Log(ORIGIN, Ed25519PrivateKey.generate()).checkpoint)
    ),
    "the checkpoint is of an empty log": lambda c: c.execute(
        update(singletons).values(value=Log(ORIGIN, KEY).checkpoint)
    ),
    "the checkpoint is no note": lambda c: c.execute(update(singletons).values(value="x")),
    "every leaf is gone": lambda c: c.execute(delete(log_leaves)),
}
SEEN_WHEN_EXAMINED: dict[str, Damage] = {
    "an early leaf says something else": lambda c: c.execute(
        update(log_leaves).where(log_leaves.c.index == 5).values(leaf=b"x")
    ),
    "an early leaf and its hash are others": lambda c: c.execute(
        update(log_leaves).where(log_leaves.c.index == 5).values(leaf=b"x", hash=leaf_hash(b"x"))
    ),
    "an early hash is another": lambda c: c.execute(
        update(log_leaves).where(log_leaves.c.index == 5).values(hash=b"x" * 32)
    ),
    "the last leaf says something else": lambda c: c.execute(
        update(log_leaves).where(log_leaves.c.index == 599).values(leaf=b"x")
    ),
}


@pytest.mark.parametrize("damage", SEEN_AT_START.values(), ids=SEEN_AT_START)
def test_damage_to_the_edge_is_seen_at_the_start(database: Database, damage: Damage) -> None:
    """An issuer whose log lost or changed what it grows from does not start."""
    filled(database, 600)
    with database.writing.begin() as connection:
        damage(connection)
    with pytest.raises(LogDamaged):
        loaded(database)


@pytest.mark.parametrize("damage", SEEN_WHEN_EXAMINED.values(), ids=SEEN_WHEN_EXAMINED)
def test_damage_anywhere_is_seen_when_examined(database: Database, damage: Damage) -> None:
    """``doctor`` reads every leaf again: one that was changed anywhere is found."""
    log = filled(database, 600)
    with database.writing.begin() as connection:
        damage(connection)
    with database.read() as connection, pytest.raises(LogDamaged):
        LogReader(connection).check(log.frontier)


def test_a_tile_is_whole_or_not_there(database: Database) -> None:
    """A tile is served with the width that was asked for, or not at all."""
    filled(database, 300)
    with database.read() as connection:
        reader = LogReader(connection)
        assert len(reader.tile(0, 0) or b"") == 256 * 32
        assert len(reader.tile(0, 1, 44) or b"") == 44 * 32
        for level, index, width in ((0, 1, 45), (0, 1, 256), (0, 2, 1), (1, 0, 2), (2, 0, 1)):
            assert reader.tile(level, index, width) is None
    assert TILE_WIDTH == 256


def test_a_record_has_one_spelling() -> None:
    """A leaf is canonical JSON: no line break and no escape character comes through raw."""
    record = Record(
        kind=RecordKind.REQUEST_REFUSED,
        at=NOW,
        actor="a\r\nb\x1b[31m",
        subject="é",
        details={"b": 1, "a": "x\ny"},
    )
    leaf = record.leaf()
    assert not any(byte < 32 for byte in leaf)
    assert json.loads(leaf)["actor"] == "a\r\nb\x1b[31m"
    assert leaf == rfc8785.dumps(json.loads(leaf))
    assert b'"at":"2026-06-01T12:00:00.000Z"' in leaf

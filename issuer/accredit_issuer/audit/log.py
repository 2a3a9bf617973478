"""The log: records in an RFC 6962 tree, under a checkpoint that is signed with each commit.

``Log`` holds the growing edge of the tree and the newest checkpoint. ``LogGrowth`` is what one
database transaction adds: it is written with the state that it tells of, and seen by others only
once both are durable. ``LogReader`` serves entries, tiles and proofs from the database.

Of the tree's inner hashes only the roots of full tiles (256 leaves and up) are kept: one row in
256, and any proof reads a few hundred hashes at most.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import count

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, bindparam, func, select

from accredit_credentials import checkpoint as signed_note
from accredit_credentials.checkpoint import Checkpoint, LogKey
from accredit_credentials.errors import InvalidCheckpoint, InvalidProof
from accredit_credentials.merkle import (
    Frontier,
    Node,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of_hashes,
)
from accredit_credentials.tiles import TILE_WIDTH
from accredit_issuer.audit.records import RecordKind, read_leaf
from accredit_issuer.errors import IssuerError
from accredit_issuer.store.bulk import BulkInsert
from accredit_issuer.store.models import log_leaves, log_tile_roots, singletons

TILE_HEIGHT = 8
LOOKED_AT = 256  # records, for the newest moment
_CHECKPOINT = "log.checkpoint"

_INSERT_LEAF = BulkInsert(log_leaves)
_INSERT_TILE_ROOT = BulkInsert(log_tile_roots)


@dataclass(frozen=True, slots=True)
class Head:
    """A tree and its signed checkpoint: replaced as one, so that a reader sees them agree."""

    frontier: Frontier
    checkpoint: str


class LogDamaged(IssuerError):
    """What the database holds is not what the checkpoint says."""


class Log:
    """The growing edge of the tree, and the newest checkpoint. Grown by the writing thread only."""

    def __init__(self, origin: str, key: Ed25519PrivateKey) -> None:
        self.origin = origin
        self.key = LogKey(origin, key.public_key())
        self._private_key = key
        self.head = Head(Frontier(), self.sign(Frontier()))

    @property
    def frontier(self) -> Frontier:
        """The growing edge."""
        return self.head.frontier

    @property
    def checkpoint(self) -> str:
        """The newest signed checkpoint."""
        return self.head.checkpoint

    def load(self, connection: Connection) -> None:
        """Take up the tree where the database left it.

        Raises:
            LogDamaged: leaves and checkpoint do not agree.
        """
        size = connection.scalar(select(func.count()).select_from(log_leaves)) or 0
        text = connection.scalar(select(singletons.c.value).where(singletons.c.name == _CHECKPOINT))
        if text is None:
            if size:
                raise LogDamaged(f"the log has {size} leaves and no checkpoint")
            return
        try:
            known = signed_note.verify(text, origin=self.origin, keys=[self.key])
            frontier = Frontier.load(size, NodeReader(connection))
        except (InvalidCheckpoint, InvalidProof, LookupError) as error:
            raise LogDamaged(f"the log's checkpoint or hashes cannot be used: {error}") from error
        if known != Checkpoint(self.origin, frontier.size, frontier.root()):
            raise LogDamaged(
                f"the log's leaves ({frontier.size}) do not lead to its checkpoint ({known.size})"
            )
        self.head = Head(frontier, text)

    def grow(self) -> "LogGrowth":
        """Begin what one transaction adds."""
        return LogGrowth(self)

    def sign(self, frontier: Frontier) -> str:
        """The signed checkpoint of a tree."""
        checkpoint = Checkpoint(self.origin, frontier.size, frontier.root())
        return signed_note.sign(checkpoint, self.origin, self._private_key)


class LogGrowth:
    """What one database transaction adds to the log."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._leaves: list[bytes] = []
        self._kept = 0
        self._publish: Callable[[], None] = lambda: None

    def append(self, leaf: bytes) -> int:
        """Add a leaf; returns its index."""
        self._leaves.append(leaf)
        return self._log.frontier.size + len(self._leaves) - 1

    def keep(self) -> None:
        """Make what was appended part of the transaction."""
        self._kept = len(self._leaves)

    def take_back(self) -> None:
        """Forget what was appended since the last ``keep``."""
        del self._leaves[self._kept :]

    def write(self, connection: Connection) -> None:
        """Write leaves, full tiles and the new checkpoint into the transaction."""
        if not self._leaves:
            return
        start = self._log.frontier.size
        hashes = [leaf_hash(leaf) for leaf in self._leaves]
        frontier, nodes = self._log.frontier.extend(hashes)
        checkpoint = self._log.sign(frontier)
        _INSERT_LEAF.write(connection, list(zip(count(start), self._leaves, hashes, strict=False)))
        tiles = [(node.level // TILE_HEIGHT, node.index, node.hash) for node in _tile_roots(nodes)]
        _INSERT_TILE_ROOT.write(connection, tiles)
        connection.exec_driver_sql(_SET_CHECKPOINT, (_CHECKPOINT, checkpoint))

        def publish() -> None:
            self._log.head = Head(frontier, checkpoint)

        self._publish = publish

    def publish(self) -> None:
        """Show the new tree to everyone: after the commit, and only then."""
        self._publish()


def _tile_roots(nodes: list[Node]) -> list[Node]:
    return [node for node in nodes if node.level and node.level % TILE_HEIGHT == 0]


@dataclass(frozen=True, slots=True)
class Entry:
    """One leaf and where it stands."""

    index: int
    leaf: bytes


class NodeReader:
    """The hash of any complete subtree, out of leaf hashes and tile roots."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __call__(self, level: int, index: int) -> bytes:
        """The hash of the complete subtree of ``2**level`` leaves at ``index``."""
        tile_level, height = divmod(level, TILE_HEIGHT)
        hashes = self.hashes(tile_level, index << height, (index + 1) << height)
        if len(hashes) != 1 << height:
            raise LookupError(f"hashes of level {level} are missing at {index}")
        return root_of_hashes(hashes)

    def hashes(self, tile_level: int, start: int, end: int) -> list[bytes]:
        """The hashes of one tile level from ``start`` up to, not including, ``end``."""
        query = _TILE_HASHES if tile_level else _LEAF_HASHES
        rows = self._connection.execute(query, {"level": tile_level, "first": start, "end": end})
        return [row.hash for row in rows]


class LogReader:
    """Entries, tiles and proofs, over one reading connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._node = NodeReader(connection)

    def entries(self, start: int, limit: int) -> list[Entry]:
        """At most ``limit`` entries from ``start`` on."""
        rows = self._connection.execute(_ENTRIES, {"first": start, "end": start + limit})
        return [Entry(index, leaf) for index, leaf in rows]

    def newest_moment(self) -> datetime | None:
        """The newest moment among the last records, or since somebody confirmed the clock.

        Of several: records of one moment come in any order, and what revokes is recorded by a
        clock that is wrong too. None where there are no records.
        """
        newest: datetime | None = None
        for row in self._connection.execute(_NEWEST):
            try:
                kind, at = read_leaf(row.leaf)
            except (ValueError, KeyError, TypeError):
                continue  # damaged: ``check`` says so
            newest = at if newest is None else max(newest, at)
            if kind is RecordKind.CLOCK_CONFIRMED:
                break
        return newest

    def tile(self, level: int, index: int, width: int = TILE_WIDTH) -> bytes | None:
        """One hash tile (C2SP tlog-tiles), or None where it is not there yet."""
        hashes = self._node.hashes(level, index * TILE_WIDTH, index * TILE_WIDTH + width)
        return b"".join(hashes) if len(hashes) == width else None

    def check(self, frontier: Frontier) -> None:
        """Read every leaf again, and compare the tree that they make with the one that is known.

        ``Log.load`` looks at the growing edge only: its cost does not grow with the log.

        Raises:
            LogDamaged: a leaf, its hash or a tile root was changed.
        """
        reached, tiles = Frontier(), dict[tuple[int, int], bytes]()
        while entries := self.entries(reached.size, TILE_WIDTH):
            reached, nodes = reached.extend(leaf_hash(entry.leaf) for entry in entries)
            tiles |= {(n.level // TILE_HEIGHT, n.index): n.hash for n in _tile_roots(nodes)}
            start, end = entries[0].index, entries[-1].index + 1
            kept = self._node.hashes(0, start, end)
            if kept != [leaf_hash(entry.leaf) for entry in entries]:
                raise LogDamaged(f"a leaf between {start} and {end} is not what its hash says")
        stored = {(level, at): root for level, at, root in self._connection.execute(_TILES)}
        if stored != tiles:
            raise LogDamaged("the roots of tiles are not what the leaves say")
        if reached != frontier:
            raise LogDamaged("the leaves do not lead to the checkpoint")

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """The proof that the entry at ``index`` is in the tree of ``size`` leaves."""
        return inclusion_proof(index, size, self._node)

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """The proof that the tree of ``new`` leaves only added to that of ``old``."""
        return consistency_proof(old, new, self._node)


_LEAF_HASHES = (
    select(log_leaves.c.hash)
    .where(log_leaves.c.index >= bindparam("first"), log_leaves.c.index < bindparam("end"))
    .order_by(log_leaves.c.index)
)
_TILE_HASHES = (
    select(log_tile_roots.c.hash)
    .where(
        log_tile_roots.c.level == bindparam("level"),
        log_tile_roots.c.index >= bindparam("first"),
        log_tile_roots.c.index < bindparam("end"),
    )
    .order_by(log_tile_roots.c.index)
)
_ENTRIES = (
    select(log_leaves.c.index, log_leaves.c.leaf)
    .where(log_leaves.c.index >= bindparam("first"), log_leaves.c.index < bindparam("end"))
    .order_by(log_leaves.c.index)
)
_NEWEST = select(log_leaves.c.leaf).order_by(log_leaves.c.index.desc()).limit(LOOKED_AT)
_TILES = select(log_tile_roots)
_SET_CHECKPOINT = (
    "INSERT INTO singleton (name, value) VALUES (?, ?) "
    "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)

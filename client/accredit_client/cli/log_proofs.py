"""What the log proves, decided on this machine.

Takes checkpoints whose signature was verified (``profile.verified_checkpoint``) and decides whether
entries are in that tree, and whether the tree only grew since the last one that was seen. What a
record says is read from its leaf, the bytes that were hashed; what the issuer says beside them is
not looked at. Pure, but for the tiles that a consistency proof is made from.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from accredit_client.answers import Explanation, LogEntry, Members
from accredit_client.errors import InvalidAnswer
from accredit_credentials.checkpoint import Checkpoint
from accredit_credentials.errors import InvalidProof
from accredit_credentials.merkle import (
    HASH_BYTES,
    Frontier,
    NodeSource,
    consistency_proof,
    leaf_hash,
    root_of_hashes,
    verify_consistency,
    verify_inclusion,
)
from accredit_credentials.strict_json import NotStrictJson, parse_object
from accredit_credentials.tiles import TILE_HEIGHT, TILE_WIDTH, Tile

TileSource = Callable[[Tile], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What one leaf says."""

    index: int
    kind: str
    at: str
    actor: str
    subject: str
    details: Mapping[str, Any]

    @classmethod
    def of_leaf(cls, index: int, leaf: bytes) -> "Record":
        """Read a leaf.

        Raises:
            InvalidAnswer: not a record.
        """
        try:
            members = Members(parse_object(leaf), f"log entry {index}")
        except NotStrictJson as error:
            raise InvalidAnswer(f"log entry {index} must be a JSON object: {error}") from None
        return cls(
            index=index,
            kind=members.text("kind"),
            at=members.text("at"),
            actor=members.text("actor"),
            subject=members.text("subject"),
            details=members.member("details").values,
        )


def proved_records(explanation: Explanation, checkpoint: Checkpoint) -> tuple[Record, ...]:
    """The records of an explanation, each of which is in the checkpoint's tree.

    Raises:
        InvalidProof: one is not, or none is about what was asked.
    """
    for entry in explanation.entries:
        verify_inclusion(
            leaf_hash=leaf_hash(entry.leaf),
            index=entry.index,
            size=checkpoint.size,
            proof=entry.proof,
            root=checkpoint.root,
        )
    records = tuple(Record.of_leaf(entry.index, entry.leaf) for entry in explanation.entries)
    # Real records of something else would prove nothing about this id.
    if not any(record.subject == explanation.id for record in records):
        raise InvalidProof(f"no record that was shown is about {explanation.id!r}")
    return records


def check_continues(seen: Checkpoint | None, current: Checkpoint, node: NodeSource) -> None:
    """Decide whether a log only added to what was seen of it.

    Raises:
        InvalidProof: entries were taken back or changed.
    """
    if seen is None:
        return
    _check_not_shrunk(seen, current)
    verify_consistency(
        old_size=seen.size,
        new_size=current.size,
        old_root=seen.root,
        new_root=current.root,
        proof=consistency_proof(seen.size, current.size, node),
    )


@dataclass(slots=True)
class Replay:
    """The whole log, added up from its first entry.

    Attributes:
        checkpoint: what the entries must lead to.
        seen: what they must lead to on the way, if a smaller tree was seen before.
    """

    checkpoint: Checkpoint
    seen: Checkpoint | None
    frontier: Frontier = field(default_factory=Frontier)

    def __post_init__(self) -> None:
        if self.seen is not None:
            _check_not_shrunk(self.seen, self.checkpoint)

    def add(self, entries: Iterable[LogEntry]) -> None:
        """Add the next entries; those beyond the checkpoint are left out.

        Raises:
            InvalidProof: out of order, or not what was seen before.
        """
        for entry in entries:
            if self.frontier.size == self.checkpoint.size:
                return
            if entry.index != self.frontier.size:
                raise InvalidProof(f"entry {entry.index} came where {self.frontier.size} stands")
            self.frontier = self.frontier.append(leaf_hash(entry.leaf))
            self._check_seen()

    def finish(self) -> None:
        """Decide whether the entries lead to the checkpoint.

        Raises:
            InvalidProof: they do not.
        """
        reached = Checkpoint(self.checkpoint.origin, self.frontier.size, self.frontier.root())
        if reached != self.checkpoint:
            raise InvalidProof(
                f"the log's {reached.size} entries do not lead to its signed checkpoint "
                f"of {self.checkpoint.size}"
            )

    def _check_seen(self) -> None:
        seen = self.seen
        if (
            seen is not None
            and self.frontier.size == seen.size
            and self.frontier.root() != seen.root
        ):
            raise InvalidProof(
                f"the log's first {seen.size} entries are not those that this machine has seen"
            )


def tile_nodes(fetch: TileSource, size: int) -> NodeSource:
    """The hash of any complete subtree in a tree of ``size`` leaves, out of its tiles."""

    def node(level: int, index: int) -> bytes:
        tile_level, height = divmod(level, TILE_HEIGHT)
        tile_index, offset = divmod(index << height, TILE_WIDTH)
        complete = (size >> (TILE_HEIGHT * tile_level)) - tile_index * TILE_WIDTH
        tile = Tile(tile_level, tile_index, min(TILE_WIDTH, complete))
        data = fetch(tile)
        if len(data) != tile.width * HASH_BYTES:
            raise InvalidProof(f"{tile.path} has {len(data)} bytes")
        wanted = range(offset, offset + (1 << height))
        return root_of_hashes([data[at * HASH_BYTES : (at + 1) * HASH_BYTES] for at in wanted])

    return node


def _check_not_shrunk(seen: Checkpoint, current: Checkpoint) -> None:
    if current.size < seen.size:
        raise InvalidProof(
            f"the log has {current.size} entries, and this machine has seen {seen.size}: "
            "entries were taken back"
        )

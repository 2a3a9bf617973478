"""The log's proofs as decisions: real trees, and the nearest tree that must be refused."""

from collections.abc import Sequence

import pytest

from accredit_client.answers import LogEntry
from accredit_client.cli.log_proofs import Record, Replay, TileSource, check_continues, tile_nodes
from accredit_client.errors import InvalidAnswer
from accredit_credentials.checkpoint import Checkpoint
from accredit_credentials.errors import InvalidProof
from accredit_credentials.merkle import leaf_hash, root_of_hashes
from accredit_credentials.tiles import TILE_HEIGHT, TILE_WIDTH, Tile

ORIGIN = "example.org/log"
LEAVES = [f"leaf {number}".encode() for number in range(700)]
OTHER = [b"another", *LEAVES[1:]]


def checkpoint(leaves: Sequence[bytes]) -> Checkpoint:
    """The checkpoint of a tree."""
    return Checkpoint(ORIGIN, len(leaves), root_of_hashes([leaf_hash(leaf) for leaf in leaves]))


def tiles(leaves: Sequence[bytes]) -> TileSource:
    """The tiles of a tree."""
    hashes = [leaf_hash(leaf) for leaf in leaves]

    def fetch(tile: Tile) -> bytes:
        assert tile.exists_in(len(leaves))
        span = 1 << (TILE_HEIGHT * (tile.level or 0))
        first = tile.index * TILE_WIDTH
        return b"".join(
            root_of_hashes(hashes[at * span : (at + 1) * span])
            for at in range(first, first + tile.width)
        )

    return fetch


def entries(leaves: Sequence[bytes], start: int = 0) -> list[LogEntry]:
    """Entries as the issuer sends them."""
    return [LogEntry(index=i, leaf=leaf, record={}) for i, leaf in enumerate(leaves)][start:]


@pytest.mark.parametrize("old", [1, 2, 255, 256, 257, 511, 512, 513, 699, 700])
def test_growth_is_proved_by_tiles(old: int) -> None:
    """Whatever size was seen before, a log that only grew is accepted."""
    current = checkpoint(LEAVES)
    check_continues(checkpoint(LEAVES[:old]), current, tile_nodes(tiles(LEAVES), len(LEAVES)))


@pytest.mark.parametrize("old", [1, 2, 255, 256, 257, 512, 700])
def test_changed_past_is_refused(old: int) -> None:
    """One other leaf at the beginning, and no tiles can hide it."""
    seen = checkpoint(OTHER[:old])
    for shown in (LEAVES, OTHER):
        with pytest.raises(InvalidProof):
            check_continues(seen, checkpoint(LEAVES), tile_nodes(tiles(shown), len(LEAVES)))


def test_shrunk_log_is_refused() -> None:
    """A log never has fewer entries than before."""
    with pytest.raises(InvalidProof, match="taken back"):
        check_continues(checkpoint(LEAVES), checkpoint(LEAVES[:9]), tile_nodes(tiles(LEAVES), 9))
    with pytest.raises(InvalidProof, match="taken back"):
        Replay(checkpoint(LEAVES[:9]), checkpoint(LEAVES))


def test_tile_of_another_size_is_refused() -> None:
    """A tile that is cut short is not filled up with guesses."""
    fetch = tiles(LEAVES)
    node = tile_nodes(lambda tile: fetch(tile)[:-1], len(LEAVES))
    with pytest.raises(InvalidProof, match="bytes"):
        check_continues(checkpoint(LEAVES[:9]), checkpoint(LEAVES), node)


def test_replay_leads_to_the_checkpoint_and_ignores_what_came_later() -> None:
    """The log may grow while it is read."""
    replay = Replay(checkpoint(LEAVES[:600]), checkpoint(LEAVES[:256]))
    replay.add(entries(LEAVES[:300]))
    replay.add(entries(LEAVES, 300))
    replay.finish()


def test_replay_finds_a_changed_past() -> None:
    """A whole other log that leads to its own signed checkpoint is still not what was seen."""
    replay = Replay(checkpoint(OTHER), checkpoint(LEAVES[:256]))
    with pytest.raises(InvalidProof, match="first 256 entries"):
        replay.add(entries(OTHER))


def test_replay_finds_missing_and_changed_entries() -> None:
    """Nothing but exactly the leaves of the tree adds up."""
    for shown in (entries(LEAVES)[:-1], entries(OTHER)):
        replay = Replay(checkpoint(LEAVES), None)
        replay.add(shown)
        with pytest.raises(InvalidProof, match="do not lead"):
            replay.finish()
    with pytest.raises(InvalidProof, match="came where"):
        Replay(checkpoint(LEAVES), None).add(entries(LEAVES, 1))


@pytest.mark.parametrize("leaf", [b"", b"[]", b"{}", b'{"kind": 1}', b"\xff"])
def test_leaf_that_is_no_record_is_an_error(leaf: bytes) -> None:
    """What cannot be read is not shown in part."""
    with pytest.raises(InvalidAnswer, match="log entry 7"):
        Record.of_leaf(7, leaf)

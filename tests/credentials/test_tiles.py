"""Names of tiles and bundles of entries, as C2SP tlog-tiles writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accredit_credentials.errors import InvalidProof
from accredit_credentials.merkle import MAX_TREE_SIZE
from accredit_credentials.tiles import (
    Tile,
    decode_entry_bundle,
    encode_entry_bundle,
    entries_path,
    tile_path,
)

PATHS = [
    (Tile(0, 0), "tile/0/000"),
    (Tile(0, 0, 1), "tile/0/000.p/1"),
    (Tile(0, 999, 255), "tile/0/999.p/255"),
    (Tile(1, 1000), "tile/1/x001/000"),
    (Tile(0, 1234067), "tile/0/x001/x234/067"),
    (Tile(63, 1234067, 8), "tile/63/x001/x234/067.p/8"),
    (Tile(None, 1234067), "tile/entries/x001/x234/067"),
    (Tile(None, 1234067, 8), "tile/entries/x001/x234/067.p/8"),
    (Tile(0, MAX_TREE_SIZE // 256), "tile/0/x036/x028/x797/x018/x963/967"),
]


@pytest.mark.parametrize(("tile", "path"), PATHS)
def test_a_tile_has_one_path(tile: Tile, path: str) -> None:
    """A tile is written as the standard's examples are, and read back from it."""
    assert tile.path == path
    assert Tile.parse(path) == tile


def test_the_functions_write_the_same_paths() -> None:
    """Hash tiles and entry bundles are named without building a tile first."""
    assert tile_path(2, 70_000, 17) == "tile/2/x070/000.p/17"
    assert tile_path(2, 70_000) == "tile/2/x070/000"
    assert entries_path(273, 112) == "tile/entries/273.p/112"
    assert entries_path(273) == "tile/entries/273"


@given(
    st.builds(
        Tile,
        st.none() | st.integers(0, 63),
        st.integers(0, MAX_TREE_SIZE // 256),
        st.integers(1, 256),
    )
)
def test_every_tile_round_trips(tile: Tile) -> None:
    """What is written parses to the same tile."""
    assert Tile.parse(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0/000\n",
        "/tile/0/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/1234067",
        "tile/0/x000/001",  # a leading zero element
        "tile/0/001/067",
        "tile/0/x001",
        "tile/0/x001/x067",
        "tile/0/X001/067",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/Entries/000",
        "tile/data/000",
        "tile/0/000.p",
        "tile/0/000.p/",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",  # a full tile has no suffix
        "tile/0/000.p/257",
        "tile/0/000.P/1",
        "tile/0/../000",
        "tile/0/٠٠٠",  # noqa: RUF001 (Arabic-Indic digits, that int() would read)
        "tile/0/x036/x028/x797/x018/x963/968",
        "tile/0/" + "x001/" * 7 + "000",
    ],
)
def test_any_other_path_is_refused(path: str) -> None:
    """A path in another spelling, or of a tile that cannot be, names nothing."""
    with pytest.raises(InvalidProof):
        Tile.parse(path)


@pytest.mark.parametrize(
    ("level", "index", "width"), [(-1, 0, 1), (64, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257)]
)
def test_a_tile_that_cannot_be_has_no_path(level: int, index: int, width: int) -> None:
    """Level, index and width are checked before they become a path."""
    with pytest.raises(InvalidProof):
        tile_path(level, index, width)


def test_the_tree_of_the_standard_has_the_tiles_that_it_says() -> None:
    """A tree of 70,000 leaves has the tiles of the standard's example, and none beyond."""
    for tile in [Tile(0, 272), Tile(0, 273, 112), Tile(1, 0), Tile(1, 1, 17), Tile(2, 0, 1)]:
        assert tile.exists_in(70_000), tile
    assert Tile(None, 273, 112).exists_in(70_000)
    for tile in [Tile(0, 273, 113), Tile(1, 1, 18), Tile(2, 0, 2), Tile(3, 0, 1), Tile(None, 273)]:
        assert not tile.exists_in(70_000), tile


def test_a_bundle_is_lengths_and_entries() -> None:
    """Each entry follows its big-endian uint16 length."""
    assert encode_entry_bundle([b"ab", b"", b"c"]) == b"\x00\x02ab\x00\x00\x00\x01c"


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=256))
def test_every_bundle_round_trips(entries: list[bytes]) -> None:
    """What is encoded decodes to the same entries."""
    assert decode_entry_bundle(encode_entry_bundle(entries)) == entries


def test_a_bundle_holds_the_largest_entry_and_no_larger() -> None:
    """65,535 bytes is the longest entry that a uint16 can announce."""
    assert decode_entry_bundle(encode_entry_bundle([bytes(65_535)])) == [bytes(65_535)]
    with pytest.raises(InvalidProof, match="65536 bytes"):
        encode_entry_bundle([bytes(65_536)])


@pytest.mark.parametrize("entries", [[], [b""] * 257])
def test_an_empty_or_overfull_bundle_is_not_written(entries: list[bytes]) -> None:
    """A bundle holds 1 to 256 entries."""
    with pytest.raises(InvalidProof):
        encode_entry_bundle(entries)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x00\x01",
        b"\x00\x02a",
        b"\x00\x01a\x00",
        b"\x00\x01ab",
        b"\x00\x00" * 257,
        b"\x00\x00" * 1_000_000,
    ],
)
def test_a_broken_bundle_is_refused(data: bytes) -> None:
    """A bundle that is empty, cut short or overfull yields no entry at all."""
    with pytest.raises(InvalidProof):
        decode_entry_bundle(data)

"""How the log is cut into files that never change: the names of tiles, and bundles of entries.

Decides how a piece of the tree is named (C2SP tlog-tiles, "Merkle Tree" and "Log entries"), whether
a tree of a given size has it, and how entries are laid side by side. Does not check a hash: that is
``merkle``, against a root out of ``checkpoint``.

A name has one spelling: what parses is what would be written.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from accredit_credentials.errors import InvalidProof
from accredit_credentials.merkle import MAX_TREE_SIZE

TILE_WIDTH = 256
TILE_HEIGHT = 8  # levels of the tree that one full tile spans
MAX_TILE_LEVEL = 63
MAX_ENTRY_BYTES = 2**16 - 1  # the length prefix is a uint16

_PATH = re.compile(
    r"tile/(?P<level>entries|[0-9]{1,2})/(?P<index>(x[0-9]{3}/){0,6}[0-9]{3})"
    r"(\.p/(?P<width>[0-9]{1,3}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile's place in the tree; ``level`` is ``None`` for a bundle of entries.

    ``width`` counts its hashes or entries: 256 in a full tile, fewer at the tree's right edge.

    Raises:
        InvalidProof: no tile has this level, index or width.
    """

    level: int | None
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        if self.level is not None and not 0 <= self.level <= MAX_TILE_LEVEL:
            raise InvalidProof(f"tile level {self.level} must be 0 to {MAX_TILE_LEVEL}")
        if not 0 <= self.index <= MAX_TREE_SIZE // TILE_WIDTH:
            raise InvalidProof(f"tile index must be 0 to {MAX_TREE_SIZE // TILE_WIDTH}")
        if not 1 <= self.width <= TILE_WIDTH:
            raise InvalidProof(f"tile width {self.width} must be 1 to {TILE_WIDTH}")

    @classmethod
    def parse(cls, path: str) -> Self:
        """Parse ``tile/<L>/<N>[.p/<W>]`` or ``tile/entries/<N>[.p/<W>]`` (C2SP tlog-tiles).

        Raises:
            InvalidProof: not a tile's path, or not in its one spelling.
        """
        match = _PATH.fullmatch(path)
        if match is None:
            raise InvalidProof(f"{path[:80]!r} is not the path of a tile")
        level = None if match["level"] == "entries" else int(match["level"])
        index = int(match["index"].replace("x", "").replace("/", ""))
        tile = cls(level, index, int(match["width"] or TILE_WIDTH))
        if tile.path != path:
            raise InvalidProof(f"{path!r} is not the path of a tile, expected {tile.path!r}")
        return tile

    @property
    def path(self) -> str:
        """The tile's path below the log's prefix (C2SP tlog-tiles)."""
        digits = str(self.index)
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        elements = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        index = "".join(f"x{element}/" for element in elements[:-1]) + elements[-1]
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{'entries' if self.level is None else self.level}/{index}{partial}"

    def exists_in(self, size: int) -> bool:
        """Whether a tree of ``size`` leaves has all the hashes or entries of this tile."""
        hashes = size >> (TILE_HEIGHT * (self.level or 0))
        return self.index * TILE_WIDTH + self.width <= hashes


def tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """The path of a tile of hashes (C2SP tlog-tiles, "Merkle Tree")."""
    return Tile(level, index, width).path


def entries_path(index: int, width: int = TILE_WIDTH) -> str:
    """The path of a bundle of entries (C2SP tlog-tiles, "Log entries")."""
    return Tile(None, index, width).path


def encode_entry_bundle(entries: Sequence[bytes]) -> bytes:
    """Lay 1 to 256 entries side by side, each after its uint16 length (C2SP tlog-tiles).

    Raises:
        InvalidProof: no entry, too many, or one of more than 65,535 bytes.
    """
    _check_count(len(entries))
    for entry in entries:
        if len(entry) > MAX_ENTRY_BYTES:
            raise InvalidProof(f"entry has {len(entry)} bytes, the limit is {MAX_ENTRY_BYTES}")
    return b"".join(len(entry).to_bytes(2) + entry for entry in entries)


def decode_entry_bundle(data: bytes) -> list[bytes]:
    """Read the entries of a bundle back (C2SP tlog-tiles, "Log entries").

    Raises:
        InvalidProof: no entry, too many, or the last one is cut short.
    """
    entries: list[bytes] = []
    at = 0
    while at < len(data) and len(entries) <= TILE_WIDTH:
        length = int.from_bytes(data[at : at + 2])
        end = at + 2 + length
        if at + 2 > len(data) or end > len(data):
            raise InvalidProof(f"entry {len(entries)} of the bundle is cut short")
        entries.append(data[at + 2 : end])
        at = end
    _check_count(len(entries))
    return entries


def _check_count(count: int) -> None:
    if not 1 <= count <= TILE_WIDTH:
        raise InvalidProof(f"a bundle must hold 1 to {TILE_WIDTH} entries")

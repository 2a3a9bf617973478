"""Which index of a status list a token gets: any that is free, by a CSPRNG.

An index that told the order of issuing would tie the tokens of one agent together for whoever sees
several of them, and a list that is half empty hides how many there are.
"""

import secrets
from collections.abc import Callable

INDEX_BITS = 17
SIZE = 2**INDEX_BITS  # indexes of a list; two bits each make 32 KiB, of which few are not 0
MOST_TAKEN = SIZE // 2  # a free index is found at the second draw at the latest, on average


class Indexes:
    """The indexes of one list; none is given twice. Not safe to share between threads."""

    def __init__(
        self,
        bits: int = INDEX_BITS,
        most: int = MOST_TAKEN,
        draw: Callable[[int], int] = secrets.randbits,
    ) -> None:
        self._bits = bits
        self._draw = draw
        self._taken = bytearray(2**bits)
        self.left = most

    def take(self) -> int:
        """A free index.

        Raises:
            ValueError: as many are taken as may be.
        """
        if self.left <= 0:
            raise ValueError("the list is full")
        index = self._draw(self._bits)
        while self._taken[index]:
            index = self._draw(self._bits)
        self._taken[index] = 1
        self.left -= 1
        return index

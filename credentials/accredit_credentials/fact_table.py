"""Facts by their marks, packed: some eighty bytes each, beside the texts of their reasons.

A verifier holds every fact in force, for as long as something living may match it. With an object
for each, and its strings and moments, that is half a kilobyte; here it is a row of numbers, the
mark as bytes, and a slot that leads from the mark's hash to the row (open addressing, at most half
full).

One thread changes a table; any number look at it meanwhile. That needs no lock, because a row is
whole before the one assignment to the slot that leads to it, and does not change afterwards. What
would move rows (``without_waste``) makes another table.
"""

from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_SMALLEST = 16  # slots; always a power of two
_WORD = (1 << 32) - 1
_TAKEN = 1 << 31  # of a slot's word, so that none is all zero
_TEXT, _HEX, _DASHED = b"t", b"h", b"d"  # what a packed mark's value was


class Row(NamedTuple):
    """One fact as it is kept; moments are microseconds since the epoch."""

    mark: str
    sequence: int
    kind: int
    at: int
    ends: int
    reason: str


class FactTable:
    """Rows by their marks. What a mark leads to is replaced or removed, never changed."""

    def __init__(self) -> None:
        # A slot has a word of the mark's hash above the row's number, which counts from 1. Number 0
        # is a mark that was removed, and 0 as a whole ends the search.
        self._slots = array("Q", bytes(8 * _SMALLEST))
        self._living = bytearray()
        self._sequences, self._ats, self._ends = array("Q"), array("q"), array("q")
        self._kinds, self._reasons = bytearray(), array("I")
        self._starts, self._marks = array("I", [0]), bytearray()
        self._texts: list[str] = []
        self._text_numbers: dict[str, int] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def waste(self) -> int:
        """How many rows no mark leads to any more."""
        return len(self._living) - self._size

    def first(self, marks: Iterable[str]) -> Row | None:
        """The row of the first of these marks that has one."""
        slots = self._slots
        last = len(slots) - 1
        for mark in marks:
            place = hash(mark) & last
            if not slots[place]:  # as for nearly every mark of nearly every credential
                continue
            number = slots[self._place(slots, mark)] & _WORD
            if number:
                return self._row(number - 1)
        return None

    def put(self, row: Row) -> None:
        """Let the row's mark lead to it, and no longer to another."""
        place = self._place(self._slots, row.mark)
        self._sequences.append(row.sequence)
        self._kinds.append(row.kind)
        self._ats.append(row.at)
        self._ends.append(row.ends)
        self._reasons.append(self._text_number(row.reason))
        self._marks += _pack(row.mark)
        self._starts.append(len(self._marks))
        self._living.append(1)
        known = self._slots[place] & _WORD
        self._slots[place] = _word(row.mark) << 32 | len(self._living)
        if known:
            self._living[known - 1] = 0
        else:
            self._size += 1
        if 2 * len(self._living) > len(self._slots):
            self._slots = _spread(self._slots)

    def remove(self, mark: str) -> None:
        """Let the mark lead nowhere."""
        place = self._place(self._slots, mark)
        number = self._slots[place] & _WORD
        if number:
            self._slots[place] &= ~_WORD
            self._living[number - 1] = 0
            self._size -= 1

    def over(self, moment: int) -> list[str]:
        """The marks of rows that end by then."""
        return [
            self._mark(number)
            for number, ends in enumerate(self._ends)
            if ends <= moment and self._living[number]
        ]

    def marks(self, prefix: str) -> Iterator[str]:
        """The marks that begin so."""
        wanted = prefix.encode()
        for number, living in enumerate(self._living):
            if living and self._marks.startswith(wanted, self._starts[number] + 1):
                yield self._mark(number)

    def without_waste(self) -> "FactTable":
        """Another table of the same rows, that holds no others."""
        table = FactTable()
        for row in self:
            table.put(row)
        return table

    def __iter__(self) -> Iterator[Row]:
        return (self._row(number) for number, living in enumerate(self._living) if living)

    def _place(self, slots: "array[int]", mark: str) -> int:
        """The slot of this mark, or the empty one that it may have."""
        last = len(slots) - 1
        word = _word(mark)
        place = word & last
        while slot := slots[place]:
            if slot >> 32 == word and (number := slot & _WORD) and self._is(number, mark):
                break
            place = (place + 1) & last
        return place

    def _is(self, number: int, mark: str) -> bool:
        return self._marks[self._starts[number - 1] : self._starts[number]] == _pack(mark)

    def _mark(self, number: int) -> str:
        return _unpack(bytes(self._marks[self._starts[number] : self._starts[number + 1]]))

    def _row(self, number: int) -> Row:
        return Row(
            mark=self._mark(number),
            sequence=self._sequences[number],
            kind=self._kinds[number],
            at=self._ats[number],
            ends=self._ends[number],
            reason=self._texts[self._reasons[number]],
        )

    def _text_number(self, text: str) -> int:
        """Of a text that many facts have in common: a reason is often said of thousands."""
        number = self._text_numbers.setdefault(text, len(self._texts))
        if number == len(self._texts):
            self._texts.append(text)
        return number


def _word(mark: str) -> int:
    return hash(mark) & _WORD | _TAKEN


def _spread(slots: "array[int]") -> "array[int]":
    """The same slots in twice the room, without the removed ones."""
    wider = array("Q", bytes(2 * slots.itemsize * len(slots)))
    last = len(wider) - 1
    for slot in slots:
        if slot & _WORD:
            place = (slot >> 32) & last
            while wider[place]:
                place = (place + 1) & last
            wider[place] = slot
    return wider


def _pack(mark: str) -> bytes:
    """A mark as bytes; one whose value is a UUID or hexadecimal takes half of its length."""
    prefix, _, value = mark.partition(":")
    try:
        raw = bytes.fromhex(value.replace("-", ""))
    except ValueError:
        raw = b""
    if raw and raw.hex() == value:
        form, kept = _HEX, raw
    elif raw and _dashed(raw) == value:
        form, kept = _DASHED, raw
    else:
        form, kept = _TEXT, value.encode("utf-8", "surrogatepass")
    return form + prefix.encode() + b":" + kept


def _unpack(packed: bytes) -> str:
    prefix, _, kept = packed[1:].partition(b":")
    form = packed[:1]
    if form == _HEX:
        value = kept.hex()
    elif form == _DASHED:
        value = _dashed(kept)
    else:
        value = kept.decode("utf-8", "surrogatepass")
    return f"{prefix.decode()}:{value}"


def _dashed(raw: bytes) -> str:
    """Hexadecimal with the dashes of a UUID (RFC 9562, 4)."""
    digits = raw.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

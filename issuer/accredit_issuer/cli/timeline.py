"""The lives of authorities as text: a bar each, and the moments that it is made of.

Each kind has a scale of its own: a root lives for a year, a JWT key for a day. Pure: what is
drawn, at which time, how wide and with which characters, is given.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

WIDTH = 100  # columns, where nobody says otherwise
NARROWEST = 72
SHOWN_ID = 12  # characters of a key id: enough to tell keys apart, and to name one in a command

_KINDS = {"root": "root CAs", "x509": "issuing CAs", "jwt": "JWT keys", "wit": "WIT keys"}
_MOMENTS = {
    "prepared": "prepared_at",
    "active from": "active_from",
    "last use": "last_use",
    "removal": "removal",
}
_ORIGINS = {"files": "given in files", "parent": "of the parent issuer"}
_STATE = len("prepared")
_LEFT = SHOWN_ID + 2 + _STATE + 2
_LONG = timedelta(days=90)
_SHORT = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Characters:
    """What bars are drawn with."""

    prepared: str
    active: str
    retired: str
    tainted: str
    now: str
    rule: str

    def fit(self, encoding: str) -> bool:
        """Whether an output of this encoding can show them."""
        try:
            f"{self.prepared}{self.active}{self.retired}{self.tainted}{self.now}".encode(encoding)
        except (UnicodeEncodeError, LookupError):
            return False
        return True


BLOCKS = Characters("░", "█", "▒", "▚", "│", "─")
ASCII = Characters(".", "#", "-", "x", "|", "-")

Authority = Mapping[str, Any]
"""One authority as ``overview.view`` shows it."""


def draw(
    authorities: Sequence[Authority],
    now: datetime,
    *,
    width: int = WIDTH,
    characters: Characters = BLOCKS,
) -> Iterator[str]:
    """The lines of the drawing, none wider than ``width``, or than 72 columns."""
    width = max(width, NARROWEST)
    for kind, title in _KINDS.items():
        mine = [each for each in authorities if each["kind"] == kind]
        if mine:
            yield from _section(title, mine, now, width, characters)
            yield ""
    c = characters
    yield f"{c.prepared} prepared  {c.active} active  {c.retired} retired  {c.tainted} tainted"
    yield f"{c.now} now; what is right of it, and each moment with a *, is planned"


def _section(
    title: str,
    authorities: Sequence[Authority],
    now: datetime,
    width: int,
    characters: Characters,
) -> Iterator[str]:
    begin = min(_moment(each["prepared_at"]) for each in authorities)
    end = max(now, *(_moment(each["removal"]) for each in authorities))
    # One column is for the line that says where now is.
    scale = _Scale(begin, max(end - begin, timedelta(seconds=1)), width - _LEFT - 1)
    yield title
    yield " " * _LEFT + _axis(begin, end, scale.cells + 1, characters)
    for each in authorities:
        bar = _bar(each, scale, characters)
        at = scale.edge(now)
        bar = f"{bar[:at]:<{at}}{characters.now}{bar[at:]}"
        yield f"{_id(each)}  {_state(each):<{_STATE}}  {bar}".rstrip()
    form = _form_of(end - begin)
    cell = max(len(f"{begin:{form}}*"), *map(len, _MOMENTS))
    yield " " * (SHOWN_ID + 2) + "  ".join(f"{name:<{cell}}" for name in _MOMENTS).rstrip()
    for each in authorities:
        cells = [f"{_cell(each, member, form):<{cell}}" for member in _MOMENTS.values()]
        yield f"{_id(each)}  {'  '.join(cells)}".rstrip()
    for each in authorities:
        if each["origin"] in _ORIGINS:
            yield f"{_id(each)}  {_ORIGINS[each['origin']]}"


@dataclass(frozen=True, slots=True)
class _Scale:
    begin: datetime
    span: timedelta
    cells: int

    def edge(self, moment: datetime) -> int:
        """How many cells lie before a moment."""
        return min(round((moment - self.begin) / self.span * self.cells), self.cells)


def _bar(authority: Authority, scale: _Scale, characters: Characters) -> str:
    """The phases of one life; each that there was has a cell at least."""
    drawn, at = "", 0
    for (begin, character), (end, _) in pairwise(_phases(authority, characters)):
        if begin == end:
            continue
        at = min(max(scale.edge(begin), at), scale.cells - 1)
        drawn = f"{drawn[:at]:<{at}}"
        length = max(scale.edge(end) - at, 1)
        drawn += character * length
        at += length
    return drawn[: scale.cells]


def _phases(authority: Authority, characters: Characters) -> list[tuple[datetime, str]]:
    """When each phase begins and how it is drawn, and the end."""
    phases = [
        (_moment(authority[member]), character)
        for member, character in (
            ("prepared_at", characters.prepared),
            ("active_from", characters.active),
            ("last_use", characters.retired),
            ("tainted_at", characters.tainted),
        )
        if authority[member] is not None
    ]
    return [*phases, (_moment(authority["removal"]), "")]


def _axis(begin: datetime, end: datetime, cells: int, characters: Characters) -> str:
    left, right = f"{begin:%Y-%m-%d %H:%M} ", f" {end:%Y-%m-%d %H:%M}"
    return f"{left}{characters.rule * (cells - len(left) - len(right))}{right}"


def _form_of(span: timedelta) -> str:
    if span > _LONG:
        return "%Y-%m-%d"
    return "%m-%d %H:%M" if span > _SHORT else "%H:%M:%S"


def _cell(authority: Authority, member: str, form: str) -> str:
    if authority[member] is None:
        return "-"
    return f"{_moment(authority[member]):{form}}{'*' if member in authority['planned'] else ''}"


def _state(authority: Authority) -> str:
    if authority["revoked"] and authority["state"] != "removed":
        return "revoked"
    return str(authority["state"])


def _id(authority: Authority) -> str:
    return str(authority["id"])[:SHOWN_ID].ljust(SHOWN_ID)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)

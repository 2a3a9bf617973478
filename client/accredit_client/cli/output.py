"""Everything that is printed.

Results go to stdout, everything else to stderr. Text from outside (names, reasons, purposes, error
details) is written with its control characters escaped: nobody's ticket title moves the cursor of
a security team's terminal. On a terminal tables have a bold head and are folded to its width;
elsewhere they are aligned plain text that no line break falls into. ``NO_COLOR`` is respected.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any

_GAP = "  "
_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_LONG = 2000  # steps from which on a progress bar is shown


def shown(value: object) -> str:
    """A value as text that is safe to print: one line, every control character escaped."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or "-"
    if isinstance(value, Mapping):
        return json.dumps(plain(value))
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value)
    )


def moment(at: datetime) -> str:
    """A moment, as 2026-11-21T09:30:00Z."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def until(end: datetime, now: datetime) -> str:
    """A moment and how far it is."""
    seconds = int((end - now).total_seconds())
    distance = _distance(abs(seconds))
    return f"{moment(end)} ({f'in {distance}' if seconds >= 0 else f'{distance} ago'})"


def line(text: object = "") -> None:
    """One line on stdout."""
    print(shown(text))  # noqa: T201 (this is where printing happens)


def note(text: str) -> None:
    """One line on stderr, beside the result."""
    print(shown(text), file=sys.stderr)  # noqa: T201


def warning(text: str) -> None:
    """What somebody has to know though nothing failed."""
    note(f"warning: {text}")


def error(message: str, hint: str | None = None) -> None:
    """What went wrong, and what to do about it."""
    print(f"error: {shown(message)}", file=sys.stderr)  # noqa: T201
    if hint:
        print(f"hint: {shown(hint)}", file=sys.stderr)  # noqa: T201


def document(value: object) -> None:
    """One JSON document on stdout; in ASCII, so that nothing in it moves a cursor."""
    print(json.dumps(plain(value), indent=2))  # noqa: T201


def plain(value: Any) -> Any:
    """A value as JSON values: moments in RFC 3339, everything without a JSON form as its text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if is_dataclass(value) and type(value).__str__ is object.__str__:
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    return str(value)


def pairs(values: Mapping[str, object], *, indent: str = "") -> None:
    """Names and values, aligned; a list takes one line for each item.

    Names are those of the JSON document, with spaces.
    """
    heads = [shown(name.replace("_", " ")) for name in values]  # names may be a token's claims
    width = max(map(len, heads), default=0)
    for head, value in zip(heads, values.values(), strict=True):
        items = value if isinstance(value, list | tuple) else (value,)
        for item in items or ("-",):
            print(f"{indent}{head:<{width}}{_GAP}{shown(item)}")  # noqa: T201
            head = ""  # noqa: PLW2901 (the next item stands below the first)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Rows under their heads; ``empty`` is said on stderr where there are none."""
    cells = [[shown(value) for value in row] for row in rows]
    if not cells:
        note(empty)
    elif sys.stdout.isatty():
        _rich_table(heads, cells)
    else:
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        for row in (heads, *cells):
            padded = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
            print(_GAP.join(padded).rstrip())  # noqa: T201


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show on stderr how far something long has come, where somebody is watching."""
    if total < _LONG or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 (slow, and needed on a terminal only)
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda number: bar.advance(task, number)


@contextmanager
def live_line() -> Iterator[Callable[[str], None]]:
    """One line on stderr that is written anew, where somebody is watching; gone at the end."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return

    def write(text: str) -> None:
        width = shutil.get_terminal_size().columns - 1  # a line that is folded is not overwritten
        print(f"\r{shown(text)[:width]}\x1b[K", end="", file=sys.stderr, flush=True)  # noqa: T201

    try:
        yield write
    finally:
        write("")
        print("\r", end="", file=sys.stderr, flush=True)  # noqa: T201


def _rich_table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415 (slow, and needed on a terminal only)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    made = Table(box=None, header_style="bold", pad_edge=False, padding=(0, len(_GAP), 0, 0))
    for head in heads:
        made.add_column(Text(head), overflow="fold")
    for row in cells:
        made.add_row(*map(Text, row))
    Console(highlight=False, emoji=False, markup=False).print(made)


def _distance(seconds: int) -> str:
    minutes = round(seconds / _MINUTE)
    if seconds < 2 * _MINUTE:
        return f"{seconds} s"
    if seconds < 2 * _HOUR:
        return f"{minutes} min"
    if seconds < 2 * _DAY:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{round(seconds / _DAY)} days"

"""The daemon's log: one moment in one zone, one line an event, an object each where asked for."""

import json
import logging
import sys

from accredit_client.cli.log_lines import _Line, _Object


def record(message: str, *, failed: bool = False) -> logging.LogRecord:
    """Something that was logged in the first second of 2026, half a second in."""
    error = None
    if failed:
        try:
            int("why")
        except ValueError:
            error = sys.exc_info()
    made = logging.LogRecord("accredit", logging.WARNING, "f", 1, "%s", (message,), error)
    made.created = 1767225600.5
    return made


def test_a_line_says_its_time_in_utc_and_stays_one_line() -> None:
    """Beside the UTC of SVIDs no other zone; what a process chose makes no second line."""
    assert _Line().format(record("a\nb")) == r"2026-01-01T00:00:00Z WARNING a\nb"
    assert "ValueError" in _Line().format(record("a", failed=True))


def test_an_object_each_has_the_same_in_it() -> None:
    """Whoever reads by machine reads every line as JSON, tracebacks too."""
    said = json.loads(_Object().format(record("a\nb", failed=True)))
    assert "ValueError" in said["traceback"]
    del said["traceback"]
    assert said == {
        "at": "2026-01-01T00:00:00.500Z",
        "level": "warning",
        "logger": "accredit",
        "message": "a\nb",
    }

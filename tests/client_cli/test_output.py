"""What is printed, and how text from outside is kept from moving the cursor."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from accredit_client.answers import FactRecord
from accredit_client.cli import output

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\nPASS \u202egnp.exe \x9b31m"


@pytest.fixture
def fact() -> FactRecord:
    """A fact whose reason attacks the terminal."""
    return FactRecord(
        sequence=1,
        target="agent:support/a",
        kind="revoked",
        at=NOW,
        expires_at=NOW,
        actor="maria",
        reason=HOSTILE,
    )


def harmless(text: str) -> bool:
    """Nothing in it but lines of printable characters."""
    return all(line.isprintable() for line in text.removesuffix("\n").split("\n"))


def test_control_characters_are_escaped_in_lines_pairs_and_tables(
    fact: FactRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reason cannot clear the screen, retitle the window or forge a line."""
    output.line(fact.reason)
    output.pairs({"reason": fact.reason, "list": [fact.reason], HOSTILE: "a claim's name"})
    output.table(("REASON",), [(fact.reason,)], empty="none")
    output.error(fact.reason, fact.reason)
    said = capsys.readouterr()
    assert harmless(said.out)
    assert harmless(said.err)
    assert len(said.out.splitlines()) == 6
    assert "\\x1b[2J" in said.out
    assert "\\u202e" in said.out


def test_document_is_ascii_and_says_the_same(
    fact: FactRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    """A JSON document carries the reason unchanged, in characters that a terminal ignores."""
    output.document(fact)
    said = capsys.readouterr().out
    assert harmless(said)
    assert json.loads(said)["reason"] == HOSTILE
    assert json.loads(said)["at"] == "2026-06-01T12:00:00Z"


def test_markup_is_printed_as_it_is_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Square brackets of a reason are no style, and NO_COLOR leaves no colour."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    output.table(("REASON",), [("[red]stop[/red] :smile:",)], empty="none")
    assert "[red]stop[/red] :smile:" in capsys.readouterr().out


def test_table_elsewhere_is_aligned_and_never_folded(capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe gets one line a row, whatever its width."""
    output.table(("A", "B"), [("x" * 200, "y"), ("z", None)], empty="none")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert [line.find(end) for line, end in zip(lines, "By-", strict=True)] == [202] * 3


def test_empty_table_says_so_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing found leaves stdout empty for the next program."""
    output.table(("A",), [], empty="no agents")
    assert capsys.readouterr() == ("", "no agents\n")


@pytest.mark.parametrize(
    ("distance", "said"),
    [
        (timedelta(seconds=90), "in 90 s"),
        (timedelta(minutes=59, seconds=59), "in 60 min"),
        (timedelta(hours=7, minutes=59, seconds=59), "in 8 h 0 min"),
        (timedelta(days=90), "in 90 days"),
        (timedelta(seconds=-5), "5 s ago"),
    ],
)
def test_moment_tells_how_far_it_is(distance: timedelta, said: str) -> None:
    """An end is shown with its distance, in units that a human thinks in."""
    assert output.until(NOW + distance, NOW).endswith(f"({said})")


def test_a_live_line_is_written_anew_and_gone_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal one line moves, cut to its width and harmless; elsewhere nothing is written."""
    with output.live_line() as show:
        show("nobody watches")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    with output.live_line() as show:
        show("confirmed by 1 of 2 verifiers")
        show(HOSTILE)
    written = capsys.readouterr().err
    steps = written.split("\r")
    assert steps[1] == "confirmed by 1 of 2\x1b[K"
    assert harmless(steps[2].removesuffix("\x1b[K"))
    assert steps[3:] == ["\x1b[K", ""]

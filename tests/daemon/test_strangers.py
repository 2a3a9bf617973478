"""Processes that no entry means are told of in the log, and cannot fill it."""

import logging

import pytest

from accredit_client.daemon.strangers import (
    LINES_AT_ONCE,
    MAX_ACCOUNTS,
    MAX_SELECTORS,
    Strangers,
    said,
)

WEB = frozenset({"unix:uid:1001", "unix:user:web"})


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged."""
    caplog.set_level(logging.WARNING, logger="accredit_client.daemon.strangers")
    return caplog


def test_the_line_says_what_an_entry_would_have_to_say(lines: pytest.LogCaptureFixture) -> None:
    """Whoever wonders why an agent is nobody sees its selectors."""
    Strangers().tell(4711, 1001, WEB)
    assert lines.messages == [
        "no [[agent]] means process 4711, which has unix:uid:1001, unix:user:web"
    ]


def test_one_user_cannot_fill_the_log_and_hides_nobody_else(
    lines: pytest.LogCaptureFixture,
) -> None:
    """Beyond the pace calls are counted; another user's line comes all the same."""
    now = 0.0
    strangers = Strangers(lambda: now)
    for _ in range(LINES_AT_ONCE + 7):
        strangers.tell(1, 1001, WEB)
    assert len(lines.messages) == LINES_AT_ONCE
    strangers.tell(2, 1002, WEB)
    assert "process 2" in lines.messages[-1]
    now = 10.0
    strangers.tell(3, 1001, WEB)
    assert lines.messages[-1].endswith("(and 7 more calls before)")


def test_many_users_cost_no_more_memory(lines: pytest.LogCaptureFixture) -> None:
    """Beyond so many users the others share one pace; who has rested is forgotten."""
    now = 0.0
    strangers = Strangers(lambda: now)
    for account in range(MAX_ACCOUNTS + 2 * LINES_AT_ONCE):
        strangers.tell(account, account, WEB)
    assert len(lines.messages) == MAX_ACCOUNTS + LINES_AT_ONCE
    now = 1000.0
    strangers.tell(1, 5000, WEB)
    assert len(strangers._accounts) == 1


def test_what_a_process_chose_is_escaped_and_bounded() -> None:
    """A program's path makes no second line, and a hundred groups no long one."""
    assert said(frozenset({"unix:path:/tmp/a\nb\x1b[2J"})) == r"unix:path:/tmp/a\nb\x1b[2J"
    groups = frozenset(f"unix:supplementary_gid:{n:03}" for n in range(100))
    text = said(groups | {"unix:user:web"})
    assert text.startswith("unix:user:web, unix:supplementary_gid:000")
    assert text.endswith(f"and {101 - MAX_SELECTORS} more")
    assert said(frozenset()) == "no selector"

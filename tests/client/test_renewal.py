"""When to renew, when to try again, and what an identity is worth meanwhile."""

from datetime import UTC, datetime, timedelta

import pytest

from accredit_client import renewal
from accredit_client.renewal import Life, State, life_of, pause_after, refresh_after

BORN = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("draw", "minutes"), [(0.0, 24), (0.25, 27), (0.5, 30), (0.75, 33), (0.999999, 36)]
)
def test_renewal_comes_at_half_life_give_or_take_a_tenth(draw: float, minutes: int) -> None:
    """An SVID of an hour is renewed between its 24th and its 36th minute."""
    life = life_of(BORN, BORN + HOUR, now=BORN, draw=lambda: draw)
    assert (life.renew_at - BORN).total_seconds() == pytest.approx(minutes * 60, abs=0.1)


def test_a_set_back_begin_does_not_bring_renewal_forward() -> None:
    """An SVID of 12 seconds that was set back by 10 is renewed after 6 seconds, not after 1."""
    not_before, end = BORN - timedelta(seconds=10), BORN + timedelta(seconds=12)
    life = life_of(not_before, end, now=BORN, draw=lambda: 0.5)
    assert life.renew_at == BORN + timedelta(seconds=6)


@pytest.mark.parametrize(
    ("minutes", "state", "stale"),
    [
        (0, State.FRESH, 0),
        (30, State.FRESH, 0),
        (31, State.LATE, 60),
        (60, State.LATE, 1800),
        (60.1, State.EXPIRED, 1806),
    ],
)
def test_state_follows_from_time(minutes: float, state: State, stale: float) -> None:
    """Until it should be renewed an SVID is fresh, until its end it is late, then it is over."""
    life = Life(BORN, BORN + HOUR, BORN + HOUR / 2)
    now = BORN + timedelta(minutes=minutes)
    assert life.state(now) is state
    assert life.stale_for(now) == pytest.approx(stale)


@pytest.mark.parametrize(
    ("failures", "longest"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (100_000, 60)]
)
def test_pauses_double_up_to_a_minute(failures: int, longest: float) -> None:
    """Pauses double from one second to a minute, and do not overflow in an outage of days."""
    assert pause_after(failures, draw=lambda: 0.0) == longest / 2
    assert pause_after(failures, draw=lambda: 0.5) == longest * 0.75
    assert longest / 2 <= pause_after(failures, draw=lambda: 0.999) <= longest


@pytest.mark.parametrize(("asked", "pause"), [(None, 0.75), (0.1, 0.75), (5.0, 5.0), (1e9, 60.0)])
def test_the_issuer_may_ask_for_more_time(asked: float | None, pause: float) -> None:
    """``Retry-After`` lengthens a pause, never shortens it, and never beyond a minute."""
    assert pause_after(1, draw=lambda: 0.5, asked=asked) == pause


@pytest.mark.parametrize(
    ("hint", "seconds"), [(None, 30), (0, 5), (20, 20), (300, renewal.BUNDLE_POLL)]
)
def test_refresh_hints_are_bounded(hint: int | None, seconds: float) -> None:
    """A bundle cannot ask for a storm, nor for being believed for a day."""
    assert refresh_after(hint) == seconds

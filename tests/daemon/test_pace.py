"""How often something may be done, by the time that is told."""

from accredit_client.daemon.pace import Pace


def test_so_many_at_once_and_then_so_many_a_second() -> None:
    """What is refused takes nothing, and what was not used does not heap up."""
    pace = Pace(3, 2.0)
    assert pace.is_rested(0.0)
    assert [pace.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert not pace.take(0.49)
    assert pace.take(0.5)
    assert not pace.take(0.5)
    assert not pace.is_rested(1.9)
    assert pace.is_rested(2.0)
    assert [pace.take(1000.0) for _ in range(4)] == [True, True, True, False]


def test_time_that_goes_back_gives_nothing() -> None:
    """Nor does it take anything."""
    pace = Pace(1, 1.0)
    assert pace.take(10.0)
    assert not pace.take(0.0)
    assert not pace.take(0.5)
    assert pace.take(1.0)

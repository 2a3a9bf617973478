"""A clock that stands until a test moves it."""

from datetime import UTC, datetime, timedelta

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


class SettableClock:
    """Called like ``system_clock``; ``advance`` moves it."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """The time."""
        return self.now

    def advance(self, **span: float) -> datetime:
        """Move it by a ``timedelta`` of these arguments; returns the new time."""
        self.now += timedelta(**span)
        return self.now

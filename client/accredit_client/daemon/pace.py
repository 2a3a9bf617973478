"""How often something may be done: so many at once, and then so many a second."""


class Pace:
    """What is left. Time is told, in seconds of a clock that nobody sets.

    Args:
        at_once: how many, after a while in which there were none.
        each_second: how many become possible again.
    """

    def __init__(self, at_once: int, each_second: float) -> None:
        self._at_once = float(at_once)
        self._each_second = each_second
        self._left = self._at_once
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Whether one more may be done; where it may not, nothing is taken."""
        self._fill(now)
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def is_rested(self, now: float) -> bool:
        """Whether it is as if nothing was ever done."""
        self._fill(now)
        return self._left >= self._at_once

    def _fill(self, now: float) -> None:
        passed = 0.0 if self._at is None else max(now - self._at, 0.0)
        self._left = min(self._left + passed * self._each_second, self._at_once)
        self._at = now

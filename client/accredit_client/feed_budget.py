"""How much of another trust domain's feed is looked at: so many bytes in so much time.

Each statement is signed by them and may be as large as they like; to verify one takes our time. So
what comes is paid for from a budget that fills up again, before it is looked at. Whoever goes
beyond it is not heard until there is enough again; meanwhile what is known grows stale, and then
its credentials are refused: that is theirs to bear, and nobody else's.
"""

from datetime import datetime

from accredit_client.errors import TooMuch

FOREIGN_STATEMENT_LIMIT = 2 * 1024 * 1024  # bytes: ten thousand facts with reasons of a line
FOREIGN_BYTES = 6 * 1024 * 1024  # at once, and then in each period: a few snapshots
FOREIGN_PERIOD = 60.0  # seconds
LEAST_CHARGE = 4096  # bytes: a signature is checked for the smallest statement too


class FeedBudget:
    """What is left. Time is told; a clock that is set back fills nothing."""

    def __init__(self) -> None:
        self._left = float(FOREIGN_BYTES)
        self._at: datetime | None = None
        self._wanted = 0

    def spend(self, size: int, now: datetime) -> None:
        """Pay for a statement of this size before it is looked at.

        Raises:
            TooMuch: more than is left; nothing was spent.
        """
        wanted = max(size, LEAST_CHARGE)
        self._fill(now)
        if wanted > self._left:
            self._wanted = wanted
            raise TooMuch(
                f"the trust domain sends more than {FOREIGN_BYTES} bytes of its revocation feed in "
                f"{FOREIGN_PERIOD:g} seconds"
            )
        self._left -= wanted
        self._wanted = 0

    def seconds_until(self, now: datetime) -> float:
        """How long until what was refused last can be paid for; 0 where nothing was."""
        self._fill(now)
        missing = min(self._wanted, FOREIGN_BYTES) - self._left
        return max(missing, 0.0) * FOREIGN_PERIOD / FOREIGN_BYTES if self._wanted else 0.0

    def _fill(self, now: datetime) -> None:
        passed = 0.0 if self._at is None else max((now - self._at).total_seconds(), 0.0)
        self._left = min(self._left + passed * FOREIGN_BYTES / FOREIGN_PERIOD, FOREIGN_BYTES)
        self._at = now

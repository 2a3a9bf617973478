"""Strangers: processes that call and are meant by no entry, as lines of the log.

An operator finds out from the line why an agent of theirs is nobody: it says which selectors the
process has. Anybody may call, so each user's lines come at a pace, what is left out is counted, and
what a process chose of itself is escaped.
"""

import logging
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from accredit_client.daemon.pace import Pace

log = logging.getLogger(__name__)

LINES_AT_ONCE = 5  # of one user
LINES_EACH_SECOND = 0.1
MAX_SELECTORS = 16  # in a line
MAX_ACCOUNTS = 256  # whose pace is known; beyond it all others share one


@dataclass(slots=True)
class _Account:
    pace: Pace = field(default_factory=lambda: Pace(LINES_AT_ONCE, LINES_EACH_SECOND))
    left_out: int = 0


class Strangers:
    """Tells of them; ``now`` is in seconds of a clock that nobody sets."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._accounts: dict[int, _Account] = {}
        self._others = _Account()

    def tell(self, pid: int, account: int, selectors: AbstractSet[str]) -> None:
        """A process of a user has these selectors, and no entry has all of its own among them."""
        of_it = self._of(account)
        if not of_it.pace.take(self._now()):
            of_it.left_out += 1
            return
        more = f" (and {of_it.left_out} more calls before)" if of_it.left_out else ""
        of_it.left_out = 0
        log.warning("no [[agent]] means process %d, which has %s%s", pid, said(selectors), more)

    def _of(self, account: int) -> _Account:
        if account not in self._accounts and len(self._accounts) >= MAX_ACCOUNTS:
            now = self._now()
            for each in [a for a, one in self._accounts.items() if one.pace.is_rested(now)]:
                del self._accounts[each]
            if len(self._accounts) >= MAX_ACCOUNTS:
                return self._others
        return self._accounts.setdefault(account, _Account())


def said(selectors: AbstractSet[str]) -> str:
    """Selectors as a line says them: supplementary groups, of which there may be many, last."""
    ordered = sorted(selectors, key=lambda each: (each.startswith("unix:supplementary_"), each))
    shown = ", ".join(ascii(each)[1:-1] for each in ordered[:MAX_SELECTORS])
    left = len(ordered) - MAX_SELECTORS
    return f"{shown} and {left} more" if left > 0 else shown or "no selector"

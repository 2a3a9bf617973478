"""When to renew, when to try again, and what state an identity is in. Pure: no clock, no I/O.

Renewal comes at half life, give or take a tenth, so that a fleet started together does not come
back together. After a failure the next try comes after 1 s, then twice as long each time, up to
60 s, the later half of each pause drawn at random. An SVID that should have been renewed is *late*
and still good until its end.

The bundle is asked for at least every 30 s, and an SVID whose authority it names as tainted is
renewed within the 20 s after: tainting reaches everybody who is connected within the minute.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from accredit_client.effects import Draw

RENEW_AT = 0.5  # of an SVID's life
RENEW_JITTER = 0.1  # of an SVID's life, to either side
FIRST_PAUSE = 1.0  # seconds
LONGEST_PAUSE = 60.0  # seconds
BUNDLE_POLL = 30.0  # seconds: the most between two looks at the bundle, whatever its hint
SHORTEST_REFRESH = 5.0  # seconds; a hint of 0 must not become a storm
TAINT_SPREAD = 20.0  # seconds over which the holders of a tainted authority's SVIDs come back
TAINT_PAUSE = 60.0  # seconds before trying again where the next SVID was of a tainted one too
LONGEST_TAINT_PAUSE = 960.0  # seconds

_DOUBLINGS = 6  # 2 ** 6 > LONGEST_PAUSE / FIRST_PAUSE: more would only make the number grow


class State(Enum):
    """What an identity is worth now."""

    WAITING = "waiting"  # for its first SVID
    FRESH = "fresh"
    LATE = "late"  # good, and should have been renewed
    EXPIRED = "expired"
    REFUSED = "refused"  # for good, by the issuer


@dataclass(frozen=True, slots=True)
class Life:
    """The life of one SVID, and when in it the next is asked for."""

    not_before: datetime
    not_after: datetime
    renew_at: datetime

    def age(self, now: datetime) -> float:
        """Seconds since it was made."""
        return (now - self.not_before).total_seconds()

    def stale_for(self, now: datetime) -> float:
        """Seconds since it should have been renewed; 0 before."""
        return max(0.0, (now - self.renew_at).total_seconds())

    def expired(self, now: datetime) -> bool:
        """Whether it is over."""
        return now > self.not_after

    def state(self, now: datetime) -> State:
        """What it is worth, as far as time decides."""
        if self.expired(now):
            return State.EXPIRED
        return State.LATE if now > self.renew_at else State.FRESH


def life_of(not_before: datetime, not_after: datetime, *, now: datetime, draw: Draw) -> Life:
    """Plan the renewal of an SVID that came ``now``: at half life, give or take a tenth.

    Its life begins when it came. ``not_before`` is set back for clocks that are behind: of a short
    life it would take away half.
    """
    share = RENEW_AT + RENEW_JITTER * (2 * draw() - 1)
    begin = min(max(not_before, now), not_after)
    return Life(not_before, not_after, begin + (not_after - begin) * share)


def pause_after(failures: int, *, draw: Draw, asked: float | None = None) -> float:
    """Seconds to wait after so many failures in a row.

    Args:
        failures: how many, from 1.
        draw: for the jitter.
        asked: what the issuer asked for (``Retry-After``); never shortens the pause.
    """
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, _DOUBLINGS))
    pause = longest * (0.5 + draw() / 2)
    return max(pause, min(asked or 0.0, LONGEST_PAUSE))


def refresh_after(hint: int | None) -> float:
    """Seconds until the bundle is asked for again: its hint, and 30 s at most."""
    if hint is None:
        return BUNDLE_POLL
    return min(max(float(hint), SHORTEST_REFRESH), BUNDLE_POLL)


def replace_after(tries: int, *, draw: Draw) -> float:
    """Seconds until an SVID of a tainted authority is renewed.

    Args:
        tries: how many renewals in a row brought another such SVID. The first comes at once,
            spread; each further one later than the last.
        draw: for the jitter.
    """
    if tries == 0:
        return TAINT_SPREAD * draw()
    longest = min(LONGEST_TAINT_PAUSE, TAINT_PAUSE * 2.0 ** min(tries - 1, _DOUBLINGS))
    return longest * (0.5 + draw() / 2)


def seconds_until(moment: datetime, now: datetime) -> float:
    """Seconds until a moment; 0 once it has come."""
    return max(0.0, (moment - now).total_seconds())


def later(now: datetime, seconds: float) -> datetime:
    """The moment so many seconds from now."""
    return now + timedelta(seconds=seconds)

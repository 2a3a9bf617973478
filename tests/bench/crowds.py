"""Crowds at the real node daemon: a real issuer, ``accredit daemon run``, callers of another user.

The rows ``workload.*`` have the same questions asked of a provider in memory: what is between them
is the core (who calls, is it still the same, may it have this), the issuer and the feed.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from issuers import ISSUER_CORE, Session
from rows import Row, measure
from support.calling import AGENT_UID
from support.node_daemon import DaemonProcess, Host, host
from workload import CONNECTS, LOAD, STREAMS, TOKENS, Child

from accredit_client import calls

PROCESSES = 4  # of the load: each is one instance, however many connections it has
ROUNDS = 3  # the best counts: other work may run on the machine
MEGABYTE = 1e6


class Crowd:
    """Processes of an ordinary user that do the same at the same time."""

    def __init__(self, place: Host, what: str, count: int) -> None:
        share = count // PROCESSES
        self._children = [
            Child(LOAD, what, place.socket, share, AGENT_UID) for _ in range(PROCESSES)
        ]
        for each in self._children:
            each.heard()

    def begin(self) -> None:
        """Have them begin."""
        for each in self._children:
            each.tell()

    def heard(self) -> list[dict[str, Any]]:
        """What each of them says next."""
        return [each.heard() for each in self._children]

    def end(self) -> None:
        """Let them end."""
        for each in self._children:
            each.end()


@contextmanager
def _daemon() -> Iterator[tuple[Host, DaemonProcess]]:
    """A host whose daemon has the first core; the rest shares the last one with the load."""
    with host() as place:
        place.agent()
        place.listed()
        yield place, place.daemon(before=("taskset", "-c", str(ISSUER_CORE)))


def _resident(daemon: DaemonProcess) -> float:
    """Megabytes of a daemon."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    line = next(each for each in status.splitlines() if each.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / MEGABYTE


@measure("daemon.streams")
def streams(_session: Session) -> Iterator[Row]:
    """A thousand streams; a new root is prepared at the issuer, and each of them hears of it."""
    took, held = [], []
    for _ in range(ROUNDS):
        with _daemon() as (place, daemon):
            idle = _resident(daemon)
            crowd = Crowd(place, "streams", STREAMS)
            held.append(_resident(daemon))
            began = time.monotonic()
            place.admin.send(calls.prepare_authority("root"))
            took.append(max(each["last"] for each in crowd.heard()) - began)
            crowd.end()
    yield Row(
        name="daemon.streams",
        value=min(took),
        unit="s",
        promise="a rotation reaches 1,000 streams in <= 2 s",
        met=min(took) <= 2,
        note=f"from the admin's request on, by feed and bundle; {PROCESSES} processes; best of "
        f"{ROUNDS}, the worst {max(took):.2f} s",
    )
    yield Row(
        name="daemon.streams.memory",
        value=max(held),
        unit="MB",
        promise="<= 150 MB with 1,000 streams",
        met=max(held) <= 150,
        note=f"{idle:.0f} MB before the first caller",
    )


@measure("daemon.connects")
def connects(_session: Session) -> Iterator[Row]:
    """Five hundred connections in the same moment, of processes that nobody has seen before."""
    took, answered = [], []
    with _daemon() as (place, _daemon_process):
        for _ in range(ROUNDS):
            crowd = Crowd(place, "connects", CONNECTS)
            crowd.begin()
            found = crowd.heard()
            crowd.end()
            took.append(max(each["last"] for each in found) - min(each["began"] for each in found))
            answered.append(sum(each["answered"] for each in found))
    yield Row(
        name="daemon.connects",
        value=min(took),
        unit="s",
        promise="500 first connections are all answered in <= 1 s",
        met=min(answered) == CONNECTS and min(took) <= 1,
        note=f"{min(answered)} answered; {PROCESSES} births with measure and issuer in it; best of "
        f"{ROUNDS}, the worst {max(took):.2f} s",
    )


@measure("daemon.jwt")
def jwt(_session: Session) -> Iterator[Row]:
    """Tokens that the daemon holds, asked by several processes at the same time."""
    rates = []
    with _daemon() as (place, _daemon_process), ExitStack() as ending:
        for _ in range(ROUNDS):
            crowd = Crowd(place, "jwt", TOKENS)
            ending.callback(crowd.end)
            crowd.begin()
            found = crowd.heard()
            seconds = max(each["last"] for each in found) - min(each["began"] for each in found)
            rates.append(sum(each["answered"] for each in found) / seconds)
    yield Row(
        name="daemon.jwt",
        value=max(rates),
        unit="/s",
        promise=">= 2,000/s from the cache",
        met=max(rates) >= 2000,
        note=f"{PROCESSES} processes, 16 questions at a time each; best of {ROUNDS}",
    )

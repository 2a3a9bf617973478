"""The node daemon as a whole: how soon it serves, and how soon a new process has its SVID."""

import statistics
import time
from collections.abc import Iterator

from issuers import Session
from rows import Row, measure, milliseconds
from support.node_daemon import host

STARTS = 5
PROCESSES = 10


@measure("daemon")
def daemon(_session: Session) -> Iterator[Row]:
    """Real processes of another user, with py-spiffe; issuer and daemon on the same machine."""
    starts, firsts = [], []
    with host() as place:
        agent = place.agent()
        place.listed()
        running = place.daemon()
        for _ in range(STARTS):
            running.stop()
            begun = time.perf_counter()
            running.start()
            starts.append(time.perf_counter() - begun)
        for _ in range(PROCESSES):
            workload = place.workload(agent)
            said = workload.ask("x509")
            firsts.append(said["took"])
            workload.end()
    start = statistics.median(starts)
    yield Row(
        name="daemon.start",
        value=start,
        unit="s",
        promise="<= 1 s",
        met=start <= 1,
        note=f"{STARTS} starts of a node that has attested before, until it is ready",
        **milliseconds(starts),
    )
    first = statistics.median(firsts)
    yield Row(
        name="daemon.first_svid",
        value=first * 1000,
        unit="ms",
        promise="<= 50 ms",
        met=first <= 0.050,
        note="py-spiffe's connecting and reading included; the tree has 3 files",
        **milliseconds(firsts),
    )

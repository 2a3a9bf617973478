"""The daemon's socket: many streams and one rotation, many connects, tokens from a cache."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from issuers import ISSUER_CORE, Session
from rows import Row, measure

HERE = Path(__file__).parent
HOST = HERE / "workload_host.py"
LOAD = HERE.parent / "support" / "workload_load.py"
STREAMS, CONNECTS, TOKENS = 1000, 500, 16_000


class Child:
    """A process that says lines of JSON."""

    def __init__(self, *command: object, core: int | None = None) -> None:
        pinned = ["taskset", "-c", str(core)] if core is not None else []
        self.process = subprocess.Popen(
            [*pinned, sys.executable, *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def heard(self) -> dict[str, Any]:
        """The next line."""
        assert self.process.stdout is not None
        said: dict[str, Any] = json.loads(self.process.stdout.readline())
        return said

    def tell(self) -> None:
        """One line."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """No more lines."""
        self.process.communicate(timeout=60)


@contextmanager
def _host() -> Iterator[tuple[Child, Path]]:
    with tempfile.TemporaryDirectory(prefix="accredit-bench-") as folder:
        path = Path(folder) / "agent.sock"
        host = Child(HOST, path, STREAMS, core=ISSUER_CORE)
        try:
            host.heard()
            yield host, path
        finally:
            host.end()


@measure("workload.streams")
def streams(_session: Session) -> Iterator[Row]:
    """A thousand workloads, each on its connection; every identity is renewed at once."""
    with _host() as (host, path):
        load = Child(LOAD, "streams", path, STREAMS)
        load.heard()
        host.tell()
        rotation, last = host.heard(), load.heard()
        load.end()
    took = last["last"] - rotation["began"]
    yield Row(
        name="workload.streams",
        value=took,
        unit="s",
        promise="a rotation reaches 1,000 streams in <= 2 s",
        met=took <= 2,
        note="1,000 connections, each with another identity",
    )
    yield Row(
        name="workload.streams.memory",
        value=rotation["resident"],
        unit="MB",
        promise="<= 150 MB with 1,000 streams",
        met=rotation["resident"] <= 150,
        note="2,000 identities are held beside them",
    )


@measure("workload.connects")
def connects(_session: Session) -> Iterator[Row]:
    """Five hundred workloads that start in the same moment."""
    with _host() as (_, path):
        load = Child(LOAD, "connects", path, CONNECTS)
        load.heard()
        load.tell()
        found = load.heard()
        load.end()
    took = found["last"] - found["began"]
    yield Row(
        name="workload.connects",
        value=took,
        unit="s",
        promise="500 first connections are all answered in <= 1 s",
        met=found["answered"] == CONNECTS and took <= 1,
        note=f"{found['answered']} answered; from the first connect to the last SVID",
    )


@measure("workload.jwt")
def jwt(_session: Session) -> Iterator[Row]:
    """Tokens that the provider holds, on one connection."""
    with _host() as (_, path):
        load = Child(LOAD, "jwt", path, TOKENS)
        load.heard()
        load.tell()
        found = load.heard()
        load.end()
    rate = found["answered"] / (found["last"] - found["began"])
    yield Row(
        name="workload.jwt",
        value=rate,
        unit="/s",
        promise=">= 2,000/s from the cache",
        met=rate >= 2000,
        note="16 questions at a time",
    )

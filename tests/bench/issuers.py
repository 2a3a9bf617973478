"""Real issuers in processes of their own, pinned to the first core; the load has the other.

``make`` initialises a folder, lets the caller fill the database, and starts ``accredit-issuer
run`` on it; an admin logs in and a sample agent is registered, over the wire.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from rows import Floors
from support.issuer import (
    Admin,
    AgentFolder,
    RunningIssuer,
    attest,
    join_token_file,
    log_in,
    register,
    write_agent,
)

from accredit_attestors.manifest import generate_signer_key
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.x509_svid import X509Identity
from accredit_issuer.clock import system_clock
from accredit_issuer.issuer import Issuer, initialise, open_issuer
from accredit_issuer.settings import load

CORES = sorted(os.sched_getaffinity(0))
ISSUER_CORE = CORES[0]
LOAD_CORE = CORES[-1]
IDENTITIES = 16  # instances that the load comes from
CLOCK_TICK = os.sysconf("SC_CLK_TCK")
COMMAND = Path(sys.executable).parent / "accredit-issuer"
SETTINGS = """\
trust_domain = "example.org"
data = "data"

[server]
port = 0
"""

Fill = Callable[[Issuer], None]


class Wire(RunningIssuer):
    """An issuer in another process, as the helpers of the tests want it."""

    def __init__(self, url: str, token: str, clients: ExitStack, bundle: TrustBundle) -> None:
        self.url, self.first_token, self.clients = url, token, clients
        self._bundle = bundle

    @property
    def bundle(self) -> TrustBundle:
        """The bundle as it was at the start."""
        return self._bundle


@dataclass
class Process:
    """A running ``accredit-issuer run``."""

    popen: subprocess.Popen[str]
    host: str
    port: int
    seconds_to_ready: float

    @property
    def cpu_seconds(self) -> float:
        """Processor time so far, of all threads."""
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICK

    @property
    def resident_mb(self) -> float:
        """Resident memory in MB."""
        return resident_mb(self.popen.pid)


@dataclass
class Bench:
    """An issuer under load: its process, an admin, an agent."""

    process: Process
    wire: Wire
    admin: Admin
    agent: AgentFolder

    def identities(self, number: int) -> list[X509Identity]:
        """Attest this many instances of the agent."""
        return [
            attest(self.wire, self.agent, join_token_file(self.admin, self.agent))
            for _ in range(number)
        ]


def resident_mb(pid: int) -> float:
    """Resident memory of a process in MB (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"process {pid} has no resident memory")


def new_folder(
    folder: Path, fill: Fill | None = None, *, more: str = ""
) -> tuple[str, TrustBundle]:
    """Make an issuer's folder, with ``more`` settings; the first admin's token and the bundle."""
    folder.mkdir(parents=True)
    (folder / "issuer.toml").write_text(SETTINGS + more)
    config = load(folder / "issuer.toml")
    token = initialise(config, system_clock).text
    issuer = open_issuer(config, system_clock)
    try:
        if fill is not None:
            fill(issuer)
        return token, issuer.bundle
    finally:
        issuer.close()
        if fill is not None:
            # What was written behind the issuer's back is signed when it starts first.
            open_issuer(config, system_clock).close()


@contextmanager
def started(folder: Path, *, pinned: bool = True) -> Iterator[Process]:
    """Start the issuer of a folder, wait until it is ready, and stop it in the end."""
    begun = time.perf_counter()
    with (folder / "issuer.log").open("a") as log:
        popen = subprocess.Popen(
            [COMMAND, "run", "--config", folder / "issuer.toml", "--json"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    if pinned:
        os.sched_setaffinity(popen.pid, {ISSUER_CORE})
    try:
        assert popen.stdout is not None
        line = popen.stdout.readline()
        ready_after = time.perf_counter() - begun
        if not line:
            raise RuntimeError(f"the issuer did not start: {(folder / 'issuer.log').read_text()}")
        ready = json.loads(line)
        yield Process(popen, ready["host"], ready["port"], ready_after)
    finally:
        popen.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            popen.wait(10)
        if popen.poll() is None:
            popen.kill()
            popen.wait()
        if popen.stdout is not None:
            popen.stdout.close()


@contextmanager
def running(fill: Fill | None = None, *, more: str = "") -> Iterator[Bench]:
    """An issuer under load, in a new folder, with ``more`` settings."""
    with tempfile.TemporaryDirectory(prefix="accredit-bench-") as name, ExitStack() as clients:
        folder = Path(name)
        token, bundle = new_folder(folder / "issuer", fill, more=more)
        with started(folder / "issuer") as process:
            url = f"https://{process.host}:{process.port}"
            wire = Wire(url, token, clients, bundle)
            admin = log_in(wire, token)
            agent = write_agent(folder / "agent", key=generate_signer_key(), now=system_clock())
            register(wire, admin, agent)
            yield Bench(process, wire, admin, agent)


class Session:
    """What measures share: the floors, and one issuer under load that starts when first used."""

    def __init__(self, floors: Floors) -> None:
        self.floors = floors
        self._open = ExitStack()

    @cached_property
    def bench(self) -> Bench:
        """The issuer."""
        return self._open.enter_context(running())

    @cached_property
    def identities(self) -> list[X509Identity]:
        """Instances that were attested at it."""
        return self.bench.identities(IDENTITIES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

"""How long the first things take: a ready issuer, an imported client, a first credential."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from issuers import Session, new_folder, running, started
from rows import Row, measure, milliseconds
from support.issuer import evidence_for, join_token_file

from accredit_client import calls
from accredit_credentials.keys import generate_key

STARTS = 5
IMPORTS = 7
CREDENTIALS = 10
BARE = "import accredit_client"
USED = "from accredit_client import AgentIdentity, TaskTokenVerifier, TaskTokenAuth"


@measure("start_issuer")
def start_issuer(_session: Session) -> Iterator[Row]:
    """From the process's start to the line that says ready."""
    with tempfile.TemporaryDirectory(prefix="accredit-bench-") as name:
        folder = Path(name) / "issuer"
        new_folder(folder)
        times = []
        for _ in range(STARTS):
            with started(folder, pinned=False) as process:
                times.append(process.seconds_to_ready)
    middle = statistics.median(times)
    yield Row(
        name="start_issuer",
        value=middle,
        unit="s",
        promise="<= 1.5 s",
        met=middle <= 1.5,
        note=f"{STARTS} starts of an empty issuer",
        **milliseconds(times),
    )


@measure("import_client")
def import_client(_session: Session) -> Iterator[Row]:
    """What a Python process pays for the client, above a bare interpreter."""
    bare = _python("pass")
    for name, code, note in (
        ("import_client", BARE, "its names are loaded when first used"),
        ("import_client.used", USED, f"{USED!r}: what a program really imports"),
    ):
        took = _python(code) - bare
        yield Row(
            name=name,
            value=took * 1000,
            unit="ms",
            promise="<= 150 ms",
            met=took <= 0.150,
            note=f"above the interpreter's own {bare * 1000:.0f} ms; {note}",
        )


def _python(code: str) -> float:
    times = []
    for _ in range(IMPORTS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - begun)
    return min(times)


@measure("first_credential")
def first_credential(_session: Session) -> Iterator[Row]:
    """Nonce, evidence, key and attestation over a connection that is open already."""
    times = []
    with running() as bench:
        tokens = [join_token_file(bench.admin, bench.agent) for _ in range(CREDENTIALS)]
        client = bench.wire.connect()
        client.send(calls.nonce())
        for token in tokens:
            begun = time.perf_counter()
            nonce = client.send(calls.nonce()).nonce
            evidence = evidence_for(bench.agent, nonce, token)
            csr = calls.certificate_request(generate_key())
            client.send(calls.attestation(nonce=nonce, csr=csr, evidence=evidence))
            times.append(time.perf_counter() - begun)
    middle = statistics.median(times)
    yield Row(
        name="first_credential",
        value=middle * 1000,
        unit="ms",
        promise="<= 100 ms after connecting",
        met=middle <= 0.100,
        note="nonce, code digest of two files, key, attestation",
        **milliseconds(times),
    )

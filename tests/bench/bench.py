"""Measures the promises of docs/performance.md in one run on one machine.

scripts/bench                      everything
scripts/bench --only x509_issue    some of it (again for more)
scripts/bench --json result.json   the rows as JSON, too
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(1, str(HERE.parent))

import crowds  # noqa: E402, F401 (each module registers its measures)
import cutoff  # noqa: E402, F401
import hosts  # noqa: E402, F401
import issuing  # noqa: E402, F401
import measuring  # noqa: E402, F401
import memory  # noqa: E402, F401
import parts  # noqa: E402, F401
import polling  # noqa: E402, F401
import starting  # noqa: E402, F401
import statuses  # noqa: E402, F401
import storing  # noqa: E402, F401
import verifying  # noqa: E402, F401
import workload  # noqa: E402, F401
from floors import measure_floors, rows_of  # noqa: E402
from issuers import CLOCK_TICK, CORES, ISSUER_CORE, LOAD_CORE, Session  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from rows import MEASURES, Row  # noqa: E402

ORDER = (
    "x509_issue",
    "x509_issue_batch_100",
    "jwt_svid",
    "task_token",
    "http",
    "verify_task_token",
    "cutoff",
    "stored",
    "crl_100k",
    "crl_poll",
    "status_lists",
    "start_issuer",
    "import_client",
    "first_credential",
    "measure",
    "memory",
    "parts",
    "workload.streams",
    "workload.connects",
    "workload.jwt",
    "daemon",
    "daemon.streams",
    "daemon.connects",
    "daemon.jwt",
)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=ORDER, metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here, too")
    arguments = parser.parse_args()
    assert set(ORDER) == set(MEASURES)
    chosen = [name for name in ORDER if not arguments.only or name in arguments.only]
    progress = Console(stderr=True)
    os.sched_setaffinity(0, {LOAD_CORE})
    begun, stolen = time.monotonic(), _steal()
    rows: list[Row] = []
    progress.print(_machine()["text"])
    progress.print("floors …")
    floors = measure_floors()
    with tempfile.TemporaryDirectory(prefix="accredit-bench-") as folder:
        rows += rows_of(floors, Path(folder))
    with Session(floors) as session:
        for name in chosen:
            progress.print(f"{name} …")
            session.floors = measure_floors()  # the machine may be slower now than it was
            rows += _measured(name, session)
    took = time.monotonic() - begun
    Console(width=None if sys.stdout.isatty() else 200).print(_table(rows))
    stolen = (_steal() - stolen) / took / len(CORES)
    progress.print(f"{took:.0f} s, {stolen:.1%} of the processors taken by other virtual machines")
    if arguments.json:
        document: dict[str, Any] = {"machine": _machine(), "seconds": took, "stolen": stolen}
        document["rows"] = [row.to_json() for row in rows]
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


def _measured(name: str, session: Session) -> list[Row]:
    try:
        return list(MEASURES[name](session))
    except Exception as error:  # noqa: BLE001 (one that fails must not hide the others)
        text = f"failed: {type(error).__name__}: {error}"[:300]
        return [Row(name=name, value=None, unit="", met=False, note=text)]


def _table(rows: list[Row]) -> Table:
    table = Table()
    for heading in ("what", "value", "unit", "floor", "ratio", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="left" if heading in {"what", "unit"} else "right")
    for heading in ("promise", "met", "note"):
        table.add_column(heading)
    met = {True: "yes", False: "[bold]NO[/]", None: ""}
    for row in rows:
        numbers = (row.value, row.floor, row.ratio, row.p50_ms, row.p99_ms)
        value, floor, ratio, p50, p99 = map(_number, numbers)
        table.add_row(
            row.name, value, row.unit, floor, ratio, p50, p99, row.promise, met[row.met], row.note
        )
    return table


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _steal() -> float:
    """Seconds that the host gave to others while a processor of ours wanted to run."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    return int(fields[8]) / CLOCK_TICK


def _machine() -> dict[str, Any]:
    cpu = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    load = os.getloadavg()[0]
    facts: dict[str, Any] = {
        "cpu": cpu,
        "cores": len(CORES),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "load_before": load,
    }
    text = (
        f"{cpu}, {len(CORES)} cores (issuer on {ISSUER_CORE}, load on {LOAD_CORE}), "
        f"kernel {facts['kernel']}, Python {facts['python']}, load average {load:.1f}"
    )
    return {**facts, "text": text}


if __name__ == "__main__":
    main()

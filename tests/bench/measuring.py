"""How long it takes to measure an agent's code: read once, and looked at again unchanged."""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from issuers import Session
from rows import Row, measure, milliseconds
from support.calling import calling

from accredit_attestors.tree import Selection
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.measuring import CodeMeasurer

FILES = 10_000
BYTES = 200_000_000
FOLDERS = 200
FIRST, AGAIN = 3, 15
SETTLED = 3.0  # seconds until the files are older than timestamps may be coarse


@measure("measure")
def measuring(_session: Session) -> Iterator[Row]:
    """The whole of what the daemon does to a caller's tree, refusals included."""
    if os.geteuid():
        note = "needs root, to run an agent as another user"
        for name in ("measure.first", "measure.again"):
            yield Row(name=name, value=None, unit="ms", note=note)
        return
    with tempfile.TemporaryDirectory(prefix="accredit-bench-") as name:
        root = Path(name) / "agent"
        content = os.urandom(BYTES // FILES)
        for folder in range(FOLDERS):
            (root / f"package_{folder}").mkdir(parents=True)
            for file in range(FILES // FOLDERS):
                (root / f"package_{folder}" / f"module_{file}.py").write_bytes(content)
        time.sleep(SETTLED)
        selection = Selection()
        with calling() as process:
            caller = Caller.of(process.connection)
            measurers = [CodeMeasurer() for _ in range(FIRST)]
            first = [_took(each, caller, root, selection) for each in measurers]
            again = [_took(measurers[0], caller, root, selection) for _ in range(AGAIN)]
            caller.close()
    scale = f"{FILES:,} files, {BYTES / 1e6:.0f} MB, in the page cache"
    for name, times, bound in (("measure.first", first, 1.0), ("measure.again", again, 0.050)):
        middle = statistics.median(times)
        yield Row(
            name=name,
            value=middle * 1000,
            unit="ms",
            promise=f"<= {bound * 1000:,.0f} ms",
            met=middle <= bound,
            note=scale,
            **milliseconds(times),
        )


def _took(measurer: CodeMeasurer, caller: Caller, root: Path, selection: Selection) -> float:
    begun = time.perf_counter()
    measurer.measure(caller, str(root), selection)
    return time.perf_counter() - begun

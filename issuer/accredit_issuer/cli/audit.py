"""``accredit-issuer audit``: everything that was ever released, examined again; changes nothing."""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from accredit_issuer.audit.inspection import amount, inspect
from accredit_issuer.audit.log import Log, LogDamaged
from accredit_issuer.audit.report import Report
from accredit_issuer.cli.said import said_of
from accredit_issuer.data_folder import check_present, check_trust_domain
from accredit_issuer.errors import InvalidSettings, IssuerError
from accredit_issuer.keys.opening import open_keys
from accredit_issuer.settings import Config, load
from accredit_issuer.store.database import Database

LONG = 2000  # steps from which on progress is shown

_NAMES = {"crls": "CRLs"}

Step = Callable[[int], None]


def audit_issuer(config_file: Path, now: datetime, kept: Path | None = None) -> Report:
    """Examine the issuer of these settings; ``kept`` is a file with a checkpoint of elsewhere.

    Raises:
        IssuerError: settings, keys, database or the checkpoint cannot be read.
    """
    config = load(config_file)
    checkpoint = None if kept is None else _read_checkpoint(kept)
    check_present(config)
    database = Database(config.database)
    try:
        return _inspected(config, database, now, checkpoint)
    except IssuerError:
        raise
    except Exception as error:
        # Whatever was done to the file: one line, and the cause for whoever asks for it.
        raise IssuerError(f"{config.database} cannot be examined: {said_of(error)}") from error
    finally:
        database.close()


def _inspected(config: Config, database: Database, now: datetime, kept: str | None) -> Report:
    # One connection, one transaction: all that is compared is of one moment.
    # Of a first record that cannot be read the examination says more.
    with suppress(LogDamaged), database.read() as connection:
        check_trust_domain(config, connection)
    with closing(open_keys(config)) as keys, database.read() as connection:
        log = Log(config.log_origin, keys.load_log_key())
        with _progress(amount(connection)) as step:
            return inspect(connection, config, log, now, kept=kept, step=step)


def _read_checkpoint(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InvalidSettings(
            f"--checkpoint {file} cannot be read: {str(why).lower()}; it is a file with what "
            "GET /v1/log/checkpoint gave at another time, or a login's log_checkpoint"
        ) from error


def view(report: Report) -> dict[str, Any]:
    """As JSON."""
    return {
        "ok": report.ok,
        "examined": report.examined,
        "older": report.older,
        "terse": report.terse,
        "unreleased": {"number": report.unreleased, "unexpired": report.unexpired},
        "log": {"size": report.size, "checkpoint": report.checkpoint},
        "found": report.found,
        "findings": [{"about": f.about, "problem": f.problem} for f in report.findings],
    }


def lines(report: Report) -> Iterator[str]:
    """As text: findings first, the summary last."""
    for finding in report.findings:
        yield f"FAIL  {_shown(finding.about)}: {_shown(finding.problem)}"
    if left_out := report.found - len(report.findings):
        yield f"FAIL  and {left_out:,} more"
    if report.older:
        yield f"note  {report.older:,} credentials are of before their digests were kept"
    if report.terse:
        yield f"note  {report.terse:,} rows have records of an earlier version, which say less"
    if report.unreleased:
        yield f"note  {report.unreleased:,} credentials were decided on and never released"
    for each in report.unexpired:
        yield f"note  decided on, never released and not expired: {_shown(each)}"
    sums = ", ".join(
        f"{number:,} {_NAMES.get(name, name)}" for name, number in report.examined.items()
    )
    yield f"examined: {sums}"
    yield f"findings: {report.found:,}"


@contextmanager
def _progress(total: int) -> Iterator[Step]:
    """Show on standard error how far it has come, where somebody is watching."""
    if total < LONG or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 (slow, and needed on a terminal only)
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("examining", total=total)
        yield lambda number: bar.advance(task, number)


def _shown(text: str) -> str:
    """Text of the database on one line, every control character escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

"""What the parts of an inspection share: one snapshot, what the log told of it, and the report."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from accredit_issuer.audit.log import Log
from accredit_issuer.audit.report import Report
from accredit_issuer.audit.told import Told
from accredit_issuer.settings import Config

BATCH = 1000  # rows that are held at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """One inspection.

    Attributes:
        log: loaded by the part that reads its tree.
        step: told how many records or credentials were looked at.
        told: filled by the part that reads the records.
    """

    connection: Connection
    config: Config
    log: Log
    now: datetime
    step: Callable[[int], None]
    report: Report = field(default_factory=Report)
    told: Told = field(default_factory=Told)

    def stream(self, query: Any) -> Iterator[Row[Any]]:
        """Rows, a batch at a time."""
        return iter(self.connection.execute(query, execution_options={"yield_per": BATCH}))

    def add(self, about: str, problems: Iterable[str]) -> None:
        """Say what is wrong with one thing."""
        self.report.add(about, *problems)

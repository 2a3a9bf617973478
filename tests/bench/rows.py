"""What a measurement says, and how measurements are registered by name."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure.

    Attributes:
        name: of the figure.
        value: in ``unit``; None where there is nothing to measure yet.
        floor: what the arithmetic alone gives, in the same unit and run.
        ratio: value over floor.
        promise: what docs/performance.md promises, in words.
        met: whether it holds; None where nothing was promised or nothing could be measured.
        note: scale, conditions, doubts.
    """

    name: str
    value: float | None
    unit: str
    floor: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    promise: str = ""
    met: bool | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Value over floor."""
        return self.value / self.floor if self.value is not None and self.floor else None

    def to_json(self) -> dict[str, Any]:
        """The row as JSON."""
        return {**asdict(self), "ratio": self.ratio}


Measure = Callable[[Any], Iterator[Row]]  # given the bench's Session
MEASURES: dict[str, Measure] = {}


def measure(name: str) -> Callable[[Measure], Measure]:
    """Register what yields the rows of one name."""

    def register(function: Measure) -> Measure:
        MEASURES[name] = function
        return function

    return register


@dataclass(frozen=True, kw_only=True)
class Floors:
    """What the arithmetic costs here and now, in seconds."""

    x509: float
    jwt: float
    p256_verify: float


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """The median and the 99th percentile, in milliseconds."""
    return {
        "p50_ms": statistics.median(seconds) * 1000,
        "p99_ms": percentile(seconds, 0.99) * 1000,
    }

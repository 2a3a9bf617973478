"""Waiting for what another process does."""

import time
from collections.abc import Callable


def until(true: Callable[[], bool], timeout: float = 20.0) -> None:
    """Return once it is true."""
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)

"""Issuers for tests: offline ones with a clock of their own, and one that serves."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.offline import Offline, offline_issuer


@pytest.fixture
def offline(tmp_path: Path) -> Iterator[Offline]:
    """An issuer without sockets, at a time that the test moves."""
    with offline_issuer(tmp_path / "issuer") as issuer:
        yield issuer

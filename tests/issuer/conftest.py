"""Issuers for tests: offline ones with a clock of their own, and one that serves."""

from collections.abc import Iterator
from pathlib import Path
from shutil import copy

import pytest
from support.audit_world import AuditWorld, audit_world_in
from support.offline import Offline, offline_issuer

from accredit_issuer.store.database import Database


@pytest.fixture
def offline(tmp_path: Path) -> Iterator[Offline]:
    """An issuer without sockets, at a time that the test moves."""
    with offline_issuer(tmp_path / "issuer") as issuer:
        yield issuer


@pytest.fixture(scope="session")
def audit_world(tmp_path_factory: pytest.TempPathFactory) -> AuditWorld:
    """An issuer that did all there is to do, and was stopped; tests change nothing of it."""
    return audit_world_in(tmp_path_factory.mktemp("audit") / "issuer")


@pytest.fixture
def audit_copy(audit_world: AuditWorld, tmp_path: Path) -> Iterator[Database]:
    """A copy of its database, to be tampered with."""
    copied = Database(Path(copy(audit_world.config.database, tmp_path / "issuer.db")))
    yield copied
    copied.close()

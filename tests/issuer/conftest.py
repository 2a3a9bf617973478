"""Issuers for tests: offline ones with a clock of their own, and one that serves."""

from collections.abc import Iterator
from pathlib import Path
from shutil import copy

import pytest
import trustme
from support.audit_world import AuditWorld, audit_world_in
from support.authority import Authority
from support.bundle_endpoint import spiffe_endpoint, web_endpoint
from support.family import Family, family_in
from support.federating import REAL_NOW, SERVER, Federating, offline_with
from support.issuer import running_issuer
from support.offline import Offline, offline_issuer
from support.wire import Wire

from accredit_issuer.store.database import Database


@pytest.fixture
def offline(tmp_path: Path) -> Iterator[Offline]:
    """An issuer without sockets, at a time that the test moves, of all kinds of credential."""
    with offline_issuer(tmp_path / "issuer", wit={"enabled": True}) as issuer:
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


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """One issuer for this module."""
    folder = tmp_path_factory.mktemp("wire")
    with running_issuer(folder / "issuer") as running:
        yield Wire(running, folder)


@pytest.fixture(scope="module")
def web_pki() -> trustme.CA:
    """The CA that stands for the Web PKI."""
    return trustme.CA()


@pytest.fixture
def b_example() -> Authority:
    """Another trust domain, valid by the real clock for days."""
    return Authority("b.example", now=REAL_NOW)


@pytest.fixture
def web(web_pki: trustme.CA, tmp_path: Path, b_example: Authority) -> Iterator[Federating]:
    """An issuer, and an https_web endpoint that serves b.example's bundle number 5."""
    with offline_with(web_pki, tmp_path) as offline, web_endpoint(web_pki) as endpoint:
        made = Federating(offline, endpoint, b_example)
        endpoint.serve(made.bundle(5))
        yield made


@pytest.fixture
def spiffe(web_pki: trustme.CA, tmp_path: Path, b_example: Authority) -> Iterator[Federating]:
    """An issuer, and an https_spiffe endpoint that serves b.example's bundle number 5."""
    with (
        offline_with(web_pki, tmp_path) as offline,
        spiffe_endpoint(b_example.issue(SERVER)) as endpoint,
    ):
        made = Federating(offline, endpoint, b_example)
        endpoint.serve(made.bundle(5))
        yield made


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    """A parent with an agent that is to run a child; it is not named a subordinate yet."""
    with family_in(tmp_path) as family:
        yield family

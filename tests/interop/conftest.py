"""One real issuer with an agent, and what it issued, for every judge."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import go_spiffe
from support.interop_world import World, make_world

SERVER_NAME = "issuer.example.org"  # pkilint takes no "localhost" for a domain name
INTEROP = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is an interop test."""
    for item in items:
        if item.path.is_relative_to(INTEROP):
            item.add_marker(pytest.mark.interop)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A running issuer with one agent; tests that take something back make an instance first."""
    with make_world(tmp_path_factory.mktemp("interop"), name=SERVER_NAME) as made:
        yield made


@pytest.fixture
def own_world(tmp_path: Path) -> Iterator[World]:
    """One for a test that takes back more than an instance."""
    with make_world(tmp_path / "world", name=SERVER_NAME) as made:
        yield made


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go program in ``gospiffe/``."""
    return go_spiffe.build(tmp_path_factory.mktemp("gospiffe"))


@pytest.fixture
def theirs(judge: Path) -> Iterator[go_spiffe.Endpoint]:
    """A bundle endpoint of go-spiffe's, until the test ends."""
    with go_spiffe.endpoint(judge) as served:
        yield served

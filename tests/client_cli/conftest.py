"""A running issuer and an admin who has logged in."""

import os
import sys
from collections.abc import Iterator

import pytest
import structlog
from client_cli.workplace import World, succeed
from support.issuer import running_issuer


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One issuer for all tests of a worker; each test makes agents of its own."""
    folder = tmp_path_factory.mktemp("cli")
    before = os.environ.get("XDG_CONFIG_HOME")
    os.environ["XDG_CONFIG_HOME"] = str(folder / "config")
    with running_issuer(tmp_path_factory.mktemp("issuer")) as running:
        made = World(running, folder)
        assert made.log_in(running.first_token).code == 0
        succeed("signer", "keygen", "--out", made.key_file)
        succeed("signer", "add", "ci", "--key", f"{made.key_file}.pub", "--namespace", "support")
        yield made
    if before is None:
        del os.environ["XDG_CONFIG_HOME"]
    else:
        os.environ["XDG_CONFIG_HOME"] = before


@pytest.fixture(autouse=True)
def issuers_log_apart() -> Iterator[None]:
    """The issuer is in this process, on threads of its own: its log is no command's output."""
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))
    yield
    structlog.configure(**before)

"""Which identity a command has: by its options, then by the environment, and never by a guess."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from client_cli.workplace import World, accredit

from accredit_client.cli.problems import WrongUsage
from accredit_client.cli.source import (
    Attesting,
    FromDaemon,
    FromFolder,
    Launching,
    attesting_or_daemon,
    attesting_or_launching,
    folder_or_daemon,
)
from accredit_client.errors import InvalidEndpoint
from accredit_credentials.errors import InvalidSpiffeId
from accredit_credentials.spiffe_id import SpiffeId

ATTESTING: Mapping[str, Any] = {
    "url": "https://issuer:8443",
    "trust": "bundle.json",
    "manifest": Path("m"),
    "code_root": Path(),
    "join_token_file": Path("t"),
}
NOTHING: Mapping[str, Any] = dict.fromkeys(ATTESTING)
SOCKET = Path("/run/agent.sock")
OTHER = {"SPIFFE_ENDPOINT_SOCKET": "unix:///run/other.sock"}
ID = "spiffe://example.org/ns/a/agent/b"


def attesting(
    options: Mapping[str, Any],
    socket: str | None = None,
    spiffe_id: str | None = None,
    environment: Mapping[str, str] = OTHER,
) -> Attesting | FromDaemon:
    """The source of a command that can attest."""
    return attesting_or_daemon(
        **options, socket=socket, spiffe_id=spiffe_id, environment=environment
    )


def using(
    folder: str | None = None,
    socket: str | None = None,
    spiffe_id: str | None = None,
    environment: Mapping[str, str] = OTHER,
) -> FromFolder | FromDaemon:
    """The source of a command that needs an identity which is there."""
    return folder_or_daemon(
        folder=None if folder is None else Path(folder),
        socket=socket,
        spiffe_id=spiffe_id,
        environment=environment,
    )


def test_all_that_attesting_needs_goes_before_the_environment() -> None:
    """Whoever writes five options means them, whatever a unit's environment says."""
    assert attesting(ATTESTING) == Attesting(**ATTESTING)


@pytest.mark.parametrize(
    ("socket", "spiffe_id", "environment", "source"),
    [
        ("/run/agent.sock", None, {}, FromDaemon(SOCKET)),
        ("unix:///run/agent.sock", None, OTHER, FromDaemon(SOCKET)),
        (None, None, OTHER, FromDaemon(Path("/run/other.sock"))),
        (None, ID, OTHER, FromDaemon(Path("/run/other.sock"), SpiffeId.parse(ID))),
    ],
)
def test_the_daemon_is_named_by_an_option_or_the_environment(
    socket: str | None, spiffe_id: str | None, environment: dict[str, str], source: FromDaemon
) -> None:
    """A path or an address, the option before the variable; for both kinds of command."""
    assert attesting(NOTHING, socket, spiffe_id, environment) == source
    assert using(None, socket, spiffe_id, environment) == source


@pytest.mark.parametrize("left_out", ATTESTING)
def test_half_of_attesting_is_refused(left_out: str) -> None:
    """What is missing is named, and the daemon of the environment is not taken instead."""
    option = f"--{left_out.replace('_', '-')}"
    with pytest.raises(WrongUsage, match=f": {option} is missing$") as refused:
        attesting({**ATTESTING, left_out: None})
    assert "--socket" in str(refused.value.hint)
    with pytest.raises(WrongUsage, match=r": .* are missing$"):
        attesting({**NOTHING, left_out: ATTESTING[left_out]})


@pytest.mark.parametrize("options", [ATTESTING, {**NOTHING, "url": "https://issuer:8443"}])
@pytest.mark.parametrize(
    ("socket", "spiffe_id", "named"), [("/run/a", None, "--socket"), (None, ID, "--id")]
)
def test_the_daemon_and_attesting_do_not_mix(
    options: Mapping[str, Any], socket: str | None, spiffe_id: str | None, named: str
) -> None:
    """One line names both sides, be the attesting ones all there or not."""
    with pytest.raises(WrongUsage, match=rf"^{named} asks .* --url.*: not both$"):
        attesting(options, socket, spiffe_id)


@pytest.mark.parametrize("environment", [{}, {"SPIFFE_ENDPOINT_SOCKET": ""}])
def test_without_any_source_both_ways_are_named(environment: dict[str, str]) -> None:
    """An empty variable is none, and the hint says what would do."""
    with pytest.raises(WrongUsage, match="no identity is named") as refused:
        attesting(NOTHING, environment=environment)
    for way in ("--socket", "SPIFFE_ENDPOINT_SOCKET", "--url", "--join-token-file"):
        assert way in str(refused.value.hint)
    with pytest.raises(WrongUsage, match="no identity is named") as refused:
        using(environment=environment)
    for way in ("--socket", "SPIFFE_ENDPOINT_SOCKET", "--folder", "ACCREDIT_FOLDER"):
        assert way in str(refused.value.hint)


@pytest.mark.parametrize("socket", ["", "agent.sock", "tcp://127.0.0.1:1", "unix:agent.sock"])
def test_a_socket_that_is_none_is_refused(socket: str) -> None:
    """An empty option is not taken for the environment's."""
    with pytest.raises(InvalidEndpoint):
        attesting(NOTHING, socket)
    with pytest.raises(InvalidEndpoint):
        using(socket=socket)


def test_an_id_that_is_none_is_refused() -> None:
    """``--id`` takes a SPIFFE ID, and no agent's name."""
    with pytest.raises(InvalidSpiffeId):
        attesting(NOTHING, "/run/a", "support/triage")


def test_a_folder_goes_before_the_daemon_of_the_environment() -> None:
    """As ``AgentIdentity.discover``; but an option goes before both variables."""
    both = {**OTHER, "ACCREDIT_FOLDER": "id"}
    assert using("other", environment=both) == FromFolder(Path("other"))
    assert using(environment=both) == FromFolder(Path("id"))
    assert using(socket="/run/agent.sock", environment=both) == FromDaemon(SOCKET)
    assert using(environment={**OTHER, "ACCREDIT_FOLDER": ""}) == FromDaemon(
        Path("/run/other.sock")
    )


@pytest.mark.parametrize(
    ("folder", "socket", "spiffe_id", "environment"),
    [
        ("id", "/run/agent.sock", None, {}),
        ("id", None, ID, {}),
        (None, None, ID, {**OTHER, "ACCREDIT_FOLDER": "id"}),
    ],
)
def test_a_folder_and_the_daemon_do_not_mix(
    folder: str | None, socket: str | None, spiffe_id: str | None, environment: dict[str, str]
) -> None:
    """A folder has one identity, and the daemon's would be another."""
    with pytest.raises(WrongUsage, match="not both"):
        using(folder, socket, spiffe_id, environment)


FETCH = ("svid", "fetch", "--out", "id")
WATCH = ("svid", "watch", "--out", "id")
TOKEN = ("token", "get", "tickets", "read", "--purpose", "p", "--binding", "bearer")
NOWHERE = ("--socket", "/nowhere/agent.sock")


@pytest.mark.parametrize("command", [FETCH, TOKEN])
def test_a_daemon_that_is_away_is_one_line(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says where nobody answered, with the code of an issuer that is away; nothing is left."""
    monkeypatch.chdir(tmp_path)
    result = accredit(*command, *NOWHERE)
    assert (result.code, result.out) == (3, "")
    assert "/nowhere/agent.sock does not answer" in result.err
    assert result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [FETCH, WATCH, TOKEN])
def test_a_client_without_grpc_is_told_what_to_install(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    """The light client has none: one line, and one of advice."""
    script = (
        "import sys; from accredit_client.cli import main\n"
        "sys.modules['grpclib'] = None; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command, *NOWHERE],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    first, hint = done.stderr.splitlines()
    assert (done.returncode, "needs gRPC" in first) == (1, True)
    assert hint == "hint: install accredit with its extra 'daemon'"


def test_mixing_spends_no_join_token(world: World, tmp_path: Path) -> None:
    """At the command line, too: exit code 2, and the agent can attest afterwards."""
    agent = world.new_agent()
    for command in ("fetch", "watch"):
        result = accredit(
            "svid", command, *agent.arguments, "--out", tmp_path / "id", "--socket", "/run/a"
        )
        assert (result.code, "not both" in result.err) == (2, True)
    assert not (tmp_path / "id").exists()
    assert accredit("svid", "fetch", *agent.arguments, "--out", tmp_path / "id").code == 0


def launching(
    options: Mapping[str, Any], socket: str | None = None, environment: Mapping[str, str] = OTHER
) -> Attesting | Launching:
    """The source of ``accredit run``."""
    return attesting_or_launching(
        **{**NOTHING, "manifest": Path("m"), **options}, socket=socket, environment=environment
    )


def test_a_command_with_nothing_but_a_manifest_is_started_by_the_daemon() -> None:
    """By the option, or the environment; with all five options it attests by itself."""
    assert launching({}) == Launching(Path("/run/other.sock"), Path("m"))
    assert launching({}, "/run/agent.sock") == Launching(SOCKET, Path("m"))
    assert launching(ATTESTING) == Attesting(**ATTESTING)


@pytest.mark.parametrize("missing", ["url", "trust", "code_root", "join_token_file"])
def test_a_command_that_half_attests_is_not_started(missing: str) -> None:
    """Nor is one without a daemon, or with both; what is missing is named."""
    name = "--" + missing.replace("_", "-")
    with pytest.raises(WrongUsage, match=f"{name} is missing"):
        launching({**ATTESTING, missing: None})
    with pytest.raises(WrongUsage, match="not both"):
        launching(ATTESTING, "/run/agent.sock")
    with pytest.raises(WrongUsage, match="no identity"):
        launching({}, environment={})

"""``accredit run`` and what its command finds; real processes, since signals are real."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from client_cli.workplace import Agent, World, accredit, mode_of, succeed
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from accredit_credentials.keys import b64url_decode, check_public_key, generate_key, jwk_thumbprint

ACCREDIT = [
    sys.executable,
    "-c",
    "import sys; from accredit_client.cli import main; sys.exit(main())",
]


def start(agent: Agent, *command: str, more: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
    """Begin ``accredit run``."""
    return subprocess.Popen(
        [*ACCREDIT, "run", *agent.arguments, *more, "--", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def python(script: str) -> list[str]:
    """A command."""
    return [sys.executable, "-uc", script]


@pytest.fixture
def agent(world: World) -> Agent:
    """An agent that may attest once."""
    return world.new_agent()


def test_command_gets_a_private_folder_that_is_gone_afterwards(agent: Agent) -> None:
    """The environment has a path and no secret; the exit code is the command's."""
    script = (
        "import os; folder = os.environ['ACCREDIT_FOLDER']; print(folder);"
        "print(oct(os.stat(folder).st_mode & 0o777), sorted(os.listdir(folder)));"
        "print('PRIVATE' in str(os.environ) or 'accredit-join' in str(os.environ)); exit(7)"
    )
    process = start(agent, *python(script))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 7, err
    folder, found, leaked = out.splitlines()
    assert not Path(folder).exists()
    assert found.startswith("0o700")
    assert "svid_key.pem" in found
    assert leaked == "False"
    assert err == ""


def test_command_asks_for_task_tokens_with_the_folder(agent: Agent) -> None:
    """``token get`` inside of ``run`` needs nothing but ACCREDIT_FOLDER."""
    process = start(
        agent, *ACCREDIT, "token", "get", "tickets", "read", "--purpose", "p", "--binding", "dpop"
    )
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.count(".") == 2
    assert "tickets:read at https://tickets.example.org" in err


def test_signals_reach_the_command(agent: Agent) -> None:
    """Who stops accredit stops the command, which may end in its own way."""
    script = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(5));"
        "print('ready'); signal.pause()"
    )
    process = start(agent, *python(script))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 5


def test_revoked_agent_is_stopped_and_told_once(agent: Agent) -> None:
    """Within a moment of the revocation the command is ended, and stderr says why, once."""
    process = start(agent, *python("import time; print('ready'); time.sleep(60)"))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    succeed("revoke", "agent", agent.name, "--reason", "leaked its prompt")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert err.count("is revoked since") == 1
    assert "leaked its prompt" in err
    assert "Traceback" not in err


def test_revoked_agent_goes_on_where_that_was_asked_for(agent: Agent) -> None:
    """With --go-on the command is told on stderr, and ends when it likes."""
    process = start(agent, *python("print('ready'); input(); exit(9)"), more=("--go-on",))
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    succeed("revoke", "agent", agent.name, "--reason", "r")
    assert "is revoked since" in process.stderr.readline()
    assert process.stderr.readline() == "hint: the command goes on without it\n"
    process.communicate("\n", timeout=30)
    assert process.returncode == 9


def test_command_that_does_not_exist_spends_no_join_token(agent: Agent) -> None:
    """A typing mistake is found before the one-time token is used."""
    result = accredit("run", *agent.arguments, "--", "no-such-command", "--flag")
    assert result.code == 127
    assert result.err == ("error: command no-such-command was not found, or may not be executed\n")
    out = agent.folder.parent / "after-mistake"
    succeed("svid", "fetch", *agent.arguments, "--out", out)


def test_folder_of_others_spends_no_join_token(agent: Agent, tmp_path: Path) -> None:
    """A folder that the group may read is refused before anything is asked for."""
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o750)
    result = accredit("svid", "fetch", *agent.arguments, "--out", shared)
    assert result.code == 1
    assert "is open to others" in result.err
    out = tmp_path / "private"
    succeed("svid", "fetch", *agent.arguments, "--out", out)
    assert mode_of(out) == 0o700
    assert mode_of(out / "svid_key.pem") == 0o600


def test_attestation_that_is_refused_says_why(agent: Agent, tmp_path: Path) -> None:
    """Code that is not what was signed gets no credentials and an error of one line.

    No folder is left behind that looks as if something was in it; one that was there stays.
    """
    (agent.folder / "main.py").write_text("print('changed')\n")
    result = accredit("svid", "fetch", *agent.arguments, "--out", tmp_path / "new" / "out")
    assert (result.code, result.out) == (1, "")
    assert "attestation-refused" in result.err
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir(mode=0o700)
    assert accredit("svid", "fetch", *agent.arguments, "--out", tmp_path / "old").code == 1
    assert (tmp_path / "old").is_dir()
    assert agent.join_token_file.read_text().strip() not in result.err


def test_undeclared_action_is_refused_with_what_is_declared(world: World) -> None:
    """``token get`` shows the issuer's reason: declared, high risk, or not at all."""
    _, folder = world.attested()
    ask = ("token", "get", "tickets", "--purpose", "p", "--folder", folder)
    assert "declared: tickets:read" in accredit(*ask, "close").err
    assert "approval-required" in accredit(*ask, "delete").err
    assert accredit(*ask, "read").out.count(".") == 2


def test_token_needs_a_folder_or_a_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials the hint says how to get some."""
    for variable in ("ACCREDIT_FOLDER", "SPIFFE_ENDPOINT_SOCKET"):
        monkeypatch.delenv(variable, raising=False)
    result = accredit("token", "get", "tickets", "read", "--purpose", "p")
    assert result.code == 2
    assert "accredit run" in result.err
    assert "--socket" in result.err


def test_token_is_bound_to_a_key_of_ones_own(world: World, tmp_path: Path) -> None:
    """``--dpop-key`` names it, and a file that holds no usable public key binds nothing."""
    _, folder = world.attested()
    ask = ("token", "get", "tickets", "read", "--purpose", "p", "--folder", folder)
    file, key = tmp_path / "own.pub", generate_key()
    file.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    token = succeed(*ask, "--binding", "dpop", "--dpop-key", file).out.strip()
    claims = json.loads(b64url_decode(token.split(".")[1]))
    assert claims["cnf"] == {"jkt": jwk_thumbprint(check_public_key(key.public_key()))}

    assert accredit(*ask, "--dpop-key", file).code == 2  # the binding is the certificate
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for wrong in (b"", b"no key", private):
        file.write_bytes(wrong)
        result = accredit(*ask, "--binding", "dpop", "--dpop-key", file)
        assert (result.code, "must hold a public key" in result.err) == (1, True)


@pytest.mark.parametrize("binding", [(), ("--binding", "dpop")])
def test_a_token_that_nobody_could_present_is_not_asked_for(binding: tuple[str, ...]) -> None:
    """The daemon's SVID ends with the command, so that its key is nobody's; said before asking."""
    result = accredit(
        "token", "get", "tickets", "read", "--purpose", "p", *binding, "--socket", "/nowhere/a"
    )
    assert (result.code, "--dpop-key FILE" in result.err) == (2, True)


def test_a_manifest_that_is_none_is_named(tmp_path: Path) -> None:
    """With its file, and before a daemon is asked."""
    file = tmp_path / "README.md"
    file.write_text("# not a manifest")
    socket = ("--socket", str(tmp_path / "agent.sock"))
    result = accredit("run", *socket, "--manifest", str(file), "--", "ls")
    assert result.code == 1
    assert f"manifest {file}: envelope must be JSON" in result.err

"""What somebody sees who does not know the tool yet."""

import subprocess
import sys

import pytest
import typer
from client_cli.workplace import accredit

from accredit_client.cli.app import COMMANDS, app


def every_command() -> list[str]:
    """All commands, as they are typed."""
    root: object = typer.main.get_command(app)
    found = []
    for name in COMMANDS:
        command = root.get_command(None, name)  # type: ignore[attr-defined]
        found += [f"{name} {below}" for below in getattr(command, "commands", {})] or [name]
    return found


@pytest.mark.parametrize("command", every_command())
def test_help_of_every_command_ends_with_an_example_of_it(command: str) -> None:
    """Whoever asks a command for help sees a call that works."""
    result = accredit(*command.split(), "--help")
    assert result.code == 0
    _, _, example = result.out.partition("Example:\n")
    assert f"accredit {command}" in example


def test_overview_loads_nothing_slow() -> None:
    """``accredit --help`` imports no HTTP client, no cryptography and no rich."""
    script = (
        "import sys; from accredit_client.cli import main; main(['--help']);"
        "sys.exit(', '.join({'httpx2', 'cryptography', 'rich', 'jwt'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Commands:" in done.stdout


@pytest.mark.parametrize("command", ["", "agent", "log"])
def test_group_without_a_command_shows_its_help(command: str) -> None:
    """Nobody is scolded for not knowing the commands."""
    result = accredit(*command.split())
    assert (result.code, result.err) == (0, "")
    assert "Commands:" in result.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["agent", "nonsense"], "no such command 'nonsense'"),
        (["agent", "list", "--nonsense"], "no such option: --nonsense"),
        (["agent", "show"], "missing argument 'NS/NAME'"),
        (["signer", "keygen"], "missing option '--out'"),
        (["signer", "keygen", "--out", "k", "--type", "rsa"], "invalid value for '--type'"),
        (["log", "tail", "--follow", "--json"], "--json prints one document"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: list[str], said: str) -> None:
    """A mistyped command says what is wrong, where help is, and nothing else."""
    result = accredit(*arguments)
    assert (result.code, result.out) == (2, "")
    first, *rest = result.err.splitlines()
    assert first.startswith(f"error: {said}")
    assert all(line.startswith("hint: ") for line in rest)


def test_version_is_printed() -> None:
    """``--version`` names the release."""
    assert accredit("--version").out.startswith("accredit 0.")

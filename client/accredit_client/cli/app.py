"""The overview of all commands, and the one way in."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from accredit_client.cli.framework import Entry, LateGroup, example
from accredit_client.cli.problems import FAILED, report

_HERE = "accredit_client.cli"

COMMANDS = {
    "login": Entry(f"{_HERE}.account", "Enrol as an admin with a one-time token."),
    "whoami": Entry(f"{_HERE}.account", "Show who the issuer takes you for."),
    "logout": Entry(f"{_HERE}.account", "Forget a login."),
    "signer": Entry(f"{_HERE}.signer", "Keys that sign manifests."),
    "manifest": Entry(f"{_HERE}.manifest", "Write, sign, check and register manifests."),
    "agent": Entry(f"{_HERE}.agent", "Registered agents and their join tokens."),
    "admin": Entry(f"{_HERE}.admin", "Who administers the issuer."),
    "authority": Entry(f"{_HERE}.authority", "The keys that sign: rotate, taint, remove them."),
    "subordinate": Entry(f"{_HERE}.subordinate", "Other issuers below ours: name them, see them."),
    "node": Entry(f"{_HERE}.node", "Hosts with a node daemon: list, limit and end them."),
    "federation": Entry(f"{_HERE}.federation", "Other trust domains, and what they may ask."),
    "stream": Entry(f"{_HERE}.stream", "Other products that are told what is revoked."),
    "svid": Entry(f"{_HERE}.svid", "Obtain and show X.509-SVIDs."),
    "run": Entry(f"{_HERE}.run", "Run a command with an identity that is kept fresh."),
    "daemon": Entry(f"{_HERE}.daemon", "The node daemon: identities for this host's processes."),
    "token": Entry(f"{_HERE}.token", "Task tokens."),
    "verify": Entry(f"{_HERE}.verify", "Check credentials offline."),
    "revoke": Entry(f"{_HERE}.revocation", "Revoke an agent, a credential, a key or a person."),
    "suspend": Entry(f"{_HERE}.revocation", "Revoke until restored."),
    "restore": Entry(f"{_HERE}.revocation", "End a suspension."),
    "facts": Entry(f"{_HERE}.revocation", "List what is revoked and suspended."),
    "status": Entry(f"{_HERE}.status", "What is in force, who has not heard, what is to do."),
    "log": Entry(f"{_HERE}.log", "Read, verify and explain the issuer's log."),
}


class _Accredit(LateGroup):
    entries = COMMANDS


app = typer.Typer(
    cls=_Accredit,
    help="Identity for AI agents: attested, short-lived, scoped to the task, revocable at once.",
    epilog=example(
        "accredit login --url https://issuer:8443 --trust bundle.json --token-file token",
        "accredit run --url … --trust … --manifest … --code-root … -- python agent.py",
        "accredit revoke agent support/summarizer --reason 'leaked its prompt'",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # noqa: PLC0415 (only here, and slow)

        typer.echo(f"accredit {version('accredit')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Take the options of the first level."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    try:
        command = typer.main.get_command(app)
        code = command.main(args=arguments, prog_name="accredit", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has seen enough, as ``head`` does. Python must not flush again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # noqa: BLE001 (the edge: no error leaves as a traceback)
        return report(error)
    return code if isinstance(code, int) else 0

"""``accredit run``: a command that has an identity, and never sees how.

With the node daemon it is ``run_launched``'s. Without, the credentials stand in a private folder,
renewed in time. The issuer's revocation feed is followed too, so that a revoked agent is stopped
within a moment rather than at its next renewal.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from accredit_client.cli import options, output
from accredit_client.cli.child import Child
from accredit_client.cli.framework import example, top_level
from accredit_client.cli.local_files import private_folder
from accredit_client.cli.problems import FAILED, NoCommand, WrongUsage
from accredit_client.cli.run_launched import run_launched
from accredit_client.cli.source import (
    Attesting,
    Launching,
    attesting_or_launching,
    identity_of,
)
from accredit_client.effects import utc_now
from accredit_client.errors import ClientError, IdentityRefused
from accredit_client.files import FOLDER_VARIABLE, FolderContent, write_folder
from accredit_client.identity import AgentIdentity
from accredit_client.renewal import State
from accredit_credentials.errors import Revoked, Stale

app = top_level()

PULSE = 0.5  # seconds between looks at the identity


@app.command(
    epilog=example(
        "accredit run --socket /run/accredit/agent.sock --manifest agent.manifest.json \\",
        "  -- /usr/bin/python3 -Es agent.py",
        "accredit run --url https://issuer:8443 --trust bundle.json \\",
        "  --manifest agent.manifest.json --code-root . --join-token-file join-token \\",
        "  -- python agent.py",
    ),
    context_settings={"allow_interspersed_args": False},
)
def run(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="What to run.")],
    *,
    manifest: options.ManifestFile,
    socket: options.Socket = None,
    url: options.AttestUrl = None,
    trust: options.AttestTrust = None,
    code_root: options.AttestCodeRoot = None,
    join_token_file: options.AttestJoinTokenFile = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            metavar="DIR",
            help="To attest: private folder; a temporary one by default.",
        ),
    ] = None,
    stop_on_revocation: Annotated[
        bool,
        typer.Option(
            "--stop-on-revocation/--go-on", help="End the command when its identity is revoked."
        ),
    ] = True,
) -> None:
    """Run a command with an identity that is kept fresh.

    With the node daemon, the daemon measures the code, starts the command as its settings say, and
    ends it when its identity is taken back; the command finds SPIFFE_ENDPOINT_SOCKET. Without, this
    process attests, and the command finds svid.pem, svid_key.pem and bundle.pem in the folder that
    ACCREDIT_FOLDER names; what an earlier run left in --folder is taken up without a join token.

    The command gets the signals that this process gets, and its exit code is returned; where the
    identity was taken back, never 0.
    """
    source = attesting_or_launching(
        url=url,
        trust=trust,
        manifest=manifest,
        code_root=code_root,
        join_token_file=join_token_file,
        socket=socket,
        environment=os.environ,
    )
    if isinstance(source, Launching):
        if folder is not None or not stop_on_revocation:
            raise WrongUsage(
                "--folder and --go-on are for a command that attests here",
                hint="with the node daemon, ends_with_identity in daemon.toml says how it ends",
            )
        raise typer.Exit(run_launched(source, command))
    # Before the join token is spent: whatever can fail without it should.
    if shutil.which(command[0]) is None:
        raise NoCommand(f"command {command[0]} was not found, or may not be executed")
    raise typer.Exit(_run_here(source, command, folder, stop=stop_on_revocation))


def _run_here(source: Attesting, command: Sequence[str], folder: Path | None, *, stop: bool) -> int:
    identity = identity_of(source, folder=folder, revocations=True)
    with ExitStack() as open_things:
        if folder is not None:
            open_things.enter_context(private_folder(folder))
        open_things.enter_context(identity)
        place = folder or open_things.enter_context(_temporary_folder())
        kept = _KeptFolder(place.absolute(), source.url, identity)
        kept.refresh()
        return _supervise(command, kept, stop=stop)


class _KeptFolder:
    """The folder, brought in line with the identity whenever that has changed."""

    def __init__(self, path: Path, url: str, identity: AgentIdentity) -> None:
        self.path = path
        self.identity = identity
        self._url = url
        self._written: FolderContent | None = None

    def refresh(self) -> None:
        """Write what is new.

        Raises:
            ClientError: there is nothing that may be used, or the folder cannot be written.
        """
        content = FolderContent(self._url, self.identity.bundle, self.identity.x509)
        if content != self._written:
            write_folder(self.path, content)
            self._written = content


def _supervise(command: Sequence[str], kept: _KeptFolder, *, stop: bool) -> int:
    told: set[str] = set()

    def say_once(what: str, message: str, hint: str) -> None:
        if what not in told:
            told.add(what)
            output.error(message, hint)

    environment = {**os.environ, FOLDER_VARIABLE: str(kept.path)}
    taken_back: str | None = None
    with Child(command, environment) as child:
        while (code := child.wait(PULSE)) is None:
            if taken_back := taken_back_why(kept.identity):
                then = "the command is stopped" if stop else "the command goes on without it"
                say_once("revoked", taken_back, then)
                if stop:
                    child.stop()
                continue
            try:
                kept.refresh()
            except ClientError as error:
                say_once("folder", str(error), error.hint or "trying again")
            if kept.identity.status.state is State.LATE:
                why = kept.identity.status.last_error
                say_once("late", f"renewal is late: {why}", "trying again")
    # A command may end by itself, at its first refusal, before anybody looked.
    if taken_back := taken_back or taken_back_why(kept.identity):
        say_once("revoked", taken_back, "the command ended by itself")
        return code or FAILED
    return code


def taken_back_why(identity: AgentIdentity) -> str | None:
    """Why the identity is not ours any more; None while it is."""
    try:
        svid = identity.x509.svid
        if identity.facts is not None:
            identity.facts.check(svid.marks(), now=utc_now(), max_age=float("inf"))
    except (IdentityRefused, Revoked) as error:
        return str(error)
    except (ClientError, Stale):
        return None  # over, or nothing known yet: not taken back
    return None


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    # In memory where there is such a place: the key then never reaches a disk.
    with tempfile.TemporaryDirectory(
        prefix="accredit-", dir=os.environ.get("XDG_RUNTIME_DIR")
    ) as name:
        yield Path(name)

"""``accredit svid watch``: files that stay fresh, for software that only reads files.

Writes the whole set when anything in it has changed, then says so to whoever reads it (``reload``).
The identity is any ``AgentIdentity``, wherever it comes from. Telling that
failed is tried again, since a server that missed one renewal holds the SVID that ends with the
next; nothing else is told twice.
"""

import grp
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from accredit_client import renewal
from accredit_client.cli import options, output
from accredit_client.cli.problems import Failed
from accredit_client.cli.reload import Reload, reload_of
from accredit_client.cli.run import taken_back_why
from accredit_client.cli.source import attesting_or_daemon, identity_of
from accredit_client.effects import Draw, system_draw, utc_now
from accredit_client.errors import ClientError, IdentityExpired, IdentityRefused
from accredit_client.files import Access, FolderContent, prepare_folder, write_folder
from accredit_client.identity import AgentIdentity
from accredit_client.renewal import State
from accredit_credentials.errors import InvalidSpiffeId
from accredit_credentials.spiffe_id import AgentId, SpiffeId

PULSE = 0.5  # seconds between looks at the identity
CRL_REFRESH = 30.0  # seconds between questions for the CRLs, where no new fact asks for one

_STOPPING = (signal.SIGTERM, signal.SIGINT)


def watch(
    *,
    url: options.AttestUrl = None,
    trust: options.AttestTrust = None,
    manifest: options.AttestManifest = None,
    code_root: options.AttestCodeRoot = None,
    join_token_file: options.AttestJoinTokenFile = None,
    socket: options.Socket = None,
    spiffe_id: options.Identity = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for the files; made if need be.")
    ],
    group: Annotated[
        str | None,
        typer.Option(
            "--group",
            metavar="NAME",
            help="A group that may read them: 0750, 0640; else 0700, 0600.",
        ),
    ] = None,
    signal_name: Annotated[
        str | None,
        typer.Option("--signal", metavar="HUP", help="Sent after a change: HUP, USR1 or USR2."),
    ] = None,
    pid_file: Annotated[
        Path | None, typer.Option("--pid-file", metavar="F", help="Whom the signal is sent to.")
    ] = None,
    command: Annotated[
        str | None,
        typer.Option("--exec", metavar="CMD", help="Run after a change; no shell, at most 30 s."),
    ] = None,
    crls: Annotated[bool, typer.Option("--crls/--no-crls", help="Write crl.pem, too.")] = True,
) -> None:
    """Keep svid.pem, svid_key.pem, bundle.pem and crl.pem fresh until SIGTERM.

    Each change takes effect in one step, and a line on stderr says what changed. Then, and only
    then, a process is signalled or a command is run. What an earlier run left in DIR is taken up
    without a join token; with the node daemon there is none.
    """
    source = attesting_or_daemon(
        url=url,
        trust=trust,
        manifest=manifest,
        code_root=code_root,
        join_token_file=join_token_file,
        socket=socket,
        spiffe_id=spiffe_id,
        environment=os.environ,
    )
    reload = reload_of(signal_name, pid_file, command)
    access = Access(_group(group))
    prepare_folder(out, access)  # before the join token is spent
    stop = threading.Event()
    before = {each: signal.signal(each, lambda *_: stop.set()) for each in _STOPPING}
    try:
        with identity_of(source, folder=out, folder_access=access, revocations=True) as identity:
            kept = KeptFiles(out, access, url, identity, reload=reload, crls=crls)
            kept.look()
            while not stop.wait(PULSE):
                kept.look()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    output.note(f"stopped; what is in {out} is renewed by nobody any more")


class KeptFiles:
    """A folder that is brought in line with an identity, and whoever is told of it."""

    def __init__(
        self,
        out: Path,
        access: Access,
        url: str | None,
        identity: AgentIdentity,
        *,
        reload: Reload | None,
        crls: bool,
        monotonic: Callable[[], float] = time.monotonic,
        draw: Draw = system_draw,
    ) -> None:
        self._out = out
        self._access = access
        self._url = url
        self._identity = identity
        self._reload = reload
        self._wants_crls = crls
        self._monotonic = monotonic
        self._draw = draw
        self._written: FolderContent | None = None
        self._crls: tuple[bytes, ...] = ()
        self._crls_at = 0.0
        self._fact: object = None
        self._failures = 0
        self._tell_at: float | None = None
        self._said: dict[str, str] = {}

    def look(self) -> None:
        """Write what is new, and tell of it.

        Raises:
            IdentityRefused: the identity was taken back, or the daemon's default one is another's.
        """
        if why := taken_back_why(self._identity):
            raise IdentityRefused(why, hint=f"what is in {self._out} is worth nothing any more")
        self._look_at_crls()
        try:
            content = FolderContent(
                self._url, self._identity.bundle, self._identity.x509, self._crls
            )
            self._check_whose(content.identity.svid.spiffe_id)
            if content != self._written:
                write_folder(self._out, content, self._access)
                self._note(content)
                self._written, self._failures = content, 0
                self._tell_at = self._monotonic() if self._reload is not None else None
        except IdentityRefused:
            raise
        except IdentityExpired:
            pass  # said below, with the reason
        except ClientError as error:
            self._say("write", f"{error}; trying again")
        else:
            self._said.pop("write", None)
        self._say_late()
        self._tell()

    def _check_whose(self, spiffe_id: SpiffeId) -> None:
        """That whoever reads the files does not become another agent with the next set."""
        if self._written is None:
            return
        before = self._written.identity.svid.spiffe_id
        if _agent_of(before) != _agent_of(spiffe_id):
            raise IdentityRefused(
                f"{before} was taken back: the identity would be {spiffe_id} now",
                hint="--id says which one, where the daemon gives this process several",
            )

    def _note(self, content: FolderContent) -> None:
        before, svid = self._written, content.identity.svid
        changed = [
            name
            for name, old, new in (
                ("svid.pem", before and before.identity, content.identity),
                ("bundle.pem", before and before.bundle, content.bundle),
                ("crl.pem", before.crls if before else (), content.crls),
            )
            if old != new
        ]
        end = output.until(svid.not_after, utc_now())
        output.note(f"{', '.join(changed)} of {svid.spiffe_id} in {self._out}; valid until {end}")

    def _look_at_crls(self) -> None:
        """Fetch them where it is time, or a fact came meanwhile; the node daemon has sent them."""
        if not self._wants_crls:
            return
        if (pushed := self._identity.pushed_crls) is not None:
            self._crls = pushed
            return
        facts, now = self._identity.facts, self._monotonic()
        fact = None if facts is None else facts.through
        if now < self._crls_at and fact == self._fact:
            return
        self._fact, self._crls_at = fact, now + CRL_REFRESH
        try:
            self._crls = self._identity.fetch_crls()
        except ClientError as error:
            self._say("crls", f"CRLs could not be had: {error}")
        else:
            self._said.pop("crls", None)

    def _tell(self) -> None:
        if self._reload is None or self._tell_at is None or self._monotonic() < self._tell_at:
            return
        try:
            output.note(self._reload())
        except (ClientError, OSError) as error:
            self._failures += 1
            pause = renewal.pause_after(self._failures, draw=self._draw)
            self._tell_at = self._monotonic() + pause
            self._say("reload", f"nobody was told: {error}; trying again")
        else:
            self._tell_at = None
            self._said.pop("reload", None)

    def _say_late(self) -> None:
        status = self._identity.status
        if status.state in {State.LATE, State.EXPIRED}:
            self._say("late", f"the SVID is {status.state.value}: {status.last_error}")
        else:
            self._said.pop("late", None)

    def _say(self, what: str, message: str) -> None:
        """Say something once, until it is over or has another reason."""
        if self._said.get(what) != message:
            self._said[what] = message
            output.error(message)


def _agent_of(spiffe_id: SpiffeId) -> AgentId | SpiffeId:
    """The agent, whose instances may have IDs of their own; another's ID as it is."""
    try:
        return AgentId.from_spiffe_id(spiffe_id)
    except InvalidSpiffeId:
        return spiffe_id


def _group(name: str | None) -> int | None:
    if name is None:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise Failed(f"there is no group {name} on this host") from None

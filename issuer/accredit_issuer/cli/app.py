"""The commands ``init``, ``run``, ``invite``, ``pin``, ``doctor``, ``audit``; and ``authority``.

Errors are one line on standard error, with a hint where there is one; exit status 1 for a no, 2
for wrong usage.
"""

import gc
import json
import logging
import os
import resource
import sys
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
from typer.core import TyperGroup

from accredit_credentials.errors import CredentialError
from accredit_issuer.cli import authority
from accredit_issuer.cli.doctor import examine
from accredit_issuer.cli.options import DEFAULT_CONFIG, AsJson, ConfigFile
from accredit_issuer.clock import system_clock
from accredit_issuer.clock_guard import steady_clock
from accredit_issuer.errors import InvalidSettings, IssuerError
from accredit_issuer.registry.roles import Admin, Role
from accredit_issuer.settings import Config, KeysOnDisk, load

WHOLE = 1000  # characters of a command's summary: all of it; wrapped where it is written


class _Overview(TyperGroup):
    """The commands, each with its whole first sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(n, one.get_short_help_str(WHOLE)) for n, one in found if one])


app = typer.Typer(
    cls=_Overview,
    help="Run an Accredit issuer.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(authority.app, name="authority")

COLLECT_AFTER = 20_000  # new objects: a request makes hundreds, and next to none stays
OPERATOR = "operator"  # whoever has the issuer's files
TOKEN_FILE = "first-admin.token"  # noqa: S105 (a file's name)

TEMPLATE = """\
# Settings of an Accredit issuer. Every key, its unit and default: docs/settings.md
trust_domain = "{trust_domain}"
data = "data"

[server]
host = "127.0.0.1"
port = 8443
url = "https://localhost:8443"
names = ["localhost"]
"""


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # noqa: PLC0415 (only here, and slow)

        typer.echo(f"accredit {version('accredit')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Take the options of the first level."""


def main() -> None:
    """Run the command line."""
    os.umask(0o077)  # whatever an issuer writes is its own
    try:
        app()
    except Exception as error:
        if os.environ.get("ACCREDIT_DEBUG"):
            raise
        from accredit_issuer.cli.said import said_of  # noqa: PLC0415 (slow to import)

        print(f"error: {said_of(error)}", file=sys.stderr)  # noqa: T201 (a command line speaks)
        if not isinstance(error, (IssuerError, CredentialError, OSError)):
            print("hint: ACCREDIT_DEBUG=1 shows where", file=sys.stderr)  # noqa: T201
        sys.exit(1)


@app.command(epilog="Example: accredit-issuer init --trust-domain example.org")
def init(
    config: ConfigFile = DEFAULT_CONFIG,
    trust_domain: Annotated[
        str | None,
        typer.Option(help="Write the settings too, where there are none, for this trust domain."),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Make a new issuer: keys, database, and the first admin's one-time token."""
    from accredit_issuer.issuer import initialise  # noqa: PLC0415 (slow to import)

    if trust_domain is not None and not config.exists():
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(TEMPLATE.format(trust_domain=trust_domain), encoding="utf-8")
    settings = load(config)
    note = _note_on_keys(settings)
    invitation = initialise(settings, system_clock)
    if note:
        print(f"note: {note}", file=sys.stderr)  # noqa: T201
    token_file = settings.data / TOKEN_FILE
    _write_token(token_file, invitation.text)
    pin = root_pin(settings)
    if as_json:
        _print_json(
            {
                "trust_domain": str(settings.trust_domain),
                "url": settings.url,
                "pin": pin,
                "token_file": str(token_file),
                "token_expires_at": f"{invitation.expires_at:%Y-%m-%dT%H:%M:%SZ}",
            }
        )
        return
    _print(
        f"issuer of {settings.trust_domain} made in {settings.data}",
        "",
        "next:",
        f"  accredit-issuer run --config {config}",
        f"  accredit login --url {settings.url} \\",
        f"    --trust {pin} \\",
        f"    --token-file {token_file}",
    )


@app.command(epilog="Example: accredit-issuer run --config issuer.toml")
def run(
    config: ConfigFile = DEFAULT_CONFIG,
    *,
    confirm_clock: Annotated[
        bool,
        typer.Option(
            "--confirm-clock", help="The clock is right, though the newest record is ahead of it."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Serve until a signal says stop."""
    from accredit_issuer.issuer import Lock, open_issuer  # noqa: PLC0415
    from accredit_issuer.server import Server  # noqa: PLC0415

    settings = load(config)
    _set_up_logging()
    _allow_many_connections()
    if not settings.data.is_dir():
        raise InvalidSettings(f"there is no issuer in {settings.data}: run 'accredit-issuer init'")
    lock = Lock(settings.data)
    issuer = open_issuer(
        settings, system_clock, steady_clock, confirmed_by=OPERATOR if confirm_clock else None
    )

    def ready(host: str, port: int) -> None:
        # What is there now stays: the collector need not walk over it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER)
        if as_json:
            _print_json({"ready": True, "host": host, "port": port, "url": settings.url})
        else:
            _print(f"issuer of {settings.trust_domain} ready on {host}:{port}")

    try:
        Server(issuer).run(on_ready=ready)
    finally:
        issuer.close()
        lock.release()


@app.command(epilog="Example: accredit-issuer invite first --role admin --out first.token")
def invite(
    name: Annotated[str, typer.Argument(help="The admin, new or known.")],
    out: Annotated[Path, typer.Option(help="Write the one-time token there, with mode 0600.")],
    role: Annotated[Role, typer.Option(help="What the admin may do.")] = Role.ADMIN,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Write a one-time token for an admin, while the issuer is stopped.

    The way back in when nobody can log in any more. It is recorded like any other invitation.
    """
    from accredit_issuer.issuer import Lock, open_issuer  # noqa: PLC0415
    from accredit_issuer.registry.changes import Local  # noqa: PLC0415

    settings = load(config)
    lock = Lock(settings.data)
    issuer = open_issuer(settings, system_clock)
    try:
        admin = Admin(name, role)
        invitation = issuer.administration.invite(admin, by=Local(OPERATOR), now=system_clock())
    finally:
        issuer.close()
        lock.release()
    _write_token(out, invitation.text)
    _print(
        f"one-time token of {name} written to {out}",
        "",
        "next, once the issuer runs again:",
        f"  accredit login --url {settings.url} \\",
        f"    --trust {root_pin(settings)} \\",
        f"    --token-file {out}",
    )


@app.command(epilog="Example: accredit-issuer doctor --config issuer.toml --json")
def doctor(config: ConfigFile = DEFAULT_CONFIG, *, as_json: AsJson = False) -> None:
    """Examine settings, keys, database and log, and say what is wrong. Changes nothing.

    Quick. What was released is examined by 'audit'.
    """
    findings = examine(config, system_clock())
    if as_json:
        _print_json({"ok": all(f.ok for f in findings), "findings": [f.view() for f in findings]})
    else:
        for finding in findings:
            _print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.what}: {finding.found}")
            if finding.hint:
                _print(f"      {finding.hint}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command(epilog="Example: accredit-issuer audit --checkpoint kept.txt --json")
def audit(
    config: ConfigFile = DEFAULT_CONFIG,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="A checkpoint of this log that was kept elsewhere.", metavar="FILE"),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Examine everything ever released against authorities, facts and the log. Changes nothing.

    Takes a moment for each few thousand credentials, and may run beside the issuer.
    """
    from accredit_issuer.cli.audit import audit_issuer, lines, view  # noqa: PLC0415 (slow to import)

    report = audit_issuer(config, system_clock(), checkpoint)
    if as_json:
        _print_json(view(report))
    else:
        _print(*lines(report))
    if not report.ok:
        raise typer.Exit(1)


def _note_on_keys(config: Config) -> str:
    """What whoever makes an issuer should know of its keys, before they are made."""
    if not isinstance(config.keys, KeysOnDisk):
        return ""
    file = config.keys.passphrase_file
    if file is None:
        return "keys are protected by file permissions only (keys.unencrypted)"
    if file.exists():
        return ""
    return f"made {file}, which opens the keys: keep it apart from the backups of {config.data}"


@app.command(epilog="Example: accredit login --trust $(accredit-issuer pin) …")
def pin(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Print the pin of the root in force: what a first login or a first agent trusts."""
    _print(root_pin(load(config)))


def root_pin(config: Config) -> str:
    """``sha256:<hex>`` of the root certificate: what clients pin."""
    from accredit_issuer.cli.doctor import root_certificates  # noqa: PLC0415

    return root_certificates(config)[0].pin


def _write_token(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(text + "\n")


def _allow_many_connections() -> None:
    """Use all the file descriptors that the system grants: each verifier's stream takes one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _set_up_logging() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            # JSON escapes whatever could end or colour a line.
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")


def _print(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)  # noqa: T201


def _print_json(value: object) -> None:
    print(json.dumps(value), flush=True)  # noqa: T201

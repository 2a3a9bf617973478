"""``accredit admin``: who administers the issuer."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from accredit_client import calls
from accredit_client.cli import options, output, session
from accredit_client.cli.framework import example, group
from accredit_client.cli.local_files import PRIVATE, write_new
from accredit_client.cli.problems import Failed
from accredit_client.effects import utc_now

app = group("Who administers the issuer.")


class Role(StrEnum):
    """What an admin may do (docs/api.md, Roles)."""

    VIEWER = "viewer"
    REGISTRAR = "registrar"
    SECURITY = "security"
    OWNER = "owner"
    ADMIN = "admin"


@app.command("list", epilog=example("accredit admin list"))
def list_admins(
    profile: options.Profile = options.DEFAULT_PROFILE, as_json: options.Json = False
) -> None:
    """List the admins and their roles."""
    found = session.ask(profile, calls.admins())
    if as_json:
        output.document(
            [
                {
                    "name": each.name,
                    "role": each.role,
                    "namespaces": each.namespaces,
                    "state": each.state,
                }
                for each in found
            ]
        )
        return
    output.table(
        ("NAME", "ROLE", "NAMESPACES", "STATE"),
        [(each.name, each.role, each.namespaces, each.state) for each in found],
        empty="no admins",
    )


@app.command(
    epilog=example(
        "accredit admin invite maria --role security --out maria.token",
        "accredit admin invite ci --role registrar --namespace support --out ci.token",
    )
)
def invite(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call the admin.")],
    *,
    role: Annotated[Role, typer.Option("--role", help="What the admin may do.")],
    namespace: Annotated[
        list[str] | None,
        typer.Option("--namespace", metavar="NS", help="For owner and registrar; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the token there, with mode 0600."),
    ] = None,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Make a one-time token with which somebody logs in as an admin."""
    made = session.ask(profile, calls.add_admin(name=name, role=role, namespaces=namespace or []))
    if made.enrolment_token is None or made.expires_at is None:
        raise Failed(f"the issuer made no token for {made.name}")
    if out is not None:
        write_new(out, f"{made.enrolment_token}\n".encode(), PRIVATE)
    if as_json:
        output.document(
            {
                "name": made.name,
                "role": made.role,
                "namespaces": made.namespaces,
                "expires_at": made.expires_at,
                **({"file": out} if out else {"enrolment_token": made.enrolment_token}),
            }
        )
        return
    output.line(out or made.enrolment_token)
    output.note(f"enrols {made.name} once, until {output.until(made.expires_at, utc_now())}")

"""``accredit subordinate``: other issuers of the trust domain, and how far they reach.

A subordinate is an agent that asks for an issuing CA with its own SVID. What it signs counts for
agents of the namespaces that it was given; docs/authorities.md says for whom.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from accredit_client import calls
from accredit_client.answers import SubordinateRecord
from accredit_client.cli import options, output, session
from accredit_client.cli.framework import example, group
from accredit_credentials.spiffe_id import AgentId

app = group("Other issuers of the trust domain.")

SHOWN_ID = 12  # characters of a key id

WhichAgent = Annotated[
    str, typer.Argument(metavar="AGENT", help="The agent that runs it, namespace/name.")
]


@app.command(epilog=example("accredit subordinate add infra/child --namespaces payments,search"))
def add(
    agent: WhichAgent,
    namespaces: Annotated[
        str, typer.Option(help="Whose agents it may issue for, separated by commas.")
    ],
    dns_names: Annotated[
        str,
        typer.Option(help="DNS names of its own server, separated by commas: its server.names."),
    ] = "",
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Let a registered agent have issuing CAs of this issuer."""
    call = calls.add_subordinate(
        AgentId.parse(agent), namespaces=_split(namespaces), dns_names=_split(dns_names)
    )
    with session.open_issuer(profile) as issuer:
        _print([issuer.send(call)], as_json=as_json)


@app.command("list", epilog=example("accredit subordinate list --json"))
def list_(
    profile: options.Profile = options.DEFAULT_PROFILE, as_json: options.Json = False
) -> None:
    """List them with the ids of their newest issuing CAs; removed ones while one of these lives."""
    found = session.ask(profile, calls.subordinates())
    removed = session.ask(profile, calls.removed_subordinates())
    gone = [Removed(agent, tuple(dict.fromkeys(ids))) for agent, ids in removed.items()]
    _print(found, gone, as_json=as_json)


@app.command(epilog=example("accredit subordinate remove infra/child"))
def remove(
    agent: WhichAgent,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Let it have no further issuing CA; to end those it has: accredit revoke authority ID."""
    with session.open_issuer(profile) as issuer:
        _print([issuer.send(calls.remove_subordinate(AgentId.parse(agent)))], as_json=as_json)


def _split(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


@dataclass(frozen=True, slots=True)
class Removed:
    """One whose name was taken away; its issuing CAs sign until they are revoked, or end."""

    agent: str
    issuing_cas: tuple[str, ...]
    removed: bool = True


def _print(
    subordinates: Sequence[SubordinateRecord], gone: Sequence[Removed] = (), *, as_json: bool
) -> None:
    if as_json:
        output.document([*subordinates, *gone])
        return
    output.table(
        ("AGENT", "NAMESPACES", "DNS NAMES", "ISSUING CAS"),
        [
            *(
                (
                    each.agent,
                    ", ".join(each.namespaces),
                    ", ".join(each.dns_names) or "-",
                    ", ".join(dict.fromkeys(id_[:SHOWN_ID] for id_ in each.issuing_cas)) or "-",
                )
                for each in subordinates
            ),
            # In full: this is what "accredit revoke authority" takes.
            *((each.agent, "(removed)", "-", ", ".join(each.issuing_cas)) for each in gone),
        ],
        empty="no subordinates",
    )

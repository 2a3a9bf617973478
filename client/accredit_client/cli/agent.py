"""``accredit agent``: registered agents, and the tokens that admit their instances."""

from pathlib import Path
from typing import Annotated, Any

import typer

from accredit_client import calls
from accredit_client.answers import AgentRecord
from accredit_client.cli import options, output, session
from accredit_client.cli.framework import example, group
from accredit_client.cli.local_files import PRIVATE, write_new
from accredit_client.effects import utc_now
from accredit_credentials.spiffe_id import AgentId

app = group("Registered agents and their join tokens.")

Agent = Annotated[str, typer.Argument(metavar="NS/NAME", help="The agent.")]


@app.command("list", epilog=example("accredit agent list", "accredit agent list --json"))
def list_agents(
    profile: options.Profile = options.DEFAULT_PROFILE, as_json: options.Json = False
) -> None:
    """List the agents, their owners and how many instances live."""
    found = session.ask(profile, calls.agents())
    if as_json:
        output.document([each.details for each in found])
        return
    output.table(
        ("AGENT", "VERSION", "STATE", "LIVE", "OWNER"),
        [(each.agent, each.version, each.state, each.live, each.owner) for each in found],
        empty="no agents; register a manifest with: accredit manifest register FILE",
    )


@app.command(epilog=example("accredit agent show support/summarizer"))
def show(
    agent: Agent,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Show one agent with its manifests and living instances."""
    agent_id = AgentId.parse(agent)
    found = session.ask(profile, calls.agent(agent_id))
    if as_json:
        output.document(found.details)
    else:
        _print_agent(found)


@app.command(
    epilog=example(
        "accredit agent enrol support/summarizer --out join-token",
        "accredit agent enrol support/summarizer --ttl 60 | ssh host 'umask 077; cat > token'",
    )
)
def enrol(
    agent: Agent,
    ttl: Annotated[
        int, typer.Option("--ttl", metavar="SECONDS", min=1, help="How long the token lives.")
    ] = 600,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the token there, with mode 0600."),
    ] = None,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Make a join token, which admits one instance of an agent, once."""
    agent_id = AgentId.parse(agent)
    made = session.ask(profile, calls.join_token(agent_id, ttl_seconds=ttl))
    if out is not None:
        write_new(out, f"{made.token}\n".encode(), PRIVATE)
    if as_json:
        shown: dict[str, Any] = {
            "id": made.id,
            "agent": made.agent,
            "expires_at": made.expires_at,
            **({"file": out} if out else {"token": made.token}),
        }
        output.document(shown)
        return
    output.line(out or made.token)
    output.note(
        f"admits one instance of {agent_id} until {output.until(made.expires_at, utc_now())}"
    )


def _print_agent(agent: AgentRecord) -> None:
    output.pairs(
        {
            "agent": agent.agent,
            "spiffe_id": agent.spiffe_id,
            "state": agent.state,
            "owner": agent.owner,
            "version": agent.version,
            "manifest": agent.manifest,
            "live": agent.live,
        }
    )
    _section(
        ("MANIFEST", "VERSION", "STATE", "SIGNER", "EXPIRES"),
        agent.details.get("manifests"),
        ("digest", "version", "state", "signer", "expires_at"),
    )
    _section(
        ("INSTANCE", "STATE", "SVID UNTIL", "MANIFEST"),
        agent.details.get("living_instances"),
        ("instance", "state", "expires_at", "manifest"),
    )


def _section(heads: tuple[str, ...], items: object, names: tuple[str, ...]) -> None:
    rows = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    if rows:
        output.line()
        output.table(heads, [[row.get(name) for name in names] for row in rows], empty="none")

"""``accredit daemon``: the host's own daemon, which serves identities to its processes."""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accredit_client.cli import log_lines, options, output
from accredit_client.cli.framework import example, group
from accredit_client.cli.problems import Failed
from accredit_client.effects import utc_now

if TYPE_CHECKING:
    from accredit_client.daemon.running import Daemon
    from accredit_client.daemon.settings import Settings

app = group("The node daemon: identities for the processes of this host.")

ConfigFile = Annotated[
    Path, typer.Option("--config", metavar="FILE", help="Its settings, daemon.toml.")
]


@app.command(epilog=example("accredit daemon run --config /etc/accredit/daemon.toml"))
def run(*, config: ConfigFile, as_json: options.Json = False) -> None:
    """Serve the SPIFFE Workload API on a unix socket until SIGTERM.

    The node attests at the issuer with its join token or certificate, and keeps its identity for
    the next start. Which process may be which agent stands in the settings; each is measured
    before it gets anything, and at each renewal. A line each on stderr says what happens, with
    --json an object each.
    """
    settings = _loaded(config)
    from accredit_client.daemon import running  # noqa: PLC0415 (slow to import)

    log_lines.begin(as_json=as_json)

    def ready(daemon: "Daemon") -> None:
        said = {
            "node": str(daemon.node.spiffe_id),
            "socket": str(settings.socket),
            "agents": len(daemon.entries),
        }
        if as_json:
            print(json.dumps(said), flush=True)  # noqa: T201 (the result)
        else:
            number = len(daemon.entries)
            agents = "1 agent" if number == 1 else f"{number} agents"
            line = f"{said['node']} serves {agents} at {said['socket']}"
            print(output.shown(line), flush=True)  # noqa: T201 (the same)

    asyncio.run(running.run(running.Daemon(settings), ready))


@app.command(epilog=example("accredit daemon check --config /etc/accredit/daemon.toml"))
def check(*, config: ConfigFile, as_json: options.Json = False) -> None:
    """Read the settings and the manifests that they name, and say what they mean.

    Asks nobody. Fails where the daemon would not start, where a manifest is over, and where this
    host lacks what an entry needs: run it as the daemon's user.
    """
    settings = _loaded(config)
    from accredit_client.daemon.agents import load_entries  # noqa: PLC0415 (as above)
    from accredit_client.daemon.readiness import faults_of  # noqa: PLC0415 (as above)

    entries, now = load_entries(settings.agents), utc_now()
    faults = faults_of(settings, entries, now)
    if as_json:
        agents = [
            {
                "agent": each.agent,
                "manifest": each.manifest,
                "code": each.code,
                "code_root": each.code_root,
                "selectors": sorted(each.requesters or each.selectors),
                "command": None if each.launch is None else list(each.launch.command),
                "hint": each.hint,
                "expires_at": each.expires_at,
            }
            for each in entries
        ]
        output.document({"node": settings.node.name, "agents": agents, "faults": faults})
    else:
        output.table(
            ("agent", "code root", "selectors", "started by", "manifest until"),
            [
                (
                    each.agent,
                    each.code_root,
                    sorted(each.requesters or each.selectors),
                    "itself" if each.launch is None else str(each.launch),
                    each.expires_at,
                )
                for each in entries
            ],
            empty="no agent may run here",
        )
        for fault in faults:
            output.note(fault)
    if faults:
        raise Failed(f"not everything is in its place: {faults[0]}")


def _loaded(config: Path) -> "Settings":
    try:
        from accredit_client.daemon import server  # noqa: F401, PLC0415 (is it installed?)
        from accredit_client.daemon.settings import load  # noqa: PLC0415 (slow to import)
    except ImportError as error:
        raise Failed(
            f"the daemon's libraries are not installed ({error.name})",
            hint="install accredit with its extra 'daemon'",
        ) from error
    return load(config)

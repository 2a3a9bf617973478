"""``accredit node``: hosts with a node daemon, and how far each may go.

A node is listed before it attests: with the namespaces whose agents it may run, and the evidence by
which it shows which host it is. docs/nodes.md says what follows.
"""

from pathlib import Path
from typing import Annotated

import typer

from accredit_client import calls
from accredit_client.answers import NodeJoinTokenAnswer, NodeRecord
from accredit_client.cli import options, output, session
from accredit_client.cli.framework import example, group
from accredit_client.cli.local_files import PRIVATE, read_text, write_new
from accredit_client.cli.problems import WrongUsage
from accredit_client.effects import utc_now

app = group("Hosts with a node daemon.")

JOIN_TOKEN = "join_token"  # noqa: S105 (a kind of evidence)
X509POP = "x509pop"

Name = Annotated[str, typer.Argument(metavar="NODE", help="The node's name.")]
Namespaces = Annotated[
    str, typer.Option(metavar="NS,NS", help="Whose agents it may run, separated by commas.")
]
Ttl = Annotated[
    int, typer.Option("--ttl", metavar="SECONDS", min=1, help="How long the token lives.")
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the token there, mode 0600.")
]


@app.command(
    epilog=example(
        "accredit node add build-7 --namespaces support --out join-token",
        "accredit node add build-8 --namespaces support,search --ca site-ca.pem \\",
        "    --certificate dns:build-8.site.example",
    )
)
def add(
    name: Name,
    *,
    namespaces: Namespaces,
    ca: Annotated[
        Path | None,
        typer.Option("--ca", metavar="FILE", help="The site's CA, PEM: the node has its key."),
    ] = None,
    certificate: Annotated[
        str | None,
        typer.Option(
            "--certificate",
            metavar="RULE",
            help="Which certificate of it: dns:…, uri:…, subject:… or key:sha256:….",
        ),
    ] = None,
    ttl: Ttl = 600,
    out: Out = None,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """List a node. It attests by a join token, which is made with it, or by a certificate.

    With --ca and --certificate it attests by that certificate's key, and there is no token.
    """
    if (ca is None) != (certificate is None):
        raise WrongUsage("--ca and --certificate go together")
    if ca is not None and out is not None:
        raise WrongUsage("--out is for a join token, and with --ca there is none")
    call = calls.add_node(
        name,
        attestation=JOIN_TOKEN if ca is None else X509POP,
        namespaces=_split(namespaces),
        ca=None if ca is None else read_text(ca, "CA certificate"),
        certificate=certificate,
    )
    with session.open_issuer(profile) as issuer:
        listed = issuer.send(call)
        if ca is not None:
            _print_one(listed, as_json=as_json)
            return
        made = issuer.send(calls.node_join_token(name, ttl_seconds=ttl))
    _print_token(made, out, as_json=as_json)


@app.command(epilog=example("accredit node token build-7 --out join-token"))
def token(
    name: Name,
    ttl: Ttl = 600,
    out: Out = None,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Make another join token for a node, which admits it once."""
    made = session.ask(profile, calls.node_join_token(name, ttl_seconds=ttl))
    _print_token(made, out, as_json=as_json)


@app.command("list", epilog=example("accredit node list", "accredit node list --json"))
def list_nodes(
    profile: options.Profile = options.DEFAULT_PROFILE, as_json: options.Json = False
) -> None:
    """List the nodes, what they may run and what runs there."""
    found = session.ask(profile, calls.nodes())
    if as_json:
        output.document(found)
        return
    output.table(
        ("NODE", "STATE", "NAMESPACES", "ATTESTS BY", "SVID UNTIL", "LIVE"),
        [
            (
                each.name,
                each.state,
                ", ".join(each.namespaces),
                each.attestation,
                each.svid_expires_at,
                each.instances,
            )
            for each in found
        ],
        empty="no nodes; list one with: accredit node add NODE --namespaces NS",
    )


@app.command(epilog=example("accredit node show build-7"))
def show(
    name: Name,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Show one node."""
    _print_one(session.ask(profile, calls.node(name)), as_json=as_json)


@app.command(epilog=example("accredit node change build-7 --namespaces support,search"))
def change(
    name: Name,
    namespaces: Namespaces,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Say anew whose agents it may run; what runs there of others is renewed no more."""
    call = calls.change_node(name, namespaces=_split(namespaces))
    _print_one(session.ask(profile, call), as_json=as_json)


@app.command(epilog=example("accredit node remove build-7"))
def remove(name: Name, profile: options.Profile = options.DEFAULT_PROFILE) -> None:
    """End a node and all that runs there. Its name can be listed again.

    To end the name too: accredit revoke node NODE.
    """
    session.ask(profile, calls.remove_node(name))
    output.line(f"node {name} removed; its SVIDs and those of what ran there are revoked")


def _split(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _print_token(made: NodeJoinTokenAnswer, out: Path | None, *, as_json: bool) -> None:
    if out is not None:
        write_new(out, f"{made.token}\n".encode(), PRIVATE)
    if as_json:
        shown = {"file": out} if out else {"token": made.token}
        output.document({"id": made.id, "node": made.node, "expires_at": made.expires_at, **shown})
        return
    output.line(out or made.token)
    output.note(f"admits the node {made.node} once, {output.until(made.expires_at, utc_now())}")


def _print_one(node: NodeRecord, *, as_json: bool) -> None:
    if as_json:
        output.document(node)
        return
    output.pairs(
        {
            "node": node.name,
            "spiffe_id": node.spiffe_id,
            "state": node.state,
            "namespaces": ", ".join(node.namespaces),
            "attests_by": node.attestation,
            "certificate": node.certificate,
            "svid_until": node.svid_expires_at,
            "live": node.instances,
            "listed": node.created_at,
            "by": node.created_by,
        }
    )

"""``accredit stream``: other products that are told of facts (docs/shared-signals.md)."""

from typing import Annotated

import typer

from accredit_client import calls
from accredit_client.answers import StreamRecord
from accredit_client.cli import options, output, session
from accredit_client.cli.framework import example, group
from accredit_client.cli.problems import WrongUsage
from accredit_credentials.federation import check_https_url
from accredit_credentials.spiffe_id import SpiffeId

app = group("Other products that are told what is revoked.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The stream's name.")]


@app.command(
    epilog=example(
        "accredit stream add siem --audience https://siem.example.org \\",
        "    --push https://siem.example.org/events",
        "accredit stream add soar --audience https://soar.example.org \\",
        "    --receiver spiffe://example.org/ns/security/agent/soar",
    )
)
def add(
    name: Name,
    *,
    audience: Annotated[
        str, typer.Option(metavar="AUD", help="Whom the events are for, as it calls itself.")
    ],
    push: Annotated[
        str | None, typer.Option("--push", metavar="URL", help="Where to post each event.")
    ] = None,
    receiver: Annotated[
        str | None, typer.Option("--receiver", metavar="ID", help="Who polls, by its SVID.")
    ] = None,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Tell another product of facts: signed events, posted to it or polled by it.

    It begins with all facts that have not expired.
    """
    if (push is None) == (receiver is None):
        raise WrongUsage("say where to push with --push, or who polls with --receiver")
    if push is not None:
        check_https_url(push, "--push")
    call = calls.add_stream(
        name,
        audience=audience,
        endpoint_url=push,
        receiver=None if receiver is None else SpiffeId.parse(receiver),
    )
    _print_one(session.ask(profile, call), as_json=as_json)


@app.command("list", epilog=example("accredit stream list", "accredit stream list --json"))
def list_streams(
    profile: options.Profile = options.DEFAULT_PROFILE, as_json: options.Json = False
) -> None:
    """List who is told of facts, what waits for each, and what went wrong last."""
    found = session.ask(profile, calls.streams())
    if as_json:
        output.document(found)
        return
    output.table(
        ("STREAM", "STATE", "WAITING", "ACCEPTED", "RECEIVER", "FAILURE"),
        [
            (
                each.name,
                each.state,
                each.waiting,
                each.accepted_at and output.moment(each.accepted_at),
                each.receiver or each.endpoint_url,
                each.failure,
            )
            for each in found
        ],
        empty="no streams of security events",
    )


@app.command(epilog=example("accredit stream verify siem"))
def verify(
    name: Name,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Send an event that shows that a stream works.

    ``accredit stream list`` shows when the receiver last accepted something.
    """
    _print_one(session.ask(profile, calls.verify_stream(name)), as_json=as_json)


@app.command(epilog=example("accredit stream remove siem"))
def remove(name: Name, profile: options.Profile = options.DEFAULT_PROFILE) -> None:
    """Tell a receiver nothing more, not even what waits for it."""
    session.ask(profile, calls.remove_stream(name))
    output.line(f"stream {name} removed")


def _print_one(stream: StreamRecord, *, as_json: bool) -> None:
    if as_json:
        output.document(stream)
        return
    output.pairs({name: getattr(stream, name) for name in stream.__slots__})

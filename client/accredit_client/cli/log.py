"""``accredit log``: the issuer's tamper-evident log, read and verified."""

import base64
import time
from collections.abc import Iterator
from typing import Annotated

import typer

from accredit_client import calls
from accredit_client.answers import LogPage
from accredit_client.cli import log_proofs, options, output
from accredit_client.cli.framework import example, group
from accredit_client.cli.log_proofs import Record, Replay
from accredit_client.cli.problems import Failed, WrongUsage
from accredit_client.cli.profile import verified_checkpoint
from accredit_client.cli.session import Session, open_session
from accredit_credentials.checkpoint import Checkpoint
from accredit_credentials.tiles import Tile

app = group("Read, verify and explain the issuer's log.")

PAGE = 256  # entries of one call: what fits into an answer, even where they are long
POLL = 1.0  # seconds between looks for new entries

_TITLES = {
    "signer.added": "signer added",
    "manifest.registered": "manifest registered",
    "agent.enrolled": "agent enrolled",
    "instance.attested": "instance attested",
    "credential.issued": "credential issued",
    "admin.invited": "admin invited",
    "admin.enrolled": "admin enrolled",
    "request.refused": "request refused",
}
_IN_ONE_LINE = ("fact", "problem", "credential", "role", "version", "scope", "purpose", "reason")


@app.command(epilog=example("accredit log tail -n 50", "accredit log tail --follow"))
def tail(
    number: Annotated[
        int, typer.Option("-n", "--number", metavar="N", min=1, help="How many entries.")
    ] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new entries as they come.")
    ] = False,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Print the newest entries, one line each."""
    if follow and as_json:
        raise WrongUsage("--json prints one document, and --follow never ends: use one of them")
    with open_session(profile) as session:
        size = _signed_checkpoint(session)[0].size
        start = max(0, size - number)
        records = list(_records(session, start, size))
        if as_json:
            output.document(records)
            return
        for record in records:
            _print_line(record)
        while follow:
            time.sleep(POLL)
            for record in _records(session, size, None):
                _print_line(record)
                size = record.index + 1


@app.command(epilog=example("accredit log verify"))
def verify(
    profile: options.Profile = options.DEFAULT_PROFILE, as_json: options.Json = False
) -> None:
    """Fetch the whole log and add it up again.

    Checks that its entries lead to the checkpoint that the pinned key signed, and that it still
    begins with everything that this machine has seen of it.
    """
    with open_session(profile) as session:
        checkpoint, text = _signed_checkpoint(session)
        seen = session.profile.seen_checkpoint()
        replay = Replay(checkpoint, seen)
        with output.progress("verifying the log", checkpoint.size) as advance:
            for page in _pages(session, 0, checkpoint.size):
                replay.add(page.entries)
                advance(len(page.entries))
        replay.finish()
        session.profile.see(text)
    result = {
        "log": checkpoint.origin,
        "entries": checkpoint.size,
        "root": base64.b64encode(checkpoint.root).decode(),
        "seen_before": seen.size if seen else None,
    }
    if as_json:
        output.document(result)
        return
    output.line("PASS  every entry leads to the signed checkpoint")
    output.pairs(result)


@app.command(
    epilog=example("accredit log explain 5a1f0c9e-…", "accredit log explain 1f3c9a… --json")
)
def explain(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="A jti, serial or instance.")],
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Tell why a credential was allowed, from records that are proved to be in the log.

    Every inclusion proof is verified here, against a checkpoint that the pinned key signed and that
    continues the last one seen.
    """
    with open_session(profile) as session:
        explanation = session.issuer.send(calls.log_explain(identifier))
        checkpoint = verified_checkpoint(explanation.checkpoint, session.profile.log_key())
        if explanation.id != identifier:
            raise Failed(f"the issuer explained {explanation.id!r} instead of {identifier!r}")
        records = log_proofs.proved_records(explanation, checkpoint)
        _check_continues(session, checkpoint)
        session.profile.see(explanation.checkpoint)
    if as_json:
        output.document({"id": identifier, "log_size": checkpoint.size, "records": records})
        return
    for record in records:
        _print_story(record)
    output.note(
        f"{len(records)} records, each proved to be in the log of {checkpoint.size} entries"
    )


def _signed_checkpoint(session: Session) -> tuple[Checkpoint, str]:
    text = session.issuer.send(calls.log_checkpoint())
    return verified_checkpoint(text, session.profile.log_key()), text


def _check_continues(session: Session, checkpoint: Checkpoint) -> None:
    def fetch(tile: Tile) -> bytes:
        _, level, path = tile.path.split("/", 2)
        return session.issuer.send(calls.log_tile(level, path))

    seen = session.profile.seen_checkpoint()
    log_proofs.check_continues(seen, checkpoint, log_proofs.tile_nodes(fetch, checkpoint.size))


def _pages(session: Session, start: int, end: int | None) -> Iterator[LogPage]:
    """Pages of entries from ``start`` up to ``end``, or as far as there are any."""
    while end is None or start < end:
        limit = PAGE if end is None else min(PAGE, end - start)
        page = session.issuer.send(calls.log_entries(start=start, limit=limit))
        if not page.entries:
            return
        yield page
        start += len(page.entries)


def _records(session: Session, start: int, end: int | None) -> Iterator[Record]:
    for page in _pages(session, start, end):
        for entry in page.entries:
            yield Record.of_leaf(entry.index, entry.leaf)


def _print_line(record: Record) -> None:
    said = "  ".join(
        f"{name}={output.shown(record.details[name])}"
        for name in _IN_ONE_LINE
        if record.details.get(name) is not None
    )
    output.line(
        f"{record.index:>6}  {record.at}  {record.kind:<20}  {record.subject}  "
        f"by {record.actor}  {said}".rstrip()
    )


def _print_story(record: Record) -> None:
    title = _TITLES.get(record.kind, record.kind)
    if record.kind == "fact.stated":
        title = str(record.details.get("fact", title))
    output.line(f"{title}: {record.subject}")
    output.pairs(
        {
            "at": record.at,
            "by": record.actor,
            **record.details,
            "entry": record.index,
        },
        indent="  ",
    )
    output.line()

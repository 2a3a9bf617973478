"""``accredit-issuer authority``: the keys that sign, looked at beside a running issuer.

Opens the database for reading only. To change something: ``accredit authority`` of an admin.
"""

import json
import shutil
import sys
from typing import Annotated

import typer

from accredit_issuer.cli.options import DEFAULT_CONFIG, AsJson, ConfigFile
from accredit_issuer.clock import system_clock
from accredit_issuer.settings import load

app = typer.Typer(
    help="The keys that sign.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    """Stay a group with one command."""


@app.command(epilog="Example: accredit-issuer authority show --config issuer.toml")
def show(
    config: ConfigFile = DEFAULT_CONFIG,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Show removed ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Draw the life of every key: what was, and what is planned. Changes nothing."""
    from accredit_issuer.authority import overview  # noqa: PLC0415 (slow to import)
    from accredit_issuer.authority.planning import rules_of  # noqa: PLC0415
    from accredit_issuer.authority.rows import sequence_of  # noqa: PLC0415
    from accredit_issuer.cli.timeline import ASCII, BLOCKS, WIDTH, draw  # noqa: PLC0415
    from accredit_issuer.data_folder import check_present  # noqa: PLC0415
    from accredit_issuer.store.database import Database  # noqa: PLC0415

    settings = load(config)
    check_present(settings)
    now = system_clock()
    database = Database(settings.database)
    try:
        with database.read() as connection:
            known = overview.read(connection)
            bundle = sequence_of(connection)
    finally:
        database.close()
    shown = overview.view(known, known, rules_of(settings), now)
    if as_json:
        print(json.dumps({"bundle_sequence": bundle, "authorities": shown}, indent=2))  # noqa: T201
        return
    columns = shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH
    characters = BLOCKS if BLOCKS.fit(sys.stdout.encoding or "ascii") else ASCII
    print(f"{settings.trust_domain}, bundle {bundle}, {now:%Y-%m-%d %H:%M} UTC\n")  # noqa: T201
    if not everything:
        shown = [each for each in shown if each["state"] != "removed"]
    for line in draw(shown, now, width=columns, characters=characters):
        print(line)  # noqa: T201

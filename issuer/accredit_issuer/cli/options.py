"""Options that several commands share, spelled once."""

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path, typer.Option("--config", "-c", help="The settings.", envvar="ACCREDIT_ISSUER_CONFIG")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
DEFAULT_CONFIG = Path("issuer.toml")

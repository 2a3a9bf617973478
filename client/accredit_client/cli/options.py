"""Options that several commands share, spelled once."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]

Profile = Annotated[
    str,
    typer.Option(
        "--profile", envvar="ACCREDIT_PROFILE", metavar="NAME", help="Which login to use."
    ),
]

Url = Annotated[
    str, typer.Option("--url", metavar="URL", help="The issuer, as https://host[:port].")
]

Trust = Annotated[
    str,
    typer.Option(
        "--trust",
        metavar="BUNDLE",
        help="Trust bundle file, or sha256:… of the issuer's root certificate.",
    ),
]

ManifestFile = Annotated[
    Path, typer.Option("--manifest", metavar="FILE", help="The signed manifest.")
]

CodeRoot = Annotated[
    Path, typer.Option("--code-root", metavar="DIR", help="Where the agent's code runs from.")
]

JoinTokenFile = Annotated[
    Path,
    typer.Option(
        "--join-token-file", metavar="FILE", help="File with the join token, of mode 0600."
    ),
]

Folder = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        envvar="ACCREDIT_FOLDER",
        metavar="DIR",
        help="Folder with the credentials; accredit run sets it.",
    ),
]

DEFAULT_PROFILE = "default"

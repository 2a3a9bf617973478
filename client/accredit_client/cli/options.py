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

AttestUrl = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="To attest: the issuer, as https://host[:port]."),
]

AttestTrust = Annotated[
    str | None,
    typer.Option(
        "--trust",
        metavar="BUNDLE",
        help="To attest: trust bundle file, or sha256:… of the issuer's root certificate.",
    ),
]

AttestManifest = Annotated[
    Path | None,
    typer.Option("--manifest", metavar="FILE", help="To attest: the signed manifest."),
]

AttestCodeRoot = Annotated[
    Path | None,
    typer.Option("--code-root", metavar="DIR", help="To attest: where the agent's code runs from."),
]

AttestJoinTokenFile = Annotated[
    Path | None,
    typer.Option(
        "--join-token-file",
        metavar="FILE",
        help="To attest: file with the join token, of mode 0600.",
    ),
]

Socket = Annotated[
    str | None,
    typer.Option(
        "--socket",
        metavar="PATH",
        help="Or the node daemon's socket; by default what SPIFFE_ENDPOINT_SOCKET names.",
    ),
]

Identity = Annotated[
    str | None,
    typer.Option(
        "--id", metavar="SPIFFE-ID", help="Which one, where the daemon gives this process several."
    ),
]

Folder = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        metavar="DIR",
        help="Folder with the credentials; by default what ACCREDIT_FOLDER names.",
    ),
]

DEFAULT_PROFILE = "default"

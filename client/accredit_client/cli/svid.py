"""``accredit svid``: obtain an X.509-SVID once, keep one in files, and look at one."""

import os
from pathlib import Path
from typing import Annotated

import typer

from accredit_client.cli import options, output, svid_watch
from accredit_client.cli.framework import example, group
from accredit_client.cli.local_files import private_folder, read_text
from accredit_client.cli.source import attesting_or_daemon, identity_of
from accredit_client.effects import utc_now
from accredit_client.files import FolderContent, write_folder
from accredit_credentials.x509_svid import X509Svid, authority_key_id, parse_pem

app = group("Obtain and show X.509-SVIDs.")

SVID_FILE = "svid.pem"


@app.command(
    epilog=example(
        "accredit svid fetch --url https://issuer:8443 --trust bundle.json \\",
        "  --manifest agent.manifest.json --code-root . --join-token-file join-token --out id",
        "accredit svid fetch --socket /run/accredit/agent.sock --out id",
    )
)
def fetch(
    *,
    url: options.AttestUrl = None,
    trust: options.AttestTrust = None,
    manifest: options.AttestManifest = None,
    code_root: options.AttestCodeRoot = None,
    join_token_file: options.AttestJoinTokenFile = None,
    socket: options.Socket = None,
    spiffe_id: options.Identity = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Private folder for the credentials.")
    ],
    as_json: options.Json = False,
) -> None:
    """Attest once, or ask the node daemon, and write svid.pem, svid_key.pem and bundle.pem.

    Nothing renews them afterwards: accredit run and accredit svid watch do.
    """
    source = attesting_or_daemon(
        url=url,
        trust=trust,
        manifest=manifest,
        code_root=code_root,
        join_token_file=join_token_file,
        socket=socket,
        spiffe_id=spiffe_id,
        environment=os.environ,
    )
    with (
        private_folder(out),  # before the join token is spent
        identity_of(source, patience=0.0) as identity,
    ):
        held = identity.x509
        write_folder(out, FolderContent(url, identity.bundle, held))
    if as_json:
        output.document({"folder": out, **_facts(held.svid)})
        return
    output.pairs({"folder": out, **_facts(held.svid)})
    output.note(f"valid until {output.until(held.svid.not_after, utc_now())}")


app.command(
    epilog=example(
        "accredit svid watch --url https://issuer:8443 --trust bundle.json \\",
        "  --manifest agent.manifest.json --code-root . --join-token-file join-token \\",
        "  --out /run/nginx-id --signal HUP --pid-file /run/nginx.pid",
        "accredit svid watch --socket /run/accredit/agent.sock --out /run/nginx-id",
    )
)(svid_watch.watch)


@app.command(epilog=example("accredit svid show id/svid.pem"))
def show(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="PEM, leaf first; a folder; or - for stdin.")
    ],
    as_json: options.Json = False,
) -> None:
    """Show what an SVID says, without checking who signed it."""
    svid = parse_pem(read_text(file / SVID_FILE if file.is_dir() else file, "SVID"))
    if as_json:
        output.document(_facts(svid))
        return
    output.pairs(_facts(svid))
    output.note("nothing was checked: accredit verify svid does")


def _facts(svid: X509Svid) -> dict[str, object]:
    return {
        "spiffe_id": svid.spiffe_id,
        "instance": svid.instance,
        "manifest": svid.manifest,
        "serial": svid.serial,
        "authority": authority_key_id(svid.leaf),
        "not_before": svid.not_before,
        "not_after": svid.not_after,
    }

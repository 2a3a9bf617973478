"""``accredit signer``: the keys that sign manifests, and what they may speak for."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from accredit_attestors.manifest import (
    generate_signer_key,
    load_signer_public_key,
    public_key_pem,
    save_signer_private_key,
)
from accredit_client import calls
from accredit_client.cli import options, output, session
from accredit_client.cli.framework import example, group
from accredit_client.cli.local_files import PUBLIC, read_text, write_new
from accredit_credentials.keys import generate_key, public_key_digest

app = group("Keys that sign manifests.")


class KeyType(StrEnum):
    """Kinds of signing key."""

    ED25519 = "ed25519"
    P256 = "p256"


@app.command(epilog=example("accredit signer keygen --out signer.key"))
def keygen(
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help="Private key; the public one is FILE.pub."),
    ],
    kind: Annotated[KeyType, typer.Option("--type", help="Kind of key.")] = KeyType.ED25519,
) -> None:
    """Make a signing key.

    The private key is written for its owner alone (mode 0600), and never over an existing file.
    """
    key = generate_signer_key() if kind is KeyType.ED25519 else generate_key()
    public_file = out.with_name(f"{out.name}.pub")
    # The public key first: if it cannot be written, no private key is left behind.
    write_new(public_file, public_key_pem(key.public_key()), PUBLIC)
    try:
        save_signer_private_key(out, key)
    except BaseException:
        public_file.unlink()
        raise
    output.pairs(
        {
            "private key": out,
            "public key": public_file,
            "key id": public_key_digest(key.public_key()),
        }
    )


@app.command(
    epilog=example(
        "accredit signer add ci --key signer.key.pub --namespace support --namespace payments"
    )
)
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="Public key in PEM.")],
    namespace: Annotated[
        list[str], typer.Option("--namespace", metavar="NS", help="May sign for it; repeatable.")
    ],
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Let a key sign manifests of namespaces ('*' for all)."""
    pem = read_text(key, "public key")
    load_signer_public_key(pem.encode())  # refused here rather than sent: it may be a private key
    added = session.ask(profile, calls.add_signer(name=name, public_key=pem, namespaces=namespace))
    if as_json:
        output.document(added)
    else:
        output.line(f"signer {added.name} may sign for {output.shown(added.namespaces)}")


@app.command("list", epilog=example("accredit signer list"))
def list_signers(
    profile: options.Profile = options.DEFAULT_PROFILE, as_json: options.Json = False
) -> None:
    """List the signers."""
    found = session.ask(profile, calls.signers())
    if as_json:
        output.document(found)
        return
    output.table(
        ("NAME", "NAMESPACES", "STATE", "ADDED", "KEY ID"),
        [(each.name, each.namespaces, each.state, each.created_at, each.key_id) for each in found],
        empty="no signers",
    )

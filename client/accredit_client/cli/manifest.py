"""``accredit manifest``: write, sign, check and register what an agent is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from accredit_attestors import agent_file
from accredit_attestors.dsse import Envelope
from accredit_attestors.errors import CodeMismatch
from accredit_attestors.manifest import (
    Manifest,
    Signer,
    load_signer_private_key,
    load_signer_public_key,
    manifest_digest,
    unverified_manifest,
)
from accredit_attestors.manifest import sign as sign_manifest
from accredit_attestors.manifest import verify as verify_manifest
from accredit_attestors.signing import EVERY_NAMESPACE
from accredit_attestors.tree import MANIFEST_FILE_NAME, measure
from accredit_client import calls
from accredit_client.answers import ManifestRecord
from accredit_client.cli import options, output, session
from accredit_client.cli.framework import example, group
from accredit_client.cli.local_files import PUBLIC, read_secret, read_text, replace, write_new
from accredit_client.effects import utc_now
from accredit_credentials.spiffe_id import AgentId

app = group("Write, sign, check and register manifests.")

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Where agent.toml is.")]
ManifestFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="A signed manifest; - reads stdin.")
]
HERE = Path()


@app.command(epilog=example("accredit manifest init", "accredit manifest init agents/summarizer"))
def init(directory: Directory = HERE) -> None:
    """Write agent.toml, to be filled in."""
    file = directory / agent_file.FILE_NAME
    write_new(file, agent_file.TEMPLATE.encode(), PUBLIC)
    output.line(file)
    output.note("fill it in, then: accredit manifest sign --key FILE")


@app.command(epilog=example("accredit manifest sign --key signer.key"))
def sign(
    key: Annotated[
        Path, typer.Option("--key", metavar="FILE", help="The signer's private key; - reads stdin.")
    ],
    directory: Directory = HERE,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help=f"Instead of DIR/{MANIFEST_FILE_NAME}."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Measure the code and sign what agent.toml says."""
    private_key = load_signer_private_key(read_secret(key, "signer's private key"))
    made = agent_file.load(directory / agent_file.FILE_NAME).manifest(utc_now())
    envelope = sign_manifest(made, private_key)
    file = out or directory / MANIFEST_FILE_NAME
    replace(file, envelope, PUBLIC)
    digest = _digest_of(envelope)
    if as_json:
        output.document({"file": file, "digest": digest, **_document(made)})
        return
    output.pairs(
        {
            "manifest": file,
            "digest": digest,
            "agent": f"{made.agent}@{made.version}",
            "code": made.code.digest,
            "expires": output.until(made.expires_at, utc_now()),
        }
    )


@app.command(
    epilog=example(
        "accredit manifest verify agent.manifest.json --signer signer.key.pub",
        "accredit manifest verify agent.manifest.json --signer signer.key.pub --code-root .",
    )
)
def verify(
    file: ManifestFile,
    signer: Annotated[
        Path, typer.Option("--signer", metavar="FILE", help="The public key to expect.")
    ],
    namespace: Annotated[
        list[str] | None,
        typer.Option("--namespace", metavar="NS", help="Signer speaks only for it; repeatable."),
    ] = None,
    code_root: Annotated[
        Path | None,
        typer.Option("--code-root", metavar="DIR", help="Measure this tree and compare."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Check a manifest offline: signature, dates and, where asked, that the code is what it says.

    Whether it is registered or revoked only the issuer knows.
    """
    public_key = load_signer_public_key(read_text(signer, "public key").encode())
    trusted = Signer("signer", public_key, tuple(namespace or [EVERY_NAMESPACE]))
    verified = verify_manifest(
        read_text(file, "manifest").encode(), signers=[trusted], now=utc_now()
    )
    if code_root is not None:
        _check_code(verified.manifest, code_root)
    if as_json:
        measured = code_root is not None
        document = _document(verified.manifest)
        output.document({"digest": verified.digest, "code_measured": measured, **document})
        return
    _print_manifest(verified.manifest, verified.digest)
    code = f"{code_root} measures the same" if code_root else "the code was not measured"
    output.line(f"PASS  signature, signer and dates; {code}")


@app.command(epilog=example("accredit manifest register agent.manifest.json"))
def register(
    file: ManifestFile = Path(MANIFEST_FILE_NAME),
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Register a signed manifest at the issuer."""
    envelope = read_text(file, "manifest")
    registered = session.ask(profile, calls.register_manifest(envelope=envelope))
    if as_json:
        output.document(registered)
    else:
        _print_record(registered)


@app.command(
    "list",
    epilog=example("accredit manifest list", "accredit manifest list --agent support/summarizer"),
)
def list_manifests(
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="NS/NAME", help="Of this agent only.")
    ] = None,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """List the registered manifests."""
    only = None if agent is None else AgentId.parse(agent)
    found = session.ask(profile, calls.manifests(agent=only))
    if as_json:
        output.document(found)
        return
    output.table(
        ("AGENT", "VERSION", "STATE", "SIGNER", "EXPIRES", "DIGEST"),
        [(m.agent, m.version, m.state, m.signer, m.expires_at, m.digest) for m in found],
        empty="no manifests",
    )


@app.command(
    epilog=example(
        "accredit manifest show agent.manifest.json", "accredit manifest show sha256:9f86d0…"
    )
)
def show(
    which: Annotated[
        str, typer.Argument(metavar="DIGEST_OR_FILE", help="sha256:… asks the issuer.")
    ],
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Show a registered manifest, or what a file says (without checking its signature)."""
    if which.startswith("sha256:"):
        registered = session.ask(profile, calls.manifest(which))
        if as_json:
            output.document(registered)
        else:
            _print_record(registered)
        return
    envelope = read_text(Path(which), "manifest").encode()
    unverified = unverified_manifest(envelope)
    if as_json:
        output.document({"digest": _digest_of(envelope), **_document(unverified)})
        return
    _print_manifest(unverified, _digest_of(envelope))
    output.note("nothing was checked: accredit manifest verify does")


def _check_code(manifest: Manifest, root: Path) -> None:
    measured = measure(root, manifest.code.selection).digest
    if measured != manifest.code.digest:
        raise CodeMismatch(
            f"{root} measures {measured}, the manifest declares {manifest.code.digest}",
            hint="the files differ from what was signed: sign a manifest for them",
        )


def _digest_of(envelope: bytes) -> str:
    return manifest_digest(Envelope.parse(envelope).unverified_payload)


def _document(manifest: Manifest) -> dict[str, object]:
    return {
        "agent": manifest.agent,
        "version": manifest.version,
        "owner": manifest.owner,
        "purpose": manifest.purpose,
        "assurance": manifest.assurance,
        "code": manifest.code.digest,
        "resources": [
            {
                "name": each.name,
                "audience": each.audience,
                "actions": {action.name: action.risk for action in each.actions},
            }
            for each in manifest.resources
        ],
        "issued_at": manifest.issued_at,
        "expires_at": manifest.expires_at,
    }


def _print_manifest(manifest: Manifest, digest: str) -> None:
    output.pairs(
        {
            "digest": digest,
            "agent": f"{manifest.agent}@{manifest.version}",
            "owner": manifest.owner,
            "purpose": manifest.purpose,
            "assurance": manifest.assurance,
            "code": manifest.code.digest,
            "resources": [
                _resource(each.name, {a.name: str(a.risk) for a in each.actions}, each.audience)
                for each in manifest.resources
            ],
            "expires": output.until(manifest.expires_at, utc_now()),
        }
    )


def _print_record(record: ManifestRecord) -> None:
    output.pairs(
        {
            "digest": record.digest,
            "agent": f"{record.agent}@{record.version}",
            "state": record.state,
            "owner": record.owner,
            "purpose": record.purpose,
            "signer": record.signer,
            "assurance": record.assurance,
            "resources": [
                _resource(each.name, each.actions, each.audience) for each in record.resources
            ],
            "registered": record.registered_at,
            "expires": output.until(record.expires_at, utc_now()),
        }
    )


def _resource(name: str, actions: Mapping[str, str], audience: str) -> str:
    risks = ", ".join(f"{action} ({risk})" for action, risk in actions.items())
    return f"{name}: {risks} at {audience}"

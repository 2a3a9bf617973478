"""``accredit token``: task tokens, for programs that cannot ask for their own.

A token is bound to a key that whoever presents it must have. From a folder that is the folder's.
What the node daemon gives this process ends with it, and nobody has its key afterwards: such a
token is bound to a key of the program's own (``--dpop-key``), or to none.
"""

import os
from pathlib import Path
from typing import Annotated

import typer
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from accredit_client.calls import TaskTokenRequest
from accredit_client.cli import options, output
from accredit_client.cli.framework import example, group
from accredit_client.cli.local_files import read_text
from accredit_client.cli.problems import Failed, WrongUsage
from accredit_client.cli.source import FromDaemon, FromFolder, folder_or_daemon, identity_of
from accredit_client.effects import utc_now
from accredit_client.task_tokens import TokenBinding
from accredit_credentials.keys import PublicKey, check_public_key, jwk_thumbprint

app = group("Task tokens.")


@app.command(
    epilog=example(
        "accredit token get tickets read --purpose 'summarise ticket 4711'",
        "accredit token get tickets read close --purpose 'close 4711' --principal user:maria",
        "accredit token get tickets read --purpose 'read 4711' --binding dpop \\",
        "  --dpop-key own.pub --socket /run/accredit/agent.sock",
    )
)
def get(
    resource: Annotated[str, typer.Argument(metavar="RESOURCE", help="As the manifest says.")],
    actions: Annotated[list[str], typer.Argument(metavar="ACTION", help="Of that resource.")],
    *,
    purpose: Annotated[
        str, typer.Option("--purpose", metavar="TEXT", help="What the task is for.")
    ],
    principal: Annotated[
        str | None, typer.Option("--principal", metavar="WHO", help="On whose behalf.")
    ] = None,
    binding: Annotated[
        TokenBinding,
        typer.Option("--binding", help="What presents it: the SVID by mTLS, a key by DPoP."),
    ] = TokenBinding.CERTIFICATE,
    dpop_key: Annotated[
        Path | None,
        typer.Option(
            "--dpop-key", metavar="FILE", help="Public key (PEM) for DPoP; else the SVID's."
        ),
    ] = None,
    folder: options.Folder = None,
    socket: options.Socket = None,
    spiffe_id: options.Identity = None,
    as_json: options.Json = False,
) -> None:
    """Ask for a task token and print it, alone, on stdout.

    Uses the credentials that accredit run keeps in ACCREDIT_FOLDER, or what the node daemon gives
    this process. With --binding dpop the token is bound to --dpop-key, or to the key in
    svid_key.pem, as the folder holds it now. The daemon's SVID ends with this command, so that a
    token by it needs --binding dpop with --dpop-key, or bearer.
    """
    source = folder_or_daemon(
        folder=folder, socket=socket, spiffe_id=spiffe_id, environment=os.environ
    )
    _check_binding(source, binding, dpop_key)
    presenter = None if dpop_key is None else _public_key(dpop_key)
    with identity_of(source, patience=0.0) as identity:
        if binding is TokenBinding.DPOP and presenter is None:
            presenter = check_public_key(identity.x509.key.public_key())
        answer = identity.task_token(
            TaskTokenRequest(
                resource=resource,
                actions=tuple(actions),
                purpose=purpose,
                principal=principal,
                binding=binding.value,
                jkt=None if presenter is None else jwk_thumbprint(presenter),
            )
        )
    if as_json:
        output.document(answer)
        return
    output.line(answer.access_token)
    output.note(
        f"{answer.scope} at {answer.audience}, task {answer.task_id}, "
        f"until {output.until(answer.expires_at, utc_now())}"
    )


def _check_binding(
    source: FromFolder | FromDaemon, binding: TokenBinding, dpop_key: Path | None
) -> None:
    """Whether anybody will be able to present the token."""
    if dpop_key is not None and binding is not TokenBinding.DPOP:
        raise WrongUsage("--dpop-key goes with --binding dpop")
    ours = binding is TokenBinding.CERTIFICATE or (
        binding is TokenBinding.DPOP and dpop_key is None
    )
    if isinstance(source, FromDaemon) and ours:
        raise WrongUsage(
            "a token bound to the daemon's SVID is of no use: its key ends with this command",
            hint="--binding dpop --dpop-key FILE binds it to a key of the program's own",
        )


def _public_key(file: Path) -> PublicKey:
    try:
        return check_public_key(load_pem_public_key(read_text(file, "public key").encode()))
    except (ValueError, UnsupportedAlgorithm):
        raise Failed(
            f"{file} must hold a public key in PEM", hint="openssl pkey -in KEY -pubout"
        ) from None

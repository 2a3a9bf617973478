"""``accredit token``: task tokens, for programs that cannot ask for their own."""

from typing import Annotated

import typer

from accredit_client.calls import TaskTokenRequest
from accredit_client.cli import options, output
from accredit_client.cli.framework import example, group
from accredit_client.cli.problems import WrongUsage
from accredit_client.effects import utc_now
from accredit_client.identity import AgentIdentity
from accredit_client.task_tokens import TokenBinding
from accredit_credentials.keys import check_public_key, jwk_thumbprint

app = group("Task tokens.")


@app.command(
    epilog=example(
        "accredit token get tickets read --purpose 'summarise ticket 4711'",
        "accredit token get tickets read close --purpose 'close 4711' --principal user:maria",
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
        typer.Option("--binding", help="What presents it: the SVID by mTLS, its key by DPoP."),
    ] = TokenBinding.CERTIFICATE,
    folder: options.Folder = None,
    as_json: options.Json = False,
) -> None:
    """Ask for a task token and print it, alone, on stdout.

    Uses the credentials that accredit run keeps in ACCREDIT_FOLDER. With --binding dpop the token
    is bound to the key in svid_key.pem, as the folder holds it now.
    """
    if folder is None:
        raise WrongUsage(
            "no credentials: --folder must name their folder",
            hint="start the program with accredit run, which sets ACCREDIT_FOLDER",
        )
    with AgentIdentity.from_folder(folder) as identity:
        public_key = check_public_key(identity.x509.key.public_key())
        answer = identity.task_token(
            TaskTokenRequest(
                resource=resource,
                actions=tuple(actions),
                purpose=purpose,
                principal=principal,
                binding=binding.value,
                jkt=jwk_thumbprint(public_key) if binding is TokenBinding.DPOP else None,
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

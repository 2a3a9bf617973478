"""``accredit verify``: credentials, checked offline with a trust bundle.

Nobody is asked, so nothing is known of revocation: a pass says so.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from accredit_client.cli import options, output
from accredit_client.cli.framework import example, group
from accredit_client.cli.local_files import read_text
from accredit_client.cli.problems import FAILED, Failed
from accredit_client.cli.trust_option import bundle_of
from accredit_client.effects import utc_now
from accredit_credentials import jws, jwt_svid, task_token
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import CredentialError, Untrusted
from accredit_credentials.x509_svid import parse_pem, validate

app = group("Check credentials offline.")

Bundle = Annotated[
    Path, typer.Option("--trust", metavar="BUNDLE", help="Trust bundle file (bundle.json).")
]

_MOMENTS = ("iat", "nbf", "exp")


@app.command(epilog=example("accredit verify svid id/svid.pem --trust bundle.json"))
def svid(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="PEM, leaf first; - for stdin.")],
    trust: Bundle,
    as_json: options.Json = False,
) -> None:
    """Check that an X.509-SVID is valid now."""
    bundle = bundle_of(trust)
    unverified = parse_pem(read_text(file, "SVID"))
    says = {
        "spiffe_id": unverified.spiffe_id,
        "instance": unverified.instance,
        "manifest": unverified.manifest,
        "serial": unverified.serial,
        "not_before": unverified.not_before,
        "not_after": unverified.not_after,
    }
    _judge(
        says,
        lambda: validate(unverified, bundles={bundle.trust_domain: bundle}, now=utc_now()),
        as_json=as_json,
    )


@app.command(
    epilog=example(
        "accredit verify token - --trust bundle.json --audience https://tickets.example.org \\",
        "  --issuer https://issuer.example.org:8443 < token",
    )
)
def token(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The token; - reads stdin.")],
    *,
    trust: Bundle,
    audience: Annotated[str, typer.Option("--audience", metavar="A", help="Whom it must be for.")],
    issuer: Annotated[
        str, typer.Option("--issuer", metavar="URL", help="Who must have issued it.")
    ],
    as_json: options.Json = False,
) -> None:
    """Check that a task token or a JWT-SVID is valid now.

    Who presents it is not checked: that takes the connection or the DPoP proof it came with.
    """
    bundle = bundle_of(trust)
    if not bundle.jwt_authorities:
        raise Failed(
            f"trust bundle {trust} has no JWT authorities",
            hint="take the SPIFFE bundle document (bundle.json), not the roots in PEM",
        )
    text = read_text(file, "token").strip()
    unverified = jws.parse(text, types=task_token.TYPES | jwt_svid.TYPES)
    check = _check_task_token if unverified.header.get("typ") == "at+jwt" else _check_jwt_svid
    _judge(
        _readable(unverified.claims),
        lambda: check(text, bundle, audience=audience, issuer=issuer),
        as_json=as_json,
    )


def _check_task_token(text: str, bundle: TrustBundle, *, audience: str, issuer: str) -> None:
    task_token.verify(text, bundle=bundle, issuer=issuer, audience=audience, now=utc_now())


def _check_jwt_svid(text: str, bundle: TrustBundle, *, audience: str, issuer: str) -> None:
    verified = jwt_svid.validate(
        text, bundles={bundle.trust_domain: bundle}, audience=audience, now=utc_now()
    )
    if verified.issuer != issuer:
        raise Untrusted(f"token must be of the issuer {issuer}")


def _judge(says: Mapping[str, object], check: Callable[[], object], *, as_json: bool) -> None:
    """Print what a credential says and whether it holds.

    Raises:
        typer.Exit: it does not hold.
    """
    try:
        check()
        refused = None
    except CredentialError as error:
        refused = error
    verdict = "PASS" if refused is None else "FAIL"
    reason = str(refused) if refused else "valid now; revocation was not checked"
    if as_json:
        output.document({"valid": refused is None, "reason": reason, "says": says})
    else:
        output.pairs(says)
        output.line(f"{verdict}  {reason}")
    if refused is not None:
        raise typer.Exit(FAILED)


def _readable(claims: Mapping[str, object]) -> dict[str, object]:
    return {
        name: (
            datetime.fromtimestamp(value, UTC)
            if name in _MOMENTS and isinstance(value, int) and 0 <= value <= jws.MAX_EPOCH
            else value
        )
        for name, value in claims.items()
    }

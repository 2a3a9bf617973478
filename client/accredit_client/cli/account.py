"""``accredit login``, ``whoami`` and ``logout``."""

from pathlib import Path
from typing import Annotated

import typer

from accredit_client import calls
from accredit_client.cli import options, output, session
from accredit_client.cli.framework import example, top_level
from accredit_client.cli.local_files import read_token
from accredit_client.cli.profile import Profile
from accredit_client.cli.trust_option import trust_of
from accredit_client.effects import utc_now

app = top_level()


@app.command(
    epilog=example(
        "accredit login --url https://issuer:8443 --trust bundle.json --token-file token",
        "accredit login --url https://issuer:8443 --trust sha256:9f86d0… --token-file - < token",
    )
)
def login(
    url: options.Url,
    trust: options.Trust,
    token_file: Annotated[
        Path,
        typer.Option("--token-file", metavar="FILE", help="The one-time token; - reads stdin."),
    ],
    profile: options.Profile = options.DEFAULT_PROFILE,
) -> None:
    """Enrol as an admin with a one-time token.

    The token is spent for a short-lived certificate, which later commands use and renew. The key is
    made here and never leaves this machine.
    """
    token = read_token(token_file, "one-time token")
    kept = Profile.named(profile)
    with kept.locked():  # before the token is spent: a folder that cannot be written fails here
        content, log_key = session.enrol(url=url, trust=trust_of(trust), token=token)
        kept.write(content)
        other_log = kept.pin_log_key(log_key)
    svid = content.identity.svid
    output.line(f"logged in to {content.issuer_url} as {svid.spiffe_id}")
    output.note(f"valid until {output.until(svid.not_after, utc_now())}; renewed while it is used")
    if other_log:
        output.note("the log has another key than at the last login: what was seen is forgotten")


@app.command(epilog=example("accredit whoami", "accredit whoami --json | jq -r .role"))
def whoami(
    profile: options.Profile = options.DEFAULT_PROFILE, as_json: options.Json = False
) -> None:
    """Show who the issuer takes you for."""
    with session.open_session(profile) as opened:
        answer = opened.issuer.send(calls.whoami())
    svid = opened.content.identity.svid
    found = {
        "spiffe_id": answer.spiffe_id,
        "role": answer.role,
        "namespaces": answer.namespaces,
        "issuer": opened.content.issuer_url,
        "profile": opened.profile.name,
    }
    if as_json:
        output.document({**found, "not_after": svid.not_after})
        return
    output.pairs({**found, "valid_until": output.until(svid.not_after, utc_now())})


@app.command(epilog=example("accredit logout", "accredit logout --profile staging"))
def logout(profile: options.Profile = options.DEFAULT_PROFILE) -> None:
    """Forget a login: its certificate, its key, and what was seen of the log.

    Copies that somebody took stay valid until they expire; accredit revoke admin NAME ends them.
    """
    if Profile.named(profile).forget():
        output.line(f"logged out (profile {profile})")
    else:
        output.note(f"not logged in (profile {profile})")

"""``accredit authority``: the keys that sign, and their next steps by hand.

The issuer takes these steps by itself when they are due. By hand they are for a key that should
go before its time; docs/authorities.md has the order of a forced rotation.
"""

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from accredit_client import calls
from accredit_client.answers import AuthorityRecord
from accredit_client.call import Call
from accredit_client.cli import options, output, session
from accredit_client.cli.framework import example, group
from accredit_client.cli.problems import Failed
from accredit_client.wire import Issuer

app = group("The keys that sign for the trust domain.")

KEY_ID_LENGTH = 40  # hexadecimal digits
SHOWN_ID = 12  # characters of a key id
SHORTEST_PREFIX = 6  # characters that name a key, where no other begins with them


class Kind(StrEnum):
    """What an authority signs."""

    ROOT = "root"
    X509 = "x509"
    JWT = "jwt"
    WIT = "wit"


WhichKey = Annotated[
    str, typer.Argument(metavar="ID", help="Its key id, or the beginning of it (6 or more).")
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the log.")]


@app.command(epilog=example("accredit authority show", "accredit authority show --all --json"))
def show(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Show removed ones too.")] = False,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """List the keys with their states and moments; a * marks what is planned."""
    found = session.ask(profile, calls.authorities())
    shown = [each for each in found if everything or each.state != "removed"]
    _print(shown, as_json=as_json)


@app.command(epilog=example("accredit authority prepare jwt", "accredit authority prepare root"))
def prepare(
    kind: Annotated[
        Kind, typer.Argument(metavar="KIND", show_choices=False, help="root, x509, jwt or wit.")
    ],
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Make the next key and publish it. An issuing CA may sign at once, others once known."""
    with session.open_session(profile) as opened:
        changed = opened.issuer.send(calls.prepare_authority(kind.value))
        opened.profile.ask_again()
    _print(changed, as_json=as_json)
    for each in changed:
        # An issuing CA travels with each leaf: nobody has to know it before.
        if not as_json and kind is not Kind.X509 and each.activates_from is not None:
            output.note(f"verifiers know it from {output.moment(each.activates_from)} on")


@app.command(
    epilog=example(
        "accredit authority activate 7d9c0b6e2a41", "accredit authority activate 7d9c0b --early"
    )
)
def activate(
    which: WhichKey,
    *,
    early: Annotated[
        bool,
        typer.Option("--early", help="Though verifiers may not know it yet; recorded as such."),
    ] = False,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Let a prepared key sign in place of the one that does."""
    with session.open_session(profile) as opened:
        whole = whole_id(opened.issuer, which)
        changed = opened.issuer.send(calls.activate_authority(whole, early=early))
        opened.profile.ask_again()
    _print(changed, as_json=as_json)


@app.command(epilog=example("accredit authority taint 7d9c0b6e2a41 --reason 'seen in a backup'"))
def taint(
    which: WhichKey,
    reason: Reason,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Have everybody renew who holds something that a retired key signed."""
    _step(which, lambda whole: calls.taint_authority(whole, reason=reason), profile, as_json)


@app.command(epilog=example("accredit authority revoke 7d9c0b6e2a41 --reason 'all renewed'"))
def revoke(
    which: WhichKey,
    reason: Reason,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, on a terminal.")] = False,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Remove a key that signs no more, and refuse what it signed. Nothing takes this back.

    Says first how much rests on it, and on a terminal asks.

    Raises:
        Failed: this login itself rests on it, or whoever was asked said no.
    """
    with session.open_session(profile) as opened:
        found = _one(opened.issuer, which)
        whole = found.id
        if whole in opened.content.identity.svid.authorities:
            raise Failed(
                f"this login rests on {whole[:SHOWN_ID]}: whoever revokes it is cut off",
                hint=f"have everybody renew first: accredit authority taint {whole[:SHOWN_ID]}; "
                "then wait a minute",
            )
        if found.resting is not None:
            output.note(f"{found.resting} unexpired credentials rest on {whole[:SHOWN_ID]}")
        asks = bool(found.resting) and not yes and somebody_is_there()
        if asks and not typer.confirm("Refuse all of them?", err=True):
            raise Failed(f"{whole[:SHOWN_ID]} was not revoked")
        changed = opened.issuer.send(calls.revoke_authority(whole, reason=reason))
        opened.profile.ask_again()
    _print(changed, as_json=as_json)


def _step(
    which: str,
    call: Callable[[str], Call[tuple[AuthorityRecord, ...]]],
    profile: str,
    as_json: bool,
) -> None:
    with session.open_session(profile) as opened:
        changed = opened.issuer.send(call(whole_id(opened.issuer, which)))
        opened.profile.ask_again()
    _print(changed, as_json=as_json)


def whole_id(issuer: Issuer, which: str) -> str:
    """The id that begins like this.

    Raises:
        Failed: too short, none, or several.
    """
    return _one(issuer, which).id


def somebody_is_there() -> bool:
    """Whether there is somebody who can be asked."""
    return sys.stdin.isatty()


def _one(issuer: Issuer, which: str) -> AuthorityRecord:
    if len(which) < SHORTEST_PREFIX:
        raise Failed(f"a key id has to be named by {SHORTEST_PREFIX} characters at least")
    found = [each for each in issuer.send(calls.authorities()) if each.id.startswith(which)]
    if len(found) != 1:
        raise Failed(
            f"{len(found) or 'no'} authorities begin with {which!r}; the ids are in: "
            "accredit authority show --all"
        )
    return found[0]


def _print(authorities: Sequence[AuthorityRecord], *, as_json: bool) -> None:
    if as_json:
        output.document(authorities)
        return
    output.table(
        ("KIND", "ID", "STATE", "ORIGIN", "ACTIVE FROM", "LAST USE", "REMOVAL"),
        [
            (
                each.kind,
                each.id[:SHOWN_ID],
                "revoked" if each.revoked and each.state != "removed" else each.state,
                each.origin,
                _moment(each, "active_from", each.active_from),
                _moment(each, "last_use", each.last_use),
                _moment(each, "removal", each.removal),
            )
            for each in authorities
        ],
        empty="no authorities",
    )


def _moment(authority: AuthorityRecord, name: str, at: datetime | None) -> str:
    if at is None:
        return "-"
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}{'*' if name in authority.planned else ''}"

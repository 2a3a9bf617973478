"""``accredit revoke``, ``suspend``, ``restore`` and ``facts``: taking back, at once."""

from collections.abc import Sequence
from enum import StrEnum
from time import perf_counter
from typing import Annotated

import typer

from accredit_client import calls
from accredit_client.answers import FactRecord
from accredit_client.cli import confirmations, options, output, session
from accredit_client.cli.authority import KEY_ID_LENGTH, whole_id
from accredit_client.cli.framework import example, top_level
from accredit_credentials.revocation import FactKind, Target, TargetKind

app = top_level()


class Kind(StrEnum):
    """What can be taken back."""

    AGENT = "agent"
    MANIFEST = "manifest"
    INSTANCE = "instance"
    SERIAL = "serial"
    JTI = "jti"
    TASK = "task"
    NAMESPACE = "namespace"
    SIGNER = "signer"
    OWNER = "owner"
    AUTHORITY = "authority"
    ADMIN = "admin"
    NODE = "node"


KindArgument = Annotated[
    Kind, typer.Argument(metavar="KIND", show_choices=False, help=f"One of {', '.join(Kind)}.")
]
Which = Annotated[str, typer.Argument(metavar="TARGET", help="Which one.")]
Wait = Annotated[
    float,
    typer.Option(
        "--wait",
        metavar="SECONDS",
        min=0,
        max=confirmations.LONGEST,
        help="How long to follow who has confirmed it; 0 does not ask.",
    ),
]
Reason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why, for the log and for whom it hits.")
]


@app.command(
    epilog=example(
        "accredit revoke agent support/summarizer --reason 'leaked its prompt'",
        "accredit revoke instance 5a1f0c9e-… --reason 'odd requests'",
        "accredit revoke owner ada@example.com --reason 'left the company'",
    )
)
def revoke(
    what: KindArgument,
    target: Which,
    reason: Reason,
    *,
    wait: Wait = confirmations.WAIT,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Say that from now on nothing of it is valid. Nothing takes this back.

    Then follow which verifiers confirm that they apply it.
    """
    _state(FactKind.REVOKED, what, target, reason, wait=wait, profile=profile, as_json=as_json)


@app.command(
    epilog=example("accredit suspend agent support/summarizer --reason 'checking an alert'")
)
def suspend(
    what: KindArgument,
    target: Which,
    reason: Reason,
    *,
    wait: Wait = confirmations.WAIT,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Say that nothing of it is valid until it is restored."""
    _state(FactKind.SUSPENDED, what, target, reason, wait=wait, profile=profile, as_json=as_json)


@app.command(epilog=example("accredit restore agent support/summarizer --reason 'false alarm'"))
def restore(
    what: KindArgument,
    target: Which,
    reason: Reason,
    *,
    wait: Wait = confirmations.WAIT,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """End a suspension."""
    _state(FactKind.RESTORED, what, target, reason, wait=wait, profile=profile, as_json=as_json)


@app.command(epilog=example("accredit facts", "accredit facts --json | jq -r '.[].target'"))
def facts(
    profile: options.Profile = options.DEFAULT_PROFILE, as_json: options.Json = False
) -> None:
    """List what is revoked and suspended, by whom and why."""
    found = session.ask(profile, calls.revocation_facts())
    if as_json:
        output.document(found)
    else:
        _print_facts(found, empty="nothing is revoked or suspended")


def _state(
    kind: FactKind,
    what: Kind,
    target: str,
    reason: str,
    *,
    wait: float,
    profile: str,
    as_json: bool,
) -> None:
    Target.parse(f"{what.value}:{target}")  # before anybody is asked
    with session.open_issuer(profile) as issuer:
        if what.value == TargetKind.AUTHORITY.value and len(target) < KEY_ID_LENGTH:
            target = whole_id(issuer, target)  # tables show its beginning
        named = str(Target.parse(f"{what.value}:{target}"))
        started = perf_counter()
        stated = issuer.send(calls.revoke(target=named, kind=kind.value, reason=reason))
        milliseconds = round((perf_counter() - started) * 1000, 1)
        if not as_json:
            _print_facts(stated, empty="the issuer stated nothing")
            output.note(f"in force after {milliseconds:.0f} ms")
        confirmed = confirmations.follow(issuer, stated, wait)
    if as_json:
        output.document({"facts": stated, "milliseconds": milliseconds, "confirmations": confirmed})
    if confirmed is not None:
        confirmations.say(confirmed, loud_only=as_json)


def _print_facts(facts: Sequence[FactRecord], *, empty: str) -> None:
    output.table(
        ("FACT", "TARGET", "KIND", "SINCE", "BY", "REASON"),
        [(f.sequence, f.target, f.kind, f.at, f.actor, f.reason) for f in facts],
        empty=empty,
    )

"""``accredit revoke``, ``suspend``, ``restore`` and ``facts``: taking back, at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from time import perf_counter
from typing import Annotated, Any

import typer

from accredit_client import calls
from accredit_client.answers import FactRecord
from accredit_client.cli import confirmations, options, output, session
from accredit_client.cli.authority import KEY_ID_LENGTH, whole_id
from accredit_client.cli.framework import example, top_level
from accredit_client.cli.problems import WrongUsage
from accredit_client.wire import Issuer
from accredit_credentials.revocation import FactKind, Target, TargetKind

app = top_level()

SHOWN = 30  # targets of a dry run: one screen


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
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only list and count what it would end.")]
KeepNewest = Annotated[
    bool,
    typer.Option(
        "--keep-newest", help="Of an agent: each version but the newest that is in force."
    ),
]
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


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants to state."""

    kind: FactKind
    what: Kind
    target: str
    reason: str
    profile: str
    keep_newest: bool = False

    def check(self) -> None:
        """Decide, before anybody is asked, whether it has the form of a target.

        Raises:
            InvalidRevocation: it has not.
            WrongUsage: only an agent has versions.
        """
        Target.parse(f"{self.what.value}:{self.target}")
        if self.keep_newest and self.what is not Kind.AGENT:
            raise WrongUsage("--keep-newest is about the versions of an agent")

    def named(self, issuer: Issuer) -> dict[str, Any]:
        """As the issuer is asked; an authority may be named by the beginning of its id."""
        target = self.target
        if self.what.value == TargetKind.AUTHORITY.value and len(target) < KEY_ID_LENGTH:
            target = whole_id(issuer, target)  # tables show its beginning
        named = Target.parse(f"{self.what.value}:{target}")
        return {
            "target": str(named),
            "kind": self.kind.value,
            "reason": self.reason,
            "keep_newest": self.keep_newest,
        }


@app.command(
    epilog=example(
        "accredit revoke agent support/summarizer --reason 'leaked its prompt'",
        "accredit revoke agent support/summarizer --keep-newest --reason 'CVE in 1.4'",
        "accredit revoke instance 5a1f0c9e-… --reason 'odd requests'",
        "accredit revoke owner ada@example.com --reason 'left the company' --dry-run",
    )
)
def revoke(
    what: KindArgument,
    target: Which,
    reason: Reason,
    *,
    keep_newest: KeepNewest = False,
    dry_run: DryRun = False,
    wait: Wait = confirmations.WAIT,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Say that from now on nothing of it is valid. Nothing takes this back.

    Then follow which verifiers confirm that they apply it.
    """
    asked = Asked(FactKind.REVOKED, what, target, reason, profile, keep_newest)
    if dry_run:
        _preview(asked, as_json=as_json)
    else:
        _state(asked, wait=wait, as_json=as_json)


@app.command(
    epilog=example("accredit suspend agent support/summarizer --reason 'checking an alert'")
)
def suspend(
    what: KindArgument,
    target: Which,
    reason: Reason,
    *,
    keep_newest: KeepNewest = False,
    dry_run: DryRun = False,
    wait: Wait = confirmations.WAIT,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Say that nothing of it is valid until it is restored."""
    asked = Asked(FactKind.SUSPENDED, what, target, reason, profile, keep_newest)
    if dry_run:
        _preview(asked, as_json=as_json)
    else:
        _state(asked, wait=wait, as_json=as_json)


@app.command(epilog=example("accredit restore agent support/summarizer --reason 'false alarm'"))
def restore(
    what: KindArgument,
    target: Which,
    reason: Reason,
    *,
    dry_run: DryRun = False,
    wait: Wait = confirmations.WAIT,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """End a suspension."""
    asked = Asked(FactKind.RESTORED, what, target, reason, profile)
    if dry_run:
        _preview(asked, as_json=as_json)
    else:
        _state(asked, wait=wait, as_json=as_json)


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


def _preview(asked: Asked, *, as_json: bool) -> None:
    asked.check()
    with session.open_issuer(asked.profile) as issuer:
        found = issuer.send(calls.revocation_preview(**asked.named(issuer)))
    if as_json:
        output.document({"dry_run": True, **output.plain(found)})
        return
    hidden = len(found.targets) - SHOWN
    more = (f"and {hidden} more: see --json",) if hidden > 0 else ()
    output.pairs(
        {
            f"would be {found.would_be}": (*found.targets[:SHOWN], *more),
            "credentials": ", ".join(f"{n} {kind}" for kind, n in found.credentials.items() if n),
            "instances": found.instances,
            "manifests": found.manifests,
            "agents": found.agents,
            "last would end": found.last_end,
        }
    )
    output.note("a dry run: nothing was stated, and nothing is changed")


def _state(asked: Asked, *, wait: float, as_json: bool) -> None:
    asked.check()
    with session.open_issuer(asked.profile) as issuer:
        named = asked.named(issuer)
        started = perf_counter()
        stated = issuer.send(calls.revoke(**named))
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

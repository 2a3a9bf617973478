"""``accredit status``: the issuer on one screen, what is to do first."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from accredit_client import calls
from accredit_client.answers import (
    AuthorityRecord,
    FactCount,
    FeedStatus,
    StatusAnswer,
    VerifierRecord,
)
from accredit_client.cli import options, output, session
from accredit_client.cli.authority import SHOWN_ID
from accredit_client.cli.framework import example, top_level

app = top_level()

SHOWN = 8  # verifiers, and CRLs: the rest is in the JSON document
SLOW = 5.0  # seconds behind from which on a verifier is listed
STILL = 60.0  # seconds of silence
_KILO = 1024


@app.command(epilog=example("accredit status", "accredit status --json | jq .to_do"))
def status(
    profile: options.Profile = options.DEFAULT_PROFILE, as_json: options.Json = False
) -> None:
    """Show what is in force, who has not heard of it, how old the CRLs are, and what is to do."""
    found = session.ask(profile, calls.status())
    if as_json:
        output.document(found)
        return
    output.line(f"{found.trust_domain} at {output.moment(found.at)}")
    output.line()
    output.pairs(
        {
            "to do": [_duty(each.text, urgent=each.urgent) for each in found.to_do]
            or ["nothing: all is as it should be"],
            "facts": _facts(found.facts, found.feed.through),
            "feed": [*_feed(found.feed)],
        }
    )
    output.line()
    _print_crls(found)
    output.line()
    _print_authorities(found.authorities, found.at)


def _duty(text: str, *, urgent: bool) -> str:
    return f"NOW: {text}" if urgent else text


def _facts(counted: Sequence[FactCount], through: int) -> str:
    revoked = sum(each.revoked for each in counted)
    suspended = sum(each.suspended for each in counted)
    if not counted:
        return f"nothing is revoked or suspended; the newest fact was {through}"
    about = ", ".join(f"{each.revoked + each.suspended} {each.target}" for each in counted)
    return f"{revoked} revoked, {suspended} suspended ({about}); the newest is {through}"


def _feed(feed: FeedStatus) -> Iterator[str]:
    listening = [each for each in feed.verifiers if not each.gone]
    slow = [each for each in listening if _is_slow(each)]
    gone = [each for each in feed.verifiers if each.gone]
    yield (
        f"{feed.streams} streams: {feed.named} verifiers by name, {feed.unnamed} without a name, "
        f"{feed.silent} that never acknowledged"
    )
    if feed.named and not slow:
        yield "every verifier by name applies what it was told"
    for each in slow[:SHOWN]:
        yield f"BEHIND {_who(each)}: {_lag(each, feed.through)}"
    if len(slow) > SHOWN:
        yield f"BEHIND {len(slow) - SHOWN} more of those that are listed"
    for each in gone[:SHOWN]:
        yield f"left   {_who(each)}: said something {each.silent_seconds:.0f} s ago"


def _is_slow(verifier: VerifierRecord) -> bool:
    behind = verifier.behind_seconds
    return behind is None or behind > SLOW or verifier.silent_seconds > STILL


def _lag(verifier: VerifierRecord, newest: int) -> str:
    silent = f"silent for {verifier.silent_seconds:.0f} s"
    if verifier.through >= newest:
        return f"has the newest fact, {silent}"
    behind = verifier.behind_seconds
    since = "longer than is known" if behind is None else f"{behind:.0f} s"
    return f"{newest - verifier.through} facts behind for {since}, {silent}"


def _who(verifier: VerifierRecord) -> str:
    instance = f" (instance {verifier.instance})" if verifier.instance else ""
    return f"{verifier.spiffe_id}{instance}"


def _print_crls(found: StatusAnswer) -> None:
    output.table(
        ("CRL OF", "NUMBER", "MADE", "NEXT UPDATE", "ENTRIES", "KIB"),
        [
            (
                each.authority[:SHOWN_ID],
                each.number,
                _distance(each.this_update, found.at),
                _distance(each.next_update, found.at),
                each.entries,
                f"{each.bytes / _KILO:.1f}",
            )
            for each in found.crls[:SHOWN]
        ],
        empty="no CRLs",
    )
    if len(found.crls) > SHOWN:
        output.note(f"and {len(found.crls) - SHOWN} more CRLs: see --json")


def _print_authorities(authorities: Sequence[AuthorityRecord], now: datetime) -> None:
    output.table(
        ("AUTHORITY", "ID", "STATE", "NEXT", "EXPIRES"),
        [
            (
                each.kind,
                each.id[:SHOWN_ID],
                "revoked" if each.revoked else each.state,
                _next(each, now),
                f"{each.expires_at.astimezone(UTC):%Y-%m-%d %H:%M}",
            )
            for each in authorities
        ],
        empty="no authorities",
    )


def _next(authority: AuthorityRecord, now: datetime) -> str:
    """What comes next for an authority, of what is planned."""
    steps = (
        ("signs", "active_from", authority.active_from),
        ("signs last", "last_use", authority.last_use),
        ("goes", "removal", authority.removal),
    )
    for what, name, at in steps:
        if name in authority.planned and at is not None:
            return f"{what} {_distance(at, now)}"
    return "-"


def _distance(at: datetime, now: datetime) -> str:
    """How far a moment is, without the moment itself."""
    return output.until(at, now).partition(" (")[2].removesuffix(")")

"""Whom a fact has reached, followed for a while after it was stated.

The fact is in force whatever comes of this: nothing here fails the command, and whatever keeps one
from knowing is said.
"""

from collections.abc import Sequence
from time import monotonic

from accredit_client import calls
from accredit_client.answers import (
    ConfirmationsAnswer,
    FactRecord,
    NamedVerifiers,
    UnnamedVerifiers,
    VerifierRecord,
)
from accredit_client.cli import output
from accredit_client.errors import ClientError
from accredit_client.wire import Issuer

WAIT = 5.0  # seconds
LONGEST = 600.0
STEP = 0.25  # seconds between two looks
SHOWN = 20  # names; all of them are in the JSON document


def follow(issuer: Issuer, stated: Sequence[FactRecord], wait: float) -> ConfirmationsAnswer | None:
    """Ask until everybody confirmed it, or so much time has passed; None where nobody was asked."""
    if not stated or wait <= 0:
        return None
    through = stated[-1].sequence
    until = monotonic() + wait
    found: ConfirmationsAnswer | None = None
    try:
        with output.live_line() as show:
            while found is None or not (found.complete or monotonic() >= until):
                step = min(STEP, max(0.0, until - monotonic()))
                found = issuer.send(calls.confirmations(through=through, wait=step))
                show(_progress(found))
    except KeyboardInterrupt:
        output.note("not followed any longer; the fact stays in force")
    except (ClientError, OSError) as error:
        output.warning(f"whom it has reached is not known: {error}")
    return found


def say(found: ConfirmationsAnswer, *, loud_only: bool = False) -> None:
    """Say what came of it; ``loud_only`` leaves out whatever is as it should be."""
    named, unnamed = found.named, found.unnamed
    if not loud_only:
        if not named.listening and not unnamed.listening:
            output.note("no verifier that acknowledges is listening")
        for verifiers, what in (
            (named, "verifiers by name"),
            (unnamed, "verifiers without a name"),
        ):
            if verifiers.listening:
                output.note(f"confirmed by {_tally(verifiers, what)}")
    for each in named.missing[:SHOWN]:
        output.warning(f"NOT confirmed by {_who(each)}, {_standing(each)}")
    hidden = named.listening - named.confirmed - len(named.missing[:SHOWN])
    if hidden > 0:
        output.warning(f"NOT confirmed by {hidden} more verifiers by name")
    if unnamed.listening > unnamed.confirmed:
        missing = unnamed.listening - unnamed.confirmed
        output.warning(f"NOT confirmed by {missing} verifiers without a name")
    for each in named.gone[:SHOWN]:
        output.warning(
            f"{_who(each)} stopped listening before it confirmed: it refuses everything once what "
            "it knows is too old"
        )
    if found.silent and not loud_only:
        output.note(f"{found.silent} streams never acknowledge: what they apply is not known")


def _progress(found: ConfirmationsAnswer) -> str:
    listening = found.named.listening + found.unnamed.listening
    confirmed = found.named.confirmed + found.unnamed.confirmed
    times = (found.named.slowest_milliseconds, found.unnamed.slowest_milliseconds)
    slowest = max((each for each in times if each is not None), default=None)
    after = "" if slowest is None else f", the slowest after {slowest:.0f} ms"
    elapsed = found.elapsed_milliseconds
    since = "" if elapsed is None else f" ({elapsed / 1000:.1f} s)"
    return f"confirmed by {confirmed} of {listening} verifiers{after}{since}"


def _tally(verifiers: NamedVerifiers | UnnamedVerifiers, what: str) -> str:
    slowest = verifiers.slowest_milliseconds
    after = "" if slowest is None else f", the slowest after {slowest:.0f} ms"
    return f"{verifiers.confirmed} of {verifiers.listening} {what}{after}"


def _who(verifier: VerifierRecord) -> str:
    instance = f" (instance {verifier.instance})" if verifier.instance else ""
    return f"{verifier.spiffe_id}{instance}"


def _standing(verifier: VerifierRecord) -> str:
    return (
        f"which applies facts up to {verifier.through}, silent for {verifier.silent_seconds:.0f} s"
    )

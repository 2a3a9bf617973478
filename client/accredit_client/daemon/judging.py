"""Whether a process may have, or keep, an identity: decided from what was seen of it. Pure."""

from dataclasses import dataclass

from accredit_client.daemon.agents import AgentEntry
from accredit_client.daemon.selectors import matches


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found where an entry's code is."""

    selectors: frozenset[str]
    digest: str | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows of a measure: nothing, a refusal, or a change that the issuer must hear of."""

    refused: str | None = None
    changed: bool = False


def judged(entry: AgentEntry, found: Measured, *, born: bool) -> Verdict:
    """Decide whether a process may have, or keep, an instance of an entry.

    Args:
        entry: what the settings and the manifest say.
        found: what was seen of it just now.
        born: whether it has an instance already: other code then is a *change*.
    """
    if not matches(entry.selectors, found.selectors):
        return Verdict(f"the process does not have the selectors of {entry.agent}")
    if found.digest is None:
        return Verdict(found.problem or "the code cannot be measured", changed=born)
    if not entry.measured_as_signed(found.digest):
        return Verdict(f"the code is not what was signed for {entry.agent}", changed=born)
    return Verdict()

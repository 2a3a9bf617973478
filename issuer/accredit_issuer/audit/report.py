"""What an audit examined and what it found."""

from dataclasses import dataclass, field

MAX_KEPT = 1000  # findings; further ones are counted

_SUMS = ("certificates", "tokens", "records", "facts", "authorities", "crls")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: what it is about, and what."""

    about: str
    problem: str


@dataclass(slots=True)
class Report:
    """What was examined, and what was found.

    Attributes:
        examined: how many of each.
        findings: the first of them.
        found: how many there are.
        older: credentials of before digests were kept: only their record was compared.
        terse: rows whose record is of an earlier version, and says less than they do.
        unreleased: intents without a release: the issuer was killed, or a fact came in between.
        unexpired: those of them that have not ended.
        size: of the log.
        checkpoint: the signed head of the log.
    """

    examined: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_SUMS, 0))
    findings: list[Finding] = field(default_factory=list)
    found: int = 0
    older: int = 0
    terse: int = 0
    unreleased: int = 0
    unexpired: list[str] = field(default_factory=list)
    size: int = 0
    checkpoint: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.found

    def add(self, about: str, *problems: str) -> None:
        """Say what is wrong with one thing."""
        self.found += len(problems)
        room = MAX_KEPT - len(self.findings)
        self.findings += [Finding(about, problem) for problem in problems[:room]]

"""Two ordered vocabularies: who measured (``Assurance``), and what is at stake (``Risk``).

Order is the order of definition, and only levels of one kind compare: ``Assurance.NODE >=
Assurance.SELF`` is true, ``Assurance.NODE >= Risk.LOW`` is a ``TypeError``.
"""

from enum import Enum
from functools import total_ordering
from typing import Self

from accredit_attestors.errors import InvalidLevel, shown


@total_ordering
class Level(Enum):
    """A word with a rank among its siblings."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the level's one spelling.

        Raises:
            InvalidLevel: no level of this kind has the name.
        """
        for level in cls:
            if level.value == text:
                return level
        expected = ", ".join(str(level) for level in cls)
        raise InvalidLevel(f"{cls.__name__.lower()} {shown(text)} must be one of {expected}")

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        ranks = list(type(self))
        return ranks.index(self) < ranks.index(other)

    def __str__(self) -> str:
        return str(self.value)


class Assurance(Level):
    """Who measured what is claimed, from least to most trusted."""

    SELF = "self"
    """The process itself: keeps honest agents apart, and stops no liar."""
    NODE = "node"
    """The attested node daemon, from outside of the process."""
    PLATFORM = "platform"
    """The platform that started it: CI, Kubernetes, a cloud."""
    HARDWARE = "hardware"
    """A TPM or an enclave."""


class Risk(Level):
    """What an action may cost if it is done wrongly, from least to most."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

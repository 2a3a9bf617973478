"""Which paths of a tree are measured: patterns that a manifest carries.

Decides on names alone. The patterns are few, short and have few wildcards, so that a hostile
manifest cannot make matching slow; what they mean is in ``docs/code-digest.md``.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from accredit_attestors.errors import InvalidTree, shown

MANIFEST_FILE_NAME = "agent.manifest.json"
"""Where an author keeps the signed manifest, which cannot measure itself."""

DEFAULT_INCLUDE = ("**",)
DEFAULT_EXCLUDE = (".git", "__pycache__", MANIFEST_FILE_NAME)
MAX_PATTERNS = 64
MAX_PATTERN_LENGTH = 256
MAX_WILDCARDS = 4  # a regular expression's time grows with its wildcards, to their power

_PATTERN = re.compile(r"[^\x00-\x1f\x7f-\x9f\\\[\]{}!]+")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which paths of a tree are measured: included by a pattern, and excluded by none.

    ``*`` and ``?`` stand for characters other than ``/``, ``**`` for any number of directories. A
    pattern without ``/`` is compared with the name, at any depth; another with the whole path. One
    that matches a directory takes all below it.
    """

    include: tuple[str, ...] = DEFAULT_INCLUDE
    exclude: tuple[str, ...] = DEFAULT_EXCLUDE

    def __post_init__(self) -> None:
        if not self.include:
            raise InvalidTree("include must have at least one pattern")
        for name, patterns in (("include", self.include), ("exclude", self.exclude)):
            if len(patterns) > MAX_PATTERNS:
                raise InvalidTree(
                    f"{name} has {len(patterns)} patterns, the limit is {MAX_PATTERNS}"
                )
            for pattern in patterns:
                _check_pattern(pattern)

    def takes(self, path: str) -> bool:
        """Whether a file or link at ``path`` is measured."""
        return not self.leaves_out(path) and self.includes(path)

    def includes(self, path: str) -> bool:
        """Whether an ``include`` pattern matches; to be asked of what is not left out."""
        return _any_of(self.include).fullmatch(path) is not None

    def leaves_out(self, path: str) -> bool:
        """Whether ``path``, and all below it, is excluded."""
        return bool(self.exclude) and _any_of(self.exclude).fullmatch(path) is not None


def _check_pattern(pattern: str) -> None:
    if len(pattern) > MAX_PATTERN_LENGTH or not _PATTERN.fullmatch(pattern):
        raise InvalidTree(
            f"pattern {shown(pattern)} must have 1 to {MAX_PATTERN_LENGTH} characters, without "
            "control characters, brackets, braces, '!' and backslash"
        )
    segments = pattern.split("/")
    if any(segment in {"", ".", ".."} for segment in segments):
        raise InvalidTree(
            f"pattern {shown(pattern)} must be a relative path without empty, '.' or '..' segments"
        )
    if any("**" in segment and segment != "**" for segment in segments):
        raise InvalidTree(f"pattern {shown(pattern)} must have '**' as a whole segment")
    if len(re.findall(r"\*\*|\*", pattern)) > MAX_WILDCARDS:
        raise InvalidTree(f"pattern {shown(pattern)} has more than {MAX_WILDCARDS} wildcards")


@lru_cache(maxsize=256)
def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(_expression, patterns)), re.DOTALL)


def _expression(pattern: str) -> str:
    *directories, last = pattern.split("/")
    anywhere = "" if directories else "(?:.*/)?"
    above = "".join("(?:[^/]+/)*" if each == "**" else _segment(each) + "/" for each in directories)
    end = ".+" if last == "**" else _segment(last)
    return f"(?:{anywhere}{above}{end}(?:/.*)?)"


def _segment(text: str) -> str:
    wild = {"*": "[^/]*", "?": "[^/]"}
    return "".join(wild.get(character) or re.escape(character) for character in text)

"""A finished listing of a measured tree, its digest, and whether its links stay inside.

Decides on the listing alone, without looking at any file.
"""

import hashlib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from accredit_attestors.errors import InvalidTree, shown

_MAX_LINK_HOPS = 40  # as Linux


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the listing."""

    kind: Literal["f", "x", "l"]
    sha256: str
    path: str

    @property
    def line(self) -> bytes:
        """The line as it is hashed, with its line feed."""
        return f"{self.kind} {self.sha256}  {self.path}\n".encode()


@dataclass(frozen=True)
class Measured:
    """A finished listing, in the order of the paths' bytes."""

    entries: tuple[Entry, ...]

    @cached_property
    def digest(self) -> str:
        """``sha256:<hex>`` of all lines."""
        return f"sha256:{hashlib.sha256(b''.join(e.line for e in self.entries)).hexdigest()}"


def check_links(
    links: Mapping[str, str], *, files: AbstractSet[str], directories: AbstractSet[str]
) -> None:
    """Check that each link (path → target) ends at a measured file or a walked directory.

    Raises:
        InvalidTree: a link is absolute, leaves the root, goes in circles, or passes or ends at
            something that is missing or was left out and could therefore change unseen.
    """
    for path in links:
        end = _follow(path, links, directories)
        if end not in files and end not in directories:
            raise InvalidTree(f"link {shown(path)} leads to {shown(end)}, which is not measured")


def _follow(path: str, links: Mapping[str, str], directories: AbstractSet[str]) -> str:
    """Where ``path`` ends, as the kernel would walk it, but on the listing alone."""
    walked: list[str] = []
    ahead = path.split("/")[::-1]
    hops = 0
    while ahead:
        here = "/".join(walked)
        if here not in directories:
            # A link that was left out may stand there: what follows would be anybody's tree.
            raise InvalidTree(f"link {shown(path)} passes {shown(here)}, which is not measured")
        name = ahead.pop()
        if name == ".." and not walked:
            raise InvalidTree(f"link {shown(path)} leads out of the tree")
        if name == "..":
            walked.pop()
        elif name not in {"", "."}:
            walked.append(name)
        target = links.get("/".join(walked))
        if target is None:
            continue
        hops += 1
        if hops > _MAX_LINK_HOPS:
            raise InvalidTree(f"link {shown(path)} goes over more than {_MAX_LINK_HOPS} links")
        if target.startswith("/"):
            raise InvalidTree(f"link {shown(path)} leads to the absolute path {shown(target)}")
        walked.pop()
        ahead.extend(target.split("/")[::-1])
    return "/".join(walked)

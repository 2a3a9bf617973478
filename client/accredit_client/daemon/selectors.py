"""What can be said of a process, as selectors, and which processes an entry means.

``unix:uid:1001``, ``unix:user:summarizer``, ``unix:gid:…``, ``unix:group:…`` (as it connected),
``unix:supplementary_gid:…``, ``unix:supplementary_group:…``, ``unix:path:/usr/bin/python3.11``,
``unix:sha256:<hex>`` (of the program), ``systemd:unit:summarizer.service``,
``systemd:user_unit:…`` (of a user's own service manager), ``container:id:<64 hex digits>``,
``container:rootless_id:…``.

A selector is only made where the process could not have made it by itself. Cgroups are directories:
whoever was given a part of the tree names what is in it. So a unit is the outermost one, which the
system's manager made; a container is recognised by its whole path from the top; and what stands
below ``user@UID.service`` is that user's own word and has names of its own.

The parsers are pure. Names of users and groups are those of the daemon's host.
"""

import grp
import pwd
import re
from collections.abc import Set as AbstractSet

from accredit_client.errors import InvalidSelector

MAX_SELECTOR_LENGTH = 512
MAX_CGROUP_LINES = 64

_ID = r"(?P<id>[0-9a-f]{64})"
_SLICES = r"(?:/[A-Za-z0-9:_.\\@-]+\.slice)*"
_POD = r"pod[0-9a-f-]{32,36}"
_CONTAINERS = (
    # systemd's driver: Docker, nerdctl, containerd and CRI-O under Kubernetes, Podman.
    re.compile(rf"{_SLICES}/(?:docker|nerdctl|cri-containerd|crio|libpod)-{_ID}\.scope(?:/.*)?"),
    # The cgroupfs driver: Docker, Podman, Kubernetes.
    re.compile(rf"/docker/{_ID}(?:/.*)?"),
    re.compile(rf"/libpod_parent/libpod-{_ID}(?:/.*)?"),
    re.compile(rf"/kubepods/(?:burstable/|besteffort/)?{_POD}/(?:crio-)?{_ID}(?:/.*)?"),
    # containerd told of systemd's names, but not to use systemd.
    re.compile(
        rf"(?:/system\.slice/containerd\.service)?/kubepods[a-z0-9_.-]*\.slice:cri-containerd:{_ID}"
        r"(?:/.*)?"
    ),
)
_ROOTLESS = re.compile(
    rf"{_SLICES}/user@[0-9]+\.service{_SLICES}"
    rf"(?:/[a-z]+\.service)?/(?:docker|nerdctl|libpod)-{_ID}\.scope(?:/.*)?"
)
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,248}\.(?:service|scope|socket|mount|swap)")
_USER_MANAGER = re.compile(r"user@[0-9]+\.service")

_NUMBER = r"(?:0|[1-9][0-9]{0,9})"
_NAME = r"[^\x00-\x20\x7f:/]{1,256}"
_FORMS = {
    "unix:uid": _NUMBER,
    "unix:gid": _NUMBER,
    "unix:supplementary_gid": _NUMBER,
    "unix:user": _NAME,
    "unix:group": _NAME,
    "unix:supplementary_group": _NAME,
    "unix:path": r"(?:/[^\x00-\x1f\x7f/]+)+",
    "unix:sha256": r"[0-9a-f]{64}",
    "systemd:unit": _UNIT.pattern,
    "systemd:user_unit": _UNIT.pattern,
    "container:id": r"[0-9a-f]{64}",
    "container:rootless_id": r"[0-9a-f]{64}",
}
_COMPILED = {kind: re.compile(form) for kind, form in _FORMS.items()}


def check_selector(text: str) -> str:
    """The selector of an entry, as it is, if a process can have it at all.

    Raises:
        InvalidSelector: an unknown kind, or a value that no process has: it would never match, and
            whoever wrote it meant something else.
    """
    type_, _, rest = text.partition(":")
    name, _, value = rest.partition(":")
    form = _COMPILED.get(f"{type_}:{name}")
    if form is None:
        raise InvalidSelector(
            f"selector {text[:80]!r} must begin with one of {', '.join(sorted(_FORMS))}"
        )
    if len(text) > MAX_SELECTOR_LENGTH or not form.fullmatch(value):
        raise InvalidSelector(f"selector {text[:80]!r} has a value that no process has")
    return text


def matches(entry: AbstractSet[str], process: AbstractSet[str]) -> bool:
    """Whether a process has all selectors of an entry; one without selectors means nobody."""
    return bool(entry) and entry <= process


def unix_selectors(
    *, uid: int, gid: int, groups: AbstractSet[int], path: str | None, sha256: str | None
) -> frozenset[str]:
    """What the kernel says of a process, with the names that this host has for the numbers."""
    said = {f"unix:uid:{uid}", f"unix:gid:{gid}"}
    user, group = _user(uid), _group(gid)
    if user is not None:
        said.add(f"unix:user:{user}")
    if group is not None:
        said.add(f"unix:group:{group}")
    for each in groups:
        said.add(f"unix:supplementary_gid:{each}")
        name = _group(each)
        if name is not None:
            said.add(f"unix:supplementary_group:{name}")
    if path is not None:
        said.add(f"unix:path:{path}")
    if sha256 is not None:
        said.add(f"unix:sha256:{sha256}")
    return frozenset(said)


def cgroup_selectors(text: str) -> frozenset[str]:
    """What ``/proc/<pid>/cgroup`` says, of version 1, 2 or both (cgroups(7)).

    Lines that contradict each other, or are not of the documented form, say nothing.
    """
    # By line feeds alone, which no name of a cgroup has; of other ends of lines it may have any.
    lines = [line.split(":", 2) for line in text.removesuffix("\n").split("\n")]
    if len(lines) > MAX_CGROUP_LINES or any(len(line) != 3 for line in lines):  # noqa: PLR2004 (hierarchy, controllers, path)
        return frozenset()
    paths = [path for _, _, path in lines]
    if any(part in {".", ".."} for path in paths for part in path.split("/")):
        return frozenset()  # seen from another cgroup namespace: nobody knows from where
    said = set()
    managed = {path for _, controllers, path in lines if controllers in {"", "name=systemd"}}
    managed.discard("/")
    if len(managed) == 1:
        unit, user_unit = units_of(managed.pop())
        if unit is not None:
            said.add(f"systemd:unit:{unit}")
        if user_unit is not None:
            said.add(f"systemd:user_unit:{user_unit}")
    containers = {found for path in paths if (found := container_of(path)) is not None}
    if len(containers) == 1:
        said.add(containers.pop())
    return frozenset(said)


def units_of(path: str) -> tuple[str | None, str | None]:
    """The system's unit of a cgroup path and, below a user's service manager, that one's."""
    unit, below = _first_unit(path.split("/")[1:])
    if unit is None or not _USER_MANAGER.fullmatch(unit):
        return unit, None
    return unit, _first_unit(below)[0]


def container_of(path: str) -> str | None:
    """The selector of the container that a cgroup path belongs to, as the host sees it."""
    for shape in _CONTAINERS:
        found = shape.fullmatch(path)
        if found:
            return f"container:id:{found['id']}"
    found = _ROOTLESS.fullmatch(path)
    return f"container:rootless_id:{found['id']}" if found else None


def _first_unit(parts: list[str]) -> tuple[str | None, list[str]]:
    """The first part that is no slice, if it is a unit, and what is below it."""
    for index, part in enumerate(parts):
        # systemd puts "_" before what the kernel's own files could be called.
        name = part.removeprefix("_")
        if not name.endswith(".slice"):
            return (name if _UNIT.fullmatch(name) else None), parts[index + 1 :]
    return None, []


def _user(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def _group(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None

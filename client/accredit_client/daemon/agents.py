"""Which process may be which agent: root's word on this host, and nothing without it.

An entry joins a signed manifest with the place of the code and with what must hold of a process.
``entries_for`` is the decision, and pure: an entry means a process that has all its selectors; one
without selectors means nobody. What the daemon starts itself is known by birth: that is a selector,
and the only way to be meant by such an entry. ``entry_to_launch`` decides who may have it started.
That somebody may speak for the agent by signing is for the issuer to decide; here the manifest only
says what to measure, and which digest must come out.
"""

import hmac
from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from accredit_attestors.dsse import MAX_ENVELOPE_BYTES, Envelope
from accredit_attestors.errors import AttestationError, CannotCollect, shown
from accredit_attestors.files import read_small_file
from accredit_attestors.signing import unverified_manifest
from accredit_attestors.statement import manifest_digest
from accredit_attestors.tree import Selection
from accredit_client.daemon.launch_settings import LaunchSettings, launched_selectors
from accredit_client.daemon.launch_wire import LaunchRequest
from accredit_client.daemon.selectors import matches
from accredit_client.daemon.settings import AgentSettings, InvalidSettings
from accredit_client.errors import LaunchRefused
from accredit_credentials.spiffe_id import AgentId

PROGRAM = "unix:sha256:"  # the one selector that takes long to know


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEntry:
    """What one entry of the settings means.

    Attributes:
        agent: whose identity it is about.
        manifest: the digest of the manifest.
        code: the digest that the code must have.
        selection: which of its files count.
        code_root: where the code runs from, as the process sees it.
        selectors: all of them must hold of a process; that it was launched, where it is.
        hint: what the identity is for; empty for none.
        expires_at: when the manifest is over.
        launch: how the daemon starts it; None where it is observed.
        requesters: what must hold of who has it started.
    """

    agent: AgentId
    manifest: str
    code: str
    selection: Selection
    code_root: str
    selectors: frozenset[str]
    hint: str
    expires_at: datetime
    launch: LaunchSettings | None = None
    requesters: frozenset[str] = frozenset()

    def measured_as_signed(self, digest: str) -> bool:
        """Whether a digest is the one that was signed."""
        return hmac.compare_digest(digest.encode(), self.code.encode())


def load_entries(settings: Iterable[AgentSettings]) -> tuple[AgentEntry, ...]:
    """Read the manifests. One that is over is no error: its agents alone are refused.

    Raises:
        InvalidSettings: one cannot be read, or is no manifest; or two start the same.
    """
    entries = tuple(map(_entry, settings))
    started = Counter(each.selectors for each in entries if each.launch is not None)
    for each in entries:
        if started[each.selectors] > 1:
            raise InvalidSettings(f"two entries start {each.agent} by the same command")
    return entries


def wants_program(wanted: Iterable[AbstractSet[str]], process: AbstractSet[str]) -> bool:
    """Whether its program has to be read to know which entries mean a process.

    Args:
        wanted: the selectors of each entry.
        process: its selectors without ``unix:sha256:``.
    """
    return any(
        any(selector.startswith(PROGRAM) for selector in each)
        and all(s in process for s in each if not s.startswith(PROGRAM))
        for each in wanted
    )


def entries_for(entries: Sequence[AgentEntry], process: AbstractSet[str]) -> tuple[AgentEntry, ...]:
    """The entries that mean a process with these selectors, in their order."""
    return tuple(each for each in entries if matches(each.selectors, process))


def check_may_launch(entries: Iterable[AgentEntry], requester: AbstractSet[str]) -> None:
    """Check that a process may have anything started.

    Raises:
        LaunchRefused: no entry is for it.
    """
    if not any(each.launch and matches(each.requesters, requester) for each in entries):
        raise LaunchRefused(
            "what this host starts is not for this process to have started: it has the selectors "
            "of no entry"
        )


def entry_to_launch(
    entries: Iterable[AgentEntry], request: LaunchRequest, requester: AbstractSet[str]
) -> AgentEntry:
    """The entry by which a request is granted.

    Args:
        entries: of the settings.
        request: what is wanted.
        requester: the selectors of who asks.

    Raises:
        LaunchRefused: none is; it says the command only to who may have it started.
    """
    of_manifest = [
        each for each in entries if each.launch is not None and each.manifest == request.manifest
    ]
    if not of_manifest:
        raise LaunchRefused(
            f"the settings of this host start no agent of the manifest {shown(request.manifest)}",
            hint="the host's root adds [agent.launch] to the agent's entry in daemon.toml",
        )
    allowed = [each for each in of_manifest if matches(each.requesters, requester)]
    if not allowed:
        raise LaunchRefused(
            f"{of_manifest[0].agent} is not for this process to have started: it has not the "
            "selectors of the entry"
        )
    for each in allowed:
        if each.launch is not None and each.launch.starts(request.command):
            return each
    commands = " or ".join(str(each.launch) for each in allowed)
    raise LaunchRefused(f"{allowed[0].agent} is started by: {commands}; and by nothing else")


def _entry(settings: AgentSettings) -> AgentEntry:
    envelope, digest = _read(settings.manifest)
    try:
        manifest = unverified_manifest(envelope)
    except AttestationError as error:
        raise InvalidSettings(f"manifest {settings.manifest}: {error}") from None
    launch = settings.launch
    return AgentEntry(
        agent=manifest.agent,
        manifest=digest,
        code=manifest.code.digest,
        selection=manifest.code.selection,
        code_root=settings.code_root,
        selectors=(
            settings.selectors if launch is None else launched_selectors(digest, launch.command)
        ),
        hint=settings.hint,
        expires_at=manifest.expires_at,
        launch=launch,
        requesters=frozenset() if launch is None else settings.selectors,
    )


def _read(path: Path) -> tuple[bytes, str]:
    try:
        data = read_small_file(path, what="manifest", max_bytes=MAX_ENVELOPE_BYTES, private=False)
    except CannotCollect as error:  # names the file
        raise InvalidSettings(str(error), hint=error.hint) from None
    try:
        return data, manifest_digest(Envelope.parse(data).unverified_payload)
    except AttestationError as error:
        raise InvalidSettings(f"manifest {path}: {error}", hint=error.hint) from None

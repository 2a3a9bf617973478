"""Which process may be which agent: root's word on this host, and nothing without it.

An entry joins a signed manifest with the place of the code and with what must hold of a process.
``entries_for`` is the decision, and pure: an entry means a process that has all its selectors; one
without selectors means nobody. That somebody may speak for the agent by signing is for the issuer
to decide; here the manifest only says what to measure, and which digest must come out.
"""

import hmac
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from accredit_attestors.dsse import MAX_ENVELOPE_BYTES, Envelope
from accredit_attestors.errors import AttestationError
from accredit_attestors.files import read_small_file
from accredit_attestors.signing import unverified_manifest
from accredit_attestors.statement import manifest_digest
from accredit_attestors.tree import Selection
from accredit_client.daemon.selectors import matches
from accredit_client.daemon.settings import AgentSettings, InvalidSettings
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
        selectors: all of them must hold of a process.
        hint: what the identity is for; empty for none.
        expires_at: when the manifest is over.
    """

    agent: AgentId
    manifest: str
    code: str
    selection: Selection
    code_root: str
    selectors: frozenset[str]
    hint: str
    expires_at: datetime

    def measured_as_signed(self, digest: str) -> bool:
        """Whether a digest is the one that was signed."""
        return hmac.compare_digest(digest.encode(), self.code.encode())


def load_entries(settings: Iterable[AgentSettings]) -> tuple[AgentEntry, ...]:
    """Read the manifests. One that is over is no error: its agents alone are refused.

    Raises:
        InvalidSettings: one cannot be read, or is no manifest.
    """
    return tuple(map(_entry, settings))


def wants_program(entries: Sequence[AgentEntry], process: AbstractSet[str]) -> bool:
    """Whether its program has to be read to know which entries mean a process.

    Args:
        entries: all of them.
        process: its selectors without ``unix:sha256:``.
    """
    return any(
        any(selector.startswith(PROGRAM) for selector in each.selectors)
        and all(s in process for s in each.selectors if not s.startswith(PROGRAM))
        for each in entries
    )


def entries_for(entries: Sequence[AgentEntry], process: AbstractSet[str]) -> tuple[AgentEntry, ...]:
    """The entries that mean a process with these selectors, in their order."""
    return tuple(each for each in entries if matches(each.selectors, process))


def _entry(settings: AgentSettings) -> AgentEntry:
    envelope, digest = _read(settings.manifest)
    try:
        manifest = unverified_manifest(envelope)
    except AttestationError as error:
        raise InvalidSettings(f"manifest {settings.manifest}: {error}") from None
    return AgentEntry(
        agent=manifest.agent,
        manifest=digest,
        code=manifest.code.digest,
        selection=manifest.code.selection,
        code_root=settings.code_root,
        selectors=settings.selectors,
        hint=settings.hint,
        expires_at=manifest.expires_at,
    )


def _read(path: Path) -> tuple[bytes, str]:
    try:
        data = read_small_file(path, what="manifest", max_bytes=MAX_ENVELOPE_BYTES, private=False)
        return data, manifest_digest(Envelope.parse(data).unverified_payload)
    except AttestationError as error:
        raise InvalidSettings(f"manifest {path}: {error}", hint=error.hint) from None

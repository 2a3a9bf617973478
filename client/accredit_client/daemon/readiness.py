"""What this host lacks of what ``daemon.toml`` names, found before the daemon runs.

Nothing here decides who gets an identity; what it overlooks is refused later, for one process at a
time. It looks at the host's own files: an agent in a container may have its code elsewhere, where
only the process sees it.
"""

import os
import pwd
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from accredit_attestors.errors import AttestationError
from accredit_attestors.files import read_small_file
from accredit_client.daemon.agents import AgentEntry
from accredit_client.daemon.launch_settings import LaunchSettings
from accredit_client.daemon.node import FOLDER
from accredit_client.daemon.settings import NodeSettings, Settings

MAX_EVIDENCE_BYTES = 64 * 1024  # of a token, certificate or key


def faults_of(settings: Settings, entries: Sequence[AgentEntry], now: datetime) -> tuple[str, ...]:
    """What is missing or wrong, each in a sentence; nothing where all is in its place."""
    return (*_of_node(settings.node, settings.data), *_of_agents(entries, now))


def _of_node(node: NodeSettings, data: Path) -> Iterator[str]:
    if (data / FOLDER).exists():
        return  # it is known already: a token that was used may be gone
    secrets = (("join token", node.join_token_file), ("key", node.key))
    named = [(what, file, True) for what, file in secrets]
    for what, file, private in (*named, ("certificate", node.certificate, False)):
        if file is None:
            continue
        try:
            read_small_file(file, what=what, max_bytes=MAX_EVIDENCE_BYTES, private=private)
        except AttestationError as error:
            yield f"{error}" + (f" ({error.hint})" if error.hint else "")


def _of_agents(entries: Iterable[AgentEntry], now: datetime) -> Iterator[str]:
    for entry in entries:
        if entry.expires_at <= now:
            yield f"the manifest of {entry.agent} is over: sign and register it anew"
        if not _elsewhere(entry) and not Path(entry.code_root).is_dir():
            yield f"the code root of {entry.agent}, {entry.code_root}, is no folder of this host"
        if entry.launch is not None:
            yield from (f"{each}, which starts {entry.agent}" for each in _of_launch(entry.launch))


def _elsewhere(entry: AgentEntry) -> bool:
    """Whether its code may well be where only the process sees it."""
    return any(each.startswith("container:") for each in entry.selectors)


def _of_launch(launch: LaunchSettings) -> Iterator[str]:
    program = launch.command[0]
    if not os.access(program, os.X_OK) or Path(program).is_dir():
        yield f"there is no program {program}"
    if launch.user and not _is_account(launch.user):
        yield f"there is no account {launch.user}"


def _is_account(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True

"""``accredit run`` on a host with a node daemon: the daemon measures the code and starts it.

The agent is the daemon's child and not ours. It has our standard input, output and error, and ends
with us; it gets the signals that we get, and its exit code is ours.
"""

import os
import shutil
from collections.abc import Sequence
from contextlib import closing

from accredit_attestors.dsse import MAX_ENVELOPE_BYTES, Envelope
from accredit_attestors.errors import AttestationError
from accredit_attestors.files import read_small_file
from accredit_attestors.statement import manifest_digest
from accredit_client.cli import output
from accredit_client.cli.child import exit_code
from accredit_client.cli.forwarding import Forwarding
from accredit_client.cli.problems import FAILED, Failed, NoCommand
from accredit_client.cli.source import Launching
from accredit_client.daemon.launch_wire import LaunchRequest
from accredit_client.workload.launched import LaunchedAgent


def run_launched(source: Launching, command: Sequence[str]) -> int:
    """Have a command started, and wait for its end; the exit code.

    Raises:
        NoCommand: it is not in PATH.
        CannotCollect: the manifest cannot be read.
        Failed: it is none.
        DaemonUnreachable, LaunchRefused, InvalidAnswer: it was not started, or nobody knows how it
            ended.
    """
    envelope = read_small_file(
        source.manifest, what="manifest", max_bytes=MAX_ENVELOPE_BYTES, private=False
    )
    try:
        digest = manifest_digest(Envelope.parse(envelope).unverified_payload)
    except AttestationError as error:
        raise Failed(f"manifest {source.manifest}: {error}", hint=error.hint) from None
    request = LaunchRequest(manifest=digest, command=(_path_of(command[0]), *command[1:]))
    # Its session is not ours: what a terminal sends reaches us alone.
    with (
        Forwarding(same_terminal=False) as forwarding,
        closing(LaunchedAgent.started(source.socket, request, environment=os.environ)) as agent,
    ):
        forwarding.to(agent.signal)
        code = exit_code(agent.wait())
    if agent.ended_by is not None:
        output.error(agent.ended_by, "the daemon has ended the command")
        return code or FAILED
    return code


def _path_of(program: str) -> str:
    """Where it is; a path stays what it is, with its links: the settings name it so.

    Raises:
        NoCommand: a name that is not in PATH.
    """
    if "/" in program:
        return os.path.abspath(program)  # noqa: PTH100 (Path.resolve would follow links)
    found = shutil.which(program)
    if found is None:
        raise NoCommand(f"command {program} was not found")
    return os.path.abspath(found)  # noqa: PTH100 (as above)

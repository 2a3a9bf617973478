"""A process that has an agent started by a daemon, of a user of its own; says what it hears.

    python requester.py UID GID SOCKET MANIFEST COMMAND…

Each line of its standard input is a signal to send; ``wait`` ends that.
"""

import json
import os
import sys
from pathlib import Path

from accredit_client.daemon.launch_wire import LaunchRequest
from accredit_client.errors import ClientError
from accredit_client.workload.launched import LaunchedAgent


def say(**what: object) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Have it started, and wait."""
    uid, gid, socket, manifest, *command = sys.argv[1:]
    os.setgroups([])
    os.setresgid(*[int(gid)] * 3)
    os.setresuid(*[int(uid)] * 3)
    request = LaunchRequest(manifest=manifest, command=tuple(command))
    try:
        agent = LaunchedAgent.started(Path(socket), request, environment=os.environ)
    except ClientError as error:
        say(refused=str(error))
        return
    say(started=agent.pid)
    for line in sys.stdin:
        if line == "wait\n":
            break
        agent.signal(int(line))
    try:
        say(code=agent.wait(), why=agent.ended_by)
    except ClientError as error:
        say(lost=str(error))


if __name__ == "__main__":
    main()

"""An agent that the node daemon has started for us: the requester's end.

Nothing secret passes here: the daemon is told what to start, is given our standard input, output
and error, and the values of those variables that its settings name.
"""

import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from accredit_client.daemon.launch_wire import (
    LaunchRequest,
    receive,
    send,
    send_descriptors,
    socket_of,
)
from accredit_client.errors import DaemonUnreachable, InvalidAnswer, LaunchRefused

STDIO = (0, 1, 2)


class LaunchedAgent:
    """An agent that runs; closing it ends the agent.

    Attributes:
        pid: its number, as the daemon sees it.
        ended_by: why the daemon ended it; None where it did not.
    """

    def __init__(
        self,
        connection: socket.socket,
        request: LaunchRequest,
        *,
        environment: Mapping[str, str],
        descriptors: Sequence[int] = STDIO,
    ) -> None:
        """Have it started.

        Args:
            connection: to the daemon's socket for this; ours from now on.
            request: what to start.
            environment: where the values of the variables that the daemon names are taken from.
            descriptors: standard input, output and error.

        Raises:
            LaunchRefused: the daemon does not, with its reason.
            InvalidAnswer: an answer is not of the documented form.
            DaemonUnreachable, OSError: the daemon is gone.
        """
        self._connection = connection
        self.ended_by: str | None = None
        with suppress(BrokenPipeError):  # refused before it was read to its end: hear why
            send(connection, request.to_json())
        names = self._hear("variables")
        if not isinstance(names, list):
            raise InvalidAnswer("the daemon did not say which variables it wants")
        given = {name: environment[name] for name in names if name in environment}
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before: hear why
            send(connection, {"environment": given})
            send_descriptors(connection, descriptors)
        started = self._hear("started")
        if type(started) is not int:
            raise InvalidAnswer("the daemon did not say whether it started the agent")
        self.pid: int = started

    @classmethod
    def started(
        cls, workload_api: Path, request: LaunchRequest, *, environment: Mapping[str, str]
    ) -> Self:
        """Have it started by the daemon whose Workload API is at a path.

        Raises:
            DaemonUnreachable: nobody serves there.
            LaunchRefused, InvalidAnswer: as the constructor.
        """
        path = socket_of(workload_api)
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(os.fspath(path))
            return cls(connection, request, environment=environment)
        except OSError as error:
            connection.close()
            raise _nobody_there(workload_api, error) from error
        except BaseException:
            connection.close()
            raise

    def signal(self, number: int) -> None:
        """Have a signal sent to it.

        Raises:
            OSError: the daemon is gone.
        """
        send(self._connection, {"signal": number})

    def wait(self) -> int:
        """Its exit code, or minus the number of the signal that ended it.

        Raises:
            DaemonUnreachable: the daemon is gone.
            InvalidAnswer: it says something else.
        """
        answer = self._answer()
        if isinstance(answer.get("ending"), str):
            self.ended_by = answer["ending"]
            answer = self._answer()
        for name, sign in (("exited", 1), ("killed", -1)):
            if type(answer.get(name)) is int:
                return sign * int(answer[name])
        raise InvalidAnswer("the daemon did not say how the agent ended")

    def close(self) -> None:
        """End it, if it has not ended."""
        self._connection.close()

    def _hear(self, what: str) -> Any:
        answer = self._answer()
        if isinstance(answer.get("refused"), str):
            raise LaunchRefused(answer["refused"])
        return answer.get(what)

    def _answer(self) -> dict[str, Any]:
        try:
            answer = receive(self._connection)
        except LaunchRefused as error:
            raise InvalidAnswer(f"the daemon's answer: {error}") from None
        except OSError:
            answer = None
        if answer is None:
            raise DaemonUnreachable("the daemon is gone, and the agent with it")
        return answer


def _nobody_there(workload_api: Path, error: OSError) -> DaemonUnreachable:
    """Why nothing can be started: no daemon at all, or one that starts nothing."""
    path = socket_of(workload_api)
    if isinstance(error, FileNotFoundError) and workload_api.is_socket():
        return DaemonUnreachable(
            f"the node daemon at {workload_api} starts no agents: there is no {path}",
            hint="it does once an entry of its daemon.toml has [agent.launch]",
        )
    return DaemonUnreachable(
        f"no node daemon starts agents at {path}: {error.strerror}",
        hint="is the path right, and accredit daemon run at work?",
    )

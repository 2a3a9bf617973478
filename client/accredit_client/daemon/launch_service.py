"""One connection on which an agent is started: the daemon's end and the requester's.

The agent lives as long as its requester: when that connection ends, the agent is asked to end, and
ended. The requester (``accredit run``) passes its signals on, and gets the exit code.
"""

import os
import socket
import threading
from collections.abc import Sequence
from contextlib import closing, suppress

from accredit_attestors.errors import AttestationError
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.launch_wire import (
    LaunchRequest,
    receive,
    receive_request,
    send,
)
from accredit_client.daemon.launching import Launched, Launcher
from accredit_client.errors import CallerGone, ClientError, InvalidAnswer, LaunchRefused

REQUEST_SECONDS = 10.0
"""In which a requester must have said what it wants."""


def serve_launch(connection: socket.socket, launcher: Launcher) -> None:
    """Serve one accepted connection until what was started has ended; in a thread of its own.

    Whatever is refused is told to the requester and ends here.
    """
    connection.settimeout(REQUEST_SECONDS)
    try:
        with closing(Caller.of(connection)) as requester:
            request, descriptors = receive_request(connection)
            try:
                launched = launcher.launch(requester, request, descriptors)
            finally:
                for each in descriptors:
                    os.close(each)
            try:
                _accompany(connection, launched)
            finally:
                launched.stop()
                launcher.forget(launched)
    except (ClientError, AttestationError) as error:
        with suppress(OSError):
            send(connection, {"refused": str(error)})
    except OSError:
        return  # nobody is there any more, or said nothing in time


def _accompany(connection: socket.socket, launched: Launched) -> None:
    send(connection, {"started": launched.process.pid})
    connection.settimeout(None)
    teller = threading.Thread(target=_tell, args=(connection, launched), daemon=True)
    teller.start()
    try:
        while (message := receive(connection)) is not None:
            number = message.get("signal")
            if set(message) != {"signal"} or type(number) is not int:
                break
            with suppress(CallerGone):
                launched.signal(number)
    except (LaunchRefused, OSError):
        pass  # what is not of the protocol ends it, as the connection's end does
    launched.stop()
    teller.join()


def _tell(connection: socket.socket, launched: Launched) -> None:
    code = launched.wait()
    if code is not None:
        with suppress(OSError):
            send(connection, {"exited": code} if code >= 0 else {"killed": -code})
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # wakes the other thread


class LaunchedAgent:
    """What a requester has of the agent that was started for it.

    Attributes:
        pid: its number, as the daemon sees it.
    """

    def __init__(
        self, connection: socket.socket, request: LaunchRequest, descriptors: Sequence[int]
    ) -> None:
        """Have it started.

        Args:
            connection: to the daemon's socket for this; closing it ends the agent.
            request: what to start.
            descriptors: standard input, output, error, and the directory to start in.

        Raises:
            LaunchRefused: the daemon does not, with its reason.
            InvalidAnswer: the answer is not of the documented form.
            OSError: the daemon is gone.
        """
        self._connection = connection
        with suppress(BrokenPipeError):  # refused before it was read to its end: hear why
            send(connection, request.to_json(), descriptors)
        answer = receive(connection)
        if answer is not None and isinstance(answer.get("refused"), str):
            raise LaunchRefused(answer["refused"])
        if answer is None or type(answer.get("started")) is not int:
            raise InvalidAnswer("the daemon did not say whether it started the agent")
        self.pid: int = answer["started"]

    def signal(self, number: int) -> None:
        """Have a signal sent to it.

        Raises:
            OSError: the daemon is gone.
        """
        send(self._connection, {"signal": number})

    def wait(self) -> int:
        """Its exit code, or minus the number of the signal that ended it.

        Raises:
            InvalidAnswer: the daemon is gone, or says something else.
        """
        answer = receive(self._connection)
        for name, sign in (("exited", 1), ("killed", -1)):
            if answer is not None and type(answer.get(name)) is int:
                return sign * int(answer[name])
        raise InvalidAnswer("the daemon did not say how the agent ended")

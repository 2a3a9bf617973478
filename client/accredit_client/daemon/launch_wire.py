"""What a requester and the daemon say to each other to start an agent, over a unix socket.

Each message is four bytes of length (big endian) and one JSON object. The requester begins:
``{"version": 1, "manifest": "sha256:…", "command": […]}``. The daemon says which variables the
agent is to have, ``{"variables": […]}``, and the requester gives those of them that it has,
``{"environment": {…}}``: nothing else of its environment goes anywhere. Behind that comes one byte
with three descriptors (``SCM_RIGHTS``): standard input, output and error. The agent's own process
takes them (``launch_init``): to close a file may mean to wait for whoever serves it, which neither
the daemon nor root does. Then the daemon says ``{"started": PID}``, or at any point
``{"refused": WHY}``. The requester may say ``{"signal": NUMBER}``; the daemon says
``{"ending": WHY}`` where it ends the agent by itself. Its last word is ``{"exited": CODE}`` or,
where a signal ended it, ``{"killed": NUMBER}``. Who sees the connection end before that knows that
the other side is gone, and with it the agent.
"""

import json
import signal
import socket
import struct
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accredit_client.errors import LaunchRefused
from accredit_credentials.strict_json import NotStrictJson, parse_object

VERSION = 1
MAX_MESSAGE_BYTES = 256 * 1024
MAX_ARGUMENTS = 1024
MAX_VARIABLES = 1024
MAX_MANIFEST = 80
SUFFIX = ".launch"
"""Behind the path of the Workload API's socket: where agents are started."""

FORWARDED = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGKILL,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGCONT,
        signal.SIGSTOP,
        signal.SIGTSTP,
        signal.SIGWINCH,
    }
)
"""Signals that a requester may have sent to what was started for it."""

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRequest:
    """What to start.

    Attributes:
        manifest: the digest of the agent's manifest.
        command: an absolute path, and its arguments.
    """

    manifest: str
    command: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The first message."""
        return {"version": VERSION, "manifest": self.manifest, "command": list(self.command)}


def socket_of(workload_api: Path) -> Path:
    """Where agents are started, by the Workload API's socket."""
    return workload_api.with_name(workload_api.name + SUFFIX)


def parse_request(message: Mapping[str, Any]) -> LaunchRequest:
    """Read the first message.

    Raises:
        LaunchRefused: another version, or not of the documented form.
    """
    if message.get("version") != VERSION or type(message.get("version")) is not int:
        raise LaunchRefused(f"only version {VERSION} of this protocol is spoken")
    if set(message) != {"version", "manifest", "command"}:
        raise LaunchRefused("the request must have version, manifest and command")
    manifest, command = message["manifest"], message["command"]
    if not isinstance(manifest, str) or not 1 <= len(manifest) <= MAX_MANIFEST:
        raise LaunchRefused("manifest must be a digest")
    if not _texts(command, MAX_ARGUMENTS) or not command or not command[0].startswith("/"):
        raise LaunchRefused(
            f"command must be 1 to {MAX_ARGUMENTS} strings, and begin with an absolute path"
        )
    return LaunchRequest(manifest=manifest, command=tuple(command))


def parse_environment(message: Mapping[str, Any], variables: Collection[str]) -> dict[str, str]:
    """Read the second message: values for some of the variables that were asked for.

    Raises:
        LaunchRefused: it has another one, or is not of the documented form.
    """
    environment = message.get("environment")
    if (
        set(message) != {"environment"}
        or not isinstance(environment, dict)
        or not _texts(list(environment.values()), MAX_VARIABLES)
    ):
        raise LaunchRefused(f"environment must be at most {MAX_VARIABLES} names with strings")
    for name in environment:
        if name not in variables:
            raise LaunchRefused(f"the variable {name[:80]!r} was not asked for")
    return environment


def _texts(value: object, most: int) -> bool:
    if not isinstance(value, list) or len(value) > most:
        return False
    return all(isinstance(each, str) and "\0" not in each for each in value)


def send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    """Send one message.

    Raises:
        LaunchRefused: it is too large.
        OSError: nobody is there any more.
    """
    content = json.dumps(message, separators=(",", ":")).encode()
    if len(content) > MAX_MESSAGE_BYTES:
        raise LaunchRefused(f"a message of {len(content)} bytes is too large")
    connection.sendall(_LENGTH.pack(len(content)) + content)


def send_descriptors(connection: socket.socket, descriptors: Sequence[int]) -> None:
    """Send standard input, output and error.

    Raises:
        OSError: nobody is there any more.
    """
    socket.send_fds(connection, [b"\0"], descriptors)


def receive(connection: socket.socket, *, seconds: float | None = None) -> dict[str, Any] | None:
    """The next message; None where the other side has ended.

    Args:
        connection: where from.
        seconds: for all of it, however slowly it comes; None for as long as it takes.

    Raises:
        LaunchRefused: not of the documented form.
        OSError: nothing came in time.
    """
    end = None if seconds is None else time.monotonic() + seconds
    head = _exactly(connection, _LENGTH.size, end)
    return None if head is None else _message(connection, head, end)


def _message(connection: socket.socket, head: bytes, end: float | None) -> dict[str, Any]:
    size = _LENGTH.unpack(head)[0]
    if size > MAX_MESSAGE_BYTES:
        raise LaunchRefused(f"a message has {size} bytes, at most {MAX_MESSAGE_BYTES} are read")
    content = _exactly(connection, size, end)
    if content is None:
        raise LaunchRefused("a message was not sent in full")
    try:
        return parse_object(content)
    except NotStrictJson as error:
        raise LaunchRefused(f"a message is {error}") from None


def _exactly(connection: socket.socket, size: int, end: float | None) -> bytes | None:
    read = b""
    while len(read) < size:
        if end is not None:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError("a message was not sent in time")
            connection.settimeout(left)
        chunk = connection.recv(size - len(read))
        if not chunk:
            if read:
                raise LaunchRefused("a message was not sent in full")
            return None
        read += chunk
    return read

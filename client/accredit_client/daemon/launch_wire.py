"""What a requester and the daemon say to each other to start an agent, over a unix socket.

Each message is four bytes of length (big endian) and one JSON object. The first is the requester's:
``{"version": 1, "command": […], "environment": {…}, "code_root": "/…"}``, and with its first bytes
come four descriptors (``SCM_RIGHTS``): standard input, output, error, and the directory to start
in. Then the daemon says ``{"started": PID}`` or ``{"refused": WHY}``; the requester may say
``{"signal": NUMBER}``; and the daemon's last word is ``{"exited": CODE}`` or, where a signal
ended it, ``{"killed": NUMBER}``. Who sees the connection end before that knows that the other side
is gone.
"""

import json
import os
import re
import signal
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accredit_client.errors import LaunchRefused
from accredit_credentials.strict_json import NotStrictJson, parse_object

VERSION = 1
MAX_MESSAGE_BYTES = 256 * 1024
MAX_ARGUMENTS = 1024
MAX_VARIABLES = 1024
DESCRIPTORS = 4
"""Standard input, output, error; the directory to start in."""

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
_VARIABLE = re.compile(r"[^=\0]{1,256}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRequest:
    """What to start.

    Attributes:
        command: an absolute path, and its arguments.
        environment: all of it; nothing of the daemon's own is added.
        code_root: the code that is to be measured first.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    code_root: str

    def to_json(self) -> dict[str, Any]:
        """The first message."""
        return {
            "version": VERSION,
            "command": list(self.command),
            "environment": dict(self.environment),
            "code_root": self.code_root,
        }


def parse_request(message: Mapping[str, Any]) -> LaunchRequest:
    """Read the first message.

    Raises:
        LaunchRefused: another version, or not of the documented form.
    """
    if message.get("version") != VERSION or type(message.get("version")) is not int:
        raise LaunchRefused(f"only version {VERSION} of this protocol is spoken")
    if set(message) != {"version", "command", "environment", "code_root"}:
        raise LaunchRefused("the request must have version, command, environment and code_root")
    command, environment = message["command"], message["environment"]
    code_root = message["code_root"]
    if not _texts(command, MAX_ARGUMENTS) or not command or not command[0].startswith("/"):
        raise LaunchRefused(
            f"command must be 1 to {MAX_ARGUMENTS} strings, and begin with an absolute path"
        )
    if (
        not isinstance(environment, dict)
        or not all(_VARIABLE.fullmatch(name) for name in environment)
        or not _texts(list(environment.values()), MAX_VARIABLES)
    ):
        raise LaunchRefused(f"environment must be at most {MAX_VARIABLES} names with strings")
    if not _texts([code_root], 1):
        raise LaunchRefused("code_root must be a string")
    return LaunchRequest(command=tuple(command), environment=dict(environment), code_root=code_root)


def _texts(value: object, most: int) -> bool:
    if not isinstance(value, list) or len(value) > most:
        return False
    return all(isinstance(each, str) and "\0" not in each for each in value)


def send(connection: socket.socket, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message, with descriptors.

    Raises:
        LaunchRefused: it is too large.
        OSError: nobody is there any more.
    """
    content = json.dumps(message, separators=(",", ":")).encode()
    if len(content) > MAX_MESSAGE_BYTES:
        raise LaunchRefused(f"a message of {len(content)} bytes is too large")
    whole = _LENGTH.pack(len(content)) + content
    sent = socket.send_fds(connection, [whole], fds) if fds else 0
    connection.sendall(whole[sent:])


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """The next message; None where the other side has ended.

    Raises:
        LaunchRefused: not of the documented form.
        OSError: nothing came in time.
    """
    head = _exactly(connection, _LENGTH.size)
    return None if head is None else _message(connection, head)


def receive_request(connection: socket.socket) -> tuple[LaunchRequest, tuple[int, ...]]:
    """The first message and its descriptors, which are the caller's to close.

    Raises:
        LaunchRefused: not of the documented form.
        OSError: nothing came in time.
    """
    head, fds, flags, _ = socket.recv_fds(
        connection, _LENGTH.size, DESCRIPTORS + 1, socket.MSG_CMSG_CLOEXEC
    )
    try:
        _check_descriptors(len(fds), flags)
        rest = _exactly(connection, _LENGTH.size - len(head))
        return parse_request(_message(connection, head + (rest or b""))), tuple(fds)
    except BaseException:
        for each in fds:
            os.close(each)
        raise


def _check_descriptors(number: int, flags: int) -> None:
    if number != DESCRIPTORS or flags & socket.MSG_CTRUNC:
        raise LaunchRefused(f"{DESCRIPTORS} descriptors must come with the request")


def _message(connection: socket.socket, head: bytes) -> dict[str, Any]:
    if len(head) != _LENGTH.size:
        raise LaunchRefused("a message was not sent in full")
    size = _LENGTH.unpack(head)[0]
    if size > MAX_MESSAGE_BYTES:
        raise LaunchRefused(f"a message has {size} bytes, at most {MAX_MESSAGE_BYTES} are read")
    content = _exactly(connection, size)
    if content is None:
        raise LaunchRefused("a message was not sent in full")
    try:
        return parse_object(content)
    except NotStrictJson as error:
        raise LaunchRefused(f"a message is {error}") from None


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    read = b""
    while len(read) < size:
        chunk = connection.recv(size - len(read))
        if not chunk:
            if read:
                raise LaunchRefused("a message was not sent in full")
            return None
        read += chunk
    return read

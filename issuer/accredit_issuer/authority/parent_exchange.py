"""One call at the parent, with one end for everything together.

A time limit of a socket begins anew with each byte: whoever stands in the parent's place and sends
one now and then would be waited for without end. Here the connection is cut at a moment that was
fixed before it was opened, whatever it is doing: connecting, shaking hands, reading.
"""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson

MAX_ANSWER = 256 * 1024  # bytes
_HTTPS = 443


@dataclass(frozen=True, slots=True)
class Said:
    """What came back: at most ``MAX_ANSWER`` bytes and one more."""

    status: int
    body: bytes = field(repr=False)


def exchange(
    url: str,
    context: ssl.SSLContext,
    method: str,
    path: str,
    body: Mapping[str, Any] | None,
    *,
    seconds: float,
) -> Said:
    """Ask once over a connection of its own; ``url`` says host and port.

    Raises:
        OSError: it was not reached, is not trusted, or took longer (``TimeoutError``).
        http.client.HTTPException: it does not speak HTTP.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _HTTPS
    ends = time.monotonic() + seconds
    content = None if body is None else orjson.dumps(body)
    headers = {} if body is None else {"Content-Type": "application/json"}
    try:
        with _connected(host, port, ends) as plain, _cut_at(plain, ends):
            connection = http.client.HTTPSConnection(host, port, context=context)
            connection.sock = context.wrap_socket(plain, server_hostname=host)
            try:
                connection.request(method, path, content, headers)
                response = connection.getresponse()
                said = Said(response.status, response.read(MAX_ANSWER + 1))
            finally:
                connection.close()
    except (OSError, http.client.HTTPException) as error:
        if time.monotonic() >= ends:
            raise _too_long(seconds) from error
        raise
    if time.monotonic() >= ends:  # cut: what was read may be a part only
        raise _too_long(seconds)
    return said


def _connected(host: str, port: int, ends: float) -> socket.socket:
    """The first address that answers."""
    last: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(max(ends - time.monotonic(), 0.001))
            made.connect(address)
        except OSError as error:
            made.close()
            last = error
        else:
            return made
    raise last or OSError("the name has no address")


@contextmanager
def _cut_at(connection: socket.socket, ends: float) -> Iterator[None]:
    """Shut a connection down at that moment, from beside: reading and writing end at once."""
    line = connection.dup()  # ``connection`` becomes a TLS socket, and is empty then

    def cut() -> None:
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(ends - time.monotonic(), 0), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        line.close()


def _too_long(seconds: float) -> TimeoutError:
    return TimeoutError(f"it took longer than {seconds:g} s")

"""A call at the parent ends at its moment, whatever stands in the parent's place does."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from support.authority import Authority

from accredit_credentials.tls import SpiffeContext, client_context, server_context
from accredit_issuer.authority.parent_exchange import MAX_ANSWER, exchange

# OpenSSL asks the machine's clock and no other.
HERE = Authority(now=datetime.now(UTC).replace(microsecond=0))
PAUSE = 0.05  # seconds between two bytes: far below the limit of any single reading
LIMIT = 0.6  # seconds
LATEST = 5.0  # seconds after which it was waited for too long, on a machine with other work

Serve = Callable[[socket.socket, threading.Event], None]


def context() -> SpiffeContext:
    """Whoever it is, of our trust domain."""
    return client_context(bundle=HERE.bundle, peer_check=lambda _: None, identity=HERE.issue())


def in_tls(plain: socket.socket) -> ssl.SSLSocket:
    """The server's side of a handshake."""
    served = server_context(bundle=HERE.bundle, peer_check=lambda _: None, identity=HERE.issue())
    made = served.wrap_socket(plain, server_side=True)
    made.recv(65536)
    return made


def drip(connection: socket.socket, over: threading.Event) -> None:
    """Send a byte now and then."""
    while not over.wait(PAUSE):
        connection.sendall(b"a")


def in_handshake(plain: socket.socket, over: threading.Event) -> None:
    """A TLS record that is long, and comes byte by byte."""
    plain.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03")
    drip(plain, over)


def in_head(plain: socket.socket, over: threading.Event) -> None:
    """A header without end."""
    made = in_tls(plain)
    made.sendall(b"HTTP/1.1 200 OK\r\nx: ")
    drip(made, over)


def in_body(plain: socket.socket, over: threading.Event) -> None:
    """A long body."""
    made = in_tls(plain)
    made.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n")
    drip(made, over)


def in_silence(_plain: socket.socket, over: threading.Event) -> None:
    """Nothing at all."""
    over.wait()


def whole(plain: socket.socket, _over: threading.Event) -> None:
    """An answer in two pieces."""
    made = in_tls(plain)
    made.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n{")
    made.sendall(b"  }")


def too_long(plain: socket.socket, _over: threading.Event) -> None:
    """More than is read."""
    made = in_tls(plain)
    with contextlib.suppress(OSError):
        made.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * (2 * MAX_ANSWER))


@contextmanager
def serving(serve: Serve) -> Iterator[str]:
    """Somebody in the parent's place, for one connection; gives the URL."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError), listener.accept()[0] as plain:
                serve(plain, over)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize("serve", [in_handshake, in_head, in_body, in_silence])
def test_a_parent_that_drips(serve: Serve) -> None:
    """Byte by byte, in the handshake, the head or the body: it is cut when the time is over."""
    with serving(serve) as url:
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="took longer than"):
            exchange(url, context(), "GET", "/v1/whoami", None, seconds=LIMIT)
        assert time.monotonic() - began < LATEST


def test_a_parent_that_answers() -> None:
    """An answer in time is read whole, and no more than its bound."""
    with serving(whole) as url:
        said = exchange(url, context(), "GET", "/v1/whoami", None, seconds=30)
        assert (said.status, said.body) == (200, b"{  }")
    with serving(too_long) as url:
        said = exchange(url, context(), "GET", "/", None, seconds=30)
        assert len(said.body) == MAX_ANSWER + 1


def test_nobody_is_there() -> None:
    """A port that nobody listens on is an error of the system, at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        exchange(f"https://127.0.0.1:{port}", context(), "GET", "/", None, seconds=30)

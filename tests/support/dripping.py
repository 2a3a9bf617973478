"""An issuer that says what it says byte by byte, and never ends."""

import socket
import threading
from contextlib import closing, suppress

from support.authority import Authority

from accredit_credentials.spiffe_id import issuer_id
from accredit_credentials.tls import server_context

DRIPS = {
    "handshake": None,
    "headers": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-pad: ",
    "refusal": b"HTTP/1.1 503 No\r\ncontent-length: 60000\r\n\r\n",
    "event": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: ",
}


class Dripping:
    """An issuer that begins an answer and goes on with it byte by byte, for ever."""

    def __init__(self, authority: Authority, first: bytes | None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self.began, self._ended = threading.Event(), threading.Event()
        self._first = first
        self._context = server_context(
            bundle=authority.bundle,
            peer_check=lambda _: None,
            identity=authority.issue(issuer_id(authority.trust_domain)),
            client_optional=True,
        )
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError), closing(self._listener.accept()[0]) as plain:
            if self._first is None:
                self.began.set()
                self._ended.wait()
                return
            with self._context.wrap_socket(plain, server_side=True) as connection:
                connection.recv(65536)
                connection.sendall(self._first)
                self.began.set()
                while not self._ended.wait(0.02):
                    connection.sendall(b"a")

    def close(self) -> None:
        """Let go."""
        self._ended.set()
        self._listener.close()
        self._thread.join()

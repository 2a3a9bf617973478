"""What one socket may cost. Every number that bounds a stranger is here."""

from dataclasses import dataclass

KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of the daemon's socket.

    Attributes:
        backlog: connections that wait to be accepted (the kernel's ``somaxconn`` bounds it, too).
        connections: at a time.
        connections_of_uid: at a time, of one user: nobody else is kept out by it.
        streams: calls at a time on one connection.
        given_up: calls of one user, on all its connections, that it gives up or that are refused,
            at once; then the connection is cut. Calls that are answered are not counted.
        given_up_each_second: as many of them become possible again.
        request_bytes: of one message of a caller.
        unread_bytes: that lie written and unread on one connection.
        unread_seconds: that one answer may wait for its reader, then the connection is cut.
        answer_seconds: that a single question may take.
        idle_seconds: that a connection may have no call.
        stop_seconds: that callers have to hear that the daemon stops.
    """

    backlog: int = 4096
    connections: int = 4096
    connections_of_uid: int = 1536
    streams: int = 32
    given_up: int = 2048
    given_up_each_second: float = 500.0
    request_bytes: int = 64 * KIB
    unread_bytes: int = 1024 * KIB
    unread_seconds: float = 30.0
    answer_seconds: float = 30.0
    idle_seconds: float = 300.0
    stop_seconds: float = 2.0

"""What a requester and the daemon say to each other to start an agent: strict, and bounded."""

import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from accredit_client.daemon.launch_wire import (
    MAX_MESSAGE_BYTES,
    LaunchRequest,
    parse_environment,
    parse_request,
    receive,
    socket_of,
)
from accredit_client.errors import DaemonUnreachable, InvalidAnswer, LaunchRefused
from accredit_client.workload.launched import LaunchedAgent

GOOD: dict[str, Any] = {
    "version": 1,
    "manifest": "sha256:" + "5e" * 32,
    "command": ["/bin/sh", ""],
}
REQUEST = LaunchRequest(manifest=GOOD["manifest"], command=("/bin/sh", ""))


def test_a_request_is_read_as_it_was_written() -> None:
    """There and back."""
    assert parse_request(REQUEST.to_json()) == REQUEST
    assert REQUEST.to_json() == GOOD


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": True},
        {"version": None},
        {"command": []},
        {"command": "sh"},
        {"command": ["sh"]},
        {"command": ["/bin/sh", 1]},
        {"command": ["/bin/sh", "a\0b"]},
        {"command": ["/bin/sh"] * 1025},
        {"manifest": None},
        {"manifest": ""},
        {"manifest": "x" * 81},
        {"more": 1},
    ],
)
def test_requests_of_another_form_are_refused(change: dict[str, Any]) -> None:
    """One version, three members, bounded, no NUL."""
    assert parse_request(GOOD).command == ("/bin/sh", "")
    with pytest.raises(LaunchRefused):
        parse_request(GOOD | change)


@pytest.mark.parametrize("missing", list(GOOD))
def test_requests_that_lack_something_are_refused(missing: str) -> None:
    """All three members must be there."""
    with pytest.raises(LaunchRefused):
        parse_request({key: value for key, value in GOOD.items() if key != missing})


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"environment": []},
        {"environment": {"LANG": 1}},
        {"environment": {"LANG": "\0"}},
        {"environment": {"TZ": "UTC"}},
        {"environment": {"LANG": "C"}, "more": 1},
    ],
)
def test_an_environment_has_what_was_asked_for_and_nothing_else(message: dict[str, Any]) -> None:
    """A variable that was not named is refused, and so is what is no text."""
    assert parse_environment({"environment": {"LANG": "C"}}, ["LANG"]) == {"LANG": "C"}
    assert parse_environment({"environment": {}}, ["LANG"]) == {}
    with pytest.raises(LaunchRefused):
        parse_environment(message, ["LANG"])


def framed(text: str) -> bytes:
    """One message."""
    return struct.pack(">I", len(text)) + text.encode()


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack(">I", MAX_MESSAGE_BYTES + 1),
        b"\0\0",
        struct.pack(">I", 5) + b"{}",
        framed("nonsense"),
        framed('{"a": 1, "a": 1}'),
        framed("[]"),
    ],
)
def test_messages_of_another_form_are_refused(sent: bytes) -> None:
    """Too large, cut short, not one JSON object with each key once; the end is the end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(LaunchRefused):
            receive(ours)
        assert receive(ours) is None


def test_a_message_that_comes_byte_by_byte_has_one_end() -> None:
    """The time is for all of it, and does not begin anew with each byte."""
    ours, theirs = socket.socketpair()
    over = threading.Event()

    def drip() -> None:
        with suppress(OSError):
            for byte in framed('{"a": "' + "x" * 100_000 + '"}'):
                theirs.send(bytes([byte]))
                if over.wait(0.01):
                    return

    dripping = threading.Thread(target=drip)
    with ours, theirs:
        dripping.start()
        with pytest.raises(TimeoutError):
            receive(ours, seconds=0.2)
        over.set()
        dripping.join()


def agent(
    said: str, environment: dict[str, str] | None = None
) -> tuple[LaunchedAgent, list[dict[str, Any]]]:
    """The requester's end, of a daemon that says this; and what it was told."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(b"".join(map(framed, said.splitlines())))
        theirs.shutdown(socket.SHUT_WR)
        try:
            made = LaunchedAgent(ours, REQUEST, environment=environment or {})
        except BaseException:
            ours.close()
            raise
        return made, [receive(theirs) or {}, receive(theirs) or {}]


BEGUN = '{"variables": ["LANG", "TZ"]}\n{"started": 42}\n'


def test_the_requester_gives_what_is_asked_for_and_nothing_else() -> None:
    """Of its environment only what the daemon's settings name, and it has."""
    made, told = agent(BEGUN, {"LANG": "C", "TOKEN": "canary"})
    assert told == [REQUEST.to_json(), {"environment": {"LANG": "C"}}]
    assert made.pid == 42
    made.close()


@pytest.mark.parametrize(
    ("said", "code", "why"),
    [
        ('{"exited": 7}', 7, None),
        ('{"killed": 9}', -9, None),
        ('{"ending": "revoked"}\n{"killed": 15}', -15, "revoked"),
    ],
)
def test_the_requester_hears_the_end(said: str, code: int, why: str | None) -> None:
    """The exit, and why the daemon ended it where it did."""
    made, _ = agent(BEGUN + said)
    assert (made.wait(), made.ended_by) == (code, why)
    made.close()


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ('{"refused": "because"}', LaunchRefused),
        ('{"variables": []}\n{"refused": "because"}', LaunchRefused),
        ('{"started": 42}', InvalidAnswer),
        ('{"variables": []}\n{"started": "42"}', InvalidAnswer),
        ('{"variables": []}', DaemonUnreachable),
        ("", DaemonUnreachable),
        ("nonsense", InvalidAnswer),
    ],
)
def test_the_requester_believes_nothing_else(said: str, error: type[Exception]) -> None:
    """A refusal says why; what is not of the protocol, or the end, is no agent."""
    with pytest.raises(error):
        agent(said)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("", DaemonUnreachable),
        ('{"ending": "x"}', DaemonUnreachable),
        ('{"exited": "0"}', InvalidAnswer),
        ('{"exited": true}', InvalidAnswer),
    ],
)
def test_an_end_that_is_not_told_is_no_success(said: str, error: type[Exception]) -> None:
    """Nobody takes a daemon that is gone for an agent that ended well."""
    made, _ = agent(BEGUN + said)
    with pytest.raises(error):
        made.wait()
    made.close()


def test_where_no_daemon_starts_anything(tmp_path: Path) -> None:
    """One line says so, and what to do; the socket is the one beside the Workload API's."""
    path = tmp_path / "agent.sock"
    assert socket_of(path) == tmp_path / "agent.sock.launch"
    with pytest.raises(DaemonUnreachable, match=r"agent\.sock\.launch") as refused:
        LaunchedAgent.started(path, REQUEST, environment={})
    assert "accredit daemon run" in str(refused.value.hint)
    with socket.socket(socket.AF_UNIX) as served:
        served.bind(str(path))
        with pytest.raises(DaemonUnreachable, match="starts no agents") as refused:
            LaunchedAgent.started(path, REQUEST, environment={})
    assert "[agent.launch]" in str(refused.value.hint)

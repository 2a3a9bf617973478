"""``accredit stream``, against one issuer."""

import pytest
from client_cli.workplace import World, accredit, succeed

PUSHED = ["stream", "add", "siem", "--audience", "https://siem.example.org"]
URL = "https://127.0.0.1:1/events"
RECEIVER = "spiffe://example.org/ns/security/agent/soar"


def test_from_nothing_to_nothing(world: World) -> None:
    """A stream of each kind is added, listed, verified and removed."""
    assert succeed("stream", "list").err == "no streams of security events\n"
    added = succeed(*PUSHED, "--push", URL, "--json").document
    assert added["endpoint_url"] == URL
    assert added["method"] == "urn:ietf:rfc:8935"
    polled = succeed("stream", "add", "soar", "--audience", "a", "--receiver", RECEIVER, "--json")
    assert polled.document["endpoint_url"].endswith(f"/v1/ssf/poll/{polled.document['stream_id']}")
    assert polled.document["receiver"] == RECEIVER
    listed = succeed("stream", "list", "--json").document
    assert [each["name"] for each in listed] == ["siem", "soar"]
    shown = succeed("stream", "list").out
    assert URL in shown
    assert RECEIVER in shown
    assert added["stream_id"] in succeed("stream", "verify", "siem").out
    for name in ("siem", "soar"):
        assert succeed("stream", "remove", name).out == f"stream {name} removed\n"
    assert succeed("stream", "list", "--json").document == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "--push, or who polls"),
        (["--push", URL, "--receiver", RECEIVER], 2, "--push, or who polls"),
        (["--push", "http://siem.example.org"], 1, "https://"),
        (["--push", "https://siem.example.org/?token=canary"], 1, "query"),
        (["--receiver", "soar"], 1, "spiffe://"),
        (["--receiver", "spiffe://other.example/x"], 1, "of example.org"),
    ],
)
def test_what_does_not_fit_is_said(
    world: World, arguments: list[str], code: int, says: str
) -> None:
    """One line, in the words of the options, and no secret of an address in it."""
    result = accredit(*PUSHED, *arguments)
    assert result.code == code
    assert says in result.err
    assert "canary" not in result.err
    assert succeed("stream", "list", "--json").document == []


def test_a_stream_that_is_not_there(world: World) -> None:
    """Is neither removed nor verified."""
    for command in ("remove", "verify"):
        result = accredit("stream", command, "nobody")
        assert result.code == 1
        assert "no stream is called nobody" in result.err

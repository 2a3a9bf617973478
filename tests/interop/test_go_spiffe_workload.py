"""go-spiffe as workloads of a real daemon: sources, watchers, mTLS and federation, as it has them.

The processes are strangers, written with go-spiffe alone; node, daemon, issuer and measured code
are real.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.calling import AGENT_UID, as_root
from support.go_spiffe import B, Endpoint
from support.node_daemon import Host, Workload, host, until

from accredit_client import calls

pytestmark = as_root

OTHER_UID = AGENT_UID + 100
AUDIENCE = "https://tickets.example.org"
SUMMARIZER = "spiffe://example.org/ns/support/agent/summarizer"
TRIAGE = "spiffe://example.org/ns/support/agent/triage"


@pytest.fixture
def place() -> Iterator[Host]:
    """A host whose SVIDs live for an hour."""
    with host() as made:
        yield made


@pytest.fixture
def quick() -> Iterator[Host]:
    """A host whose SVIDs live for twelve seconds: renewal comes after some six."""
    with host(x509_svid=12) as made:
        yield made


def workload(place: Host, agent: Any, uid: int) -> Workload:
    """A process of the signed Go program, with both sources open."""
    return place.told(str(agent.root / "judge"), "workload", f"unix://{place.socket}", uid=uid)


def pair(place: Host, judge: Path) -> tuple[Workload, Workload]:
    """Two agents of different users, each with its sources."""
    files = {"judge": judge.read_bytes()}
    first = place.agent(files=files)
    second = place.agent("triage", uid=OTHER_UID, files=files)
    place.listed()
    place.daemon()
    return workload(place, first, AGENT_UID), workload(place, second, OTHER_UID)


@pytest.mark.spec("SPIFFE-71")
@pytest.mark.spec("SPIFFE-76")
def test_two_workloads_of_go_spiffe_know_each_other(place: Host, judge: Path) -> None:
    """In both directions from its X509Source, and no other SPIFFE ID where one is named."""
    first, second = pair(place, judge)
    assert first.ask("sources")["id"] == SUMMARIZER
    assert second.ask("sources")["id"] == TRIAGE
    for server, client, at, who in (
        (first, second, SUMMARIZER, TRIAGE),
        (second, first, TRIAGE, SUMMARIZER),
    ):
        address = server.ask("serve", who)["address"]
        assert client.ask("dial", address, at) == {"peer": at, "greeting": "welcome"}
        assert server.heard() == {"event": "peer", "id": who}
        assert "unexpected ID" in client.ask("dial", address, who)["error"]
        assert server.heard()["event"] == "refused"
        closed = server.ask("serve", at)["address"]  # only to itself
        assert "error" in client.ask("dial", closed, at)
        assert "unexpected ID" in server.heard()["error"]


@pytest.mark.spec("SPIFFE-71")
def test_a_token_of_its_source_is_valid_for_the_neighbour(place: Host, judge: Path) -> None:
    """By the Workload API and by go-spiffe itself, for its audience alone, until it is revoked."""
    first, second = pair(place, judge)
    first.ask("sources")
    second.ask("sources")
    token = first.ask("jwt", AUDIENCE)["token"]
    for how in ("validate", "verify"):
        assert second.ask(how, AUDIENCE, token)["id"] == SUMMARIZER
        assert "error" in second.ask(how, "https://other.example.org", token)
        assert "error" in second.ask(how, AUDIENCE, token[:-8] + "AAAAAAAA")
    target = "agent:support/summarizer"
    place.admin.send(calls.revoke(target=target, kind="revoked", reason="incident 2"))
    # Nothing in SPIFFE tells a library that validates by itself; the Workload API knows.
    until(lambda: "incident 2" in second.ask("validate", AUDIENCE, token).get("error", ""))
    assert "PermissionDenied" in first.ask("jwt", "https://new.example.org")["error"]
    assert second.ask("jwt", AUDIENCE)["id"] == TRIAGE


@pytest.mark.spec("SPIFFE-99")
def test_its_watcher_sees_a_rotation(quick: Host, judge: Path) -> None:
    """Each renewal comes by itself; the X509Source has the new SVID, and mTLS goes on with it."""
    first, second = pair(quick, judge)
    first.ask("sources")
    second.ask("sources")
    address = second.ask("serve", SUMMARIZER)["address"]
    before = first.ask("svid")
    assert first.ask("watch") == {}
    seen = [first.heard() for _ in range(2)]
    assert [each["event"] for each in seen] == ["new", "new"]
    assert seen[0]["serial"] == before["serial"]
    assert seen[1]["serial"] != before["serial"]
    assert {each["id"] for each in seen} == {SUMMARIZER}
    assert first.ask("dial", address, TRIAGE)["peer"] == TRIAGE


@pytest.mark.spec("SPIFFE-74")
@pytest.mark.spec("SPIFFE-77")
def test_it_is_given_the_bundles_of_other_domains(
    place: Host, judge: Path, theirs: Endpoint
) -> None:
    """A federated domain has its own authorities and keys, as its endpoint has them."""
    endpoint = calls.federate(
        trust_domain=B,
        profile="https_spiffe",
        endpoint_url=theirs.url,
        endpoint_spiffe_id=theirs.spiffe_id,
        bundle=theirs.bundle,
    )
    place.admin.send(endpoint)
    first, second = pair(place, judge)
    found = first.ask("bundles")
    assert found["x509"] == {"example.org": 1, "b.example": 1}
    assert found["jwt"]["b.example"] == ["ec-1", "rsa-1"]
    assert found["jwt"]["example.org"]
    assert second.ask("bundles") == found


def test_who_is_not_signed_gets_nothing(place: Host, judge: Path) -> None:
    """The same program with a byte more is another program."""
    agent = place.agent(files={"judge": judge.read_bytes()})
    place.listed()
    place.daemon()
    with (agent.root / "judge").open("ab") as program:
        program.write(b"\0")
    refused = workload(place, agent, AGENT_UID)
    refused.tell("watch")
    assert refused.heard() == {}
    said = refused.heard()
    assert said["event"] == "lost"
    assert "PermissionDenied" in said["error"]
    assert "not what was signed" in said["error"]

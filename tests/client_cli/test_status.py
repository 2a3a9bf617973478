"""``accredit status``: one screen, what is to do first."""

from datetime import UTC, datetime, timedelta

import pytest
from client_cli.workplace import World, accredit, succeed

from accredit_client.answers import (
    AuthorityRecord,
    CrlRecord,
    DutyRecord,
    FactCount,
    FeedStatus,
    StatusAnswer,
    VerifierRecord,
)
from accredit_client.cli import status as module

NOW = datetime(2026, 12, 1, 3, 0, tzinfo=UTC)


def verifier(number: int, **changes: object) -> VerifierRecord:
    """A verifier that is as it should be, but for some changes."""
    values: dict[str, object] = {
        "spiffe_id": f"spiffe://example.org/node/build-{number}",
        "instance": f"i-{number}",
        "through": 12,
        "silent_seconds": 3.0,
        "behind_seconds": 0.0,
        "gone": False,
    }
    return VerifierRecord(**{**values, **changes})  # type: ignore[arg-type]


def answer(*verifiers: VerifierRecord, to_do: tuple[DutyRecord, ...] = ()) -> StatusAnswer:
    """What an issuer answers."""
    return StatusAnswer(
        trust_domain="example.org",
        at=NOW,
        to_do=to_do,
        facts=(
            FactCount(target="agent", revoked=2, suspended=1),
            FactCount(target="node", revoked=1, suspended=0),
        ),
        feed=FeedStatus(through=12, streams=44, named=40, unnamed=3, silent=1, verifiers=verifiers),
        crls=tuple(
            CrlRecord(
                authority=f"{number:040x}",
                number=7,
                this_update=NOW - timedelta(minutes=30),
                next_update=NOW + timedelta(hours=5),
                entries=3,
                bytes=1536,
            )
            for number in range(20)
        ),
        authorities=(
            AuthorityRecord(
                id="7d9c0b6e2a41f3589c07be1d46a8f25301ce97ab",
                kind="jwt",
                state="active",
                revoked=False,
                parent=None,
                origin="own",
                prepared_at=NOW,
                activates_from=None,
                active_from=NOW,
                last_use=NOW + timedelta(hours=12),
                tainted_at=None,
                removal=NOW + timedelta(hours=13),
                expires_at=NOW + timedelta(hours=24),
                planned=("last_use", "removal"),
                resting=None,
            ),
        ),
    )


def shown(found: StatusAnswer, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the command prints."""
    monkeypatch.setattr(module.session, "ask", lambda _profile, _call: found)
    return succeed("status").out


def test_a_screen_tells_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts, feed, CRLs and authorities fit on one screen, however many there are."""
    lines = shown(answer(*map(verifier, range(100))), monkeypatch).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100
    assert lines[0] == "example.org at 2026-12-01T03:00:00Z"
    assert lines[2] == "to do  nothing: all is as it should be"
    assert lines[3] == "facts  3 revoked, 1 suspended (3 agent, 1 node); the newest is 12"
    assert lines[5].strip() == "every verifier by name applies what it was told"
    assert "30 min ago" in lines[8]
    assert "in 5 h 0 min" in lines[8]
    assert lines[8].split()[-2:] == ["3", "1.5"]
    assert lines[-1].startswith("jwt        7d9c0b6e2a41  active  signs last in 12 h 0 min")


def test_what_is_to_do_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The urgent is marked, and an issuer's words move no cursor."""
    duties = (DutyRecord(urgent=True, text="a\x1b[2J"), DutyRecord(urgent=False, text="later"))
    lines = shown(answer(to_do=duties), monkeypatch).splitlines()
    assert lines[2:4] == ["to do  NOW: a\\x1b[2J", "       later"]


def test_who_is_behind_is_named_with_since_when(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind, still, or gone: by name; of very many the rest is counted."""
    found = shown(
        answer(
            verifier(1, through=10, behind_seconds=75.4),
            verifier(2, through=10, behind_seconds=None),
            verifier(3, silent_seconds=61.0),
            verifier(4, gone=True),
            verifier(5),
            verifier(6, through=11, behind_seconds=0.2),
        ),
        monkeypatch,
    )
    assert (
        "BEHIND spiffe://example.org/node/build-1 (instance i-1): 2 facts behind for 75 s" in found
    )
    assert "build-2 (instance i-2): 2 facts behind for longer than is known, silent" in found
    assert "build-3 (instance i-3): has the newest fact, silent for 61 s" in found
    assert "left   spiffe://example.org/node/build-4" in found
    assert "build-5" not in found
    assert "build-6" not in found, "a fact that was stated a moment ago may be on its way"
    many = [verifier(number, through=1, behind_seconds=9.0) for number in range(50)]
    assert "BEHIND 42 more" in shown(answer(*many), monkeypatch)


def test_the_real_one(world: World) -> None:
    """Against an issuer: as a screen, and as one document with the same."""
    agent = world.new_agent()
    succeed("revoke", "agent", agent.name, "--reason", "r", "--wait", "0")
    found = succeed("status")
    assert "example.org at " in found.out
    assert "agent" in found.out
    document = succeed("status", "--json").document
    assert document["feed"]["through"] == world.running.issuer.feed.through
    assert {each["kind"] for each in document["authorities"]} >= {"root", "x509", "jwt"}
    assert document["crls"][0]["bytes"] > 0
    assert document["to_do"] == []


def test_who_may_not_read_everything_is_refused(world: World) -> None:
    """An owner of some namespaces sees no verifiers."""
    invited = succeed(
        "admin", "invite", "looker", "--role", "owner", "--namespace", "support", "--json"
    ).document
    assert world.log_in(invited["enrolment_token"], "--profile", "looker").code == 0
    refused = accredit("status", "--profile", "looker")
    assert refused.code == 1
    assert "does not allow to read" in refused.err

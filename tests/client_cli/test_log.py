"""The log: what is verified on this machine, and the lies that are found out."""

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from client_cli.workplace import World, accredit, succeed

from accredit_client.answers import Explanation, LogPage
from accredit_client.wire import Issuer

Lie = Callable[[Any], Any]


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> Callable[[type, Lie], None]:
    """Makes the issuer change its answers of one type."""

    def install(kind: type, lie: Lie) -> None:
        honest = Issuer.send

        def send(self: Issuer, call: Any) -> Any:
            answer = honest(self, call)
            return lie(answer) if isinstance(answer, kind) else answer

        monkeypatch.setattr(Issuer, "send", send)

    return install


def instance_of(world: World) -> str:
    """A new instance."""
    _, folder = world.attested()
    return str(succeed("svid", "show", folder, "--json").document["instance"])


def test_whole_log_leads_to_the_signed_checkpoint(world: World) -> None:
    """Every entry is fetched and hashed again, and the next time continues this one."""
    first = succeed("log", "verify", "--json").document
    world.new_agent()
    second = succeed("log", "verify", "--json").document
    assert second["seen_before"] == first["entries"]
    assert second["entries"] > first["entries"]
    assert succeed("log", "verify").out.startswith("PASS  ")


def test_explanation_tells_the_story_of_a_token(world: World) -> None:
    """Who added the signer, what was attested, why the token was allowed, and what ended it."""
    agent, folder = world.attested()
    token = succeed(
        "token", "get", "tickets", "read", "--purpose", "ticket 4711", "--folder", folder, "--json"
    ).document
    succeed("revoke", "agent", agent.name, "--reason", "leaked")
    story = succeed("log", "explain", token["jti"]).out
    for part in (
        "signer added: ci",
        "manifest registered: sha256:",
        "instance attested: ",
        f"credential issued: {token['jti']}",
        "tickets:read is declared with the risk low",
        ["purpose", "ticket", "4711"][-1],
        f"revoked: agent:{agent.name}",
        "leaked",
    ):
        assert part in story
    records = succeed("log", "explain", token["jti"], "--json").document["records"]
    assert [record["kind"] for record in records][-1] == "fact.stated"


def test_forged_proof_is_refused(world: World, lying: Callable[[type, Lie], None]) -> None:
    """A record whose inclusion proof does not lead to the checkpoint is never shown."""
    instance = instance_of(world)

    def lie(honest: Explanation) -> Explanation:
        first, *rest = honest.entries
        proof = (bytes(32), *first.proof[1:])
        return replace(honest, entries=(replace(first, proof=proof), *rest))

    lying(Explanation, lie)
    result = accredit("log", "explain", instance)
    assert (result.code, result.out) == (1, "")
    assert "does not lead to the root" in result.err


def test_changed_record_is_refused(world: World, lying: Callable[[type, Lie], None]) -> None:
    """A leaf with other words has another hash."""
    instance = instance_of(world)

    def lie(honest: Explanation) -> Explanation:
        first, *rest = honest.entries
        return replace(
            honest, entries=(replace(first, leaf=first.leaf.replace(b"ci", b"me")), *rest)
        )

    lying(Explanation, lie)
    assert accredit("log", "explain", instance).code == 1


def test_words_beside_the_leaf_are_not_believed(
    world: World, lying: Callable[[type, Lie], None]
) -> None:
    """What is shown is what was hashed, whatever the issuer writes next to it."""
    instance = instance_of(world)

    def lie(honest: Explanation) -> Explanation:
        entries = tuple(replace(e, record={**e.record, "actor": "forger"}) for e in honest.entries)
        return replace(honest, entries=entries)

    lying(Explanation, lie)
    assert "forger" not in succeed("log", "explain", instance).out


def test_true_records_of_something_else_are_refused(
    world: World, lying: Callable[[type, Lie], None]
) -> None:
    """Records that are really in the log prove nothing about another id."""
    instance = instance_of(world)
    lying(Explanation, lambda honest: replace(honest, entries=honest.entries[:1]))
    result = accredit("log", "explain", instance)
    assert (result.code, result.out) == (1, "")
    assert "no record that was shown is about" in result.err


def test_answer_about_another_id_is_refused(
    world: World, lying: Callable[[type, Lie], None]
) -> None:
    """An explanation of something else, however true, answers no question."""
    instance = instance_of(world)
    lying(Explanation, lambda honest: replace(honest, id="another"))
    result = accredit("log", "explain", instance)
    assert (result.code, result.out) == (1, "")


def test_log_that_lost_entries_is_refused(world: World, lying: Callable[[type, Lie], None]) -> None:
    """A signed checkpoint that is smaller than one seen before is taken for what it is."""
    old = world.running.issuer.log.checkpoint
    world.new_agent()
    succeed("log", "verify")
    lying(str, lambda _: old)
    result = accredit("log", "verify")
    assert (result.code, result.out) == (1, "")
    assert "entries were taken back" in result.err


def test_checkpoint_of_another_key_is_refused(
    world: World, lying: Callable[[type, Lie], None]
) -> None:
    """Only the key that was pinned at login speaks for the log."""

    def lie(text: str) -> str:
        head, _, signature = text.rpartition(" ")
        return (
            f"{head} {signature[:8]}{'A' * 80}{signature[88:]}" if "accredit-log" in head else text
        )

    lying(str, lie)
    result = accredit("log", "verify")
    assert result.code == 1
    assert "error: " in result.err


def test_entries_in_another_order_are_refused(
    world: World, lying: Callable[[type, Lie], None]
) -> None:
    """Leaving out or swapping entries does not add up."""
    lying(LogPage, lambda page: replace(page, entries=page.entries[::-1]))
    assert accredit("log", "verify").code == 1
    lying(LogPage, lambda page: replace(page, entries=()))
    assert accredit("log", "verify").code == 1


def test_tail_prints_the_newest_entries_one_line_each(world: World) -> None:
    """The last N entries, each on its line, or as one document."""
    agent = world.new_agent()
    lines = succeed("log", "tail", "-n", "2").out.splitlines()
    assert len(lines) == 2
    assert "manifest.registered" in lines[0]
    assert f"agent.enrolled        {agent.name}" in lines[1]
    assert len(succeed("log", "tail", "-n", "3", "--json").document) == 3


def test_unknown_id_is_refused(world: World) -> None:
    """Nothing is made up for an id that the issuer does not know."""
    result = accredit("log", "explain", "no-such-id")
    assert (result.code, result.out) == (1, "")


def test_tail_follows_and_ends_with_ctrl_c(world: World) -> None:
    """New entries appear as they come; Ctrl-C ends it quietly."""
    command = "import sys; from accredit_client.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-uc", command, "log", "tail", "-n", "1", "--follow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    agent = world.new_agent()
    assert "manifest.registered" in process.stdout.readline()
    assert agent.name in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")


def test_reader_that_has_seen_enough_ends_it_quietly(world: World) -> None:
    """``| head`` leaves no traceback."""
    command = "import sys; from accredit_client.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "log", "tail"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(30) == 1

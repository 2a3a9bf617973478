"""Taking back, and taking the taking back back."""

import re

import pytest
from client_cli.workplace import World, accredit, succeed

from accredit_client import calls
from accredit_client.answers import PreviewAnswer
from accredit_client.call import Call


def test_revocation_is_in_force_at_once_and_listed(world: World) -> None:
    """The command prints the fact and how long it took; ``facts`` has it from then on."""
    agent = world.new_agent()
    revoked = succeed("revoke", "agent", agent.name, "--reason", "leaked its prompt")
    assert f"agent:{agent.name}" in revoked.out
    assert re.match(r"in force after [0-9]+ ms\n", revoked.err)
    found = [f for f in succeed("facts", "--json").document if f["target"].endswith(agent.name)]
    assert [(f["kind"], f["reason"]) for f in found] == [("revoked", "leaked its prompt")]
    assert accredit("agent", "enrol", agent.name).code == 1


def test_suspension_is_restored_and_a_revocation_is_not(world: World) -> None:
    """A false alarm can be ended; a revocation cannot."""
    agent = world.new_agent()
    succeed("suspend", "agent", agent.name, "--reason", "an alert")
    succeed("restore", "agent", agent.name, "--reason", "false alarm")
    succeed("agent", "enrol", agent.name)
    succeed("revoke", "agent", agent.name, "--reason", "no false alarm")
    refused = accredit("restore", "agent", agent.name, "--reason", "please")
    assert refused.code == 1
    assert "only a suspension can be restored" in refused.err


def test_document_has_facts_and_duration(world: World) -> None:
    """One JSON document, with everything that the table says."""
    agent = world.new_agent()
    stated = succeed("revoke", "agent", agent.name, "--reason", "r", "--json").document
    assert stated["facts"][0]["target"] == f"agent:{agent.name}"
    assert stated["milliseconds"] > 0


def test_reason_and_known_kind_are_required(world: World) -> None:
    """Nobody revokes without saying why, nor something that does not exist."""
    assert accredit("revoke", "agent", "support/a").code == 2
    assert accredit("revoke", "planet", "earth", "--reason", "r").code == 2
    assert accredit("revoke", "agent", "support/nobody", "--reason", "r").code == 1


def test_former_versions_end_together(world: World) -> None:
    """All but the newest, listed by a dry run as they then end; only of an agent."""
    agent, _ = world.attested()
    name = ("agent", agent.name)
    only = accredit("revoke", *name, "--reason", "CVE", "--keep-newest")
    assert (only.code, "only one version" in only.err) == (1, True)
    world.new_version(agent)
    asked = ("revoke", *name, "--reason", "CVE", "--keep-newest")
    (told,) = succeed(*asked, "--dry-run", "--json").document["targets"]
    (stated,) = succeed(*asked, "--json").document["facts"]
    assert stated["target"] == told
    assert told.startswith("manifest:sha256:")
    succeed("agent", "enrol", agent.name)
    wrong = accredit("revoke", "namespace", "support", "--reason", "r", "--keep-newest")
    assert (wrong.code, "versions of an agent" in wrong.err) == (2, True)


def test_a_dry_run_counts_and_changes_nothing(world: World) -> None:
    """What would end is listed and counted; the agent goes on, and the real word ends the same."""
    agent, _ = world.attested()
    through = world.running.issuer.feed.through
    asked = ("revoke", "agent", agent.name, "--reason", "r")
    dry = succeed(*asked, "--dry-run")
    assert f"would be revoked  agent:{agent.name}\n" in dry.out
    assert "credentials       1 x509\n" in dry.out
    assert dry.err == "a dry run: nothing was stated, and nothing is changed\n"
    document = succeed(*asked, "--dry-run", "--json").document
    assert document["dry_run"] is True
    assert "facts" not in document, "nobody takes it for the real one"
    assert (document["instances"], document["manifests"], document["agents"]) == (1, 1, 1)
    assert world.running.issuer.feed.through == through
    succeed("agent", "enrol", agent.name)
    stated = succeed(*asked, "--json").document
    assert [each["target"] for each in stated["facts"]] == document["targets"]


@pytest.mark.parametrize("command", ["revoke", "suspend", "restore"])
def test_a_dry_run_is_refused_as_the_real_one(world: World, command: str) -> None:
    """What cannot be stated cannot be tried out either, and it needs a reason as well."""
    asked = (command, "agent", "support/nobody", "--reason", "r")
    assert accredit(*asked, "--dry-run").err == accredit(*asked).err
    assert accredit(command, "agent", world.new_agent().name, "--dry-run").code == 2


def test_an_older_issuer_states_nothing_for_a_dry_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the path is not known the command fails; it never falls back to the real one."""
    through = world.running.issuer.feed.through
    agent = world.new_agent().name
    monkeypatch.setattr(calls, "revocation_preview", _unknown)
    failed = accredit("revoke", "agent", agent, "--reason", "r", "--dry-run")
    assert failed.code == 1
    assert world.running.issuer.feed.through == through


def _unknown(**asked: str) -> Call[PreviewAnswer]:
    path = "/v1/revocations/no-such-path"
    return Call(method="POST", path=path, read=lambda _: PreviewAnswer(**asked), body=asked)  # type: ignore[arg-type]

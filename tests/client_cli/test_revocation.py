"""Taking back, and taking the taking back back."""

import re

from client_cli.workplace import World, accredit, succeed


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

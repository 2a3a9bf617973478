"""``accredit authority``: a forced rotation as a security team types it."""

import re

import pytest
from client_cli.workplace import World, accredit, succeed


def test_a_forced_rotation(world: World) -> None:
    """Prepare, activate, taint, revoke: named by the beginning of the id, seen in the list."""
    (old,) = [each for each in succeed("authority", "show", "--json").document
              if (each["kind"], each["state"]) == ("jwt", "active")]  # fmt: skip
    prepared = succeed("authority", "prepare", "jwt")
    assert "prepared" in prepared.out
    assert re.fullmatch(r"verifiers know it from [0-9TZ:-]+ on\n", prepared.err)
    new = prepared.out.splitlines()[1].split()[1]
    waiting = accredit("authority", "activate", new)
    assert waiting.code == 1
    assert "verifiers may not know it before" in waiting.err
    assert "--early" in waiting.err
    assert "active" in succeed("authority", "activate", new, "--early").out
    refused = accredit("authority", "taint", new, "--reason", "x")
    assert "prepare and activate another first" in refused.err
    assert "tainted" in succeed("authority", "taint", old["id"][:6], "--reason", "seen").out
    assert "removed" in succeed("authority", "revoke", old["id"], "--reason", "all renewed").out
    assert old["id"][:12] not in succeed("authority", "show").out
    assert old["id"][:12] in succeed("authority", "show", "--all").out


def test_an_issuing_ca_need_not_be_known_before(world: World) -> None:
    """It travels with each leaf: no moment is named from which on verifiers know it."""
    prepared = succeed("authority", "prepare", "x509")
    assert "prepared" in prepared.out
    assert prepared.err == ""


def test_planned_moments_are_marked(world: World) -> None:
    """What has not come yet has a star, and the document names it."""
    shown = {each["kind"]: each for each in succeed("authority", "show", "--json").document}
    assert shown["root"]["planned"] == ["last_use", "removal"]
    (line,) = [row for row in succeed("authority", "show").out.splitlines()
               if row.startswith("root")]  # fmt: skip
    assert line.count("*") == 2


@pytest.mark.parametrize(
    ("which", "said"),
    [("abc", "6 characters at least"), ("zzzzzz", "no authorities begin with"), ("", "at least")],
)
def test_an_id_is_named_clearly_or_not_at_all(world: World, which: str, said: str) -> None:
    """Too little of an id, or of none, changes nothing."""
    for command in (("activate",), ("taint", "--reason", "x"), ("revoke", "--reason", "x")):
        result = accredit("authority", command[0], which, *command[1:])
        assert result.code == 1
        assert said in result.err


def test_a_reason_is_required() -> None:
    """Nobody taints or revokes without saying why."""
    assert accredit("authority", "taint", "abcdef").code == 2
    assert accredit("authority", "revoke", "abcdef").code == 2

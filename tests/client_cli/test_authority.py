"""``accredit authority``: a forced rotation as a security team types it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from client_cli.workplace import World, accredit, succeed
from support.issuer import running_issuer

from accredit_client.cli.profile import Profile


def test_a_forced_rotation(alone: World) -> None:
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
    revoked = succeed("authority", "revoke", old["id"], "--reason", "all renewed")
    assert "removed" in revoked.out
    assert revoked.err == f"0 unexpired credentials rest on {old['id'][:12]}\n"
    assert old["id"][:12] not in succeed("authority", "show").out
    assert old["id"][:12] in succeed("authority", "show", "--all").out


@pytest.fixture
def alone(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """An issuer and a login that no other test uses: its roots go."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with running_issuer(tmp_path / "issuer") as running:
        made = World(running, tmp_path)
        assert made.log_in(running.first_token).code == 0
        yield made


def active(kind: str) -> str:
    """The id of the key that signs."""
    (found,) = [each for each in succeed("authority", "show", "--json").document
                if (each["kind"], each["state"]) == (kind, "active")]  # fmt: skip
    return str(found["id"])


def test_whoever_rotates_everything_is_not_cut_off(alone: World) -> None:
    """Root, issuing CA and JWT key, one command after the other: the login goes along."""
    for kind in ("root", "x509", "jwt"):
        old = active(kind)
        prepared = succeed("authority", "prepare", kind, "--json").document
        succeed("authority", "activate", prepared[0]["id"], "--early")
        assert active(kind) == prepared[0]["id"]
        succeed("authority", "taint", old, "--reason", "rotation")
        succeed("whoami")
        succeed("authority", "revoke", old, "--reason", "all renewed")
        succeed("whoami")
    svid = Profile.named("default").read().identity.svid
    assert svid.authorities == {active("x509"), active("root")}


def test_what_rests_on_a_key_is_said_and_asked_about(
    alone: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal who says no has revoked nothing; with --yes nobody is asked."""
    old = active("x509")
    prepared = succeed("authority", "prepare", "x509", "--json").document
    succeed("authority", "activate", prepared[0]["id"])
    succeed("authority", "taint", old, "--reason", "rotation")
    asked = list[str]()

    def confirm(text: str, **_: object) -> bool:
        asked.append(text)
        return False

    monkeypatch.setattr("accredit_client.cli.authority.typer.confirm", confirm)
    monkeypatch.setattr("accredit_client.cli.authority.somebody_is_there", lambda: True)
    refused = accredit("authority", "revoke", old, "--reason", "gone")
    assert (refused.code, len(asked)) == (1, 1)
    assert re.match(rf"[1-9]\d* unexpired credentials rest on {old[:12]}\n", refused.err)
    assert "was not revoked" in refused.err
    states = {each["id"]: each["state"] for each in succeed("authority", "show", "--json").document}
    assert states[old] == "tainted"
    assert "removed" in succeed("authority", "revoke", old, "--reason", "gone", "--yes").out
    assert len(asked) == 1
    succeed("whoami")


def test_nobody_saws_off_the_branch_they_sit_on(alone: World) -> None:
    """A key that the login rests on is not revoked by it, and the way to do it is named."""
    old = active("x509")
    prepared = succeed("authority", "prepare", "x509", "--json").document
    succeed("authority", "activate", prepared[0]["id"])
    refused = accredit("authority", "revoke", old[:12], "--reason", "gone")
    assert refused.code == 1
    assert f"accredit authority taint {old[:12]}" in refused.err
    succeed("authority", "taint", old[:12], "--reason", "gone")
    succeed("authority", "revoke", old[:12], "--reason", "gone")
    succeed("whoami")


def test_the_emergency_takes_the_ids_that_are_shown(alone: World) -> None:
    """``revoke authority`` knows a key by its beginning, as the other commands do."""
    old = active("jwt")
    assert f"authority:{old}" in succeed("revoke", "authority", old[:12], "--reason", "leak").out
    unknown = accredit("revoke", "authority", "00" * 6, "--reason", "leak")
    assert "no authorities begin with" in unknown.err


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

"""Logging in, staying logged in, and logging out."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from client_cli.workplace import World, accredit, mode_of, secret_file, succeed

from accredit_client.cli import session
from accredit_client.cli.profile import Profile
from accredit_client.effects import utc_now
from accredit_client.trust import pin_of

_CANARY = "accredit-enrol." + "A" * 16 + "." + "c4nary" + "x" * 37


@pytest.fixture
def token(world: World) -> str:
    """A one-time token of a new admin."""
    world.agents += 1
    invited = succeed("admin", "invite", f"admin-{world.agents}", "--role", "security")
    return invited.out.strip()


@pytest.fixture
def other(world: World, token: str) -> Iterator[str]:
    """Another login beside the default one."""
    assert world.log_in(token, "--profile", "other").code == 0
    yield "other"
    accredit("logout", "--profile", "other")


def test_login_is_kept_private_and_used_by_later_commands(world: World, other: str) -> None:
    """One login, and every command knows who asks; the folder is 0700 and the key 0600."""
    shown = succeed("whoami", "--profile", other, "--json").document
    assert shown["role"] == "security"
    folder = Profile.named(other).folder
    assert mode_of(folder) == 0o700
    assert mode_of(folder / "svid_key.pem") == 0o600
    assert mode_of(folder / "log_key") == 0o600


def test_login_by_pin_needs_no_bundle_file(world: World, token: str, tmp_path: Path) -> None:
    """The digest of the root is enough to begin with."""
    pin = pin_of(world.running.bundle.x509_authorities[0])
    result = accredit(
        "login", "--url", world.url, "--trust", pin, "--profile", "pinned",
        "--token-file", secret_file(tmp_path / "token", token),
    )  # fmt: skip
    assert result.code == 0, result.err


def test_login_by_another_pin_is_refused_before_the_token_is_sent(
    world: World, token: str, tmp_path: Path
) -> None:
    """Somebody else's issuer gets no token: it is still good afterwards."""
    token_file = secret_file(tmp_path / "token", token)
    arguments = ["login", "--url", world.url, "--token-file", str(token_file), "--profile", "late"]
    refused = accredit(*arguments, "--trust", "sha256:" + "0" * 64)
    assert refused.code == 1
    assert "no authority of this issuer has the digest" in refused.err
    assert accredit(*arguments, "--trust", world.bundle_file).code == 0


def test_refused_token_is_never_repeated(world: World) -> None:
    """A wrong one-time token is an error of one line that does not contain it."""
    result = world.log_in(_CANARY, "--profile", "nobody")
    assert result.code == 1
    assert "unauthenticated" in result.err
    assert "c4nary" not in result.out + result.err


def test_token_file_of_others_is_refused(world: World, tmp_path: Path) -> None:
    """A token that the group could read is taken for lost."""
    file = secret_file(tmp_path / "token", _CANARY)
    file.chmod(0o640)
    result = accredit(
        "login", "--url", world.url, "--trust", world.bundle_file, "--token-file", file
    )
    assert result.code == 1
    assert "mode 0640" in result.err
    assert "hint: " in result.err


def test_unreachable_issuer_is_exit_code_3(world: World) -> None:
    """A script can tell an issuer that is away from one that says no."""
    result = accredit(
        "login", "--url", "https://127.0.0.1:1", "--trust", world.bundle_file,
        "--token-file", "-", stdin=_CANARY.encode(),
    )  # fmt: skip
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith(
        "error: https://127.0.0.1:1 did not answer: the connection was refused"
    )


@pytest.mark.parametrize("command", ["whoami", "agent list", "log verify", "facts"])
def test_without_a_login_commands_end_with_code_4(world: World, command: str) -> None:
    """Nobody is asked anything without a login, and the hint is how to log in."""
    result = accredit(*command.split(), "--profile", "never")
    assert (result.code, result.out) == (4, "")
    assert "hint: log in with: accredit login" in result.err


def test_profile_name_cannot_leave_the_folder(world: World) -> None:
    """A profile is a name, not a path."""
    assert accredit("logout", "--profile", "../../etc").code == 1


def test_svid_past_half_life_is_renewed_by_the_next_command(
    world: World, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An admin who works every day never logs in again."""
    before = Profile.named(other).read().identity
    monkeypatch.setattr(session, "utc_now", lambda: utc_now() + timedelta(hours=5))
    succeed("whoami", "--profile", other)
    after = Profile.named(other).read().identity
    assert after.svid.spiffe_id == before.svid.spiffe_id
    assert after.svid.serial != before.svid.serial
    assert after.key.public_key() != before.key.public_key()


def test_expired_login_is_exit_code_4(
    world: World, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was away for too long is told how to come back."""
    monkeypatch.setattr(session, "utc_now", lambda: utc_now() + timedelta(hours=9))
    result = accredit("whoami", "--profile", other)
    assert result.code == 4
    assert "expired" in result.err
    assert "accredit admin invite" in result.err


def test_logout_removes_key_and_certificate(world: World, other: str) -> None:
    """Nothing of a login stays on the machine."""
    folder = Profile.named(other).folder
    succeed("logout", "--profile", other)
    assert not folder.exists()
    assert "not logged in" in succeed("logout", "--profile", other).err


def test_what_was_seen_of_the_log_outlives_a_new_login(world: World, other: str) -> None:
    """Logging in again does not make this machine forget what the log may not take back."""
    succeed("log", "verify", "--profile", other)
    seen = Profile.named(other).seen_checkpoint()
    world.agents += 1
    again = succeed("admin", "invite", f"admin-{world.agents}", "--role", "viewer").out.strip()
    assert world.log_in(again, "--profile", other).code == 0
    assert seen is not None
    assert Profile.named(other).seen_checkpoint() == seen


def test_the_bundle_is_asked_for_again_in_time(world: World, other: str) -> None:
    """A command more than half a minute after the last one fetches the bundle, one before not."""
    profile = Profile.named(other)
    assert accredit("whoami", "--profile", other).code == 0
    before = profile.asked_at()
    assert accredit("whoami", "--profile", other).code == 0
    assert profile.asked_at() == before
    profile.asked(before - timedelta(seconds=31))
    assert accredit("whoami", "--profile", other).code == 0
    assert profile.asked_at() >= before

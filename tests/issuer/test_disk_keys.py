"""Private keys on disk: closed to others, encrypted, and opened by their own passphrase only."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from support.clock import SettableClock
from support.issuer import make_config

from accredit_issuer.errors import InvalidSettings, Unavailable
from accredit_issuer.issuer import initialise, open_issuer
from accredit_issuer.keys.disk import DiskKeys
from accredit_issuer.keys.key_manager import KeyMissing
from accredit_issuer.keys.secret_files import make_passphrase, read_passphrase
from accredit_issuer.settings import Config, KeysOnDisk

PASSPHRASE = b"correct horse battery"
COMMAND = [str(Path(sys.executable).parent / "accredit-issuer")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of keys."""
    DiskKeys(tmp_path / "keys", PASSPHRASE).create_folder()
    return tmp_path / "keys"


def test_files_are_for_their_owner_only(folder: Path) -> None:
    """The folder is 0700 and made once; each file is 0600 and has a name of its own."""
    keys = DiskKeys(folder, PASSPHRASE)
    made = keys.generate()
    keys.generate_log_key()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    assert {file.name for file in folder.iterdir()} == {f"{made.id}.pem", "log.pem"}
    with pytest.raises(FileExistsError):
        keys.create_folder()


def test_encrypted_means_encrypted(folder: Path) -> None:
    """With a passphrase no file holds a key that opens without it."""
    keys = DiskKeys(folder, PASSPHRASE)
    keys.generate()
    keys.generate_log_key()
    for file in folder.iterdir():
        pem = file.read_bytes()
        assert pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
        with pytest.raises(TypeError):
            serialization.load_pem_private_key(pem, None)


@pytest.mark.parametrize("passphrase", [b"", b"correct horse batterz", PASSPHRASE + b"\n"])
def test_a_wrong_passphrase_says_nothing_of_the_right_one(folder: Path, passphrase: bytes) -> None:
    """The error names the key and the setting, and neither passphrase."""
    made = DiskKeys(folder, PASSPHRASE).generate()
    expected = f"key {made.id} cannot be opened: compare keys.passphrase_file"
    with pytest.raises(KeyMissing, match=expected) as missing:
        DiskKeys(folder, passphrase).load(made.id)
    assert "horse" not in str(missing.value)


def test_encrypted_and_clear_are_not_mixed(folder: Path) -> None:
    """A key in clear is refused where keys are encrypted, and the other way round."""
    clear, encrypted = DiskKeys(folder, None), DiskKeys(folder, PASSPHRASE)
    in_clear, in_cipher = clear.generate().id, encrypted.generate().id
    with pytest.raises(KeyMissing, match=r"is not encrypted, and keys\.unencrypted is false"):
        encrypted.load(in_clear)
    with pytest.raises(KeyMissing, match=r"is encrypted, and keys\.unencrypted is true"):
        clear.load(in_cipher)
    assert "not encrypted" in clear.check()
    assert "not encrypted" not in encrypted.check()


def test_a_file_is_the_key_that_its_name_says(folder: Path) -> None:
    """Exchanged, empty and foreign files are missing keys, and nothing is made in their place."""
    keys = DiskKeys(folder, PASSPHRASE)
    one, other = keys.generate().id, keys.generate().id
    keys.generate_log_key()
    (folder / f"{one}.pem").rename(folder / "kept")
    (folder / f"{other}.pem").rename(folder / f"{one}.pem")
    (folder / "kept").rename(folder / f"{other}.pem")
    for key_id in (one, other):
        with pytest.raises(KeyMissing, match="another key"):
            keys.load(key_id)
    (folder / f"{one}.pem").write_bytes((folder / "log.pem").read_bytes())
    (folder / f"{other}.pem").write_bytes(b"")
    before = {file: file.read_bytes() for file in folder.iterdir()}
    for key_id in (one, other):
        with pytest.raises(KeyMissing):
            keys.load(key_id)
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_a_folder_that_is_gone_is_unavailable(folder: Path) -> None:
    """Nothing can be made, and looking says so."""
    folder.rmdir()
    keys = DiskKeys(folder, PASSPHRASE)
    with pytest.raises(Unavailable):
        keys.generate()
    with pytest.raises(Unavailable):
        keys.check()


def secret_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    """A file of a passphrase."""
    file = folder / "p"
    file.write_bytes(content)
    file.chmod(mode)
    return file


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"twelve bytes", b"twelve bytes"),
        (b"twelve bytes\n", b"twelve bytes"),
        (b"twelve bytes\r\n", b"twelve bytes"),
        (b" twelve bytes", b" twelve bytes"),
        (b"x" * 1024, b"x" * 1024),
        (b"x" * 1024 + b"\r\n", b"x" * 1024),
    ],
)
def test_a_passphrase_is_a_line(tmp_path: Path, content: bytes, expected: bytes) -> None:
    """The end of the line is not part of it, everything else is."""
    assert read_passphrase(secret_file(tmp_path, content)) == expected


@pytest.mark.parametrize("content", [b"", b"\n", b"eleven byte", b"eleven byte\n", b"x" * 1025])
def test_a_passphrase_has_a_length(tmp_path: Path, content: bytes) -> None:
    """Too short and too long are refused with both bounds, and without the passphrase."""
    with pytest.raises(InvalidSettings, match="12 to 1024") as refused:
        read_passphrase(secret_file(tmp_path, content))
    assert "eleven" not in str(refused.value)


def test_a_missing_passphrase_file_is_named(tmp_path: Path) -> None:
    """The error names the setting and the file."""
    with pytest.raises(InvalidSettings, match=r"keys\.passphrase_file: .*nowhere"):
        read_passphrase(tmp_path / "nowhere")


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o620, 0o660, 0o601])
def test_a_passphrase_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    """Others may not read it, and only its owner may write it."""
    with pytest.raises(InvalidSettings, match=f"mode {mode:04o}") as refused:
        read_passphrase(secret_file(tmp_path, PASSPHRASE, mode))
    assert "horse" not in str(refused.value)


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640])
def test_a_group_may_be_handed_a_passphrase(tmp_path: Path, mode: int) -> None:
    """A service manager's way to give it to the issuer's user."""
    assert read_passphrase(secret_file(tmp_path, PASSPHRASE, mode)) == PASSPHRASE


def test_a_made_passphrase_is_random_and_kept(tmp_path: Path) -> None:
    """256 random bits for the owner only; one that is there is left alone."""
    made = set()
    for name in ("a", "b"):
        assert make_passphrase(tmp_path / name)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        passphrase = read_passphrase(tmp_path / name)
        assert len(bytes.fromhex(passphrase.decode())) == 32
        made.add(passphrase)
        assert not make_passphrase(tmp_path / name)
        assert read_passphrase(tmp_path / name) == passphrase
    assert len(made) == 2


def _files(config: Config) -> dict[Path, bytes]:
    assert isinstance(config.keys, KeysOnDisk)
    return {file: file.read_bytes() for file in config.keys.folder.iterdir()}


@pytest.mark.parametrize("given", [True, False], ids=["given", "made"])
def test_a_whole_issuer_is_encrypted(tmp_path: Path, given: bool) -> None:
    """Every key of an issuer, the log's too, needs the passphrase; init is not repeated."""
    if given:
        secret_file(tmp_path, PASSPHRASE).rename(tmp_path / "issuer.passphrase")
    config = make_config(tmp_path)
    initialise(config, SettableClock())
    before = _files(config)
    assert len(before) == 4
    assert all(pem.startswith(b"-----BEGIN ENCRYPTED") for pem in before.values())
    with pytest.raises(InvalidSettings, match="already"):
        initialise(config, SettableClock())
    assert _files(config) == before
    assert (read_passphrase(tmp_path / "issuer.passphrase") == PASSPHRASE) is given
    (tmp_path / "issuer.passphrase").unlink()
    with pytest.raises(InvalidSettings, match=r"keys\.passphrase_file"):
        open_issuer(config, SettableClock())


def _run(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder, env={"PATH": os.environ["PATH"]},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_init_says_that_it_made_a_passphrase(tmp_path: Path) -> None:
    """One line names the file and what to do with it; the passphrase is nowhere; doctor agrees."""
    done = _run("init", "--trust-domain", "example.org", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "issuer.passphrase"
    assert len(done.stderr.splitlines()) == 1
    assert str(file) in done.stderr
    assert "apart from the backups" in done.stderr
    assert file.read_text().strip() not in done.stdout + done.stderr
    examined = _run("doctor", "--json", folder=tmp_path)
    findings = {f["what"]: f for f in json.loads(examined.stdout)["findings"]}
    assert findings["keys"]["ok"]
    assert findings["keys"]["found"] == "4 on disk, encrypted"
    file.write_text("another passphrase\n")
    examined = _run("doctor", folder=tmp_path)
    assert examined.returncode == 1
    assert "compare keys.passphrase_file" in examined.stdout
    assert "another passphrase" not in examined.stdout + examined.stderr


def test_keys_in_clear_are_asked_for(tmp_path: Path) -> None:
    """Without encryption there is no passphrase, and init and doctor both mention it."""
    (tmp_path / "issuer.toml").write_text(
        'trust_domain = "example.org"\n[keys]\nunencrypted = true\n'
    )
    done = _run("init", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "file permissions only" in done.stderr
    assert not (tmp_path / "issuer.passphrase").exists()
    assert "not encrypted" in _run("doctor", folder=tmp_path).stdout

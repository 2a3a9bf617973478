"""Private keys on disk: closed to others, encrypted, never overwritten, never made in passing."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from support.clock import SettableClock
from support.issuer import make_config

from accredit_issuer.authority.key_store import KeyMissing, KeyStore, read_passphrase
from accredit_issuer.errors import InvalidSettings
from accredit_issuer.issuer import initialise

PASSPHRASE = b"correct horse battery"


@pytest.fixture(params=[None, PASSPHRASE], ids=["plain", "encrypted"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> KeyStore:
    """A store with a folder."""
    store = KeyStore(tmp_path / "keys", request.param)
    store.create_folder()
    return store


def test_files_are_for_their_owner_only(store: KeyStore, tmp_path: Path) -> None:
    """The folder is 0700 and each file 0600 from the moment it is made."""
    store.create("a")
    store.create_log_key("log")
    folder = tmp_path / "keys"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


def test_a_key_comes_back(store: KeyStore) -> None:
    """What was made is what is loaded, also under its later name."""
    key, log_key = store.create("a"), store.create_log_key("log")
    store.rename("a", "b")
    assert store.load("b").private_numbers() == key.private_numbers()
    assert store.load_log_key("log").private_bytes_raw() == log_key.private_bytes_raw()


def test_nothing_is_overwritten(store: KeyStore, tmp_path: Path) -> None:
    """A key of a name that is taken, and a folder that is there, are refused; nothing changes."""
    store.create("a")
    before = (tmp_path / "keys" / "a.pem").read_bytes()
    for again in (store.create, store.create_log_key):
        with pytest.raises(FileExistsError):
            again("a")
    with pytest.raises(FileExistsError):
        store.create_folder()
    assert (tmp_path / "keys" / "a.pem").read_bytes() == before


def test_a_missing_key_is_not_made(store: KeyStore, tmp_path: Path) -> None:
    """Loading what is not there, is empty or is of another kind is an error and leaves no file."""
    store.create_log_key("log")
    (tmp_path / "keys" / "empty.pem").touch()
    before = set((tmp_path / "keys").iterdir())
    for name in ("a", "log", "empty"):
        with pytest.raises(KeyMissing):
            store.load(name)
    with pytest.raises(KeyMissing):
        store.load_log_key("a")
    assert set((tmp_path / "keys").iterdir()) == before


def test_encrypted_means_encrypted(tmp_path: Path) -> None:
    """With a passphrase no file holds a key that opens without it."""
    store = KeyStore(tmp_path / "keys", PASSPHRASE)
    store.create_folder()
    store.create("a")
    pem = (tmp_path / "keys" / "a.pem").read_bytes()
    assert pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    with pytest.raises(TypeError):
        serialization.load_pem_private_key(pem, None)


@pytest.mark.parametrize("passphrase", [None, b"", b"correct horse batterz", PASSPHRASE + b"\n"])
def test_a_wrong_passphrase_says_nothing_of_the_right_one(
    tmp_path: Path, passphrase: bytes | None
) -> None:
    """The error names the key and the setting, and neither passphrase."""
    right = KeyStore(tmp_path / "keys", PASSPHRASE)
    right.create_folder()
    right.create("a")
    with pytest.raises(KeyMissing, match=r"key a cannot be opened: compare keys") as missing:
        KeyStore(tmp_path / "keys", passphrase).load("a")
    assert "horse" not in str(missing.value)


def test_a_needless_passphrase_is_refused(tmp_path: Path) -> None:
    """A key that stands there in clear is not opened as if it were encrypted."""
    plain = KeyStore(tmp_path / "keys", None)
    plain.create_folder()
    plain.create("a")
    with pytest.raises(KeyMissing):
        KeyStore(tmp_path / "keys", PASSPHRASE).load("a")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"twelve bytes", b"twelve bytes"),
        (b"twelve bytes\n", b"twelve bytes"),
        (b"twelve bytes\r\n", b"twelve bytes"),
        (b" twelve bytes", b" twelve bytes"),
        (b"x" * 1024, b"x" * 1024),
    ],
)
def test_a_passphrase_is_a_line(tmp_path: Path, content: bytes, expected: bytes) -> None:
    """The end of the line is not part of it, everything else is."""
    (tmp_path / "p").write_bytes(content)
    assert read_passphrase(tmp_path / "p") == expected


@pytest.mark.parametrize("content", [b"", b"\n", b"eleven byte", b"eleven byte\n", b"x" * 1025])
def test_a_passphrase_has_a_length(tmp_path: Path, content: bytes) -> None:
    """Too short and too long are refused with both bounds, and without the passphrase."""
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(InvalidSettings, match="12 to 1024") as refused:
        read_passphrase(tmp_path / "p")
    assert "eleven" not in str(refused.value)


def test_a_missing_passphrase_file_is_named(tmp_path: Path) -> None:
    """The error names the setting and the file."""
    with pytest.raises(InvalidSettings, match=r"keys\.passphrase_file: .*nowhere"):
        read_passphrase(tmp_path / "nowhere")
    assert read_passphrase(None) is None


def test_a_whole_issuer_with_a_passphrase(tmp_path: Path) -> None:
    """Every key of such an issuer is encrypted, the log's too, and init is not repeated."""
    (tmp_path / "p").write_bytes(PASSPHRASE)
    config = make_config(tmp_path, keys={"passphrase_file": "p"})
    initialise(config, SettableClock())
    files = sorted(config.keys.iterdir())
    assert len(files) == 4
    for file in files:
        assert b"ENCRYPTED" in file.read_bytes()
    before = {file: file.read_bytes() for file in files}
    with pytest.raises(InvalidSettings, match="already"):
        initialise(config, SettableClock())
    assert {file: file.read_bytes() for file in config.keys.iterdir()} == before

"""The identity folder: private from the first byte, changed in one step, read in one piece."""

import os
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest
from support.authority import Authority
from support.manual_time import ManualTime

from accredit_client import files
from accredit_client.errors import InvalidFolder
from accredit_client.files import FolderContent, read_folder, write_folder
from accredit_client.identity import AgentIdentity
from accredit_credentials.x509_svid import X509Identity

URL = "https://issuer.example.org"
NAMES = {"svid.pem", "svid_key.pem", "bundle.pem", "bundle.json", "issuer.json"}


def _content(authority: Authority, identity: X509Identity | None = None) -> FolderContent:
    return FolderContent(URL, authority.bundle, identity or authority.issue())


@pytest.fixture
def folder(tmp_path: Path, authority: Authority) -> Path:
    """A folder that was written."""
    folder = tmp_path / "identity"
    write_folder(folder, _content(authority))
    return folder


def test_what_is_written_is_read(tmp_path: Path, authority: Authority) -> None:
    """Identity, bundle and issuer come back as they were."""
    content = _content(authority)
    write_folder(tmp_path / "identity", content)
    read = read_folder(tmp_path / "identity")
    assert read.identity.svid == content.identity.svid
    assert read.identity.key_pem == content.identity.key_pem
    assert (read.bundle, read.issuer_url) == (authority.bundle, URL)


def test_what_the_daemon_gave_names_no_issuer(tmp_path: Path, authority: Authority) -> None:
    """It is read as it was written, and nobody takes an identity from it that needs an issuer."""
    folder = tmp_path / "identity"
    write_folder(folder, FolderContent(None, authority.bundle, authority.issue()))
    read = read_folder(folder)
    assert read.issuer_url is None
    with pytest.raises(InvalidFolder, match="names no issuer"):
        read.issuer()
    with pytest.raises(InvalidFolder, match="names no issuer") as refused:
        AgentIdentity.from_folder(folder).start()
    assert "from_daemon" in str(refused.value.hint)
    write_folder(folder, _content(authority))
    assert read_folder(folder).issuer() == URL


def test_only_the_owner_can_look(folder: Path) -> None:
    """The folder is 0700 and every file 0600, whatever the umask."""
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in NAMES:
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_the_key_is_never_open_even_for_a_moment(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the most generous umask, each file is closed to others at its creation."""
    modes: list[int] = []
    real_open = os.open

    def watching_open(path: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = real_open(path, flags, mode)
        if flags & os.O_CREAT:
            modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    monkeypatch.setattr(files.os, "open", watching_open)
    before = os.umask(0)
    try:
        write_folder(tmp_path / "identity", _content(authority))
    finally:
        os.umask(before)
    assert modes == [0o600] * len(NAMES)


def test_a_new_set_replaces_the_old_one(folder: Path, authority: Authority) -> None:
    """After a second writing there is one set, and nothing is left of the first."""
    second = _content(authority)
    write_folder(folder, second)
    assert read_folder(folder).identity.svid == second.identity.svid
    assert {path.name for path in folder.iterdir()} == {*NAMES, ".current", _current(folder)}


def test_a_reader_never_sees_two_halves(folder: Path, authority: Authority) -> None:
    """While one thread rewrites the folder, every reading gives a key with its certificate."""
    contents = [_content(authority) for _ in range(30)]

    def write() -> None:
        for content in contents:
            write_folder(folder, content)

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        read_folder(folder)
    writer.join()
    assert read_folder(folder).identity.svid == contents[-1].identity.svid


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_a_folder_that_others_may_enter_is_refused(folder: Path, mode: int) -> None:
    """Neither read nor written, and the mode that is expected is named."""
    folder.chmod(mode)
    with pytest.raises(InvalidFolder, match="0700"):
        read_folder(folder)


def test_a_key_that_others_may_read_is_refused(folder: Path) -> None:
    """A key file that is open to a group is not used."""
    (folder / "svid_key.pem").resolve().chmod(0o640)
    with pytest.raises(InvalidFolder, match="0600"):
        read_folder(folder)


def test_another_key_is_refused_without_showing_it(folder: Path, authority: Authority) -> None:
    """A key that does not belong to the SVID is an error that carries no key."""
    other = authority.issue().key_pem
    (folder / "svid_key.pem").resolve().write_bytes(other)
    with pytest.raises(InvalidFolder, match="does not belong") as refused:
        read_folder(folder)
    assert "PRIVATE KEY" not in repr(refused.value)
    (folder / "svid_key.pem").resolve().write_text("canary-secret")
    with pytest.raises(InvalidFolder, match="does not hold an identity") as refused:
        read_folder(folder)
    assert "canary" not in str(refused.value)


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    """The error names the folder, and who should have filled it."""
    with pytest.raises(InvalidFolder, match="nowhere") as refused:
        read_folder(tmp_path / "nowhere")
    assert "accredit run" in (refused.value.hint or "")


def test_an_identity_follows_its_folder(folder: Path, authority: Authority) -> None:
    """A new set in the folder becomes the identity within one look."""
    time = ManualTime(authority.now)
    identity = AgentIdentity.from_folder(folder, clock=time.clock, draw=lambda: 0.5)
    with closing(identity):
        identity.start(waiter=time)
        first = identity.x509
        second = authority.issue()
        write_folder(folder, _content(authority, second))
        time.advance(seconds=2)
        time.settle()
        assert identity.x509.svid == second.svid
        assert first.svid != second.svid


def test_a_torn_folder_does_not_end_the_identity(folder: Path, authority: Authority) -> None:
    """While the folder cannot be read, the identity serves on and says why it is not renewed."""
    time = ManualTime(authority.now)
    identity = AgentIdentity.from_folder(folder, clock=time.clock, draw=lambda: 0.5)
    with closing(identity):
        identity.start(waiter=time)
        first = identity.x509
        (folder / ".current").unlink()
        time.advance(seconds=2)
        time.settle()
        assert isinstance(identity.status.last_error, InvalidFolder)
        assert identity.x509 is first


def test_discovery_reads_the_environment(
    folder: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment names a folder, which holds the secret; without it there is an error."""
    monkeypatch.setitem(os.environ, "ACCREDIT_FOLDER", str(folder))
    with AgentIdentity.discover() as identity:
        assert identity.x509.svid.spiffe_id == authority.id()
    monkeypatch.delitem(os.environ, "ACCREDIT_FOLDER")
    with pytest.raises(InvalidFolder, match="ACCREDIT_FOLDER must name"):
        AgentIdentity.discover()


def _current(folder: Path) -> str:
    return str((folder / ".current").readlink())

"""Files kept for software that only reads files: what is written when, and who is told."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.authority import Authority
from support.fake_issuer import FakeIssuer
from support.manual_time import ManualTime

from accredit_client.cli.problems import Failed
from accredit_client.cli.svid_watch import KeptFiles
from accredit_client.errors import InvalidFolder
from accredit_client.files import PRIVATE, Access, FolderContent, read_folder, write_folder
from accredit_client.identity import AgentIdentity

URL = "https://issuer.example.org"


class Reader:
    """Software that is told; it fails as often as it was set to."""

    def __init__(self) -> None:
        self.told = 0
        self.fails = 0

    def __call__(self) -> str:
        """Tell it."""
        if self.fails:
            self.fails -= 1
            raise Failed("it is not running")
        self.told += 1
        return "told"


def test_each_change_is_told_once(
    identity: AgentIdentity, time: ManualTime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One set and one word for each renewal, however often it is looked at; failures try again."""
    reader, now = Reader(), 0.0
    out = tmp_path / "out"
    kept = KeptFiles(
        out, PRIVATE, URL, identity,
        reload=reader, crls=False, monotonic=lambda: now, draw=lambda: 0.0,
    )  # fmt: skip
    for _ in range(3):
        kept.look()
    assert reader.told == 1
    first = read_folder(out).identity.svid.serial
    time.advance(hours=10.1)
    time.settle()
    reader.fails = 2
    capsys.readouterr()
    kept.look()
    assert read_folder(out).identity.svid.serial != first
    kept.look()  # not before its pause is over
    assert reader.fails == 1
    now = 0.6
    kept.look()
    assert (reader.fails, reader.told) == (0, 1)
    now = 2.0
    for _ in range(3):
        kept.look()
    assert reader.told == 2
    err = capsys.readouterr().err
    assert err.count("nobody was told: it is not running") == 1
    assert err.startswith("svid.pem of spiffe://")


def test_a_folder_that_cannot_be_written_is_said_once(
    identity: AgentIdentity, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody is told of files that are not there; once it can be written, it is."""
    reader, out = Reader(), tmp_path / "out"
    out.touch()
    kept = KeptFiles(out, PRIVATE, URL, identity, reload=reader, crls=False)
    kept.look()
    kept.look()
    assert reader.told == 0
    assert capsys.readouterr().err.count("trying again") == 1
    out.unlink()
    kept.look()
    assert reader.told == 1


def test_an_svid_that_is_over_is_said_once(
    identity: AgentIdentity,
    issuer: FakeIssuer,
    time: ManualTime,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """However long the issuer is away, the files stay as they are, and one line says why."""
    kept = KeptFiles(tmp_path / "out", PRIVATE, URL, identity, reload=None, crls=False)
    kept.look()
    capsys.readouterr()
    issuer.away = True
    time.advance(hours=20.1)
    for _ in range(3):
        time.advance(seconds=60)
        time.settle()
        kept.look()
    assert capsys.readouterr().err.count("error: the SVID is expired") == 1
    assert (tmp_path / "out" / "svid.pem").exists()


def test_one_group_may_read_where_that_is_said(tmp_path: Path, authority: Authority) -> None:
    """0750 and 0640 of that group, the key too; another group, others and writing are refused."""
    out, group = tmp_path / "out", os.getgid()
    access = Access(group)
    content = FolderContent(URL, authority.bundle, authority.issue())
    write_folder(out, content, access)
    assert out.stat().st_mode & 0o777 == 0o750
    for each in out.iterdir():
        status = each.stat()
        assert status.st_gid == group
        assert status.st_mode & 0o777 == (0o750 if each.is_dir() else 0o640)
    assert read_folder(out, access).identity.svid == content.identity.svid
    with pytest.raises(InvalidFolder, match="0700"):
        read_folder(out)
    with pytest.raises(InvalidFolder, match="everybody but group"):
        read_folder(out, Access(group + 1))
    for mode in (0o770, 0o755):
        out.chmod(mode)
        with pytest.raises(InvalidFolder, match="0750"):
            write_folder(out, content, access)


def test_killed_while_writing_leaves_a_whole_set(tmp_path: Path, authority: Authority) -> None:
    """Whenever SIGKILL comes: the key belongs to the certificate, and the next writing cleans."""
    source, out = tmp_path / "source", tmp_path / "out"
    contents = [FolderContent(URL, authority.bundle, authority.issue()) for _ in range(2)]
    for number, content in enumerate(contents):
        write_folder(source.with_name(f"source-{number}"), content)
    script = (
        "import sys; from pathlib import Path; from accredit_client.files import *\n"
        f"sets = [read_folder(Path({str(source)!r} + f'-{{n}}')) for n in (0, 1)]\n"
        "for n in range(10**6):\n"
        f"    write_folder(Path({str(out)!r}), sets[n % 2]); print(n, flush=True)"
    )
    for lines in (1, 2, 5):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert read_folder(out).identity.svid in [each.identity.svid for each in contents]
    write_folder(out, contents[0])
    assert len(list(out.glob(".set-*"))) == 1

"""Whom a user id counts for: subordinate ids as their owner's, everybody else as themselves."""

from pathlib import Path

import pytest

from accredit_client.daemon import accounts
from accredit_client.daemon.accounts import Accounts, Range, account_in, parse_ranges

ALICE, BOB = 1000, 1001
NAMES = {"alice": ALICE, "bob": BOB, "root": 0}
BOTH = "alice:100000:65536\nbob:165536:65536\n"


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        (BOTH, (Range(100000, 165535, ALICE), Range(165536, 231071, BOB))),
        (
            "bob:165536:65536\n1000:100000:1\n",
            (Range(100000, 100000, ALICE), Range(165536, 231071, BOB)),
        ),
        ("alice:4294967295:1", (Range(4294967295, 4294967295, ALICE),)),
        ("alice:4294967295:2", ()),
        ("alice:100000:0", ()),
        ("root:100000:65536\n0:1:5", ()),
        ("nobody-known:100000:65536", ()),
        ("# alice:1:2\n\nalice\nalice:1\nalice:1:2:3\nalice:-1:5\nalice:1:x\nalice:٣:1", ()),
        ("alice:99999999999999999999:1", ()),
    ],
)
def test_ranges_are_read(text: str, ranges: tuple[Range, ...]) -> None:
    """Owners by name or number; what is of another form, nobody's or root's is passed over."""
    assert parse_ranges(text, NAMES.get) == ranges


@pytest.mark.parametrize(
    ("text", "uid", "account"),
    [
        (BOTH, 99999, 99999),
        (BOTH, 100000, ALICE),
        (BOTH, 165535, ALICE),
        (BOTH, 165536, BOB),
        (BOTH, 231071, BOB),
        (BOTH, 231072, 231072),
        (BOTH, ALICE, ALICE),
        ("", 100000, 100000),
        # A wide range with a narrow one in it, before and behind which it goes on.
        ("alice:100000:100\nbob:100010:10", 100009, ALICE),
        ("alice:100000:100\nbob:100010:10", 100019, BOB),
        ("alice:100000:100\nbob:100010:10", 100020, ALICE),
        # Who owns a range is somebody, even where another is given that id.
        ("alice:1001:1\nbob:165536:65536", BOB, BOB),
        ("alice:1001:1", BOB, ALICE),
    ],
)
def test_whom_an_id_counts_for(text: str, uid: int, account: int) -> None:
    """From the first to the last of a range its owner's, and just outside its own."""
    assert account_in(parse_ranges(text, NAMES.get), uid) == account


def test_the_file_is_read_again_when_it_is_another(tmp_path: Path) -> None:
    """Also where it goes and comes; one that cannot be read changes nothing."""
    file = tmp_path / "subuid"
    known = Accounts(file)
    known.look()
    assert known.of(100000) == 100000
    file.write_text("1000:100000:10\n")
    assert known.of(100000) == 100000
    known.look()
    assert (known.of(100000), known.of(100010)) == (ALICE, 100010)
    file.write_text("1001:100000:100\n")
    known.look()
    assert (known.of(100000), known.of(100010)) == (BOB, BOB)
    file.unlink()
    file.mkdir()
    known.look()
    assert known.of(100000) == BOB
    file.rmdir()
    known.look()
    assert known.of(100000) == 100000


def test_the_file_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond the bound it is not read, and the log says so; ids that are kept are bounded, too."""
    file = tmp_path / "subuid"
    file.write_text("1000:100000:10\n1001:200000:10\n")
    monkeypatch.setattr(accounts, "MAX_FILE_BYTES", 15)
    monkeypatch.setattr(accounts, "MAX_KNOWN", 1)
    known = Accounts(file)
    known.look()
    assert "larger than 15 bytes" in caplog.text
    assert [known.of(each) for each in (100000, 200000, 100001)] == [ALICE, 200000, ALICE]
    assert len(known._said[1]) == 1


def test_this_hosts_own_file_can_be_read() -> None:
    """Whatever it says, root counts for itself."""
    known = Accounts()
    known.look()
    assert known.of(0) == 0

"""A tree measured again: what is read, what is not, and what an inspection sees."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from accredit_attestors import tree as tree_module
from accredit_attestors.errors import InvalidTree
from accredit_attestors.tree import Limits, Selection, TreeMemory, measure, measure_directory

ALL = Selection()
EVERYTHING = ["data", "main.py", "prompts/system päge.md", "run"]
LATER = 10_000_000_000  # ns: more than any filesystem's timestamps are coarse


@dataclass
class Watched:
    """One tree, its memory with a clock that is set by hand, and what was read."""

    root: Path
    memory: TreeMemory
    now: int
    read: list[str] = field(default_factory=list)

    def measure(self, **more: object) -> str:
        """The digest now; ``read`` has what was read for it."""
        descriptor = os.open(self.root, os.O_RDONLY)
        self.read.clear()
        try:
            return measure_directory(
                descriptor,
                ALL,
                name="tree",
                memory=self.memory,
                **more,  # type: ignore[arg-type]
            ).digest
        finally:
            os.close(descriptor)


@pytest.fixture
def watched(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """The example's tree, long after its files were written."""
    (tree / "data").write_bytes(b"\0" * 200_000)  # as large as what is hashed in threads
    newest = max(path.lstat().st_ctime_ns for path in tree.rglob("*"))
    world = Watched(tree, TreeMemory(clock=lambda: world.now), newest + LATER)
    hashing = tree_module.hash_regular_file

    def noted(descriptor: int, path: str, max_bytes: int) -> object:
        world.read.append(path)
        return hashing(descriptor, path, max_bytes)

    monkeypatch.setattr(tree_module, "hash_regular_file", noted)
    return world


def test_what_is_unchanged_is_not_read_again(watched: Watched) -> None:
    """The first measure reads each file, the second none, and both are what anybody measures."""
    first = watched.measure()
    assert sorted(watched.read) == EVERYTHING
    assert watched.measure() == first
    assert watched.read == []
    assert first == measure(watched.root, ALL).digest


def _edit(root: Path) -> None:
    (root / "main.py").write_text("print('hellO')\n")


def _edit_and_hide(root: Path) -> None:
    before = (root / "main.py").stat()
    _edit(root)
    os.utime(root / "main.py", ns=(before.st_atime_ns, before.st_mtime_ns))


def _replace(root: Path) -> None:
    (root / "new").write_text("print('hello')\n")
    (root / "new").rename(root / "main.py")


def _chmod(root: Path) -> None:
    (root / "main.py").chmod(0o755)


@pytest.mark.parametrize("change", [_edit, _edit_and_hide, _replace, _chmod])
def test_only_what_changed_is_read_again(watched: Watched, change: Callable[[Path], None]) -> None:
    """A file with other bytes, another inode or another mode is read, its neighbours are not."""
    watched.measure()
    change(watched.root)
    watched.now = (watched.root / "main.py").stat().st_ctime_ns + LATER
    again = watched.measure()
    assert watched.read == ["main.py"]
    assert again == measure(watched.root, ALL).digest


def test_a_file_that_appears_or_goes_changes_the_measure(watched: Watched) -> None:
    """A new file, a new directory and a missing file are seen although nothing else changed."""
    digests = [watched.measure()]
    (watched.root / "prompts" / "more").mkdir()
    (watched.root / "prompts" / "more" / "new.md").write_text("")
    digests.append(watched.measure())
    (watched.root / "prompts" / "more" / "new.md").unlink()
    (watched.root / "prompts" / "more").rmdir()
    digests.append(watched.measure())
    assert digests[0] != digests[1]
    assert digests[2] == digests[0]


def test_what_was_just_written_is_read_again(watched: Watched) -> None:
    """A file as new as its filesystem's timestamps are coarse could still change unseen."""
    written = (watched.root / "main.py").stat().st_ctime_ns
    watched.now = written + 1_999_999_999
    watched.measure()
    watched.measure()
    assert "main.py" in watched.read
    watched.now = written + LATER
    watched.measure()
    assert "main.py" in watched.read
    watched.measure()
    assert watched.read == []


def test_a_failed_measure_leaves_nothing_to_believe(watched: Watched) -> None:
    """After an error the next measure is a whole one, with the digest of what is there."""
    first = watched.measure()
    (watched.root / "out").symlink_to("/etc/passwd")
    for _ in range(2):
        with pytest.raises(InvalidTree, match="absolute"):
            watched.measure()
    (watched.root / "out").unlink()
    assert watched.measure() == first


def test_limits_hold_for_what_is_remembered(watched: Watched) -> None:
    """A remembered tree counts as much as one that is read."""
    watched.measure()
    for limits in (Limits(entries=5), Limits(total_bytes=200_010)):
        with pytest.raises(InvalidTree, match=r"entries|may be read"):
            watched.measure(limits=limits)
    watched.measure(limits=Limits(entries=6, total_bytes=200_100))


def test_a_huge_file_is_refused_unread(watched: Watched) -> None:
    """Ten gigabytes are refused with the reason, before a byte of them is read."""
    with (watched.root / "huge").open("wb") as file:
        file.truncate(10 * 1024**3)
    with pytest.raises(InvalidTree, match=r"'huge' has 10737418240 bytes, at most 1073741824"):
        watched.measure()
    assert "huge" not in watched.read


def test_a_directory_that_changes_meanwhile_is_refused(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is added behind the walk's back ends the measure."""
    hashing = tree_module.hash_regular_file

    def adding(descriptor: int, path: str, max_bytes: int) -> object:
        (watched.root / "late.py").write_text("")
        return hashing(descriptor, path, max_bytes)

    monkeypatch.setattr(tree_module, "hash_regular_file", adding)
    with pytest.raises(InvalidTree, match="changed while"):
        watched.measure()


class Refusing:
    """An inspection that refuses modes that others may write, and keeps what it saw."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.left: list[str] = []

    def counted(self, directory: int, name: str, path: str, status: os.stat_result) -> None:
        """Keep the path; refuse what others may write."""
        assert os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino == status.st_ino
        self.seen.append(path)
        if status.st_mode & 0o002:
            raise InvalidTree(f"{path} is anybody's")

    def left_out(self, _directory: int, _name: str, path: str) -> None:
        """Keep the path."""
        self.left.append(path)


def test_an_inspection_sees_what_is_new_or_changed(watched: Watched) -> None:
    """It sees each file and directory once, what changed again, and what is left out always."""
    (watched.root / ".git").mkdir(exist_ok=True)
    eye = Refusing()
    watched.now = (watched.root / ".git").lstat().st_ctime_ns + LATER
    watched.measure(inspection=eye)
    expected = [".", "data", "main.py", "prompts", "prompts/system päge.md", "run"]
    assert sorted(eye.seen) == expected
    eye.seen.clear()
    watched.measure(inspection=eye)
    assert eye.seen == []
    assert eye.left.count(".git") == 2


@pytest.mark.parametrize("opened", ["main.py", "prompts", "."])
def test_an_inspection_sees_a_mode_that_changes_later(watched: Watched, opened: str) -> None:
    """A file or directory that is opened to others after the first measure is seen."""
    eye = Refusing()
    watched.measure(inspection=eye)
    victim = watched.root / opened
    victim.chmod(victim.stat().st_mode | 0o002)
    with pytest.raises(InvalidTree, match="anybody"):
        watched.measure(inspection=eye)
    victim.chmod(victim.stat().st_mode & ~0o002)
    watched.measure(inspection=eye)

"""Measuring what runs: the agent's tree as it sees it, and whatever it could write is refused."""

import os
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.calling import AGENT_GID, AGENT_UID, Calling, as_root, calling

from accredit_attestors.errors import InvalidTree
from accredit_attestors.tree import Limits, Selection, measure
from accredit_client.daemon import measuring as measuring_module
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.measuring import CodeMeasurer, check_code_root, check_mounts
from accredit_client.daemon.process import PinnedProcess, Status
from accredit_client.daemon.writers import Writers, almighty
from accredit_client.errors import CallerChanged, CallerGone, Writable

ALL = Selection()
OTHER_UID, OTHER_GID = 61011, 61012
LATER = 10_000_000_000


@pytest.fixture
def code(tmp_path: Path) -> Iterator[Path]:
    """A signed agent's code, root's, below directories that are root's."""
    root = tmp_path / "opt" / "agent"
    (root / "prompts").mkdir(parents=True)
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "main.pyc").write_bytes(b"\0")
    (root / "main.py").write_text("print('hello')\n")
    (root / "prompts" / "system.md").write_text("Be kind.\n")
    return root


@contextmanager
def agent(**more: object) -> Iterator[tuple[Calling, Caller]]:
    """An agent that called, and is pinned."""
    with calling(**more) as process, closing(Caller.of(process.connection)) as caller:  # type: ignore[arg-type]
        yield process, caller


@as_root
def test_the_code_of_an_agent_is_measured(code: Path) -> None:
    """The digest is the one that anybody measures, and that the manifest declares."""
    with agent() as (_, caller):
        measurer = CodeMeasurer()
        expected = measure(code, ALL).digest
        assert measurer.measure(caller, str(code), ALL) == expected
        assert measurer.measure(caller, str(code), ALL) == expected
        (code / "main.py").write_text("print('hellO')\n")
        assert measurer.measure(caller, str(code), ALL) == measure(code, ALL).digest != expected


@as_root
def test_the_code_is_what_the_agent_sees(code: Path, tmp_path: Path) -> None:
    """In another root directory the same path is another tree."""
    inside = tmp_path / "container"
    (inside / "opt").mkdir(parents=True)
    (inside / "opt" / "agent").mkdir()
    (inside / "opt" / "agent" / "main.py").write_text("print('inside')\n")
    with agent(root=inside) as (_, caller):
        measured = CodeMeasurer().measure(caller, "/opt/agent", ALL)
        assert measured == measure(inside / "opt" / "agent", ALL).digest
        with pytest.raises(InvalidTree):
            CodeMeasurer().measure(caller, str(code), ALL)


def _own(path: str) -> Callable[[Path], None]:
    return lambda code: os.chown(code / path, AGENT_UID, 0)


def _group(path: str, gid: int = AGENT_GID) -> Callable[[Path], None]:
    def change(code: Path) -> None:
        os.chown(code / path, 0, gid)
        (code / path).chmod((code / path).stat().st_mode | 0o020)

    return change


def _mode(path: str, bits: int) -> Callable[[Path], None]:
    return lambda code: (code / path).chmod((code / path).stat().st_mode | bits)


def acl(*entries: tuple[int, int, int], mask: int = 7) -> bytes:
    """``system.posix_acl_access`` with these named entries (tag, permission, id)."""
    undefined = 0xFFFFFFFF
    whole = [(1, 6, undefined), *entries, (4, 4, undefined), (0x10, mask, undefined)]
    whole.append((0x20, 4, undefined))
    ordered = sorted(whole, key=lambda entry: entry[0])
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in ordered)


def _acl(path: str, *entries: tuple[int, int, int], mask: int = 7) -> Callable[[Path], None]:
    def change(code: Path) -> None:
        os.setxattr(code / path, "system.posix_acl_access", acl(*entries, mask=mask))

    return change


@as_root
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_own("main.py"), "'main.py'.*belongs"),
        (_own("prompts"), "'prompts'.*belongs"),
        (_own("prompts/system.md"), "belongs"),
        (_own("."), "belongs"),
        (_own(".."), "opt'.*belongs"),
        (_own("__pycache__"), "__pycache__'.*belongs"),
        (_own("__pycache__/main.pyc"), "main.pyc'.*belongs"),
        (_group("main.py"), f"group {AGENT_GID}"),
        (_group("main.py", 61003), "group 61003"),
        (_group("prompts"), f"group {AGENT_GID}"),
        (_group(".."), f"group {AGENT_GID}"),
        (_mode("main.py", 0o002), "everyone"),
        (_mode("prompts", 0o002), "everyone"),
        (_mode("prompts", 0o1002), "everyone"),  # sticky: it could add a file there
        (_mode("..", 0o002), "everyone"),
        (_acl("main.py", (2, 6, AGENT_UID)), "access control list"),
        (_acl("main.py", (8, 6, 61003)), "access control list"),
        (_acl("prompts", (2, 7, AGENT_UID)), "access control list"),
        (_acl("..", (2, 7, AGENT_UID)), "access control list"),
    ],
)
def test_what_the_agent_could_write_is_refused(
    code: Path, change: Callable[[Path], None], reason: str
) -> None:
    """Files, directories, caches and the way to them; at first, and when it changes later."""
    with agent(groups=[61003]) as (_, caller):
        measurer = CodeMeasurer()
        measurer.measure(caller, str(code), ALL)
        _settle(code, measurer)
        measurer.measure(caller, str(code), ALL)
        change(code)
        for each in (measurer, CodeMeasurer()):
            with pytest.raises(Writable, match=reason):
                each.measure(caller, str(code), ALL)


def _settle(code: Path, measurer: CodeMeasurer) -> None:
    newest = max(path.lstat().st_ctime_ns for path in code.parent.rglob("*"))
    for tree in measurer._trees.values():
        tree.memory.clock = lambda: newest + LATER


@as_root
@pytest.mark.parametrize(
    "change",
    [
        lambda code: os.chown(code / "main.py", OTHER_UID, OTHER_GID),
        _group("main.py", OTHER_GID),
        _mode("..", 0o1002),  # sticky, and what is in there is not the agent's
        _acl("main.py", (2, 6, OTHER_UID)),
        _acl("main.py", (8, 6, OTHER_GID)),
        _acl("main.py", (2, 4, AGENT_UID)),
        _acl("main.py", (2, 6, AGENT_UID), mask=4),
        lambda code: os.chown(code / "__pycache__", OTHER_UID, OTHER_GID),
    ],
)
def test_what_others_could_write_is_measured(code: Path, change: Callable[[Path], None]) -> None:
    """Another user's file, group or list, and a sticky directory on the way, are not its."""
    change(code)
    with agent(groups=[61003]) as (_, caller):
        measured = CodeMeasurer().measure(caller, str(code), ALL)
        assert measured == measure(code, ALL).digest


@as_root
def test_a_sticky_way_to_the_agents_own_is_refused(code: Path) -> None:
    """In a sticky directory its own can be replaced by it."""
    code.parent.chmod(0o1777)
    os.chown(code, AGENT_UID, 0)
    with agent() as (_, caller), pytest.raises(Writable):
        CodeMeasurer().measure(caller, str(code), ALL)


@as_root
def test_groups_of_the_user_count_without_the_process(
    code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another process of the same user could write is not the agent's word against it."""
    _group("main.py", OTHER_GID)(code)
    monkeypatch.setattr(measuring_module, "_memberships", lambda _uid, _gid: frozenset({OTHER_GID}))
    with agent() as (_, caller), pytest.raises(Writable, match=f"group {OTHER_GID}"):
        CodeMeasurer().measure(caller, str(code), ALL)


@as_root
def test_what_one_agent_may_not_write_another_may(code: Path) -> None:
    """What was found for one user says nothing for the next."""
    measurer = CodeMeasurer()
    os.chown(code / "main.py", OTHER_UID, 0)
    with agent() as (_, caller):
        measurer.measure(caller, str(code), ALL)
    with agent(uid=OTHER_UID, gid=OTHER_GID) as (_, other), pytest.raises(Writable):
        measurer.measure(other, str(code), ALL)


def test_root_is_refused(code: Path) -> None:
    """Who may do anything could write anything: a measure of files would say nothing."""
    with agent(uid=0) as (_, caller), pytest.raises(Writable, match=r"root|own"):
        CodeMeasurer().measure(caller, str(code), ALL)


@pytest.mark.parametrize(
    ("uids", "capabilities", "refused"),
    [
        ((1, 1, 1, 1), 0, False),
        ((1, 1, 1, 1), 1 << 10, False),  # CAP_NET_BIND_SERVICE
        ((1, 1, 1, 1), 1 << 1, True),  # CAP_DAC_OVERRIDE
        ((1, 1, 1, 1), 1 << 21, True),  # CAP_SYS_ADMIN
        ((1, 1, 1, 1), 1 << 40, True),  # CAP_CHECKPOINT_RESTORE
        ((1, 1, 1, 1), 1 << 63, True),  # one that is not known yet
        ((0, 1, 1, 1), 0, True),
        ((1, 1, 0, 1), 0, True),
    ],
)
def test_almighty(uids: tuple[int, int, int, int], capabilities: int, refused: bool) -> None:
    """Any id that is root's, or any capability that is not known to be harmless."""
    status = Status(
        uids=uids,
        gids=(1, 1, 1, 1),
        groups=frozenset(),
        capabilities=capabilities,
        no_new_privs=True,
    )
    assert (almighty(status) is not None) == refused


@as_root
def test_a_user_namespace_of_its_own_is_refused(code: Path) -> None:
    """There it could mount something over its code."""
    with agent() as (process, caller):
        CodeMeasurer().measure(caller, str(code), ALL)
        process.tell("unshare")
        with pytest.raises(Writable, match="namespace"):
            CodeMeasurer().measure(caller, str(code), ALL)


@as_root
def test_a_program_of_its_own_is_refused(code: Path) -> None:
    """Who runs a program that it could write runs no code that was measured."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)  # the agent must be able to start it
        program = Path(name) / "sleep"
        program.write_bytes(Path("/bin/sleep").read_bytes())
        program.chmod(0o755)
        with calling() as process:
            process.tell(f"exec {program}")
            with closing(Caller.of(process.connection)) as caller:
                CodeMeasurer().measure(caller, str(code), ALL)
                os.chown(program, AGENT_UID, 0)
                with pytest.raises(Writable, match="program"):
                    CodeMeasurer().measure(caller, str(code), ALL)


def _huge(code: Path) -> None:
    with (code / "huge").open("wb") as file:
        file.truncate(10 * 1024**3)


@as_root
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda code: os.mkfifo(code / "pipe"), "'pipe' must be a file"),
        (lambda code: os.mknod(code / "zero", 0o600 | stat.S_IFCHR, os.makedev(1, 5)), "'zero'"),
        (lambda code: (code / "out").symlink_to("/etc/passwd"), "absolute"),
        (lambda code: (code / "out").symlink_to("../../x"), "out of the tree"),
        (lambda code: (code / "__pycache__" / "x.pyc").symlink_to("/tmp/x.pyc"), "links"),
        (_huge, "10737418240 bytes, at most"),
    ],
)
def test_a_tree_that_cannot_be_measured(
    code: Path, change: Callable[[Path], object], reason: str
) -> None:
    """A FIFO, a device, a link out of the tree and a huge file are refused, with the reason."""
    with agent() as (_, caller):
        measurer = CodeMeasurer()
        measurer.measure(caller, str(code), ALL)
        change(code)
        with pytest.raises(InvalidTree, match=reason):
            measurer.measure(caller, str(code), ALL)


@as_root
def test_a_link_on_the_way_is_refused(code: Path, tmp_path: Path) -> None:
    """Neither the code root nor anything above it may be a link, wherever it leads."""
    (tmp_path / "linked").symlink_to(code.parent)
    (tmp_path / "current").symlink_to(code)
    with agent() as (_, caller):
        for path in (tmp_path / "linked" / "agent", tmp_path / "current", code / "main.py"):
            with pytest.raises(InvalidTree, match="no link"):
                CodeMeasurer().measure(caller, str(path), ALL)
        with pytest.raises(InvalidTree):
            CodeMeasurer().measure(caller, str(code / "missing"), ALL)


@pytest.mark.parametrize(
    "path",
    ["", "opt", "/", "//opt", "/opt/", "/opt//a", "/opt/./a", "/opt/../a", "/a\0", "/" * 2000],
)
def test_a_code_root_has_one_spelling(path: str) -> None:
    """An absolute path, as the kernel would walk it without a choice."""
    with pytest.raises(InvalidTree):
        check_code_root(path)
    assert check_code_root("/opt/a b") == ("opt", "a b")


MOUNTS = """\
21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
22 21 0:40 / /home/x/mnt rw,nosuid shared:1 - fuse.sshfs host:/ rw,user_id=1000
23 21 0:41 / /opt/with\\040space rw - fuse rw rw
24 21 0:42 / /opt/agent/data rw master:1 propagate_from:2 - fuseblk /dev/x rw
25 21 0:43 / /proc rw - proc proc rw
"""


@pytest.mark.parametrize(
    ("code_root", "refused"),
    [
        ("/home/x/mnt", True),
        ("/home/x/mnt/agent", True),
        ("/home/x", True),  # it is somewhere below
        ("/opt/with space/agent", True),
        ("/opt/agent", True),
        ("/opt/agent/code", False),
        ("/home/x/mnt2", False),
        ("/opt/with", False),
        ("/srv/agent", False),
    ],
)
def test_files_that_a_program_serves_are_refused(code_root: str, refused: bool) -> None:
    """FUSE at, above or below the code root may tell the daemon and the agent different things."""
    if refused:
        with pytest.raises(InvalidTree, match="served by a program"):
            check_mounts(MOUNTS, code_root)
    else:
        check_mounts(MOUNTS, code_root)


@as_root
def test_the_callers_own_mounts_are_looked_at(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list is the caller's, and it is asked before anything of the tree is."""
    with agent() as (_, caller):
        told = {"mountinfo": f"22 21 0:40 / {code.parent} rw - fuse.evil x rw\n"}
        read = PinnedProcess.read
        monkeypatch.setattr(
            PinnedProcess, "read", lambda it, name: told.get(name) or read(it, name)
        )
        with pytest.raises(InvalidTree, match="served by a program"):
            CodeMeasurer().measure(caller, str(code), ALL)


def test_mounts_of_another_form_are_refused() -> None:
    """What cannot be read is not skipped."""
    for line in ("nonsense\n", "21 1 254:0 / / rw\n", "21 1 254:0 / / rw -\n"):
        with pytest.raises(InvalidTree, match="form"):
            check_mounts(line, "/opt")


@pytest.mark.parametrize(
    "listed", [b"", b"\2\0\0", struct.pack("<I", 3), struct.pack("<I", 2) + b"x"]
)
def test_an_unknown_access_control_list_grants(listed: bytes) -> None:
    """Nobody knows what it says, so it is taken to allow everything."""
    status = os.stat_result((0o100664, 1, 1, 1, 0, 0, 1, 0, 0, 0))
    assert Writers(frozenset({1}), frozenset({1})).through(status, listed) is not None
    assert Writers(frozenset({1}), frozenset({1})).through(status, None) is None


@as_root
def test_a_caller_that_changes_or_ends_is_not_measured(code: Path) -> None:
    """Another program, or no process any more, has no code of its own."""
    with agent() as (process, caller):
        process.tell("exec /bin/sleep")
        with pytest.raises(CallerChanged):
            CodeMeasurer().measure(caller, str(code), ALL)
        process.end()
        with pytest.raises(CallerGone):
            CodeMeasurer().measure(caller, str(code), ALL)


@as_root
def test_a_caller_that_changes_while_it_is_measured(
    code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured for the one program is not said of the other."""
    with agent() as (process, caller):
        whole = measuring_module.measure_directory

        def meanwhile(*args: object, **more: object) -> object:
            process.tell("exec /bin/sleep")
            return whole(*args, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(measuring_module, "measure_directory", meanwhile)
        with pytest.raises(CallerChanged):
            CodeMeasurer().measure(caller, str(code), ALL)


@as_root
def test_a_caller_that_leaves_while_it_is_measured(
    code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user namespace of its own that it took meanwhile voids what was measured."""
    with agent() as (process, caller):
        whole = measuring_module.measure_directory

        def meanwhile(*args: object, **more: object) -> object:
            process.tell("unshare")
            return whole(*args, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(measuring_module, "measure_directory", meanwhile)
        with pytest.raises(Writable):
            CodeMeasurer().measure(caller, str(code), ALL)


@as_root
def test_many_at_once_measure_one_tree(code: Path) -> None:
    """Threads that measure the same tree all get its digest."""
    with agent() as (_, caller), ThreadPoolExecutor(8) as pool:
        measurer = CodeMeasurer()
        found = set(pool.map(lambda _: measurer.measure(caller, str(code), ALL), range(40)))
        assert found == {measure(code, ALL).digest}
        assert len(measurer._trees) == 1


@as_root
def test_what_is_remembered_is_bounded(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tree that was not asked for the longest is forgotten first, the last one never."""
    monkeypatch.setattr(measuring_module, "MAX_REMEMBERED_ENTRIES", 3)
    with agent() as (_, caller):
        measurer = CodeMeasurer()
        for selection in (ALL, Selection(exclude=("*.md",)), Selection(exclude=("*.py",))):
            measurer.measure(caller, str(code), selection)
        assert [key[2] for key in measurer._trees] == [selection]


@as_root
def test_limits_are_the_measurers(code: Path) -> None:
    """A tree beyond the daemon's limits is refused, one within is not."""
    with agent() as (_, caller):
        with pytest.raises(InvalidTree, match="entries"):
            CodeMeasurer(limits=Limits(entries=2)).measure(caller, str(code), ALL)
        CodeMeasurer(limits=Limits(entries=3)).measure(caller, str(code), ALL)


@as_root
def test_no_descriptor_is_left_open(code: Path) -> None:
    """Neither a measure nor a refusal, nor a caller that goes, leaves anything open."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    with agent() as (process, caller):
        CodeMeasurer().measure(caller, str(code), ALL)
        (code / "out").symlink_to("/etc/passwd")
        with pytest.raises(InvalidTree):
            CodeMeasurer().measure(caller, str(code), ALL)
        caller.selectors()
        process.end()
        with pytest.raises(CallerGone):
            Caller.of(process.connection)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def _others(path: Path) -> None:
    os.chown(path, OTHER_UID, OTHER_GID)


@as_root
@pytest.mark.parametrize("place", ["main.py", "prompts", ".", ".."])
def test_what_is_started_is_not_its_requesters_to_write(code: Path, place: str) -> None:
    """An agent of an account of its own, and who asks for it: neither may have written the tree."""
    with agent() as (_, started), agent(uid=OTHER_UID, gid=OTHER_GID) as (_, requester):
        measurer = CodeMeasurer()

        def to_start() -> str:
            return measurer.measure_to_start(
                started, str(code), ALL, requester=requester, program="/bin/sh"
            )

        assert to_start() == measurer.measure(started, str(code), ALL)
        _others(code / place)
        measurer.measure(started, str(code), ALL)
        with pytest.raises(Writable, match=rf"belongs to uid {OTHER_UID}"):
            to_start()


@as_root
@pytest.mark.parametrize("place", ["run/agent", "run", "links", "real/bin/sh", "real/bin", "real"])
@pytest.mark.parametrize("writer", [AGENT_UID, OTHER_UID])
def test_nothing_that_leads_to_the_program_is_theirs_to_write(
    code: Path, tmp_path: Path, place: str, writer: int
) -> None:
    """Each place is looked at that a link on the way leads to, and the program itself."""
    for each in ("run", "links", "real/bin"):
        (tmp_path / each).mkdir(parents=True)
    (tmp_path / "real" / "bin" / "sh").write_bytes(Path("/bin/sh").read_bytes())
    (tmp_path / "links" / "bin").symlink_to("../real/./bin")
    (tmp_path / "run" / "agent").symlink_to(tmp_path / "links" / "bin" / "sh")
    with agent() as (_, started), agent(uid=OTHER_UID, gid=OTHER_GID) as (_, requester):

        def to_start() -> str:
            program = str(tmp_path / "run" / "agent")
            return CodeMeasurer().measure_to_start(
                started, str(code), ALL, requester=requester, program=program
            )

        assert to_start()
        # A link's owner may change nothing, where the directory that it is in is another's.
        os.chown(tmp_path / place, writer, 0, follow_symlinks=False)
        if place == "run/agent":
            assert to_start()
            (tmp_path / "run").chmod(0o1777)
        with pytest.raises(Writable, match=r"belongs to uid|everyone may write"):
            to_start()


@as_root
@pytest.mark.parametrize("program", ["loop", "missing", "file/x"])
def test_a_program_that_nothing_leads_to_is_refused(
    code: Path, tmp_path: Path, program: str
) -> None:
    """Links without end, and ways that end too early."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    with agent() as (_, caller), pytest.raises(InvalidTree, match=r"leads on|looked at|has no"):
        CodeMeasurer().measure_to_start(
            caller, str(code), ALL, requester=caller, program=str(tmp_path / program)
        )

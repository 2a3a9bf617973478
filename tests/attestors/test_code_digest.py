"""The measured tree: what counts, what is refused, and the digest as evidence."""

import os
import re
import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accredit_attestors import tree as tree_module
from accredit_attestors.code_digest import ATTESTOR
from accredit_attestors.contract import CollectContext, Evidence, VerifyContext
from accredit_attestors.errors import (
    AttestationError,
    CannotCollect,
    CodeMismatch,
    InvalidEvidence,
    InvalidManifest,
    InvalidTree,
    ManifestRequired,
    WrongNonce,
)
from accredit_attestors.manifest import Assurance, Code, Manifest, Signer, sign, verify
from accredit_attestors.tree import (
    DEFAULT_EXCLUDE,
    Limits,
    Selection,
    check_links,
    measure,
    measure_file,
)

ALL = Selection()
DOCS = Path(__file__).parents[2] / "docs" / "code-digest.md"


def _paths(root: Path, selection: Selection = ALL) -> list[str]:
    return [entry.path for entry in measure(root, selection).entries]


def test_listing_has_one_line_for_each_entry(tree: Path) -> None:
    """Files, executables and links are listed by the bytes of their paths, caches are not."""
    kinds = [(entry.kind, entry.path) for entry in measure(tree, ALL).entries]
    assert kinds == [
        ("l", "latest.md"),
        ("f", "main.py"),
        ("f", "prompts/system päge.md"),
        ("x", "run"),
    ]


def test_the_documented_script_agrees(tree: Path, tmp_path: Path) -> None:
    """The shell script in docs/code-digest.md measures the same digest."""
    (tree / "-dash \\ $(x) '\".py").write_text("")
    (tree / "a b").mkdir()
    (tree / "a b" / " lead and trail ").write_text("x")
    (tree / "a-b").write_text("sorts between a and a/b")
    (tree / "prompts" / "up").symlink_to("../main.py")
    found = re.search(r"```sh\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found
    script = tmp_path / "code-digest.sh"
    script.write_text(found[1])
    for more in ((), ("*.md",), ("prompts", "?un")):
        exclude = DEFAULT_EXCLUDE + more
        if more:
            (tree / "latest.md").unlink(missing_ok=True)
        printed = subprocess.run(
            ["sh", str(script), str(tree), *exclude], check=True, capture_output=True, text=True
        ).stdout
        assert printed == measure(tree, Selection(exclude=exclude)).digest + "\n"


def _edit(root: Path) -> None:
    (root / "main.py").write_text("print('hellO')\n")


def _rename(root: Path) -> None:
    (root / "main.py").rename(root / "Main.py")


def _add(root: Path) -> None:
    (root / "prompts" / "new.md").write_text("")


def _remove(root: Path) -> None:
    (root / "main.py").unlink()


def _make_executable(root: Path) -> None:
    (root / "main.py").chmod(0o744)


def _relink(root: Path) -> None:
    (root / "latest.md").unlink()
    (root / "latest.md").symlink_to("./prompts/system päge.md")


def _unlink(root: Path) -> None:
    (root / "latest.md").unlink()
    (root / "latest.md").write_text("Be kind.\n")


def _stray_bytecode(root: Path) -> None:
    (root / "tool.pyc").write_bytes(b"\0")


@pytest.mark.parametrize(
    "change",
    [_edit, _rename, _add, _remove, _make_executable, _relink, _unlink, _stray_bytecode],
)
def test_what_counts_changes_the_digest(tree: Path, change: Callable[[Path], None]) -> None:
    """Content, name, executable bit and link target count."""
    before = measure(tree, ALL).digest
    change(tree)
    assert measure(tree, ALL).digest != before


def _touch(root: Path) -> None:
    os.utime(root / "main.py", (1, 1))


def _close_to_others(root: Path) -> None:
    (root / "main.py").chmod(0o600)


def _empty_directory(root: Path) -> None:
    (root / "empty").mkdir()


def _cache(root: Path) -> None:
    (root / "prompts" / "__pycache__").mkdir()
    (root / "prompts" / "__pycache__" / "x.pyc").write_text("x")


def _git(root: Path) -> None:
    (root / ".git").mkdir()
    (root / ".git" / "HEAD").write_text("x")
    os.mkfifo(root / ".git" / "fifo")


@pytest.mark.parametrize("change", [_touch, _close_to_others, _empty_directory, _cache, _git])
def test_what_does_not_count_keeps_the_digest(tree: Path, change: Callable[[Path], None]) -> None:
    """Times, other mode bits, empty directories and excluded names do not count."""
    before = measure(tree, ALL).digest
    change(tree)
    assert measure(tree, ALL).digest == before


def test_root_may_be_reached_over_a_link(tree: Path, tmp_path: Path) -> None:
    """The root is named by whoever asks, so a link to it measures the same."""
    (tmp_path / "current").symlink_to(tree)
    assert measure(tmp_path / "current", ALL) == measure(tree, ALL)


def _fifo(root: Path) -> None:
    os.mkfifo(root / "pipe")


def _socket(root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        # A short relative name: socket paths are limited to 108 bytes.
        here = Path.cwd()
        os.chdir(root)
        try:
            listener.bind("s")
        finally:
            os.chdir(here)


def _line_feed(root: Path) -> None:
    (root / "a\nb").write_text("")


def _escape_sequence(root: Path) -> None:
    (root / "a\x1b[31m").mkdir()


def _not_utf8(root: Path) -> None:
    Path(os.fsdecode(bytes(root) + b"/\xff.py")).write_text("")


def _link(name: str, target: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        (root / name).symlink_to(target)

    return make


def _excluded_detour(root: Path) -> None:
    (root.parent / "evil").mkdir()
    (root.parent / "main.py").write_text("evil")
    (root / "__pycache__" / "sub").symlink_to("../../evil")
    (root / "link").symlink_to("__pycache__/sub/../main.py")


def _chain(root: Path) -> None:
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("prompts/three")
    (root / "prompts" / "three").symlink_to("../../outside")


@pytest.mark.parametrize(
    "change",
    [
        _fifo,
        _socket,
        _line_feed,
        _escape_sequence,
        _not_utf8,
        _link("out", "/etc/passwd"),
        _link("out", "../outside"),
        _link("out", "prompts/../../agent/main.py"),
        _link("gone", "missing"),
        _link("loop", "loop"),
        _link("cache", "__pycache__/main.pyc"),
        _link("cachedir", "__pycache__"),
        _link("notdir", "main.py/"),
        _link("through", "main.py/../run"),
        _excluded_detour,
        _chain,
    ],
)
def test_tree_is_refused(tree: Path, change: Callable[[Path], None]) -> None:
    """What has no content, an ambiguous name, or leads to something unmeasured is refused."""
    measure(tree, ALL)
    change(tree)
    with pytest.raises(InvalidTree):
        measure(tree, ALL)


@pytest.mark.parametrize(
    "change",
    [
        _link("in", "main.py"),
        _link("in", "./prompts/../main.py"),
        _link("in", "prompts"),
        _link("in", "."),
        _link("prompts/in", "../latest.md"),
    ],
)
def test_link_inside_is_accepted(tree: Path, change: Callable[[Path], None]) -> None:
    """A link that stays inside, over other links or not, is measured."""
    change(tree)
    assert len(_paths(tree)) == 5


def test_long_chain_of_links_is_refused() -> None:
    """Forty links in a row are followed, as by the kernel, and no more."""
    links = {f"l{i}": f"l{i + 1}" for i in range(40)} | {"l39": "end"}
    check_links(links, files={"end"}, directories={""})
    longer = links | {"l39": "l40", "l40": "end"}
    with pytest.raises(InvalidTree, match="40 links"):
        check_links(longer, files={"end"}, directories={""})


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (Limits(entries=4), "4 entries"),
        (Limits(depth=0), "deeper"),
        (Limits(file_bytes=14), "main.py|päge"),
        (Limits(total_bytes=33), "may be read"),
    ],
)
def test_tree_beyond_a_limit_is_refused(tree: Path, limits: Limits, named: str) -> None:
    """A tree is measured whole or refused; the same limits one higher accept it."""
    with pytest.raises(InvalidTree, match=named):
        measure(tree, ALL, limits=limits)
    enough = Limits(entries=5, depth=1, file_bytes=15, total_bytes=34)
    assert measure(tree, ALL, limits=enough)


def test_file_that_changes_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that grows, shrinks or is touched while it is read has no digest."""
    victim = tree / "main.py"
    read = os.read

    def grow() -> None:
        victim.write_text("print('hello') # and more\n")

    def shrink() -> None:
        victim.write_text("")

    def touch() -> None:
        os.utime(victim, (5, 5))

    for change in (grow, shrink, touch):
        victim.write_text("print('hello')\n")

        def reading(descriptor: int, size: int, change: Callable[[], None] = change) -> bytes:
            change()
            return read(descriptor, size)

        with monkeypatch.context() as patched:
            patched.setattr(tree_module.os, "read", reading)
            with pytest.raises(InvalidTree, match="changed"):
                measure_file(victim, max_bytes=100)


def test_directory_swapped_for_a_link_is_refused(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever exchanges a directory or file for a link in between gets an error, not a measure."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "system päge.md").write_text("Be evil.\n")
    stat = os.stat

    def swapping(name: str, *, dir_fd: int, follow_symlinks: bool) -> os.stat_result:
        status = stat(name, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
        if name == "prompts":
            (tree / "prompts").rename(tree.parent / "away")
            (tree / "prompts").symlink_to(outside)
        return status

    monkeypatch.setattr(tree_module.os, "stat", swapping)
    with pytest.raises(InvalidTree, match="prompts"):
        measure(tree, ALL)


def test_nothing_to_measure_is_refused(tree: Path, tmp_path: Path) -> None:
    """No directory, an empty one, and patterns that take nothing are refused."""
    (tmp_path / "empty").mkdir()
    for root, selection in (
        (tmp_path / "missing", ALL),
        (tree / "main.py", ALL),
        (tmp_path / "empty", ALL),
        (tree, Selection(include=("*.rs",))),
        (tree, Selection(exclude=("**",))),
    ):
        with pytest.raises(InvalidTree):
            measure(root, selection)


def test_single_file_is_measured(tree: Path) -> None:
    """One file has the SHA-256 of its content; a link, a directory and a larger file have none."""
    system = tree / "prompts" / "system päge.md"
    printed = subprocess.run(
        ["sha256sum"], input=system.read_bytes(), capture_output=True, check=True
    )
    assert measure_file(system, max_bytes=9) == "sha256:" + printed.stdout[:64].decode()
    for path, limit in ((system, 8), (tree / "latest.md", 99), (tree, 99), (tree / "no", 99)):
        with pytest.raises(InvalidTree):
            measure_file(path, max_bytes=limit)


@pytest.mark.parametrize(
    ("pattern", "taken", "left"),
    [
        ("**", ["a", "a/b", ".x/y"], []),
        ("*.py", ["a.py", "x/y/a.py", "x.py/readme", ".py"], ["a.pyc", "py", "apy"]),
        ("src", ["src", "src/a", "x/src/a"], ["src2/a", "xsrc"]),
        ("src/app", ["src/app", "src/app/a"], ["x/src/app", "src/apple"]),
        ("src/*.py", ["src/a.py"], ["src/x/a.py", "a.py"]),
        ("src/**", ["src/a", "src/x/a"], ["src", "x/src/a"]),
        ("**/b", ["b", "a/b", "a/a/b/c"], ["ab", "a/bb"]),
        ("a/**/b", ["a/b", "a/x/y/b"], ["a/xb", "ab"]),
        ("a?c", ["abc", "x/a.c"], ["ac", "a/c"]),
        ("a.c", ["a.c"], ["abc"]),
        ("a+(b)$", ["a+(b)$"], ["aab"]),
    ],
)
def test_patterns_match(pattern: str, taken: list[str], left: list[str]) -> None:
    """A pattern takes names at any depth or whole paths, and all below a directory."""
    selection = Selection((pattern,), ())
    assert [path for path in taken + left if selection.takes(path)] == taken
    assert [path for path in taken + left if Selection(("**",), (pattern,)).takes(path)] == left


@pytest.mark.parametrize(
    "pattern",
    ["", "/a", "a/", "a//b", ".", "./a", "..", "a/../b", "a**", "[ab]", "{a}", "!a", "a\\b", "a\n",
     "*a*a*a*a*", "x" * 257],
)  # fmt: skip
def test_pattern_is_refused(pattern: str) -> None:
    """A pattern with another language's wildcards, or one that could leave the tree, is refused."""
    for make in (lambda: Selection((pattern,)), lambda: Selection(exclude=(pattern,))):
        with pytest.raises(InvalidTree, match="pattern"):
            make()


def test_patterns_are_bounded() -> None:
    """No include, or more than 64 patterns, are refused."""
    for include in ((), ("a",) * 65):
        with pytest.raises(InvalidTree, match="include"):
            Selection(include)
    assert Selection(("a",) * 64)


_NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/", exclude_categories=("Cc", "Cs")),
    min_size=1,
    max_size=12,
).filter(lambda name: name not in {".", ".."} and name not in DEFAULT_EXCLUDE)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.dictionaries(_NAMES, st.binary(max_size=40), min_size=1), data=st.data())
def test_digest_depends_on_the_tree_alone(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], data: st.DataObject
) -> None:
    """The same files, made in any order in any place, measure the same."""
    digests = set()
    for order in (list(files), data.draw(st.permutations(list(files)))):
        root = tmp_path_factory.mktemp("tree")
        for name in order:
            (root / name).write_bytes(files[name])
        digests.add(measure(root, ALL).digest)
    assert len(digests) == 1


@pytest.fixture
def signed(tree: Path, manifest: Manifest, key: ed25519.Ed25519PrivateKey, tmp_path: Path) -> Path:
    """The signed manifest of the tree, which leaves the prompts out."""
    selection = Selection(exclude=(*DEFAULT_EXCLUDE, "*.md"))
    code = Code(measure(tree, selection).digest, selection.include, selection.exclude)
    path = tmp_path / "manifest.json"
    path.write_bytes(sign(replace(manifest, code=code), key))
    return path


def test_code_is_collected_and_attested(
    tree: Path, signed: Path, signer: Signer, context: VerifyContext
) -> None:
    """The code that the manifest declares is attested, measured by the manifest's own patterns."""
    collecting = CollectContext(nonce=context.nonce, manifest_file=signed, code_root=tree)
    verified = verify(signed.read_bytes(), signers=[signer], now=context.now)
    context = replace(context, manifest=verified)
    digest = verified.manifest.code.digest

    (tree / "prompts" / "more.md").write_text("left out by the author's choice")
    evidence = ATTESTOR.collect(collecting)
    assert evidence is not None
    attested = ATTESTOR.verify(evidence, context)
    assert attested.selectors == (f"code:{digest}",)
    assert attested.assurance is Assurance.SELF

    (tree / "main.py").write_text("import evil\n")
    changed = ATTESTOR.collect(collecting)
    assert changed is not None
    with pytest.raises(CodeMismatch) as refused:
        ATTESTOR.verify(changed, context)
    assert digest in str(refused.value)
    assert str(changed.payload["digest"]) in str(refused.value)
    assert refused.value.hint


def test_code_is_not_collected(tree: Path, signed: Path, tmp_path: Path, nonce: str) -> None:
    """Without manifest or code it is not mine; with a broken manifest it is an error."""
    assert ATTESTOR.collect(CollectContext(nonce=nonce, code_root=tree)) is None
    assert ATTESTOR.collect(CollectContext(nonce=nonce, manifest_file=signed)) is None
    broken = tmp_path / "broken"
    broken.write_text("{}")
    for path, error in ((broken, InvalidManifest), (tmp_path / "missing", CannotCollect)):
        with pytest.raises(error):
            ATTESTOR.collect(CollectContext(nonce=nonce, manifest_file=path, code_root=tree))


def test_code_evidence_is_refused(context: VerifyContext, nonce: str) -> None:
    """Another nonce, form or kind, or no manifest to compare with: each is a reason to refuse."""
    evidence = Evidence("code_digest", nonce, {"digest": "sha256:" + "c0" * 32})
    assert ATTESTOR.verify(evidence, context)
    twins: list[tuple[Evidence, VerifyContext, type[AttestationError]]] = [
        (replace(evidence, nonce="other"), context, WrongNonce),
        (replace(evidence, kind="manifest"), context, InvalidEvidence),
        (replace(evidence, payload={"digest": "c0" * 32}), context, InvalidEvidence),
        (replace(evidence, payload={"digest": "sha256:" + "C0" * 32}), context, InvalidEvidence),
        (replace(evidence, payload={"digest": ["sha256:"]}), context, InvalidEvidence),
        (replace(evidence, payload={**evidence.payload, "x": 1}), context, InvalidEvidence),
        (replace(evidence, payload={"digest": "sha256:" + "c1" * 32}), context, CodeMismatch),
        (evidence, replace(context, manifest=None), ManifestRequired),
    ]
    for twin, its_context, error in twins:
        with pytest.raises(error):
            ATTESTOR.verify(twin, its_context)

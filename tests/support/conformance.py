"""Which test proves which requirement of SPIFFE: the table, the page, and what is missing.

``spiffe_requirements.toml`` has the requirements. Which tests name them is read from the source of
the tests, so that the page ``docs/conformance.md`` follows from the tree alone and is the same on
every machine; results are not on it. ``scripts/conformance`` runs these very tests and prints the
table with what came out.
"""

import argparse
import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
FILE = TESTS / "spiffe_requirements.toml"
PAGE = ROOT / "docs" / "conformance.md"
MARK = re.compile(r"SPIFFE-(\d+)")

Tests = Mapping[int, Collection[str]]
"""The node ids of the test functions that name each number."""

INTRODUCTION = """\
# Conformance with SPIFFE

Each requirement of the SPIFFE specifications that binds an issuer, its credentials, those who check
them, its bundle endpoints and the Workload API of its nodes, in our words, with the tests that
prove it. `scripts/conformance` runs these tests and prints the table with their results; it fails
where a MUST has no test or a test fails. This page has no results: it is written by
`scripts/conformance --write` from
[`tests/spiffe_requirements.toml`](../tests/spiffe_requirements.toml) and the tests, and a test
compares the three.

Not here, since it is not built: the Broker API.
"""


@dataclass(frozen=True)
class Requirement:
    """One requirement."""

    number: int
    section: str
    level: str
    source: str
    says: str
    note: str = ""
    why_not: str = ""


@dataclass(frozen=True)
class Requirements:
    """The whole file."""

    sections: Mapping[str, str]
    pending: frozenset[int]
    all: tuple[Requirement, ...]

    @classmethod
    def load(cls, text: str) -> "Requirements":
        """Read the file; a number that stands twice or a level of another name is an error."""
        raw = tomllib.loads(text)
        found = tuple(Requirement(**entry) for entry in raw["requirement"])
        numbers = [each.number for each in found]
        assert numbers == sorted(set(numbers)), "numbers are in order, each once"
        assert {each.level for each in found} <= {"MUST", "SHOULD"}
        assert {each.section for each in found} <= set(raw["sections"])
        assert set(raw["pending"]) <= set(numbers)
        return cls(raw["sections"], frozenset(raw["pending"]), found)


def proofs_in(folder: Path) -> Tests:
    """The test functions below a folder that name a number, as node ids relative to it."""
    found: dict[int, set[str]] = defaultdict(set)
    for file in folder.rglob("test_*.py"):
        module = ast.parse(file.read_text(encoding="utf-8"))
        for function in module.body:
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for number in _named(function.decorator_list):
                    found[number].add(f"{file.relative_to(folder).as_posix()}::{function.name}")
    return found


def _named(decorators: Iterable[ast.expr]) -> set[int]:
    return {
        int(match[1])
        for decorator in decorators
        for node in ast.walk(decorator)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if (match := MARK.fullmatch(node.value))
    }


def faults(
    requirements: Requirements, tests: Tests, outcomes: Mapping[str, str] | None = None
) -> list[str]:
    """What is wrong, one sentence each; without ``outcomes`` only what the tree tells."""
    known = {each.number for each in requirements.all}
    found = [f"{_id(n)} is named by a test and not known" for n in sorted(set(tests) - known)]
    for each in requirements.all:
        named = tests.get(each.number, ())
        if each.number in requirements.pending and named:
            found.append(f"{_id(each.number)} is pending and has a test: take it off the list")
        elif each.why_not and named:
            found.append(f"{_id(each.number)} does not bind us and has a test")
        elif not named and each.level == "MUST" and not _excused(each, requirements):
            found.append(f"{_id(each.number)} has no test")
        if outcomes is not None and named:
            result = result_of(named, outcomes)
            if result == "failed" or (result != "passed" and each.level == "MUST"):
                found.append(f"{_id(each.number)} is not proved: {result}")
    return found


def _excused(each: Requirement, requirements: Requirements) -> bool:
    return bool(each.why_not) or each.number in requirements.pending


def result_of(tests: Collection[str], outcomes: Mapping[str, str]) -> str:
    """What came out of a requirement's tests together."""
    results = {outcomes.get(test, "not run") for test in tests}
    for worst in ("failed", "not run", "passed"):
        if worst in results:
            return worst
    return "skipped"


def page(requirements: Requirements, tests: Tests) -> str:
    """The page, without results."""
    parts = [INTRODUCTION]
    for letter, title in requirements.sections.items():
        parts.append(f"\n## {letter}. {title}\n\n| no. | level | requirement | where | tests |\n")
        parts.append("|---|---|---|---|---|\n")
        rows = (each for each in requirements.all if each.section == letter)
        parts.extend(_row(each, requirements, tests) for each in rows)
    return "".join(parts)


def _row(each: Requirement, requirements: Requirements, tests: Tests) -> str:
    named = sorted(tests.get(each.number, ()))
    proof = "<br>".join(f"`{test.replace('.py::', '::')}`" for test in named) or "none"
    if each.number in requirements.pending:
        proof = "*being built*"
    if each.why_not:
        proof = f"*does not bind us: {each.why_not}*"
    says = f"{each.says} *{each.note}*" if each.note else each.says
    return f"| {each.number} | {each.level} | {says} | {each.source} | {proof} |\n"


def table(requirements: Requirements, tests: Tests, outcomes: Mapping[str, str]) -> str:
    """What is printed: a line a requirement, with the result of its tests."""
    lines = []
    for letter, title in requirements.sections.items():
        lines.append(f"{letter}. {title}")
        for each in requirements.all:
            if each.section != letter:
                continue
            named = tests.get(each.number, ())
            result = result_of(named, outcomes) if named else "no test"
            if each.number in requirements.pending:
                result = "pending"
            if each.why_not:
                result = "does not bind us"
            count = f"{len(named)} test{'s' if len(named) != 1 else ''}"
            lines.append(f"  {each.number:>3} {each.level:<6} {result:<8} {count:>9}  {each.says}")
    return "\n".join(lines)


@dataclass(eq=False)  # pytest wants its plugins hashable
class Recorder:
    """A pytest plugin: which function named which number, and how it came out."""

    named: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    outcomes: dict[str, str] = field(default_factory=dict)
    _functions: dict[str, str] = field(default_factory=dict)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Look at the tests that are going to run."""
        for item in session.items:
            assert isinstance(item, pytest.Function)
            function = f"{item.path.relative_to(TESTS).as_posix()}::{item.originalname}"
            self._functions[item.nodeid] = function
            for mark in item.iter_markers("spec"):
                match = MARK.fullmatch(mark.args[0])
                assert match, f"{item.nodeid} names {mark.args[0]!r}"
                self.named[int(match[1])].add(function)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep the worst of what a function's cases did; a skipped case does not count."""
        function = self._functions[report.nodeid]
        if report.failed:
            self.outcomes[function] = "failed"
        elif report.skipped:
            self.outcomes.setdefault(function, "skipped")
        elif report.when == "call" and self.outcomes.get(function) != "failed":
            self.outcomes[function] = "passed"


def main(arguments: list[str]) -> int:
    """The command ``scripts/conformance``."""
    parser = argparse.ArgumentParser(
        prog="scripts/conformance", description="Which test proves which requirement of SPIFFE."
    )
    parser.add_argument("--write", action="store_true", help="write docs/conformance.md, run none")
    options = parser.parse_args(arguments)
    requirements, tests = Requirements.load(FILE.read_text(encoding="utf-8")), proofs_in(TESTS)
    if options.write:
        PAGE.write_text(page(requirements, tests), encoding="utf-8")
        return 0
    recorder = Recorder()
    status = pytest.main(["-m", "spec", "-n", "0", "-q", str(TESTS)], plugins=[recorder])
    found = faults(requirements, tests, recorder.outcomes)
    if {number: set(names) for number, names in tests.items()} != recorder.named:
        found.append("the tests that ran are not those that the source names")
    if status:
        found.append(f"pytest ended with {status}")
    sys.stdout.write(f"\n{table(requirements, tests, recorder.outcomes)}\n\n")
    sys.stdout.write("".join(f"fault: {each}\n" for each in found) or "conformance: no fault\n")
    return 1 if found else 0


def _id(number: int) -> str:
    return f"SPIFFE-{number}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

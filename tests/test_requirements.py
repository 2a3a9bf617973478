"""Every MUST of the SPIFFE specifications that binds what is built has a test that names it."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.conformance import (
    FILE,
    PAGE,
    TESTS,
    Requirement,
    Requirements,
    faults,
    page,
    proofs_in,
    result_of,
    table,
)

ONE = Requirement(1, "A", "MUST", "SPIFFE-ID §2", "An ID is one.")
TWO = Requirement(2, "A", "SHOULD", "SPIFFE-ID §3", "An ID should be one.")
SAMPLE = Requirements({"A": "IDs"}, frozenset(), (ONE, TWO))
PROVED = {1: ["a/test_x.py::test_one"]}


def test_every_requirement_that_is_built_has_a_test() -> None:
    """No MUST is without a test, no test names what is not there, nothing pending has a test."""
    assert faults(Requirements.load(FILE.read_text(encoding="utf-8")), proofs_in(TESTS)) == []


def test_the_page_is_what_the_tree_says() -> None:
    """docs/conformance.md is up to date; ``scripts/conformance --write`` renews it."""
    requirements = Requirements.load(FILE.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == page(requirements, proofs_in(TESTS))


@pytest.mark.parametrize(
    ("requirements", "tests", "outcomes", "fault"),
    [
        (SAMPLE, PROVED, None, None),
        (SAMPLE, {}, None, "SPIFFE-1 has no test"),
        (SAMPLE, {**PROVED, 3: ["t"]}, None, "SPIFFE-3 is named by a test and not known"),
        (replace(SAMPLE, pending=frozenset({1})), {}, None, None),
        (replace(SAMPLE, pending=frozenset({1})), PROVED, None, "SPIFFE-1 is pending and has"),
        (replace(SAMPLE, all=(replace(ONE, why_not="no"),)), {}, None, None),
        (replace(SAMPLE, all=(replace(ONE, why_not="no"),)), PROVED, None, "does not bind us"),
        (SAMPLE, PROVED, {"a/test_x.py::test_one": "passed"}, None),
        (SAMPLE, PROVED, {"a/test_x.py::test_one": "failed"}, "SPIFFE-1 is not proved: failed"),
        (SAMPLE, PROVED, {"a/test_x.py::test_one": "skipped"}, "SPIFFE-1 is not proved: skipped"),
        (SAMPLE, PROVED, {}, "SPIFFE-1 is not proved: not run"),
        (SAMPLE, {**PROVED, 2: ["t"]}, {"a/test_x.py::test_one": "passed", "t": "skipped"}, None),
        (
            SAMPLE,
            {**PROVED, 2: ["t"]},
            {"a/test_x.py::test_one": "passed", "t": "failed"},
            "SPIFFE-2 is not proved: failed",
        ),
    ],
)
def test_what_is_a_fault(
    requirements: Requirements,
    tests: dict[int, list[str]],
    outcomes: dict[str, str] | None,
    fault: str | None,
) -> None:
    """A MUST without a test, one whose tests failed, were skipped or did not run; nothing else."""
    found = faults(requirements, tests, outcomes)
    assert len(found) == (fault is not None), found
    assert fault is None or fault in found[0]


def test_the_worst_result_counts() -> None:
    """One failure is a failure; a judge that is missing does not undo what others proved."""
    outcomes = {"a": "passed", "b": "failed", "c": "skipped"}
    assert result_of(["a", "b"], outcomes) == "failed"
    assert result_of(["a", "d"], outcomes) == "not run"
    assert result_of(["a", "c"], outcomes) == "passed"
    assert result_of(["c"], outcomes) == "skipped"


def test_marks_are_found_where_they_stand(tmp_path: Path) -> None:
    """On a function and in its parameters; in a text or on a helper they mean nothing."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "test_x.py").write_text(
        "import pytest\n"
        '@pytest.mark.spec("SPIFFE-1")\n'
        '@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.spec("SPIFFE-2"))])\n'
        "def test_one(x):\n"
        '    assert "SPIFFE-3"\n'
    )
    where = {"a/test_x.py::test_one"}
    assert proofs_in(tmp_path) == {1: where, 2: where}


def test_the_printed_table_says_what_came_out() -> None:
    """Each requirement has a line with its result, tests or none."""
    printed = table(SAMPLE, PROVED, {"a/test_x.py::test_one": "passed"}).splitlines()
    assert printed[0] == "A. IDs"
    assert printed[1].split()[:5] == ["1", "MUST", "passed", "1", "test"]
    assert printed[2].split()[:5] == ["2", "SHOULD", "no", "test", "0"]

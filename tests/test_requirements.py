"""Every MUST of the SPIFFE checklist that binds what is built has a test that names its number."""

import re
from pathlib import Path

TESTS = Path(__file__).parent

# Sections of the checklist, and what of them is built: A, B, C and E, as far as they bind a
# library. 34 is a SHOULD of HTTP and gRPC callers; 56 is the bundle map, which is not built.
BUILT = {*range(1, 36), *range(51, 56)} - {34}


def test_every_requirement_that_is_built_has_a_test() -> None:
    """No number of the built sections is without a test that names it."""
    named = {
        int(number)
        for file in TESTS.rglob("test_*.py")
        for number in re.findall(r'"SPIFFE-(\d+)"', file.read_text(encoding="utf-8"))
    }
    assert sorted(BUILT - named) == []

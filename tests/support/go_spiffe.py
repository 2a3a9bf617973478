"""go-spiffe as a judge: the Go program in ``interop/gospiffe``, built, and what it serves."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.judges import ask, program

from accredit_credentials.bundle import TrustBundle
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain

GO = Path(__file__).parent.parent / "interop" / "gospiffe"
B = TrustDomain("b.example")
BUILDING = 400.0  # seconds, on a machine that has none of the modules yet


def build(folder: Path) -> Path:
    """Build it; its modules come through the module proxy, or the tests are skipped by name."""
    built = folder / "judge"
    made = ask(program("go"), "-C", GO, "build", "-o", built, ".", timeout=BUILDING)
    if not made.accepted and "go: " in made.text and "dial" in made.text:
        pytest.skip("the judge go-spiffe cannot be fetched here")
    assert made.accepted, made.text
    return built


@dataclass(frozen=True)
class Endpoint:
    """A bundle endpoint of go-spiffe's making."""

    url: str
    spiffe_id: SpiffeId
    bundle: TrustBundle


@contextmanager
def endpoint(judge: Path) -> Iterator[Endpoint]:
    """go-spiffe serves its bundle in the profile https_spiffe until the end."""
    with subprocess.Popen(
        [judge, "serve", str(B)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        yield Endpoint(
            url=ready["url"],
            spiffe_id=SpiffeId.parse(ready["endpoint_spiffe_id"]),
            bundle=TrustBundle.parse(B, ready["bundle"]),
        )
        process.communicate("", timeout=20)

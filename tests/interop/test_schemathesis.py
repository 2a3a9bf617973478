"""schemathesis: inputs nobody thought of, made from the issuer's own OpenAPI document.

The one promise here: no input gives a server error. The stream of events has no end to wait for,
and is left out. So are bodies of OCSP, which schemathesis cannot write: ``issuer/test_ocsp`` makes
them.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.interop_world import World, make_world
from support.judges import PemFiles, Verdict, ask, library

SECONDS = 6
STREAM = "/v1/revocations/stream"
OCSP = "/v1/ocsp/{authority}"


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[World]:
    """An issuer of its own: what is thrown at it changes it. Who waits for news waits briefly."""
    with make_world(tmp_path, name="localhost", heartbeat=0.2) as world:
        yield world


def attack(world: World, files: PemFiles | None, tmp_path: Path) -> Verdict:
    """Let schemathesis loose on the issuer for a few seconds, with a client certificate or none."""
    library("schemathesis", "schemathesis")
    command = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("the judge schemathesis has no command beside this Python")
    mine: tuple[str | Path, ...] = ()
    if files is not None:
        whole = tmp_path / "client.pem"
        whole.write_text(files.leaf.read_text() + files.chain.read_text())
        mine = ("--request-cert", whole, "--request-cert-key", files.key)
    _, port = world.address
    return ask(
        *(command, "run", f"https://localhost:{port}/openapi.json"),
        *("--tls-verify", world.root_file, *mine, "--exclude-path", STREAM, "--exclude-path", OCSP),
        *("--checks", "not_a_server_error", "--max-examples", "20", "--max-time", str(SECONDS)),
        *("--phases", "examples,coverage,fuzzing", "--no-color", "--continue-on-failure"),
        *("--generation-database", "none", "--suppress-health-check", "all"),
        *("--warnings", "off", "--request-timeout", "5"),
    )


@pytest.mark.parametrize("caller", ["nobody", "agent", "admin"])
def test_no_input_gives_a_server_error(victim: World, caller: str, tmp_path: Path) -> None:
    """Whoever calls, with whatever input: an answer or a refusal, never a fault of ours."""
    files = {
        "nobody": lambda: None,
        "agent": lambda: victim.files(victim.identity),
        "admin": lambda: victim.files(victim.admin.identity),
    }[caller]()
    verdict = attack(victim, files, tmp_path)
    assert verdict.accepted, verdict.text
    (generated,) = re.findall(r"(\d+) generated", verdict.text)
    assert int(generated) >= 100, verdict.text

"""Go's standard library: crypto/x509, crypto/tls and encoding/json on what we issue."""

import json
from pathlib import Path

import pytest
from support.interop_world import World
from support.judges import ask, program

GO = Path(__file__).parent / "go"


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go program in ``go/``, built."""
    built = tmp_path_factory.mktemp("go") / "judge"
    made = ask(program("go"), "-C", GO, "build", "-o", built, ".", timeout=120)
    assert made.accepted, made.text
    return built


def test_go_verifies_an_agents_chain(world: World, judge: Path) -> None:
    """crypto/x509 verifies the chain for a client, and finds one URI, the SPIFFE ID."""
    files = world.files(world.identity)
    verdict = ask(judge, "chain", world.root_file, files.leaf, files.chain)
    assert verdict.accepted, verdict.text
    assert json.loads(verdict.text) == {"uris": [str(world.identity.svid.spiffe_id)]}


def test_go_refuses_a_chain_without_its_issuing_ca(world: World, judge: Path) -> None:
    """The judge does judge."""
    files = world.files(world.identity)
    assert not ask(judge, "chain", world.root_file, files.leaf, files.leaf).accepted


def test_go_logs_in_over_tls(world: World, judge: Path) -> None:
    """A plain net/http client with an agent's files is known to the issuer as that agent."""
    files = world.files(world.identity)
    verdict = ask(
        judge, "whoami", world.root_file, files.leaf, files.chain, files.key, world.running.url
    )
    assert verdict.accepted, verdict.text
    assert json.loads(verdict.text)["spiffe_id"] == str(world.identity.svid.spiffe_id)


def test_go_reads_the_bundle(world: World, judge: Path, tmp_path: Path) -> None:
    """encoding/json and encoding/base64 read the bundle; its root is the one that we trust."""
    file = tmp_path / "bundle.json"
    file.write_text(world.running.bundle.to_json())
    verdict = ask(judge, "bundle", world.root_file, file)
    assert verdict.accepted, verdict.text

"""py-spiffe asks our Workload API: what it fetches, and what its watcher is told."""

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.authority import Authority
from support.judges import library
from support.workload import FakeProvider, serving, state_of

PROGRAM = Path(__file__).parent / "pyspiffe_workload.py"
IDS = ["spiffe://example.org/ns/a/agent/one", "spiffe://example.org/ns/a/agent/two"]


@pytest.fixture
def anyio_backend() -> str:
    """The daemon's event loop is asyncio's."""
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.spec("SPIFFE-71")
@pytest.mark.spec("SPIFFE-76")
@pytest.mark.spec("SPIFFE-99")
async def test_py_spiffe_gets_its_identities_and_each_change(tmp_path: Path) -> None:
    """SVIDs, tokens, bundles, validation, and a rotation while it watches: without our code."""
    library("spiffe", "spiffe")
    ours, other = Authority(now=datetime.now(UTC)), Authority("other.example")
    paths = [each.removeprefix("spiffe://example.org") for each in IDS]
    federated = {other.trust_domain: other.bundle}
    provider = FakeProvider(ours, state_of(ours, *paths, federated=federated))
    async with serving(tmp_path, provider) as served:
        judge = await asyncio.create_subprocess_exec(
            sys.executable, PROGRAM, served.path, stdout=asyncio.subprocess.PIPE
        )
        assert judge.stdout is not None

        async def heard() -> dict[str, Any]:
            line = await asyncio.wait_for(judge.stdout.readline(), 30)  # type: ignore[union-attr]
            said: dict[str, Any] = json.loads(line)
            return said

        try:
            assert await heard() == {
                "svids": IDS,
                "tokens": IDS,
                "valid": IDS[0],
                "x509": ["example.org", "other.example"],
                "jwt": ["example.org", "other.example"],
            }
            assert await heard() == {"seen": IDS}
            provider.set(state_of(ours, paths[1], federated=federated))
            assert await heard() == {"seen": IDS[1:]}
            await asyncio.wait_for(judge.wait(), 30)
        finally:
            if judge.returncode is None:
                judge.kill()
                await judge.wait()

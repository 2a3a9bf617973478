"""A served socket for each test that asks for one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.authority import Authority
from support.workload import FakeProvider, Served, crl_of, serving, state_of


@pytest.fixture
def anyio_backend() -> str:
    """The daemon's event loop is asyncio's."""
    return "asyncio"


@pytest.fixture
def provider(authority: Authority, other_authority: Authority) -> FakeProvider:
    """Two identities, a federated trust domain, a CRL."""
    state = state_of(
        authority,
        "/ns/support/agent/triage",
        "/ns/support/agent/second",
        federated={other_authority.trust_domain: other_authority.bundle},
        crls=(crl_of(authority),),
    )
    return FakeProvider(authority, state)


@pytest.fixture
async def served(tmp_path: Path, provider: FakeProvider) -> AsyncIterator[Served]:
    """A server on a real socket."""
    async with serving(tmp_path, provider) as running:
        yield running

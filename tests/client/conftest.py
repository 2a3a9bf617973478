"""A trust domain that is valid now, a fake issuer of it, and an identity from it."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.authority import Authority
from support.fake_issuer import FakeIssuer, begin_at, fake_issuer, real_now
from support.manual_time import ManualTime
from support.world import World

from accredit_attestors.contract import Attestor
from accredit_attestors.join_token import ATTESTOR, JoinToken
from accredit_client.identity import AgentIdentity
from accredit_client.trust import Trust


@pytest.fixture(scope="module")
def authority() -> Authority:
    """The trust domain example.org; OpenSSL looks at the real clock, so it is of today."""
    return Authority(now=real_now())


@pytest.fixture
def time() -> ManualTime:
    """A test's own time."""
    return ManualTime(begin_at())


@pytest.fixture
def issuer(authority: Authority, time: ManualTime) -> Iterator[FakeIssuer]:
    """A fake issuer, and the promise that nobody's thread outlives the test."""
    before = set(threading.enumerate())
    with fake_issuer(authority, time.clock) as fake:
        yield fake
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(10)  # one that is about to end may: one that would stay does not
    assert not [thread for thread in left if thread.is_alive()], f"threads outlive the test: {left}"


@pytest.fixture
def join_token_file(issuer: FakeIssuer, tmp_path: Path) -> Path:
    """A file with a join token that the issuer knows."""
    token = JoinToken.new().reveal()
    issuer.join_tokens.add(token)
    path = tmp_path / "join-token"
    path.touch(mode=0o600)
    path.write_text(token)
    return path


def attestors() -> Mapping[str, Attestor]:
    """Join tokens only: the other kinds have their own tests."""
    return {ATTESTOR.kind: ATTESTOR}


@pytest.fixture
def options(
    issuer: FakeIssuer, authority: Authority, join_token_file: Path, time: ManualTime
) -> dict[str, Any]:
    """The arguments of an identity."""
    return {
        "issuer_url": issuer.url,
        "trust": Trust.from_bundle(authority.bundle),
        "join_token_file": join_token_file,
        "attestors": attestors,
        "clock": time.clock,
        "draw": lambda: 0.5,
    }


@pytest.fixture
def world(authority: Authority) -> World:
    """An agent, tokens and facts, and whoever checks them."""
    return World(authority, authority.now)


@pytest.fixture
def identity(options: dict[str, Any], time: ManualTime) -> Iterator[AgentIdentity]:
    """An identity that was attested and is being renewed."""
    with closing(AgentIdentity(**options)) as identity:
        yield identity.start(waiter=time)

"""``daemon check`` finds what a host lacks before a daemon or an agent would."""

import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.authority import Authority
from support.node_host import entry

from accredit_client.daemon.launch_settings import LaunchSettings
from accredit_client.daemon.limits import Limits
from accredit_client.daemon.readiness import faults_of
from accredit_client.daemon.settings import InstanceLimits, NodeSettings, Settings
from accredit_client.trust import Trust

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path, authority: Authority) -> Settings:
    """A host with a join token."""
    token = tmp_path / "node.token"
    token.write_text("token")
    token.chmod(0o600)
    return Settings(
        socket=tmp_path / "agent.sock",
        data=tmp_path / "data",
        sds=True,
        crls=True,
        wit=False,
        issuer_url="https://issuer.example.org",
        trust=Trust.from_bundle(authority.bundle),
        node=NodeSettings(name="build-7", join_token_file=token),
        limits=InstanceLimits(),
        socket_limits=Limits(),
        agents=(),
    )


def test_a_host_with_everything_in_its_place_has_no_fault(
    settings: Settings, tmp_path: Path
) -> None:
    """Token, code, account and program are there, and the manifest holds."""
    launch = LaunchSettings(command=(sys.executable, "main.py"), user="nobody")
    agent = entry("summarizer", code_root=str(tmp_path), launch=launch, expires_at=NOW)
    assert faults_of(settings, [agent], NOW - timedelta(seconds=1)) == ()


@pytest.mark.parametrize(
    ("mode", "fault"), [(0o644, "has mode 0644"), (None, "cannot be read: No such file")]
)
def test_a_token_that_nobody_would_take_is_a_fault_until_the_node_is_known(
    settings: Settings, mode: int | None, fault: str
) -> None:
    """Missing or open to others; a node that has its identity needs it no more."""
    token = settings.node.join_token_file
    assert token is not None
    token.unlink() if mode is None else token.chmod(mode)
    (said,) = faults_of(settings, [], NOW)
    assert fault in said
    (settings.data / "node").mkdir(parents=True)
    assert faults_of(settings, [], NOW) == ()


def test_a_certificate_and_its_key_must_be_there(settings: Settings, tmp_path: Path) -> None:
    """Each is told of by itself."""
    node = NodeSettings(name="build-7", certificate=tmp_path / "no.pem", key=tmp_path / "no.key")
    key, certificate = faults_of(replace(settings, node=node), [], NOW)
    assert key.startswith("key ")
    assert certificate.startswith("certificate ")


def test_what_an_agent_lacks_is_named_with_the_agent(settings: Settings, tmp_path: Path) -> None:
    """A manifest that is over, no code, no program, no such account."""
    launch = LaunchSettings(command=("/no/python", "main.py"), user="no-such-user")
    agent = entry("summarizer", code_root=str(tmp_path / "no"), launch=launch, expires_at=NOW)
    said = faults_of(settings, [agent], NOW)
    assert [each.partition(" of ")[0].partition(",")[0] for each in said] == [
        "the manifest",
        "the code root",
        "there is no program /no/python",
        "there is no account no-such-user",
    ]
    assert all("support/summarizer" in each for each in said)


def test_code_in_a_container_is_not_looked_for_on_the_host(
    settings: Settings, tmp_path: Path
) -> None:
    """Only the process sees where it is; what is of the host is looked for."""
    inside = entry(
        "summarizer",
        selectors=frozenset({f"container:id:{'a' * 64}"}),
        code_root=str(tmp_path / "no"),
        expires_at=NOW + timedelta(days=1),
    )
    assert faults_of(settings, [inside], NOW) == ()
    outside = replace(inside, selectors=frozenset({"unix:uid:1"}))
    assert len(faults_of(settings, [outside], NOW)) == 1

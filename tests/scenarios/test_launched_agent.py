"""A host whose daemon starts its agents: known by birth, whatever else that user runs."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import shared_python
from support.calling import AGENT_GID, AGENT_UID, as_root
from support.node_daemon import COMMAND, WORKLOAD, Host, Workload, host, until

from accredit_client import calls

pytestmark = [as_root, pytest.mark.interop]

_OWN_USER = WORKLOAD[WORKLOAD.index("uid, gid =") : WORKLOAD.index("def say")]
AGENT = WORKLOAD.replace(_OWN_USER, "").replace(
    "WorkloadApiClient(sys.argv[3])", "WorkloadApiClient()"
)
AGENT = AGENT.replace("say(ready=os.getpid())", "say(ready=os.getpid(), arguments=sys.argv[1:])")


@pytest.fixture(scope="module")
def python() -> Iterator[str]:
    """An interpreter that agents of other users may run."""
    pytest.importorskip("spiffe")
    with tempfile.TemporaryDirectory(prefix="accredit-python-") as folder:
        Path(folder).chmod(0o755)
        made = shared_python.make(Path(folder))
        if made is None:
            pytest.skip("no Python of this version that other users may run")
        yield str(made)


@dataclass
class Launching:
    """A host, and the command that its settings start."""

    place: Host
    python: str

    @property
    def program(self) -> list[str]:
        """What root's file says."""
        return [self.python, "-BEs", "main.py"]

    def settings(self, more: str = "") -> str:
        """``[agent.launch]``."""
        return f'command = {self.program!r}\nenvironment = ["GRPC_VERBOSITY"]\n{more}'

    def listed(self, more: str = "") -> list[str]:
        """An agent that may be started, a daemon that runs; the command that has it started."""
        agent = self.place.agent(code=AGENT, launch=self.settings(more))
        self.place.listed()
        self.daemon = self.place.daemon()
        socket = ["--socket", str(self.place.socket), "--manifest", str(agent.manifest_file)]
        return [self.python, *COMMAND[1:], "run", *socket, "--"]

    def running(self, *more: str, settings: str = "") -> Workload:
        """The agent, started by ``accredit run``."""
        words = self.listed(settings)
        return self.place.told(*words, *self.program, *more, uid=AGENT_UID)


@pytest.fixture
def on_host(python: str) -> Iterator[Launching]:
    """A host whose SVIDs live for an hour."""
    with host() as place:
        yield Launching(place, python)


def refused(place: Host, words: list[str], *, uid: int = AGENT_UID) -> str:
    """What ``accredit run`` says where nothing is started."""
    done = subprocess.run(
        words,
        user=uid,
        group=AGENT_GID,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        cwd=place.folder,
    )
    assert done.returncode == 1
    assert not done.stdout
    return done.stderr


def test_birth_and_not_the_user_is_what_counts(on_host: Launching) -> None:
    """The launched agent has its identity; its twin, started by that user himself, has none."""
    place = on_host.place
    agent = on_host.running()
    identity = agent.identity()
    assert str(identity.svid.spiffe_id).endswith("/ns/support/agent/summarizer")
    own, _, _ = place.agents[0]
    # The very same program, code, directory and user: but nobody knows what it was told to do.
    environment = {"SPIFFE_ENDPOINT_SOCKET": f"unix://{place.socket}"}
    twin = place.told(*on_host.program, uid=AGENT_UID, cwd=own.root, environment=environment)
    assert "error" in twin.ask("x509")
    log = place.admin.send(calls.log_entries(start=0, limit=100))
    (born,) = [each for each in log.entries if each.record["kind"] == "instance.attested"]
    assert "launched:manifest:" in str(born.record)


def test_the_word_ends_it_and_says_why(on_host: Launching) -> None:
    """Revoked: the daemon ends the agent, and ``accredit run`` fails with the reason."""
    agent = on_host.running()
    instance = agent.identity().svid.instance
    why = "prompt injection, INC-4711"
    revoke = calls.revoke(target=f"instance:{instance}", kind="revoked", reason=why)
    on_host.place.admin.send(revoke)
    assert agent.process.wait(30) != 0
    assert why in agent.errors


def test_signals_and_the_exit_code_pass_through(on_host: Launching) -> None:
    """Whoever supervises ``accredit run`` supervises the agent."""
    agent = on_host.running()
    agent.process.send_signal(signal.SIGTERM)
    assert agent.process.wait(30) == 128 + signal.SIGTERM


def test_an_agent_ends_with_its_daemon(on_host: Launching) -> None:
    """Killed hard: nothing that it had started is left, and the requester hears it."""
    agent = on_host.running()
    on_host.daemon.end()
    assert agent.process.wait(30) == 1
    assert "the daemon is gone" in agent.errors
    until(lambda: not _runs(agent.ready["ready"]))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_root_did_not_write_is_not_started(on_host: Launching) -> None:
    """Another command, another user, more arguments: one line each, and nothing runs."""
    words, program, place = on_host.listed(), on_host.program, on_host.place
    assert place.told(*words, *program, uid=AGENT_UID).ready["arguments"] == []
    for other in (
        [*program, "--more"],
        [on_host.python, "-c", "print('evil')"],
        [*program[:-1], "/tmp/main.py"],
    ):
        assert "and by nothing else" in refused(place, [*words, *other])
    assert "not for this process" in refused(place, [*words, *program], uid=AGENT_UID + 1)


def test_arguments_that_root_allows(on_host: Launching) -> None:
    """They are the requester's; the command stays as it stands there."""
    agent = on_host.running("--ticket", "4711", settings="more_arguments = true\n")
    assert agent.ready["arguments"] == ["--ticket", "4711"]


def test_code_that_changes_ends_the_launched_agent(python: str) -> None:
    """At the next renewal: ended, suspended at the issuer, with the reason."""
    with host(x509_svid=12) as place:
        on_host = Launching(place, python)
        words = on_host.listed()
        agent = place.told(*words, *on_host.program, uid=AGENT_UID)
        instance = agent.identity().svid.instance
        own, _, _ = place.agents[0]
        (own.root / "main.py").write_text(AGENT + "# one byte more\n")
        assert agent.process.wait(30) != 0
        assert "not what was signed" in agent.errors
        until(lambda: f"instance:{instance}" in _facts(place))
        assert "not what was signed" in refused(place, [*words, *on_host.program])


def _facts(place: Host) -> set[str]:
    return {each.target for each in place.admin.send(calls.revocation_facts())}

"""A host with a node daemon: strangers' processes get, use and lose identities of ours."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.calling import AGENT_UID, as_root
from support.handshake import over_sockets
from support.node_daemon import (
    COMMAND,
    NODE,
    DaemonProcess,
    Host,
    Workload,
    host,
    identity_of,
)

from accredit_client import calls
from accredit_client.errors import IssuerRefused, IssuerUnreachable
from accredit_credentials import jwt_svid
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain
from accredit_credentials.tls import client_context, server_context
from accredit_credentials.x509_svid import validate
from accredit_issuer.clock import system_clock

pytestmark = [as_root, pytest.mark.interop]

OTHER_UID = AGENT_UID + 100
EXAMPLE = Path(__file__).parents[2] / "config" / "daemon.toml"
EXAMPLE_PORT = 8443
AUDIENCE = "https://api.example.org"


@pytest.fixture
def place() -> Iterator[Host]:
    """A host whose SVIDs live for an hour."""
    pytest.importorskip("spiffe")
    with host() as made:
        yield made


@pytest.fixture
def quick() -> Iterator[Host]:
    """A host whose SVIDs live for twelve seconds: renewal comes after some six."""
    pytest.importorskip("spiffe")
    with host(x509_svid=12) as made:
        yield made


def until(true: Callable[[], bool], timeout: float = 20.0) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def lost(workload: Workload) -> str:
    """Why a workload's stream was ended, whatever came before: PERMISSION_DENIED, and its words."""
    while (said := workload.heard()).get("event") != "lost":
        pass
    assert "PERMISSION_DENIED" in said["error"]
    return str(workload.ask("x509")["error"])  # py-spiffe does not say why a stream ended


def state_of(place: Host, instance: str) -> set[str]:
    """What the issuer's facts say of an instance."""
    facts = place.admin.send(calls.revocation_facts())
    return {fact.kind for fact in facts if fact.target == f"instance:{instance}"}


def test_a_stranger_gets_an_identity_and_uses_it(place: Host) -> None:
    """py-spiffe, by itself: a measured SVID, mTLS with a neighbour, and a JWT-SVID."""
    summarizer, triage = place.agent(), place.agent("triage", uid=OTHER_UID)
    place.listed()
    place.daemon()
    first = place.workload(summarizer)
    second = place.workload(triage, uid=OTHER_UID)
    identity, neighbour = first.identity(), second.identity()
    bundle = place.issuer.connect().send(calls.bundle(TrustDomain.parse("example.org")))
    bundles = {bundle.trust_domain: bundle}
    for each in (identity, neighbour):
        validate(each.svid, bundles=bundles, now=system_clock())
    assert str(identity.svid.spiffe_id) == "spiffe://example.org/ns/support/agent/summarizer"
    assert str(neighbour.svid.spiffe_id) == "spiffe://example.org/ns/support/agent/triage"

    seen: list[SpiffeId] = []
    server = server_context(
        bundle=bundle, identity=identity, peer_check=lambda peer: seen.append(peer.spiffe_id)
    )
    client = client_context(
        bundle=bundle, identity=neighbour, peer_check=lambda peer: seen.append(peer.spiffe_id)
    )
    assert over_sockets(client, server).succeeded
    assert set(seen) == {identity.svid.spiffe_id, neighbour.svid.spiffe_id}

    token = first.ask("jwt", AUDIENCE)["token"]
    svid = jwt_svid.validate(token, bundles=bundles, audience=AUDIENCE, now=system_clock())
    assert svid.agent is not None
    assert svid.agent.assurance == "node"
    assert svid.agent.instance == identity.svid.instance
    assert first.ask("jwt", AUDIENCE)["token"] == token
    assert second.ask("validate", AUDIENCE, token)["id"] == str(identity.svid.spiffe_id)
    assert "error" in second.ask("validate", "https://other.example.org", token)
    # The workload holds the key, and must not renew past its node.
    renewal = calls.x509_svid(csr=calls.certificate_request(identity.key))
    with pytest.raises(IssuerRefused) as refused:
        place.issuer.connect(identity).send(renewal)
    assert refused.value.kind == "forbidden"


def test_connections_of_a_process_share_one_instance_and_processes_do_not(place: Host) -> None:
    """The same process is the same instance whenever it asks; another one is another."""
    agent = place.agent()
    place.listed()
    place.daemon()
    first, second = place.workload(agent), place.workload(agent)
    instances = {first.identity().svid.instance for _ in range(3)}
    assert len(instances) == 1
    assert second.identity().svid.instance not in instances


def test_who_is_not_meant_or_not_signed_is_refused(place: Host) -> None:
    """A process of another user; and one of the right user whose code nobody signed."""
    agent = place.agent()
    unsigned = place.agent("rogue", uid=OTHER_UID)
    (unsigned.root / "more.py").write_text("print('not signed')\n")
    place.listed()
    daemon = place.daemon()
    stranger = place.workload(agent, uid=AGENT_UID + 7)
    assert "PERMISSION_DENIED" in stranger.ask("x509")["error"]
    rogue = place.workload(unsigned, uid=OTHER_UID)
    assert "not what was signed" in rogue.ask("x509")["error"]
    assert "error" in rogue.ask("jwt", AUDIENCE)
    assert place.workload(agent).identity()
    assert "no agent" in stranger.ask("x509")["error"]
    assert "not what was signed" in daemon.said


def test_rotation_reaches_a_stream_and_a_changed_byte_ends_it(quick: Host) -> None:
    """Renewed in time under another key; changed code is recorded, suspended, and never renewed."""
    agent = quick.agent()
    quick.listed()
    daemon = quick.daemon()
    workload = quick.workload(agent)
    workload.tell("watch")
    first = identity_of(workload.heard())
    second = identity_of(workload.heard())
    assert second.svid.instance == first.svid.instance
    assert second.svid.serial != first.svid.serial
    assert second.key.public_key() != first.key.public_key()
    instance = first.svid.instance
    assert instance is not None
    (agent.root / "main.py").write_text((agent.root / "main.py").read_text() + "#")
    assert "not what was signed" in lost(workload)
    until(lambda: state_of(quick, instance) == {"suspended"})
    (agent.root / "main.py").write_text((agent.root / "main.py").read_text()[:-1])
    assert "not what was signed" in workload.ask("x509")["error"]  # it may have loaded the change
    assert quick.workload(agent).identity().svid.instance != instance
    assert "other code than was signed" in daemon.said


def test_a_change_is_told_after_the_daemon_was_killed(quick: Host) -> None:
    """The issuer is away when the code changes, and the daemon is killed before it is back."""
    agent = quick.agent()
    quick.listed()
    daemon = quick.daemon()
    workload = quick.workload(agent)
    workload.tell("watch")
    instance = identity_of(workload.heard()).svid.instance
    assert instance is not None
    quick.issuer.kill()
    (agent.root / "main.py").write_text((agent.root / "main.py").read_text() + "#")
    kept = quick.folder / "data" / "reports" / f"{instance}.json"
    until(kept.exists)
    daemon.process.kill()
    daemon.wait()
    quick.issuer.start()
    assert state_of(quick, instance) == set()
    daemon.start()
    until(lambda: state_of(quick, instance) == {"suspended"})
    until(lambda: not kept.exists())


def test_a_revoked_process_loses_its_streams_and_its_neighbour_nothing(place: Host) -> None:
    """Withdrawn within a moment of the fact, and asking again brings no other instance."""
    agent = place.agent()
    place.listed()
    place.daemon()
    first, second = place.workload(agent), place.workload(agent)
    for each in (first, second):
        each.tell("watch")
    gone, stays = identity_of(first.heard()), identity_of(second.heard())
    target = f"instance:{gone.svid.instance}"
    started = time.monotonic()
    place.admin.send(calls.revoke(target=target, kind="revoked", reason="incident 1"))
    assert "incident 1" in lost(first)
    assert time.monotonic() - started < 5
    assert "incident 1" in first.ask("x509")["error"]
    assert "error" in first.ask("jwt", AUDIENCE)
    # The CRL may have come to the neighbour's stream; the identity is the same one.
    assert second.identity().svid.serial == stays.svid.serial
    while not second.silent():
        pass


def test_who_is_suspended_and_restored_is_served_again(place: Host) -> None:
    """The same instance, with the SVID that it had."""
    agent = place.agent()
    place.listed()
    place.daemon()
    workload = place.workload(agent)
    identity = workload.identity()
    target = f"instance:{identity.svid.instance}"
    place.admin.send(calls.revoke(target=target, kind="suspended", reason="a look"))
    until(lambda: "a look" in workload.ask("x509").get("error", ""))
    place.admin.send(calls.revoke(target=target, kind="restored", reason="all is well"))
    until(lambda: "error" not in workload.ask("x509"))
    assert workload.identity().svid.serial == identity.svid.serial


def test_a_revoked_node_loses_everything(place: Host) -> None:
    """One word ends the node and whatever runs there."""
    agent = place.agent()
    place.listed()
    place.daemon()
    workload = place.workload(agent)
    workload.tell("watch")
    identity_of(workload.heard())
    place.admin.send(calls.revoke(target=f"node:{NODE}", kind="revoked", reason="stolen"))
    assert "stolen" in lost(workload)
    assert "error" in place.workload(agent).ask("x509")


def test_an_issuer_that_is_away_takes_nothing_away(place: Host) -> None:
    """What is held is served on, the daemon may even restart, and somebody new has to wait."""
    agent = place.agent()
    place.listed()
    daemon = place.daemon()
    workload = place.workload(agent)
    identity = workload.identity()
    place.issuer.kill()
    client = place.issuer.connect()
    with pytest.raises(IssuerUnreachable):
        client.send(calls.nonce())
    assert workload.identity().svid.serial == identity.svid.serial
    newcomer = place.workload(agent)
    assert "UNAVAILABLE" in newcomer.ask("x509")["error"]
    place.issuer.start()
    until(lambda: "error" not in newcomer.ask("x509"))
    assert daemon.process.poll() is None


def test_an_issuer_that_stays_away_is_asked_slowly(quick: Host) -> None:
    """Served until it is over, then not for now; nothing spins, and it is had again afterwards."""
    agent = quick.agent()
    quick.listed()
    daemon = quick.daemon()
    workload = quick.workload(agent)
    held = workload.identity()
    quick.issuer.kill()
    until(lambda: "UNAVAILABLE" in workload.ask("x509").get("error", ""), timeout=60.0)
    assert system_clock() >= held.svid.not_after
    assert "UNAVAILABLE" in workload.ask("jwt", AUDIENCE)["error"]
    assert daemon.process.poll() is None
    # After pauses of a second, two, four …, whatever the workload asks meanwhile.
    assert 1 <= daemon.said.count("waits for its SVID") < 10
    quick.issuer.start()
    until(lambda: "error" not in workload.ask("x509"), timeout=60.0)
    assert workload.identity().svid.instance == held.svid.instance


def test_a_restarted_daemon_is_the_same_node(place: Host) -> None:
    """Without another token, and without the issuer; its processes are new instances."""
    agent = place.agent()
    token = place.listed()
    daemon = place.daemon()
    workload = place.workload(agent)
    before = workload.identity()
    assert daemon.stop() == 0
    assert not place.socket.exists()
    token.unlink()
    place.issuer.kill()
    daemon.start()
    assert daemon.ready["node"] == f"spiffe://example.org/node/{NODE}"
    place.issuer.start()
    until(lambda: "error" not in workload.ask("x509"))
    assert workload.identity().svid.instance != before.svid.instance
    (listed,) = place.admin.send(calls.nodes())
    assert listed.instances == 2


def test_a_second_daemon_does_not_start(place: Host) -> None:
    """It says so, and the first one serves on."""
    agent = place.agent()
    place.listed()
    first = place.daemon()
    done = subprocess.run(
        [*COMMAND, "daemon", "run", "--config", str(first.file)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "another daemon serves" in done.stderr
    assert place.workload(agent).identity()


def test_a_node_without_a_token_does_not_start(place: Host) -> None:
    """The daemon ends, and says what the issuer said."""
    place.listed()
    token = place.folder / "node.token"
    token.write_text(token.read_text()[:-4] + "AAAA")
    daemon = place.daemon(start=False)
    daemon.start(ready=False)
    assert daemon.wait() == 1
    assert "join token" in daemon.said
    assert token.read_text() not in daemon.said


def test_the_settings_are_checked_without_asking_anybody(place: Host) -> None:
    """``daemon check`` says what the settings mean; one wrong key is named."""
    place.agent()
    place.listed()
    file = place.settings()
    command = [*COMMAND, "daemon", "check", "--config", str(file)]
    done = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, timeout=30, check=True
    )
    said = json.loads(done.stdout)
    assert said["agents"][0]["selectors"] == [f"unix:uid:{AGENT_UID}"]
    assert said["faults"] == []
    (place.folder / "node.token").chmod(0o644)
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "node.token has mode 0644" in done.stderr
    file.write_text(file.read_text() + 'colour = "red"\n')
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "colour" in done.stderr


def test_the_example_of_settings_runs_as_it_is() -> None:
    """``config/daemon.toml`` with nothing changed, in folders that only its processes see."""
    pytest.importorskip("spiffe")
    with ExitStack() as resources:
        try:
            place = resources.enter_context(host(port=EXAMPLE_PORT))
        except OSError:
            pytest.skip(f"somebody else listens on port {EXAMPLE_PORT}")
        apart = ("unshare", "--mount", "--propagation", "private")
        if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
            pytest.skip("no mount namespaces here")
        agent = place.agent()
        place.listed()
        place.settings()
        mounted = {name: place.folder / name for name in ("run", "lib", "opt")}
        for folder in mounted.values():
            folder.mkdir()
        shutil.copytree(agent.root, mounted["opt"] / "summarizer")
        shutil.copy(agent.manifest_file, place.folder / "summarizer.manifest.json")
        shutil.copy(EXAMPLE, place.folder / "daemon.toml")
        (place.folder / "daemon.toml").chmod(0o644)
        mounts = " && ".join(
            f"mount --bind {mounted[name]} {there}"
            for name, there in (("run", "/run"), ("lib", "/var/lib"), ("opt", "/opt"))
        )
        before = (*apart, "sh", "-c", f'{mounts} && exec "$@"', "sh")
        daemon = DaemonProcess(place.folder / "daemon.toml", before)
        daemon.start()
        resources.callback(daemon.end)
        socket = Path("/run/accredit/agent.sock")
        workload = place.workload(agent, before=before, socket=socket)
        assert str(workload.identity().svid.spiffe_id).endswith("/ns/support/agent/summarizer")
        assert (mounted["lib"] / "accredit-node").stat().st_mode & 0o777 == 0o700
        assert "error" in place.workload(agent, uid=OTHER_UID, before=before, socket=socket).ask(
            "x509"
        )

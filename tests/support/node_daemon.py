"""The node daemon as an operator runs it, and workloads as strangers write them.

``Host`` is one machine: an issuer process that lists it, agents' code that belongs to root, the
daemon's settings. ``Workload`` is a process of its own user that knows py-spiffe and nothing of us:
it is told what to ask, and says what it got.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from types import MappingProxyType
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from support.calling import AGENT_GID, AGENT_UID
from support.issuer import AGENT_TOML, Admin, AgentFolder, log_in, register, write_agent
from support.process import IssuerProcess, issuer_process, write_settings

from accredit_attestors.manifest import generate_signer_key
from accredit_client import calls
from accredit_credentials.x509_svid import X509Identity, parse_pem
from accredit_issuer.clock import system_clock

TIMEOUT = 30.0
COMMAND = (sys.executable, "-c", "from accredit_client.cli import main; raise SystemExit(main())")
NODE = "build-7"

WORKLOAD = '''\
"""An agent of somebody who knows SPIFFE: it does what it is told, one line each."""

import json
import os
import sys
import time

from spiffe import WorkloadApiClient
from cryptography.hazmat.primitives.serialization import (
    Encoding, NoEncryption, PrivateFormat,
)

uid, gid = int(sys.argv[1]), int(sys.argv[2])
os.setgroups([])
os.setresgid(gid, gid, gid)
os.setresuid(uid, uid, uid)


def say(**what):
    print(json.dumps(what), flush=True)


def x509(svid):
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in svid.cert_chain)
    key = svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {"id": str(svid.spiffe_id), "chain": chain.decode(), "key": key.decode()}


client = WorkloadApiClient(sys.argv[3])
watching = []
say(ready=os.getpid())
for line in sys.stdin:
    command, *words = line.split()
    try:
        if command == "x509":
            begun = time.perf_counter()
            svid = client.fetch_x509_svid()
            say(took=time.perf_counter() - begun, **x509(svid))
        elif command == "jwt":
            svid = client.fetch_jwt_svid(audience={words[0]})
            say(id=str(svid.spiffe_id), token=svid.token)
        elif command == "validate":
            say(id=str(client.validate_jwt_svid(words[1], audience=words[0]).spiffe_id))
        elif command == "watch":
            watching.append(client.stream_x509_contexts(
                lambda context: say(event="new", **x509(context.default_svid)),
                lambda error: say(event="lost", error=str(error)),
                retry_connect=False,
            ))
    except Exception as error:
        say(error=str(error))
'''


def until(true: Callable[[], bool], timeout: float = TIMEOUT) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@dataclass
class Workload:
    """A process that asks the daemon."""

    process: "subprocess.Popen[str]"
    log: Path
    lines: "Queue[dict[str, Any]]" = field(default_factory=Queue)
    ready: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.ready = self.heard()
        assert "ready" in self.ready

    @property
    def errors(self) -> str:
        """What was written to its standard error."""
        return self.log.read_text()

    def ask(self, *words: str) -> dict[str, Any]:
        """Tell it to ask something; what it got."""
        self.tell(*words)
        return self.heard()

    def tell(self, *words: str) -> None:
        """Tell it to do something."""
        assert self.process.stdin
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()

    def heard(self, timeout: float = TIMEOUT) -> dict[str, Any]:
        """The next thing that it says."""
        return self.lines.get(timeout=timeout)

    def silent(self) -> bool:
        """Whether it has said nothing more."""
        try:
            self.lines.get_nowait()
        except Empty:
            return True
        return False

    def identity(self) -> X509Identity:
        """Its SVID and key."""
        return identity_of(self.ask("x509"))

    def end(self) -> None:
        """End and reap it."""
        self.process.kill()
        self.process.wait()
        self._reader.join(TIMEOUT)
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as said:
            for line in said:
                self.lines.put(json.loads(line))


def identity_of(said: dict[str, Any]) -> X509Identity:
    """The SVID and key that a workload told of."""
    assert "error" not in said, said
    key = load_pem_private_key(said["key"].encode(), password=None)
    return X509Identity.of(parse_pem(said["chain"]), key)  # type: ignore[arg-type]


@dataclass
class DaemonProcess:
    """``accredit daemon run``; ``before`` is what stands before the command."""

    file: Path
    before: tuple[str, ...] = ()
    process: "subprocess.Popen[str]" = field(init=False, repr=False)
    ready: dict[str, Any] = field(init=False)
    log: list[str] = field(default_factory=list)

    def start(self, *, ready: bool = True) -> None:
        """Start it, and wait until it is ready."""
        self.process = subprocess.Popen(
            [*self.before, *COMMAND, "daemon", "run", "--json", "--config", str(self.file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        if ready:
            assert self.process.stdout
            line = self.process.stdout.readline()
            assert line, self.said
            self.ready = json.loads(line)

    @property
    def said(self) -> str:
        """Its log."""
        return "".join(self.log)

    def stop(self) -> int:
        """Stop it as systemd does."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """The status it ended with."""
        status = self.process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        assert self.process.stdout
        self.process.stdout.close()
        return status

    def end(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
            self.wait()

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr
        with process.stderr as log:
            for line in log:
                self.log.append(line)


@dataclass
class Host:
    """One machine with its issuer."""

    folder: Path
    issuer: IssuerProcess
    admin: Admin
    resources: ExitStack = field(repr=False)
    serves_wit: bool = False
    agents: list[tuple[AgentFolder, str, str]] = field(default_factory=list)
    _told: int = 0

    @property
    def socket(self) -> Path:
        """Where the daemon serves."""
        return self.folder / "run" / "agent.sock"

    def agent(
        self,
        name: str = "summarizer",
        *,
        uid: int = AGENT_UID,
        code: str = WORKLOAD,
        files: Mapping[str, bytes] = MappingProxyType({}),
        launch: str = "",
    ) -> Any:
        """An agent's code in root's hands, signed, registered, and meant by its user's id.

        ``files`` by their names; they may be executed. ``launch``: how the daemon starts it.
        """
        toml = AGENT_TOML.replace("support/summarizer", f"support/{name}")
        agent = write_agent(
            self.folder / name, key=generate_signer_key(), now=system_clock(), toml=toml
        )
        (agent.root / "main.py").write_text(code)
        for file, content in files.items():
            (agent.root / file).write_bytes(content)
            (agent.root / file).chmod(0o755)
        agent.sign(system_clock())
        register(self.issuer, self.admin, agent, signer=f"ci-{name}")  # type: ignore[arg-type]
        self.agents.append((agent, f"unix:uid:{uid}", launch))
        return agent

    def listed(self, name: str = NODE) -> Path:
        """List the node; a file with its join token."""
        call = calls.add_node(name, attestation="join_token", namespaces=["support"])
        self.admin.send(call)
        return self.token(name)

    def token(self, name: str = NODE) -> Path:
        """A new join token in the file."""
        file = self.folder / "node.token"
        file.touch(mode=0o600)
        file.write_text(self.admin.send(calls.node_join_token(name, ttl_seconds=60)).token)
        return file

    def settings(self, more: str = "") -> Path:
        """The daemon's settings, as the agents are now."""
        bundle = self.folder / "bundle.json"
        bundle.write_text(self.issuer.bundle.to_json())
        text = (
            f'[daemon]\nsocket = "run/agent.sock"\ndata = "data"\n'
            f"wit = {str(self.serves_wit).lower()}\n"
            f'[issuer]\nurl = "{self.issuer.url}"\ntrust = "bundle.json"\n'
            f'[node]\nname = "{NODE}"\njoin_token_file = "node.token"\n{more}'
        )
        for agent, selector, launch in self.agents:
            text += (
                f'[[agent]]\nmanifest = "{agent.manifest_file}"\ncode_root = "{agent.root}"\n'
                f'selectors = ["{selector}"]\n'
            )
            if launch:
                text += f"[agent.launch]\n{launch}"
        file = self.folder / "daemon.toml"
        file.write_text(text)
        for each in (bundle, file):
            each.chmod(0o644)
        return file

    def daemon(self, *, start: bool = True, before: tuple[str, ...] = ()) -> DaemonProcess:
        """The daemon, running."""
        daemon = DaemonProcess(self.settings(), before)
        if start:
            daemon.start()
            self.resources.callback(daemon.end)
        return daemon

    def workload(
        self,
        agent: AgentFolder,
        *,
        uid: int = AGENT_UID,
        gid: int = AGENT_GID,
        before: tuple[str, ...] = (),
        socket: Path | None = None,
    ) -> Workload:
        """A process of the agent's code; ``before`` is what stands before its command."""
        command = (*before, sys.executable, "-B", str(agent.root / "main.py"))
        return self.told(*command, str(uid), str(gid), f"unix:{socket or self.socket}")

    def told(
        self,
        *command: str,
        uid: int | None = None,
        cwd: Path | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Workload:
        """A process that is told what to do, of another user from the start where one is named."""
        self._told += 1
        errors = self.folder / f"told-{self._told}.log"
        with errors.open("w") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=cwd,
                env={**os.environ, "GRPC_VERBOSITY": "NONE", **environment},
                user=uid,
                group=None if uid is None else AGENT_GID,
                extra_groups=None if uid is None else [],
            )
        workload = Workload(process, errors)
        self.resources.callback(workload.end)
        return workload


@contextmanager
def host(*, x509_svid: int = 3600, port: int = 0, wit: bool = False) -> Iterator[Host]:
    """A machine; everything that runs there ends with it."""
    # Below a directory that other users may pass, as pytest's own may not be.
    with tempfile.TemporaryDirectory(prefix="accredit-host-") as name, ExitStack() as resources:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "issuer").mkdir(mode=0o700)
        more = (
            f"[lifetimes]\nx509_svid = {x509_svid}\nwit_svid = 8\n"
            f"[wit]\nenabled = {str(wit).lower()}\n"
        )
        issuer = resources.enter_context(
            issuer_process(write_settings(folder / "issuer", more, port=port))
        )
        admin = log_in(issuer, issuer.first_token)  # type: ignore[arg-type]
        yield Host(folder, issuer, admin, resources)

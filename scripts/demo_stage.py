"""The stage of the story that ``scripts/demo`` plays: its folder, its processes, its commands.

Every process is one that a user would start, by the words that they would type. What it prints is
read as it comes, and what it logs stays in the folder.
"""

import json
import os
import queue
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import shared_python
from rich.console import Console
from rich.text import Text

from accredit_client import AgentIdentity, Trust

BIN = Path(sys.executable).parent
PATIENCE = 20.0  # seconds for anything to happen
UIDS = {"ticket-server": 61001, "ticket-summarizer": 61002}  # a user for each agent
GID = 61000

_DIGEST = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}")


def shortened(text: str) -> str:
    """The text with its digests short."""
    return _DIGEST.sub(r"\1…", text)


class Failed(Exception):
    """A step did not do what the story says."""


@dataclass
class Story:
    """What happened so far; ``steps`` is what ``--json`` writes."""

    console: Console
    steps: list[dict[str, Any]] = field(default_factory=list)

    def chapter(self, title: str) -> None:
        """A new part of the story."""
        self.console.print()
        self.console.print(Text(title, style="bold"))

    @contextmanager
    def step(self, what: str, **figures: Any) -> Iterator[dict[str, Any]]:
        """One step; what it puts into the figures is shown behind it."""
        started = time.perf_counter()
        ok = False
        try:
            yield figures
            ok = True
        finally:
            figures["ms"] = round((time.perf_counter() - started) * 1000)
            self.steps.append({"step": what, "ok": ok, **figures})
            line = Text("  ✓ " if ok else "  ✗ ", style="green" if ok else "red")
            line.append(what, style="default")
            if shown := figures.get("shown"):
                line.append("  " + shortened(shown), style="dim")
            self.console.print(line, soft_wrap=True)


@dataclass
class Watched:
    """A process whose lines of JSON are read as they come."""

    process: subprocess.Popen[str]
    events: "queue.Queue[dict[str, Any]]" = field(default_factory=queue.Queue)
    seen: list[dict[str, Any]] = field(default_factory=list)

    def wait_for(self, *events: str) -> dict[str, Any]:
        """The next event of one of these names."""
        deadline = time.monotonic() + PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            try:
                found = self.events.get(timeout=left)
            except queue.Empty:
                break
            self.seen.append(found)
            if found.get("event") in events:
                return found
        raise Failed(f"no event {' or '.join(events)} within {PATIENCE:.0f} s; seen: {self.seen}")


class Stage:
    """The folder, the processes, and the commands of the story."""

    def __init__(self, folder: Path, undo: ExitStack) -> None:
        self.folder = folder
        self.undo = undo
        self.port = _free_port()
        self.server_port = _free_port()
        self.url = f"https://localhost:{self.port}"
        self.pin = ""
        self.commands = {
            "ticket-server": [self.url, str(self.server_port)],
            "ticket-summarizer": [f"https://localhost:{self.server_port}"],
        }
        self.python: Path | None = None
        if os.geteuid() == 0:
            folder.chmod(0o711)  # agents of other users pass it; what is secret in it is 0600
            self.python = shared_python.make(folder)

    @property
    def socket(self) -> Path:
        """The node daemon's."""
        return self.folder / "run" / "agent.sock"

    def accredit(self, *arguments: str, profile: str = "default", fails: bool = False) -> Any:
        """Run ``accredit … --json`` and read what it prints.

        With ``fails`` the command has to refuse; its error is returned.
        """
        return self.run(BIN / "accredit", *arguments, profile=profile, fails=fails)

    def run(
        self,
        program: Path,
        *arguments: str,
        profile: str = "none",
        fails: bool = False,
        uid: int | None = None,
    ) -> Any:
        """The same by another program, as another user."""
        done = subprocess.run(
            [program, *arguments],
            env=self._environment(profile),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            **_as(uid),
        )
        if fails:
            if done.returncode != 1:
                raise Failed(f"accredit {arguments[0]} should refuse, exit {done.returncode}")
            return done.stderr.strip().splitlines()[0].removeprefix("error: ")
        if done.returncode != 0:
            raise Failed(f"accredit {' '.join(arguments[:2])}: {done.stderr.strip()}")
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    def start(self, name: str, command: list[str], cwd: Path, uid: int | None = None) -> Watched:
        """Start a process that prints JSON lines."""
        log = self.undo.enter_context((self.folder / f"{name}.log").open("w"))
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=self._environment("none"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            **_as(uid),
        )
        watched = Watched(process)
        self.undo.callback(_end, process)
        assert process.stdout is not None  # noqa: S101 (for the type checker)
        threading.Thread(target=_read, args=(process.stdout, watched.events), daemon=True).start()
        return watched

    def runtime(self, name: str) -> Watched:
        """Start an agent as its runtime does."""
        folder = self.folder / name
        if self.python is not None:
            run = [str(self.python.with_name("accredit")), *self.launching(name)]
            return self.start(name, [*run, *self.command(name)], folder, UIDS[name])
        token = self.enrol(f"support/{name}")
        run = [str(BIN / "accredit"), "run", *self.attesting(folder, token), "--"]
        return self.start(name, [*run, *self.command(name)], folder)

    def command(self, name: str) -> list[str]:
        """The command by which an agent runs."""
        return [str(self.python or sys.executable), "-BEs", "main.py", *self.commands[name]]

    def launching(self, name: str) -> list[str]:
        """The words of ``accredit run`` by which the daemon starts an agent."""
        manifest = str(self.folder / name / "agent.manifest.json")
        return ["run", "--socket", str(self.socket), "--manifest", manifest, "--"]

    def attesting(self, folder: Path, join_token: Path) -> list[str]:
        """The options of every command that attests."""
        manifest = str(folder / "agent.manifest.json")
        return [
            *("--url", self.url, "--trust", self.pin, "--manifest", manifest),
            *("--code-root", str(folder), "--join-token-file", str(join_token)),
        ]

    def attested(self, name: str) -> AgentIdentity:
        """One more instance of an agent, in our own hands: for what must fail."""
        folder = self.folder / name
        return AgentIdentity(
            issuer_url=self.url,
            trust=Trust.from_pin(self.pin),
            manifest_file=folder / "agent.manifest.json",
            code_root=folder,
            join_token_file=self.enrol(f"support/{name}"),
        )

    def enrol(self, agent: str) -> Path:
        """A file with a join token for one instance of an agent."""
        token = self.folder / f"{agent.rpartition('/')[2]}-{time.monotonic_ns()}.token"
        self.accredit("agent", "enrol", agent, "--out", str(token), profile="ci")
        return token

    def _environment(self, profile: str) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if name in {"PATH", "LANG"}},
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "HOME": str(self.folder),
            "ACCREDIT_PROFILE": profile,
            "NO_COLOR": "1",
        }


def _as(uid: int | None) -> dict[str, Any]:
    return {} if uid is None else {"user": uid, "group": GID, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int) -> None:
    """Wait until somebody listens there."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise Failed(f"nothing listens on port {port}")


def _read(stream: IO[str], events: "queue.Queue[dict[str, Any]]") -> None:
    for line in stream:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        events.put({"event": "ready", **event})
    # The daemon may be faster than the server: then there is no next call.
    events.put({"event": "ended", "at": time.time(), "why": "the process has been ended"})


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()

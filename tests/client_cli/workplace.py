"""``accredit`` as a function, and what a test of it works with."""

import io
import json
import stat
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.issuer import RunningIssuer

from accredit_client.cli import main

AGENT_TOML = """\
[agent]
name = "{agent}"
version = "1.0.0"
owner = "ada@example.com"
purpose = "Summarises tickets"

[code]
exclude = ["signer.key*"]

[[resource]]
name = "tickets"
audience = "https://tickets.example.org"

[resource.actions]
read = "low"
delete = "high"
"""


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Its one JSON document."""
        return json.loads(self.out)


def accredit(*arguments: str | Path, stdin: bytes = b"") -> Result:
    """Run one command in this process."""
    out, err = io.StringIO(), io.StringIO()
    real, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(stdin))
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main([str(argument) for argument in arguments])
    finally:
        sys.stdin = real
    return Result(code, out.getvalue(), err.getvalue())


def succeed(*arguments: str | Path, stdin: bytes = b"") -> Result:
    """Run one command that must succeed."""
    result = accredit(*arguments, stdin=stdin)
    assert result.code == 0, result.err
    return result


def secret_file(path: Path, text: str) -> Path:
    """A file that only its owner may read."""
    path.touch(0o600)
    path.write_text(text)
    return path


def mode_of(path: Path) -> int:
    """The permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


@dataclass
class Agent:
    """A registered agent, ready to attest."""

    name: str
    folder: Path
    join_token_file: Path
    arguments: list[str] = field(default_factory=list)

    @property
    def manifest(self) -> Path:
        """Its signed manifest."""
        return self.folder / "agent.manifest.json"


@dataclass
class World:
    """An issuer, and the place where its first admin works."""

    running: RunningIssuer
    folder: Path
    agents: int = 0

    @property
    def url(self) -> str:
        """The issuer's address."""
        return self.running.url

    @property
    def bundle_file(self) -> Path:
        """The trust bundle."""
        path = self.folder / "bundle.json"
        path.write_text(self.running.bundle.to_json())
        return path

    @property
    def key_file(self) -> Path:
        """The signer's private key."""
        return self.folder / "signer.key"

    def log_in(self, token: str, *more: str) -> Result:
        """``accredit login`` with the token on stdin."""
        return accredit(
            "login", "--url", self.url, "--trust", self.bundle_file, "--token-file", "-", *more,
            stdin=token.encode(),
        )  # fmt: skip

    def new_agent(self) -> Agent:
        """Sign, register and enrol another agent."""
        self.agents += 1
        name = f"support/agent-{self.agents}"
        folder = self.folder / f"agent-{self.agents}"
        folder.mkdir()
        (folder / "agent.toml").write_text(AGENT_TOML.format(agent=name))
        (folder / "main.py").write_text("print('hello')\n")
        succeed("manifest", "sign", folder, "--key", self.key_file)
        succeed("manifest", "register", folder / "agent.manifest.json")
        join_token = self.folder / f"join-token-{self.agents}"
        succeed("agent", "enrol", name, "--out", join_token)
        agent = Agent(name, folder, join_token)
        agent.arguments = [
            "--url", self.url, "--trust", str(self.bundle_file), "--manifest", str(agent.manifest),
            "--code-root", str(folder), "--join-token-file", str(join_token),
        ]  # fmt: skip
        return agent

    def new_version(self, agent: Agent) -> None:
        """Sign and register the agent's next version."""
        (agent.folder / "main.py").write_text("print('hello again')\n")
        declared = agent.folder / "agent.toml"
        declared.write_text(declared.read_text().replace('"1.0.0"', '"1.0.1"'))
        succeed("manifest", "sign", agent.folder, "--key", self.key_file)
        succeed("manifest", "register", agent.manifest)

    def attested(self) -> tuple[Agent, Path]:
        """An agent with credentials in a folder."""
        agent = self.new_agent()
        out = self.folder / f"credentials-{self.agents}"
        succeed("svid", "fetch", *agent.arguments, "--out", out)
        return agent, out

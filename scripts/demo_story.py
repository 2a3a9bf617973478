"""The story that ``scripts/demo`` plays: real processes, real sockets, nothing pretended.

Three kinds of user, each by the commands they would type: CI signs and registers, an agent runtime
has the node daemon start an agent, a security team revokes it. (Without root there is no daemon,
and the agents attest by themselves.) In between, what must fail is tried. Each step says
what it expects; the exit status is 0 only if every step did that.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
from demo_stage import (
    BIN,
    GID,
    PATIENCE,
    UIDS,
    Failed,
    Stage,
    Story,
    Watched,
    shortened,
    wait_for_port,
)
from rich.console import Console
from rich.text import Text

from accredit_client import AgentIdentity, TaskTokenRequest
from accredit_client.errors import ClientError

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "config" / "examples"
AGENT = "support/ticket-summarizer"
INTERRUPTED = 130  # as shells say it

ISSUER_TOML = """\
trust_domain = "example.org"
data = "data"

[server]
port = {port}
url = "https://localhost:{port}"

[keys]
passphrase_file = "passphrase"

[lifetimes]
jwt_key = 3600

[revocation]
heartbeat = 1.0

[bundle]
refresh_hint = 5
"""

DAEMON_TOML = """\
[daemon]
socket = "run/agent.sock"
data = "node"

[issuer]
url = "{url}"
trust = "{pin}"

[node]
name = "demo-host"
join_token_file = "node.token"
"""

AGENT_TOML = """
[[agent]]
manifest = "{name}/agent.manifest.json"
code_root = "{folder}"
selectors = ["unix:uid:{uid}"]

[agent.launch]
command = {command}
"""


def main() -> int:
    """Play the story."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every step with figures")
    parser.add_argument("--keep", action="store_true", help="keep the folder of the story")
    options = parser.parse_args()
    if options.json and not options.json.absolute().parent.is_dir():
        parser.error(f"--json {options.json}: there is no such folder")
    console = Console(highlight=False)
    story = Story(console)
    folder = Path(tempfile.mkdtemp(prefix="accredit-demo-"))
    started = time.perf_counter()
    problem = ""
    try:
        with ExitStack() as undo:
            play(story, Stage(folder, undo))
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        console.print("\ninterrupted: every process is ended, and the folder is removed")
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("ACCREDIT_DEBUG"):
            raise
        problem = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
    ok = not problem and all(step["ok"] for step in story.steps)
    seconds = time.perf_counter() - started
    console.print()
    if ok:
        console.print(f"All {len(story.steps)} steps did what they say, in {seconds:.1f} s.")
    else:
        console.print(f"error: {problem}", style="red", markup=False)
        console.print(f"hint: the logs of every process are in {folder}", markup=False)
    if options.json:
        report = {"ok": ok, "seconds": round(seconds, 1), "steps": story.steps}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if ok and not options.keep:
        shutil.rmtree(folder)
    elif options.keep:
        console.print(f"kept: {folder}", markup=False)
    return 0 if ok else 1


def play(story: Story, stage: Stage) -> None:
    """The chapters, in order."""
    start_issuer(story, stage)
    ci_registers(story, stage)
    node_daemon(story, stage)
    agent = runtime_starts(story, stage)
    what_must_fail(story, stage)
    security_revokes(story, stage, agent)


def start_issuer(story: Story, stage: Stage) -> None:
    """The issuer, and the first admin."""
    story.chapter("An issuer")
    config = stage.folder / "issuer.toml"
    config.write_text(ISSUER_TOML.format(port=stage.port))
    passphrase = stage.folder / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_bytes(os.urandom(24).hex().encode())
    issuer = str(BIN / "accredit-issuer")
    with story.step("accredit-issuer init: keys, database, one-time token") as figures:
        made = subprocess.run(
            [issuer, "init", "--config", str(config), "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        if made.returncode != 0:
            raise Failed(made.stderr.strip())
        init = json.loads(made.stdout)
        stage.pin = init["pin"]
        figures["shown"] = f"root {stage.pin}"
    with story.step("accredit-issuer run: TLS 1.3, SQLite") as figures:
        command = [issuer, "run", "--config", str(config), "--json"]
        started = time.perf_counter()
        ready = stage.start("issuer", command, stage.folder).wait_for("ready")
        figures["ready_ms"] = round((time.perf_counter() - started) * 1000)
        figures["shown"] = f"{ready['url']}, ready in {figures['ready_ms']} ms"
    with story.step("accredit login: the token is spent for a short-lived admin SVID"):
        login = ("--url", stage.url, "--trust", stage.pin, "--token-file", init["token_file"])
        stage.accredit("login", *login)


def ci_registers(story: Story, stage: Stage) -> None:
    """CI signs and registers the two sample agents."""
    story.chapter("CI pipeline")
    with story.step("accredit signer keygen, add: this key may sign for namespace support"):
        key = stage.folder / "ci.key"
        stage.accredit("signer", "keygen", "--out", str(key))
        public = ("--key", f"{key}.pub", "--namespace", "support")
        stage.accredit("signer", "add", "ci-main", *public)
    with story.step("accredit admin invite ci: a registrar of namespace support"):
        token = str(stage.folder / "ci.token")
        role = ("--role", "registrar", "--namespace", "support", "--out", token)
        stage.accredit("admin", "invite", "ci", *role)
        login = ("--url", stage.url, "--trust", stage.pin, "--token-file", token)
        stage.accredit("login", *login, profile="ci")
    for name in ("ticket-summarizer", "ticket-server"):
        with story.step(f"accredit manifest sign, register: {name}") as figures:
            folder = stage.folder / name
            shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("__pycache__"))
            stage.accredit("manifest", "sign", str(folder), "--key", str(key))
            manifest = str(folder / "agent.manifest.json")
            registered = stage.accredit("manifest", "register", manifest, "--json", profile="ci")
            figures["shown"] = registered["digest"]


def node_daemon(story: Story, stage: Stage) -> None:
    """The host's daemon, which will start the agents; without it they attest themselves."""
    story.chapter("Node daemon")
    if stage.python is None:
        why = "needs root" if os.geteuid() else "needs a Python that other users may run"
        text = f"  - {why}: the agents measure themselves in this run (assurance self)"
        story.console.print(Text(text, style="dim"), soft_wrap=True)
        return
    with story.step("accredit node add: this host may run agents of namespace support"):
        token = str(stage.folder / "node.token")
        stage.accredit("node", "add", "demo-host", "--namespaces", "support", "--out", token)
    with story.step(
        "accredit daemon run: it measures agents from outside, and starts them"
    ) as figures:
        config = stage.folder / "daemon.toml"
        text = DAEMON_TOML.format(url=stage.url, pin=stage.pin)
        for name, uid in UIDS.items():
            command = json.dumps(stage.command(name))
            folder = stage.folder / name
            text += AGENT_TOML.format(name=name, folder=folder, uid=uid, command=command)
        config.write_text(text)
        command = [str(BIN / "accredit"), "daemon", "run", "--config", str(config), "--json"]
        ready = stage.start("daemon", command, stage.folder).wait_for("ready")
        figures["shown"] = ready["node"]


def runtime_starts(story: Story, stage: Stage) -> Watched:
    """The runtimes start the resource server and the agent."""
    story.chapter("Agent runtime")
    who = "attests" if stage.python is None else "is measured and started by the daemon"
    with story.step(f"accredit run: the ticket server {who}, and serves with its SVID"):
        stage.runtime("ticket-server")
        wait_for_port(stage.server_port)
    with story.step(f"accredit run: the agent {who}, its code is what was signed") as figures:
        agent = stage.runtime("ticket-summarizer")
        identity = agent.wait_for("identity")
        figures["shown"] = identity["spiffe_id"]
    with story.step("it has an X.509-SVID and a JWT-SVID"):
        agent.wait_for("jwt_svid")
    with story.step("it reads tickets over mutual TLS, with a token for this task") as figures:
        figures["shown"] = f"“{agent.wait_for('summary')['text']}”"
    return agent


def what_must_fail(story: Story, stage: Stage) -> None:
    """Each of these is refused, and says why."""
    story.chapter("What must fail, fails")
    with story.step("one byte of the agent's code changed") as figures:
        figures["shown"] = _changed_code(stage)
    with story.step("a manifest signed by a stranger") as figures:
        figures["shown"] = _stranger(stage)
    if stage.python is not None:
        beside_the_daemon(story, stage, stage.python.with_name("accredit"))
    with stage.attested("ticket-summarizer") as agent, stage.attested("ticket-server") as other:
        refusals: list[tuple[str, Callable[[], str]]] = [
            ("a resource that was not declared", lambda: _asked(agent, "payroll", "read")),
            ("a high-risk action", lambda: _asked(agent, "tickets", "delete")),
            ("the token of another audience", lambda: _used(stage, agent, agent, "archive")),
            ("the token in another agent's hands", lambda: _used(stage, agent, other, "tickets")),
            ("the token after it expired", lambda: _used_late(stage, agent)),
        ]
        for what, attempt in refusals:
            with story.step(what) as figures:
                figures["shown"] = attempt()


def beside_the_daemon(story: Story, stage: Stage, accredit: Path) -> None:
    """The agent's own user, who wants the agent's identity for something else."""
    uid = UIDS["ticket-summarizer"]
    with story.step("another process of the agent's user asks for its identity") as figures:
        own = stage.folder / "own"
        own.mkdir()
        os.chown(own, uid, GID)
        fetch = ("svid", "fetch", "--socket", str(stage.socket), "--out", str(own / "svid"))
        figures["shown"] = stage.run(accredit, *fetch, fails=True, uid=uid)
    with story.step("another command beside the signed code") as figures:
        run = [*stage.launching("ticket-summarizer"), str(stage.python), "-c", "print('evil')"]
        figures["shown"] = stage.run(accredit, *run, fails=True, uid=uid)


def security_revokes(story: Story, stage: Stage, agent: Watched) -> None:
    """One word, and the agent holds nothing."""
    story.chapter("Security team")
    with story.step("meanwhile the agent renewed its identity, unasked") as figures:
        renewed = next((e for e in agent.seen if e.get("event") == "renewed"), None)
        renewed = renewed or agent.wait_for("renewed")
        figures["shown"] = f"now serial {renewed['serial'][:12]}…"
    with story.step("accredit agent list") as figures:
        agents = stage.accredit("agent", "list", "--json")
        figures["shown"] = ", ".join(each["agent"] for each in agents)
    with stage.attested("ticket-summarizer") as identity:
        revoke = ("agent", AGENT, "--reason", "prompt injection, INC-4711", "--json")
        with story.step(f"accredit revoke agent {AGENT}") as figures:
            figures["shown"] = _confirmed(stage.accredit("revoke", *revoke)["confirmations"])
        with story.step("the agent's next call is refused, or it is ended before one") as figures:
            said = _stated_at(stage)
            refused = agent.wait_for("refused", "over", "ended")
            while refused["at"] < said:  # a token that had expired, say, and was renewed
                refused = agent.wait_for("refused", "over", "ended")
            figures["cut_off_ms"] = round((refused["at"] - said) * 1000, 1)
            figures["shown"] = f"{figures['cut_off_ms']} ms after the word: {refused['why']}"
        with story.step("a new token is refused") as figures:
            figures["shown"] = _asked(identity, "tickets", "read")
    with story.step("its runtime stops it, and renewal is refused") as figures:
        agent.process.wait(PATIENCE)
        lines = (stage.folder / "ticket-summarizer.log").read_text().splitlines()
        said_so = [line for line in lines if "revoked" in line]
        if not said_so:
            raise Failed(f"the runtime did not say why: {lines[-3:]}")
        figures["shown"] = said_so[0].removeprefix("error: ")[:100]
    with story.step("accredit log verify: nothing was changed or left out") as figures:
        verified = stage.accredit("log", "verify", "--json")
        figures["shown"] = f"{verified['entries']} records"
    last = _last_token(stage, agent)
    with story.step(f"accredit log explain {last}: why its last token had been allowed"):
        explained = stage.accredit("log", "explain", last, "--json")
    for line in _told(explained["records"]):
        story.console.print(Text("      " + line, style="dim"), soft_wrap=True)


def _confirmed(found: dict[str, Any]) -> str:
    """How many verifiers apply the fact by now, and how long the slowest of them took."""
    named = found["named"]
    slowest = named["slowest_milliseconds"]
    after = "" if slowest is None else f", the slowest after {slowest:.0f} ms"
    return f"confirmed by {named['confirmed']} of {named['listening']} verifiers{after}"


def _told(records: list[dict[str, Any]]) -> Iterator[str]:
    """The story of a token, one line a record; its reasons in full."""
    for record in records:
        actor = record["actor"].rpartition("/")[2]
        subject = shortened(record["subject"])
        yield f"{record['at'][11:19]}  {record['kind']:<19}  {subject}  by {actor}"
        for reason in record["details"].get("reasons", []):
            yield "          because " + shortened(reason)


def _changed_code(stage: Stage) -> str:
    copy = stage.folder / "changed"
    shutil.copytree(stage.folder / "ticket-summarizer", copy)
    code = copy / "summarize.py"
    code.write_bytes(code.read_bytes().replace(b"72", b"73"))
    attesting = stage.attesting(copy, stage.enrol(AGENT))
    out = ("--out", str(stage.folder / "never"))
    return str(stage.accredit("svid", "fetch", *attesting, *out, fails=True))


def _stranger(stage: Stage) -> str:
    copy, key = stage.folder / "strange", stage.folder / "stranger.key"
    shutil.copytree(EXAMPLES / "ticket-summarizer", copy)
    stage.accredit("signer", "keygen", "--out", str(key))
    stage.accredit("manifest", "sign", str(copy), "--key", str(key))
    manifest = str(copy / "agent.manifest.json")
    return str(stage.accredit("manifest", "register", manifest, profile="ci", fails=True))


def _asked(agent: AgentIdentity, resource: str, action: str) -> str:
    """Ask for a token that must be refused; returns why it was."""
    request = TaskTokenRequest(resource=resource, actions=(action,), purpose="try it")
    try:
        agent.task_token(request)
    except ClientError as error:
        return str(error)
    raise Failed(f"{resource}:{action} was granted")


def _used(
    stage: Stage, agent: AgentIdentity, holder: AgentIdentity, resource: str, late: float = 0
) -> str:
    """Use a token where it must be refused; returns why it was."""
    request = TaskTokenRequest(resource=resource, actions=("read",), purpose="try it")
    token = agent.task_token(request)
    time.sleep(late)
    server = "spiffe://example.org/ns/support/agent/ticket-server"
    with httpx2.Client(transport=holder.transport(peer=server)) as client:
        response = client.get(
            f"https://localhost:{stage.server_port}/tickets",
            headers={"Authorization": f"Bearer {token.access_token}"},
        )
    if response.status_code not in {401, 403}:
        raise Failed(f"the server answered {response.status_code}")
    return f"{response.status_code}: {response.json()['detail']}"


def _used_late(stage: Stage, agent: AgentIdentity) -> str:
    return _used(stage, agent, agent, "tickets", late=5.2)


def _stated_at(stage: Stage) -> float:
    """When the issuer put the newest fact into the log, as seconds since 1970."""
    entries = stage.accredit("log", "tail", "-n", "20", "--json")
    stated = [entry for entry in entries if entry["kind"] == "fact.stated"]
    return datetime.fromisoformat(stated[-1]["at"]).timestamp()


def _last_token(stage: Stage, agent: Watched) -> str:
    """The id of the last task token that an agent was given."""
    (identity,) = [each for each in agent.seen if each["event"] == "identity"]
    entries = stage.accredit("log", "tail", "-n", "100", "--json")
    tokens = [
        each["subject"]
        for each in entries
        if each["details"].get("instance") == identity["instance"]
        and each["details"].get("credential") == "task"
    ]
    return str(tokens[-1])


if __name__ == "__main__":
    sys.exit(main())

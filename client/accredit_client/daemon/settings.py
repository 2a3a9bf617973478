"""``daemon.toml``: what an operator says, read strictly, with every path and number checked.

An unknown key is refused by its name. Paths are taken from the folder of the file; a code root is a
path of the agent's own and stands as it is. Whoever could write the file could be any agent: it
must be root's, or the daemon's own user's. What the files hold is not looked at here: manifests are
read by ``agents``, trust by ``Trust``.
"""

import os
import stat
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from accredit_attestors.errors import AttestationError, InvalidTree, shown
from accredit_attestors.files import read_small_file
from accredit_attestors.strict import Members
from accredit_client.daemon.launch_settings import KEYS, LaunchSettings, read_launch
from accredit_client.daemon.limits import Limits as SocketLimits
from accredit_client.daemon.measuring import check_code_root
from accredit_client.daemon.provider import MAX_HINT_BYTES
from accredit_client.daemon.selectors import check_selector
from accredit_client.errors import InvalidSelector, InvalidTrust
from accredit_client.trust import Trust
from accredit_credentials.errors import InvalidSpiffeId
from accredit_credentials.spiffe_id import check_name

MAX_FILE_BYTES = 256 * 1024
MAX_AGENTS = 256
MAX_SELECTORS = 32
MAX_INSTANCES = 10_000  # the most that an operator may allow

_TABLES = ("daemon", "issuer", "node", "limits", "agent")
_AGENT = ("manifest", "code_root", "selectors", "hint", "launch")
_PIN = "sha256:"


class InvalidSettings(AttestationError):
    """``daemon.toml`` says something that it must not, or does not say what it must."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Which processes may be which agent.

    Attributes:
        manifest: the signed manifest.
        code_root: where its code runs from, as the process sees it.
        selectors: all of them must hold of a process; of who asks, where it is launched.
        hint: what the identity is for, in the operator's words; empty for none.
        launch: how the daemon starts it; None where it is observed.
    """

    manifest: Path
    code_root: str
    selectors: frozenset[str]
    hint: str = ""
    launch: LaunchSettings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """How this node proves which one it is: by exactly one of a token and a certificate.

    Attributes:
        name: as the issuer lists it.
        join_token_file: a node's join token.
        certificate: of the site's own CA, with its key.
        key: its private key.
    """

    name: str
    join_token_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceLimits:
    """What the processes of a host may cost.

    Attributes:
        instances: identities at a time, of all processes.
        instances_of_uid: at a time, of one user: nobody else is kept out by it.
        measures: that run at a time.
        asking: that are asked of the issuer at a time.
        launches: agents that the daemon has started, at a time.
        launches_of_uid: of them, that one user asked for.
    """

    instances: int = 2000
    instances_of_uid: int = 1000
    measures: int = 2
    asking: int = 16
    launches: int = 256
    launches_of_uid: int = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that the file says.

    Attributes:
        socket: where the Workload API is served.
        data: the daemon's own folder, closed to everybody else.
        sds: whether Envoy is served, too.
        crls: whether CRLs are handed to workloads.
        wit: whether the WIT profile is served; the issuer has to issue WIT-SVIDs, too.
        issuer_url: ``https://host[:port]``.
        trust: where trust starts.
        node: how this node proves itself.
        limits: of processes.
        socket_limits: of the socket.
        agents: in the order of the file.
    """

    socket: Path
    data: Path
    sds: bool
    crls: bool
    wit: bool
    issuer_url: str
    trust: Trust = field(repr=False)
    node: NodeSettings
    limits: InstanceLimits
    socket_limits: SocketLimits
    agents: tuple[AgentSettings, ...]


def load(path: Path) -> Settings:
    """Read the file.

    Raises:
        CannotCollect: it is missing or unreadable.
        InvalidSettings: what it says is refused; the message names file, table and key.
    """
    data = read_small_file(path, what="settings", max_bytes=MAX_FILE_BYTES, private=False)
    check_unwritable(path)
    try:
        document = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidSettings(f"{path} must be TOML: {error}") from error
    return read(document, path)


def check_unwritable(path: Path) -> None:
    """Check that nobody but root, or the daemon's own user, wrote a file that decides who is who.

    Raises:
        InvalidSettings: it belongs to somebody else, or group or others may write it.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise InvalidSettings(f"{path} cannot be read: {error.strerror}") from error
    if found.st_uid not in {0, os.geteuid()} or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidSettings(
            f"{path} must belong to root or to the daemon's user, and nobody else may write it",
            hint=f"chown root {path} && chmod go-w {path}",
        )


def read(document: dict[str, object], path: Path) -> Settings:
    """The settings that a document says; ``path`` is where it stands.

    Raises:
        InvalidSettings: as ``load``.
    """
    folder = path.absolute().parent
    file = Members.of(document, where=str(path), error=InvalidSettings, known=_TABLES)
    daemon = file.members("daemon", known=("socket", "data", "sds", "crls", "wit"))
    issuer = file.members("issuer", known=("url", "trust"))
    limits = file.members("limits", known=tuple(_LIMITS), default={})
    return Settings(
        socket=_path(daemon, "socket", folder),
        data=_path(daemon, "data", folder),
        sds=daemon.flag("sds", default=True),
        crls=daemon.flag("crls", default=True),
        wit=daemon.flag("wit", default=False),
        issuer_url=_url(issuer),
        trust=_trust(issuer, folder),
        node=_node(file, folder),
        limits=InstanceLimits(
            instances=_limit(limits, "instances"),
            instances_of_uid=_limit(limits, "instances_of_uid"),
            measures=_limit(limits, "measures"),
            asking=_limit(limits, "asking"),
            launches=_limit(limits, "launches"),
            launches_of_uid=_limit(limits, "launches_of_uid"),
        ),
        socket_limits=SocketLimits(
            connections=_limit(limits, "connections"),
            connections_of_uid=_limit(limits, "connections_of_uid"),
        ),
        agents=_agents(file, folder),
    )


# What is taken where nothing is said, and the most that may be.
_LIMITS = {
    "instances": (InstanceLimits().instances, MAX_INSTANCES),
    "instances_of_uid": (InstanceLimits().instances_of_uid, MAX_INSTANCES),
    "measures": (InstanceLimits().measures, 64),
    "asking": (InstanceLimits().asking, 256),
    "launches": (InstanceLimits().launches, 4096),
    "launches_of_uid": (InstanceLimits().launches_of_uid, 4096),
    "connections": (SocketLimits().connections, 65536),
    "connections_of_uid": (SocketLimits().connections_of_uid, 65536),
}


def _limit(limits: Members, name: str) -> int:
    default, most = _LIMITS[name]
    value = limits.integer(name, default)
    if not 1 <= value <= most:
        raise InvalidSettings(f"{limits.where}: {name} must be 1 to {most}, is {value}")
    return value


def _url(issuer: Members) -> str:
    from accredit_client.wire import check_issuer_url  # noqa: PLC0415 (httpx2 is slow to import)

    try:
        return check_issuer_url(issuer.text("url"))
    except InvalidTrust as error:
        raise InvalidSettings(f"{issuer.where}: {error}") from None


def _trust(issuer: Members, folder: Path) -> Trust:
    text = issuer.text("trust")
    try:
        if text.startswith(_PIN):
            return Trust.from_pin(text)
        file = _path(issuer, "trust", folder)
        trust = Trust.from_file(file)
    except InvalidTrust as error:
        raise InvalidSettings(f"{issuer.where}: {error}", hint=error.hint) from None
    check_unwritable(file)
    return trust


def _node(file: Members, folder: Path) -> NodeSettings:
    node = file.members("node", known=("name", "join_token_file", "certificate", "key"))
    try:
        name = check_name(node.text("name"), "node name")
    except InvalidSpiffeId as error:
        raise InvalidSettings(f"{node.where}: {error}") from None
    shown_by = {key for key in ("join_token_file", "certificate", "key") if key in node.values}
    if shown_by not in ({"join_token_file"}, {"certificate", "key"}):
        raise InvalidSettings(
            f"{node.where} must have either join_token_file, or certificate and key"
        )
    paths = {key: _path(node, key, folder) for key in shown_by}
    return NodeSettings(name=name, **paths)


def _agents(file: Members, folder: Path) -> tuple[AgentSettings, ...]:
    tables = file.each("agent", known=_AGENT, default=())
    if len(tables) > MAX_AGENTS:
        raise InvalidSettings(f"{file.where} has {len(tables)} agents, the limit is {MAX_AGENTS}")
    agents = tuple(_agent(each, folder) for each in tables)
    hints = [each.hint for each in agents if each.hint]
    if len(set(hints)) != len(hints):
        raise InvalidSettings(f"{file.where}: hints must differ from agent to agent")
    return agents


def _agent(agent: Members, folder: Path) -> AgentSettings:
    code_root, hint = agent.text("code_root"), agent.text("hint", "")
    selectors = agent.texts("selectors")
    if not 1 <= len(selectors) <= MAX_SELECTORS:
        raise InvalidSettings(
            f"{agent.where}: selectors must be 1 to {MAX_SELECTORS}: without any, nobody is meant"
        )
    if len(hint.encode()) > MAX_HINT_BYTES or not (hint.isprintable()):
        raise InvalidSettings(
            f"{agent.where}: hint must be at most {MAX_HINT_BYTES} bytes of printable text"
        )
    try:
        check_code_root(code_root)
        checked = frozenset(map(check_selector, selectors))
    except (InvalidTree, InvalidSelector) as error:
        raise InvalidSettings(f"{agent.where}: {error}") from None
    manifest = _path(agent, "manifest", folder)
    launch = read_launch(agent.members("launch", known=KEYS)) if "launch" in agent.values else None
    return AgentSettings(
        manifest=manifest, code_root=code_root, selectors=checked, hint=hint, launch=launch
    )


def _path(members: Members, key: str, folder: Path) -> Path:
    text = members.text(key)
    if not text or "\0" in text:
        raise InvalidSettings(f"{members.where}: {key} must be a path, is {shown(text)}")
    return Path(os.path.normpath(folder / text))

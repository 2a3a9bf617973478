"""``agent.toml``: what an author writes, and a manifest is made from.

Reading decides everything that can be known without looking at code; ``AgentFile.manifest``
measures the tree and the artefacts, and dates the result. Unknown tables and keys are refused by
name: a misspelt limit must not be no limit. Relative paths start at the file's own directory.
"""

import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from accredit_attestors.declaration import (
    MAX_VALIDITY,
    Action,
    Artefact,
    Code,
    Delegation,
    Limits,
    Manifest,
    Resource,
    Role,
    check_owner,
    check_purpose,
    check_resources,
    check_version,
)
from accredit_attestors.errors import (
    InvalidAgentFile,
    InvalidLevel,
    InvalidManifest,
    InvalidTree,
)
from accredit_attestors.files import read_small_file
from accredit_attestors.levels import Assurance, Risk
from accredit_attestors.statement import agents
from accredit_attestors.strict import Members
from accredit_attestors.tree import (
    DEFAULT_EXCLUDE,
    DEFAULT_INCLUDE,
    Selection,
    measure,
    measure_file,
)
from accredit_credentials.errors import InvalidSpiffeId
from accredit_credentials.spiffe_id import AgentId

FILE_NAME = "agent.toml"
MAX_FILE_BYTES = 64 * 1024
MAX_ARTEFACT_BYTES = 1024**4
DEFAULT_DAYS = 90

TEMPLATE = """\
# What this agent is, and all that it may ask for. Sign it with: accredit manifest sign
# Every table and key is explained in docs/manifest.md; unknown ones are refused.

[agent]
name = "payments/refund-agent"      # namespace/name
version = "0.1.0"
owner = "someone@example.com"       # the one human who answers for it, in lower case
purpose = "Refunds orders that support has approved"
assurance = "self"                  # least that must measure it: self, node, platform, hardware
instance_in_path = false            # true: each instance has a SPIFFE ID of its own

[code]
root = "."                          # from this file's directory
include = ["**"]                    # everything; what is left out can change unseen
exclude = [".venv"]                 # besides .git, __pycache__ and agent.manifest.json

# [[artefact]]
# role = "prompt"                   # or "model"
# name = "system-prompt"
# path = "prompts/system.md"

[[resource]]
name = "orders"
audience = "https://orders.example.com"   # whom a token is for
bearer = false                      # true: tokens without a key of the holder; avoid it

[resource.actions]                  # each with its risk: low, medium or high
read = "low"
refund = "high"

[delegation]
max_depth = 0                       # how many times a task may be handed on, 0 to 8
to = []                             # to which agents, as "namespace/name"

[limits]                            # seconds that credentials live at most
x509_svid_seconds = 3600            # 1 to 86400
jwt_svid_seconds = 300              # 1 to 3600
task_token_seconds = 300            # 1 to 300

[validity]
days = 90                           # 1 to 366; then a new manifest must be signed
"""

_TABLES = ("agent", "code", "artefact", "resource", "delegation", "limits", "validity")


@dataclass(frozen=True, slots=True)
class ArtefactFile:
    """A model or prompt, and where it is."""

    role: Role
    name: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFile:
    """An ``agent.toml`` that was read: a manifest without its measures and dates."""

    agent: AgentId
    version: str
    owner: str
    purpose: str
    assurance: Assurance
    instance_in_path: bool
    code_root: Path
    selection: Selection
    artefacts: tuple[ArtefactFile, ...]
    resources: tuple[Resource, ...]
    delegation: Delegation
    limits: Limits
    validity: timedelta

    def manifest(self, now: datetime) -> Manifest:
        """Measure the code and the artefacts, and make a manifest that is valid from ``now`` on.

        Raises:
            InvalidTree: something cannot be measured.
            InvalidManifest: the artefacts cannot stand in one manifest.
        """
        issued_at = now.astimezone(UTC).replace(microsecond=0)
        return Manifest(
            agent=self.agent,
            version=self.version,
            owner=self.owner,
            purpose=self.purpose,
            code=Code(
                measure(self.code_root, self.selection).digest,
                self.selection.include,
                self.selection.exclude,
            ),
            artefacts=tuple(
                Artefact(
                    each.role, each.name, measure_file(each.path, max_bytes=MAX_ARTEFACT_BYTES)
                )
                for each in self.artefacts
            ),
            resources=self.resources,
            delegation=self.delegation,
            limits=self.limits,
            assurance=self.assurance,
            instance_in_path=self.instance_in_path,
            issued_at=issued_at,
            expires_at=issued_at + self.validity,
        )


def load(path: Path) -> AgentFile:
    """Read an author's file.

    Raises:
        CannotCollect: it is missing or unreadable.
        InvalidAgentFile: what it says is refused; the message names file, table and key.
    """
    data = read_small_file(path, what="agent file", max_bytes=MAX_FILE_BYTES, private=False)
    try:
        return _read(tomllib.loads(data.decode()), path)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidAgentFile(f"{path} must be TOML: {error}") from error
    except (InvalidManifest, InvalidTree, InvalidLevel, InvalidSpiffeId) as error:
        raise InvalidAgentFile(f"{path}: {error}") from error


def _read(document: dict[str, object], path: Path) -> AgentFile:
    file = Members.of(document, where=str(path), error=InvalidAgentFile, known=_TABLES)
    agent = file.members(
        "agent",
        known=("name", "version", "owner", "purpose", "assurance", "instance_in_path"),
    )
    code = file.members("code", known=("root", "include", "exclude"), default={})
    delegation = file.members("delegation", known=("max_depth", "to"), default={})
    validity = file.members("validity", known=("days",), default={})
    resources = file.each("resource", known=("name", "audience", "bearer", "actions"), default=())
    read = AgentFile(
        agent=AgentId.parse(agent.text("name")),
        version=check_version(agent.text("version")),
        owner=check_owner(agent.text("owner")),
        purpose=check_purpose(agent.text("purpose")),
        assurance=Assurance.parse(agent.text("assurance", Assurance.SELF.value)),
        instance_in_path=agent.flag("instance_in_path", default=False),
        code_root=path.parent / code.text("root", "."),
        selection=_selection(code),
        artefacts=tuple(
            ArtefactFile(
                Role.parse(each.text("role")), each.text("name"), path.parent / each.text("path")
            )
            for each in file.each("artefact", known=("role", "name", "path"), default=())
        ),
        resources=tuple(_resource(each) for each in resources),
        delegation=Delegation(
            delegation.integer("max_depth", 0), agents(delegation.texts("to", ()))
        ),
        limits=_limits(file),
        validity=_validity(validity),
    )
    check_resources(read.resources)
    return read


def _selection(code: Members) -> Selection:
    # What nobody means to sign is always left out; the manifest then says so, pattern by pattern.
    more = tuple(each for each in code.texts("exclude", ()) if each not in DEFAULT_EXCLUDE)
    return Selection(code.texts("include", DEFAULT_INCLUDE), DEFAULT_EXCLUDE + more)


def _resource(members: Members) -> Resource:
    actions = members.members("actions", known=None)
    return Resource(
        name=members.text("name"),
        audience=members.text("audience"),
        bearer=members.flag("bearer", default=False),
        actions=tuple(Action(name, Risk.parse(actions.text(name))) for name in actions.values),
    )


def _limits(file: Members) -> Limits:
    usual = Limits()
    limits = file.members(
        "limits",
        known=("x509_svid_seconds", "jwt_svid_seconds", "task_token_seconds"),
        default={},
    )
    return Limits(
        x509_svid_seconds=limits.integer("x509_svid_seconds", usual.x509_svid_seconds),
        jwt_svid_seconds=limits.integer("jwt_svid_seconds", usual.jwt_svid_seconds),
        task_token_seconds=limits.integer("task_token_seconds", usual.task_token_seconds),
    )


def _validity(validity: Members) -> timedelta:
    days = validity.integer("days", DEFAULT_DAYS)
    if not 1 <= days <= MAX_VALIDITY.days:
        raise InvalidAgentFile(f"{validity.where}: days {days} must be 1 to {MAX_VALIDITY.days}")
    return timedelta(days=days)

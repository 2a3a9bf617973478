"""What a manifest says: one version of an agent, and everything it asks for.

A value of these types is acceptable in itself: each checks its own fields as it is made, and the
wire form (``statement``) and the author's file (``agent_file``) both end here. Says nothing about
who vouches for a manifest (``signing``) or whether anything runs as declared (``code_digest``).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Self

from accredit_attestors.errors import InvalidManifest, InvalidTree, ManifestExpired, shown
from accredit_attestors.levels import Assurance, Risk
from accredit_attestors.tree import DEFAULT_EXCLUDE, DEFAULT_INCLUDE, Selection
from accredit_credentials.errors import InvalidSpiffeId
from accredit_credentials.spiffe_id import AgentId, SpiffeId, check_name

MAX_LISTED = 64  # resources, actions of one resource, delegates
MAX_ARTEFACTS = 128
MAX_DEPTH = 8
MAX_PURPOSE_LENGTH = 500
MAX_OWNER_LENGTH = 254  # RFC 5321 §4.5.3.1.3, without the angle brackets
MAX_AUDIENCE_LENGTH = 2048
MAX_PORT = 65535
MAX_VALIDITY = timedelta(days=366)
MAX_CLOCK_SKEW = timedelta(seconds=60)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}")
_ARTEFACT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_@:/-]{0,127}")
# Control characters, line separators, lone surrogates, and the marks that turn text around: an
# approver must read what was signed.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# In lower case only: revoking everything of one owner must find each spelling of the address.
_OWNER = re.compile(rf"(?=.{{1,64}}@)[a-z0-9_%+'-]+(?:\.[a-z0-9_%+'-]+)*@(?:{_LABEL}\.)+{_LABEL}")
# One spelling again (lower case), since audiences are compared as whole strings.
_HTTPS = re.compile(
    rf"https://(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\])(?::(?P<port>[1-9][0-9]{{0,4}}))?"
    r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*)?"
    r"(?:\?(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?"
)


class Role(Enum):
    """What an artefact is to the agent."""

    MODEL = "model"
    PROMPT = "prompt"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the role's one spelling.

        Raises:
            InvalidManifest: no role has the name.
        """
        for role in cls:
            if role.value == text:
                return role
        raise InvalidManifest(f"artefact role {shown(text)} must be model or prompt")


@dataclass(frozen=True, slots=True)
class Code:
    """The measured tree, and the patterns that make the measure repeatable (see ``tree``)."""

    digest: str
    include: tuple[str, ...] = DEFAULT_INCLUDE
    exclude: tuple[str, ...] = DEFAULT_EXCLUDE

    def __post_init__(self) -> None:
        check_digest(self.digest, "code digest")
        try:
            Selection(self.include, self.exclude)
        except InvalidTree as error:
            raise InvalidManifest(f"code: {error}") from None

    @property
    def selection(self) -> Selection:
        """The patterns, as the measuring takes them."""
        return Selection(self.include, self.exclude)


@dataclass(frozen=True, slots=True)
class Artefact:
    """A model or prompt that the agent uses, by digest."""

    role: Role
    name: str
    digest: str

    def __post_init__(self) -> None:
        if not _ARTEFACT.fullmatch(self.name):
            raise InvalidManifest(
                f"artefact name {shown(self.name)} must be 1 to 128 of letters, digits and . + _ @ "
                ": / -, beginning with a letter or digit"
            )
        check_digest(self.digest, f"digest of artefact {self.name}")


@dataclass(frozen=True, slots=True)
class Action:
    """Something that may be done with a resource."""

    name: str
    risk: Risk

    def __post_init__(self) -> None:
        _check_name(self.name, "action")


@dataclass(frozen=True, slots=True)
class Resource:
    """Something that the agent may ask a task token for."""

    name: str
    audience: str
    actions: tuple[Action, ...]
    bearer: bool = False
    """Whether a token that is not bound to a key may be issued."""

    def __post_init__(self) -> None:
        _check_name(self.name, "resource")
        check_audience(self.audience)
        if not 1 <= len(self.actions) <= MAX_LISTED:
            raise InvalidManifest(
                f"resource {self.name} has {len(self.actions)} actions, expected 1 to {MAX_LISTED}"
            )
        _check_unique((action.name for action in self.actions), f"action of {self.name}")

    def action(self, name: str) -> Action | None:
        """The declared action of this name."""
        return next((action for action in self.actions if action.name == name), None)


@dataclass(frozen=True, slots=True)
class Delegation:
    """How far and to which agents tasks may be handed on; not at all, unless both are given."""

    max_depth: int = 0
    to: tuple[AgentId, ...] = ()

    def __post_init__(self) -> None:
        _check_between(self.max_depth, 0, MAX_DEPTH, "delegation max_depth")
        if len(self.to) > MAX_LISTED:
            raise InvalidManifest(
                f"delegation has {len(self.to)} agents, the limit is {MAX_LISTED}"
            )
        _check_unique(map(str, self.to), "agent of delegation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long credentials live at most, in seconds."""

    x509_svid_seconds: int = 3600
    """1 to 86400."""
    jwt_svid_seconds: int = 300
    """1 to 3600."""
    task_token_seconds: int = 300
    """1 to 300."""

    def __post_init__(self) -> None:
        # Zero is refused and never means unlimited.
        _check_between(self.x509_svid_seconds, 1, 86400, "limit x509_svid_seconds")
        _check_between(self.jwt_svid_seconds, 1, 3600, "limit jwt_svid_seconds")
        _check_between(self.task_token_seconds, 1, 300, "limit task_token_seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One version of an agent."""

    agent: AgentId
    version: str
    owner: str
    """The e-mail address of the one human who answers for the agent, in lower case."""
    purpose: str
    code: Code
    artefacts: tuple[Artefact, ...] = ()
    resources: tuple[Resource, ...] = ()
    delegation: Delegation = field(default_factory=Delegation)
    limits: Limits = field(default_factory=Limits)
    assurance: Assurance = Assurance.SELF
    """The least that must have measured an instance."""
    instance_in_path: bool = False
    """Whether an instance's SPIFFE ID ends in ``/instance/<id>``."""
    issued_at: datetime
    expires_at: datetime

    def __post_init__(self) -> None:
        check_version(self.version)
        check_owner(self.owner)
        check_purpose(self.purpose)
        check_artefacts(self.artefacts)
        check_resources(self.resources)
        _check_moment(self.issued_at, "issued_at")
        _check_moment(self.expires_at, "expires_at")
        if self.expires_at <= self.issued_at:
            raise InvalidManifest(
                f"expires_at {self.expires_at} must be later than issued_at {self.issued_at}"
            )
        if self.expires_at - self.issued_at > MAX_VALIDITY:
            raise InvalidManifest(
                f"manifest is valid for {self.expires_at - self.issued_at}, "
                f"the limit is {MAX_VALIDITY.days} days"
            )

    def resource(self, name: str) -> Resource | None:
        """The declared resource of this name."""
        return next((resource for resource in self.resources if resource.name == name), None)

    def check_valid_at(self, now: datetime) -> None:
        """Check the manifest's own dates.

        Raises:
            ManifestExpired: its time is over, or begins more than 60 s after ``now``.
        """
        if now >= self.expires_at:
            raise ManifestExpired(f"manifest of {self.agent} expired at {self.expires_at}")
        if self.issued_at > now + MAX_CLOCK_SKEW:
            raise ManifestExpired(f"manifest of {self.agent} is from the future: {self.issued_at}")


def check_digest(text: str, what: str) -> str:
    """Return ``text`` if it is ``sha256:`` and 64 hex digits in lower case.

    Raises:
        InvalidManifest: any other form.
    """
    if not _DIGEST.fullmatch(text):
        raise InvalidManifest(f"{what} {shown(text)} must be sha256: and 64 lower-case hex digits")
    return text


def check_version(text: str) -> str:
    """Return ``text`` if it may be a version.

    Raises:
        InvalidManifest: any other form.
    """
    if not _VERSION.fullmatch(text):
        raise InvalidManifest(
            f"version {shown(text)} must be 1 to 64 of letters, digits and . + _ -, "
            "beginning with a letter or digit"
        )
    return text


def check_owner(text: str) -> str:
    """Return ``text`` if it is one e-mail address, in lower case.

    Raises:
        InvalidManifest: any other form.
    """
    if len(text) > MAX_OWNER_LENGTH or not _OWNER.fullmatch(text):
        raise InvalidManifest(
            f"owner {shown(text)} must be one person's e-mail address, in lower case"
        )
    return text


def check_purpose(text: str) -> str:
    """Return ``text`` if it is one readable line.

    Raises:
        InvalidManifest: blank, too long, or with a control character.
    """
    if not text.strip() or len(text) > MAX_PURPOSE_LENGTH or _CONTROL.search(text):
        raise InvalidManifest(
            f"purpose {shown(text)} must be one line of 1 to {MAX_PURPOSE_LENGTH} characters"
        )
    return text


def check_audience(text: str) -> str:
    """Return ``text`` if it is an absolute https URL or a SPIFFE ID.

    Raises:
        InvalidManifest: another scheme, user info, a fragment, upper case in the host, too long.
    """
    url = _HTTPS.fullmatch(text) if len(text) <= MAX_AUDIENCE_LENGTH else None
    if url is not None and int(url["port"] or 443) <= MAX_PORT:
        return text
    try:
        if str(SpiffeId.parse(text)) == text:
            return text
    except InvalidSpiffeId:
        pass  # what was expected is said below, for both forms at once
    raise InvalidManifest(
        f"audience {shown(text)} must be an https:// URL or a spiffe:// ID with a lower-case "
        f"host, without user info or fragment, of at most {MAX_AUDIENCE_LENGTH} characters"
    )


def check_artefacts(artefacts: Sequence[Artefact]) -> None:
    """Check that artefacts may stand in one manifest.

    Raises:
        InvalidManifest: too many, or two of one role and name.
    """
    if len(artefacts) > MAX_ARTEFACTS:
        raise InvalidManifest(
            f"manifest has {len(artefacts)} artefacts, the limit is {MAX_ARTEFACTS}"
        )
    _check_unique((f"{each.role.value} {each.name}" for each in artefacts), "artefact")


def check_resources(resources: Sequence[Resource]) -> None:
    """Check that resources may stand in one manifest.

    Raises:
        InvalidManifest: too many, or two of one name or audience.
    """
    if len(resources) > MAX_LISTED:
        raise InvalidManifest(f"manifest has {len(resources)} resources, the limit is {MAX_LISTED}")
    _check_unique((each.name for each in resources), "resource")
    _check_unique((each.audience for each in resources), "audience")


def _check_name(text: str, what: str) -> None:
    try:
        check_name(text, what)
    except InvalidSpiffeId as error:  # resources and actions are named as agents are
        raise InvalidManifest(str(error)) from None


def _check_between(value: int, least: int, most: int, what: str) -> None:
    if not least <= value <= most:
        raise InvalidManifest(f"{what} {value} must be {least} to {most}")


def _check_unique(names: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidManifest(f"{what} {shown(name)} stands twice")
        seen.add(name)


def _check_moment(moment: datetime, what: str) -> None:
    # Whole seconds are all that the wire form carries: nothing is rounded behind the signer's back.
    if moment.utcoffset() is None or moment.microsecond:
        raise InvalidManifest(f"{what} {moment} must have a time zone and whole seconds")

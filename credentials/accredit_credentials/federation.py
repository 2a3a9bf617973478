"""Federation: what agents of another trust domain may ask of ours.

A relationship with another trust domain says whose bundle is trusted for *its* SPIFFE IDs, and
nothing more: who may do what is a list of allowances. ``allows`` decides from that list; an empty
list allows nothing. Whether the caller is who it says is decided before (``x509_svid.validate``,
``jwt_svid``, ``task_token``), against the bundle of its own trust domain and no other's.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from accredit_credentials.errors import InvalidFederation, InvalidSpiffeId
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain, check_name

MAX_ALLOWANCES = 256  # of one trust domain
MAX_ACTIONS = 64  # of one allowance
MAX_RESOURCE_LENGTH = 2048
MAX_URL_LENGTH = 2048

_BELOW = "/*"
_MEMBERS = frozenset({"agents", "resource", "actions"})
# No '*': a wildcard that is none would be believed in. No quotes, no backslash: they end in logs.
_RESOURCE = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()+,;=%-]+")
_URL = re.compile(r"[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]+")
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True, order=True)
class Agents:
    """One SPIFFE ID, or all below a whole path segment: ``spiffe://b.example/ns/pay/*``.

    Attributes:
        id: the SPIFFE ID; of all below it where ``below``.
        below: whether those below it are meant. It itself is not one of them.
    """

    id: SpiffeId
    below: bool = False

    def __post_init__(self) -> None:
        if not self.below and not self.id.path:
            raise InvalidFederation(
                f"agents must not be a whole trust domain by its name: write {self.id}/*"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a SPIFFE ID with a path, or a prefix that ends in ``/*``.

        Raises:
            InvalidFederation: neither; a ``*`` elsewhere; a trust domain without ``/*``.
        """
        below = text.endswith(_BELOW)
        try:
            return cls(SpiffeId.parse(text.removesuffix(_BELOW)), below)
        except InvalidSpiffeId as error:
            raise InvalidFederation(f"agents: {error}") from None

    @property
    def trust_domain(self) -> TrustDomain:
        """Whose agents these are."""
        return self.id.trust_domain

    def cover(self, client: SpiffeId) -> bool:
        """Decide whether ``client`` is one of them. Paths are compared as they are written."""
        if client.trust_domain != self.trust_domain:
            return False
        if self.below:
            return client.path.startswith(self.id.path + "/")
        return client.path == self.id.path

    def __str__(self) -> str:
        return f"{self.id}{_BELOW if self.below else ''}"


@dataclass(frozen=True, slots=True)
class Allowance:
    """Some agents of another trust domain may do these actions on one resource of ours.

    Attributes:
        agents: who.
        resource: the audience of ours that they may ask, compared as a whole string.
        actions: what they may do there; at least one.
    """

    agents: Agents
    resource: str
    actions: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_resource(self.resource)
        if not 1 <= len(self.actions) <= MAX_ACTIONS:
            raise InvalidFederation(
                f"allowance has {len(self.actions)} actions, expected 1 to {MAX_ACTIONS}"
            )
        if len(set(self.actions)) != len(self.actions):
            raise InvalidFederation("allowance must not name an action twice")
        for action in self.actions:
            try:
                check_name(action, "action")
            except InvalidSpiffeId as error:
                raise InvalidFederation(str(error)) from None

    @classmethod
    def of_object(cls, value: object) -> Self:
        """Read ``{"agents": text, "resource": text, "actions": [text]}``.

        Raises:
            InvalidFederation: a member is missing, unknown or of another form.
        """
        if not isinstance(value, dict) or value.keys() != _MEMBERS:
            raise InvalidFederation(
                "allowance must be an object with agents, resource and actions, and nothing else"
            )
        agents, resource, actions = value["agents"], value["resource"], value["actions"]
        if not isinstance(agents, str) or not isinstance(resource, str):
            raise InvalidFederation("allowance's agents and resource must be texts")
        if not isinstance(actions, list) or not all(isinstance(each, str) for each in actions):
            raise InvalidFederation("allowance's actions must be an array of texts")
        return cls(Agents.parse(agents), resource, tuple(actions))

    def to_object(self) -> dict[str, Any]:
        """The object that ``of_object`` reads."""
        return {
            "agents": str(self.agents),
            "resource": self.resource,
            "actions": list(self.actions),
        }


def allows(
    allowances: Iterable[Allowance], client: SpiffeId, resource: str, actions: Iterable[str]
) -> bool:
    """Decide whether ``client`` may do all of ``actions`` on ``resource``.

    Each action must be allowed, by whichever allowance. Nothing allowed, or no action asked: no.
    """
    asked = frozenset(actions)
    allowed: set[str] = set()
    for each in allowances:
        if each.resource == resource and each.agents.cover(client):
            allowed.update(each.actions)
    return bool(asked) and asked <= allowed


def check_allowances(trust_domain: TrustDomain, allowances: Sequence[Allowance]) -> None:
    """Check that a relationship with ``trust_domain`` may carry these allowances.

    Raises:
        InvalidFederation: too many, one twice, or about agents of another trust domain.
    """
    if len(allowances) > MAX_ALLOWANCES:
        raise InvalidFederation(
            f"{trust_domain} has {len(allowances)} allowances, the limit is {MAX_ALLOWANCES}"
        )
    if len(set(allowances)) != len(allowances):
        raise InvalidFederation(f"an allowance of {trust_domain} stands twice")
    for each in allowances:
        if each.agents.trust_domain != trust_domain:
            raise InvalidFederation(f"{each.agents} is not of the trust domain {trust_domain}")


def check_https_url(text: str, what: str) -> str:
    """Return ``text`` if it is an https URL without userinfo (Federation §5.2.1.1, §5.2.2.1).

    Raises:
        InvalidFederation: another scheme, userinfo, a fragment, no host, too long, or a character
            that no URL has.
    """
    if len(text) > MAX_URL_LENGTH:
        raise InvalidFederation(f"{what} has {len(text)} characters, the limit is {MAX_URL_LENGTH}")
    if not _URL.fullmatch(text) or _PERCENT.search(text):
        raise InvalidFederation(f"{what} must be an https URL without spaces and without fragment")
    try:
        parts = urlsplit(text)
        good_port = parts.port is None or parts.port > 0
    except ValueError:
        raise InvalidFederation(f"{what} must have a host, and a port of 1 to 65535") from None
    if parts.scheme != "https":
        raise InvalidFederation(f"{what} must begin with https://")
    if "@" in parts.netloc:
        raise InvalidFederation(f"{what} must not carry a user name or password")
    if not parts.hostname or not good_port:
        raise InvalidFederation(f"{what} must have a host, and a port of 1 to 65535")
    return text


def check_origin(text: str, what: str) -> str:
    """Return ``text`` if it is ``https://host[:port]``: known paths lie below it.

    Raises:
        InvalidFederation: it is no https URL, or has a path or a query.
    """
    parts = urlsplit(check_https_url(text, what))
    if parts.path or parts.query or text.endswith("?"):
        raise InvalidFederation(f"{what} must be https://host[:port] without a path")
    return text


def check_audiences(allowances: Iterable[Allowance], what: str) -> None:
    """Check that each resource is a URL: a name of one's own means something here only.

    Raises:
        InvalidFederation: one has no scheme or no host.
    """
    for each in allowances:
        try:
            parts = urlsplit(each.resource)
            good = bool(parts.scheme and parts.hostname)
        except ValueError:
            good = False
        if not good:
            raise InvalidFederation(
                f"{what} must be a URL such as https://ledger.example.org, not {each.resource[:80]}"
            )


def _check_resource(text: str) -> None:
    if len(text) > MAX_RESOURCE_LENGTH or not _RESOURCE.fullmatch(text):
        raise InvalidFederation(
            f"allowance's resource must be 1 to {MAX_RESOURCE_LENGTH} characters of a URL, "
            "without '*' and without spaces"
        )

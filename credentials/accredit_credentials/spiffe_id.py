"""SPIFFE IDs, and the shapes of them that Accredit gives to its own kinds of subject.

Decides whether a text is a SPIFFE ID (SPIFFE-ID §2) and which agent, node, admin or service it
names. Does not decide whether anyone may hold it. Parsing is strict and total: one constructor,
``fullmatch`` only, lower-case out, so that equality of values is equality of identities.
"""

import re
from dataclasses import dataclass
from typing import Self

from accredit_credentials.errors import InvalidSpiffeId

MAX_ID_BYTES = 2048  # SPIFFE-ID §2.3
MAX_TRUST_DOMAIN_BYTES = 255  # SPIFFE-ID §2.3
MAX_NAME_LENGTH = 63

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")
_SEGMENT = re.compile(r"[a-zA-Z0-9._-]+")
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
_INSTANCE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, order=True)
class TrustDomain:
    """The name of a trust domain, in lower case (SPIFFE-ID §2.1)."""

    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a bare name or a ``spiffe://name`` ID without a path.

        Raises:
            InvalidSpiffeId: the name is empty, too long or has a character outside [a-z0-9._-].
        """
        name = text
        if _has_scheme(text):
            name = text[len("spiffe://") :]
        name = name.lower() if name.isascii() else name
        if not _TRUST_DOMAIN.fullmatch(name):
            raise InvalidSpiffeId(
                f"trust domain {_shown(text)} must be made of a-z, 0-9, '.', '-' and '_' only"
            )
        if len(name) > MAX_TRUST_DOMAIN_BYTES:
            raise InvalidSpiffeId(
                f"trust domain has {len(name)} bytes, the limit is {MAX_TRUST_DOMAIN_BYTES}"
            )
        return cls(name)

    @property
    def id(self) -> "SpiffeId":
        """The SPIFFE ID of the trust domain itself: no path."""
        return SpiffeId(self, "")

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """A SPIFFE ID: trust domain and path. ``path`` is empty or starts with ``/``."""

    trust_domain: TrustDomain
    path: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a SPIFFE ID (SPIFFE-ID §2).

        Raises:
            InvalidSpiffeId: any rule of §2.1 to §2.3 is broken.
        """
        if len(text) > MAX_ID_BYTES:
            raise InvalidSpiffeId(
                f"SPIFFE ID has {len(text)} characters, the limit is {MAX_ID_BYTES}"
            )
        if not _has_scheme(text):
            raise InvalidSpiffeId(f"SPIFFE ID {_shown(text)} must start with spiffe://")
        name, slash, rest = text[len("spiffe://") :].partition("/")
        trust_domain = TrustDomain.parse(name)
        if slash:
            _check_path(rest)
        return cls(trust_domain, slash + rest)

    @property
    def segments(self) -> tuple[str, ...]:
        """The path's segments, in order."""
        return tuple(self.path[1:].split("/")) if self.path else ()

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain.name}{self.path}"


@dataclass(frozen=True, slots=True, order=True)
class AgentId:
    """An agent's name inside its trust domain: ``namespace/name``, both in lower case."""

    namespace: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``namespace/name``.

        Raises:
            InvalidSpiffeId: not exactly two names of the accepted form.
        """
        namespace, slash, name = text.partition("/")
        if not slash:
            raise InvalidSpiffeId(f"agent {_shown(text)} must have the form namespace/name")
        return cls(check_name(namespace, "namespace"), check_name(name, "agent name"))

    @classmethod
    def from_spiffe_id(cls, spiffe_id: SpiffeId) -> Self:
        """Read the agent out of ``/ns/<namespace>/agent/<name>[/instance/<id>]``.

        Raises:
            InvalidSpiffeId: the path has another form.
        """
        match spiffe_id.segments:
            case ("ns", namespace, "agent", name):
                return cls(check_name(namespace, "namespace"), check_name(name, "agent name"))
            case ("ns", namespace, "agent", name, "instance", instance) if _INSTANCE.fullmatch(
                instance
            ):
                return cls(check_name(namespace, "namespace"), check_name(name, "agent name"))
        raise InvalidSpiffeId(f"{spiffe_id} is not an agent's ID")

    def spiffe_id(self, trust_domain: TrustDomain, instance: str | None = None) -> SpiffeId:
        """The agent's SPIFFE ID, or its instance's where an instance is given."""
        path = f"/ns/{self.namespace}/agent/{self.name}"
        if instance is not None:
            if not _INSTANCE.fullmatch(instance):
                raise InvalidSpiffeId(f"instance {_shown(instance)} must be a lower-case UUID")
            path += f"/instance/{instance}"
        return SpiffeId(trust_domain, path)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def admin_id(trust_domain: TrustDomain, name: str) -> SpiffeId:
    """The SPIFFE ID of a human or pipeline that administers the issuer.

    Raises:
        InvalidSpiffeId: the name is not of the accepted form.
    """
    return SpiffeId(trust_domain, f"/admin/{check_name(name, 'admin name')}")


def node_id(trust_domain: TrustDomain, name: str) -> SpiffeId:
    """The SPIFFE ID of a node, a host with a node daemon: ``/node/<name>``.

    Raises:
        InvalidSpiffeId: the name is not of the accepted form.
    """
    return SpiffeId(trust_domain, f"/node/{check_name(name, 'node name')}")


def issuer_id(trust_domain: TrustDomain) -> SpiffeId:
    """The SPIFFE ID that the issuer's own server certificate carries."""
    return SpiffeId(trust_domain, "/accredit/issuer")


def check_name(text: str, what: str) -> str:
    """Return ``text`` if it is a namespace, agent, node or admin name.

    Raises:
        InvalidSpiffeId: empty, longer than 63, or with a character outside [a-z0-9._-].
    """
    if len(text) > MAX_NAME_LENGTH or not _NAME.fullmatch(text):
        raise InvalidSpiffeId(
            f"{what} {_shown(text)} must be 1 to {MAX_NAME_LENGTH} of a-z, 0-9, '.', '-' and '_', "
            "beginning and ending with a letter or digit"
        )
    return text


def _has_scheme(text: str) -> bool:
    return text[: len("spiffe://")].lower() == "spiffe://"


def _check_path(rest: str) -> None:
    for segment in rest.split("/"):
        if segment == "":
            raise InvalidSpiffeId("SPIFFE ID path must not have an empty segment or end with '/'")
        if segment in {".", ".."}:
            raise InvalidSpiffeId("SPIFFE ID path must not have the segments '.' and '..'")
        if not _SEGMENT.fullmatch(segment):
            raise InvalidSpiffeId(
                f"SPIFFE ID path segment {_shown(segment)} must be made of "
                "a-z, A-Z, 0-9, '.', '-' and '_' only"
            )


def _shown(text: str) -> str:
    """The text as it may stand in a message: escaped, and short."""
    limit = 80
    return repr(text if len(text) <= limit else text[:limit] + "…")

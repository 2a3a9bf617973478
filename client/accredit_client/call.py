"""One call of the issuer's API, as a value: what to send, and how to read the reply.

It sends nothing: ``wire`` does, in threads or in asyncio, and a test may look at it without either.
``calls`` has one for each thing that may be asked.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from accredit_client.errors import IssuerRefused
from accredit_credentials.strict_json import NotStrictJson, parse_object

A = TypeVar("A")

DEFAULT_LIMIT = 1024 * 1024  # bytes of an answer
PROBLEM_PREFIX = "urn:accredit:problem:"

_MAX_SHOWN = 500
_MAX_RETRY_AFTER = 3600.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    body: bytes = field(repr=False)
    retry_after: float | None = None
    tag: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[A]):
    """One call.

    Attributes:
        method: GET, POST, PUT or DELETE.
        path: with its query, from the issuer's root.
        read: makes the typed answer out of the body of a good reply.
        body: the JSON object to send.
        limit: the most bytes of an answer that are read.
        public: whether it is sent without an SVID, so that it works when ours does not any more.
    """

    method: str
    path: str
    read: Callable[[bytes], A] = field(repr=False)
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    limit: int = DEFAULT_LIMIT
    public: bool = False

    @property
    def headers(self) -> Mapping[str, str]:
        """What stands in the head of the request."""
        return {} if self.body is None else {"content-type": "application/json"}

    @property
    def content(self) -> bytes | None:
        """The body as bytes."""
        if self.body is None:
            return None
        return json.dumps(self.body, separators=(",", ":"), ensure_ascii=False).encode()

    def answer(self, reply: Reply) -> A:
        """Read the reply.

        Raises:
            IssuerRefused: the issuer said no.
            InvalidAnswer: not of the documented form.
        """
        if reply.status // 100 != 2:  # noqa: PLR2004 (RFC 9110 §15.3: success)
            raise refusal(reply)
        return self.read(reply.body)


@dataclass(frozen=True, slots=True)
class Fetched(Generic[A]):
    """An answer, and the tag of its version where the issuer gave one (RFC 9110 §8.8.3)."""

    value: A
    tag: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refetch(Call[Fetched[A]], Generic[A]):
    """A call whose answer may be that nothing has changed: ``known`` itself comes back then."""

    known: Fetched[A] | None = field(default=None, repr=False)

    @property
    def headers(self) -> Mapping[str, str]:
        """Which version we have."""
        tag = self.known.tag if self.known is not None else None
        return {} if tag is None else {"if-none-match": tag}

    def answer(self, reply: Reply) -> Fetched[A]:
        """Read the reply; raises as ``Call.answer``."""
        if reply.status == 304 and self.headers and self.known is not None:  # noqa: PLR2004 (RFC 9110 §15.4.5)
            return self.known
        # Not super(): a dataclass with slots is another class than the one this name is bound in.
        fetched = Call.answer(self, reply)
        return replace(fetched, tag=reply.tag)


def refusal(reply: Reply) -> IssuerRefused:
    """The error that a reply other than success stands for (RFC 9457)."""
    kind, detail = "unknown", f"HTTP status {reply.status}"
    try:
        problem = parse_object(reply.body)
    except NotStrictJson:
        problem = {}
    if isinstance(problem.get("type"), str) and problem["type"].startswith(PROBLEM_PREFIX):
        kind = _printable(problem["type"].removeprefix(PROBLEM_PREFIX))
        detail = _printable(str(problem.get("detail") or problem.get("title") or detail))
    return IssuerRefused(kind, detail, reply.status, retry_after=reply.retry_after)


def retry_after(header: str | None) -> float | None:
    """The header ``Retry-After`` in seconds; None for its date form and for anything odd."""
    if header is None or not header.isascii() or not header.isdigit():
        return None
    return min(float(header[:10]), _MAX_RETRY_AFTER)


def _printable(text: str) -> str:
    """The issuer's words as they may stand in a log line: no line break, no escape, bounded."""
    return "".join(c if c.isprintable() else "�" for c in text[:_MAX_SHOWN])

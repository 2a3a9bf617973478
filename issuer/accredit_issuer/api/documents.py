"""Public documents as bytes: made once for each state of the issuer, and asked for cheaply.

A relying party polls for what seldom changes. A document's bytes and tag are computed when what it
is made of (the bundle, the CRLs) was replaced; whoever shows the tag is told that nothing changed
(RFC 9110 §13.1.2), without a body.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from starlette.requests import Request
from starlette.responses import Response

# One element of a list of entity tags, empty elements before it included (RFC 9110 §5.6.1, §8.8.3).
_ELEMENT = re.compile(r'[ \t,]*(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?=,|$)')


@dataclass(frozen=True, slots=True)
class Document:
    """A document, JSON unless it says otherwise.

    Attributes:
        tag: a strong entity tag, quotes included: it changes with every byte.
        max_age: seconds for which whoever has it need not ask again.
        media_type: what it is.
    """

    body: bytes = field(repr=False)
    tag: str
    max_age: int
    media_type: str = "application/json"

    @classmethod
    def of(cls, text: str, *, max_age: int, media_type: str = "application/json") -> "Document":
        """The document of a text."""
        body = text.encode()
        return cls(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"', max_age, media_type)

    @classmethod
    def of_json(cls, value: Any, *, max_age: int) -> "Document":
        """The document of a value."""
        return cls.of(json.dumps(value, separators=(",", ":")), max_age=max_age)


S = TypeVar("S")


class Kept(Generic[S]):
    """A document made of some state, kept until that is another. For any thread."""

    def __init__(self, state: Callable[[], S], make: Callable[[S], Document]) -> None:
        self._state = state
        self._make = make
        self._made: tuple[S, Document] | None = None

    @property
    def now(self) -> Document:
        """The document of the state of now."""
        state, made = self._state(), self._made
        # To compare two states that are the same object may be to compare all that is in them.
        if made is None or (made[0] is not state and made[0] != state):
            self._made = made = (state, self._make(state))
        return made[1]


def answer(document: Document, request: Request) -> Response:
    """The document, or 304 where the caller has this very one."""
    headers = {"ETag": document.tag, "Cache-Control": f"max-age={document.max_age}"}
    if has_it(request.headers.getlist("if-none-match"), document.tag):
        return Response(status_code=304, headers=headers)
    return Response(document.body, media_type=document.media_type, headers=headers)


def has_it(if_none_match: Sequence[str], tag: str) -> bool:
    """Decide whether the values of ``If-None-Match`` name the tag (RFC 9110 §13.1.2).

    Tags are compared weakly, ``*`` is any. What is no list of tags names nothing: the answer is
    then a whole document, which is never wrong.
    """
    given = ",".join(if_none_match).strip(" \t")
    if given == "*":
        return True
    named: list[str] = []
    position = 0
    while element := _ELEMENT.match(given, position):
        named.append(element[1])
        position = element.end()
    return tag in named and not given[position:].strip(" \t,")

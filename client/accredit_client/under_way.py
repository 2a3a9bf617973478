"""A request that is under way, and what it is asked about for as long as it is.

A request is decided about once, and may be answered for hours: a stream of events, a long download.
Whoever decided leaves a question with it (``ask``): was what allowed it revoked since, was its
authority dropped, does nobody know any more? Its time is not asked: it was good when the request
was. When the questions are asked again is ``cutting``'s.
"""

from asyncio import Task
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from accredit_client.errors import ClientError
from accredit_credentials.errors import CredentialError

KEY = "accredit.under_way"
"""Where a request's ``UnderWay`` stands in its ASGI scope."""


@dataclass(slots=True)
class _Question:
    check: Callable[[], None]
    version: Callable[[], object]
    seen: object


@dataclass(slots=True, eq=False)
class UnderWay:
    """One request.

    Attributes:
        task: it is answered in.
        started: whether its answer has begun.
        refused: why it is over; None while it is not.
    """

    task: "Task[Any]"
    started: bool = False
    refused: CredentialError | ClientError | None = None
    _questions: list[_Question] = field(default_factory=list)

    def ask(self, check: Callable[[], None], version: Callable[[], object]) -> None:
        """Leave a question.

        Args:
            check: raises a ``CredentialError`` or ``ClientError`` once the answer is no.
            version: another value whenever the answer may be another one; cheap.
        """
        self._questions.append(_Question(check, version, version()))

    def stands(self, *, thoroughly: bool) -> bool:
        """Whether it may go on: asked where something changed, or everything is asked."""
        try:
            for each in self._questions:
                version = each.version()
                if thoroughly or version != each.seen:
                    each.seen = version
                    each.check()
        except (CredentialError, ClientError) as error:
            self.refused = error
        return self.refused is None


def under_way(scope: MutableMapping[str, Any]) -> UnderWay | None:
    """The request of a scope, where somebody looks after it."""
    found = scope.get(KEY)
    return found if isinstance(found, UnderWay) else None

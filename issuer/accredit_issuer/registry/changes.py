"""Who changes something, and the one way in which changes are made.

Between the moment in which a call is let in and the one in which its change is written a fact may
come into force: the call waits for a thread, and for what is written before it. So the question is
asked again as the first act of the change, on the thread that puts facts into force: is a fact
against the actor, and does its role still go so far? No record of an actor stands in the log after
the fact against it.

What an admin changes is written through ``Changes``, which takes no work without its ``Actor``; an
``AdminActor`` comes from the decision about its role (``api.callers``) and from nowhere else.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import select

from accredit_credentials.revocation import FactSet
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.decision import check_not_revoked
from accredit_issuer.registry.roles import Admin, Operation, Role, check_may
from accredit_issuer.store.models import admins
from accredit_issuer.store.writer import Transaction, Writer

T = TypeVar("T")


class Actor(ABC):
    """Whoever changes something; ``name`` is what the log says."""

    __slots__ = ()

    name: str

    @abstractmethod
    def check(self, transaction: Transaction, facts: FactSet) -> None:
        """Decide, on the writing thread, whether it may do so now.

        Raises:
            Refusal: a fact is against it, or its role does not allow it any more.
        """


@dataclass(frozen=True, slots=True)
class Local(Actor):
    """The issuer itself, its scheduler, or whoever commands the machine: always allowed."""

    name: str

    def check(self, transaction: Transaction, facts: FactSet) -> None:
        """Allow it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminActor(Actor):
    """An admin who called, and what its role allowed when it did.

    Attributes:
        name: its SPIFFE ID.
        admin: its name.
        marks: what a fact about the SVID that it showed can match.
        operation: what it does.
        namespace: where; None for what lies in no namespace.
    """

    name: str
    admin: str
    marks: tuple[str, ...] = field(repr=False)
    operation: Operation
    namespace: str | None

    def check(self, transaction: Transaction, facts: FactSet) -> None:
        """Ask for facts and role again.

        Raises:
            Refusal: a fact is against it, or its role does not allow it any more.
        """
        check_not_revoked(self.marks, facts)
        row = transaction.execute(select(admins).where(admins.c.name == self.admin)).first()
        if row is None:
            raise Refusal(Kind.FORBIDDEN, f"no admin is called {self.admin}")
        known = Admin(row.name, Role(row.role), tuple(row.namespaces))
        check_may(known, self.operation, self.namespace)


class Changes:
    """Makes changes for actors, as long as they may."""

    def __init__(self, writer: Writer, facts: Callable[[], FactSet]) -> None:
        self._writer = writer
        self._facts = facts

    def make(
        self,
        work: Callable[[Transaction], T],
        *,
        by: Actor,
        about: tuple[str, ...] = (),
        alone: bool = False,
    ) -> T:
        """Have ``work`` done, and wait until it is durable; as ``Writer.run``.

        ``about`` are marks of what the change is about: a fact against one of them refuses it too.

        Raises:
            Refusal: a fact is in force by now, the role does not allow it, or the work refused.
            Unavailable: it could not be recorded.
        """

        def checked(transaction: Transaction) -> T:
            facts = self._facts()
            by.check(transaction, facts)
            check_not_revoked(about, facts)
            return work(transaction)

        return self._writer.run(checked, alone=alone).result()

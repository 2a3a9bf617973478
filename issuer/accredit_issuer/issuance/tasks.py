"""Tasks: a new one, a further token for one that exists, or one below another.

A task belongs to the instance that began it; nobody else can use its id, as it is or as a parent.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from accredit_credentials.task_token import MAX_DEPTH, Task
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.store.bulk import BulkInsert
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import tasks
from accredit_issuer.store.writer import Transaction

_INSERT_TASK = BulkInsert(tasks)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskChoice:
    """A task that a token is asked for.

    Attributes:
        task: with its ancestors.
        principal: on whose behalf.
        is_new: whether it has to be recorded.
    """

    task: Task
    principal: str
    is_new: bool

    def record(self, transaction: Transaction, instance: str, now: datetime) -> None:
        """Write a new task down."""
        if self.is_new:
            transaction.add(
                _INSERT_TASK,
                {
                    "id": self.task.id,
                    "instance": instance,
                    "purpose": self.task.purpose,
                    "principal": self.principal,
                    "ancestors": list(self.task.ancestors),
                    "created_at": now,
                },
            )


def choose_task(
    database: Database,
    *,
    instance: str,
    purpose: str,
    principal: str,
    task_id: str | None,
    parent_id: str | None,
) -> TaskChoice:
    """The task that a request means.

    Raises:
        Refusal: a task or parent that is not the instance's own, or does not match what it was
            begun with.
    """
    if task_id is not None:
        known, known_principal = _own_task(database, instance, task_id)
        if parent_id is not None and parent_id != known.parent:
            raise Refusal(Kind.CONFLICT, f"task {task_id} was begun under another parent")
        if (known.purpose, known_principal) != (purpose, principal):
            raise Refusal(
                Kind.CONFLICT, f"task {task_id} was begun with another purpose or principal"
            )
        return TaskChoice(task=known, principal=principal, is_new=False)
    ancestors: tuple[str, ...] = ()
    if parent_id is not None:
        parent, parent_principal = _own_task(database, instance, parent_id)
        if parent_principal != principal:
            raise Refusal(Kind.CONFLICT, f"parent task {parent_id} was begun for another principal")
        ancestors = (*parent.ancestors, parent.id)
        if len(ancestors) > MAX_DEPTH:
            raise Refusal(Kind.NOT_DECLARED, f"tasks stand at most {MAX_DEPTH} below the first")
    task = Task(id=str(uuid.uuid4()), purpose=purpose, ancestors=ancestors)
    return TaskChoice(task=task, principal=principal, is_new=True)


def _own_task(database: Database, instance: str, task_id: str) -> tuple[Task, str]:
    with database.read() as connection:
        row = connection.execute(
            select(tasks).where(tasks.c.id == task_id, tasks.c.instance == instance)
        ).first()
    if row is None:
        # The same answer for "not there" and "not yours": ids of others are nobody's business.
        raise Refusal(Kind.NOT_FOUND, f"this instance has no task {task_id[:36]!r}")
    return Task(id=row.id, purpose=row.purpose, ancestors=tuple(row.ancestors)), row.principal

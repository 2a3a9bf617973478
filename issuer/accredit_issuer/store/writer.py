"""One thread that writes, so that many requests share one commit.

``Writer.run(work)`` hands ``work`` a ``Transaction`` and answers once it is durable. All work that
waits at one moment goes into one database transaction. Work that refuses (``IssuerError``) takes
back only what it did itself. A commit that fails (disk full, say) fails all work in it with
``Unavailable``, and nothing of it is seen by anyone; where one piece of work is to blame, the
others are done without it. Work that must be seen by whatever comes next, a revocation fact, asks
for a commit of its own (``alone=True``).

Whoever stops waiting before its turn is left out; whoever stops later is not waited for.

Every record of the log goes through ``Transaction.record``; the checkpoint is signed as part of
the same commit, so the log and the state never disagree.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import structlog
from sqlalchemy import Connection, CursorResult, Engine, Executable
from sqlalchemy.exc import OperationalError

from accredit_issuer.audit.log import Log, LogGrowth
from accredit_issuer.audit.records import Record
from accredit_issuer.errors import IssuerError, Unavailable

MAX_WAITING = 4096
MAX_GROUP = 256

_log = structlog.get_logger("accredit.writer")

T = TypeVar("T")
Rows = dict[Executable, list[Mapping[str, Any]]]


class Transaction:
    """What one piece of work may do. Used on the writing thread only."""

    def __init__(self, connection: Connection, growth: LogGrowth, rows: Rows) -> None:
        self._connection = connection
        self._growth = growth
        self._shared_rows = rows
        self._own_rows: Rows = {}
        self._savepoint: Any = None
        self._after_commit: list[Callable[[], None]] = []

    def add(self, statement: Executable, values: Mapping[str, Any]) -> None:
        """Execute later, together with the same statement of other work: for plain inserts."""
        self._own_rows.setdefault(statement, []).append(values)

    def execute(self, statement: Executable) -> CursorResult[Any]:
        """Execute now and see the result."""
        _flush(self._connection, self._shared_rows)
        if self._savepoint is None:
            self._savepoint = self._connection.begin_nested()
        _flush(self._connection, self._own_rows)
        return cast("CursorResult[Any]", self._connection.execute(statement))

    def record(self, record: Record) -> int:
        """Append a record to the log; returns its index."""
        return self._growth.append(record.leaf())

    def after_commit(self, call: Callable[[], None]) -> None:
        """Call this on the writing thread once everything is durable, before any further work."""
        self._after_commit.append(call)

    def keep(self) -> list[Callable[[], None]]:
        """Make what was done part of the commit; returns what to call after it."""
        for statement, values in self._own_rows.items():
            self._shared_rows.setdefault(statement, []).extend(values)
        if self._savepoint is not None:
            self._savepoint.commit()
        self._growth.keep()
        return self._after_commit

    def take_back(self) -> None:
        """Undo what was done, leaving other work as it is."""
        if self._savepoint is not None:
            self._savepoint.rollback()
        self._growth.take_back()


@dataclass(eq=False)
class _Work:
    do: Callable[[Transaction], Any]
    alone: bool
    future: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True)
class _Outcome:
    future: Future[Any]
    result: Any = None
    error: IssuerError | None = None
    after_commit: Sequence[Callable[[], None]] = ()

    def answer(self) -> None:
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Writer:
    """The writing thread and its queue."""

    def __init__(self, engine: Engine, log: Log) -> None:
        self._engine = engine
        self._log = log
        self._waiting: deque[_Work] = deque()
        self._changed = threading.Condition()
        self._after_group: list[Callable[[], None]] = []
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="accredit-writer", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[Transaction], T], *, alone: bool = False) -> Future[T]:
        """Have ``work`` done; the future answers once it is durable.

        The future raises what the work raised, or ``Unavailable`` where it could not be written.

        Raises:
            Unavailable: too much is waiting, or the writer is closed.
        """
        return self._ask([_Work(work, alone)])[0]

    def run_all(self, works: Sequence[Callable[[Transaction], Any]]) -> list[Future[Any]]:
        """Have several pieces of work done, in this order; as ``run`` for each.

        Raises:
            Unavailable: too much is waiting, or the writer is closed; nothing of it is done.
        """
        return self._ask([_Work(work, alone=False) for work in works])

    def after_each_group(self, call: Callable[[], None]) -> None:
        """Call this on the writing thread whenever a group was answered."""
        self._after_group.append(call)

    def _ask(self, items: list[_Work]) -> list[Future[Any]]:
        with self._changed:
            if self._closed:
                raise Unavailable("the issuer is stopping")
            if len(self._waiting) + len(items) > MAX_WAITING:
                raise Unavailable(f"{MAX_WAITING} writes are waiting already")
            self._waiting.extend(items)
            self._changed.notify()
        return [item.future for item in items]

    @property
    def waiting(self) -> int:
        """How much work is waiting."""
        return len(self._waiting)

    def close(self) -> None:
        """Finish what is waiting, then stop the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _serve(self) -> None:
        while (group := self._next_group()) or not self._closed:
            if group:
                self._commit(group)

    def _next_group(self) -> list[_Work]:
        """What waits, in order, up to the first work that wants to be alone; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            group: list[_Work] = []
            while self._waiting and len(group) < MAX_GROUP:
                if self._waiting[0].alone and group:
                    break
                work = self._waiting.popleft()
                # From here on its future cannot be cancelled: answering it cannot fail.
                if not work.future.set_running_or_notify_cancel():
                    continue
                group.append(work)
                if work.alone:
                    break
            return group

    def _commit(self, group: list[_Work]) -> None:
        try:
            outcomes = self._attempt(group)
        except Exception as error:  # noqa: BLE001 (a commit that failed must not end the thread)
            self._fail(group, error)
        else:
            _tell(outcomes)
            for outcome in outcomes:
                outcome.answer()
        for call in self._after_group:
            call()

    def _attempt(self, group: list[_Work]) -> list[_Outcome]:
        """Do all work of a group in one transaction, and make it durable."""
        outcomes: list[_Outcome] = []
        with self._transaction() as (connection, rows, growth):
            for work in group:
                transaction = Transaction(connection, growth, rows)
                try:
                    result = work.do(transaction)
                except IssuerError as error:
                    transaction.take_back()
                    outcomes.append(_Outcome(work.future, error=error))
                else:
                    calls = transaction.keep()
                    outcomes.append(_Outcome(work.future, result=result, after_commit=calls))
        return outcomes

    def _fail(self, group: list[_Work], error: Exception) -> None:
        """Answer a group whose transaction was undone.

        Where the database and the log's key are well, one piece of work spoilt it for the others:
        each is tried again by itself, and only the guilty one fails.
        """
        if len(group) > 1 and not isinstance(error, (OperationalError, OSError, Unavailable)):
            for work in group:
                self._commit([work])
            return
        _log.error("could not be recorded", reason=repr(error), cause=repr(error.__cause__))
        unavailable = Unavailable(f"could not be recorded ({type(error).__name__})")
        unavailable.__cause__ = error
        for work in group:
            work.future.set_exception(unavailable)

    @contextmanager
    def _transaction(self) -> Iterator[tuple[Connection, Rows, LogGrowth]]:
        growth = self._log.grow()
        rows: Rows = {}
        with self._engine.begin() as connection:
            yield connection, rows, growth
            _flush(connection, rows)
            growth.write(connection)
        growth.publish()


def _tell(outcomes: list[_Outcome]) -> None:
    """Call what wants to know of the commit, before any further work is looked at."""
    for call in [call for outcome in outcomes for call in outcome.after_commit]:
        try:
            call()
        except Exception:  # noqa: BLE001 (see the next line)
            # It is durable: whoever waits is answered, and the thread lives on.
            _log.exception("not told after a commit")


def _flush(connection: Connection, rows: Rows) -> None:
    for statement, values in rows.items():
        connection.execute(statement, values)
    rows.clear()

"""One thread that writes, so that many requests share one commit.

``Writer.run(work)`` hands ``work`` a ``Transaction`` and answers once it is durable. All work that
waits at one moment goes into one database transaction. Work that refuses (``IssuerError``) takes
back only what it did itself. Anything else that is raised, and a commit that fails (disk full,
say), fails all work in it with ``Unavailable``, and nothing of it is seen by anyone. Work that
must be seen by whatever comes next, a revocation fact, asks for a commit of its own
(``alone=True``).

Whoever stops waiting before its turn is left out; whoever stops later is not waited for.

Every record of the log goes through ``Transaction.record``; the checkpoint is signed as part of
the same commit, so the log and the state never disagree.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, cast

import structlog
from sqlalchemy import Connection, CursorResult, Engine, Executable

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


class _Done(NamedTuple):
    future: Future[Any]
    result: Any
    after_commit: list[Callable[[], None]]


class Writer:
    """The writing thread and its queue."""

    def __init__(self, engine: Engine, log: Log) -> None:
        self._engine = engine
        self._log = log
        self._waiting: deque[_Work] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="accredit-writer", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[Transaction], T], *, alone: bool = False) -> Future[T]:
        """Have ``work`` done; the future answers once it is durable.

        The future raises what the work raised, or ``Unavailable`` where it could not be written.

        Raises:
            Unavailable: too much is waiting, or the writer is closed.
        """
        item = _Work(work, alone)
        with self._changed:
            if self._closed:
                raise Unavailable("the issuer is stopping")
            if len(self._waiting) >= MAX_WAITING:
                raise Unavailable(f"{MAX_WAITING} writes are waiting already")
            self._waiting.append(item)
            self._changed.notify()
        return item.future

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
        done: list[_Done] = []
        try:
            with self._transaction() as (connection, rows, growth):
                for work in group:
                    transaction = Transaction(connection, growth, rows)
                    try:
                        result = work.do(transaction)
                    except IssuerError as error:
                        transaction.take_back()
                        work.future.set_exception(error)
                    else:
                        done.append(_Done(work.future, result, transaction.keep()))
        except Exception as error:  # noqa: BLE001 (a commit that failed must not end the thread)
            unavailable = Unavailable(f"could not be recorded ({type(error).__name__})")
            unavailable.__cause__ = error
            for work in group:
                if not work.future.done():
                    work.future.set_exception(unavailable)
            return
        for call in [call for each in done for call in each.after_commit]:
            try:
                call()
            except Exception:  # noqa: BLE001 (see the next line)
                # It is durable: whoever waits is answered, and the thread lives on.
                _log.exception("not told after a commit")
        for each in done:
            each.future.set_result(each.result)

    @contextmanager
    def _transaction(self) -> Iterator[tuple[Connection, Rows, LogGrowth]]:
        growth = self._log.grow()
        rows: Rows = {}
        with self._engine.begin() as connection:
            yield connection, rows, growth
            _flush(connection, rows)
            growth.write(connection)
        growth.publish()


def _flush(connection: Connection, rows: Rows) -> None:
    for statement, values in rows.items():
        connection.execute(statement, values)
    rows.clear()

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

import sqlite3
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import structlog
from sqlalchemy import Connection, CursorResult, Engine, Executable
from sqlalchemy.exc import OperationalError

from accredit_issuer.audit.log import Log, LogGrowth
from accredit_issuer.audit.records import Record
from accredit_issuer.errors import IssuerError, Unavailable
from accredit_issuer.store.bulk import BulkInsert, Row

MAX_WAITING = 4096
MAX_GROUP = 256

_log = structlog.get_logger("accredit.writer")

T = TypeVar("T")
Rows = dict[BulkInsert, list[Row]]
Work = Callable[["Transaction"], Any]


class Transaction:
    """What one piece of work may do. Used on the writing thread only."""

    __slots__ = ("_after_commit", "_connection", "_growth", "_own", "_savepoint", "_shared")

    def __init__(self, connection: Connection, growth: LogGrowth, shared: Rows) -> None:
        self._connection = connection
        self._growth = growth
        self._shared = shared
        self._own: list[tuple[BulkInsert, Row]] = []
        self._savepoint: Any = None
        self._after_commit: Sequence[Callable[[], None]] = ()

    def add(self, insert: BulkInsert, values: Mapping[str, Any]) -> None:
        """Insert a row later, together with the rows of other work."""
        self._own.append((insert, insert.row(values)))

    def execute(self, statement: Executable) -> CursorResult[Any]:
        """Execute now and see the result."""
        _flush(self._connection, self._shared)
        if self._savepoint is None:
            self._savepoint = self._connection.begin_nested()
        self._share()
        _flush(self._connection, self._shared)
        return cast("CursorResult[Any]", self._connection.execute(statement))

    def record(self, record: Record) -> int:
        """Append a record to the log; returns its index."""
        return self.append(record.leaf())

    def append(self, leaf: bytes) -> int:
        """Append a record that was written down already; returns its index."""
        return self._growth.append(leaf)

    def after_commit(self, call: Callable[[], None]) -> None:
        """Call this on the writing thread once everything is durable, before any further work."""
        self._after_commit = (*self._after_commit, call)

    def keep(self) -> Sequence[Callable[[], None]]:
        """Make what was done part of the commit; returns what to call after it."""
        self._share()
        if self._savepoint is not None:
            self._savepoint.commit()
        self._growth.keep()
        return self._after_commit

    def take_back(self) -> None:
        """Undo what was done, leaving other work as it is."""
        if self._savepoint is not None:
            self._savepoint.rollback()
        self._growth.take_back()

    def _share(self) -> None:
        for insert, row in self._own:
            rows = self._shared.get(insert)
            if rows is None:
                self._shared[insert] = [row]
            else:
                rows.append(row)
        self._own.clear()


class Waiter(ABC):
    """Whoever waits for one piece of work. Both methods are called on the writing thread."""

    __slots__ = ()

    @abstractmethod
    def is_waiting(self) -> bool:
        """Whether the work is still wanted; asked once, before it is done."""

    @abstractmethod
    def settle(self, result: Any, error: Exception | None) -> None:
        """It is durable, or it failed."""


class _ThreadWaiter(Waiter):
    """Waits for a future of ``concurrent.futures``."""

    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: Future[Any] = Future()

    def is_waiting(self) -> bool:
        # From here on it cannot be cancelled: settling it cannot fail.
        return self.future.set_running_or_notify_cancel()

    def settle(self, result: Any, error: Exception | None) -> None:
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


Asked = tuple[Work, Waiter, bool]
"""Work, who waits for it, and whether it wants a commit of its own."""
_Outcome = tuple[Waiter, Any, Exception | None, Sequence[Callable[[], None]]]
"""Who waits, the result or the error, and what to call after the commit."""


class Writer:
    """The writing thread and its queue."""

    def __init__(self, engine: Engine, log: Log) -> None:
        self._engine = engine
        self._log = log
        self._waiting: deque[Asked] = deque()
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
        waiter = _ThreadWaiter()
        self.ask([(work, waiter, alone)])
        return waiter.future

    def ask(self, asked: Sequence[Asked]) -> None:
        """Have several pieces of work done, in this order.

        Raises:
            Unavailable: too much is waiting, or the writer is closed; nothing of it is done.
        """
        with self._changed:
            if self._closed:
                raise Unavailable("the issuer is stopping")
            if len(self._waiting) + len(asked) > MAX_WAITING:
                raise Unavailable(f"{MAX_WAITING} writes are waiting already")
            self._waiting.extend(asked)
            self._changed.notify()

    def after_each_group(self, call: Callable[[], None]) -> None:
        """Call this on the writing thread whenever a group was answered."""
        self._after_group.append(call)

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
        # One connection for all groups: to fetch one for each costs as much as what is written.
        with self._engine.connect() as self._connection:
            while (group := self._next_group()) or not self._closed:
                if group:
                    self._commit(group)
                for call in self._after_group:
                    call()

    def _next_group(self) -> list[Asked]:
        """What waits, in order, up to the first work that wants to be alone; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            group: list[Asked] = []
            while self._waiting and len(group) < MAX_GROUP:
                _, waiter, alone = self._waiting[0]
                if alone and group:
                    break
                asked = self._waiting.popleft()
                if waiter.is_waiting():
                    group.append(asked)
                    if alone:
                        break
            return group

    def _commit(self, group: list[Asked]) -> None:
        try:
            outcomes = self._attempt(group)
        except Exception as error:  # noqa: BLE001 (a commit that failed must not end the thread)
            self._fail(group, error)
        else:
            _tell(outcomes)
            for waiter, result, refusal, _ in outcomes:
                waiter.settle(result, refusal)

    def _attempt(self, group: list[Asked]) -> list[_Outcome]:
        """Do all work of a group in one transaction, and make it durable."""
        outcomes: list[_Outcome] = []
        with self._transaction() as (connection, rows, growth):
            for work, waiter, _ in group:
                transaction = Transaction(connection, growth, rows)
                try:
                    result = work(transaction)
                except IssuerError as error:
                    transaction.take_back()
                    outcomes.append((waiter, None, error, ()))
                else:
                    outcomes.append((waiter, result, None, transaction.keep()))
        return outcomes

    def _fail(self, group: list[Asked], error: Exception) -> None:
        """Answer a group whose transaction was undone.

        Where the database and the log's key are well, one piece of work spoilt it for the others:
        each is tried again by itself, and only the guilty one fails.
        """
        ill = (OperationalError, sqlite3.OperationalError, OSError, Unavailable)
        if len(group) > 1 and not isinstance(error, ill):
            for asked in group:
                self._commit([asked])
            return
        _log.error("could not be recorded", reason=repr(error), cause=repr(error.__cause__))
        unavailable = Unavailable(f"could not be recorded: {_cause(error)}")
        unavailable.__cause__ = error
        for _, waiter, _ in group:
            waiter.settle(None, unavailable)

    @contextmanager
    def _transaction(self) -> Iterator[tuple[Connection, Rows, LogGrowth]]:
        growth = self._log.grow()
        rows: Rows = {}
        connection = self._connection
        with _undone_on_failure(connection), connection.begin():
            yield connection, rows, growth
            _flush(connection, rows)
            growth.write(connection)
        growth.publish()


@contextmanager
def _undone_on_failure(connection: Connection) -> Iterator[None]:
    """A commit that fails may leave its transaction open, and the connection is used again."""
    try:
        yield
    except BaseException:
        driver: Any = connection.connection.driver_connection
        driver.rollback()
        raise


def _cause(error: Exception) -> str:
    """In words of ours: whoever asked gets them."""
    if isinstance(error, Unavailable):
        return "the key manager does not answer"  # nothing but the log's key is asked for here
    if isinstance(error, OperationalError | sqlite3.OperationalError | OSError):
        return "the database cannot be written"
    return f"unexpected {type(error).__name__}"


def _tell(outcomes: Sequence[_Outcome]) -> None:
    """Call what wants to know of the commit, before any further work is looked at."""
    for *_, calls in outcomes:
        for call in calls:
            try:
                call()
            except Exception:  # noqa: BLE001 (see the next line)
                # It is durable: whoever waits is answered, and the thread lives on.
                _log.exception("not told after a commit")


def _flush(connection: Connection, rows: Rows) -> None:
    for insert, waiting in rows.items():
        insert.write(connection, waiting)
    rows.clear()

"""The writer: what waits shares a commit, who refuses takes back its own, who fails fails all."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import event, insert, select, update
from support.clock import NOW

from accredit_issuer.audit.log import Log, LogReader
from accredit_issuer.audit.records import Record, RecordKind
from accredit_issuer.errors import Kind, Refusal, Unavailable
from accredit_issuer.store import writer as module
from accredit_issuer.store.bulk import BulkInsert
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import singletons
from accredit_issuer.store.writer import Transaction, Writer

KEY = Ed25519PrivateKey.generate()
TIMEOUT = 20
INSERT = BulkInsert(singletons)


class Bench:
    """A writer, its database and log, and a way to make work wait."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(folder / "issuer.db")
        self.database.migrate()
        self.log = Log("example.org/log", KEY)
        self.writer = Writer(self.database.writing, self.log)
        self.commits = 0
        event.listen(self.database.writing, "commit", self._on_commit)

    def _on_commit(self, _connection: object) -> None:
        self.commits += 1

    @contextmanager
    def held(self) -> Iterator[None]:
        """Everything that is asked for inside waits, and goes on together at the end."""
        reached, go = threading.Event(), threading.Event()

        def hold(_transaction: Transaction) -> None:
            reached.set()
            assert go.wait(TIMEOUT)

        future = self.writer.run(hold, alone=True)
        assert reached.wait(TIMEOUT)
        try:
            yield
        finally:
            go.set()
            future.result(TIMEOUT)

    def rows(self) -> dict[str, str]:
        """What the database holds, without the log's own row."""
        with self.database.read() as connection:
            found = connection.execute(select(singletons)).all()
        return {name: value for name, value in found if name != "log.checkpoint"}

    def sql(self, statement: str) -> None:
        """Change the database behind the writer's back."""
        with self.database.writing.begin() as connection:
            connection.exec_driver_sql(statement)

    def records(self) -> list[str]:
        """The subjects of the log."""
        with self.database.read() as connection:
            entries = LogReader(connection).entries(0, 10_000)
        return [entry.leaf.decode().split('"subject":"')[1].split('"')[0] for entry in entries]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A writer on an empty database."""
    bench = Bench(tmp_path)
    yield bench
    bench.writer.close()
    bench.database.close()


def record(name: str) -> Record:
    """A record about ``name``."""
    return Record(kind=RecordKind.ADMIN_INVITED, at=NOW, actor="a", subject=name, details={})


def write(name: str) -> Callable[[Transaction], str]:
    """Work that adds a row and a record."""

    def work(transaction: Transaction) -> str:
        transaction.add(INSERT, {"name": name, "value": "added"})
        transaction.record(record(name))
        return name

    return work


def write_now(name: str) -> Callable[[Transaction], str]:
    """The same, with statements of its own."""

    def work(transaction: Transaction) -> str:
        transaction.execute(insert(singletons).values(name=name, value="executed"))
        transaction.record(record(name))
        return name

    return work


def refuse(inner: Callable[[Transaction], Any]) -> Callable[[Transaction], None]:
    """Work that does something, and then refuses."""

    def work(transaction: Transaction) -> None:
        inner(transaction)
        raise Refusal(Kind.CONFLICT, "no")

    return work


def test_what_waits_shares_a_commit(bench: Bench) -> None:
    """A hundred pieces of work that wait at one moment are one commit, each with its own answer."""
    with bench.held():
        before = bench.commits
        futures = [bench.writer.run(write(f"n{n:03}")) for n in range(100)]
    assert [future.result(TIMEOUT) for future in futures] == [f"n{n:03}" for n in range(100)]
    assert bench.commits - before == 2, "the one that held, and the group"
    assert bench.records() == sorted(bench.rows())


def test_alone_means_alone(bench: Bench) -> None:
    """Work that asks for a commit of its own gets one; what comes after it sees it done."""
    order: list[str] = []

    def note(name: str) -> Callable[[Transaction], None]:
        def work(transaction: Transaction) -> None:
            order.append(f"do {name}")
            transaction.after_commit(lambda: order.append(f"after {name}"))

        return work

    with bench.held():
        futures = [
            bench.writer.run(note("a")),
            bench.writer.run(note("b")),
            bench.writer.run(note("fact"), alone=True),
            bench.writer.run(note("c")),
            bench.writer.run(note("d")),
        ]
    for future in futures:
        future.result(TIMEOUT)
    assert order == [
        "do a", "do b", "after a", "after b",
        "do fact", "after fact",
        "do c", "do d", "after c", "after d",
    ]  # fmt: skip


@pytest.mark.parametrize("style", [write, write_now])
@pytest.mark.parametrize("other", [write, write_now])
def test_a_refusal_takes_back_its_own_and_nothing_else(
    bench: Bench, style: Callable[..., Any], other: Callable[..., Any]
) -> None:
    """Rows and records of who refused are gone, those before and after it in the group stay."""
    with bench.held():
        first = bench.writer.run(other("first"))
        second = bench.writer.run(refuse(style("second")))
        third = bench.writer.run(refuse(refuse(style("third"))))
        last = bench.writer.run(other("last"))
    assert (first.result(TIMEOUT), last.result(TIMEOUT)) == ("first", "last")
    for future in (second, third):
        with pytest.raises(Refusal):
            future.result(TIMEOUT)
    assert set(bench.rows()) == {"first", "last"}
    assert bench.records() == ["first", "last"]
    assert bench.log.frontier.size == 2


def test_own_rows_are_seen_by_own_statements(bench: Bench) -> None:
    """What was added before is there when the same work executes a statement, and goes with it."""

    def work(transaction: Transaction) -> int:
        transaction.add(INSERT, {"name": "own", "value": "1"})
        return transaction.execute(update(singletons).values(value="2")).rowcount

    with bench.held():
        kept = bench.writer.run(write("shared"))
        refused = bench.writer.run(refuse(work))
        seen = bench.writer.run(work)
    assert kept.result(TIMEOUT) == "shared"
    assert seen.result(TIMEOUT) == 2
    assert bench.rows() == {"shared": "2", "own": "2"}
    assert refused.exception(TIMEOUT)


@pytest.mark.parametrize("failing", [ZeroDivisionError("x"), ValueError("secret")])
def test_work_that_breaks_fails_alone(bench: Bench, failing: Exception) -> None:
    """Work that raises an error of its own gets ``Unavailable``; who shared its commit does not."""

    def fail(transaction: Transaction) -> None:
        write("broken")(transaction)
        raise failing

    told: list[str] = []

    def tell(transaction: Transaction) -> str:
        transaction.after_commit(lambda: told.append("x"))
        return write("x")(transaction)

    with bench.held():
        before = bench.writer.run(tell)
        broken = bench.writer.run(fail)
        after = bench.writer.run(write("y"))
    assert (before.result(TIMEOUT), after.result(TIMEOUT)) == ("x", "y")
    error = broken.exception(TIMEOUT)
    assert isinstance(error, Unavailable)
    assert "secret" not in str(error)
    assert told == ["x"]
    assert bench.records() == ["x", "y"]
    assert set(bench.rows()) == {"x", "y"}


def test_rows_that_cannot_be_written_fail_alone(bench: Bench) -> None:
    """A row that the database refuses only when the group is written hurts nobody else."""
    with bench.held():
        good = bench.writer.run(write("good"))
        bad = bench.writer.run(lambda t: t.add(INSERT, {"name": "\ud800", "value": "1"}))
    assert good.result(TIMEOUT) == "good"
    assert isinstance(bad.exception(TIMEOUT), Unavailable)
    assert set(bench.rows()) == {"good"}


def test_a_broken_disk_fails_everybody(bench: Bench) -> None:
    """Where the database is ill the whole group fails: nothing remains, and nothing is retried."""
    bench.writer.run(write("before")).result(TIMEOUT)
    head = bench.log.head
    tries: list[str] = []

    def fail(_transaction: Transaction) -> None:
        tries.append("x")
        raise OSError("disk full")

    with bench.held():
        futures: list[Future[Any]] = [bench.writer.run(work) for work in (write("x"), fail)]
    assert all(isinstance(future.exception(TIMEOUT), Unavailable) for future in futures)
    said = {str(future.exception(TIMEOUT)) for future in futures}
    assert said == {"could not be recorded: the database cannot be written"}
    assert tries == ["x"]
    assert bench.log.head is head
    assert bench.writer.run(write("after")).result(TIMEOUT) == "after"
    assert bench.records() == ["before", "after"]


@pytest.mark.parametrize("moment", ["commit", "log row"])
def test_a_failing_commit_fails_everybody(bench: Bench, moment: str) -> None:
    """A commit, or the log's own row, that fails at the last moment: nobody is told yes."""
    bench.writer.run(write("before")).result(TIMEOUT)
    head = bench.log.head
    broken = True

    def fail(*_: object) -> None:
        if broken:
            raise OSError("disk full")

    if moment == "commit":
        event.listen(bench.database.writing, "commit", fail)
    else:
        bench.sql(
            "CREATE TRIGGER full BEFORE INSERT ON log_leaf BEGIN SELECT RAISE(FAIL, 'x'); END"
        )
    futures = [bench.writer.run(write(name)) for name in "ab"]
    assert all(isinstance(future.exception(TIMEOUT), Unavailable) for future in futures)
    assert bench.log.head is head
    broken = False
    bench.sql("DROP TRIGGER IF EXISTS full")
    assert bench.writer.run(write("c")).result(TIMEOUT) == "c"
    assert set(bench.rows()) == {"before", "c"}
    assert bench.records() == ["before", "c"]


def test_a_full_queue_says_so_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than may wait is refused without waiting, and the others are done."""
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    with bench.held():
        futures = [bench.writer.run(write(name)) for name in "abc"]
        assert bench.writer.waiting == 3
        with pytest.raises(Unavailable, match="3 writes are waiting"):
            bench.writer.run(write("d"))
    assert [future.result(TIMEOUT) for future in futures] == ["a", "b", "c"]
    assert bench.writer.run(write("d")).result(TIMEOUT) == "d"


def test_close_finishes_what_waits(bench: Bench) -> None:
    """Work that was accepted is done before the writer is gone; later work is refused."""
    with bench.held():
        futures = [bench.writer.run(write(f"n{n}")) for n in range(1000)]
        closing = threading.Thread(target=bench.writer.close)
        closing.start()
    closing.join(TIMEOUT)
    assert all(future.done() for future in futures)
    assert len(bench.rows()) == 1000
    with pytest.raises(Unavailable, match="stopping"):
        bench.writer.run(write("late"))


def test_who_stops_waiting_harms_nobody(bench: Bench) -> None:
    """A request that is cancelled before or during its work does not end the writer."""

    async def cancelled_before_and_during() -> str:
        with bench.held():
            before = asyncio.wrap_future(bench.writer.run(write("cancelled")))
            other = asyncio.wrap_future(bench.writer.run(write("other")))
            await asyncio.sleep(0)
            before.cancel()
            await asyncio.sleep(0)
        reached, go = threading.Event(), threading.Event()

        def slow(transaction: Transaction) -> None:
            write("slow")(transaction)
            reached.set()
            assert go.wait(TIMEOUT)

        during = asyncio.wrap_future(bench.writer.run(slow))
        assert reached.wait(TIMEOUT)
        during.cancel()
        await asyncio.sleep(0)
        go.set()
        return await other

    assert asyncio.run(cancelled_before_and_during()) == "other"
    assert bench.writer.run(write("after")).result(TIMEOUT) == "after"
    assert set(bench.rows()) == {"other", "slow", "after"}


def test_a_listener_that_fails_stops_nobody(bench: Bench) -> None:
    """When telling of a commit fails, whoever waits is answered, and the next work is done."""

    def work(transaction: Transaction) -> str:
        def fail() -> None:
            raise RuntimeError("the loop is closed")

        transaction.after_commit(fail)
        return write("a")(transaction)

    assert bench.writer.run(work).result(TIMEOUT) == "a"
    assert bench.writer.run(write("b")).result(TIMEOUT) == "b"


def test_records_and_checkpoint_agree_at_every_moment(bench: Bench) -> None:
    """Whoever reads the head sees a tree and the checkpoint of that very tree."""
    stop = threading.Event()
    wrong: list[str] = []

    def watch() -> None:
        while not stop.is_set():
            head = bench.log.head
            if f"\n{head.frontier.size}\n" not in head.checkpoint:
                wrong.append(head.checkpoint)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(40):
        bench.writer.run(write(f"{number}")).result(TIMEOUT)
    stop.set()
    watcher.join()
    assert not wrong

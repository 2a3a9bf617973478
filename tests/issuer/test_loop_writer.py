"""The writer as the event loop uses it: groups stay together, and cancelling is understood."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import event

from accredit_issuer.audit.log import Log
from accredit_issuer.errors import Kind, Refusal, Unavailable
from accredit_issuer.store.bulk import BulkInsert
from accredit_issuer.store.database import Database
from accredit_issuer.store.loop_writer import LoopWriter
from accredit_issuer.store.models import singletons
from accredit_issuer.store.writer import Transaction, Writer


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database with its tables."""
    database = Database(tmp_path / "issuer.db")
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def writer(database: Database) -> Iterator[Writer]:
    """Its writer."""
    writer = Writer(database.writing, Log("example.org/log", Ed25519PrivateKey.generate()))
    yield writer
    writer.close()


def test_what_began_together_stays_together(database: Database, writer: Writer) -> None:
    """Fifty coroutines that each write twice share two commits, not a hundred."""
    commits = 0

    def count(_connection: object) -> None:
        nonlocal commits
        commits += 1

    event.listen(database.writing, "commit", count)
    loop_writer = LoopWriter(writer)

    async def write_twice(number: int) -> None:
        await loop_writer.run(lambda t: _add(t, f"first {number}"))
        await loop_writer.run(lambda t: _add(t, f"second {number}"))

    async def main() -> None:
        await asyncio.gather(*(write_twice(number) for number in range(50)))

    asyncio.run(main())
    assert commits == 2


def test_each_gets_its_own_answer(writer: Writer) -> None:
    """In one group some are refused and some are not, and each coroutine learns its own fate."""
    loop_writer = LoopWriter(writer)

    def decide(number: int) -> int:
        if number % 2:
            raise Refusal(Kind.CONFLICT, f"{number} is odd")
        return number

    async def main() -> list[int | BaseException]:
        asked = (loop_writer.run(lambda _, n=n: decide(n)) for n in range(6))
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(main())
    assert [answer for answer in answers if isinstance(answer, int)] == [0, 2, 4]
    assert [str(e) for e in answers if isinstance(e, Refusal)] == [f"{n} is odd" for n in (1, 3, 5)]


def test_who_stops_waiting_before_its_turn_writes_nothing(
    database: Database, writer: Writer
) -> None:
    """A coroutine that is cancelled before its write was handed over leaves nothing behind."""
    loop_writer = LoopWriter(writer)

    async def main() -> None:
        gone = asyncio.ensure_future(loop_writer.run(lambda t: _add(t, "gone")))
        stays = asyncio.ensure_future(loop_writer.run(lambda t: _add(t, "stays")))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, stays, return_exceptions=True)

    asyncio.run(main())
    with database.read() as connection:
        assert [row.name for row in connection.execute(singletons.select())] == ["stays"]


def test_who_stops_waiting_while_others_are_written_holds_up_nobody(writer: Writer) -> None:
    """Cancelled between hand-over and its turn, or alone in its group: what follows is written."""
    loop_writer = LoopWriter(writer)
    held, go = threading.Event(), threading.Event()

    def hold(_transaction: Transaction) -> None:
        held.set()
        assert go.wait(20)

    async def main() -> str:
        future = asyncio.wrap_future(writer.run(hold, alone=True))
        await asyncio.to_thread(held.wait, 20)
        gone = asyncio.ensure_future(loop_writer.run(lambda t: _add(t, "gone")))
        await asyncio.sleep(0)  # asked
        await asyncio.sleep(0)  # handed over
        gone.cancel()
        await asyncio.sleep(0)
        go.set()
        await future
        return await asyncio.wait_for(loop_writer.run(lambda _: "written"), 20)

    assert asyncio.run(main()) == "written"


def test_what_comes_during_a_commit_shares_the_next(database: Database, writer: Writer) -> None:
    """Whatever is asked for while a commit is under way goes into one more commit, together."""
    commits = 0

    def count(_connection: object) -> None:
        nonlocal commits
        commits += 1

    event.listen(database.writing, "commit", count)
    loop_writer = LoopWriter(writer)
    held, go = threading.Event(), threading.Event()

    def hold(_transaction: Transaction) -> None:
        held.set()
        assert go.wait(20)

    async def main() -> None:
        first = asyncio.ensure_future(loop_writer.run(hold))
        await asyncio.to_thread(held.wait, 20)
        others = []
        for number in range(20):
            others.append(
                asyncio.ensure_future(loop_writer.run(lambda t, n=number: _add(t, f"{n}")))
            )
            await asyncio.sleep(0)  # each in a turn of its own
        go.set()
        await asyncio.gather(first, *others)

    asyncio.run(main())
    assert commits == 2


def test_several_loops_are_served(writer: Writer) -> None:
    """One loop after another is answered, also where the first one left work behind."""
    loop_writer = LoopWriter(writer)

    async def leave() -> None:
        abandoned = asyncio.ensure_future(loop_writer.run(lambda t: _add(t, "left")))
        await asyncio.sleep(0)
        abandoned.cancel()

    asyncio.run(leave())
    assert asyncio.run(loop_writer.run(lambda _: "second")) == "second"


def test_a_closed_writer_says_so(writer: Writer) -> None:
    """After the end every coroutine that asks is refused, and none waits for ever."""
    loop_writer = LoopWriter(writer)
    writer.close()

    async def main() -> list[BaseException | None]:
        asked = (loop_writer.run(lambda t: _add(t, "late")) for _ in range(3))
        return await asyncio.gather(*asked, return_exceptions=True)

    assert all(isinstance(answer, Unavailable) for answer in asyncio.run(main()))


def _add(transaction: Transaction, name: str) -> None:
    transaction.add(BulkInsert(singletons), {"name": name, "value": "1"})

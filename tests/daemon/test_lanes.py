"""Threads that are shared fairly: one user's thousand wait for each other, nobody else for them."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator

import pytest

from accredit_client.daemon.lanes import Lane

pytestmark = pytest.mark.anyio

GREEDY, OTHER, THIRD = 1000, 1001, 1002
WAIT = 10.0


@pytest.fixture
def anyio_backend() -> str:
    """The daemon's event loop is asyncio's."""
    return "asyncio"


class Work:
    """What threads do: begun in an order, ended when the test says so."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go = threading.Semaphore(0)

    def named(self, name: str) -> str:
        """One piece of it."""
        self.begun.append(name)
        assert self.go.acquire(timeout=WAIT)
        return name

    async def until_begun(self, number: int) -> None:
        """Wait until so many have begun."""
        async with asyncio.timeout(WAIT):
            while len(self.begun) < number:  # noqa: ASYNC110 (threads tell nobody)
                await asyncio.sleep(0)


@pytest.fixture
async def work() -> AsyncIterator[Work]:
    """Let go of at the end."""
    made = Work()
    yield made
    made.go.release(1000)


async def test_a_users_work_is_one_at_a_time_and_others_are_in_between(work: Work) -> None:
    """However much one user brings: the next of another waits for no more than what runs."""
    lane = Lane(2, of_account=1, name="test")
    tasks = [
        asyncio.create_task(lane.run(GREEDY, lambda n=n: work.named(f"greedy {n}")))  # type: ignore[misc]
        for n in range(50)
    ]
    await work.until_begun(1)
    tasks += [
        asyncio.create_task(lane.run(account, lambda account=account: work.named(str(account))))  # type: ignore[misc]
        for account in (OTHER, THIRD)
    ]
    await work.until_begun(2)
    assert work.begun == ["greedy 0", str(OTHER)]
    work.go.release()
    await work.until_begun(3)
    assert work.begun[2] == str(THIRD)
    work.go.release(100)
    assert len(set(await asyncio.gather(*tasks))) == 52
    assert work.begun[3:] == [f"greedy {n}" for n in range(1, 50)]
    lane.close()


async def test_work_that_nobody_waits_for_keeps_its_turn(work: Work) -> None:
    """Giving up and asking again brings no second thread; who gave up in line is gone from it."""
    lane = Lane(2, of_account=1, name="test")
    for _ in range(5):
        task = asyncio.create_task(lane.run(GREEDY, lambda: work.named("greedy")))
        await work.until_begun(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert work.begun == ["greedy"]
    work.go.release(2)
    assert await lane.run(GREEDY, lambda: "free again") == "free again"
    assert not lane._turns
    lane.close()


async def test_a_refusal_that_nobody_waits_for_is_no_fault_of_ours() -> None:
    """A caller that goes away while it is looked at leaves nothing in the log."""
    lane = Lane(1, of_account=1, name="test")
    faults: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    go = threading.Event()

    def refuses() -> None:
        assert go.wait(WAIT)
        raise PermissionError("no")

    task = asyncio.create_task(lane.run(GREEDY, refuses))
    while not lane._turns:  # noqa: ASYNC110 (nobody tells)
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    del task
    go.set()
    assert await lane.run(OTHER, lambda: 1) == 1  # after it: there is one thread
    gc.collect()
    assert not faults
    lane.close()


async def test_what_work_raises_is_told_and_frees_the_turn() -> None:
    """A refusal ends the turn as an answer does."""
    lane = Lane(1, of_account=1, name="test")

    def refuses() -> None:
        raise PermissionError("no")

    for _ in range(3):
        with pytest.raises(PermissionError):
            await lane.run(GREEDY, refuses)
    assert await lane.run(OTHER, lambda: 1) == 1
    lane.close()

"""The newest of what somebody yields: for readers who may be slower than what they watch.

One value is kept and an older one that nobody fetched is dropped, so that a reader who never reads
holds one state and no queue. ``Each`` drops none: it waits until a value was taken. An exception is
newer than any value: who lost their identity is not first told what it was.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

from accredit_client.daemon.provider import NotYet

S = TypeVar("S")


class Newest(Generic[S]):
    """Reads an iterator to its end in a task of its own; an asynchronous context.

    Args:
        source: what is read.
        arrived: set at each value and at the end; one event can serve several.
    """

    def __init__(self, source: AsyncIterator[S], arrived: asyncio.Event | None = None) -> None:
        self._source = source
        self._values: list[S] = []
        self._failure: Exception | None = None
        self._arrived = arrived or asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def take(self) -> S | None:
        """The newest value that was not taken yet, if there is one.

        Raises:
            NotYet: the source ended.
            Exception: what the source raised.
        """
        if self._failure is not None:
            raise self._failure
        return self._values.pop() if self._values else None

    async def next(self) -> S:
        """The newest value that was not taken yet; waits for one. Raises as ``take``."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            value = self.take()
            if value is not None:
                return value

    async def _room(self) -> None:
        """Wait until the next value may take the place of this one: at once."""

    async def _read(self) -> None:
        try:
            async for value in self._source:
                self._values[:] = [value]
                self._arrived.set()
                await self._room()
            self._failure = NotYet("nothing more is known here: connect again")
        except Exception as error:  # noqa: BLE001 (handed on to the reader)
            self._failure = error
        finally:
            await close(self._source)
        self._arrived.set()


class Each(Newest[S]):
    """Reads all values, one after the other: the next once the last was taken."""

    def __init__(self, source: AsyncIterator[S], arrived: asyncio.Event | None = None) -> None:
        super().__init__(source, arrived)
        self._taken = asyncio.Event()

    def take(self) -> S | None:
        """The value that was not taken yet; raises as ``Newest.take``."""
        value = super().take()
        if value is not None:
            self._taken.set()
        return value

    async def _room(self) -> None:
        await self._taken.wait()
        self._taken.clear()


async def close(source: AsyncIterator[object]) -> None:
    """End an iterator, where it is one that has an end of its own: a generator."""
    ending = getattr(source, "aclose", None)
    if ending is not None:
        await ending()

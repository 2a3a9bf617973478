"""An agent's identity in asyncio: ``AgentIdentity``'s twin, renewed by one task.

Reading files and measuring code happens in a worker thread, never in the event loop.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

from accredit_client import calls
from accredit_client.answers import JwtAnswer, TaskTokenAnswer
from accredit_client.base_identity import REFETCH_TIMEOUT, BaseIdentity, audiences_of
from accredit_client.call import Call
from accredit_client.calls import TaskTokenRequest
from accredit_client.effects import AsyncWaiter, TaskWaiter
from accredit_client.revocations import (
    LEAVING,
    MAX_FOREIGN_FACTS,
    MAX_FOREIGN_LIFE,
    SILENCE,
    AsyncRevocationFeed,
    once_a_bundle,
)
from accredit_client.talk import Blocking, Conversation, Talk
from accredit_credentials.spiffe_id import TrustDomain
from accredit_credentials.x509_svid import X509Identity

if TYPE_CHECKING:
    from concurrent.futures import Future

    from accredit_client.wire import AsyncIssuer

A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class _Other:
    """The feed of another trust domain, and what it holds open."""

    url: str
    feed: AsyncRevocationFeed
    resources: AsyncExitStack


class AsyncAgentIdentity(BaseIdentity):
    """An identity that one asyncio task renews; takes the arguments of ``BaseIdentity``.

    An asynchronous context manager: the task ends with the block.
    """

    feed: AsyncRevocationFeed | None = None
    """The revocation feed that is followed, if it was asked for."""

    _issuers: "dict[bool, AsyncIssuer]"
    _others: "dict[TrustDomain, _Other]"
    _task: asyncio.Task[None] | None = None
    _resources: AsyncExitStack

    async def start(self, *, waiter: AsyncWaiter | None = None) -> Self:
        """Obtain the first SVID and begin to renew; raises as ``AgentIdentity.start``."""
        self._check_open()
        if self._task is not None:
            return self
        self._process = os.getpid()
        self._waiter = waiter or TaskWaiter()
        self._changed = asyncio.Condition()
        self._issuers = {}
        self._others = {}
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._hang_up)
            undo.push_async_callback(asyncio.to_thread, self._keeper.close)
            self._keeper.open(self._waking())
            undo.push_async_callback(self._leave_others)
            await self._begin()
            await self._follow_others()
            if self._revocations and self._keeper.has_issuer:
                self.feed = await undo.enter_async_context(await self._follow(undo))
                self._facts = self.feed.state
            self._task = asyncio.create_task(self._run(), name="accredit-identity")
            self._resources = undo.pop_all()
        return self

    async def aclose(self) -> None:
        """Stop renewing and await the task's end."""
        if self._closing:
            return
        self._closing = True
        if self._task is None:
            return
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._resources.aclose()

    async def wait_until_renewed(
        self,
        timeout: float,  # noqa: ASYNC109 (as in the threaded twin)
        *,
        after: X509Identity | None = None,
    ) -> X509Identity:
        """Wait until another identity is held than ``after``, or than now.

        Raises:
            NotReady: there was none in time.
        """
        old = self.x509 if after is None else after
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: self._is_after(old))
        return self._renewed(old, timeout)

    async def refetch_bundle(self, timeout: float = REFETCH_TIMEOUT) -> bool:  # noqa: ASYNC109 (as in the threaded twin)
        """Fetch the bundle, where a key is missing in it; as ``AgentIdentity.refetch_bundle``."""
        self._check_open()
        before, looks = self._keeper.trusted(), self._keeper.looks
        if not self._ask_for_bundle(None):
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: self._keeper.looks != looks)
        return self._keeper.trusted() is not before

    async def fetch_jwt_svid(self, audience: str | Sequence[str]) -> JwtAnswer:
        """A JWT-SVID, for where mTLS cannot reach; raises as ``AgentIdentity.fetch_jwt_svid``."""
        if self._daemon is not None:
            asked = partial(self._daemon.jwt_svid, audiences_of(audience))
            return await self._from_daemon(asked)
        return await self._call(calls.jwt_svid(audience=audiences_of(audience)))

    async def task_token(self, request: TaskTokenRequest) -> TaskTokenAnswer:
        """A task token; raises as ``fetch_jwt_svid``."""
        if self._daemon is not None:
            return await self._from_daemon(partial(self._daemon.task_token, request))
        return await self._call(calls.task_token(request))

    async def fetch_crls(self) -> tuple[bytes, ...]:
        """The CRLs (DER) of issuing CAs and of own roots; raises as ``fetch_jwt_svid``."""
        return await self._call(calls.crls())

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _waking(self) -> Callable[[], None]:
        """Wakes the task from any thread; nobody, once its loop is gone."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._waiter.wake)

        return wake

    async def _from_daemon(self, asked: "Callable[[], Future[A]]") -> A:
        self._check_open()
        self._keeper.held()
        return await asyncio.wrap_future(asked())

    async def _call(self, call: Call[A]) -> A:
        self._check_open()
        self._keeper.held()
        return await self._dial(public=call.public).send(call)

    def _ask_for_bundle(self, sequence: int | None) -> bool:
        asked = self._keeper.ask_for_bundle(sequence)
        if asked:
            self._waiter.wake()
        return asked

    def _dial(self, *, public: bool = False) -> "AsyncIssuer":
        from accredit_client.wire import AsyncIssuer  # noqa: PLC0415 (httpx2 is slow to import)

        if public not in self._issuers:
            contexts = self._public_contexts if public else self._issuer_contexts
            self._issuers[public] = AsyncIssuer(self._keeper.issuer_url, contexts)
        return self._issuers[public]

    async def _hang_up(self) -> None:
        while self._issuers:
            await self._issuers.popitem()[1].aclose()

    async def _follow(self, undo: AsyncExitStack) -> AsyncRevocationFeed:
        from accredit_client.wire import AsyncIssuer, Timeouts  # noqa: PLC0415 (as above)

        url, timeouts = self._keeper.issuer_url, Timeouts(read=SILENCE)
        issuer = AsyncIssuer(url, self._public_contexts, timeouts=timeouts)
        await undo.enter_async_context(issuer)
        confirm_at = AsyncIssuer(url, self._confirming_contexts)
        return AsyncRevocationFeed(
            issuer,
            self._keeper.trusted,
            clock=self._keeper.clock,
            draw=self._draw,
            ask=self._ask_for_bundle,
            confirm_at=await undo.enter_async_context(confirm_at),
        )

    async def _follow_others(self) -> None:
        """Follow the feeds of federated trust domains, as the bundle map says now."""
        federation = self.federation
        if federation is None:
            return
        wanted = federation.feeds_wanted()
        gone = {name for name, one in self._others.items() if one.url != wanted.get(name)}
        await self._leave_others(gone)
        for name in wanted.keys() - self._others.keys():
            with self._logged(name):
                self._others[name] = await self._follow_other(name, wanted[name])
        federation.followed({name: (one.url, one.feed) for name, one in self._others.items()})

    async def _follow_other(self, trust_domain: TrustDomain, url: str) -> "_Other":
        from accredit_client.wire import AsyncIssuer, Timeouts  # noqa: PLC0415 (as above)

        async with AsyncExitStack() as undo:
            contexts, timeouts = self._foreign_contexts(trust_domain), Timeouts(read=SILENCE)
            issuer = await undo.enter_async_context(AsyncIssuer(url, contexts, timeouts=timeouts))
            feed = AsyncRevocationFeed(
                issuer,
                self._foreign_bundle(trust_domain),
                clock=self._keeper.clock,
                draw=self._draw,
                ask=once_a_bundle(lambda: self._ask_for_bundle(None)),
                max_facts=MAX_FOREIGN_FACTS,
                max_life=MAX_FOREIGN_LIFE,
            )
            await undo.enter_async_context(feed)
            return _Other(url, feed, undo.pop_all())

    async def _leave_others(self, names: "set[TrustDomain] | None" = None) -> None:
        """End feeds of others, which must not keep the renewals waiting whatever they do."""
        left = [self._others.pop(name) for name in (set(self._others) if names is None else names)]
        await asyncio.gather(*map(_leave, left))

    async def _begin(self) -> None:
        started = self._keeper.clock()
        while True:
            try:
                await self._converse(self._keeper.begin())
            except Exception as error:  # noqa: BLE001 (raised there, unless waiting may help)
                await self._waiter.wait(self._begin_failed(error, started))
            else:
                return

    async def _run(self) -> None:
        while True:
            now = self._keeper.clock()
            pause = self._keeper.pause(now)
            if pause > 0:
                await self._waiter.wait(pause)
                continue
            before = self._keeper.renewals
            try:
                await self._converse(self._keeper.step(now))
                await self._follow_others()
                self._tell(before)
            except Exception as error:  # noqa: BLE001 (a dead task would be noticed too late)
                self._failed(error)
            async with self._changed:
                self._changed.notify_all()

    async def _converse(self, talk: Talk) -> None:
        conversation = Conversation(talk)
        while (wanted := conversation.wanted) is not None:
            try:
                if isinstance(wanted, Blocking):
                    result = await asyncio.to_thread(wanted.run)
                else:
                    result = await self._dial(public=wanted.public).send(wanted)
            except Exception as error:  # noqa: BLE001 (the talk decides what it means)
                conversation.failed(error)
            else:
                conversation.answered(result)


async def _leave(other: _Other) -> None:
    # A task that is still there would read from what is closed below: it ends alone.
    if await other.feed.aclose(LEAVING):
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVING):
                await other.resources.aclose()

"""Tokens for workloads, asked of the issuer with the workload's own SVID.

Bearing the instance's SVID, the daemon asks what an agent asks (``/v1/svids/jwt``,
``/v1/svids/wit``, ``/v1/task-tokens``): nothing more may be had through it. JWT-SVIDs are kept for
each instance and audience and asked for anew from half of their life on; however many want the same
one, it is asked for once. A later one that cannot be had is none's loss while the earlier one is
good.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from accredit_client import calls
from accredit_client.answers import TaskTokenAnswer, WitAnswer
from accredit_client.call import Call
from accredit_client.calls import TaskTokenRequest
from accredit_client.daemon.provider import NotYet
from accredit_client.effects import Clock
from accredit_client.errors import ClientError, IssuerRefused
from accredit_client.tls import Latest, View
from accredit_client.wire import AsyncIssuer, issuer_context
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.revocation_feed import FeedState
from accredit_credentials.tls import PeerCheck
from accredit_credentials.x509_svid import X509Identity, X509Svid

A = TypeVar("A")

MAX_TOKENS = 4096  # of all instances together; about 2 KB each
MAX_LINES = 64  # connections to the issuer, each as one instance

_Key = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Kept:
    token: str = field(repr=False)
    renew_at: datetime
    expires_at: datetime


class _Line:
    """The issuer, asked as one instance whose SVID changes."""

    def __init__(
        self,
        url: str,
        bundle: Callable[[], TrustBundle],
        also: PeerCheck,
        identity: X509Identity,
    ) -> None:
        self.identity = identity
        self.users = 0
        contexts = Latest(
            lambda view: issuer_context(view.bundle, view.identity, also=also),
            lambda: View(bundle(), self.identity),
        )
        self.issuer = AsyncIssuer(url, contexts)


class Tokens:
    """The tokens of all instances of a daemon.

    Args:
        url: gives the issuer's address.
        bundle: gives the bundle of the moment.
        facts: gives what is known of revocation, which is asked about the issuer, too.
        clock: the time.
    """

    def __init__(
        self,
        url: str,
        bundle: Callable[[], TrustBundle],
        facts: Callable[[], FeedState | None],
        *,
        clock: Clock,
    ) -> None:
        self._url = url
        self._bundle = bundle
        self._facts = facts
        self._clock = clock
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._asked: dict[_Key, asyncio.Task[_Kept]] = {}
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    async def jwt(self, identity: X509Identity, audience: tuple[str, ...]) -> str:
        """A JWT-SVID of an instance.

        Raises:
            NotYet: the issuer is away, and none is kept that is good.
            IssuerRefused: the issuer says no.
        """
        key, now = (_instance(identity), audience), self._clock()
        kept = self._kept.get(key)
        if kept is not None and now < kept.renew_at:
            self._kept.move_to_end(key)
            return kept.token
        try:
            return (await self._once(key, identity)).token
        except ClientError as error:
            for_good = isinstance(error, IssuerRefused) and not error.for_now
            if kept is not None and now < kept.expires_at and not for_good:
                return kept.token
            if for_good:
                raise
            raise NotYet(f"no JWT-SVID: {error}") from None

    async def task(self, identity: X509Identity, request: TaskTokenRequest) -> TaskTokenAnswer:
        """A task token for an instance; raises as ``jwt``."""
        try:
            return await self._send(identity, calls.task_token(request))
        except IssuerRefused:
            raise
        except ClientError as error:
            raise NotYet(f"no task token: {error}") from None

    async def wit(self, identity: X509Identity, csr: str) -> WitAnswer:
        """A WIT-SVID of an instance, as the issuer answers: ``wits`` decides what it is worth.

        Raises:
            ClientError: it does not.
        """
        return await self._send(identity, calls.wit_svid(csr=csr))

    def forget_all(self) -> None:
        """Ask for each token anew: the keys that signed them may be gone."""
        self._kept.clear()

    async def close(self) -> None:
        """Close every connection."""
        for task in self._asked.values():
            task.cancel()
        while self._lines:
            _, line = self._lines.popitem()
            await line.issuer.aclose()
        await asyncio.gather(*self._closing, *self._asked.values(), return_exceptions=True)

    async def _once(self, key: _Key, identity: X509Identity) -> _Kept:
        task = self._asked.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._fetched(key, identity))
            self._asked[key] = task
            task.add_done_callback(lambda done: self._over(key, done))
        # Whoever gives up does not give up for the others.
        return await asyncio.shield(task)

    def _over(self, key: _Key, done: "asyncio.Task[_Kept]") -> None:
        del self._asked[key]
        with suppress(asyncio.CancelledError):
            done.exception()  # looked at, even where nobody waits any more

    async def _fetched(self, key: _Key, identity: X509Identity) -> _Kept:
        asked_at = self._clock()
        answer = await self._send(identity, calls.jwt_svid(audience=list(key[1])))
        half = asked_at + (answer.expires_at - asked_at) / 2
        kept = _Kept(answer.token, half, answer.expires_at)
        self._kept[key] = kept
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_TOKENS:
            self._kept.popitem(last=False)
        return kept

    async def _send(self, identity: X509Identity, call: Call[A]) -> A:
        line = self._line(identity)
        line.users += 1
        try:
            return await line.issuer.send(call)
        finally:
            line.users -= 1

    def _check_issuer(self, svid: X509Svid) -> None:
        facts = self._facts()
        if facts is not None:
            facts.check_known(svid.marks())

    def _line(self, identity: X509Identity) -> _Line:
        instance = _instance(identity)
        line = self._lines.get(instance)
        if line is None:
            line = self._lines[instance] = _Line(
                self._url, self._bundle, self._check_issuer, identity
            )
        line.identity = identity
        self._lines.move_to_end(instance)
        idle = [name for name, each in self._lines.items() if not each.users and each is not line]
        for name in idle[: max(0, len(self._lines) - MAX_LINES)]:
            closing = asyncio.get_running_loop().create_task(self._lines.pop(name).issuer.aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        return line


def _instance(identity: X509Identity) -> str:
    return identity.svid.instance or identity.svid.serial

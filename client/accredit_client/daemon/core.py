"""The daemon's core: what the socket asks, answered from what the node and its instances hold.

Who asks is a workload (``instances``); its state is its SVIDs with the bundles and CRLs of the
moment, and is pushed whenever one of them is another. A fact of revocation takes effect with the
statement that brings it: everybody is looked at anew, and who is meant loses streams and tokens.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Protocol, TypeVar

from accredit_client import calls, renewal
from accredit_client.answers import TaskTokenAnswer
from accredit_client.calls import TaskTokenRequest
from accredit_client.daemon.callers import Caller as PinnedCaller
from accredit_client.daemon.certifying import Issuing
from accredit_client.daemon.provider import (
    Caller,
    NotYet,
    Refused,
    RevocationNotice,
    WorkloadState,
    WorkloadSvid,
    WorkloadWit,
)
from accredit_client.daemon.tokens import Tokens
from accredit_client.daemon.wits import HeldWit, Wits
from accredit_client.daemon.workloads import Workload, Workloads
from accredit_client.effects import AsyncWaiter, Clock, Draw, TaskWaiter
from accredit_client.errors import CallerRefused, ClientError, IssuerRefused, NotReady
from accredit_client.federation import Federation
from accredit_client.revocations import MAX_STALENESS
from accredit_credentials import jws, jwt_svid
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import Stale, Untrusted
from accredit_credentials.jwt_svid import JwtSvid
from accredit_credentials.revocation import FactKind, RevocationFact, TargetKind
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain

log = logging.getLogger(__name__)

A = TypeVar("A")

CRL_REFRESH = 300.0  # seconds between two looks at the CRLs where no fact came
CRL_PAUSE = 1.0  # seconds at least between two looks, however many facts come
MAX_NOTICES = 1000  # that wait for one reader; a slower one begins anew


class Node(Issuing, Protocol):
    """What the core needs of its node: ``AsyncNodeIdentity``."""

    @property
    def federated_bundles(self) -> Mapping[TrustDomain, TrustBundle]:
        """The bundles of other trust domains."""

    @property
    def federation(self) -> Federation | None:
        """What is known of other trust domains."""


class Core:
    """Knows the answers: the ``Provider`` of the socket.

    Args:
        node: who this host is.
        workloads: the processes with an identity.
        tokens: what is asked with theirs.
        wits: their WIT-SVIDs.
        clock: the time.
        draw: for the jitter.
        crls: whether CRLs are handed out.
        waiter: how the CRLs' task waits.
    """

    def __init__(
        self,
        node: Node,
        workloads: Workloads,
        tokens: Tokens,
        wits: Wits,
        *,
        clock: Clock,
        draw: Draw,
        crls: bool = True,
        waiter: AsyncWaiter | None = None,
    ) -> None:
        self._node = node
        self._workloads = workloads
        self._tokens = tokens
        self._wits = wits
        self._clock = clock
        self._draw = draw
        self._wants_crls = crls
        self._waiter = waiter or TaskWaiter()
        self._crls: tuple[bytes, ...] = ()
        self._task: asyncio.Task[None] | None = None
        self._bundle: TrustBundle | None = None
        self._federated: Mapping[TrustDomain, TrustBundle] | None = None
        self._readers: set[asyncio.Queue[RevocationNotice | None]] = set()

    def start(self) -> None:
        """Begin to look after the CRLs; once the node has an identity."""
        if self._wants_crls and self._task is None:
            self._task = asyncio.get_running_loop().create_task(
                self._follow_crls(), name="accredit-crls"
            )

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # Told by the node

    def stepped(self) -> None:
        """SVID, bundle or bundle map of the node may be others."""
        bundle, federated = self._node.bundle, self._node.federated_bundles
        if bundle is not self._bundle:
            self._bundle = bundle
            self._tokens.forget_all()  # a key that signed some may have been removed
            self._wits.bundle_changed()
            self._workloads.bundle_changed(bundle)
            self._waiter.wake()  # an issuing CA may have been added
        elif federated is self._federated:
            return
        self._federated = federated
        self._workloads.tell()

    def facts_came(self, news: tuple[RevocationFact, ...]) -> None:
        """Facts came into force."""
        if not news:
            return
        for fact in news:
            if fact.kind is FactKind.RESTORED and fact.target.kind is TargetKind.INSTANCE:
                self._workloads.restored(fact.target.value)
        facts = self._node.facts
        notice = RevocationNotice(sequence=facts.through if facts else 0, facts=news)
        for queue in tuple(self._readers):
            if queue.qsize() >= MAX_NOTICES:
                self._readers.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(notice)
        self._waiter.wake()
        targets = frozenset(str(fact.target) for fact in news)
        self._workloads.tell_about(targets)
        if self._wits.taken_back(targets):
            self._workloads.tell()

    # The provider

    async def watch(self, caller: Caller) -> AsyncIterator[WorkloadState]:
        """The caller's state at once, then at each change."""
        workload = await self._workload(caller)
        with workload.listening() as changed:
            while True:
                yield self._state(workload)
                await changed.wait()
                changed.clear()

    async def jwt_svids(
        self, caller: Caller, audience: tuple[str, ...], spiffe_id: SpiffeId | None
    ) -> tuple[tuple[SpiffeId, str, str], ...]:
        """JWT-SVIDs of one identity of the caller, or of each."""
        workload = await self._workload(caller)
        found = []
        for each in self._named(workload, spiffe_id):
            token = await self._tokens.jwt(each.identity, audience)
            found.append((each.identity.svid.spiffe_id, token, each.hint))
        # What happened while the issuer was asked counts, too.
        still = {each.identity.svid.spiffe_id for each in workload.svids(self._clock())}
        return tuple(each for each in found if each[0] in still)

    async def watch_wits(
        self, caller: Caller, spiffe_id: SpiffeId | None
    ) -> AsyncIterator[tuple[WorkloadWit, ...]]:
        """The caller's WIT-SVIDs at once, then with each that is another."""
        workload = await self._workload(caller)
        with workload.listening() as changed:
            while True:
                asked = self._named(workload, spiffe_id)
                yield await self._held_wits(workload, asked)
                pause = self._wits.next_change(workload, [each.identity for each in asked])
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await changed.wait()
                changed.clear()

    async def validate_jwt(
        self, caller: Caller, audience: str, token: str
    ) -> tuple[SpiffeId, Mapping[str, object]]:
        """Whose token it is, and its claims."""
        workload = await self._workload(caller)
        workload.svids(self._clock())
        now, own = self._clock(), self._node.bundle
        bundles = {own.trust_domain: own, **self._node.federated_bundles}
        svid = jwt_svid.validate(token, bundles=bundles, audience=audience, now=now)
        try:
            self._check_facts(svid)
        except Stale as error:
            raise NotYet(str(error)) from None
        return svid.spiffe_id, jws.parse(token, types=jwt_svid.TYPES).claims

    async def task_token(
        self, caller: Caller, request: TaskTokenRequest, spiffe_id: SpiffeId | None
    ) -> TaskTokenAnswer:
        """A task token for one identity of the caller."""
        workload = await self._workload(caller)
        identity = self._named(workload, spiffe_id)[0].identity
        return await self._tokens.task(identity, request)

    async def revocations(self, caller: Caller) -> AsyncIterator[RevocationNotice]:
        """What was taken back: who is meant hears it, too."""
        workload = await self._workload(caller)
        queue: asyncio.Queue[RevocationNotice | None] = asyncio.Queue()
        self._readers.add(queue)
        try:
            facts = self._node.facts
            if facts is None:
                raise NotYet("nothing is known of revocation yet")
            yield RevocationNotice(sequence=facts.through, facts=facts.about(workload.marks()))
            while True:
                notice = await queue.get()
                if notice is None:
                    raise NotYet(f"more than {MAX_NOTICES} notices were not read: connect again")
                yield notice
        finally:
            self._readers.discard(queue)

    async def _workload(self, caller: Caller) -> Workload:
        if not isinstance(caller, PinnedCaller):
            raise Refused("the caller is not a process that the daemon has pinned")
        try:
            self._node.bundle  # noqa: B018 (raises where there is none)
        except NotReady:
            raise NotYet("this node has not reached its issuer yet") from None
        try:
            return await self._workloads.of(caller)
        except CallerRefused as error:
            raise Refused(str(error)) from None

    def _named(self, workload: Workload, spiffe_id: SpiffeId | None) -> tuple[WorkloadSvid, ...]:
        held = workload.svids(self._clock())
        if spiffe_id is None:
            return held
        found = tuple(each for each in held if each.identity.svid.spiffe_id == spiffe_id)
        if not found:
            raise Refused(f"the caller is not {spiffe_id}")
        return found

    async def _held_wits(
        self, workload: Workload, asked: tuple[WorkloadSvid, ...]
    ) -> tuple[WorkloadWit, ...]:
        found: list[tuple[WorkloadSvid, HeldWit]] = []
        problems: list[Exception] = []
        for each in asked:
            try:
                found.append((each, await self._wits.of(workload, each.identity)))
            except (Refused, NotYet) as problem:
                problems.append(problem)
        # What happened while the issuer was asked counts, too.
        still = {each.identity.svid.instance for each in workload.svids(self._clock())}
        usable = tuple(
            WorkloadWit(spiffe_id=wit.svid.spiffe_id, token=wit.token, key=wit.key, hint=each.hint)
            for each, wit in found
            if each.identity.svid.instance in still
        )
        if not usable:
            raise next(iter(problems), NotYet("the SVID is another by now: ask again"))
        return usable

    def _state(self, workload: Workload) -> WorkloadState:
        return WorkloadState(
            svids=workload.svids(self._clock()),
            bundle=self._node.bundle,
            federated=self._node.federated_bundles,
            crls=self._crls,
        )

    def _check_facts(self, svid: JwtSvid) -> None:
        """Whether the token's own trust domain has taken it back.

        Raises:
            Revoked, Stale, Untrusted: it has, or nobody knows.
        """
        domain, now = svid.spiffe_id.trust_domain, self._clock()
        if domain == self._node.bundle.trust_domain:
            if self._node.facts is None:
                raise Stale("nothing is known of revocation yet")
            self._node.facts.check(svid.marks(), now=now, max_age=MAX_STALENESS)
            return
        federation = self._node.federation
        if federation is None:
            raise Untrusted(f"no authorities known for {domain}")
        known = federation.domain(domain, now)
        federation.check_facts(known, svid.marks(), now=now, max_age=MAX_STALENESS)

    # CRLs

    async def _follow_crls(self) -> None:
        failures = 0
        while True:
            try:
                crls = await self._node.send(calls.crls())
            except (ClientError, OSError) as error:
                if isinstance(error, IssuerRefused) and error.kind == "not-found":
                    log.warning("this issuer lists no CRLs: none are handed out")
                    return
                failures += 1
                log.warning("CRLs could not be had: %s", error)
                await self._waiter.wait(renewal.pause_after(failures, draw=self._draw))
            else:
                failures = 0
                if crls != self._crls:
                    self._crls = crls
                    self._workloads.tell()
                fetched = self._clock()
                await self._waiter.wait(CRL_REFRESH)
                # Facts may come one after the other, and each changes what every stream says.
                while 0 <= (self._clock() - fetched).total_seconds() < CRL_PAUSE:
                    await self._waiter.wait(CRL_PAUSE)

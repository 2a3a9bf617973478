"""Instances: one for each process and each entry of the settings that means it.

How one comes to be and lives on, in this order each time: the caller is the same process → it still
has the entry's selectors → its tree is measured and has the signed digest → the issuer certifies a
new key (``/v1/nodes/instances``) → the caller is the same process still → held, in memory only. The
same again at half life, give or take a tenth.

Other code than was signed ends an instance for as long as its process lives: it may have loaded
what was there meanwhile. The issuer is told until it has heard. A refusal, the issuer's or ours,
withdraws too, and is looked at anew when somebody asks, not before a pause. An issuer that is away
changes nothing until an SVID is over. What facts of revocation say is asked at each answer: who is
suspended and restored is served again.

``judged`` decides about a measure and is pure. ``Workload`` is one process; ``Workloads`` all of
them, and how many there may be.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeVar

from accredit_attestors.errors import InvalidTree
from accredit_attestors.tree import Selection
from accredit_client import calls, renewal
from accredit_client.answers import InstanceState, X509Answer
from accredit_client.call import Call
from accredit_client.calls import InstanceRequest, certificate_request
from accredit_client.daemon.agents import AgentEntry, entries_for
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.provider import NotYet, Refused, WorkloadSvid
from accredit_client.daemon.selectors import matches
from accredit_client.daemon.settings import InstanceLimits
from accredit_client.effects import AsyncWaiter, Clock, Draw, TaskWaiter
from accredit_client.errors import (
    CallerChanged,
    CallerGone,
    CallerRefused,
    ClientError,
    InvalidAnswer,
    IssuerRefused,
    Writable,
)
from accredit_client.renewal import Life
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import CredentialError, Revoked, Stale, Untrusted
from accredit_credentials.keys import generate_key
from accredit_credentials.revocation_feed import FeedState
from accredit_credentials.x509_svid import X509Identity, X509Svid, validate

log = logging.getLogger(__name__)

A = TypeVar("A")

LONGEST_WAIT = 30.0  # seconds: a suspended machine's timers stand still while SVIDs expire
LOOKS = 4  # threads that look at who calls
MAX_SAID_SELECTORS = 64  # of a process, that the issuer is told
MAX_REASON = 300  # characters that the issuer is told of a change
ANY_AGE = float("inf")
REVOKED = "revoked"  # the problem of who was taken back


class Issuing(Protocol):
    """What an instance needs of its node: ``AsyncNodeIdentity``."""

    @property
    def bundle(self) -> TrustBundle:
        """The trust bundle; raises where there is none yet."""

    @property
    def facts(self) -> FeedState | None:
        """What is known of revocation."""

    async def send(self, call: Call[A]) -> A:
        """Ask the issuer as the node."""

    async def refetch_bundle(self) -> bool:
        """Fetch the bundle, where an authority is missing in it."""


class Measuring(Protocol):
    """What measures: ``CodeMeasurer``."""

    def measure(self, caller: Caller, code_root: str, selection: Selection) -> str:
        """The digest of a tree as the caller sees it; blocks."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found where an entry's code is."""

    selectors: frozenset[str]
    digest: str | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows of a measure: nothing, a refusal, or a change that the issuer must hear of."""

    refused: str | None = None
    changed: bool = False


def judged(entry: AgentEntry, found: Measured, *, born: bool) -> Verdict:
    """Decide whether a process may have, or keep, an instance of an entry.

    Args:
        entry: what the settings and the manifest say.
        found: what was seen of it just now.
        born: whether it has an instance already: other code then is a *change*.
    """
    if not matches(entry.selectors, found.selectors):
        return Verdict(f"the process does not have the selectors of {entry.agent}")
    if found.digest is None:
        return Verdict(found.problem or "the code cannot be measured", changed=born)
    if not entry.measured_as_signed(found.digest):
        return Verdict(f"the code is not what was signed for {entry.agent}", changed=born)
    return Verdict()


@dataclass(slots=True)
class Instance:
    """One identity of one process, as it stands now.

    Attributes:
        entry: what it is of.
        id: as the issuer names it; None before its birth.
        identity: its SVID and key.
        life: when the SVID is renewed, and over.
        ended: why it is over for as long as the process lives.
        refused: why it is withdrawn; looked at anew when somebody asks, from ``try_at`` on.
        wanted: somebody has asked anew.
        failures: tries in a row that brought nothing.
        try_at: before this nothing is tried.
    """

    entry: AgentEntry
    id: str | None = None
    identity: X509Identity | None = field(default=None, repr=False)
    life: Life | None = None
    ended: str | None = None
    refused: str | None = None
    wanted: bool = False
    failures: int = 0
    try_at: datetime | None = None

    def due(self, now: datetime) -> datetime | None:
        """When it is to be obtained or renewed by itself; None: not at all."""
        if self.ended is not None or (self.refused is not None and not self.wanted):
            return None
        planned = now if self.life is None or self.wanted else self.life.renew_at
        return planned if self.try_at is None else max(planned, self.try_at)

    def next_change(self, now: datetime) -> datetime | None:
        """When something is due, or the SVID over."""
        moments = [self.due(now)]
        if self.life is not None and not self.life.expired(now):
            # The first moment at which it is over: ``expired`` counts the last one in.
            moments.append(renewal.later(self.life.not_after, 0.001))
        return min((each for each in moments if each is not None), default=None)

    def usable(self, now: datetime, facts: FeedState | None) -> X509Identity:
        """The SVID, if it may be used.

        Raises:
            Refused: it was withdrawn, or a fact stands against it.
            NotYet: there is none yet, or it is over and the issuer away.
        """
        if self.ended is not None or self.refused is not None:
            raise Refused(str(self.ended or self.refused))
        if self.identity is None or self.life is None:
            raise NotYet("the issuer has not answered yet")
        if facts is not None:
            try:
                facts.check(self.identity.svid.marks(), now=now, max_age=ANY_AGE)
            except Revoked as error:
                raise Refused(str(error)) from None
            except Stale:
                pass  # nothing is known yet: the issuer has just certified it
        if self.life.expired(now):
            raise NotYet("the SVID is over, and the issuer has not answered")
        return self.identity

    def takes(self, identity: X509Identity, life: Life) -> None:
        """Hold a new SVID."""
        self.id, self.identity, self.life = identity.svid.instance, identity, life
        self.refused, self.wanted, self.try_at, self.failures = None, False, None, 0

    def is_refused(self, why: str, again: datetime, *, same: bool = True) -> None:
        """Withdraw it; it may be asked for anew from ``again`` on.

        Who was revoked stays the same instance: asking again brings no other one.

        Args:
            why: told to who asks.
            again: the earliest moment of the next try.
            same: whether the next try is for the same instance, if it was born.
        """
        self.refused, self.wanted, self.try_at = why, False, again
        self.failures += 1
        if not same:
            self.id = None

    def is_over(self, why: str) -> None:
        """Withdraw it for as long as the process lives."""
        self.ended, self.wanted = why, False

    def restored(self, now: datetime) -> None:
        """An admin has looked at what ended it: it may be measured again when somebody asks."""
        if self.ended is not None:
            self.refused, self.ended, self.try_at = self.ended, None, now

    def failed(self, again: datetime) -> None:
        """Take note that a try brought nothing: what is held stays."""
        self.wanted, self.try_at = False, again
        self.failures += 1


class _Over(Exception):
    """The process is not there any more, or not the same."""


class Workload:
    """One process with its identities. Made by ``Workloads``."""

    def __init__(
        self, caller: Caller, entries: Sequence[AgentEntry], all_of_them: "Workloads"
    ) -> None:
        self.caller = caller
        self.instances = tuple(Instance(each) for each in entries)
        self.gone: str | None = None
        self.tried = asyncio.Event()
        """Set once each identity was asked for; cleared when somebody asks anew."""
        self._all = all_of_them
        self._waiter: AsyncWaiter = all_of_them.waiter()
        self._listeners: set[asyncio.Event] = set()
        self.task = asyncio.create_task(self._keep(), name=f"accredit-workload-{caller.pid}")

    def svids(self, now: datetime) -> tuple[WorkloadSvid, ...]:
        """The identities that may be used now, in the order of the settings.

        Raises:
            Refused: there is none, and will not be by waiting.
            NotYet: there is none yet, or not at the moment.
        """
        if self.gone is not None:
            raise Refused(self.gone)
        found, problems = [], []
        for each in self.instances:
            try:
                identity = each.usable(now, self._all.facts)
            except (Refused, NotYet) as problem:
                problems.append(problem)
            else:
                found.append(WorkloadSvid(identity=identity, hint=each.entry.hint))
        if not found:
            raise next((each for each in problems if isinstance(each, NotYet)), problems[0])
        return tuple(found)

    def marks(self) -> frozenset[str]:
        """What facts can match, of all identities that it has."""
        held = [each.identity for each in self.instances if each.identity is not None]
        return frozenset(mark for each in held for mark in each.svid.marks())

    def ask_anew(self, now: datetime) -> None:
        """Somebody wants what was refused before: look again, where the pause is over."""
        for each in self.instances:
            over = each.try_at is None or now >= each.try_at
            if each.refused is not None and each.ended is None and over:
                each.wanted = True
                self.tried.clear()
        if not self.tried.is_set():
            self._waiter.wake()

    def hurry(self, entry: AgentEntry) -> None:
        """Measure what is of this entry now: elsewhere its code was found changed."""
        for each in self.instances:
            if each.entry == entry and each.life is not None:
                life = each.life
                each.life = Life(life.not_before, life.not_after, life.not_before)
                self._waiter.wake()

    @contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """An event that is set whenever something changed, or may have."""
        event = asyncio.Event()
        self._listeners.add(event)
        try:
            yield event
        finally:
            self._listeners.discard(event)

    def tell(self) -> None:
        """Wake who listens."""
        for event in self._listeners:
            event.set()

    def end(self, why: str) -> None:
        """It is over: nothing is asked for any more, and nothing served."""
        self.gone = why
        self.task.cancel()
        self.tried.set()
        self.tell()
        self.caller.close()

    async def _keep(self) -> None:
        """Obtain and renew; one try at a time, each with its pause."""
        try:
            while True:
                now = self._all.clock()
                ready = [each for each in self.instances if _is_due(each, now)]
                for each in ready:
                    await self._obtain(each)
                if not self.tried.is_set():
                    self.tried.set()
                self.tell()
                await self._waiter.wait(self._pause())
        except _Over as over:
            self._all.forget(self, str(over))

    def _pause(self) -> float:
        now = self._all.clock()
        moments = [each.next_change(now) for each in self.instances]
        nearest = min((each for each in moments if each is not None), default=None)
        if nearest is None:
            return LONGEST_WAIT
        return min(renewal.seconds_until(nearest, now), LONGEST_WAIT)

    async def _obtain(self, instance: Instance) -> None:
        """One try. Whatever happens, the next one has its time.

        Raises:
            _Over: the process is gone, or another one.
        """
        try:
            await self._tried(instance)
        except _Over:
            raise
        except IssuerRefused as refused:
            if refused.for_now or refused.kind == "unauthenticated":
                self._failed(instance, refused)
            else:
                # Of another refusal the instance may be the cause: a node that was listed anew.
                self._refused(instance, str(refused), same=refused.kind == REVOKED)
        except (ClientError, CredentialError, OSError) as error:
            self._failed(instance, error)
        except Exception as error:
            log.exception("an identity of process %d could not be had", self.caller.pid)
            self._failed(instance, error)

    async def _tried(self, instance: Instance) -> None:
        entry = instance.entry
        found = await self._looked(entry)
        verdict = judged(entry, found, born=instance.id is not None)
        if verdict.refused is not None:
            if verdict.changed:
                self._changed(instance, verdict.refused, found.digest)
            else:
                self._refused(instance, verdict.refused)
            return
        identity = await self._all.certified(instance, found)
        try:
            self.caller.check()
        except CallerRefused as error:
            raise _Over(str(error)) from None
        now = self._all.clock()
        svid, born = identity.svid, instance.id is None
        life = renewal.life_of(svid.not_before, svid.not_after, now=now, draw=self._all.draw)
        instance.takes(identity, life)
        log.info(
            "process %d %s %s, instance %s, until %s",
            self.caller.pid,
            "is" if born else "stays",
            svid.spiffe_id,
            svid.instance,
            f"{svid.not_after:%Y-%m-%dT%H:%M:%SZ}",
        )

    async def _looked(self, entry: AgentEntry) -> Measured:
        try:
            return await self._all.measured(self.caller, entry)
        except CallerGone:
            raise _Over("the process has ended") from None
        except CallerChanged as error:
            raise _Over(str(error)) from None
        except CallerRefused as error:
            # Whoever it is cannot be told: nothing is renewed for nobody.
            raise ClientError(str(error)) from error

    def _changed(self, instance: Instance, why: str, digest: str | None) -> None:
        log.error("process %d runs other code than was signed: %s", self.caller.pid, why)
        if instance.id is not None:
            self._all.report(instance.id, why, digest)
        instance.is_over(why)
        self._all.code_changed(instance.entry, by=self)

    def _refused(self, instance: Instance, why: str, *, same: bool = True) -> None:
        log.warning("process %d is not %s: %s", self.caller.pid, instance.entry.agent, why)
        instance.is_refused(why, self._again(instance), same=same)

    def _failed(self, instance: Instance, error: Exception) -> None:
        asked = error.retry_after if isinstance(error, IssuerRefused) else None
        instance.failed(self._again(instance, asked))
        log.warning(
            "process %d waits for its SVID of %s: %s",
            self.caller.pid,
            instance.entry.agent,
            error,
        )

    def _again(self, instance: Instance, asked: float | None = None) -> datetime:
        pause = renewal.pause_after(instance.failures + 1, draw=self._all.draw, asked=asked)
        return renewal.later(self._all.clock(), pause)


def _is_due(instance: Instance, now: datetime) -> bool:
    due = instance.due(now)
    return due is not None and due <= now


class Workloads:
    """All processes that have, or are about to have, an identity of this host.

    Args:
        entries: which process may be which agent.
        node: who asks the issuer.
        measurer: who measures.
        limits: how many, and how much at a time.
        clock: the time.
        draw: for the jitter.
        waiter: makes how a process's task waits.
    """

    def __init__(
        self,
        entries: Sequence[AgentEntry],
        node: Issuing,
        *,
        measurer: Measuring,
        limits: InstanceLimits,
        clock: Clock,
        draw: Draw,
        waiter: Callable[[], AsyncWaiter] = TaskWaiter,
    ) -> None:
        self.clock, self.draw, self.waiter = clock, draw, waiter
        self._entries = tuple(entries)
        self._node = node
        self._measurer = measurer
        self._limits = limits
        self._workloads: dict[tuple[int, int], Workload] = {}
        self._identities = 0
        self._of_uid: Counter[int] = Counter()
        self._asking = asyncio.Semaphore(limits.asking)
        self._looks = ThreadPoolExecutor(LOOKS, thread_name_prefix="accredit-look")
        self._measures = ThreadPoolExecutor(limits.measures, thread_name_prefix="accredit-measure")
        self._reports: set[asyncio.Task[None]] = set()

    @property
    def facts(self) -> FeedState | None:
        """What is known of revocation."""
        return self._node.facts

    def __iter__(self) -> Iterator[Workload]:
        return iter(tuple(self._workloads.values()))

    def __len__(self) -> int:
        return len(self._workloads)

    async def of(self, caller: Caller) -> Workload:
        """The workload of a connected process, once its identities were asked for.

        Raises:
            Refused: no entry means it, it is not the process any more, or there are too many.
        """
        workload = self._known(caller)
        if workload is None:
            workload = await self._begun(caller)
        workload.ask_anew(self.clock())
        await workload.tried.wait()
        return workload

    def forget(self, workload: Workload, why: str) -> None:
        """A process is over."""
        key = _key(workload.caller)
        if self._workloads.get(key) is not workload:
            return
        del self._workloads[key]
        with suppress(OSError, ValueError):
            asyncio.get_running_loop().remove_reader(workload.caller.process.fileno())
        self._identities -= len(workload.instances)
        self._of_uid[workload.caller.uid] -= len(workload.instances)
        if not self._of_uid[workload.caller.uid]:
            del self._of_uid[workload.caller.uid]
        log.info("process %d is forgotten: %s", workload.caller.pid, why)
        workload.end(why)

    def tell(self) -> None:
        """Wake who listens to any of them: bundles, CRLs or facts may be others."""
        for each in self:
            each.tell()

    def code_changed(self, entry: AgentEntry, *, by: Workload) -> None:
        """Have everybody else of an entry measured now."""
        for each in self:
            if each is not by:
                each.hurry(entry)

    def restored(self, instance: str) -> None:
        """An admin restored an instance: it may be measured again."""
        for each in self:
            for one in each.instances:
                if one.id == instance:
                    one.restored(self.clock())

    async def close(self) -> None:
        """Forget everybody; waits for what is under way."""
        tasks = [each.task for each in self]
        for each in self:
            self.forget(each, "the daemon stops")
        for report in self._reports:
            report.cancel()
        await asyncio.gather(*tasks, *self._reports, return_exceptions=True)
        for pool in (self._looks, self._measures):
            pool.shutdown(wait=False, cancel_futures=True)

    # For workloads

    async def measured(self, caller: Caller, entry: AgentEntry) -> Measured:
        """What a process is, and what is where its code should be."""

        def look() -> Measured:
            selectors = caller.selectors()
            try:
                digest = self._measurer.measure(caller, entry.code_root, entry.selection)
            except (InvalidTree, Writable) as error:
                return Measured(selectors, None, str(error))
            return Measured(selectors, digest)

        return await asyncio.get_running_loop().run_in_executor(self._measures, look)

    async def certified(self, instance: Instance, found: Measured) -> X509Identity:
        """A new key, and the issuer's SVID for it.

        Raises:
            ClientError, CredentialError: there is none.
        """
        key, entry = generate_key(), instance.entry
        selectors = sorted(found.selectors)[:MAX_SAID_SELECTORS] if instance.id is None else []
        request = InstanceRequest(
            csr=certificate_request(key),
            manifest=entry.manifest,
            code=found.digest or "",
            selectors=tuple(selectors),
            instance=instance.id,
        )
        async with self._asking:
            answer: X509Answer = await self._node.send(calls.node_instance(request))
            svid = answer.svid
            await self._check_vouched(svid)
        if svid.manifest != entry.manifest or instance.id not in {None, svid.instance}:
            raise InvalidAnswer("the issuer's SVID is of another manifest or instance")
        return X509Identity.of(svid, key)

    def report(self, instance: str, why: str, digest: str | None) -> None:
        """Tell the issuer that an instance's code changed, until it has heard."""
        call = calls.code_changed(instance, reason=_said(why), measured=digest)
        task = asyncio.get_running_loop().create_task(self._reported(instance, call))
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    async def _reported(self, instance: str, call: Call[InstanceState]) -> None:
        waiter: AsyncWaiter | None = None
        failures = 0
        while True:
            try:
                state = await self._node.send(call)
            except Exception as error:  # noqa: BLE001 (told again, whatever it was)
                if isinstance(error, IssuerRefused) and error.status in {400, 404}:
                    log.error("the issuer does not take the report of %s: %s", instance, error)  # noqa: TRY400 (one line each)
                    return
                failures += 1
                waiter = waiter or self.waiter()
                await waiter.wait(renewal.pause_after(failures, draw=self.draw))
            else:
                log.warning("the issuer has heard of %s: it is %s", instance, state.state)
                return

    async def _check_vouched(self, svid: X509Svid) -> None:
        def check() -> None:
            bundle = self._node.bundle
            validate(svid, bundles={bundle.trust_domain: bundle}, now=self.clock())

        try:
            check()
        except Untrusted:
            await self._node.refetch_bundle()
            check()

    # Who is there

    def _known(self, caller: Caller) -> Workload | None:
        known = self._workloads.get(_key(caller))
        if known is None:
            return None
        try:
            caller.check_same_as(known.caller)
        except CallerChanged as error:
            self.forget(known, str(error))
            return None
        return known

    async def _begun(self, caller: Caller) -> Workload:
        loop = asyncio.get_running_loop()
        try:
            selectors = await loop.run_in_executor(self._looks, caller.selectors)
        except CallerRefused as error:
            raise Refused(str(error)) from None
        entries = entries_for(self._entries, selectors)
        if not entries:
            raise Refused("no agent of this host's settings means this process")
        known = self._known(caller)  # another connection of it may have been faster
        if known is not None:
            return known
        self._check_room(caller.uid, len(entries))
        try:
            held = caller.again()
        except CallerRefused as error:
            raise Refused(str(error)) from None
        workload = Workload(held, entries, self)
        self._workloads[_key(held)] = workload
        self._identities += len(entries)
        self._of_uid[held.uid] += len(entries)
        loop.add_reader(held.process.fileno(), self.forget, workload, "the process has ended")
        return workload

    def _check_room(self, uid: int, wanted: int) -> None:
        if self._identities + wanted > self._limits.instances:
            raise NotYet(f"this host has its {self._limits.instances} identities already")
        if self._of_uid[uid] + wanted > self._limits.instances_of_uid:
            limit = self._limits.instances_of_uid
            raise NotYet(f"user {uid} has {limit} identities on this host already")


def _key(caller: Caller) -> tuple[int, int]:
    return caller.pid, caller.process.start_time


def _said(why: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in why)[:MAX_REASON]

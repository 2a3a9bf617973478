"""Workloads: the processes of this host that have, or are about to have, an identity.

How an identity comes to be and lives on, in this order each time: the caller is the same process →
it still has the entry's selectors → its tree is measured and has the signed digest → the issuer
certifies a new key (``/v1/nodes/instances``) → the caller is the same process still → held, in
memory only. The same again at half life, give or take a tenth. Whether it may be is ``judging``'s,
how it stands ``instances``', having it measured and certified ``certifying``'s, telling the issuer
of changed code ``reports``', looking at who calls ``looking``'s, telling of who is nobody
``strangers``'.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from accredit_client import renewal
from accredit_client.daemon.accounts import itself
from accredit_client.daemon.agents import AgentEntry, entries_for
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.certifying import Births, Certifying, Issuing, Measuring, nobodys
from accredit_client.daemon.instances import Instance
from accredit_client.daemon.judging import Measured, judged
from accredit_client.daemon.looking import Looking
from accredit_client.daemon.provider import NotYet, Refused, WorkloadSvid
from accredit_client.daemon.reports import Report, Reports
from accredit_client.daemon.settings import InstanceLimits
from accredit_client.daemon.strangers import Strangers
from accredit_client.effects import AsyncWaiter, Clock, Draw, TaskWaiter
from accredit_client.errors import (
    CallerChanged,
    CallerGone,
    CallerRefused,
    ClientError,
    IssuerRefused,
)
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import CredentialError, Untrusted
from accredit_credentials.revocation_feed import FeedState
from accredit_credentials.x509_svid import X509Identity, validate

log = logging.getLogger(__name__)

LONGEST_WAIT = 30.0  # seconds: a suspended machine's timers stand still while SVIDs expire
REVOKED = "revoked"  # the problem of who was taken back


class _Over(Exception):
    """The process is not there any more, or not the same."""


class Workload:
    """One process with its identities. Made by ``Workloads``."""

    def __init__(
        self,
        caller: Caller,
        account: int,
        entries: Sequence[AgentEntry],
        all_of_them: "Workloads",
        *,
        distant: bool,
    ) -> None:
        self.caller = caller
        self.account = account
        self._distant = distant
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

    def taken_back(self, entry: AgentEntry, now: datetime) -> str | None:
        """Why its identity of an entry may not be used any more; also once the process is over."""
        for each in self.instances:
            if each.entry == entry:
                try:
                    each.usable(now, self._all.facts)
                except Refused as refused:
                    return str(refused)
                except NotYet:
                    pass
        return None

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

    def hurry(self, instance: Instance, seconds: float = 0.0) -> None:
        """Renew an instance so soon, and not only when its own time has come."""
        life = instance.life
        if life is not None:
            soon = renewal.later(self._all.clock(), seconds)
            instance.life = replace(life, renew_at=min(life.renew_at, soon))
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
        identity = await self._all.certifying.certified(instance, found)
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
            return await self._all.certifying.measured(
                self.caller, self.account, entry, distant=self._distant
            )
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
            self._all.reports.tell(Report.of(instance.id, why, digest))
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
        reports: the folder of what the issuer has not heard of yet.
        limits: how many, and how much at a time.
        clock: the time.
        draw: for the jitter.
        account_of: whom a user id counts for.
        waiter: makes how a process's task waits.
        births: what is said of a process that the daemon has started.
    """

    def __init__(
        self,
        entries: Sequence[AgentEntry],
        node: Issuing,
        *,
        measurer: Measuring,
        reports: Path,
        limits: InstanceLimits,
        clock: Clock,
        draw: Draw,
        account_of: Callable[[int], int] = itself,
        waiter: Callable[[], AsyncWaiter] = TaskWaiter,
        births: Births = nobodys,
    ) -> None:
        self.clock, self.draw, self.waiter = clock, draw, waiter
        self._entries = tuple(entries)
        self.certifying = Certifying(node, measurer, limits, clock=clock, births=births)
        self.reports = Reports(node, reports, draw=draw, waiter=waiter)
        self._node = node
        self._limits = limits
        self._workloads: dict[tuple[int, int], Workload] = {}
        self._beginning: dict[tuple[int, int], asyncio.Event] = {}
        self._identities = 0
        self._account_of = account_of
        self._of_account: Counter[int] = Counter()
        self._looking = Looking(births)
        self._strangers = Strangers()

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
            workload = await self._begun_once(caller)
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
        self._of_account[workload.account] -= len(workload.instances)
        if not self._of_account[workload.account]:
            del self._of_account[workload.account]
        log.info("process %d is forgotten: %s", workload.caller.pid, why)
        workload.end(why)

    def tell(self) -> None:
        """Wake who listens to any of them: bundles, CRLs or facts may be others."""
        for each in self:
            each.tell()

    def tell_about(self, targets: frozenset[str]) -> None:
        """Wake who listens to those that facts about these targets match."""
        for each in self:
            if not targets.isdisjoint(each.marks()):
                each.tell()

    def bundle_changed(self, bundle: TrustBundle) -> None:
        """Renew soon what a tainted authority signed, and what the bundle does not vouch for."""
        now = self.clock()
        for each in self:
            for instance in each.instances:
                if instance.identity is not None and _is_to_go(instance.identity, bundle, now):
                    each.hurry(instance, renewal.replace_after(0, draw=self.draw))

    def code_changed(self, entry: AgentEntry, *, by: Workload) -> None:
        """Have everybody else of an entry measured now."""
        for each in self:
            for instance in each.instances:
                if each is not by and instance.entry == entry:
                    each.hurry(instance)

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
        await asyncio.gather(*tasks, self.reports.close(), return_exceptions=True)
        self.certifying.close()
        self._looking.close()

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

    async def _begun_once(self, caller: Caller) -> Workload:
        """Look at a process once, however many of its connections ask in the same moment."""
        key = _key(caller)
        while (under_way := self._beginning.get(key)) is not None:
            await under_way.wait()
            if (known := self._known(caller)) is not None:
                return known
        self._beginning[key] = over = asyncio.Event()
        try:
            return await self._begun(caller)
        finally:
            del self._beginning[key]
            over.set()

    async def _begun(self, caller: Caller) -> Workload:
        account = self._account_of(caller.uid)
        try:
            distant = await self._looking.is_distant(caller, account)
            selectors = await self._looking.selectors(
                caller, account, self._entries, distant=distant
            )
        except CallerRefused as error:
            raise Refused(str(error)) from None
        entries = entries_for(self._entries, selectors)
        if not entries:
            self._strangers.tell(caller.pid, account, selectors)
            raise Refused("no agent of this host's settings means this process")
        self._check_room(account, len(entries))
        try:
            held = caller.again()
        except CallerRefused as error:
            raise Refused(str(error)) from None
        workload = Workload(held, account, entries, self, distant=distant)
        self._workloads[_key(held)] = workload
        self._identities += len(entries)
        self._of_account[account] += len(entries)
        asyncio.get_running_loop().add_reader(
            held.process.fileno(), self.forget, workload, "the process has ended"
        )
        return workload

    def _check_room(self, account: int, wanted: int) -> None:
        if self._identities + wanted > self._limits.instances:
            raise NotYet(f"this host has its {self._limits.instances} identities already")
        if self._of_account[account] + wanted > self._limits.instances_of_uid:
            limit = self._limits.instances_of_uid
            raise NotYet(f"user {account} has {limit} identities on this host already")


def _is_to_go(identity: X509Identity, bundle: TrustBundle, now: datetime) -> bool:
    if identity.svid.authorities & bundle.tainted:
        return True
    try:
        validate(identity.svid, bundles={bundle.trust_domain: bundle}, now=now)
    except Untrusted:
        return True
    except CredentialError:
        return False  # its time is over, which is another matter
    return False


def _key(caller: Caller) -> tuple[int, int]:
    return caller.pid, caller.process.start_time

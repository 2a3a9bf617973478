"""What an identity takes: its process measured, a new key certified, a change told to the issuer.

The tree is measured in a few threads, the issuer asked by a few at a time. What the issuer has to
hear of changed code is told until it has heard.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from accredit_attestors.errors import InvalidTree, Unmeasured
from accredit_attestors.tree import Selection
from accredit_client import calls, renewal
from accredit_client.answers import InstanceState, X509Answer
from accredit_client.call import Call
from accredit_client.calls import InstanceRequest, certificate_request
from accredit_client.daemon.agents import AgentEntry
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.instances import Instance
from accredit_client.daemon.judging import Measured
from accredit_client.daemon.settings import InstanceLimits
from accredit_client.effects import AsyncWaiter, Clock, Draw
from accredit_client.errors import CannotMeasure, InvalidAnswer, IssuerRefused, Writable
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import Untrusted
from accredit_credentials.keys import generate_key
from accredit_credentials.revocation_feed import FeedState
from accredit_credentials.x509_svid import X509Identity, X509Svid, validate

log = logging.getLogger(__name__)

A = TypeVar("A")

MAX_SAID_SELECTORS = 64  # of a process, that the issuer is told
MAX_REASON = 300  # characters that the issuer is told of a change


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


Births = Callable[[Caller], frozenset[str]]
"""What is said of a process that the daemon has started; raises as ``Caller.check``."""


def nobodys(_caller: Caller) -> frozenset[str]:
    """Where the daemon starts nothing."""
    return frozenset()


class Certifying:
    """Measures, and has certified.

    Args:
        node: who asks the issuer.
        measurer: who measures.
        limits: how much at a time.
        clock: the time.
        draw: for the jitter.
        waiter: makes how a report waits for its next try.
        births: what is said of a process that the daemon has started.
    """

    def __init__(
        self,
        node: Issuing,
        measurer: Measuring,
        limits: InstanceLimits,
        *,
        clock: Clock,
        draw: Draw,
        waiter: Callable[[], AsyncWaiter],
        births: Births = nobodys,
    ) -> None:
        self._births = births
        self._node = node
        self._measurer = measurer
        self._clock = clock
        self._draw = draw
        self._waiter = waiter
        self._asking = asyncio.Semaphore(limits.asking)
        self._measures = ThreadPoolExecutor(limits.measures, thread_name_prefix="accredit-measure")
        self._reports: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Stop; what the issuer has not heard by now it will not hear."""
        for report in self._reports:
            report.cancel()
        await asyncio.gather(*self._reports, return_exceptions=True)
        self._measures.shutdown(wait=False, cancel_futures=True)

    async def measured(self, caller: Caller, entry: AgentEntry) -> Measured:
        """What a process is, and what is where its code should be.

        Raises:
            CannotMeasure: nothing was found out; that is no change of the code.
        """

        def look() -> Measured:
            selectors = caller.selectors() | self._births(caller)
            try:
                digest = self._measurer.measure(caller, entry.code_root, entry.selection)
            except Unmeasured as error:
                raise CannotMeasure(str(error)) from error
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
                waiter = waiter or self._waiter()
                await waiter.wait(renewal.pause_after(failures, draw=self._draw))
            else:
                log.warning("the issuer has heard of %s: it is %s", instance, state.state)
                return

    async def _check_vouched(self, svid: X509Svid) -> None:
        def check() -> None:
            bundle = self._node.bundle
            validate(svid, bundles={bundle.trust_domain: bundle}, now=self._clock())

        try:
            check()
        except Untrusted:
            await self._node.refetch_bundle()
            check()


def _said(why: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in why)[:MAX_REASON]

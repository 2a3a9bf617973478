"""What an identity takes: its process measured, and a new key certified.

The tree is measured in a few threads, of which one is always left to other users (``lanes``); the
issuer is asked by a few at a time.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

from accredit_attestors.errors import InvalidTree, Unmeasured
from accredit_attestors.tree import Selection
from accredit_client import calls
from accredit_client.answers import X509Answer
from accredit_client.call import Call
from accredit_client.calls import InstanceRequest, certificate_request
from accredit_client.daemon.agents import AgentEntry
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.instances import Instance
from accredit_client.daemon.judging import Measured
from accredit_client.daemon.lanes import Lane
from accredit_client.daemon.settings import InstanceLimits
from accredit_client.effects import Clock
from accredit_client.errors import CannotMeasure, InvalidAnswer, Writable
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import Untrusted
from accredit_credentials.keys import generate_key
from accredit_credentials.revocation_feed import FeedState
from accredit_credentials.x509_svid import X509Identity, X509Svid, validate

log = logging.getLogger(__name__)

A = TypeVar("A")

MAX_SAID_SELECTORS = 64  # of a process, that the issuer is told


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

    def measure_to_start(
        self,
        caller: Caller,
        code_root: str,
        selection: Selection,
        *,
        requester: Caller,
        program: str,
    ) -> str:
        """The same before it becomes a program, for somebody who must not write it either."""


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
        births: what is said of a process that the daemon has started.
    """

    def __init__(
        self,
        node: Issuing,
        measurer: Measuring,
        limits: InstanceLimits,
        *,
        clock: Clock,
        births: Births = nobodys,
    ) -> None:
        self._births = births
        self._node = node
        self._measurer = measurer
        self._clock = clock
        self._asking = asyncio.Semaphore(limits.asking)
        share = max(limits.measures - 1, 1)
        self._measures = Lane(limits.measures, of_account=share, name="accredit-measure")
        self._distant = Lane(limits.measures, of_account=share, name="accredit-distant")

    def close(self) -> None:
        """Measure nothing more."""
        self._measures.close()
        self._distant.close()

    async def measured(
        self, caller: Caller, account: int, entry: AgentEntry, *, distant: bool
    ) -> Measured:
        """What a process is, and what is where its code should be.

        Args:
            caller: the process.
            account: whom its user counts for.
            entry: what it should be.
            distant: whether a server has to answer for its program: such a process waits apart.

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

        return await (self._distant if distant else self._measures).run(account, look)

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

    async def _check_vouched(self, svid: X509Svid) -> None:
        def check() -> None:
            bundle = self._node.bundle
            validate(svid, bundles={bundle.trust_domain: bundle}, now=self._clock())

        try:
            check()
        except Untrusted:
            await self._node.refetch_bundle()
            check()

"""A host under a clock in the test's hands: its processes, an issuer that does as it is told.

The processes are real, and so are keys and certificates; what measures is the test's.
"""

import asyncio
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from support.authority import NOW, Authority
from support.calling import Calling, calling
from support.clock import SettableClock

from accredit_attestors.tree import Selection
from accredit_client.answers import InstanceState, X509Answer
from accredit_client.call import Call
from accredit_client.daemon.accounts import itself
from accredit_client.daemon.agents import AgentEntry
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.launching import Launcher
from accredit_client.daemon.settings import InstanceLimits
from accredit_client.daemon.workloads import Workload, Workloads
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.keys import SubjectKey, check_public_key
from accredit_credentials.revocation import FactKind, RevocationFact, Target
from accredit_credentials.revocation_feed import FeedState, Statement
from accredit_credentials.spiffe_id import AgentId, TrustDomain
from accredit_credentials.x509_svid import X509Identity, X509Svid
from accredit_credentials.x509_template import leaf_builder

SIGNED = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
MANIFEST = "sha256:" + "5e" * 32
LIFE = timedelta(hours=1)
UID = f"unix:uid:{os.geteuid()}"
WAIT = 10.0
LAUNCH_GRACE = 1.0


def entry(name: str = "summarizer", **fields: Any) -> AgentEntry:
    """An entry that means this very process."""
    return AgentEntry(
        **{
            "agent": AgentId.parse(f"support/{name}"),
            "manifest": MANIFEST,
            "code": SIGNED,
            "selection": Selection(),
            "code_root": "/opt/agent",
            "selectors": frozenset({UID}),
            "hint": "",
            "expires_at": NOW + timedelta(days=30),
            **fields,
        }
    )


@dataclass
class Waiter:
    """Waits until the test's time has come."""

    clock: SettableClock
    until: datetime | None = None
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self, seconds: float) -> None:
        """Wait."""
        self.until = self.clock() + timedelta(seconds=seconds)
        await self.go.wait()
        self.until = None
        self.go.clear()

    def wake(self) -> None:
        """End the wait."""
        self.go.set()


@dataclass
class Node:
    """An issuer that does as it is told, asked through a node."""

    authority: Authority
    clock: SettableClock
    facts: FeedState = field(default_factory=FeedState)
    asked: list[dict[str, Any]] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    failure: Exception | None = None
    born: int = 0
    changes: dict[str, Any] = field(default_factory=dict)

    crls: tuple[bytes, ...] = ()
    federated_bundles: dict[TrustDomain, TrustBundle] = field(default_factory=dict)
    federation: Any = None

    def __post_init__(self) -> None:
        self.bundle: TrustBundle = self.authority.bundle

    async def refetch_bundle(self) -> bool:
        """There is no newer one."""
        return False

    async def send(self, call: Call[Any]) -> Any:
        """Certify, or take note of a change."""
        body = dict(call.body or {})
        self.asked.append(body)
        if self.failure is not None:
            raise self.failure
        if call.path == "/v1/crls":
            return self.crls
        if call.path.endswith("/changed"):
            instance = call.path.split("/")[-2]
            self.heard.append(instance)
            return InstanceState(instance=instance, state="suspended")
        if "instance" not in body:
            self.born += 1
        instance = body.get("instance", f"00000000-0000-4000-8000-{self.born:012}")
        request = x509.load_pem_x509_csr(body["csr"].encode())
        fields: dict[str, Any] = {"instance": instance, "manifest": body["manifest"]}
        fields.update(self.changes)
        signer = fields.pop("authority", self.authority)
        template = signer.template(
            signer.id("/ns/support/agent/summarizer"),
            subject_key=SubjectKey.of(check_public_key(request.public_key())),
            **{
                "not_before": self.clock() - timedelta(seconds=10),
                "not_after": self.clock() + LIFE,
                **fields,
            },
        )
        leaf = signer.issuing.sign(leaf_builder(template, signer.issuing.certificate))
        svid = X509Svid(template.spiffe_id, leaf, (signer.issuing.certificate,))
        return X509Answer(
            spiffe_id=svid.spiffe_id,
            instance=instance,
            manifest=svid.manifest,
            serial=svid.serial,
            certificates=svid.pem,
            not_before=svid.not_before,
            not_after=svid.not_after,
        )

    def state(self, target: str, kind: FactKind, sequence: int) -> tuple[RevocationFact]:
        """Put a fact into force, and return it."""
        fact = RevocationFact(
            sequence=sequence,
            target=Target.parse(target),
            kind=kind,
            at=self.clock(),
            expires_at=self.clock() + 4 * LIFE,
            reason="incident",
        )
        after = sequence - 1
        statement = Statement(
            trust_domain=self.authority.trust_domain,
            after=after,
            through=sequence,
            as_of=self.clock(),
            facts=(fact,),
        )
        self.facts.apply(statement, now=self.clock())
        return (fact,)


@dataclass
class Code:
    """A measurer that finds what the test put there."""

    found: str | Exception = SIGNED
    looked: int = 0

    def measure(self, caller: Caller, code_root: str, selection: Selection) -> str:
        """The digest."""
        caller.check()
        self.looked += 1
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def measure_to_start(
        self,
        caller: Caller,
        code_root: str,
        selection: Selection,
        *,
        requester: Caller,
        program: str,
    ) -> str:
        """The same, of both."""
        assert program.startswith("/")
        requester.check()
        return self.measure(caller, code_root, selection)


class Place:
    """The host's processes."""

    def __init__(
        self,
        authority: Authority,
        *entries: AgentEntry,
        account_of: Callable[[int], int] = itself,
        **limits: int,
    ) -> None:
        self.clock = SettableClock()
        self.waiters: list[Waiter] = []
        self.node = Node(authority, self.clock)
        self.code = Code()
        self.resources = ExitStack()
        self.launcher = Launcher(grace=LAUNCH_GRACE)
        data = self.resources.enter_context(tempfile.TemporaryDirectory(prefix="accredit-"))
        self.reports = Path(data) / "reports"
        self.workloads = Workloads(
            entries or (entry(),),
            self.node,
            measurer=self.code,
            reports=self.reports,
            limits=InstanceLimits(**limits),
            clock=self.clock,
            draw=lambda: 0.5,
            account_of=account_of,
            waiter=self._waiter,
            births=self.launcher.selectors,
        )

    def _waiter(self) -> Waiter:
        self.waiters.append(Waiter(self.clock))
        return self.waiters[-1]

    def me(self) -> Caller:
        """This process, on another connection."""
        here, there = socket.socketpair(socket.AF_UNIX)
        self.resources.enter_context(here)
        self.resources.enter_context(there)
        return self.resources.enter_context(closing(Caller.of(here)))

    def other(self, uid: int = 0) -> tuple[Calling, Caller]:
        """Another process, of this user or another one."""
        process = self.resources.enter_context(calling(uid=uid))
        return process, self.resources.enter_context(closing(Caller.of(process.connection)))

    async def settle(self) -> None:
        """Return once every task waits for the time."""
        async with asyncio.timeout(WAIT):
            while any(each.until is None or each.go.is_set() for each in self.waiters):  # noqa: ASYNC110 (nobody there tells us)
                await asyncio.sleep(0)

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for what a task does."""
        async with asyncio.timeout(WAIT):
            while not true():  # noqa: ASYNC110 (as above)
                await asyncio.sleep(0)

    async def advance(self, **span: float) -> None:
        """Move the time; whoever waited for it has done its work then."""
        await self.settle()
        self.clock.advance(**span)
        for each in self.waiters:
            if each.until is not None and each.until <= self.clock():
                each.wake()
        await self.settle()

    def held(self, workload: Workload) -> X509Identity:
        """Its one identity."""
        (svid,) = workload.svids(self.clock())
        return svid.identity


@asynccontextmanager
async def placed(
    authority: Authority,
    *entries: AgentEntry,
    account_of: Callable[[int], int] = itself,
    **limits: int,
) -> AsyncIterator[Place]:
    """A host, emptied at the end."""
    place = Place(authority, *entries, account_of=account_of, **limits)
    try:
        yield place
    finally:
        await place.workloads.close()
        place.resources.close()
        assert not len(place.workloads)

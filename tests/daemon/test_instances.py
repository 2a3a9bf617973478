"""Instances under a clock in the test's hands: born, renewed, withdrawn, forgotten."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from support.authority import NOW, Authority
from support.calling import Calling, calling
from support.clock import SettableClock

from accredit_attestors.errors import InvalidTree
from accredit_attestors.tree import Selection
from accredit_client.answers import InstanceState, X509Answer
from accredit_client.call import Call
from accredit_client.daemon.agents import AgentEntry, entries_for
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.instances import Measured, Workload, Workloads, judged
from accredit_client.daemon.provider import NotYet, Refused
from accredit_client.daemon.settings import InstanceLimits
from accredit_client.errors import IssuerRefused, IssuerUnreachable, Writable
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.keys import SubjectKey, check_public_key
from accredit_credentials.revocation import FactKind, RevocationFact, Target
from accredit_credentials.revocation_feed import FeedState, Statement
from accredit_credentials.spiffe_id import AgentId
from accredit_credentials.x509_svid import X509Identity, X509Svid
from accredit_credentials.x509_template import leaf_builder

SIGNED = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
MANIFEST = "sha256:" + "5e" * 32
LIFE = timedelta(hours=1)
UID = f"unix:uid:{os.geteuid()}"
WAIT = 10.0


@pytest.fixture
def anyio_backend() -> str:
    """The daemon's event loop is asyncio's."""
    return "asyncio"


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


# Which process may be which agent

FIRST = entry(selectors=frozenset({"unix:uid:1", "unix:path:/bin/a"}))
SECOND = entry("triage", selectors=frozenset({"unix:uid:1"}))
NOBODY = entry("nobody", selectors=frozenset())


@pytest.mark.parametrize(
    ("process", "meant"),
    [
        ({"unix:uid:1", "unix:path:/bin/a", "unix:gid:1"}, (FIRST, SECOND)),
        ({"unix:uid:1", "unix:path:/bin/b"}, (SECOND,)),
        ({"unix:path:/bin/a"}, ()),
        ({"unix:uid:11"}, ()),
        (set(), ()),
    ],
)
def test_an_entry_means_who_has_all_its_selectors(
    process: set[str], meant: tuple[AgentEntry, ...]
) -> None:
    """All of them, compared as whole texts; an entry without any means nobody."""
    assert entries_for((FIRST, SECOND, NOBODY), process) == meant


ENOUGH = frozenset({UID})


@pytest.mark.parametrize(
    ("found", "born", "refused", "changed"),
    [
        (Measured(ENOUGH, SIGNED), False, None, False),
        (Measured(ENOUGH | {"unix:gid:1"}, SIGNED), True, None, False),
        (Measured(ENOUGH, OTHER), False, "not what was signed", False),
        (Measured(ENOUGH, OTHER), True, "not what was signed", True),
        (Measured(ENOUGH, SIGNED.upper()), True, "not what was signed", True),
        (Measured(ENOUGH, None, "a fifo"), False, "a fifo", False),
        (Measured(ENOUGH, None, "a fifo"), True, "a fifo", True),
        (Measured(frozenset(), SIGNED), False, "selectors", False),
        (Measured(frozenset(), SIGNED), True, "selectors", False),
    ],
)
def test_what_follows_of_a_measure(
    found: Measured, *, born: bool, refused: str | None, changed: bool
) -> None:
    """Nothing, a refusal, or, of who was born already, a change that the issuer hears of."""
    verdict = judged(entry(), found, born=born)
    assert verdict.changed is changed
    assert (verdict.refused is None) is (refused is None)
    assert (refused or "") in (verdict.refused or "")


# A host in the test's hands


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

    @property
    def bundle(self) -> TrustBundle:
        """The authority's."""
        return self.authority.bundle

    async def refetch_bundle(self) -> bool:
        """There is no newer one."""
        return False

    async def send(self, call: Call[Any]) -> Any:
        """Certify, or take note of a change."""
        body = dict(call.body or {})
        self.asked.append(body)
        if self.failure is not None:
            raise self.failure
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

    def state(self, target: str, kind: FactKind, sequence: int) -> None:
        """Put a fact into force."""
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


class Place:
    """The host's processes."""

    def __init__(self, authority: Authority, *entries: AgentEntry, **limits: int) -> None:
        self.clock = SettableClock()
        self.waiters: list[Waiter] = []
        self.node = Node(authority, self.clock)
        self.code = Code()
        self.resources = ExitStack()
        self.workloads = Workloads(
            entries or (entry(),),
            self.node,
            measurer=self.code,
            limits=InstanceLimits(**limits),
            clock=self.clock,
            draw=lambda: 0.5,
            waiter=self._waiter,
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

    def other(self) -> tuple[Calling, Caller]:
        """Another process of this user."""
        process = self.resources.enter_context(calling(uid=0))
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
async def placed(authority: Authority, *entries: AgentEntry, **limits: int) -> AsyncIterator[Place]:
    """A host, emptied at the end."""
    place = Place(authority, *entries, **limits)
    try:
        yield place
    finally:
        await place.workloads.close()
        place.resources.close()
        assert not len(place.workloads)


@pytest.mark.anyio
async def test_connections_of_a_process_share_an_instance(authority: Authority) -> None:
    """However many ask at once, the issuer is asked once; its selectors and the digest are told."""
    async with placed(authority) as place:
        found = await asyncio.gather(*(place.workloads.of(place.me()) for _ in range(20)))
        assert len(set(map(id, found))) == 1
        assert len(place.node.asked) == 1
        (asked,) = place.node.asked
        assert asked["code"] == SIGNED
        assert UID in asked["selectors"]
        _, other = place.other()
        second = await place.workloads.of(other)
        assert place.held(second).svid.instance != place.held(found[0]).svid.instance


@pytest.mark.anyio
async def test_it_is_measured_and_certified_again_at_half_life(authority: Authority) -> None:
    """The same instance with another key; not before, and by nobody's asking."""
    async with placed(authority) as place:
        workload = await place.workloads.of(place.me())
        first = place.held(workload)
        await place.advance(minutes=29)
        assert len(place.node.asked) == 1
        await place.advance(minutes=2)
        second = place.held(workload)
        assert place.node.asked[1]["instance"] == first.svid.instance
        assert "selectors" not in place.node.asked[1]
        assert place.code.looked == 2
        assert second.svid.instance == first.svid.instance
        assert second.key.public_key() != first.key.public_key()


@pytest.mark.anyio
@pytest.mark.parametrize("found", [OTHER, InvalidTree("a fifo in it"), Writable("its own file")])
async def test_other_code_ends_an_instance(authority: Authority, found: str | Exception) -> None:
    """Withdrawn at the renewal, told to the issuer, and not undone by putting the byte back."""
    async with placed(authority) as place:
        workload = await place.workloads.of(place.me())
        instance = place.held(workload).svid.instance
        assert instance is not None
        place.code.found = found
        with workload.listening() as changed:
            await place.advance(minutes=31)
            assert changed.is_set()
        await place.until(lambda: place.node.heard == [instance])
        place.code.found = SIGNED
        for _ in range(2):
            await place.advance(hours=1)
            assert await place.workloads.of(place.me()) is workload
            with pytest.raises(Refused):
                place.held(workload)
        assert place.node.born == 1


@pytest.mark.anyio
async def test_a_change_is_looked_for_everywhere_at_once(authority: Authority) -> None:
    """Who runs the same code is measured when one was found changed, long before its own turn."""
    async with placed(authority) as place:
        workload = await place.workloads.of(place.me())
        await place.advance(minutes=20)
        _, other = place.other()
        second = await place.workloads.of(other)
        place.code.found = OTHER
        await place.advance(minutes=11)
        await place.settle()
        for each in (workload, second):
            with pytest.raises(Refused, match="not what was signed"):
                place.held(each)


@pytest.mark.anyio
async def test_the_issuer_is_told_of_a_change_until_it_has_heard(authority: Authority) -> None:
    """It may be away when it happens."""
    async with placed(authority) as place:
        workload = await place.workloads.of(place.me())
        instance = place.held(workload).svid.instance
        place.code.found = OTHER
        place.node.failure = IssuerUnreachable("away")
        await place.advance(minutes=31)
        await place.advance(minutes=2)
        assert not place.node.heard
        place.node.failure = None
        await place.settle()
        place.clock.advance(minutes=2)
        for each in place.waiters:
            each.wake()
        await place.until(lambda: place.node.heard == [instance])


@pytest.mark.anyio
async def test_an_issuer_that_is_away_is_asked_slowly(authority: Authority) -> None:
    """The SVID is served until it is over, then nothing for now; it comes back by itself."""
    async with placed(authority) as place:
        workload = await place.workloads.of(place.me())
        first = place.held(workload)
        place.node.failure = IssuerUnreachable("away")
        for minute in range(1, 60):
            await place.advance(minutes=1)
            assert place.held(workload) is first, minute
        assert 5 < len(place.node.asked) < 60
        with workload.listening() as changed:
            await place.advance(minutes=2)
            assert changed.is_set()
        with pytest.raises(NotYet):
            place.held(workload)
        place.node.failure = None
        await place.advance(minutes=2)
        assert place.held(workload).svid.instance == first.svid.instance


@pytest.mark.anyio
async def test_who_is_refused_is_looked_at_when_somebody_asks(authority: Authority) -> None:
    """Not by itself, and not before a pause that grows; then it may be given."""
    async with placed(authority) as place:
        place.code.found = OTHER
        workload = await place.workloads.of(place.me())
        for _ in range(50):
            await place.workloads.of(place.me())
        assert place.code.looked == 1
        await place.advance(hours=1)
        assert place.code.looked == 1
        await place.workloads.of(place.me())
        assert place.code.looked == 2
        with pytest.raises(Refused):
            place.held(workload)
        place.code.found = SIGNED
        await place.advance(minutes=2)
        await place.workloads.of(place.me())
        assert place.held(workload)
        assert not place.node.heard


@pytest.mark.anyio
async def test_a_refused_renewal_withdraws_and_stays_the_instance(authority: Authority) -> None:
    """Who was revoked gets no other instance by asking again."""
    async with placed(authority) as place:
        workload = await place.workloads.of(place.me())
        instance = place.held(workload).svid.instance
        place.node.failure = IssuerRefused("revoked", "incident", 403)
        await place.advance(minutes=31)
        with pytest.raises(Refused, match="incident"):
            place.held(workload)
        place.node.failure = None
        await place.advance(minutes=5)
        await place.workloads.of(place.me())
        assert place.held(workload).svid.instance == instance
        assert place.node.born == 1


@pytest.mark.anyio
async def test_an_instance_that_is_not_the_nodes_any_more_makes_place(authority: Authority) -> None:
    """Where the node was listed anew, the process is born again, with its selectors."""
    async with placed(authority) as place:
        workload = await place.workloads.of(place.me())
        place.node.failure = IssuerRefused("forbidden", "not one of the node", 403)
        await place.advance(minutes=31)
        place.node.failure = None
        await place.advance(minutes=5)
        await place.workloads.of(place.me())
        assert place.held(workload)
        assert place.node.born == 2
        assert "selectors" in place.node.asked[-1]


@pytest.mark.anyio
async def test_what_an_admin_restored_is_measured_again(authority: Authority) -> None:
    """After changed code, and not believed: the signed bytes must be there."""
    async with placed(authority) as place:
        workload = await place.workloads.of(place.me())
        instance = place.held(workload).svid.instance
        assert instance is not None
        place.code.found = OTHER
        await place.advance(minutes=31)
        await place.until(lambda: place.node.heard == [instance])
        place.workloads.restored("another")
        place.code.found = SIGNED
        await place.workloads.of(place.me())
        with pytest.raises(Refused):
            place.held(workload)
        place.workloads.restored(instance)
        await place.workloads.of(place.me())
        assert place.held(workload).svid.instance == instance


@pytest.mark.anyio
async def test_a_fact_withdraws_whom_it_is_about(authority: Authority) -> None:
    """At once, without a renewal, and nobody else; a suspension that ends gives it back."""
    async with placed(authority) as place:
        workload = await place.workloads.of(place.me())
        _, other = place.other()
        neighbour = await place.workloads.of(other)
        instance = place.held(workload).svid.instance
        place.node.state(f"instance:{instance}", FactKind.SUSPENDED, 1)
        with pytest.raises(Refused, match="suspended"):
            place.held(workload)
        assert place.held(neighbour)
        place.node.state(f"instance:{instance}", FactKind.RESTORED, 2)
        assert place.held(workload)


@pytest.mark.anyio
async def test_a_process_that_ends_is_forgotten(authority: Authority) -> None:
    """With its key; whoever asks for it is refused, and its place is free."""
    async with placed(authority, instances=1) as place:
        process, caller = place.other()
        workload = await place.workloads.of(caller)
        with pytest.raises(NotYet, match="1 identities"):
            await place.workloads.of(place.me())
        process.end()
        await place.until(lambda: not len(place.workloads))
        with pytest.raises(Refused):
            workload.svids(place.clock())
        with pytest.raises(Refused):
            await place.workloads.of(caller)
        assert await place.workloads.of(place.me())


@pytest.mark.anyio
async def test_one_user_does_not_take_everybodys_place(authority: Authority) -> None:
    """Each has a bound of its own below that of all."""
    async with placed(authority, instances_of_uid=1) as place:
        await place.workloads.of(place.me())
        _, other = place.other()
        with pytest.raises(NotYet, match="user"):
            await place.workloads.of(other)


@pytest.mark.anyio
async def test_a_process_may_be_several_agents(authority: Authority) -> None:
    """One that is refused takes nothing from the other; all refused is refused."""
    entries = (entry(), entry("triage", code=OTHER, hint="second"))
    async with placed(authority, *entries) as place:
        workload = await place.workloads.of(place.me())
        (svid,) = workload.svids(place.clock())
        assert svid.hint == ""
        place.code.found = OTHER
        await place.advance(minutes=31)
        await place.workloads.of(place.me())
        (svid,) = workload.svids(place.clock())
        assert svid.hint == "second"


@pytest.mark.anyio
async def test_nobody_is_meant_by_default(authority: Authority) -> None:
    """A process that no entry means is refused, and costs no place."""
    async with placed(authority, entry(selectors=frozenset({"unix:uid:4242"}))) as place:
        with pytest.raises(Refused, match="no agent"):
            await place.workloads.of(place.me())
        assert not len(place.workloads)
        assert not place.code.looked


@pytest.mark.anyio
@pytest.mark.parametrize(
    "changes",
    [
        {"manifest": "sha256:" + "00" * 32},
        {"authority": Authority()},
        {"not_before": NOW - LIFE, "not_after": NOW - timedelta(minutes=1)},
    ],
)
async def test_an_answer_that_does_not_fit_is_not_held(
    authority: Authority, changes: dict[str, Any]
) -> None:
    """Another manifest's, another authority's, or over."""
    async with placed(authority) as place:
        place.node.changes = changes
        workload = await place.workloads.of(place.me())
        with pytest.raises(NotYet):
            place.held(workload)
        place.node.changes = {}
        await place.advance(minutes=2)
        assert place.held(workload)

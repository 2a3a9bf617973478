"""Instances under a clock in the test's hands: born, renewed, withdrawn, forgotten."""

import asyncio
import hashlib
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.authority import NOW, Authority
from support.calling import AGENT_UID, as_root
from support.node_host import LIFE, OTHER, SIGNED, UID, WAIT, entry, placed

from accredit_attestors.errors import InvalidTree, Unmeasured
from accredit_client.daemon.accounts import account_in, parse_ranges
from accredit_client.daemon.agents import AgentEntry, entries_for, wants_program
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.judging import Measured, judged
from accredit_client.daemon.looking import THREADS
from accredit_client.daemon.mounts import Standing
from accredit_client.daemon.provider import NotYet, Refused
from accredit_client.errors import IssuerRefused, IssuerUnreachable, Writable
from accredit_credentials.revocation import FactKind


@pytest.fixture
def anyio_backend() -> str:
    """The daemon's event loop is asyncio's."""
    return "asyncio"


# Which process may be which agent

FIRST = entry(selectors=frozenset({"unix:uid:1", "unix:path:/bin/a"}))
SECOND = entry("triage", selectors=frozenset({"unix:uid:1"}))
FAR = f"unix:uid:{AGENT_UID}"
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


@pytest.mark.parametrize(
    ("process", "wanted"),
    [
        ({"unix:uid:1"}, True),
        ({"unix:uid:1", "unix:gid:1"}, True),
        ({"unix:gid:1"}, False),
        (set(), False),
    ],
)
def test_a_program_is_read_of_who_may_be_meant_only(process: set[str], *, wanted: bool) -> None:
    """Strangers cannot have the daemon read a gigabyte: their other selectors say no already."""
    pinned = entry("pinned", selectors=frozenset({"unix:uid:1", f"unix:sha256:{'a' * 64}"}))
    others = [each.selectors for each in (SECOND, NOBODY)]
    assert wants_program([*others, pinned.selectors], process) is wanted
    assert not wants_program([*others, FIRST.selectors], process), "no entry asks for a program"


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
async def test_what_could_not_be_read_is_no_change(authority: Authority) -> None:
    """No descriptor to be had, a change meanwhile: what is held stays, and it is tried again."""
    async with placed(authority) as place:
        workload = await place.workloads.of(place.me())
        first = place.held(workload)
        place.code.found = Unmeasured("too many open files")
        await place.advance(minutes=31)
        assert place.held(workload) is first
        place.code.found = SIGNED
        await place.advance(minutes=2)
        assert place.held(workload).svid.instance == first.svid.instance
        assert place.held(workload) is not first
        assert place.node.heard == []


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


@as_root
@pytest.mark.anyio
async def test_subordinate_ids_are_their_owners_place(authority: Authority) -> None:
    """With one identity of one of its ids a user has none left for the next; its neighbour has."""
    ids = (AGENT_UID, AGENT_UID + 1, AGENT_UID + 2)
    entries = [entry(f"a{uid}", selectors=frozenset({f"unix:uid:{uid}"})) for uid in ids]
    ranges = parse_ranges(f"1000:{AGENT_UID}:2", {}.get)
    async with placed(
        authority, *entries, account_of=lambda uid: account_in(ranges, uid), instances_of_uid=1
    ) as place:
        first, second, neighbour = (place.other(uid)[1] for uid in ids)
        workload = await place.workloads.of(first)
        with pytest.raises(NotYet, match="user 1000 has 1 identities"):
            await place.workloads.of(second)
        assert await place.workloads.of(neighbour)
        place.workloads.forget(workload, "it ended")
        assert await place.workloads.of(second)


@as_root
@pytest.mark.anyio
async def test_who_has_programs_read_keeps_nobody_out(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom an entry means but for the program's content waits for itself, however often it asks."""
    meant = f"unix:uid:{AGENT_UID}"
    entries = [
        entry(selectors=frozenset({meant, "unix:sha256:" + "00" * 32})),
        entry("other", selectors=frozenset({UID, f"unix:sha256:{_sha256_of(sys.executable)}"})),
    ]
    real, go, reading = Caller._program_sha256, threading.Event(), list[int]()

    def slowly(caller: Caller) -> str | None:
        if caller.uid == AGENT_UID:
            reading.append(caller.pid)
            assert go.wait(WAIT)
        return real(caller)

    monkeypatch.setattr(Caller, "_program_sha256", slowly)
    async with placed(authority, *entries) as place:
        greedy = [place.other(AGENT_UID)[1] for _ in range(2 * THREADS + 1)]
        asking = [asyncio.create_task(place.workloads.of(each)) for each in greedy]
        await place.until(lambda: bool(reading))
        async with asyncio.timeout(WAIT):
            assert await place.workloads.of(place.me())
        assert len(reading) == 1
        go.set()
        for each in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(each, Refused)
        assert sorted(reading) == sorted(each.pid for each in greedy)


@as_root
@pytest.mark.anyio
async def test_who_runs_from_a_server_that_is_silent_waits_apart(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many users do: whose program is local is looked at, measured and renewed."""
    users = range(AGENT_UID, AGENT_UID + THREADS + 1)
    go, selectors = threading.Event(), Caller.selectors

    def waiting(caller: Caller, *, program: bool = True) -> frozenset[str]:
        if caller.uid in users:
            assert go.wait(WAIT)
        return selectors(caller, program=program)

    monkeypatch.setattr(Caller, "local", property(lambda caller: caller.uid not in users))
    monkeypatch.setattr(Caller, "standing", lambda _: Standing.NETWORK)
    monkeypatch.setattr(Caller, "selectors", waiting)
    entries = [entry(selectors=frozenset({UID})), entry("far", selectors=frozenset({FAR}))]
    async with placed(authority, *entries) as place:
        far = [place.other(uid)[1] for uid in users]
        asking = [asyncio.create_task(place.workloads.of(each)) for each in far]
        async with asyncio.timeout(WAIT):
            workload = await place.workloads.of(place.me())
        first = place.held(workload)
        assert len(place.workloads) == 1
        place.clock.advance(minutes=31)
        for each in place.waiters:
            each.wake()
        await place.until(lambda: place.held(workload) is not first)
        go.set()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert [isinstance(each, Refused) for each in answers] == [False] + [True] * THREADS


def _sha256_of(program: str) -> str:
    return hashlib.sha256(Path(program).read_bytes()).hexdigest()


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


@pytest.mark.anyio
@pytest.mark.parametrize("what", ["tainted", "dropped", "other"])
async def test_what_an_authority_signed_that_goes_is_renewed_soon(
    authority: Authority, what: str
) -> None:
    """Within half a minute of the bundle that says so; of another authority nothing follows."""
    async with placed(authority) as place:
        workload = await place.workloads.of(place.me())
        first = place.held(workload)
        signed_by = first.svid.authorities
        bundle = authority.bundle
        changes: dict[str, Any] = {
            "tainted": {"tainted": signed_by},
            "dropped": {"x509_authorities": Authority().bundle.x509_authorities},
            "other": {"tainted": frozenset({"00"})},
        }[what]
        await place.advance(minutes=1)
        place.workloads.bundle_changed(replace(bundle, **changes))
        await place.advance(seconds=20)
        await place.settle()
        assert (place.held(workload) is first) is (what == "other")

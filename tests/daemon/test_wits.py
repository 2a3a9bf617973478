"""WIT-SVIDs of the daemon: a key for each, renewed in time, withdrawn with what they rest on."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from cryptography import x509
from support.authority import Authority
from support.node_host import Place, entry, placed

from accredit_client.answers import WitAnswer
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.core import Core
from accredit_client.daemon.provider import NotYet, Refused, WorkloadWit
from accredit_client.daemon.tokens import Tokens
from accredit_client.daemon.wits import Wits
from accredit_client.errors import IssuerRefused, IssuerUnreachable
from accredit_credentials import wit_svid
from accredit_credentials.keys import check_public_key
from accredit_credentials.revocation import FactKind
from accredit_credentials.wit_svid import WitSvid
from accredit_credentials.x509_svid import X509Identity

pytestmark = pytest.mark.anyio

LIFE = timedelta(minutes=15)


@pytest.fixture
def anyio_backend() -> str:
    """The daemon's event loop is asyncio's."""
    return "asyncio"


@dataclass
class Answering:
    """An issuer that does as it is told; ``changes`` are to what it signs."""

    place: Place
    failure: Exception | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    asked: list[X509Identity] = field(default_factory=list)

    async def __call__(self, identity: X509Identity, csr: str) -> WitAnswer:
        """Answer."""
        self.asked.append(identity)
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        authority, now = self.place.node.authority, self.place.clock()
        request = x509.load_pem_x509_csr(csr.encode())
        assert request.is_signature_valid
        good = WitSvid(
            spiffe_id=identity.svid.spiffe_id,
            key=check_public_key(request.public_key()),
            algorithm="ES256",
            expires_at=now + LIFE,
            issued_at=now,
            jti=str(uuid4()),
        )
        svid = replace(good, **self.changes)
        return WitAnswer(
            spiffe_id=svid.spiffe_id,
            token=wit_svid.sign(svid, authority.wit_key, authority.wit_kid),
            jti=str(svid.jti),
            expires_at=svid.expires_at,
        )


@dataclass
class Daemon:
    """A core on a host in the test's hands."""

    place: Place
    issuer: Answering
    wits: Wits
    core: Core

    def watch(self, caller: Caller) -> AsyncIterator[tuple[WorkloadWit, ...]]:
        """A stream of all WIT-SVIDs."""
        return self.core.watch_wits(caller, None)

    async def one(self, caller: Caller) -> WorkloadWit:
        """The first WIT-SVID of a new stream."""
        stream = self.watch(caller)
        (wit,) = await read(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        return wit

    async def later(self, **span: float) -> None:
        """Move the time, and have whoever waits look."""
        await self.place.advance(**span)
        self.place.workloads.tell()


async def read(stream: AsyncIterator[tuple[WorkloadWit, ...]]) -> tuple[WorkloadWit, ...]:
    """The next value of a stream."""
    async with asyncio.timeout(10):
        return await anext(stream)


async def changed(
    stream: AsyncIterator[tuple[WorkloadWit, ...]], before: WorkloadWit
) -> WorkloadWit:
    """The next WIT-SVID that is another."""
    while True:
        (wit,) = await read(stream)
        if wit != before:
            return wit


class Holder:
    """Whose WIT-SVIDs are held: any object will do."""


@asynccontextmanager
async def hosting(authority: Authority, *names: str) -> AsyncIterator[Daemon]:
    """A core, with an issuer of WIT-SVIDs."""
    entries = [entry(name) for name in names]
    async with placed(authority, *entries) as place:
        place.node.bundle = authority.bundle_with_wits
        issuer = Answering(place)
        node = place.node
        tokens = Tokens(
            "https://localhost:1", lambda: node.bundle, lambda: node.facts, clock=place.clock
        )
        wits = Wits(issuer, node, clock=place.clock, draw=lambda: 0.5)
        core = Core(
            node, place.workloads, tokens, wits, clock=place.clock, draw=lambda: 0.5, crls=False
        )
        core.stepped()
        yield Daemon(place, issuer, wits, core)


@pytest.mark.spec("SPIFFE-79")
async def test_a_workload_has_a_key_of_its_own_for_it(authority: Authority) -> None:
    """Neither the key of its X.509-SVID nor another process's; streams of one process share it."""
    async with hosting(authority) as daemon:
        place, caller = daemon.place, daemon.place.me()
        wits = await asyncio.gather(*(daemon.one(caller) for _ in range(20)))
        assert len({wit.token for wit in wits}) == 1
        assert len(daemon.issuer.asked) == 1
        (identity,) = daemon.issuer.asked
        assert identity.key.public_key() != wits[0].key.public_key()
        _, other = place.other()
        assert (await daemon.one(other)).key.public_key() != wits[0].key.public_key()
        assert "token" not in repr(wits[0])


@pytest.mark.spec("SPIFFE-79")
async def test_it_is_renewed_at_half_life_for_a_new_key(authority: Authority) -> None:
    """Before that the same is told; at half life another comes, with another key."""
    async with hosting(authority) as daemon:
        stream = daemon.watch(daemon.place.me())
        (first,) = await read(stream)
        await daemon.later(minutes=7)
        assert await read(stream) == (first,)
        await daemon.later(minutes=1)
        second = await changed(stream, first)
        assert second.key.public_key() != first.key.public_key()
        assert len(daemon.issuer.asked) == 2


async def test_a_stream_wakes_for_the_renewal_by_itself(authority: Authority) -> None:
    """Nobody else has to have news: the moment itself brings the next one."""
    async with hosting(authority) as daemon:
        daemon.issuer.changes = {"expires_at": daemon.place.clock() + timedelta(seconds=1)}
        stream = daemon.watch(daemon.place.me())
        (first,) = await read(stream)
        daemon.issuer.changes = {}
        daemon.place.clock.advance(seconds=0.6)
        assert (await changed(stream, first)).token != first.token


async def test_an_issuer_that_is_away_is_asked_again_after_a_pause(authority: Authority) -> None:
    """What is held is good to its end; then it is not yet, and however many ask, one asks there."""
    async with hosting(authority) as daemon:
        caller = daemon.place.me()
        stream = daemon.watch(caller)
        (wit,) = await read(stream)
        daemon.issuer.failure = IssuerUnreachable("away")
        await daemon.later(minutes=14)
        assert await read(stream) == (wit,)
        asked = len(daemon.issuer.asked)
        for _ in range(50):
            assert await daemon.one(caller) == wit
        assert len(daemon.issuer.asked) == asked
        await daemon.later(minutes=2)
        with pytest.raises(NotYet, match="away"):
            await read(stream)
        for _ in range(50):
            with pytest.raises(NotYet):
                await daemon.one(caller)
        assert len(daemon.issuer.asked) <= asked + 2
        daemon.issuer.failure = None
        await daemon.later(minutes=2)
        assert await daemon.one(caller) != wit


async def test_an_issuer_without_wit_svids_is_named_and_left_alone(authority: Authority) -> None:
    """The reason is told, and nobody who asks again and again makes the daemon do so."""
    async with hosting(authority) as daemon:
        caller = daemon.place.me()
        daemon.issuer.failure = IssuerRefused("not-found", "this issuer issues none", 404)
        for _ in range(50):
            with pytest.raises(Refused, match="issues no WIT-SVIDs"):
                await daemon.one(caller)
        assert len(daemon.issuer.asked) == 1


async def test_a_refusal_withdraws_what_is_held(authority: Authority) -> None:
    """An issuer that says no ends the stream, although the earlier one would still be good."""
    async with hosting(authority) as daemon:
        caller = daemon.place.me()
        stream = daemon.watch(caller)
        await read(stream)
        daemon.issuer.failure = IssuerRefused("revoked", "incident", 403)
        await daemon.later(minutes=8)
        with pytest.raises(Refused, match="incident"):
            await read(stream)
        daemon.issuer.failure = None
        await daemon.later(minutes=2)
        assert await daemon.one(caller)


async def test_it_is_withdrawn_with_the_svid(authority: Authority) -> None:
    """A fact against the instance ends the stream with the reason; the issuer is not asked."""
    async with hosting(authority) as daemon:
        place, caller = daemon.place, daemon.place.me()
        stream = daemon.watch(caller)
        await read(stream)
        instance = daemon.issuer.asked[0].svid.instance
        daemon.core.facts_came(place.node.state(f"instance:{instance}", FactKind.REVOKED, 1))
        with pytest.raises(Refused, match="incident"):
            await read(stream)
        with pytest.raises(Refused, match="incident"):
            await daemon.one(caller)
        assert len(daemon.issuer.asked) == 1


async def test_one_that_is_taken_back_by_itself_is_replaced(authority: Authority) -> None:
    """A fact about its own id says nothing of the instance: another one is asked for at once."""
    async with hosting(authority) as daemon:
        daemon.issuer.changes = {"jti": "0196f0a0-0000-7000-8000-000000000003"}
        stream = daemon.watch(daemon.place.me())
        (first,) = await read(stream)
        daemon.issuer.changes = {}
        fact = daemon.place.node.state(
            "jti:0196f0a0-0000-7000-8000-000000000003", FactKind.REVOKED, 1
        )
        daemon.core.facts_came(fact)
        assert (await changed(stream, first)).token != first.token


async def test_a_stream_waits_for_what_it_asked_for_only(authority: Authority) -> None:
    """What is due of another identity, which nobody asks for, must not keep a stream turning."""
    async with hosting(authority) as daemon:
        workload = Holder()
        first, second = (authority.issue(instance=str(uuid4())) for _ in range(2))
        await daemon.wits.of(workload, first)
        daemon.issuer.failure = IssuerUnreachable("away")
        with pytest.raises(NotYet):
            await daemon.wits.of(workload, second)
        assert daemon.wits.next_change(workload, [first]) == 60
        assert daemon.wits.next_change(workload, [first, second]) < 1
        await daemon.later(minutes=7, seconds=20)
        assert daemon.wits.next_change(workload, [first]) == 10
        assert daemon.wits.next_change(workload, [second]) == 0


async def test_each_instance_of_one_agent_has_its_own(authority: Authority) -> None:
    """Two entries of one agent are two instances: two WIT-SVIDs, each with its hint and key."""
    async with hosting(authority, "summarizer", "summarizer") as daemon:
        stream = daemon.watch(daemon.place.me())
        first, second = await read(stream)
        assert first.spiffe_id == second.spiffe_id
        assert first.key.public_key() != second.key.public_key()
        assert len({each.svid.instance for each in daemon.issuer.asked}) == 2


async def test_keys_go_with_their_process(authority: Authority) -> None:
    """When it has ended, nothing here holds what it had."""
    async with hosting(authority) as daemon:
        process, caller = daemon.place.other()
        await daemon.one(caller)
        assert len(daemon.wits._of) == 1
        process.end()
        await daemon.place.until(lambda: not len(daemon.place.workloads))
        await daemon.place.until(lambda: gc.collect() >= 0 and not daemon.wits._of)


@pytest.mark.parametrize("gone", [True, False])
async def test_a_bundle_that_changes_its_keys_brings_another(
    authority: Authority, *, gone: bool
) -> None:
    """What a dropped key signed is replaced at once, what a tainted one did within 20 s."""
    async with hosting(authority) as daemon:
        stream = daemon.watch(daemon.place.me())
        (first,) = await read(stream)
        bundle, old = authority.bundle_with_wits, authority.wit_kid
        authority.wit_kid = "77697432"
        keys = {authority.wit_kid: authority.wit_key.public_key()}
        if not gone:
            keys = {**keys, old: authority.wit_key.public_key()}
        daemon.place.node.bundle = replace(
            bundle, wit_authorities=keys, tainted=frozenset() if gone else frozenset({old})
        )
        daemon.core.stepped()
        if not gone:
            assert await read(stream) == (first,)
            await daemon.later(seconds=10)
        assert (await changed(stream, first)).token != first.token


async def test_what_the_issuer_signs_is_believed_by_the_bundle_only(authority: Authority) -> None:
    """For another key, another identity or under an unknown key: it is not handed to a workload."""
    async with hosting(authority) as daemon:
        caller = daemon.place.me()
        for wrong in (
            {"key": authority.jwt_key.public_key()},
            {"spiffe_id": authority.id("/ns/support/agent/other")},
            {"expires_at": daemon.place.clock()},
        ):
            daemon.issuer.changes = wrong
            with pytest.raises(NotYet):
                await daemon.one(caller)
            await daemon.later(minutes=2)
        daemon.issuer.changes = {}
        daemon.place.node.bundle = authority.bundle
        with pytest.raises(NotYet, match="no WIT authorities"):
            await daemon.one(caller)
        daemon.place.node.bundle = authority.bundle_with_wits
        await daemon.later(minutes=2)
        assert await daemon.one(caller)

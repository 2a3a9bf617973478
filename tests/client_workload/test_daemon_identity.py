"""An identity from the node daemon: the real socket and wire, a provider in the test's hands."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from grpclib import GRPCError
from grpclib import Status as GrpcStatus
from support.authority import Authority
from support.clock import SettableClock
from support.fake_issuer import fake_issuer, real_now
from support.workload import WAIT, FakeProvider, Served, crl_of, serving, state_of

from accredit_client import AgentIdentity, AsyncAgentIdentity, State
from accredit_client.calls import TaskTokenRequest
from accredit_client.daemon.provider import NotYet, Refused
from accredit_client.errors import (
    Closed,
    IdentityExpired,
    IdentityRefused,
    IssuerRefused,
    IssuerUnreachable,
    NotReady,
)
from accredit_client.workload.line import Outcome, outcome_of
from accredit_credentials.errors import Revoked, Stale, Untrusted

pytestmark = pytest.mark.anyio

AUDIENCE = "https://api.example.org"


class Pauses:
    """How a line waits: until the test lets it go on. Called in the line's own loop."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def __call__(self, seconds: float) -> None:
        """Wait."""
        event = asyncio.Event()
        self._waiting.append((asyncio.get_running_loop(), event))
        self.seconds.append(seconds)
        await event.wait()

    def go(self) -> None:
        """Let all that wait go on."""
        while self._waiting:
            loop, event = self._waiting.pop()
            loop.call_soon_threadsafe(event.set)


class Place:
    """A daemon that is served, an identity of it, and their time."""

    def __init__(self, served: Served, authority: Authority) -> None:
        self.served = served
        self.authority = authority
        self.provider = served.provider
        self.clock = SettableClock(authority.now)
        self.pauses = Pauses()

    @asynccontextmanager
    async def identity(self, **options: Any) -> AsyncIterator[AgentIdentity]:
        """A threaded identity; started and ended beside the daemon's event loop."""
        identity = self.made(AgentIdentity, **options)
        try:
            yield await asyncio.to_thread(identity.start)
        finally:
            await asyncio.to_thread(identity.close)

    def made(self, kind: Any, **options: Any) -> Any:
        """An identity that was not started."""
        given = {"clock": self.clock, "draw": lambda: 1.0, "pause": self.pauses, "patience": 0.0}
        return kind.from_daemon(self.served.path, **{**given, **options})

    async def until(self, true: Callable[[], Any]) -> None:
        """Wait for what the other thread does."""
        await self.served.until(true)


@pytest.fixture
def authority() -> Authority:
    """A trust domain of this test's own."""
    return Authority()


@pytest.fixture
async def place(served: Served, authority: Authority) -> AsyncIterator[Place]:
    """As ``served``; nobody's thread outlives the test."""
    before = set(threading.enumerate())
    yield Place(served, authority)
    left = [each for each in threading.enumerate() if each.name.startswith("accredit-")]
    assert not set(left) - before


def serial(identity: Any) -> str:
    """Which SVID is held."""
    found: str = identity.x509.svid.serial
    return found


async def test_both_kinds_hold_what_the_daemon_pushes(place: Place) -> None:
    """Threads and asyncio: the first SVID is there at the start, each rotation soon after."""
    seen: list[str] = []
    async with place.identity() as threaded, place.made(AsyncAgentIdentity) as tasked:
        threaded.on_renewal(lambda identity: seen.append(identity.svid.serial))
        first = place.provider.state.svids[0].identity  # type: ignore[union-attr]
        assert serial(threaded) == serial(tasked) == first.svid.serial
        assert threaded.bundle == place.authority.bundle  # tokens' keys, sequence and all
        assert threaded.status.state is State.FRESH
        place.provider.set(state_of(place.authority, "/ns/support/agent/triage"))
        await place.until(lambda: serial(threaded) == serial(tasked) != first.svid.serial)
        await place.until(lambda: seen == [serial(threaded)])
        renewed = await tasked.wait_until_renewed(WAIT, after=first)
        assert renewed.svid.serial == seen[0]
        assert "PRIVATE" not in repr(threaded._keeper)


async def test_what_did_not_change_stays_the_same_object(place: Place) -> None:
    """Contexts and verified tokens hang on it: another CRL is no other identity and no bundle."""
    state = place.provider.state
    async with place.identity() as identity:
        x509, bundle = identity.x509, identity.bundle
        keeper = identity._keeper
        place.provider.set(replace(state, crls=(crl_of(place.authority, 2),)))  # type: ignore[type-var]
        await place.until(lambda: keeper._lists.contents != state.crls)  # type: ignore[attr-defined,union-attr]
        assert identity.x509 is x509
        assert identity.bundle is bundle


@pytest.mark.spec("SPIFFE-68")
async def test_nothing_is_kept_of_earlier_messages(
    place: Place, other_authority: Authority
) -> None:
    """A federated bundle, a CRL, a second identity: what the next message lacks is gone."""
    other = other_authority.trust_domain
    second = place.authority.id("/ns/support/agent/second")
    async with (
        place.identity(federation=True) as identity,
        place.identity(spiffe_id=second) as another,
    ):
        assert identity.bundle_of(other).x509_authorities == (other_authority.root.certificate,)
        assert identity._keeper._lists.contents  # type: ignore[attr-defined]
        assert another.x509.svid.spiffe_id == second
        with pytest.raises(Untrusted, match="nothing is allowed"):
            identity.check_client(other_authority.issue(other_authority.id()).svid)
        place.provider.set(state_of(place.authority, "/ns/support/agent/triage"))
        await place.until(lambda: not identity._keeper._lists.contents)  # type: ignore[attr-defined]
        await place.until(lambda: another.status.state is State.REFUSED)
        with pytest.raises(Untrusted):
            identity.bundle_of(other)
        with pytest.raises(IdentityRefused, match="serves no SVID"):
            _ = another.x509
        with pytest.raises(IdentityRefused):
            _ = another.bundle
        assert identity.x509


@pytest.mark.spec("SPIFFE-62")
@pytest.mark.parametrize("status", [GrpcStatus.INVALID_ARGUMENT, GrpcStatus.UNIMPLEMENTED])
async def test_a_wrong_request_is_not_repeated(place: Place, status: GrpcStatus) -> None:
    """It would fail the same way: a start says so, and what is held is held until its end."""
    state = place.provider.state
    async with place.identity() as identity:
        place.provider.set(GRPCError(status, "no such thing"))
        await place.until(lambda: identity.status.last_error is not None)
        assert isinstance(identity.status.last_error, IssuerRefused)
        place.provider.set(state)
        await place.until(lambda: place.provider.watching == 0)
        assert place.pauses.seconds == []
        assert identity.x509
        place.clock.advance(hours=2)
        with pytest.raises(IdentityExpired):
            _ = identity.x509
    place.provider.set(GRPCError(status, "no such thing"))
    with pytest.raises(IssuerRefused, match="no such thing"):
        async with place.identity(patience=3600.0):
            pass


@pytest.mark.spec("SPIFFE-62")
@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (GRPCError(GrpcStatus.INVALID_ARGUMENT), Outcome.NEVER),
        (GRPCError(GrpcStatus.UNIMPLEMENTED), Outcome.NEVER),
        (GRPCError(GrpcStatus.PERMISSION_DENIED), Outcome.WITHDRAWN),
        (GRPCError(GrpcStatus.UNAVAILABLE), Outcome.AGAIN),
        (GRPCError(GrpcStatus.INTERNAL), Outcome.AGAIN),
        (GRPCError(GrpcStatus.RESOURCE_EXHAUSTED), Outcome.AGAIN),
        (GRPCError(GrpcStatus.UNAUTHENTICATED), Outcome.AGAIN),
        (IssuerUnreachable("it ended"), Outcome.AGAIN),
        (ConnectionRefusedError(), Outcome.AGAIN),
        (TimeoutError(), Outcome.AGAIN),
    ],
)
async def test_each_end_of_a_stream_means_one_thing(error: Exception, outcome: Outcome) -> None:
    """Only the daemon's own word takes an identity away, or ends the asking."""
    assert outcome_of(error) is outcome


async def test_a_withdrawn_identity_is_unusable_and_comes_back(place: Place) -> None:
    """PermissionDenied: gone at once, with the reason; asked again, and there again."""
    state = place.provider.state
    async with place.identity() as identity:
        context = identity.server_context(peer="spiffe://example.org/ns/support/agent/second")
        assert context
        place.provider.set(Refused("revoked: incident 7"))
        await place.until(lambda: identity.status.state is State.REFUSED)
        for use in (
            lambda: identity.x509,
            lambda: identity.bundle,
            lambda: identity.fetch_jwt_svid(AUDIENCE),
            identity._view,
            identity._last_view,
        ):
            with pytest.raises(IdentityRefused, match="incident 7"):
                use()
        await place.until(lambda: place.pauses.seconds)
        place.provider.set(state)
        place.pauses.go()
        await place.until(lambda: identity.status.state is State.FRESH)
        assert identity.x509


async def test_a_start_without_an_identity_says_why(place: Place) -> None:
    """Refused at once; unreachable after its patience."""
    place.provider.set(Refused("no agent is meant by this process"))
    with pytest.raises(IdentityRefused, match="no agent is meant"):
        async with place.identity(patience=60.0):
            pass
    place.provider.set(NotYet("the issuer is away"))
    with pytest.raises(IssuerUnreachable, match="the issuer is away"):
        async with place.identity():
            pass


async def test_a_daemon_that_is_away_for_hours_takes_nothing_away(
    tmp_path: Path, authority: Authority
) -> None:
    """Served until its end; pauses grow to a minute; the next daemon is found by itself."""
    provider = FakeProvider(authority, state_of(authority))
    async with serving(tmp_path, provider) as served:
        place = Place(served, authority)
        manager = place.identity()
        identity = await manager.__aenter__()
        first = serial(identity)
    for tries in range(2, 20):
        await place.until(lambda tries=tries: len(place.pauses.seconds) >= 2 * (tries - 1))  # type: ignore[misc]
        assert serial(identity) == first
        place.pauses.go()
    assert max(place.pauses.seconds) == 60.0
    assert sorted(place.pauses.seconds)[:2] == [1.0, 1.0]
    assert isinstance(identity.status.last_error, IssuerUnreachable)
    place.clock.advance(hours=3)
    with pytest.raises(IdentityExpired):
        _ = identity.x509
    authority.now += timedelta(hours=3)
    async with serving(tmp_path, FakeProvider(authority, state_of(authority))):
        while identity.status.state is not State.FRESH:
            place.pauses.go()
            await asyncio.sleep(0)
        assert serial(identity) != first
        await manager.__aexit__(None, None, None)


async def test_a_message_that_cannot_be_believed_takes_the_old_one_away(
    place: Place, other_authority: Authority
) -> None:
    """An SVID that the bundle beside it does not vouch for: not used, and nothing is used on."""
    forged = replace(
        state_of(Authority(), "/ns/support/agent/triage"), bundle=place.authority.bundle
    )
    async with place.identity() as identity:
        place.provider.set(forged)
        await place.until(lambda: identity.status.state is State.REFUSED)
        with pytest.raises(IdentityRefused, match="no path to an authority"):
            _ = identity.x509


async def test_a_jwt_svid_is_kept_and_renewed_at_half_life(place: Place) -> None:
    """One call for each audience, until half of its life; an older one while the daemon is away."""
    asked = place.provider.asked
    async with place.identity() as identity, place.made(AsyncAgentIdentity) as tasked:

        async def fetch(audience: str = AUDIENCE) -> str:
            return (await asyncio.to_thread(identity.fetch_jwt_svid, audience)).token

        tokens = set(await asyncio.gather(*(fetch() for _ in range(8))))
        assert len(tokens) == len(asked) == 1
        await fetch("https://other.example.org")
        assert len(asked) == 2
        assert (await tasked.fetch_jwt_svid(AUDIENCE)).token
        assert len(asked) == 3
        place.clock.advance(seconds=149)
        await fetch()
        assert len(asked) == 3
        place.clock.advance(seconds=2)
        place.authority.now = place.clock.now
        newer = await fetch()
        assert newer not in tokens
        assert len(asked) == 4
        place.clock.advance(seconds=200)
        jwt_svids = place.provider.jwt_svids
        place.provider.jwt_svids = away  # type: ignore[method-assign]
        assert await fetch() == newer
        place.clock.advance(seconds=101)
        with pytest.raises(IssuerUnreachable, match="issuer is away"):
            await fetch()
        place.provider.jwt_svids = jwt_svids  # type: ignore[method-assign]


async def away(*_: Any) -> Any:
    """An answer that is none."""
    raise NotYet("the issuer is away")


async def test_before_its_start_and_after_its_end_it_is_nobody(place: Place) -> None:
    """Neither a token nor a wait: it says what is missing. What failed can be started again."""
    identity = place.made(AgentIdentity)
    with pytest.raises(NotReady):
        identity.fetch_jwt_svid(AUDIENCE)
    state = place.provider.state
    place.provider.set(NotYet("the issuer is away"))
    with pytest.raises(IssuerUnreachable):
        await asyncio.to_thread(identity.start)
    place.provider.set(state)
    await asyncio.to_thread(identity.start)
    assert identity.x509
    await asyncio.to_thread(identity.close)
    with pytest.raises(Closed):
        identity.fetch_jwt_svid(AUDIENCE)


async def test_a_task_token_is_of_the_identity_that_is_held(place: Place) -> None:
    """Asked over our own service; a refusal is an ``IssuerRefused``, as from the issuer itself."""
    request = TaskTokenRequest(resource="tickets", actions=("read",), purpose="a test")
    async with place.identity() as identity:
        answer = await asyncio.to_thread(identity.task_token, request)
        assert answer.access_token == "token-canary"
        assert answer.expires_in == 300
        _, wanted, spiffe_id = place.provider.asked[-1]
        assert (wanted.resource, wanted.actions) == ("tickets", ("read",))
        assert spiffe_id == identity.x509.svid.spiffe_id
        wrong = replace(request, purpose="")
        with pytest.raises(IssuerRefused) as refused:
            await asyncio.to_thread(identity.task_token, wrong)
        assert refused.value.kind == "malformed"


async def test_a_daemon_that_is_away_too_long_leaves_nobody_let_in(place: Place) -> None:
    """With ``revocations`` nothing old counts; without, a peer that is not listed is let in."""
    peer = place.authority.issue(place.authority.id("/ns/support/agent/second")).svid
    async with place.identity(revocations=True) as strict, place.identity() as lenient:
        strict.check_client(peer)
        place.provider.set(NotYet("restarting"))
        await place.until(lambda: strict._keeper._line.news.lost_at)  # type: ignore[attr-defined]
        place.clock.advance(seconds=30)
        strict.check_client(peer)
        place.clock.advance(seconds=1)
        with pytest.raises(Stale, match="has been away for 31 seconds"):
            strict.check_client(peer)
        lenient.check_client(peer)


async def test_with_an_issuers_address_its_feed_is_followed(tmp_path: Path) -> None:
    """Verified by the keys that the daemon pushes: a fact ends a peer that no CRL has."""
    authority = Authority(now=real_now())
    peer = authority.issue(authority.id("/ns/support/agent/second")).svid
    provider = FakeProvider(authority, state_of(authority, "/ns/support/agent/triage"))
    async with serving(tmp_path, provider) as served:
        place = Place(served, authority)
        with fake_issuer(authority, place.clock) as issuer:
            async with place.identity(revocations=True, issuer_url=issuer.url) as identity:
                assert identity.feed is not None
                await asyncio.to_thread(identity.feed.wait_fresh, WAIT)
                identity.check_client(peer)
                issuer.revoke(f"serial:{peer.serial}")
                assert identity.facts is not None
                await place.until(lambda: identity.facts and len(identity.facts))
                with pytest.raises(Revoked):
                    identity.check_client(peer)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
async def test_a_forked_process_has_no_identity(place: Place) -> None:
    """Its thread is not there: every use says so, and closing waits for nothing."""
    async with place.identity() as identity:
        child = os.fork()
        if not child:
            code = 1
            try:
                identity.fetch_jwt_svid(AUDIENCE)
            except Closed:
                identity.close()
                code = 0
            finally:
                os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert identity.x509
    with pytest.raises(Closed):
        _ = identity.x509

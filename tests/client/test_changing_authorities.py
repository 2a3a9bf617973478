"""Authorities that change under a running client: noticed, left, and asked about once."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from support.authority import Authority
from support.fake_issuer import Asked, FakeIssuer, begin_at, fake_issuer, real_now
from support.handshake import in_memory
from support.manual_time import ManualTime, TaskTime

from accredit_client.async_identity import AsyncAgentIdentity
from accredit_client.files import FolderContent, write_folder
from accredit_client.identity import AgentIdentity
from accredit_client.keeper import UNKNOWN_KEY_PAUSE
from accredit_client.renewal import BUNDLE_POLL, TAINT_SPREAD, replace_after
from accredit_client.transports import LINGER, AsyncRotatingTransport, RotatingTransport
from accredit_client.trust import Trust
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import Untrusted
from accredit_credentials.tls import SpiffeContext, client_context, server_context
from accredit_credentials.x509_svid import authority_key_id

ME = "spiffe://example.org/ns/support/agent/triage"
POLL = BUNDLE_POLL + 1


def bundle_of(authority: Authority, **changes: Any) -> TrustBundle:
    """The authority's bundle in a later version."""
    return replace(authority.bundle, **{"sequence": 2, **changes})


def issuing_id(authority: Authority) -> str:
    """The key id of the CA that signs leaves."""
    return authority_key_id(authority.issue().svid.leaf) or ""


def root_id(authority: Authority) -> str:
    """The key id of the root."""
    return authority_key_id(authority.issuing.certificate) or ""


@pytest.fixture
def changing(options: dict[str, Any], time: ManualTime) -> Iterator[AgentIdentity]:
    """An identity of an authority of its own, which a test may change."""
    with closing(AgentIdentity(**options)) as identity:
        yield identity.start(waiter=time)


@pytest.fixture
def authority() -> Authority:
    """A trust domain that this test alone changes."""
    return Authority(now=real_now())


def step(time: ManualTime, seconds: float) -> None:
    """Let time pass, and what was due be done."""
    time.advance(seconds=seconds)
    time.settle()


def test_the_bundle_is_asked_for_every_half_minute_and_sent_once(
    changing: AgentIdentity, issuer: FakeIssuer, time: ManualTime
) -> None:
    """Unchanged it is not sent again, whatever its hint, and the very same object stays in use."""
    first = changing.bundle
    issuer.asked.clear()
    for _ in range(4):
        step(time, POLL)
    polls = issuer.calls_of("/v1/bundle")
    assert len(polls) == 4
    assert "if-none-match" not in polls[0].headers
    assert len({asked.headers["if-none-match"] for asked in polls[1:]}) == 1
    assert changing.bundle is first
    assert changing.status.renewals == 1


def test_a_poll_shows_no_svid(
    changing: AgentIdentity, issuer: FakeIssuer, time: ManualTime
) -> None:
    """The bundle is fetched without our SVID: it works when nobody takes that any more."""
    issuer.asked.clear()
    step(time, POLL)
    assert [asked.serial for asked in issuer.calls_of("/v1/bundle")] == [None]


@pytest.mark.parametrize("which", [issuing_id, root_id])
def test_an_svid_of_a_tainted_authority_is_renewed_within_a_minute(
    changing: AgentIdentity,
    issuer: FakeIssuer,
    authority: Authority,
    time: ManualTime,
    which: Callable[[Authority], str],
) -> None:
    """Whether its issuing CA or its root is tainted, the SVID is replaced long before half life."""
    old = changing.x509
    issuer.bundle = bundle_of(authority, tainted=frozenset({which(authority)}))
    if which is root_id:
        authority.root = authority.ca(common_name="another root")
    authority.issuing = authority.ca(below=authority.root, path_length=0, common_name="next")
    known = issuer.bundle.x509_authorities
    issuer.bundle = replace(issuer.bundle, x509_authorities=(*known, authority.root.certificate))
    step(time, POLL)
    assert changing.x509 is old
    step(time, TAINT_SPREAD)
    assert changing.x509.svid.serial != old.svid.serial
    assert not changing.x509.svid.authorities & changing.bundle.tainted
    step(time, 600)
    assert changing.status.renewals == 2


def test_another_authoritys_taint_is_nobodys_business(
    changing: AgentIdentity, issuer: FakeIssuer, authority: Authority, time: ManualTime
) -> None:
    """An SVID of an authority that is in order stays until half life."""
    issuer.bundle = bundle_of(authority, tainted=frozenset({"00" * 20, authority.kid}))
    for _ in range(10):
        step(time, POLL)
    assert changing.bundle.tainted
    assert changing.status.renewals == 1


def test_renewals_under_a_tainted_authority_are_few(
    changing: AgentIdentity, issuer: FakeIssuer, authority: Authority, time: ManualTime
) -> None:
    """Where the next SVID is tainted too, the tries come ever later; another bundle begins anew."""
    issuer.bundle = bundle_of(authority, tainted=frozenset({issuing_id(authority)}))
    for _ in range(360):  # an hour
        step(time, 10)
    assert 5 <= changing.status.renewals <= 10
    before = changing.status.renewals
    issuer.bundle = replace(issuer.bundle, sequence=3, tainted=issuer.bundle.tainted | {"00"})
    step(time, POLL)
    step(time, TAINT_SPREAD)
    assert changing.status.renewals == before + 1


@pytest.mark.parametrize(
    ("tries", "draw", "seconds"),
    [(0, 0.0, 0), (0, 0.5, 10), (1, 0.0, 30), (1, 1.0, 60), (2, 1.0, 120), (99, 1.0, 960)],
)
def test_replacing_is_spread_and_bounded(tries: int, draw: float, seconds: float) -> None:
    """The first try comes within 20 s; the pauses between further ones grow to 16 minutes."""
    assert replace_after(tries, draw=lambda: draw) == seconds


def test_an_svid_whose_root_is_gone_is_earned_anew(
    options: dict[str, Any], authority: Authority, time: ManualTime
) -> None:
    """Who slept through a rotation shows its dead SVID to nobody, and proves itself again."""
    with fake_issuer(authority, time.clock) as issuer:  # its own SVID is of the lasting root
        lasting = authority.root, authority.issuing
        authority.root = authority.ca(common_name="passing root")
        authority.issuing = authority.ca(below=authority.root, path_length=0, common_name="passing")
        roots = (lasting[0].certificate, authority.root.certificate)
        issuer.bundle = bundle_of(authority, x509_authorities=roots)
        token = options["join_token_file"].read_text()
        issuer.join_tokens.add(token)
        options |= {"issuer_url": issuer.url, "trust": Trust.from_bundle(issuer.bundle)}
        with closing(AgentIdentity(**options)) as identity:
            identity.start(waiter=time)
            old = identity.x509
            authority.root, authority.issuing = lasting
            issuer.bundle = bundle_of(authority, sequence=3)
            issuer.join_tokens.add(token)
            step(time, POLL)
            assert identity.x509.svid.serial != old.svid.serial
            assert [asked.serial for asked in issuer.calls_of("/v1/attestations")] == [None, None]
            assert issuer.calls_of("/v1/svids/x509") == []


def test_a_statement_tells_of_a_newer_bundle(
    options: dict[str, Any], issuer: FakeIssuer, authority: Authority, time: ManualTime
) -> None:
    """The bundle is fetched once as soon as the feed speaks of it, and every context follows."""
    with closing(AgentIdentity(**options, revocations=True)) as identity:
        identity.start(waiter=time)
        assert identity.feed is not None
        identity.feed.wait_fresh(20)
        time.settle()
        other = Authority("example.org", now=authority.now)
        server = server_context(
            bundle=authority.bundle, peer_check=lambda _: None, identity=other.issue(authority.id())
        )
        client = identity.client_context(peer=ME)
        assert not in_memory(client, server).succeeded
        issuer.asked.clear()
        roots = (*authority.bundle.x509_authorities, other.root.certificate)
        issuer.bundle = bundle_of(authority, x509_authorities=roots)
        for _ in range(5):
            issuer.tell()
        _until(identity, lambda: identity.bundle.sequence == 2)
        for _ in range(5):
            issuer.tell()
        step(time, 1)
        assert len(issuer.calls_of("/v1/bundle")) == 1
        assert in_memory(client, server).succeeded


def test_a_bundle_that_does_not_come_is_asked_for_once(
    options: dict[str, Any], issuer: FakeIssuer, authority: Authority, time: ManualTime
) -> None:
    """A replica that lags behind what the feed says is not asked again before the next poll."""
    with closing(AgentIdentity(**options, revocations=True)) as identity:
        identity.start(waiter=time)
        keeper = identity._keeper
        issuer.asked.clear()
        looks = keeper.looks
        assert identity._ask_for_bundle(7)
        _until(identity, lambda: keeper.looks == looks + 1)
        assert not identity._ask_for_bundle(7)
        assert not identity._ask_for_bundle(6)
        assert len(issuer.calls_of("/v1/bundle")) == 1


def test_a_failed_fetch_is_tried_again_later(
    changing: AgentIdentity, issuer: FakeIssuer, authority: Authority, time: ManualTime
) -> None:
    """What the feed spoke of is fetched when the issuer is back, with the pauses of any failure."""
    issuer.bundle = bundle_of(authority)
    issuer.away = True
    assert changing._ask_for_bundle(2)
    _until(changing, lambda: changing.status.failures == 1)
    assert not changing._ask_for_bundle(3)
    issuer.away = False
    step(time, 1)
    assert changing.bundle.sequence == 2


def test_a_statement_of_an_unknown_key_brings_the_key(
    options: dict[str, Any], issuer: FakeIssuer, authority: Authority, time: ManualTime
) -> None:
    """When the JWT key was replaced at once, the feed goes on with the bundle that names it."""
    with closing(AgentIdentity(**options, revocations=True)) as identity:
        identity.start(waiter=time)
        assert identity.feed is not None
        identity.feed.wait_fresh(20)
        time.settle()
        another = Authority("example.org", now=authority.now)
        authority.kid, authority.jwt_key = "jwt-2", another.jwt_key
        issuer.bundle = bundle_of(authority, jwt_authorities=authority.bundle.jwt_authorities)
        issuer.revoke("agent:support/triage")
        with identity.feed._changed:
            assert identity.feed._changed.wait_for(
                lambda: identity.feed is not None and identity.feed.state.through == 1, 20
            )
        assert "jwt-2" in identity.bundle.jwt_authorities


def test_a_thousand_unknown_keys_are_one_fetch(
    changing: AgentIdentity, issuer: FakeIssuer, time: ManualTime
) -> None:
    """Who names keys at random makes us ask the issuer once in five seconds, from any thread."""
    time.settle()
    issuer.asked.clear()
    asked = [changing.refetch_bundle(timeout=0 if n else 20) for n in range(1000)]
    assert not any(asked)
    assert len(issuer.calls_of("/v1/bundle")) == 1
    step(time, UNKNOWN_KEY_PAUSE)
    threads = [threading.Thread(target=changing.refetch_bundle) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(issuer.calls_of("/v1/bundle")) == 2


def test_the_async_twin(
    options: dict[str, Any], issuer: FakeIssuer, authority: Authority, time: ManualTime
) -> None:
    """In asyncio a bundle is fetched again alike, once for all who ask."""
    task_time = TaskTime(time.clock())

    async def ask() -> None:
        identity = AsyncAgentIdentity(**options)
        try:
            await identity.start(waiter=task_time)
            await task_time.settle()
            issuer.asked.clear()
            issuer.bundle = bundle_of(authority)
            both = await asyncio.gather(*(identity.refetch_bundle() for _ in range(20)))
            assert any(both)
            assert identity.bundle.sequence == 2
            assert len(issuer.calls_of("/v1/bundle")) == 1
        finally:
            await identity.aclose()

    asyncio.run(ask())


def test_a_folders_identity_fetches_for_itself(
    changing: AgentIdentity,
    issuer: FakeIssuer,
    authority: Authority,
    time: ManualTime,
    tmp_path: Any,
) -> None:
    """Who follows a folder has a newer bundle before the folder, and does not lose it to it."""
    folder = tmp_path / "identity"
    write_folder(folder, FolderContent(issuer.url, changing.bundle, changing.x509))
    folders = ManualTime(time.clock())
    reader = AgentIdentity.from_folder(folder, clock=time.clock, draw=lambda: 0.5)
    with closing(reader):
        reader.start(waiter=folders)
        issuer.bundle = bundle_of(authority)
        assert reader.refetch_bundle(20)
        assert reader.bundle.sequence == 2
        write_folder(folder, FolderContent(issuer.url, changing.bundle, changing.x509))
        step(folders, 3)
        assert reader.bundle.sequence == 2


@pytest.fixture
def contexts(authority: Authority) -> list[SpiffeContext]:
    """The context of the moment, as a list of one that a test replaces."""
    return [_context(authority.bundle)]


def _context(bundle: TrustBundle) -> SpiffeContext:
    return client_context(bundle=bundle, peer_check=lambda _: None)


def test_a_stream_ends_after_its_authority_was_dropped(
    issuer: FakeIssuer, authority: Authority, contexts: list[SpiffeContext]
) -> None:
    """A response without end goes on through a renewal, and a minute beyond an authority."""
    now = [0.0]
    transport = RotatingTransport(lambda: contexts[0], monotonic=lambda: now[0])
    url = f"{issuer.url}/v1/revocations/stream?after=0"
    with ExitStack() as stack:
        client = stack.enter_context(httpx2.Client(transport=transport, trust_env=False))
        chunks = stack.enter_context(client.stream("GET", url)).iter_raw()
        next(chunks)
        contexts[0] = _context(authority.bundle)
        issuer.tell()
        next(chunks)
        now[0] += LINGER
        issuer.tell()
        next(chunks)
        contexts[0] = _context(Authority(now=authority.now).bundle)
        issuer.tell()
        next(chunks)
        now[0] += LINGER - 1
        issuer.tell()
        next(chunks)
        now[0] += 1
        issuer.tell()
        with pytest.raises(httpx2.ReadError, match="an authority that was dropped"):
            next(chunks)


def test_an_async_stream_ends_alike(
    issuer: FakeIssuer, authority: Authority, contexts: list[SpiffeContext]
) -> None:
    """The asynchronous twin keeps to the same minute."""
    now = [0.0]
    transport = AsyncRotatingTransport(lambda: contexts[0], monotonic=lambda: now[0])
    url = f"{issuer.url}/v1/revocations/stream?after=0"

    async def read() -> None:
        async with (
            httpx2.AsyncClient(transport=transport, trust_env=False) as client,
            client.stream("GET", url) as response,
        ):
            chunks = response.aiter_raw()
            await anext(chunks)
            contexts[0] = _context(Authority(now=authority.now).bundle)
            issuer.tell()
            await anext(chunks)
            now[0] += LINGER
            issuer.tell()
            with pytest.raises(httpx2.ReadError, match="an authority that was dropped"):
                await anext(chunks)

    asyncio.run(read())


def _until(identity: AgentIdentity, true: Callable[[], bool]) -> None:
    with identity._changed:
        assert identity._changed.wait_for(true, 20)


def certified_by_a_newer(issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on another authority of the domain signs; a bundle that was fetched lacks it."""
    old, new = issuer.authority, Authority(now=issuer.authority.now)
    certify = issuer._certify

    def by_the_newer(csr: str) -> tuple[int, bytes, dict[str, str]]:
        issuer.authority = new
        try:
            return certify(csr)
        finally:
            issuer.authority = old
            roots = (*old.bundle.x509_authorities, *new.bundle.x509_authorities)
            issuer.bundle = bundle_of(old, x509_authorities=roots)

    monkeypatch.setattr(issuer, "_certify", by_the_newer)


@pytest.mark.parametrize("vouched", [True, False])
def test_an_svid_that_was_paid_for_waits_for_its_bundle(
    options: dict[str, Any], issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch, *, vouched: bool
) -> None:
    """An SVID whose bundle cannot be had now is kept; one that it does not vouch for is not."""
    time = ManualTime(begin_at(), passing=True)
    options["clock"] = time.clock
    certified_by_a_newer(issuer, monkeypatch)
    answer = issuer._bundle

    def once_away(asked: Asked, peer: bytes | None) -> tuple[int, bytes, dict[str, str]]:
        if issuer.issued and len(time.waits) == 0:
            return 503, b"{}", {}
        if not vouched:
            issuer.bundle = None
        return answer(asked, peer)

    monkeypatch.setattr(issuer, "_bundle", once_away)
    with closing(AgentIdentity(**options)) as identity:
        if vouched:
            identity.start(waiter=time)
            assert identity.x509.svid.serial == issuer.issued[0]
        else:
            with pytest.raises(Untrusted):
                identity.start(waiter=time)
            assert identity._keeper._held is None
    assert len(issuer.calls_of("/v1/attestations")) == 1


def test_in_asyncio_it_waits_alike(
    options: dict[str, Any], issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same in asyncio, for a renewal: what was signed is used once the bundle is there."""
    task_time = TaskTime(options["clock"]())
    options["clock"] = task_time.clock

    async def renew() -> None:
        identity = AsyncAgentIdentity(**options)
        try:
            await identity.start(waiter=task_time)
            certified_by_a_newer(issuer, monkeypatch)
            issuer.refuse("/v1/bundle", "unavailable", status=503, times=1)
            await task_time.advance(hours=11)
            await task_time.settle()
            assert identity.status.failures == 1
            assert identity.x509.svid.serial == issuer.issued[0]
            await task_time.advance(seconds=2)
            await task_time.settle()
            assert identity.x509.svid.serial == issuer.issued[1]
        finally:
            await identity.aclose()

    asyncio.run(renew())
    assert len(issuer.calls_of("/v1/svids/x509")) == 1

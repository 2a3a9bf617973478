"""The core: a workload's state at each change, tokens from memory, facts in force at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from support.authority import Authority
from support.node_host import Place, placed
from support.workload import PeerCaller, crl_of

from accredit_client.answers import JwtAnswer
from accredit_client.call import Call
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.core import MAX_NOTICES, Core
from accredit_client.daemon.provider import NotYet, Refused, WorkloadState
from accredit_client.daemon.tokens import Tokens
from accredit_client.daemon.wits import Wits
from accredit_client.errors import IssuerRefused, IssuerUnreachable, NotReady
from accredit_credentials import jwt_svid
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import Revoked, Untrusted, WrongAudience
from accredit_credentials.jwt_svid import AgentBlock, JwtSvid
from accredit_credentials.revocation import FactKind
from accredit_credentials.x509_svid import X509Identity

AUDIENCE = "https://api.example.org"
LIFE = timedelta(minutes=5)


@pytest.fixture
def anyio_backend() -> str:
    """The daemon's event loop is asyncio's."""
    return "asyncio"


class Served(Tokens):
    """Tokens of an issuer that does as it is told."""

    def __init__(self, place: Place) -> None:
        node = place.node
        super().__init__(
            "https://localhost:1", lambda: node.bundle, lambda: node.facts, clock=place.clock
        )
        self.place = place
        self.failure: Exception | None = None
        self.sent = 0

    async def _send(self, identity: X509Identity, call: Call[Any]) -> Any:
        self.sent += 1
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        authority, now = self.place.node.authority, self.place.clock()
        svid = JwtSvid(
            spiffe_id=identity.svid.spiffe_id,
            audience=tuple((call.body or {})["audience"]),
            issued_at=now,
            expires_at=now + LIFE,
            jti=f"jti-{self.sent}",
            agent=AgentBlock(
                version="1",
                instance=str(identity.svid.instance),
                manifest=str(identity.svid.manifest),
                assurance="node",
            ),
        )
        return JwtAnswer(
            spiffe_id=svid.spiffe_id,
            token=jwt_svid.sign(svid, authority.jwt_key, authority.kid),
            jti=str(svid.jti),
            expires_at=now + LIFE,
        )


class Daemon:
    """A core on a host in the test's hands."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.tokens = Served(place)
        self.core = Core(
            place.node,
            place.workloads,
            self.tokens,
            Wits(self.tokens.wit, place.node, clock=place.clock, draw=lambda: 0.5),
            clock=place.clock,
            draw=lambda: 0.5,
            waiter=place._waiter(),
        )

    async def token(self, caller: Caller, audience: str = AUDIENCE) -> str:
        """The one JWT-SVID of a caller."""
        ((_, token, _),) = await self.core.jwt_svids(caller, (audience,), None)
        return token


@asynccontextmanager
async def serving(authority: Authority) -> AsyncIterator[Daemon]:
    """A core, closed at the end."""
    async with placed(authority) as place:
        daemon = Daemon(place)
        daemon.core.start()
        try:
            yield daemon
        finally:
            await daemon.core.close()
            await daemon.tokens.close()


class Stream:
    """A watch, read in the test's own time."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.next: asyncio.Future[Any] | None = None

    async def read(self) -> Any:
        """The next value."""
        async with asyncio.timeout(10):
            return await anext(self.source)


@pytest.mark.anyio
async def test_a_watch_tells_each_change(authority: Authority, other_authority: Authority) -> None:
    """SVID, bundle, federated bundles and CRLs: all of it, at once and whenever one is another."""
    async with serving(authority) as daemon:
        place = daemon.place
        stream = Stream(daemon.core.watch(place.me()))
        first: WorkloadState = await stream.read()
        assert first.bundle is place.node.bundle
        assert not first.crls
        await place.advance(minutes=31)
        second = await stream.read()
        assert second.svids[0].identity is not first.svids[0].identity
        place.node.crls = (crl_of(authority),)
        place.node.federated_bundles = {other_authority.trust_domain: other_authority.bundle}
        await place.advance(minutes=5)
        place.node.bundle = TrustBundle(
            authority.trust_domain, authority.bundle.x509_authorities, sequence=2
        )
        daemon.core.stepped()
        third = await stream.read()
        assert third.crls == place.node.crls
        assert third.bundle is place.node.bundle
        assert third.federated == place.node.federated_bundles
        await stream.source.aclose()


@pytest.mark.anyio
async def test_a_fact_ends_whom_it_is_about_and_tells_everybody(authority: Authority) -> None:
    """The stream ends with the reason; notices reach the one that is meant, too."""
    async with serving(authority) as daemon:
        place, core = daemon.place, daemon.core
        caller = place.me()
        stream, notices = Stream(core.watch(caller)), Stream(core.revocations(caller))
        identity = (await stream.read()).svids[0].identity
        assert (await notices.read()).facts == ()
        token = await daemon.token(caller)
        fact = place.node.state(f"instance:{identity.svid.instance}", FactKind.REVOKED, 1)
        core.facts_came(fact)
        with pytest.raises(Refused, match="incident"):
            await stream.read()
        assert (await notices.read()).facts == fact
        with pytest.raises(Refused):
            await daemon.token(caller)
        with pytest.raises(Refused):
            await Stream(core.watch(caller)).read()
        again = Stream(core.revocations(caller))
        assert (await again.read()).facts == fact
        _, other = place.other()
        await Stream(core.watch(other)).read()
        with pytest.raises(Revoked):
            await core.validate_jwt(other, AUDIENCE, token)
        for each in (notices, again):
            await each.source.aclose()


@pytest.mark.anyio
async def test_a_reader_of_notices_who_never_reads_is_ended(authority: Authority) -> None:
    """What waits for one reader is bounded."""
    async with serving(authority) as daemon:
        notices = Stream(daemon.core.revocations(daemon.place.me()))
        await notices.read()
        fact = daemon.place.node.state("serial:1", FactKind.REVOKED, 1)
        for _ in range(MAX_NOTICES + 10):
            daemon.core.facts_came(fact)
        for _ in range(MAX_NOTICES):
            await notices.read()
        with pytest.raises(NotYet):
            await notices.read()


@pytest.mark.anyio
async def test_tokens_come_from_memory_until_half_of_their_life(authority: Authority) -> None:
    """However many ask at once, the issuer is asked once; each audience has its own."""
    async with serving(authority) as daemon:
        place, caller = daemon.place, daemon.place.me()
        tokens = await asyncio.gather(*(daemon.token(caller) for _ in range(50)))
        assert len(set(tokens)) == 1
        assert daemon.tokens.sent == 1
        assert await daemon.token(caller, "https://other") not in tokens
        await place.advance(minutes=2)
        assert await daemon.token(caller) == tokens[0]
        await place.advance(minutes=1)
        assert await daemon.token(caller) != tokens[0]
        assert daemon.tokens.sent == 3


@pytest.mark.anyio
async def test_a_token_outlives_an_issuer_that_is_away(authority: Authority) -> None:
    """Until its own end; a refusal ends it at once, and another bundle has it asked for anew."""
    async with serving(authority) as daemon:
        place, caller = daemon.place, daemon.place.me()
        token = await daemon.token(caller)
        daemon.tokens.failure = IssuerUnreachable("away")
        await place.advance(minutes=4)
        assert await daemon.token(caller) == token
        daemon.tokens.failure = IssuerRefused("revoked", "incident", 403)
        with pytest.raises(IssuerRefused):
            await daemon.token(caller)
        daemon.tokens.failure = IssuerUnreachable("away")
        await place.advance(minutes=2)
        with pytest.raises(NotYet):
            await daemon.token(caller)
        daemon.tokens.failure = None
        fresh = await daemon.token(caller)
        place.node.bundle = TrustBundle(
            authority.trust_domain, authority.bundle.x509_authorities, sequence=3
        )
        daemon.core.stepped()
        assert await daemon.token(caller) != fresh


@pytest.mark.anyio
async def test_a_token_is_valid_for_whom_it_was_made(authority: Authority) -> None:
    """Its claims are told; not for another audience or domain, nor while the feed is silent."""
    async with serving(authority) as daemon:
        core, place, caller = daemon.core, daemon.place, daemon.place.me()
        token = await daemon.token(caller)
        with pytest.raises(NotYet, match="revocation"):
            await core.validate_jwt(caller, AUDIENCE, token)
        place.node.state("serial:1", FactKind.REVOKED, 1)
        spiffe_id, claims = await core.validate_jwt(caller, AUDIENCE, token)
        assert claims["sub"] == str(spiffe_id)
        with pytest.raises(WrongAudience):
            await core.validate_jwt(caller, "https://other", token)
        place.clock.advance(minutes=1)
        with pytest.raises(NotYet, match="60 seconds old"):
            await core.validate_jwt(caller, AUDIENCE, token)
        place.node.bundle = Authority("other.example").bundle
        with pytest.raises(Untrusted):
            await core.validate_jwt(caller, AUDIENCE, token)


@pytest.mark.anyio
async def test_only_ones_own_identity_can_be_named(authority: Authority) -> None:
    """By its very SPIFFE ID."""
    async with serving(authority) as daemon:
        caller = daemon.place.me()
        own = authority.id("/ns/support/agent/summarizer")
        ((found, _, _),) = await daemon.core.jwt_svids(caller, (AUDIENCE,), own)
        assert found == own
        other = authority.id("/ns/support/agent/triage")
        with pytest.raises(Refused, match="triage"):
            await daemon.core.jwt_svids(caller, (AUDIENCE,), other)


@pytest.mark.anyio
async def test_nobody_is_served_before_the_node_is_there(authority: Authority) -> None:
    """Not yet; and a caller that nobody pinned is refused."""
    async with serving(authority) as daemon:

        class Waiting(type(daemon.place.node)):  # type: ignore[misc]
            @property
            def bundle(self) -> TrustBundle:
                raise NotReady("no bundle yet")

            @bundle.setter
            def bundle(self, _: TrustBundle) -> None:
                pass

        place = daemon.place
        stranger = object.__new__(PeerCaller)
        with pytest.raises(Refused, match="pinned"):
            await Stream(daemon.core.watch(stranger)).read()
        daemon.core._node = Waiting(authority, place.clock)
        with pytest.raises(NotYet, match="not reached"):
            await Stream(daemon.core.watch(place.me())).read()

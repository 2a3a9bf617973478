"""TLS with an identity: contexts that follow it, and peers that are named."""

from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from support.authority import Authority
from support.fake_issuer import FakeIssuer
from support.handshake import in_memory, over_asyncio, over_sockets
from support.manual_time import ManualTime

from accredit_client.errors import IdentityExpired, InvalidPeer
from accredit_client.identity import AgentIdentity
from accredit_client.tls import following_context, members_of, predicate_of
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.tls import server_context
from accredit_credentials.x509_svid import parse_der

ME = "spiffe://example.org/ns/support/agent/triage"


def test_an_identity_talks_to_whom_it_names(identity: AgentIdentity) -> None:
    """Each side sees the other's SVID, over sockets and in asyncio."""
    for connect in (over_sockets, over_asyncio):
        seen = connect(identity.client_context(peer=ME), identity.server_context(peer=ME))
        assert seen.succeeded
        assert seen.server.peer == seen.client.peer == identity.x509.svid.der[0]


@pytest.mark.parametrize("side", ["client", "server"])
def test_whoever_is_not_named_is_refused(identity: AgentIdentity, side: str) -> None:
    """A good SVID of the trust domain is not enough: it has to be the one that was named."""
    other = "spiffe://example.org/ns/support/agent/other"
    client = identity.client_context(peer=other if side == "client" else ME)
    server = identity.server_context(peer=other if side == "server" else ME)
    seen = in_memory(client, server)
    assert not seen.succeeded
    refusing = seen.client if side == "client" else seen.server
    assert "not one that we talk to" in str(refusing.error)


def test_new_connections_show_the_newest_svid(
    identity: AgentIdentity, issuer: FakeIssuer, time: ManualTime
) -> None:
    """The same two contexts show the first SVID before a renewal and the second after it."""
    client, server = identity.client_context(peer=ME), identity.server_context(peer=ME)
    serials = [_serials(client, server)]
    time.advance(hours=10.1)
    time.settle()
    serials.append(_serials(client, server))
    first, second = issuer.issued
    assert serials == [(first, first), (second, second)]


def test_a_dropped_authority_is_not_believed_any_more(
    identity: AgentIdentity, authority: Authority, issuer: FakeIssuer, time: ManualTime
) -> None:
    """The same context refuses a peer once its root has left the bundle."""
    other_root = Authority("example.org", now=authority.now)
    server = server_context(
        bundle=authority.bundle, peer_check=lambda _: None, identity=other_root.issue()
    )
    both = (*authority.bundle.x509_authorities, *other_root.bundle.x509_authorities)
    issuer.bundle = _bundle(authority, both, sequence=2)
    time.advance(seconds=301)
    time.settle()
    client = identity.client_context(peer=ME)
    assert in_memory(client, server).succeeded
    issuer.bundle = _bundle(authority, authority.bundle.x509_authorities, sequence=3)
    time.advance(seconds=301)
    time.settle()
    assert not in_memory(client, server).succeeded


def test_an_expired_identity_does_not_connect(
    identity: AgentIdentity, issuer: FakeIssuer, time: ManualTime
) -> None:
    """The error is about our own SVID, before the peer is asked anything."""
    issuer.away = True
    time.advance(hours=20.1)
    time.settle()
    client = identity.client_context(peer=ME)
    with pytest.raises(IdentityExpired):
        client.wrap_bio(None, None)


def test_a_revoked_peer_is_refused_in_the_handshake(
    options: dict[str, Any], issuer: FakeIssuer, authority: Authority, time: ManualTime
) -> None:
    """An identity that follows the feed talks to nobody whom a fact matches."""
    with closing(AgentIdentity(**options, revocations=True)) as identity:
        identity.start(waiter=time)
        feed = identity.feed
        assert feed is not None
        feed.wait_fresh(20)
        other = authority.id("/ns/support/agent/other")
        client = identity.client_context(peer=str(other))
        server = server_context(
            bundle=authority.bundle,
            peer_check=lambda _: None,
            identity=authority.issue(other, not_before=time.clock() - timedelta(minutes=5)),
        )
        assert in_memory(client, server).succeeded
        issuer.revoke("agent:support/other")
        with feed._changed:
            assert feed._changed.wait_for(lambda: feed.state.through == 1, 20)
        seen = in_memory(client, server)
        assert not seen.succeeded
        assert "agent:support/other is revoked" in str(seen.client.error)


def test_a_context_that_nobody_delegates_trusts_nobody(authority: Authority) -> None:
    """A stand-in that is used as a plain context has no authority to believe."""
    stand_in = following_context(lambda: pytest.fail("asked"))
    assert stand_in.get_ca_certs() == []
    assert stand_in.verify_mode.name == "CERT_REQUIRED"


@pytest.mark.parametrize("peer", ["", [], (), "example.org", "spiffe://", ["spiffe://a/b\n"]])
def test_nobody_is_no_peer(peer: Any, identity: AgentIdentity) -> None:
    """An empty or malformed peer is an error when the context is made, not a yes or a no later."""
    for make in (identity.client_context, identity.server_context):
        with pytest.raises(InvalidPeer):
            make(peer=peer)
    with pytest.raises(InvalidPeer):
        predicate_of(peer)


def test_a_predicate_cannot_widen_the_trust_domain(
    identity: AgentIdentity, authority: Authority, other_authority: Authority
) -> None:
    """A predicate that accepts everybody still accepts members of the bundle's domain only."""
    foreign = authority.issue(other_authority.id())
    server = server_context(bundle=authority.bundle, peer_check=lambda _: None, identity=foreign)
    seen = in_memory(identity.client_context(peer=lambda _: True), server)
    assert "not of the trust domain" in str(seen.client.error)


def test_members_of_a_trust_domain(authority: Authority, other_authority: Authority) -> None:
    """A trust domain is compared as a whole name."""
    accepts = members_of("example.org")
    assert accepts(authority.id())
    assert not accepts(other_authority.id())
    assert not accepts(Authority("sub.example.org", now=authority.now).id())
    either = members_of("example.org", other_authority.trust_domain)
    assert either(authority.id())
    assert either(other_authority.id())
    assert not either(Authority("c.example", now=authority.now).id())
    with pytest.raises(InvalidPeer):
        members_of()


def _bundle(
    authority: Authority, roots: tuple[x509.Certificate, ...], *, sequence: int
) -> TrustBundle:
    known = authority.bundle
    return TrustBundle(known.trust_domain, roots, known.jwt_authorities, sequence=sequence)


def _serials(client: Any, server: Any) -> tuple[str, str]:
    seen = over_sockets(client, server)
    assert seen.succeeded
    assert seen.client.peer is not None
    assert seen.server.peer is not None
    return parse_der(seen.client.peer).serial, parse_der(seen.server.peer).serial

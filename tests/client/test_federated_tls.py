"""TLS with members of other trust domains: each by its own authorities, or not at all."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from support.authority import Authority, Signer, deviating
from support.fake_issuer import real_now
from support.handshake import Handshake, in_memory, over_asyncio, over_sockets

from accredit_credentials.bundle import TrustBundle
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain
from accredit_credentials.tls import Federated, SpiffeContext, client_context, server_context
from accredit_credentials.x509_svid import X509Identity, X509Svid

OURS = Authority("example.org", now=real_now())
THEIRS = Authority("b.example", now=real_now())
SERVER = OURS.issue(OURS.id("/ns/support/agent/tickets"))
AGENT = THEIRS.issue()


def anybody(_svid: X509Svid) -> None:
    """A check that refuses nobody."""


def federated(*bundles: TrustBundle) -> Federated:
    """Other trust domains, at the real time."""
    return Federated({b.trust_domain: b for b in bundles}, lambda: datetime.now(UTC))


def server(*bundles: TrustBundle, check: Any = anybody) -> SpiffeContext:
    """Our server, which knows these other domains."""
    return server_context(
        bundle=OURS.bundle, peer_check=check, identity=SERVER, federated=federated(*bundles)
    )


def client(identity: X509Identity) -> SpiffeContext:
    """Somebody who knows our domain."""
    return client_context(bundle=OURS.bundle, peer_check=anybody, identity=identity)


@pytest.mark.parametrize("connect", [in_memory, over_sockets, over_asyncio])
@pytest.mark.spec("SPIFFE-83")
def test_a_member_of_a_federated_domain_is_known(connect: Callable[..., Handshake]) -> None:
    """Its SVID is validated with its own domain's bundle; the server's check sees who it is."""
    seen: list[SpiffeId] = []
    context = server(THEIRS.bundle, check=lambda svid: seen.append(svid.spiffe_id))
    assert connect(client(AGENT), context).succeeded
    assert connect(client(OURS.issue()), context).succeeded
    assert seen == [AGENT.svid.spiffe_id, OURS.id()]


def test_we_know_their_servers_too() -> None:
    """A client that was told of the domain connects to its members; one that was not does not."""
    theirs = server_context(bundle=OURS.bundle, peer_check=anybody, identity=AGENT)
    ours = client_context(
        bundle=OURS.bundle,
        peer_check=anybody,
        identity=SERVER,
        federated=federated(THEIRS.bundle),
    )
    assert in_memory(ours, theirs).succeeded
    assert not in_memory(client(SERVER), theirs).succeeded


@pytest.mark.parametrize(
    "identity",
    [
        THEIRS.issue(OURS.id()),
        OURS.issue(THEIRS.id()),
        THEIRS.issue(SpiffeId(TrustDomain.parse("c.example"), "/ns/a/agent/b")),
        Authority("b.example", now=real_now()).issue(),
        Authority("c.example", now=real_now()).issue(),
    ],
    ids=["ours by them", "theirs by us", "another by them", "another root", "a stranger"],
)
@pytest.mark.parametrize("connect", [in_memory, over_sockets, over_asyncio])
@pytest.mark.spec("SPIFFE-83")
def test_no_authority_speaks_for_another_domain(
    identity: X509Identity, connect: Callable[..., Handshake]
) -> None:
    """A CA of one domain signs for no other, though OpenSSL has both in one store."""
    seen = connect(client(identity), server(THEIRS.bundle))
    assert not seen.succeeded
    assert seen.server.received == b""


def test_nobody_is_federated_by_default() -> None:
    """Without other domains the context is the one it always was."""
    context = server()
    assert context.federated is None
    assert not in_memory(client(AGENT), context).succeeded


def _namesake(original: Signer, liar: Signer) -> x509.Certificate:
    """A CA with the name and key identifier of another, and its own key."""
    identifier = original.certificate.extensions.get_extension_for_class(
        x509.SubjectKeyIdentifier
    ).value
    (name,) = original.certificate.subject
    other = THEIRS.ca(common_name=str(name.value), key=liar.key)
    return deviating(other.certificate, liar, extensions=[(identifier, False)])


@pytest.mark.parametrize("original", [OURS.root, OURS.issuing], ids=["root", "issuing CA"])
def test_a_namesake_of_our_authority_shuts_nobody_out(original: Signer) -> None:
    """Another domain cannot make OpenSSL look up its authority in the place of ours."""
    namesake = _namesake(original, THEIRS.root)
    bundle = TrustBundle(
        THEIRS.trust_domain, (namesake, *THEIRS.bundle.x509_authorities), sequence=2
    )
    context = server(bundle)
    assert in_memory(client(OURS.issue()), context).succeeded
    assert in_memory(client(AGENT), context).succeeded

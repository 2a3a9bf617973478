"""TLS with members of other trust domains: each by its own authorities, or not at all."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.authority import Authority, Signer, deviating
from support.fake_issuer import real_now
from support.handshake import Handshake, in_memory, over_asyncio, over_sockets

from accredit_credentials import der
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.keys import PrivateKey, generate_key
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


SECOND = OURS.ca(below=OURS.root, path_length=0, common_name="Accredit issuing CA 2")


def with_more(certificate: x509.Certificate) -> TrustBundle:
    """Their bundle, and one more authority in front."""
    return TrustBundle(
        THEIRS.trust_domain, (certificate, *THEIRS.bundle.x509_authorities), sequence=2
    )


def borrowed() -> x509.Certificate:
    """Our second CA's name, key identifier and very key, in an authority that is over."""
    over = THEIRS.ca(
        key=SECOND.key,
        common_name="Accredit issuing CA 2",
        not_after=OURS.now.replace(year=OURS.now.year - 1),
        not_before=OURS.now.replace(year=OURS.now.year - 2),
    )
    return deviating(over.certificate, THEIRS.root)


@pytest.mark.parametrize(
    "made", [lambda: _namesake(SECOND, THEIRS.root), borrowed], ids=["key id", "key"]
)
def test_a_namesake_of_a_ca_that_we_do_not_know_shuts_nobody_out(
    made: Callable[[], x509.Certificate],
) -> None:
    """Our other issuing CA, of which a server knows nothing yet, is not looked up at theirs."""
    ours, bundle = OURS.issue(signer=SECOND), with_more(made())
    assert in_memory(client(ours), server(bundle)).succeeded
    assert in_memory(client(AGENT), server(bundle)).succeeded
    serving = server_context(bundle=OURS.bundle, peer_check=anybody, identity=ours)
    calling = client_context(
        bundle=OURS.bundle, peer_check=anybody, identity=SERVER, federated=federated(bundle)
    )
    assert in_memory(calling, serving).succeeded


def _spki(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _point(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )


@pytest.mark.parametrize(
    ("key_id", "accepted"),
    [
        (lambda key: hashlib.sha1(_point(key), usedforsecurity=False).digest(), True),
        (lambda key: hashlib.sha256(_point(key)).digest()[:20], True),
        (lambda key: hashlib.sha384(_point(key)).digest()[:20], True),
        (lambda key: hashlib.sha512(_point(key)).digest()[:20], True),
        (lambda key: hashlib.sha256(_spki(key)).digest(), True),
        (lambda key: hashlib.sha256(_point(key)).digest()[:19], False),
        (lambda _: bytes(20), False),
        (lambda _: b"", False),
    ],
    ids=["SHA-1", "SHA-256", "SHA-384", "SHA-512", "whole", "shorter", "zeros", "empty"],
)
def test_a_foreign_key_identifier_is_derived_from_its_key(
    key_id: Callable[[PrivateKey], bytes], accepted: bool
) -> None:
    """As RFC 5280 or RFC 7093 say; whoever picks it freely could pick that of one of ours."""
    key = generate_key()
    identifier = x509.SubjectKeyIdentifier(key_id(key))
    root = THEIRS.ca(key=key)
    odd = Signer(deviating(root.certificate, root, extensions=[(identifier, False)]), key)
    issued = THEIRS.issue(
        signer=odd,
        chain=(),
        extensions=[(x509.AuthorityKeyIdentifier(identifier.digest, None, None), False)],
    )
    bundle = TrustBundle(THEIRS.trust_domain, (odd.certificate,))
    assert in_memory(client(issued), server(bundle)).succeeded is accepted


def _renamed(tag_and_name: bytes) -> x509.Certificate:
    """A root of theirs that is signed as it should be, with another attribute for a name."""
    root = THEIRS.ca(common_name="AAAAAAAA")
    tbs = root.certificate.tbs_certificate_bytes
    assert tbs.count(b"\x0c\x08AAAAAAAA") == 2
    tbs = tbs.replace(b"\x0c\x08AAAAAAAA", tag_and_name)
    signature = root.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256
    bits = der.tlv(der.BIT_STRING, b"\0" + signature)
    return x509.load_der_x509_certificate(der.sequence(tbs, algorithm, bits))


@pytest.mark.parametrize(
    "name",
    [b"\x0c\x08" + b"\xff\xfe" * 4, b"\x03\x08\0AAAAAAA", b"\x80\x08AAAAAAAA"],
    ids=["UTF-8", "bits", "no type"],
)
def test_an_authority_that_cannot_be_read_takes_nobody_along(name: bytes) -> None:
    """Their unreadable root is no root; our contexts are made, for us and for the rest of them."""
    bundle = with_more(_renamed(name))
    read_back = TrustBundle.parse(bundle.trust_domain, bundle.to_json())
    assert read_back.x509_authorities == THEIRS.bundle.x509_authorities
    for each in (bundle, read_back):
        assert in_memory(client(OURS.issue()), server(each)).succeeded
        assert in_memory(client(AGENT), server(each)).succeeded

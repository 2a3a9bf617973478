"""TLS between holders of SVIDs: who gets through, and who does not."""

import asyncio
import ssl
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.authority import Authority, Signer, deviating, key_usage, uri_san
from support.handshake import GREETING, Handshake, in_memory, over_asyncio, over_sockets

from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import Revoked, Untrusted
from accredit_credentials.key_identifier import known_as
from accredit_credentials.tls import (
    Federated,
    SpiffeContext,
    client_context,
    front_context,
    load_identity,
    server_context,
)
from accredit_credentials.x509_svid import X509Identity, X509Svid

# OpenSSL asks the machine's clock and no other.
NOW = datetime.now(UTC).replace(microsecond=0)
HERE = Authority(now=NOW)
THERE = Authority("other.example", now=NOW)
CLIENT = HERE.issue()
SERVER = HERE.issue(HERE.id("/ns/support/agent/tickets"))

Connect = Callable[[ssl.SSLContext, ssl.SSLContext], Handshake]
WAYS: dict[str, Connect] = {
    "sockets": over_sockets,
    "memory": in_memory,
    "asyncio": over_asyncio,
    "uvloop": lambda c, s: over_asyncio(c, s, loop_factory=uvloop.new_event_loop),
    "sockets, no explicit handshake": lambda c, s: over_sockets(c, s, on_connect=False),
    "memory, no explicit handshake": lambda c, s: in_memory(c, s, explicit=False),
}
every_way = pytest.mark.parametrize("connect", WAYS.values(), ids=WAYS)


def anybody(_: X509Svid) -> None:
    """A check that refuses nobody."""


def nobody(svid: X509Svid) -> None:
    """A check that refuses everybody."""
    raise Untrusted(f"{svid.spiffe_id} is not one that we talk to")


def client(identity: X509Identity | None = CLIENT, **changes: Any) -> SpiffeContext:
    """A client's context that trusts our trust domain and talks to anybody."""
    return client_context(
        identity=identity, **{"bundle": HERE.bundle, "peer_check": anybody, **changes}
    )


def server(identity: X509Identity = SERVER, **changes: Any) -> SpiffeContext:
    """A server's context that trusts our trust domain and talks to anybody."""
    return server_context(
        identity=identity, **{"bundle": HERE.bundle, "peer_check": anybody, **changes}
    )


@every_way
def test_two_holders_see_each_other(connect: Connect) -> None:
    """Both sides get the other's SVID, over TLS 1.3, not resumed."""
    seen = connect(client(), server())
    assert seen.succeeded
    assert (seen.client.peer, seen.server.peer) == (SERVER.svid.der[0], CLIENT.svid.der[0])
    for side in (seen.client, seen.server):
        assert (side.version, side.reused, side.error) == ("TLSv1.3", False, None)


@every_way
def test_a_server_refuses_and_hangs_up(connect: Connect) -> None:
    """A client whom the server does not talk to gets no byte, and no byte of its is read."""
    seen = connect(client(), server(peer_check=nobody))
    assert seen.server.received == seen.client.received == b""


@every_way
def test_a_client_refuses_and_hangs_up(connect: Connect) -> None:
    """A server that the client does not talk to gets no byte, and no byte of its is read."""
    seen = connect(client(peer_check=nobody), server())
    assert seen.client.received == seen.server.received == b""
    assert isinstance(seen.client.error, ssl.SSLCertVerificationError)
    assert "not one that we talk to" in str(seen.client.error)


@pytest.mark.parametrize("connect", [over_sockets, in_memory])
def test_the_server_says_why(connect: Connect) -> None:
    """The refusal names the SPIFFE ID and is of OpenSSL's own kind, so that every library acts."""
    seen = connect(client(), server(peer_check=nobody))
    assert isinstance(seen.server.error, ssl.SSLCertVerificationError)
    assert str(CLIENT.svid.spiffe_id) in str(seen.server.error)


def test_a_refused_connection_stays_refused() -> None:
    """Whoever catches the refusal and reads on is refused again."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client(peer_check=nobody).wrap_bio(to_client, to_server)
    other = server().wrap_bio(to_server, to_client, server_side=True)
    for act in (one.do_handshake, other.do_handshake):
        with pytest.raises(ssl.SSLWantReadError):
            act()
    acts: list[Callable[[], Any]] = [one.do_handshake, one.read, lambda: one.write(b"x")]
    for act in acts * 2:
        with pytest.raises(ssl.SSLCertVerificationError, match="not one that we talk to"):
            act()


@every_way
@pytest.mark.parametrize("side", ["client", "server"])
def test_the_other_trust_domain_is_not_trusted(side: str, connect: Connect) -> None:
    """An SVID of another trust domain gets through neither as client nor as server."""
    foreign = THERE.issue()
    if side == "client":
        seen = connect(client(foreign), server())
    else:
        seen = connect(client(), server(foreign))
    assert seen.client.received == seen.server.received == b""


def test_each_side_trusts_the_domain_it_was_told() -> None:
    """Two trust domains talk where each has the other's bundle."""
    seen = over_sockets(client(bundle=THERE.bundle), server(THERE.issue(), bundle=HERE.bundle))
    assert seen.succeeded


@every_way
def test_authorities_of_one_domain_never_speak_for_another(connect: Connect) -> None:
    """A trusted CA signs an SVID of another trust domain: refused, though every check agrees."""
    impostor = HERE.issue(THERE.id())
    seen = connect(client(impostor), server())
    assert seen.client.received == seen.server.received == b""
    seen = connect(client(), server(impostor))
    assert "not of the trust domain example.org" in str(seen.client.error)


ID = str(CLIENT.svid.spiffe_id)
SERVER_ONLY = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


def forged(signer: Signer) -> X509Identity:
    """An SVID in the name of a CA whose key the forger does not have."""
    return HERE.issue(signer=Signer(signer.certificate))


DEVIATIONS: dict[str, Callable[[], X509Identity]] = {
    "expired": lambda: HERE.issue(
        not_before=NOW.replace(year=NOW.year - 2), not_after=NOW.replace(year=NOW.year - 1)
    ),
    "of tomorrow": lambda: HERE.issue(
        not_before=NOW.replace(year=NOW.year + 1), not_after=NOW.replace(year=NOW.year + 2)
    ),
    "forged": lambda: forged(HERE.issuing),
    "without its issuing CA": lambda: HERE.issue(chain=()),
    "two URIs": lambda: HERE.issue(extensions=[(uri_san(ID, ID + "2"), False)]),
    "no URI": lambda: HERE.issue(without=[x509.SubjectAlternativeName]),
    "no path": lambda: HERE.issue(extensions=[(uri_san("spiffe://example.org"), False)]),
    "no keyUsage": lambda: HERE.issue(without=[x509.KeyUsage]),
    "no digitalSignature": lambda: HERE.issue(extensions=[(key_usage("key_agreement"), True)]),
    "keyCertSign": lambda: HERE.issue(
        extensions=[(key_usage("digital_signature", "key_cert_sign"), True)]
    ),
    "serverAuth only": lambda: HERE.issue(extensions=[(SERVER_ONLY, False)]),
    "a CA": lambda: HERE.issue(
        extensions=[(x509.BasicConstraints(ca=True, path_length=None), True)]
    ),
    "names another authority": lambda: HERE.issue(
        extensions=[(x509.AuthorityKeyIdentifier(b"\x01" * 20, None, None), False)]
    ),
    "names no authority": lambda: HERE.issue(without=[x509.AuthorityKeyIdentifier]),
    "the issuing CA itself": lambda: X509Identity(
        X509Svid(HERE.id(), HERE.issuing.certificate, ()), HERE.issuing.key
    ),
}


@pytest.mark.spec("SPIFFE-15")
@pytest.mark.spec("SPIFFE-22")
@pytest.mark.parametrize("case", DEVIATIONS)
@pytest.mark.parametrize("side", ["client", "server"])
def test_what_is_no_valid_svid_gets_nowhere(side: str, case: str) -> None:
    """The failing twin of a good peer, each with one fault, in either role."""
    bad = DEVIATIONS[case]()
    seen = (
        over_sockets(client(bad), server())
        if side == "client"
        else over_sockets(client(), server(bad))
    )
    assert seen.client.received == seen.server.received == b""


def test_an_authority_need_not_be_self_signed() -> None:
    """A bundle that names the issuing CA itself is enough, as for ``validate``."""
    bundle = TrustBundle(HERE.trust_domain, (HERE.issuing.certificate,))
    assert over_sockets(client(bundle=bundle), server(bundle=bundle)).succeeded


def test_without_authorities_there_is_no_context() -> None:
    """Empty means refuse: no bundle, no context."""
    empty = TrustBundle(HERE.trust_domain)
    with pytest.raises(Untrusted, match=r"no X\.509 authorities"):
        client(bundle=empty)
    with pytest.raises(Untrusted, match=r"no X\.509 authorities"):
        server(bundle=empty)


@every_way
@pytest.mark.parametrize("optional", [False, True])
def test_a_client_without_certificate_gets_in_only_where_it_may(
    optional: bool, connect: Connect
) -> None:
    """Optional lets the nameless in, and still refuses a bad name."""
    context = server(client_optional=optional)
    seen = connect(client(None), context)
    assert seen.succeeded is optional
    assert seen.server.peer is None
    assert connect(client(), context).server.peer == CLIENT.svid.der[0]
    assert connect(client(THERE.issue()), context).server.received == b""


@pytest.mark.parametrize("role", ["client", "server"])
def test_only_tls_1_3_is_spoken(role: str) -> None:
    """A peer that offers TLS 1.2 at most is refused in either role."""
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if role == "client" else ssl.PROTOCOL_TLS_SERVER)
    old.check_hostname = False
    old.load_verify_locations(cadata=HERE.bundle.x509_pem)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    load_identity(old, CLIENT)
    seen = over_sockets(old, server()) if role == "client" else over_sockets(client(), old)
    assert seen.client.received == seen.server.received == b""
    assert isinstance(seen.client.error, OSError)


def test_a_session_does_not_resume() -> None:
    """We give no ticket: what a client saved starts from the beginning."""
    context, listener = client(), server()
    first = over_sockets(context, listener)
    assert first.client.session is None or not first.client.session.has_ticket
    second = over_sockets(context, listener, session=first.client.session)
    assert second.succeeded
    assert (second.client.reused, second.server.reused) == (False, False)


def test_a_resumed_session_is_refused() -> None:
    """A server that gives tickets cannot come back with one: it would skip every check."""
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    plain.check_hostname = False
    plain.load_verify_locations(cadata=HERE.bundle.x509_pem)
    foreign = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_identity(foreign, SERVER)
    for context, resumes in ((plain, True), (client(), False)):
        first = over_sockets(context, foreign)
        assert first.client.session is not None
        assert first.client.session.has_ticket
        second = over_sockets(context, foreign, session=first.client.session)
        assert second.succeeded is resumes
        assert second.client.reused is (True if resumes else None)
    assert "resumed" in str(second.client.error)


# --- the front, which switches contexts ---------------------------------------------------------


SNI: dict[str, Connect] = {
    "sockets, SNI": partial(over_sockets, server_name="tickets.example"),
    "memory, SNI": partial(in_memory, server_name="tickets.example"),
}


@pytest.mark.parametrize("connect", [*WAYS.values(), *SNI.values()], ids=[*WAYS, *SNI])
def test_a_front_switches_certificate_and_trust(connect: Connect) -> None:
    """Each handshake is made with the context that is current then, with and without SNI."""
    renewed = HERE.issue(HERE.id("/ns/support/agent/renewed"))
    contexts = [server(), server(renewed), server(renewed, bundle=THERE.bundle)]
    front = front_context(lambda: contexts[0])
    assert connect(client(), front).client.peer == SERVER.svid.der[0]
    del contexts[0]
    assert connect(client(), front).client.peer == renewed.svid.der[0]
    del contexts[0]
    assert connect(client(), front).server.received == b""
    foreign = THERE.issue()
    assert connect(client(foreign), front).server.peer == foreign.svid.der[0]


@every_way
def test_a_front_decides_by_the_current_check(connect: Connect) -> None:
    """Whom the current context refuses is refused, whoever was welcome before."""
    contexts = [server(), server(peer_check=nobody)]
    front = front_context(lambda: contexts[0])
    assert connect(client(), front).succeeded
    del contexts[0]
    assert connect(client(), front).server.received == b""


@pytest.mark.parametrize(
    ("front_optional", "current_optional", "accepted"),
    [(False, False, False), (True, False, False), (False, True, False), (True, True, True)],
)
def test_both_front_and_current_let_the_nameless_in(
    front_optional: bool, current_optional: bool, accepted: bool
) -> None:
    """A client without certificate needs both; one with a certificate needs neither."""
    front = front_context(
        lambda: server(client_optional=current_optional), client_optional=front_optional
    )
    assert over_sockets(client(None), front).succeeded is accepted
    assert over_sockets(client(), front).server.peer == CLIENT.svid.der[0]


def test_a_front_does_not_resume_either() -> None:
    """Behind a front, too, there are no tickets."""
    front, context = front_context(server), client()
    first = over_sockets(context, front)
    second = over_sockets(context, front, session=first.client.session)
    assert (first.succeeded, second.succeeded, second.server.reused) == (True, True, False)


def test_a_front_never_leaves_the_contexts_that_check() -> None:
    """A current context that checks no SPIFFE ID is refused, however good the peer."""
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    plain.verify_mode = ssl.CERT_REQUIRED
    plain.load_verify_locations(cadata=HERE.bundle.x509_pem)
    load_identity(plain, SERVER)
    seen = over_sockets(client(), front_context(lambda: plain))
    assert seen.server.received == b""
    assert "left the contexts" in str(seen.server.error)


def test_a_front_without_a_current_context_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the callback fails the handshake fails: never the front's own, empty trust."""
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)

    def none_yet() -> ssl.SSLContext:
        raise LookupError

    seen = over_sockets(client(), front_context(none_yet))
    assert seen.client.received == seen.server.received == b""
    assert len(unraisable) == 1


# --- keys ---------------------------------------------------------------------------------------


def test_a_key_is_on_no_disk_and_in_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory file is gone after the call; a key of somebody else is refused without a trace."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    opened: list[str] = []
    load = ssl.SSLContext.load_cert_chain

    def watched(self: ssl.SSLContext, path: str) -> None:
        opened.append(path)
        load(self, path)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watched)
    load_identity(context, SERVER)
    assert opened[0].startswith("/proc/self/fd/")
    with pytest.raises(FileNotFoundError):
        open(opened[0])  # noqa: SIM115, PTH123 (nothing opens)
    with pytest.raises(ssl.SSLError) as caught:
        load_identity(context, X509Identity(SERVER.svid, CLIENT.key))
    assert "PRIVATE" not in str(caught.value)


def test_signing_certificates_of_any_length_are_loaded() -> None:
    """A chain with an additional CA below the root is sent and verified."""
    middle = HERE.ca(below=HERE.root, common_name="middle")
    issuing = HERE.ca(below=middle, path_length=0, common_name="issuing 2")
    chain = (issuing.certificate, middle.certificate)
    seen = over_sockets(client(HERE.issue(signer=issuing, chain=chain)), server())
    assert seen.succeeded


def test_a_deviating_ca_signs_nothing() -> None:
    """A CA without keyCertSign is no CA, for OpenSSL as for ``validate``."""
    weak = deviating(
        HERE.issuing.certificate, HERE.root, extensions=[(key_usage("crl_sign"), True)]
    )
    bad = HERE.issue(signer=Signer(weak, HERE.issuing.key))
    assert over_sockets(client(bad), server()).server.received == b""


def test_asyncio_streams_carry_the_checked_object() -> None:
    """Streams of asyncio and uvloop are connections of the class that checks."""
    for loop_factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        seen = over_asyncio(client(), server(), loop_factory=loop_factory)
        assert seen.client.received == GREETING


def below_itself(ca: Signer, **fields: Any) -> Signer:
    """A CA of the same name and another key, which ``ca`` signed for itself."""
    signer = HERE.ca(below=ca, common_name="issuing", **fields)
    assert signer.certificate.subject == ca.certificate.subject == signer.certificate.issuer
    return signer


@pytest.mark.parametrize("federated", [False, True], ids=["ours", "federated"])
def test_a_self_issued_ca_counts(federated: bool) -> None:
    """A CA that may have none below it has none, of its own name either; its leaves pass."""
    more: dict[str, Any] = {}
    if federated:
        more["federated"] = Federated(THERE.bundles, lambda: NOW)
    second = below_itself(HERE.issuing)
    chain = (second.certificate, HERE.issuing.certificate)
    seen = over_sockets(client(HERE.issue(signer=second, chain=chain)), server(**more))
    assert isinstance(seen.server.error, ssl.SSLCertVerificationError)
    assert over_sockets(client(), server(**more)).succeeded


@pytest.mark.parametrize("federated", [False, True], ids=["ours", "federated"])
def test_a_fact_about_any_ca_of_the_path_matches(federated: bool) -> None:
    """Who is below a revoked CA is refused, whatever CAs stand between; with other CAs accepted."""
    more: dict[str, Any] = {}
    if federated:
        more["federated"] = Federated(THERE.bundles, lambda: NOW)
    wide = HERE.ca(below=HERE.root, common_name="issuing")
    second = below_itself(wide)
    peer = HERE.issue(signer=second, chain=(second.certificate, wide.certificate))
    for revoked in (second, wide):
        for key_id in known_as(revoked.certificate):
            fact = f"authority:{key_id}"

            def check(svid: X509Svid, fact: str = fact) -> None:
                if fact in svid.marks():
                    raise Revoked(fact)

            seen = over_sockets(client(peer), server(peer_check=check, **more))
            assert "authority:" in str(seen.server.error)
            assert over_sockets(client(), server(peer_check=check, **more)).succeeded

"""Certificates of the web's kind, made by trustme: well made, and nobody's identity here."""

import ssl

import pytest
import trustme
from cryptography import x509
from support.authority import Authority
from support.fake_issuer import real_now
from support.handshake import in_memory

from accredit_client.wire import issuer_context
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.tls import SpiffeContext, client_context, server_context
from accredit_credentials.x509_svid import X509Svid


@pytest.fixture
def web() -> trustme.CA:
    """A CA of the web's kind."""
    return trustme.CA()


@pytest.fixture
def ours() -> Authority:
    """A trust domain; OpenSSL looks at the real clock, so it is of today."""
    return Authority(now=real_now())


def test_a_web_server_is_not_the_issuer(web: trustme.CA, ours: Authority) -> None:
    """The right host name, certified by a CA of the web, does not make an issuer."""
    shaken = in_memory(issuer_context(ours.bundle), _web_server(web))
    assert isinstance(shaken.client.error, ssl.SSLCertVerificationError)


def test_a_certificate_without_a_spiffe_id_is_nobody(web: trustme.CA, ours: Authority) -> None:
    """Even where the bundle vouches for its CA, a certificate that is no SVID is refused."""
    root = x509.load_pem_x509_certificate(web.cert_pem.bytes())
    bundle = TrustBundle(ours.trust_domain, (root,))
    shaken = in_memory(_accepting_anyone(bundle), _web_server(web))
    assert isinstance(shaken.client.error, ssl.SSLCertVerificationError)


def test_a_web_client_is_not_let_in(web: trustme.CA, ours: Authority) -> None:
    """A server that asks for SVIDs refuses the client certificate of another CA."""
    server = server_context(bundle=ours.bundle, peer_check=_anyone, identity=ours.issue())
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    web.issue_cert("client.example").configure_cert(client)
    shaken = in_memory(client, server)
    assert isinstance(shaken.server.error, ssl.SSLError)
    assert not shaken.succeeded


def _web_server(web: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    web.issue_cert("localhost").configure_cert(context)
    return context


def _accepting_anyone(bundle: TrustBundle) -> SpiffeContext:
    return client_context(bundle=bundle, peer_check=_anyone)


def _anyone(_svid: X509Svid) -> None:
    """Would accept every SVID."""

"""The wire: only the issuer is believed, and no answer is larger or slower than allowed."""

import asyncio
import os
from collections.abc import Iterator

import pytest
from support.authority import Authority
from support.fake_issuer import FakeIssuer, fake_issuer
from support.manual_time import ManualTime

from accredit_client import calls
from accredit_client.call import DEFAULT_LIMIT
from accredit_client.errors import (
    InvalidAnswer,
    InvalidTrust,
    IssuerRefused,
    IssuerUnreachable,
    IssuerUntrusted,
)
from accredit_client.wire import AsyncIssuer, Issuer
from accredit_credentials.bundle import TrustBundle


@pytest.fixture
def client(issuer: FakeIssuer, authority: Authority) -> Iterator[Issuer]:
    """A client without an identity."""
    with Issuer.at(issuer.url, bundle=authority.bundle) as client:
        yield client


def test_a_call_is_answered(client: Issuer, issuer: FakeIssuer, authority: Authority) -> None:
    """A call comes back as its typed answer, over TLS to the issuer's own SVID."""
    assert client.send(calls.bundle(authority.trust_domain)) == authority.bundle
    assert issuer.asked[0].serial is None


def test_the_async_twin_answers_alike(issuer: FakeIssuer, authority: Authority) -> None:
    """Asyncio gets the same answers and the same errors."""

    async def ask() -> TrustBundle:
        async with AsyncIssuer.at(issuer.url, bundle=authority.bundle) as client:
            with pytest.raises(IssuerRefused, match="no SVID"):
                await client.send(calls.jwt_svid(audience=["https://a.example"]))
            return await client.send(calls.bundle(authority.trust_domain))

    assert asyncio.run(ask()) == authority.bundle


def test_another_trust_domains_issuer_is_refused(
    issuer: FakeIssuer, other_authority: Authority
) -> None:
    """An issuer that another root vouches for is not ours."""
    with (
        Issuer.at(issuer.url, bundle=other_authority.bundle) as client,
        pytest.raises(IssuerUntrusted, match="not the issuer that we trust"),
    ):
        client.send(calls.bundle(other_authority.trust_domain))


def test_a_member_that_is_not_the_issuer_is_refused(authority: Authority, time: ManualTime) -> None:
    """An agent of the trust domain cannot play its issuer, for threads and for asyncio."""

    async def ask(url: str) -> None:
        async with AsyncIssuer.at(url, bundle=authority.bundle) as client:
            await client.send(calls.nonce())

    with fake_issuer(authority, time.clock, name=authority.id()) as impostor:
        with (
            Issuer.at(impostor.url, bundle=authority.bundle) as client,
            pytest.raises(IssuerUntrusted, match=r"trust: peer refused: .*not one that we talk to"),
        ):
            client.send(calls.nonce())
        with pytest.raises(
            IssuerUntrusted, match=r"trust: peer refused: .*not one that we talk to"
        ):
            asyncio.run(ask(impostor.url))
        assert impostor.asked == []


def test_an_answer_beyond_its_bound_is_not_read(client: Issuer, issuer: FakeIssuer) -> None:
    """One byte too many, and the answer is refused."""
    issuer.answer("/v1/log/key", b"k" * DEFAULT_LIMIT)
    assert len(client.send(calls.log_key())) == DEFAULT_LIMIT
    issuer.answer("/v1/log/key", b"k" * (DEFAULT_LIMIT + 1))
    with pytest.raises(InvalidAnswer, match="larger than 1048576 bytes"):
        client.send(calls.log_key())


def test_a_redirect_is_not_followed(client: Issuer, issuer: FakeIssuer) -> None:
    """A redirect is a refusal; where it points to is never asked."""
    issuer.answer("/v1/log/key", b"", status=302, headers={"location": f"{issuer.url}/v1/bundle"})
    with pytest.raises(IssuerRefused, match="302"):
        client.send(calls.log_key())
    assert issuer.calls_of("/v1/bundle") == []


def test_proxies_of_the_environment_are_not_used(
    issuer: FakeIssuer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sets an environment variable does not get between us and the issuer."""
    for name in ("HTTPS_PROXY", "ALL_PROXY", "SSL_CERT_FILE"):
        monkeypatch.setitem(os.environ, name, "http://127.0.0.1:9")
    with Issuer.at(issuer.url, bundle=authority.bundle) as client:
        client.send(calls.nonce())


def test_nobody_there_is_unreachable(client: Issuer, issuer: FakeIssuer) -> None:
    """An issuer that hangs up is unreachable, and its return needs no new client."""
    issuer.away = True
    with pytest.raises(IssuerUnreachable, match="did not answer"):
        client.send(calls.nonce())
    issuer.away = False
    client.send(calls.nonce())


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example",
        "https://",
        "issuer.example",
        "https://u:p@issuer.example",
        "https://issuer.example/path",
        "https://issuer.example?q",
        "https://issuer.example:bad",
        "https://[::1",
    ],
)
def test_only_https_to_a_host_is_an_issuer(url: str, authority: Authority) -> None:
    """Anything but https://host[:port] is refused before a connection is made."""
    with pytest.raises(InvalidTrust, match="must have the form"):
        Issuer.at(url, bundle=authority.bundle)

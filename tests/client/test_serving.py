"""Serving with an identity: a connection lasts no longer than what its handshake rested on."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from support.authority import Authority
from support.fake_issuer import FakeIssuer, begin_at, real_now
from support.manual_time import ManualTime
from support.resource_server import resource_server

from accredit_client.identity import AgentIdentity
from accredit_client.tls import members_of
from accredit_credentials.tls import client_context
from accredit_credentials.x509_svid import X509Identity


@pytest.fixture
def authority() -> Authority:
    """A trust domain that this test alone changes."""
    return Authority(now=real_now())


@pytest.fixture
def server(options: dict[str, Any], time: ManualTime) -> Iterator[AgentIdentity]:
    """An identity that serves, and follows the feed."""
    with closing(AgentIdentity(**options, revocations=True)) as identity:
        identity.start(waiter=time)
        assert identity.feed is not None
        identity.feed.wait_fresh(20)
        yield identity


async def hello(_scope: Any, _receive: Any, send: Any) -> None:
    """An application that asks for no token."""
    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def agent_of(authority: Authority) -> X509Identity:
    """An agent, valid by the test's time and by the real one."""
    return authority.issue(not_before=begin_at() - timedelta(minutes=5))


def client_of(authority: Authority, identity: X509Identity | None) -> httpx2.Client:
    """A client that keeps its connection, whatever becomes of it."""
    context = client_context(bundle=authority.bundle, peer_check=lambda _: None, identity=identity)
    return httpx2.Client(verify=context, trust_env=False)


def test_a_dropped_root_ends_the_connections_that_rest_on_it(
    server: AgentIdentity, issuer: FakeIssuer, authority: Authority, time: ManualTime
) -> None:
    """Who shook hands under a root that was dropped since is told so, and cut; others go on."""
    own, lasting = authority.bundle, Authority(now=authority.now)
    both = (*own.x509_authorities, lasting.root.certificate)
    issuer.bundle = replace(own, x509_authorities=both, sequence=2)
    assert server.refetch_bundle(20)
    passing, staying = agent_of(authority), agent_of(lasting)
    with (
        resource_server(hello, server, peer=members_of("example.org")) as url,
        client_of(authority, passing) as going,
        client_of(authority, staying) as kept,
    ):
        assert (going.get(url).status_code, kept.get(url).status_code) == (200, 200)
        issuer.bundle = replace(own, x509_authorities=(lasting.root.certificate,), sequence=3)
        issuer.tell()
        with server._changed:
            assert server._changed.wait_for(lambda: server.bundle.sequence == 3, 20)
        answer = going.get(url)
        assert (answer.status_code, answer.headers["connection"]) == (401, "close")
        assert answer.json()["detail"].startswith("SVID of spiffe://example.org/")
        assert kept.get(url).status_code == 200


def test_a_revoked_client_is_cut_on_an_open_connection(
    server: AgentIdentity, issuer: FakeIssuer, authority: Authority
) -> None:
    """A fact about the client ends it at the next request, without a word of the reason."""
    with (
        resource_server(hello, server, peer=members_of("example.org")) as url,
        client_of(authority, agent_of(authority)) as client,
    ):
        assert client.get(url).status_code == 200
        issuer.revoke("agent:support/triage")
        feed = server.feed
        assert feed is not None
        with feed._changed:
            assert feed._changed.wait_for(lambda: feed.state.through == 1, 20)
        answer = client.get(url)
        assert answer.status_code == 401
        assert "canary-reason" not in answer.text


def test_who_shows_nothing_may_still_come_where_that_is_allowed(
    server: AgentIdentity, authority: Authority
) -> None:
    """Without a certificate there is nothing to ask about."""
    with (
        resource_server(hello, server, peer=members_of("example.org"), client_optional=True) as url,
        client_of(authority, None) as client,
    ):
        assert client.get(url).status_code == 200

"""Identities: obtained, renewed through outages, taken back, and gone without a trace."""

import os
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.authority import Authority
from support.fake_issuer import FakeIssuer, begin_at, fake_issuer
from support.manual_time import ManualTime

from accredit_client.errors import (
    Closed,
    IdentityExpired,
    IdentityRefused,
    IssuerRefused,
    IssuerUnreachable,
    IssuerUntrusted,
    NotReady,
)
from accredit_client.identity import AgentIdentity
from accredit_client.renewal import State
from accredit_client.trust import Trust, pin_of
from accredit_credentials import jwt_svid
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.x509_svid import X509Identity


def test_start_attests_and_holds_an_svid(identity: AgentIdentity, issuer: FakeIssuer) -> None:
    """A started identity holds the agent's SVID with its key, and is fresh."""
    svid = identity.x509.svid
    assert svid.spiffe_id == issuer.spiffe_id
    assert identity.x509.key.public_key() == svid.leaf.public_key()
    assert identity.status.state is State.FRESH
    assert identity.status.expires_in == 20 * 3600


def test_evidence_is_bound_to_the_issuers_nonce(
    identity: AgentIdentity, issuer: FakeIssuer
) -> None:
    """Every piece of evidence carries the nonce of its attempt."""
    (asked,) = issuer.calls_of("/v1/attestations")
    assert {one["nonce"] for one in asked.body["evidence"]} == {asked.body["nonce"]}
    assert asked.serial is None


def test_trust_from_a_pin(options: dict[str, Any], authority: Authority) -> None:
    """A root's digest is enough to begin with; the bundle that is then held is the whole one."""
    pin = pin_of(authority.root.certificate)
    options["trust"] = Trust.from_pin(pin)
    with AgentIdentity(**options) as identity:
        assert identity.bundle == authority.bundle


def test_another_roots_pin_is_refused(options: dict[str, Any], other_authority: Authority) -> None:
    """The pin of another root ends before anything is told to the stranger."""
    options["trust"] = Trust.from_pin(pin_of(other_authority.root.certificate))
    with pytest.raises(IssuerUntrusted, match="no authority of this issuer has the digest"):
        AgentIdentity(**options).start()


def test_whoever_is_not_the_issuer_gets_no_evidence(
    authority: Authority, options: dict[str, Any], time: ManualTime
) -> None:
    """A member of the trust domain that is not its issuer is refused before it is told anything."""
    with fake_issuer(authority, time.clock, name=authority.id()) as impostor:
        options["issuer_url"] = impostor.url
        with pytest.raises(IssuerUntrusted, match="not one that we talk to"):
            AgentIdentity(**options).start()
        assert impostor.asked == []


def test_renewal_at_half_life_over_mtls(
    identity: AgentIdentity, issuer: FakeIssuer, time: ManualTime
) -> None:
    """At half life a new SVID with a new key is obtained by showing the old one."""
    first = identity.x509
    heard: list[X509Identity] = []
    identity.on_renewal(heard.append)
    time.advance(hours=9.99)
    time.settle()
    assert identity.x509 is first
    time.advance(hours=0.02)
    time.settle()
    second = identity.x509
    assert second.svid.serial != first.svid.serial
    assert second.key.public_key() != first.key.public_key()
    (asked,) = issuer.calls_of("/v1/svids/x509")
    assert asked.serial == first.svid.serial
    assert heard == [second]


def test_waiting_for_a_renewal(identity: AgentIdentity, time: ManualTime) -> None:
    """Whoever waits for a renewal is given it; without one, the wait ends with an error."""
    first = identity.x509
    with pytest.raises(NotReady, match="no renewal within"):
        identity.wait_until_renewed(timeout=0)
    time.advance(hours=10.1)
    assert identity.wait_until_renewed(timeout=20, after=first) is identity.x509


def test_an_outage_is_survived_and_said(
    identity: AgentIdentity, issuer: FakeIssuer, time: ManualTime
) -> None:
    """Through an outage the SVID serves on, the pauses grow, and the status says how stale."""
    issuer.away = True
    time.advance(hours=10, seconds=1)
    time.settle()
    assert identity.status.state is State.LATE
    assert isinstance(identity.status.last_error, IssuerUnreachable)
    for _ in range(9):
        time.advance(seconds=60)
        time.settle()
    assert identity.status.failures >= 9
    assert identity.status.stale_for == 541
    assert identity.x509.svid.serial == issuer.issued[0]
    issuer.away = False
    time.advance(seconds=60)
    time.settle()
    assert identity.status.state is State.FRESH
    assert identity.status.last_error is None
    assert identity.x509.svid.serial == issuer.issued[1]


def test_an_outage_beyond_the_svids_end(
    identity: AgentIdentity, issuer: FakeIssuer, time: ManualTime, join_token_file: Path
) -> None:
    """An expired identity says so and why; a new join token in the same file brings it back."""
    issuer.away = True
    time.advance(hours=20.1)
    time.settle()
    with pytest.raises(IdentityExpired, match="expired 360 seconds ago; the last try failed"):
        identity.fetch_jwt_svid("https://tickets.example.org")
    issuer.away = False
    time.advance(seconds=60)
    time.settle()
    with pytest.raises(IdentityExpired, match="the join token was used up") as refused:
        _ = identity.x509
    assert "new join token" in (refused.value.hint or "")
    issuer.join_tokens.add(join_token_file.read_text())
    time.advance(seconds=60)
    time.settle()
    assert identity.status.state is State.FRESH


@pytest.mark.parametrize("kind", ["revoked", "forbidden"])
def test_a_final_refusal_ends_the_renewals(
    identity: AgentIdentity, issuer: FakeIssuer, time: ManualTime, kind: str
) -> None:
    """What the issuer has taken back is not asked for again, and the next use says so."""
    issuer.refuse("/v1/svids/x509", kind)
    time.advance(hours=10.1)
    time.settle()
    assert identity.status.state is State.REFUSED
    with pytest.raises(IdentityRefused, match=kind):
        _ = identity.x509
    for _ in range(3):
        time.advance(hours=1)
        time.settle()
    assert len(issuer.calls_of("/v1/svids/x509")) == 1


def test_an_svid_that_is_not_accepted_any_more_is_attested_anew(
    identity: AgentIdentity, issuer: FakeIssuer, time: ManualTime, join_token_file: Path
) -> None:
    """When the issuer does not know the SVID any more, the agent proves itself again."""
    issuer.join_tokens.add(join_token_file.read_text())
    issuer.refuse("/v1/svids/x509", "unauthenticated", status=401)
    time.advance(hours=10.1)
    time.settle()
    time.advance(seconds=1)
    time.settle()
    assert len(issuer.calls_of("/v1/attestations")) == 2
    assert identity.x509.svid.serial == issuer.issued[1]


def test_a_renewal_for_somebody_else_is_not_taken(
    identity: AgentIdentity, issuer: FakeIssuer, time: ManualTime, authority: Authority
) -> None:
    """An answer with another agent's SVID is an error, and the old SVID stays."""
    mine = identity.x509
    issuer.agent = authority.id("/ns/support/agent/sibling")
    time.advance(hours=10.1)
    time.settle()
    assert "expected the same identity" in str(identity.status.last_error)
    assert identity.x509 is mine


def test_the_bundle_is_refreshed(
    identity: AgentIdentity, issuer: FakeIssuer, authority: Authority, time: ManualTime
) -> None:
    """A new authority arrives with the refresh hint; a lagging replica does not take it back."""
    known = authority.bundle
    newer = TrustBundle(
        known.trust_domain, known.x509_authorities, known.jwt_authorities, sequence=2
    )
    issuer.bundle = newer
    time.advance(seconds=301)
    time.settle()
    assert identity.bundle == newer
    issuer.bundle = None
    time.advance(seconds=301)
    time.settle()
    assert identity.bundle == newer


def test_an_empty_bundle_is_not_believed(
    identity: AgentIdentity, issuer: FakeIssuer, authority: Authority, time: ManualTime
) -> None:
    """A bundle without authorities would end all trust: it is an error, and the old one stays."""
    issuer.bundle = TrustBundle(authority.trust_domain, sequence=2)
    time.advance(seconds=301)
    time.settle()
    assert identity.bundle == authority.bundle
    assert "must have an X.509 authority" in str(identity.status.last_error)


def test_start_waits_for_an_issuer_that_is_away(
    issuer: FakeIssuer, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A start is patient for as long as it was told to be, then says that nobody answered.

    Each try that failed is a line in the log: who waits for it sees for what.
    """
    time = ManualTime(begin_at(), passing=True)
    issuer.away = True
    options["clock"] = time.clock
    with closing(AgentIdentity(**options, patience=20.0)) as identity:
        with pytest.raises(IssuerUnreachable):
            identity.start(waiter=time)
        assert time.waits == [0.75, 1.5, 3.0, 6.0, 12.0]
        told = [each for each in caplog.messages if each.startswith("no identity yet")]
        assert len(told) == len(time.waits)
        issuer.away = False
        identity.start(waiter=ManualTime(time.clock()))
        assert identity.status.state is State.FRESH


def test_a_refusal_ends_a_start_at_once(
    issuer: FakeIssuer, options: dict[str, Any], time: ManualTime
) -> None:
    """What the issuer will not attest is not asked again and again."""
    issuer.join_tokens.clear()
    with pytest.raises(IssuerRefused, match="attestation-refused"):
        AgentIdentity(**options).start(waiter=time)
    assert len(issuer.calls_of("/v1/attestations")) == 1


def test_jwt_svids(identity: AgentIdentity, authority: Authority, time: ManualTime) -> None:
    """A JWT-SVID is fetched by showing the X.509-SVID, and is valid for its audience."""
    answer = identity.fetch_jwt_svid("https://tickets.example.org")
    svid = jwt_svid.validate(
        answer.token,
        bundles=authority.bundles,
        audience="https://tickets.example.org",
        now=time.clock(),
    )
    assert svid.spiffe_id == identity.x509.svid.spiffe_id


def test_not_started_and_closed(options: dict[str, Any], time: ManualTime) -> None:
    """Before its start and after its end an identity says what it lacks; closing twice is fine."""
    identity = AgentIdentity(**options)
    with pytest.raises(NotReady, match="there is no SVID yet"):
        _ = identity.x509
    before = threading.active_count()
    identity.start(waiter=time)
    assert threading.active_count() >= before + 1
    identity.close()
    identity.close()
    assert "accredit-identity" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(Closed):
        _ = identity.x509


def test_a_forked_process_is_told(identity: AgentIdentity) -> None:
    """A child process has no renewing thread: it is told to make its own identity."""
    child = os.fork()
    if child == 0:
        try:
            _ = identity.x509
        except Closed:
            identity.close()
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert identity.x509


def test_a_listeners_fault_does_not_end_the_renewals(
    identity: AgentIdentity, issuer: FakeIssuer, time: ManualTime
) -> None:
    """A callback that raises is logged, and the identity goes on."""

    def fail(_identity: X509Identity) -> None:
        raise RuntimeError("a listener's fault")

    identity.on_renewal(fail)
    time.advance(hours=10.1)
    time.settle()
    assert identity.x509.svid.serial == issuer.issued[1]
    assert identity.status.last_error is None

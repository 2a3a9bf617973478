"""Who may be the issuer: nobody who was revoked, and no CA that speaks for others only."""

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from support.authority import Authority, Signer
from support.handshake import over_sockets

from accredit_client.wire import issuer_context
from accredit_credentials.revocation import FactKind, RevocationFact, Target
from accredit_credentials.revocation_feed import FeedState, Statement
from accredit_credentials.spiffe_id import issuer_id
from accredit_credentials.tls import SpiffeContext, server_context
from accredit_credentials.x509_svid import X509Identity, X509Svid

# OpenSSL asks the machine's clock and no other.
NOW = datetime.now(UTC).replace(microsecond=0)
HERE = Authority(now=NOW)
AGENT = HERE.issue()


def limited(namespace: str) -> Signer:
    """The CA of an issuer below ours."""
    return HERE.ca(below=HERE.root, path_length=0, common_name="child", namespaces=(namespace,))


def issuer_below(signer: Signer | None = None) -> X509Identity:
    """An SVID with the issuer's SPIFFE ID."""
    return HERE.issue(issuer_id(HERE.trust_domain), signer=signer, manifest=None)


def meet(context: SpiffeContext, issuer: X509Identity) -> str:
    """What a client says to an issuer: nothing where all is well."""
    server = server_context(
        bundle=HERE.bundle, peer_check=lambda _: None, identity=issuer, client_optional=True
    )
    error = over_sockets(context, server).client.error
    assert error is None or isinstance(error, ssl.SSLCertVerificationError)
    return "" if error is None else str(error)


def knowing(target: str, *, at: datetime = NOW) -> FeedState:
    """Somebody who heard of one fact, at a moment."""
    fact = RevocationFact(
        sequence=1,
        target=Target.parse(target),
        kind=FactKind.REVOKED,
        at=at,
        expires_at=at + timedelta(days=30),
        reason="stolen",
    )
    state = FeedState()
    state.apply(
        Statement(trust_domain=HERE.trust_domain, as_of=at, after=0, through=1, facts=(fact,)),
        now=at,
    )
    return state


def test_a_revoked_ca_is_not_the_issuer() -> None:
    """However old the fact: what is below its CA is refused, what is below another is met."""
    stolen = HERE.ca(below=HERE.root, path_length=0, common_name="old")
    authority = next(
        mark for mark in issuer_below(stolen).svid.marks() if mark.startswith("authority:")
    )
    state = knowing(authority, at=NOW - timedelta(days=2))

    def check(svid: X509Svid) -> None:
        state.check_known(svid.marks())

    context = issuer_context(HERE.bundle, AGENT, also=check)
    assert "revoked" in meet(context, issuer_below(stolen))
    assert meet(context, issuer_below()) == ""


def test_what_is_refused_is_another_object_only_when_it_changes() -> None:
    """Contexts are made again for a fact about an authority, and for no other statement."""
    state = knowing("authority:" + "ab" * 20)
    known = state.authorities
    assert known == {"authority:" + "ab" * 20}
    state.apply(
        Statement(trust_domain=HERE.trust_domain, as_of=NOW, after=1, through=1, facts=()), now=NOW
    )
    assert state.authorities is known
    assert knowing("agent:support/triage").authorities == frozenset()


@pytest.mark.parametrize(
    ("holder", "refused"),
    [
        (None, ""),
        (AGENT, "did not issue our SVID"),
        (HERE.issue(signer=limited("support")), ""),
        (HERE.issue(signer=limited("payments")), "did not issue our SVID"),
    ],
    ids=["nobody yet", "of our own", "of the child", "of another child"],
)
def test_a_limited_ca_is_the_issuer_of_its_own(holder: X509Identity | None, refused: str) -> None:
    """A child's issuer is met by those whom a CA of its namespaces vouches for."""
    assert refused in meet(issuer_context(HERE.bundle, holder), issuer_below(limited("support")))
    if not refused:
        assert meet(issuer_context(HERE.bundle, holder), issuer_below(limited("support"))) == ""


def test_a_limited_ca_is_nobodys_foreign_issuer() -> None:
    """The issuer of another trust domain is below a CA without limits."""
    context = issuer_context(HERE.bundle, foreign=True)
    assert "limited to agents of" in meet(context, issuer_below(limited("support")))
    assert meet(context, issuer_below()) == ""

"""Task tokens on the resource server's side: may this sender do this action on this resource now?

``TaskTokenVerifier.verify`` decides, in this order: the token's form, signature, issuer and
audience (remembered for tokens seen before), its time, its holder, the grant, and the revocation
facts. Whatever can change between two requests is decided for each of them. ``verify_request``
reads the token and its proof out of a request first; which proofs were used is the last thing it
asks, so that only proofs that would have been accepted take up memory.

Where federation was asked for, an agent of another trust domain is decided about by that domain's
bundle and facts, and by what its relationship with ours allows on top of its own issuer's grant.

Nothing here does I/O. What it knows of trust and revocation is handed in, and when that is too
old, the answer is no.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from accredit_client.effects import Clock, utc_now
from accredit_client.errors import ProofRefused
from accredit_client.federation import Federation
from accredit_client.peers import Bounded, Peers
from accredit_client.replay import ReplayMemory
from accredit_client.revocations import MAX_STALENESS
from accredit_client.thumbprint import certificate_thumbprint
from accredit_credentials import dpop, task_token, x509_svid
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.bundle_map import FederatedDomain
from accredit_credentials.errors import (
    CredentialError,
    Expired,
    InvalidToken,
    Untrusted,
    WrongHolder,
)
from accredit_credentials.spiffe_id import TrustDomain
from accredit_credentials.task_token import BindingKind, Presented, TaskToken

DEFAULT_CACHE_SIZE = 4096  # tokens; about 3 KB each


class Facts(Protocol):
    """What is known of revocation, as ``FeedState``."""

    def check(self, marks: tuple[str, ...], *, now: datetime, max_age: float) -> None:
        """Raises ``Revoked`` where a fact matches, ``Stale`` where too little is known."""


class _Unchecked:
    def check(self, marks: tuple[str, ...], *, now: datetime, max_age: float) -> None:
        pass


UNCHECKED: Facts = _Unchecked()
"""No revocation: every token is good until it expires."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """What came with a request, as far as its task token is concerned.

    Attributes:
        scheme: of the ``Authorization`` header, in lower case: ``bearer`` or ``dpop``.
        token: what stands behind the scheme.
        proof: the ``DPoP`` header, if there is one.
        certificate: the TLS client certificate in DER, if the handshake had one.
        chain: what the client sent in the handshake, in DER, leaf first. Where it is given, the
            certificate is verified with the bundle of the moment at each request; without, the
            handshake's word stands for as long as the connection is open.
        method: the HTTP method.
        url: where the request went, by the server's own knowledge, never by its Host header.
    """

    scheme: str
    token: str = field(repr=False)
    proof: str | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    chain: tuple[bytes, ...] | None = field(default=None, repr=False)
    method: str
    url: str


@dataclass(frozen=True, slots=True)
class _Verified:
    """A token that was verified with this very bundle, and what facts can match it."""

    token: TaskToken
    bundle: TrustBundle
    marks: tuple[str, ...]
    foreign: bool


class TaskTokenVerifier:
    """Decides about task tokens for one audience. Safe to share between threads.

    Args:
        audience: who we are; tokens for anybody else are refused.
        issuer: the ``iss`` that tokens must have.
        bundle: gives the trust bundle of the moment, as ``lambda: identity.bundle``.
        facts: what is known of revocation, as ``feed.state``; ``UNCHECKED`` is for those only who
            accept that a revoked agent keeps its tokens until they expire.
        max_staleness: seconds that the facts may be old.
        bearer: whether to accept tokens that are bound to no key.
        clock: the time.
        replays: the memory of DPoP proofs; share one between all verifiers of a server.
        cache_size: how many verified tokens to remember; 0 for none.
        federation: what is known of other trust domains, as ``identity.federation``; None accepts
            nobody of them.
    """

    def __init__(
        self,
        *,
        audience: str,
        issuer: str,
        bundle: Callable[[], TrustBundle],
        facts: Facts,
        max_staleness: float = MAX_STALENESS,
        bearer: bool = False,
        clock: Clock = utc_now,
        replays: ReplayMemory | None = None,
        cache_size: int = DEFAULT_CACHE_SIZE,
        federation: Federation | None = None,
    ) -> None:
        if not audience or not issuer:
            raise ValueError("audience and issuer must be named")
        if facts is None:  # ``identity.facts`` of one that does not follow the feed
            raise ValueError("facts must be what is known of revocation, or UNCHECKED")
        self.audience = audience
        self.issuer = issuer
        self._bundle = bundle
        self._facts = facts
        self._max_staleness = max_staleness
        self._bearer = bearer
        self._clock = clock
        self.federation = federation
        self._replays = replays if replays is not None else ReplayMemory()
        self._verified: Bounded[str, _Verified] = Bounded(cache_size)
        self._peers = Peers(cache_size)

    def verify(self, token: str, presented: Presented, *, resource: str, action: str) -> TaskToken:
        """Decide whether the sender of ``token`` may do ``action`` on ``resource`` now.

        Raises:
            InvalidToken, Untrusted, WrongAudience: not a token for us.
            Expired: its time is over, or not yet come.
            WrongHolder: presented by somebody else, or bound to no key.
            NotGranted: it does not carry the action.
            Revoked: a fact matches.
            Stale: what is known of revocation is too old to say yes.
        """
        now = self._clock()
        verified = self._verify(token, now)
        task_token.check_time(verified.token, now=now)
        self._decide(verified, presented, resource=resource, action=action, now=now)
        return verified.token

    def verify_request(self, request: TokenRequest, *, resource: str, action: str) -> TaskToken:
        """Decide about a request.

        Raises: as ``verify``, and
            ProofRefused: its DPoP proof is not for this request, or was used before.
            ReplayMemoryFull: there is no room to remember the proof.
        """
        now = self._clock()
        self.check_peer(request.certificate, request.chain)
        verified = self._verify(request.token, now)
        if verified.foreign:
            _check_own_certificate(verified.token, request.certificate)
        task_token.check_time(verified.token, now=now)
        proof = self._proof(request, now)
        presented = Presented(
            certificate=certificate_thumbprint(request.certificate)
            if request.certificate is not None
            else None,
            dpop_key=proof.key_thumbprint if proof is not None else None,
        )
        if proof is not None and verified.token.binding.kind is not BindingKind.DPOP_KEY:
            raise WrongHolder("token is not bound to a DPoP key, and was sent as if it were")
        self._decide(verified, presented, resource=resource, action=action, now=now)
        if proof is not None:
            self._replays.remember(proof, now=now)
        return verified.token

    def check_peer(self, certificate: bytes | None, chain: tuple[bytes, ...] | None = None) -> None:
        """Decide whether the holder of a TLS client certificate may be talked to at all.

        A connection outlives its handshake: whether the SVID is over, taken back, or of an
        authority that was dropped since, is asked at each request.

        Raises:
            InvalidCertificate: it is not an SVID.
            Untrusted: no authority of the bundle vouches for it any more.
            Expired: its time is over, or not yet come.
            Revoked, Stale: as ``verify``.
        """
        if certificate is None:
            return
        now = self._clock()
        # Without the chain the handshake's word stands, but it says not whose authority it was.
        if chain is None and self.federation is not None:
            raise Untrusted("with federation the client's whole chain has to be known")
        peer = self._peers.look(
            certificate,
            chain,
            bundle_of=lambda trust_domain: self._bundle_of(self._domain(trust_domain, now)),
            now=now,
        )
        domain = self._domain(peer.svid.spiffe_id.trust_domain, now)
        self._check_facts(domain, peer.marks, now)

    def check_still(
        self,
        token: TaskToken,
        certificate: bytes | None,
        chain: tuple[bytes, ...] | None = None,
    ) -> None:
        """Decide whether what a request was allowed with still stands, while it is answered.

        Its time is not asked: token and certificate were good when the request came.

        Raises:
            Untrusted: no authority of the bundle vouches for it any more.
            Revoked, Stale: as ``verify``.
        """
        now = self._clock()
        self._check_facts(self._domain(token.client.trust_domain, now), token.marks(), now)
        with suppress(Expired):
            self.check_peer(certificate, chain)

    @property
    def known(self) -> object:
        """Another value whenever facts or bundle of our own trust domain are others."""
        return getattr(self._facts, "through", None), self._bundle().sequence

    def _verify(self, token: str, now: datetime) -> _Verified:
        verified = self._verified.get(token)
        domain = None
        if verified is None and self.federation is not None:
            domain = self._domain(task_token.unverified_trust_domain(token), now)
        elif verified is not None and verified.foreign:
            domain = self._domain(verified.token.client.trust_domain, now)
        bundle = self._bundle_of(domain)
        # Another bundle may lack the authority: what it vouched for is asked again.
        if verified is not None and verified.bundle is bundle:
            return verified
        if domain is None:
            fresh = task_token.verify(
                token, bundle=bundle, issuer=self.issuer, audience=self.audience, now=now
            )
        else:
            fresh = task_token.verify_foreign(
                token, bundle=bundle, own_issuer=self.issuer, audience=self.audience, now=now
            )
        verified = _Verified(fresh, bundle, fresh.marks(), domain is not None)
        self._verified.put(token, verified)
        return verified

    def _domain(self, trust_domain: TrustDomain, now: datetime) -> FederatedDomain | None:
        """The relationship with a trust domain; None for our own.

        Raises:
            Untrusted, Stale: as ``Federation.domain``.
        """
        if trust_domain == self._bundle().trust_domain:
            return None
        if self.federation is None:
            raise Untrusted(f"no authorities known for the trust domain {trust_domain}")
        return self.federation.domain(trust_domain, now)

    def _bundle_of(self, domain: FederatedDomain | None) -> TrustBundle:
        return self._bundle() if domain is None else domain.bundle

    def _check_facts(
        self, domain: FederatedDomain | None, marks: tuple[str, ...], now: datetime
    ) -> None:
        """The facts of the domain whose credential it is: names mean something there only."""
        if domain is None:
            self._facts.check(marks, now=now, max_age=self._max_staleness)
        elif self.federation is not None:
            self.federation.check_facts(domain, marks, now=now, max_age=self._max_staleness)

    def _proof(self, request: TokenRequest, now: datetime) -> dpop.DpopProof | None:
        if request.scheme == "bearer":
            return None  # a proof beside another scheme proves nothing (RFC 9449 §7.2)
        if request.scheme != "dpop":
            raise InvalidToken("authorization scheme must be Bearer or DPoP")
        if request.proof is None:
            raise ProofRefused("authorization scheme DPoP must come with a DPoP proof")
        try:
            return dpop.verify_proof(
                request.proof,
                method=request.method,
                url=request.url,
                access_token=request.token,
                now=now,
            )
        except CredentialError as error:
            raise ProofRefused(str(error)) from error

    def _decide(
        self,
        verified: _Verified,
        presented: Presented,
        *,
        resource: str,
        action: str,
        now: datetime,
    ) -> None:
        token = verified.token
        if token.binding.kind is BindingKind.BEARER and not self._bearer:
            raise WrongHolder("token is bound to no key, and this server accepts none such")
        task_token.check_holder(token, presented)
        task_token.check_grant(token, resource=resource, action=action)
        domain = self._domain(token.client.trust_domain, now) if verified.foreign else None
        if domain is not None and self.federation is not None:
            self.federation.check_grant(domain, token.client, audience=self.audience, action=action)
        self._check_facts(domain, verified.marks, now)


def _check_own_certificate(token: TaskToken, certificate: bytes | None) -> None:
    """A token that another domain bound to a certificate is bound to its own agent's.

    Raises:
        WrongHolder: it names somebody else's, as one of ours.
    """
    if token.binding.kind is not BindingKind.CERTIFICATE or certificate is None:
        return
    if x509_svid.parse_der(certificate).spiffe_id != token.client:
        raise WrongHolder("token is bound to a certificate of another agent than its own")

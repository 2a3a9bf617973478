"""Who is calling: from the verified TLS client certificate to an agent or an admin.

The handshake proved that the SVID is of our trust domain and that the caller holds its key. Decided
here, at each request: whether it is still valid, whether a fact is against it, and what it is. A
connection may outlive the SVID that opened it; a call may not.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from starlette.requests import Request

from accredit_credentials.asgi_peer import peer_certificate
from accredit_credentials.bundle import UNREADABLE
from accredit_credentials.errors import CredentialError
from accredit_credentials.keys import b64url
from accredit_credentials.x509_svid import X509Svid, authority_key_id, parse_der
from accredit_issuer.clock import Clock
from accredit_issuer.clock_guard import ClockWrong
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.decision import check_not_revoked
from accredit_issuer.issuer import Issuer
from accredit_issuer.registry.changes import AdminActor
from accredit_issuer.registry.roles import Admin, Operation, Reach, check_may, reach

REMEMBERED = 4096  # certificates that need not be parsed again


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody with an accepted SVID."""

    svid: X509Svid
    marks: tuple[str, ...]
    thumbprint: str
    not_before: datetime
    not_after: datetime
    authority: str | None

    @property
    def name(self) -> str:
        """Its SPIFFE ID."""
        return str(self.svid.spiffe_id)


@dataclass(frozen=True, slots=True)
class AdminCaller:
    """An admin, with the role it has now."""

    caller: Caller
    admin: Admin

    def require(self, operation: Operation, namespace: str | None) -> AdminActor:
        """Decide whether the admin may do this; returns who does it, to be asked again then.

        Raises:
            Refusal: its role does not go so far.
        """
        check_may(self.admin, operation, namespace)
        return AdminActor(
            name=self.caller.name,
            admin=self.admin.name,
            marks=self.caller.marks,
            operation=operation,
            namespace=namespace,
        )

    def sees(self) -> tuple[str, ...] | None:
        """The namespaces that the admin may read; None is all.

        Raises:
            Refusal: none at all.
        """
        match reach(self.admin, Operation.READ):
            case Reach.ALL:
                return None
            case Reach.OWN:
                return self.admin.namespaces
            case None:
                raise Refusal(Kind.FORBIDDEN, f"{self.admin.name} may not read")


class Callers:
    """Recognises callers. Its methods are FastAPI dependencies."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._parsed = lru_cache(REMEMBERED)(_parse)
        # By the CA's key id, which is of one key only: to hash its certificate takes longer than
        # everything else that is asked about a caller.
        self._signed_by = lru_cache(REMEMBERED)(self._is_signed_by)

    async def anyone(self, request: Request) -> Caller:
        """Whoever holds an accepted SVID.

        Raises:
            Refusal: no certificate, not an SVID, expired, revoked, or another issuer's.
            ClockWrong: by a clock that was set back an expired one would be good again.
        """
        return self._accepted(request, self._issuer.guarded_clock)

    def _accepted(self, request: Request, clock: Clock) -> Caller:
        der = peer_certificate(request.scope)
        if der is None:
            raise Refusal(Kind.UNAUTHENTICATED, "show an X.509-SVID as TLS client certificate")
        caller = self._parsed(der)
        now = clock()
        if not caller.not_before <= now < caller.not_after:
            raise Refusal(
                Kind.UNAUTHENTICATED, f"the SVID is over since {caller.not_after:%H:%M:%S} UTC"
            )
        if caller.svid.spiffe_id.trust_domain != self._issuer.config.trust_domain:
            raise Refusal(Kind.UNAUTHENTICATED, "the SVID is of another trust domain")
        check_not_revoked(caller.marks, self._issuer.revocation.facts)
        # A subordinate issuer has a CA below our root: its admins and agents are not ours. Which
        # CA an SVID names is its signer's choice, so the signature is checked with that CA's key;
        # which CAs are ours is asked each time.
        ca = self._issuer.authorities.issuing_ca(caller.authority)
        if ca is None or not self._signed_by(der, ca.id):
            raise Refusal(Kind.UNAUTHENTICATED, "the SVID was not issued by this issuer")
        return caller

    def _is_signed_by(self, leaf: bytes, key_id: str) -> bool:
        ca = self._issuer.authorities.issuing_ca(key_id)
        return ca is not None and ca.certificate is not None and is_signed_by(leaf, ca.certificate)

    async def anyone_or_nobody(self, request: Request) -> Caller | None:
        """Whoever holds an accepted SVID, or nobody: for calls that a name only adds to."""
        try:
            return await self.anyone(request)
        except (Refusal, ClockWrong):
            return None

    async def agent(self, request: Request) -> Caller:
        """An agent.

        Raises:
            Refusal: as ``anyone``, or not an agent.
        """
        caller = await self.anyone(request)
        if caller.svid.manifest is None:
            raise Refusal(Kind.FORBIDDEN, f"{caller.name} is not an agent")
        return caller

    async def node(self, request: Request) -> Caller:
        """A node.

        Raises:
            Refusal: as ``anyone``, or not a node.
        """
        return _node(await self.anyone(request))

    async def node_by_any_clock(self, request: Request) -> Caller:
        """A node that is to stop something; as ``admin_by_any_clock``.

        Raises:
            Refusal: as ``node``.
        """
        return _node(self._accepted(request, self._issuer.guarded_clock.at_least))

    async def admin(self, request: Request) -> AdminCaller:
        """An admin.

        Raises:
            Refusal: as ``anyone``, or not an admin.
        """
        return self._admin(await self.anyone(request))

    async def admin_by_any_clock(self, request: Request) -> AdminCaller:
        """An admin who is to stop something, which is possible while the clock is wrong.

        Its SVID is judged by the newest moment that is known to have been.

        Raises:
            Refusal: as ``admin``.
        """
        return self._admin(self._accepted(request, self._issuer.guarded_clock.at_least))

    def _admin(self, caller: Caller) -> AdminCaller:
        match caller.svid.spiffe_id.segments:
            case ("admin", name):
                return AdminCaller(caller, self._issuer.registry.admin(name))
        raise Refusal(Kind.FORBIDDEN, f"{caller.name} is not an admin")


def is_signed_by(leaf: bytes, ca: x509.Certificate) -> bool:
    """Whether a certificate in DER was signed with the very key of this CA."""
    try:
        x509.load_der_x509_certificate(leaf).verify_directly_issued_by(ca)
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


def _node(caller: Caller) -> Caller:
    match caller.svid.spiffe_id.segments:
        case ("node", _):
            return caller
    raise Refusal(Kind.FORBIDDEN, f"{caller.name} is not a node")


def _parse(der: bytes) -> Caller:
    try:
        svid = parse_der(der)
    except CredentialError as error:
        raise Refusal(Kind.UNAUTHENTICATED, f"client certificate: {error}") from None
    thumbprint = b64url(hashlib.sha256(der).digest())
    return Caller(
        svid=svid,
        marks=svid.marks(),
        thumbprint=thumbprint,
        not_before=svid.not_before,
        not_after=svid.not_after,
        authority=authority_key_id(svid.leaf),
    )

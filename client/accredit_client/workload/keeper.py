"""An identity that the node daemon pushes: what an identity makes of the daemon's messages.

Each message replaces what is held; what the daemon withdraws is gone at once, and comes back with
the message that has it again. While the daemon is away, what is held is good until its end.

Revocation of peers: with an issuer's address its signed feed is followed, as always. Without, the
CRLs of the daemon's messages are asked: a peer on its CA's list is refused in any case, and with
``revocations`` also where there is no list that holds, or the daemon has been away too long.
"""

import asyncio
import concurrent.futures
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from accredit_client import renewal
from accredit_client.answers import JwtAnswer, TaskTokenAnswer
from accredit_client.calls import TaskTokenRequest
from accredit_client.effects import Clock, Draw
from accredit_client.errors import (
    IdentityRefused,
    InvalidAnswer,
    IssuerUnreachable,
    MissingExtra,
    NotReady,
)
from accredit_client.keeper import LONGEST_WAIT, Held, Keeper, Status
from accredit_client.renewal import State
from accredit_client.talk import Blocking, Talk
from accredit_client.workload.messages import X509State, whole
from accredit_client.workload.revoked import RevocationLists
from accredit_credentials import jws, jwt_svid
from accredit_credentials.bundle_map import BundleMap, FederatedDomain
from accredit_credentials.errors import CredentialError, Stale
from accredit_credentials.spiffe_id import SpiffeId
from accredit_credentials.x509_svid import X509Svid

if TYPE_CHECKING:
    from accredit_client.workload.line import News, Pause

FIRST_ANSWER = 35.0  # seconds that one try of a start waits for the daemon's first messages
MAX_TOKENS = 1000  # JWT-SVIDs that are kept, one for each set of audiences


def require_grpc() -> None:
    """Decide whether the daemon can be talked to.

    Raises:
        MissingExtra: the packages are not installed.
    """
    try:
        import_module("grpclib")
        import_module("google.protobuf")
    except ImportError as error:
        raise MissingExtra(
            f"an identity from the node daemon needs gRPC: {error}",
            hint="install accredit with its extra 'daemon'",
        ) from None


@dataclass(frozen=True, slots=True)
class _Kept:
    """A JWT-SVID, and whose it is."""

    answer: JwtAnswer = field(repr=False)
    obtained_at: datetime
    instance: str | None
    authority: str | None

    def young(self, now: datetime) -> bool:
        return now < self.obtained_at + (self.answer.expires_at - self.obtained_at) / 2

    def good(self, now: datetime) -> bool:
        return now < self.answer.expires_at

    def fits(self, held: Held) -> bool:
        """Whether it is of what is held, and of an authority that is still one."""
        svid, bundle = held.identity.svid, held.bundle
        return (
            (self.answer.spiffe_id, self.instance) == (svid.spiffe_id, svid.instance)
            and self.authority not in bundle.tainted
            and (not bundle.jwt_authorities or self.authority in bundle.jwt_authorities)
        )


class DaemonKeeper(Keeper):
    """Follows the node daemon at ``path``."""

    def __init__(
        self,
        path: Path,
        *,
        spiffe_id: SpiffeId | None,
        issuer_url: str | None,
        clock: Clock,
        draw: Draw,
        pause: "Pause",
    ) -> None:
        super().__init__(clock=clock, draw=draw)
        require_grpc()
        from accredit_client.workload.line import Line  # noqa: PLC0415 (needs the extra)

        self._line: Line = Line(path, spiffe_id=spiffe_id, clock=clock, draw=draw, pause=pause)
        self._issuer_url = issuer_url
        self._seen: News | None = None
        self._lists = RevocationLists()
        self._tokens: dict[tuple[str, ...], _Kept] = {}
        self._asking_for: dict[tuple[str, ...], asyncio.Lock] = {}

    @property
    def issuer_url(self) -> str:
        """Where the issuer is, if that was said."""
        if self._issuer_url is None:
            raise NotReady(
                "this identity comes from the node daemon and knows no issuer",
                hint="say issuer_url, too",
            )
        return self._issuer_url

    @property
    def has_issuer(self) -> bool:
        """Whether the issuer is known."""
        return self._issuer_url is not None

    @property
    def crls(self) -> tuple[bytes, ...]:
        """The CRLs (DER) of the message that is held."""
        return self._lists.contents

    def open(self, told: Callable[[], None]) -> None:
        """Begin to follow the daemon."""
        self._line.start(told)

    def close(self) -> None:
        """Stop."""
        self._line.close()

    def begin(self) -> Talk:
        """Wait for the first messages."""
        yield Blocking(lambda: self._line.wait_told(FIRST_ANSWER))
        news = self._line.news
        self._absorb(news)
        if news.svids is None and news.withdrawn is None:
            raise news.error or IssuerUnreachable("the node daemon says nothing")
        self.held()
        if self._map_at is None and self.has_issuer:
            yield from self._first_map()

    def due(self, now: datetime) -> datetime:
        """When to look after the federation: news come by themselves."""
        return self._map_due(renewal.later(now, LONGEST_WAIT))

    def pause(self, now: datetime) -> float:
        """Seconds until the next step; none where there are news."""
        return 0.0 if self._line.news is not self._seen else super().pause(now)

    def step(self, now: datetime) -> Talk:
        """Take in what came, and look after the federation."""
        self._absorb(self._line.news)
        if self.has_issuer and self._map_at is not None and now >= self._map_at:
            yield from self._refresh_map()
            self._try_at = None

    def ask_for_bundle(self, sequence: int | None = None) -> bool:  # noqa: ARG002 (the contract)
        """The daemon pushes each bundle: there is nothing to ask."""
        return False

    def held(self) -> Held:
        """The identity, if it may be used; raises as ``Keeper.held``."""
        self._check_served()
        return super().held()

    def last_held(self) -> Held:
        """The identity, unless it was withdrawn: that is used for nothing (§5.2.1)."""
        self._check_served()
        return super().last_held()

    def status(self) -> Status:
        """How the identity is doing."""
        status = super().status()
        if self._line.news.withdrawn is None:
            return status
        return Status(
            state=State.REFUSED,
            age=status.age,
            expires_in=status.expires_in,
            stale_for=status.stale_for,
            failures=status.failures,
            renewals=status.renewals,
            last_error=status.last_error,
        )

    def check_lists(self, svid: X509Svid, *, max_age: float | None) -> None:
        """Decide by the CRLs; raises ``Revoked`` and, with ``max_age``, ``Stale``."""
        news, now = self._line.news, self.clock()
        if max_age is not None and news.lost_at is not None:
            away = (now - news.lost_at).total_seconds()
            if away > max_age:
                raise Stale(
                    f"the node daemon has been away for {away:.0f} seconds, "
                    f"the limit is {max_age:.0f}"
                )
        self._lists.check(svid, self.trusted(), now=now, required=max_age is not None)

    def jwt_svid(self, audience: tuple[str, ...]) -> "concurrent.futures.Future[JwtAnswer]":
        """A JWT-SVID, kept and asked for anew from half of its life on."""
        return self._line.submit(self._jwt_svid(audience))

    def task_token(self, request: TaskTokenRequest) -> "concurrent.futures.Future[TaskTokenAnswer]":
        """A task token of the identity that is held."""
        return self._line.submit(self._task_token(request))

    async def _task_token(self, request: TaskTokenRequest) -> TaskTokenAnswer:
        return await self._line.task_token(request, self.held().identity.svid.spiffe_id)

    async def _jwt_svid(self, audience: tuple[str, ...]) -> JwtAnswer:
        kept = self._kept(audience)
        if kept is not None and kept.young(self.clock()):
            return kept.answer
        # Whoever asks meanwhile for the same gets what this one gets.
        async with self._asking_for.setdefault(audience, asyncio.Lock()):
            try:
                return await self._newer_jwt_svid(audience)
            finally:
                if audience not in self._tokens:
                    self._asking_for.pop(audience, None)

    async def _newer_jwt_svid(self, audience: tuple[str, ...]) -> JwtAnswer:
        kept = self._kept(audience)
        if kept is not None and kept.young(self.clock()):
            return kept.answer
        held = self.held()
        try:
            token = await self._line.jwt_svid(audience, held.identity.svid.spiffe_id)
        except IssuerUnreachable:
            kept = self._kept(audience)
            if kept is None:
                raise
            return kept.answer
        self.held()  # it may have been withdrawn meanwhile
        return self._keep(audience, token, held).answer

    def _kept(self, audience: tuple[str, ...]) -> _Kept | None:
        held, kept = self.held(), self._tokens.get(audience)
        if kept is None or not kept.good(self.clock()) or not kept.fits(held):
            return None
        return kept

    def _keep(self, audience: tuple[str, ...], token: str, held: Held) -> _Kept:
        svid = held.identity.svid
        try:
            unverified = jws.parse(token, types=jwt_svid.TYPES)
            whose = jws.text_claim(unverified.claims, "sub")
            expires_at = jws.time_claim(unverified.claims, "exp")
        except CredentialError as error:
            raise InvalidAnswer(f"the daemon's JWT-SVID: {error}") from error
        if whose != str(svid.spiffe_id):
            raise InvalidAnswer(f"the daemon's JWT-SVID must be of {svid.spiffe_id}")
        jti = unverified.claims.get("jti")
        answer = JwtAnswer(
            spiffe_id=svid.spiffe_id,
            token=token,
            jti=jti if isinstance(jti, str) else "",
            expires_at=expires_at,
        )
        kept = _Kept(answer, self.clock(), svid.instance, unverified.kid)
        while len(self._tokens) >= MAX_TOKENS:
            oldest = next(iter(self._tokens))
            del self._tokens[oldest]
            self._asking_for.pop(oldest, None)
        self._tokens[audience] = kept
        return kept

    def _check_served(self) -> None:
        why = self._line.news.withdrawn
        if why is not None:
            raise IdentityRefused(
                f"the node daemon gives this process no identity: {why}",
                hint="the daemon's log says why; who stays and asks is served once it may be",
            )

    def _absorb(self, news: "News") -> None:
        """Hold what the daemon's newest messages say, and nothing else."""
        if news is not self._seen:
            self._seen = news
            if news.svids is None:
                self._held = None
                self._lists = RevocationLists()
            else:
                self._hold_state(news, news.svids)
            self._failures, self._last_error = news.failures, news.error
        if not self.has_issuer and news.lost_at is None and news.svids is not None:
            self._federate(news, news.svids)

    def _hold_state(self, news: "News", state: X509State) -> None:
        held, domain = self._held, state.bundle.trust_domain
        bundle = whole(state.bundle, (news.keys or {}).get(domain))
        if held is not None and held.bundle == bundle:
            bundle = held.bundle  # contexts and verified tokens hang on the object
        if state.crls != self._lists.contents:
            self._lists = RevocationLists(state.crls)
        svid = state.identity.svid
        if held is not None and held.identity.svid == svid:
            self._held = Held(bundle, held.identity, held.life)
            return
        life = renewal.life_of(svid.not_before, svid.not_after, now=self.clock(), draw=_latest)
        self._hold(bundle, state.identity, life)

    def _federate(self, news: "News", state: X509State) -> None:
        """Who is federated, by the daemon's word; what others may do here, only an issuer says."""
        if self.federation is None:
            return
        domains, left_out = {}, {}
        for name, bundle in state.federated.items():
            try:
                domains[name] = FederatedDomain(whole(bundle, (news.keys or {}).get(name)))
            except CredentialError as error:
                left_out[name] = str(error)
        self.federation.take(BundleMap(domains, left_out=left_out), own=state.bundle.trust_domain)


def _latest() -> float:
    """The latest that the daemon would renew."""
    return 1.0

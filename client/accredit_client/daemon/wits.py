"""WIT-SVIDs for workloads: a new key for each, held in memory beside its workload's SVIDs.

In this order each time: a key is made → the issuer is asked with the instance's own SVID
(``/v1/svids/wit``) → what came is validated by the bundle, and is of this instance and this key →
held. The next one, for the next key, at half life, give or take a tenth. While the issuer is away
an earlier one is good to its end; a refusal of the issuer withdraws it. After a failure nothing is
asked before a pause, however many ask here. Whoever is taken back has no SVID any more, so nothing
here is asked about them; what a workload held goes when the process is forgotten.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol
from weakref import WeakKeyDictionary

from cryptography.hazmat.primitives.asymmetric import ec

from accredit_client import renewal
from accredit_client.answers import WitAnswer
from accredit_client.calls import certificate_request
from accredit_client.daemon.provider import NotYet, Refused
from accredit_client.effects import Clock, Draw
from accredit_client.errors import ClientError, InvalidAnswer, IssuerRefused
from accredit_client.renewal import Life
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import CredentialError, Untrusted
from accredit_credentials.keys import generate_key
from accredit_credentials.wit_svid import UnprovenWit, WitSvid, validate
from accredit_credentials.x509_svid import X509Identity

log = logging.getLogger(__name__)

NONE_HERE = "not-found"  # the problem of an issuer that issues none
Ask = Callable[[X509Identity, str], Awaitable[WitAnswer]]


class Trusting(Protocol):
    """What a WIT-SVID is validated by: the node."""

    @property
    def bundle(self) -> TrustBundle:
        """The trust bundle."""

    async def refetch_bundle(self) -> bool:
        """Fetch the bundle, where an authority is missing in it."""


@dataclass(frozen=True, slots=True)
class HeldWit:
    """A WIT-SVID and the key that it is for."""

    svid: WitSvid
    token: str = field(repr=False)
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    life: Life


@dataclass(slots=True)
class _Standing:
    """One instance's WIT-SVID, as it stands."""

    held: HeldWit | None = None
    failures: int = 0
    try_at: datetime | None = None
    problem: ClientError | None = None
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Wits:
    """The WIT-SVIDs of all workloads of a daemon.

    Args:
        ask: asks the issuer as an instance.
        node: whose bundle decides.
        clock: the time.
        draw: for the jitter.
    """

    def __init__(self, ask: Ask, node: Trusting, *, clock: Clock, draw: Draw) -> None:
        self._ask = ask
        self._node = node
        self._clock = clock
        self._draw = draw
        self._of: WeakKeyDictionary[object, dict[str, _Standing]] = WeakKeyDictionary()

    async def of(self, workload: object, identity: X509Identity) -> HeldWit:
        """The WIT-SVID of one identity of a workload, a newer one where it is time.

        Raises:
            Refused: the issuer says no, or issues none.
            NotYet: it is away, and none is held that is good.
        """
        standing = self._standing(workload, _instance(identity))
        async with standing.asking:
            if self._is_due(standing):
                await self._obtain(standing, identity)
            held = standing.held
            if held is not None and not held.life.expired(self._clock()):
                return held
            standing.held = None
            raise standing.problem or NotYet("the WIT-SVID is over, and the issuer is away")

    def next_change(self, workload: object, identities: Iterable[X509Identity]) -> float:
        """Seconds until the next look at what a workload holds for these, which it just asked for.

        Of others the moment may be over: nobody asks for them.
        """
        now, longest = self._clock(), renewal.LONGEST_PAUSE
        known = self._of.get(workload, {})
        for standing in [known[name] for name in map(_instance, identities) if name in known]:
            held, moment = standing.held, standing.try_at
            if held is not None:
                moment = max(held.life.renew_at, moment or held.life.renew_at)
                # The first moment at which it is over: ``expired`` counts the last one in.
                moment = min(moment, renewal.later(held.life.not_after, 0.001))
            if moment is not None:
                longest = min(longest, renewal.seconds_until(moment, now))
        return longest

    def bundle_changed(self) -> None:
        """Renew soon what a tainted key signed; drop what the bundle vouches for no more."""
        bundle = self._node.bundle
        for standings in self._of.values():
            for standing in standings.values():
                if standing.held is None:
                    continue
                signer = standing.held.svid.authority
                if signer not in bundle.wit_authorities:
                    standing.held = None
                elif signer in bundle.tainted:
                    # Not all at once: every workload of every host may hold something of it.
                    soon = renewal.replace_after(0, draw=self._draw)
                    standing.held = _due_by(standing.held, renewal.later(self._clock(), soon))

    def taken_back(self, targets: frozenset[str]) -> bool:
        """Drop what facts about these targets match; returns whether there was anything."""
        found = False
        for standings in self._of.values():
            for standing in standings.values():
                held = standing.held
                if held is not None and not targets.isdisjoint(held.svid.marks()):
                    standing.held, found = None, True
        return found

    def _standing(self, workload: object, instance: str) -> _Standing:
        known = self._of.setdefault(workload, {})
        if instance not in known:
            # A new one may have come in the place of another, whose WIT-SVID serves nobody.
            for name in [n for n, each in known.items() if each.held is None]:
                del known[name]
            known[instance] = _Standing()
        return known[instance]

    def _is_due(self, standing: _Standing) -> bool:
        now, held = self._clock(), standing.held
        if standing.try_at is not None and now < standing.try_at:
            return False
        return held is None or now >= held.life.renew_at

    async def _obtain(self, standing: _Standing, identity: X509Identity) -> None:
        """One try; what came of it is in ``standing``."""
        try:
            standing.held = await self._fetched(identity)
        except (ClientError, CredentialError) as error:
            standing.problem = _said(error)
            standing.failures += 1
            asked = error.retry_after if isinstance(error, IssuerRefused) else None
            pause = renewal.pause_after(standing.failures, draw=self._draw, asked=asked)
            standing.try_at = renewal.later(self._clock(), pause)
            if isinstance(standing.problem, Refused):
                standing.held = None
            log.warning("no WIT-SVID of %s: %s", identity.svid.spiffe_id, error)
        else:
            standing.problem, standing.try_at, standing.failures = None, None, 0

    async def _fetched(self, identity: X509Identity) -> HeldWit:
        key, asked_at = generate_key(), self._clock()
        answer = await self._ask(identity, certificate_request(key))
        claimed = (await self._validated(answer.token)).claimed
        if claimed.spiffe_id != identity.svid.spiffe_id or claimed.key != key.public_key():
            raise InvalidAnswer("the issuer's WIT-SVID is of somebody else, or of another key")
        life = renewal.life_of(asked_at, claimed.expires_at, now=self._clock(), draw=self._draw)
        return HeldWit(claimed, answer.token, key, life)

    async def _validated(self, token: str) -> UnprovenWit:
        def check() -> UnprovenWit:
            bundle = self._node.bundle
            return validate(token, bundles={bundle.trust_domain: bundle}, now=self._clock())

        try:
            return check()
        except Untrusted:
            await self._node.refetch_bundle()
            return check()


def _said(error: ClientError | CredentialError) -> ClientError:
    """What a caller is told: Refused for what waiting does not change."""
    if isinstance(error, IssuerRefused) and not error.for_now:
        if error.kind == NONE_HERE:
            return Refused("the issuer of this trust domain issues no WIT-SVIDs")
        return Refused(str(error))
    return NotYet(f"no WIT-SVID: {error}")


def _instance(identity: X509Identity) -> str:
    return identity.svid.instance or identity.svid.serial


def _due_by(held: HeldWit, moment: datetime) -> HeldWit:
    return replace(held, life=replace(held.life, renew_at=min(held.life.renew_at, moment)))

"""An identity of the issuer's: attested, renewed and refreshed over the wire.

Trust first, then an SVID by evidence, then renewals until the issuer refuses for good. Where the
SVID is not accepted any more, or its time is over, it attests anew.
"""

from collections.abc import Callable, Generator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from accredit_attestors.contract import Attestor, CollectContext
from accredit_client import calls, renewal
from accredit_client.answers import X509Answer
from accredit_client.call import Call
from accredit_client.effects import Clock, Draw
from accredit_client.errors import ClientError, InvalidAnswer, IssuerRefused, NotReady
from accredit_client.keeper import Held, Keeper
from accredit_client.talk import Blocking, Talk
from accredit_client.tls import View
from accredit_client.trust import Trust
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import Expired, Untrusted
from accredit_credentials.keys import PrivateKey, generate_key
from accredit_credentials.x509_svid import X509Identity, X509Svid, validate


class IssuerKeeper(Keeper):
    """Attests at the issuer and renews there."""

    def __init__(
        self,
        *,
        issuer_url: str,
        trust: Trust,
        manifest_file: Path | None,
        code_root: Path | None,
        join_token_file: Path | None,
        attestors: Callable[[], Mapping[str, Attestor]],
        clock: Clock,
        draw: Draw,
    ) -> None:
        super().__init__(clock=clock, draw=draw)
        self._issuer_url = issuer_url
        self._trust = trust
        self._manifest_file = manifest_file
        self._code_root = code_root
        self._join_token_file = join_token_file
        self._attestors = attestors
        self._bundle: TrustBundle | None = None
        self._refresh_at: datetime | None = None
        self._replace_at: datetime | None = None
        self._replaced = 0
        self._attest_next = False
        self._unvouched: X509Identity | None = None

    @property
    def issuer_url(self) -> str:
        """Where the issuer is."""
        return self._issuer_url

    def begin(self) -> Talk:
        """Establish trust, attest, and hold the first SVID."""
        if self._bundle is None:
            self._took_bundle((yield Blocking(self._establish)))
        if self._unvouched is not None:
            yield from self._take(self._unvouched)
        elif self._held is None:
            yield from self._attest()
        yield from self._first_map()

    def due(self, now: datetime) -> datetime:
        """The renewal, the bundle's refresh or the end, whichever comes first."""
        held = self._held
        if held is None or self._refresh_at is None or self._attest_next:
            return now
        if self._unvouched is not None:
            return now
        return min(self._renew_at(held), self._map_due(self._refresh_at))

    def step(self, now: datetime) -> Talk:
        """Attest where nothing is held any more, renew where it is time, or refresh."""
        held = self._held
        if held is None:
            yield from self.begin()
        elif self._unvouched is not None:
            yield from self._take(self._unvouched)
        elif self._attest_next or held.life.expired(now):
            yield from self._again()
        elif now >= self._renew_at(held):
            yield from self._renew(held)
        else:
            yield from self._look(self._refresh())

    def issuer_view(self) -> View:
        """As before, but for a first connection, or in a last resort, nothing is shown."""
        held = self._held
        if held is None or self._attest_next or held.life.expired(self.clock()):
            return View(self.trusted(), None)
        return View(held.bundle, held.identity)

    def trusted(self) -> TrustBundle:
        """The bundle, which is there before the first SVID."""
        if self._bundle is None:
            raise NotReady("there is no trust bundle yet", hint="start the identity first")
        return self._bundle

    def _renew_at(self, held: Held) -> datetime:
        """By its life, or earlier where its authority is tainted."""
        planned = held.life.renew_at
        return planned if self._replace_at is None else min(planned, self._replace_at)

    def _establish(self) -> TrustBundle:
        return self._trust.establish(self._issuer_url)

    def _again(self) -> Talk:
        """Attest anew: the bundle first, since what was missed may include new authorities."""
        yield from self._refresh()
        yield from self._attest()

    def _attest(self) -> Talk:
        key = generate_key()
        nonce = (yield calls.nonce()).nonce
        evidence = yield Blocking(lambda: self._collect(nonce, only=None))
        csr = calls.certificate_request(key)
        answer = yield from self._decisive(
            calls.attestation(nonce=nonce, csr=csr, evidence=evidence)
        )
        yield from self._accept(answer, key)

    def _renew(self, held: Held) -> Talk:
        key = generate_key()
        serial = held.identity.svid.serial
        evidence = yield Blocking(lambda: self._collect(serial, only="code_digest"))
        csr = calls.certificate_request(key)
        try:
            answer = yield from self._decisive(calls.x509_svid(csr=csr, evidence=evidence or None))
        except IssuerRefused as refused:
            # The SVID itself is not accepted any more, as when its authority was tainted.
            self._attest_next = refused.kind == "unauthenticated"
            raise
        _check_same(held.identity.svid, answer)
        yield from self._accept(answer, key)

    def _refresh(self) -> Talk:
        self._took_bundle((yield from self._newest_bundle()))

    def _decisive(self, call: Call[X509Answer]) -> Generator[Call[Any], Any, X509Answer]:
        """A call whose refusal may be the last word."""
        try:
            answer: X509Answer = yield call
        except IssuerRefused as refused:
            if refused.for_good:
                self._refused = refused
            raise
        return answer

    def _accept(self, answer: X509Answer, key: PrivateKey) -> Talk:
        """Hold an SVID, once the bundle vouches for it and it is for our key."""
        yield from self._take(X509Identity.of(answer.svid, key))

    def _take(self, identity: X509Identity) -> Talk:
        """As ``_accept``; one that waits for the bundle is kept, should that not be had now.

        What it cost may not be had again: a join token is spent.
        """
        self._unvouched = None
        try:
            self._validate(identity.svid)
        except Untrusted:
            self._unvouched = identity
            yield from self._refresh()  # its authority may be newer than our bundle
            self._unvouched = None
            self._validate(identity.svid)
        svid = identity.svid
        life = renewal.life_of(svid.not_before, svid.not_after, now=self.clock(), draw=self._draw)
        self._hold(self.trusted(), identity, life)
        self._attest_next = False
        tainted = svid.authorities & self.trusted().tainted
        self._replaced = self._replaced + 1 if tainted else 0
        self._plan_replacement()

    def _plan_replacement(self) -> None:
        """Leave a tainted authority at once, and not again and again where there is no other."""
        held = self._held
        self._replace_at = None
        if held is not None and held.identity.svid.authorities & held.bundle.tainted:
            pause = renewal.replace_after(self._replaced, draw=self._draw)
            self._replace_at = renewal.later(self.clock(), pause)

    def _validate(self, svid: X509Svid) -> None:
        bundle = self.trusted()
        try:
            validate(svid, bundles={bundle.trust_domain: bundle}, now=self.clock())
        except Expired as error:
            raise ClientError(
                f"the issuer's answer does not fit this machine's time: {error}",
                hint="compare the clocks",
            ) from error

    def _collect(self, nonce: str, *, only: str | None) -> list[dict[str, object]]:
        context = CollectContext(
            nonce=nonce,
            manifest_file=self._manifest_file,
            code_root=self._code_root,
            join_token_file=self._join_token_file,
        )
        collected = [
            attestor.collect(context)
            for kind, attestor in self._attestors().items()
            if only in {None, kind}
        ]
        return [evidence.to_json() for evidence in collected if evidence is not None]

    def _took_bundle(self, bundle: TrustBundle) -> None:
        self._bundle = bundle
        self._refresh_at = renewal.later(self.clock(), renewal.refresh_after(bundle.refresh_hint))
        held = self._held
        if held is not None and bundle is not held.bundle:
            self._held = Held(bundle, held.identity, held.life)
            self._replaced = 0  # another bundle: perhaps another authority signs by now
            self._plan_replacement()
            self._attest_next = self._attest_next or not self._vouched(held.identity.svid)

    def _vouched(self, svid: X509Svid) -> bool:
        """Whether the bundle still has an authority for the SVID: without, nobody takes it."""
        try:
            self._validate(svid)
        except Untrusted:
            return False
        except ClientError:
            return True  # its time is over, which is another matter
        return True


def _check_same(held: X509Svid, answer: X509Answer) -> None:
    """A renewal is for the identity and the instance that asked."""
    renewed = answer.svid
    if (renewed.spiffe_id, renewed.instance) != (held.spiffe_id, held.instance):
        raise InvalidAnswer(
            f"the issuer renewed {held.spiffe_id} as {renewed.spiffe_id}: "
            "expected the same identity and instance"
        )

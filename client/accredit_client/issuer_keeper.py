"""An identity of the issuer's: attested, renewed and refreshed over the wire.

Trust first, then an SVID by evidence, then renewals until the issuer refuses for good. Where the
SVID is not accepted any more, it attests anew. Where its time is over, as after a laptop's sleep,
its key is shown as evidence first (``former_svid``), and the join token only where that does not
count. What a folder kept over a restart is taken up likewise: renewed where it is still good.
"""

import logging
from collections.abc import Callable, Generator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from accredit_attestors import former_svid
from accredit_attestors.contract import Attestor, CollectContext
from accredit_attestors.dsse import MAX_ENVELOPE_BYTES, Envelope
from accredit_attestors.errors import AttestationError
from accredit_attestors.files import read_small_file
from accredit_attestors.statement import manifest_digest
from accredit_client import calls, renewal
from accredit_client.answers import X509Answer
from accredit_client.call import Call
from accredit_client.effects import Clock, Draw
from accredit_client.errors import ClientError, InvalidAnswer, IssuerRefused, NotReady
from accredit_client.files import PRIVATE, Access, read_folder, version_of
from accredit_client.keeper import Held, Keeper
from accredit_client.next_key import NextKey
from accredit_client.talk import Blocking, Talk
from accredit_client.tls import View
from accredit_client.trust import Trust
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import Expired, Untrusted
from accredit_credentials.keys import PrivateKey, generate_key, public_key_der
from accredit_credentials.x509_svid import X509Identity, X509Svid, validate

_log = logging.getLogger("accredit_client")

# Seconds before an SVID that did not count is shown again: each refusal is a record at the issuer.
DENIED_PAUSE = 300.0


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
        folder: Path | None = None,
        folder_access: Access = PRIVATE,
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
        self._folder = folder
        self._folder_access = folder_access
        self._next_key = NextKey(folder, folder_access)
        self._kept: X509Identity | None = None
        self._denied: tuple[str, IssuerRefused, datetime] | None = None
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
            yield from self._resume()
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
        """Show the key of the SVID that is over; where that does not count, the join token."""
        former = self._former()
        denied = None if former is None else self._still_denied(former)
        if former is not None and denied is None:
            try:
                yield from self._attest_by(former)
            except IssuerRefused as refused:
                if refused.for_now:
                    raise
                denied = refused
                again = renewal.later(self.clock(), DENIED_PAUSE)
                self._denied = (former.svid.serial, refused, again)
            else:
                return
        yield from self._attest_anew(denied)

    def _still_denied(self, former: X509Identity) -> IssuerRefused | None:
        """Why this SVID did not count a moment ago; None where it may be shown."""
        if self._denied is None:
            return None
        serial, refused, again = self._denied
        return refused if serial == former.svid.serial and self.clock() < again else None

    def _attest_anew(self, denied: IssuerRefused | None) -> Talk:
        """Attest as a new instance.

        ``denied`` is why the issuer does not take us for who we were. Where it has taken that back
        and there is no other way in, it is the last word.
        """
        if denied is None:
            yield from self._attest_by(None)
            return
        _log.warning("what was held does not count any more: %s", denied)
        failure: IssuerRefused | AttestationError | None = None
        if self._join_token_file is not None:
            try:
                yield from self._attest_by(None)
            except AttestationError as error:
                failure = error
            except IssuerRefused as refused:
                if refused.for_now:
                    raise
                failure = refused
            else:
                return
        if denied.for_good:
            self._refused = denied
        if failure is None or denied.for_good:
            raise denied from failure
        failure.hint = failure.hint or f"what was held does not count either: {denied.detail}"
        raise failure from denied

    def _former(self) -> X509Identity | None:
        """The SVID that is over, if there is one that may be shown."""
        held, now = self._held, self.clock()
        identity = self._kept if held is None else held.identity
        if identity is None or identity.svid.not_after >= now:
            return None
        return identity if former_svid.KIND in self._attestors() else None

    def _attest_by(self, former: X509Identity | None) -> Talk:
        """Attest as who we were, or as a new instance."""
        key = yield from self._key_for(former)
        nonce = (yield calls.nonce()).nonce
        evidence = yield Blocking(lambda: self._agent_evidence(nonce, key, former))
        call = calls.attestation(nonce=nonce, csr=calls.certificate_request(key), evidence=evidence)
        if former is None:
            answer = yield from self._decisive(call)
        else:
            answer = yield call  # a join token may be the way in where this is refused for good
            _check_same(former.svid, answer)
        yield from self._accept(answer, key)

    def _key_for(self, former: X509Identity | None) -> Generator[Any, Any, PrivateKey]:
        """The key of who we were next, or a new instance's own."""
        if former is None:
            return generate_key()
        key: PrivateKey = yield Blocking(self._next_key.get)
        return key

    # What a folder kept

    def _resume(self) -> Talk:
        """Go on as who we were before a restart, as far as a folder says; attest otherwise."""
        self._kept = yield Blocking(self._read_kept)
        if self._kept is None or self._former() is not None:
            yield from self._attest()
            return
        denied = yield from self._renew_kept(self._kept)
        if denied is not None:
            yield from self._attest_anew(denied)

    def _renew_kept(self, kept: X509Identity) -> Generator[Any, Any, IssuerRefused | None]:
        """Renew what was kept, with the code measured; returns why the issuer does not."""
        svid, now = kept.svid, self.clock()
        life = renewal.life_of(svid.not_before, svid.not_after, now=now, draw=self._draw)
        self._held = Held(self.trusted(), kept, life)
        try:
            yield from self._renew(self._held)
        except IssuerRefused as refused:
            if refused.for_now:
                raise
            self._refused, self._attest_next = None, False
            return refused
        finally:
            # Nothing is held before the issuer has seen what runs now.
            self._held = None if self._is_held(kept) else self._held
        return None

    def _is_held(self, identity: X509Identity) -> bool:
        return self._held is not None and self._held.identity is identity

    def _read_kept(self) -> X509Identity | None:
        """What the folder holds, where it is of this issuer and of the manifest that runs."""
        folder = self._folder
        if folder is None or version_of(folder) is None:
            return None
        try:
            content = read_folder(folder, self._folder_access)
        except ClientError as error:
            _log.warning("what is in the folder is not taken up: %s", error)
            return None
        svid = content.identity.svid
        ours = content.bundle.trust_domain == self.trusted().trust_domain
        # The authority of one that is over may be gone: the issuer knows what it released.
        stands = svid.not_after < self.clock() or self._vouched(svid)
        if content.issuer_url != self._issuer_url or not ours or not stands:
            _log.warning("what is in the folder %s is not of this issuer", folder)
            return None
        if self._manifest_file is not None and svid.manifest != _digest_of(self._manifest_file):
            _log.info("what is in the folder %s is of another manifest", folder)
            return None
        self._next_key.take_up()
        return content.identity

    def _renew(self, held: Held) -> Talk:
        key = yield from self._key_for(held.identity)
        serial = held.identity.svid.serial
        evidence = yield Blocking(lambda: self._measured(serial))
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
        self._next_key.used()
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

    def _agent_evidence(
        self, nonce: str, key: PrivateKey, former: X509Identity | None
    ) -> list[dict[str, object]]:
        """Everything that there is, but for one of the two: they are two instances."""
        return self._collect(
            CollectContext(
                nonce=nonce,
                manifest_file=self._manifest_file,
                code_root=self._code_root,
                join_token_file=self._join_token_file if former is None else None,
                former=former,
                public_key=public_key_der(key.public_key()),
            )
        )

    def _collect(
        self, context: CollectContext, *, only: str | None = None
    ) -> list[dict[str, object]]:
        collected = [
            attestor.collect(context)
            for kind, attestor in self._attestors().items()
            if only in {None, kind}
        ]
        return [evidence.to_json() for evidence in collected if evidence is not None]

    def _measured(self, nonce: str) -> list[dict[str, object]]:
        context = CollectContext(
            nonce=nonce, manifest_file=self._manifest_file, code_root=self._code_root
        )
        return self._collect(context, only="code_digest")

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


def _digest_of(manifest_file: Path) -> str:
    """Which manifest is in a file, whoever signed it."""
    envelope = read_small_file(
        manifest_file, what="manifest", max_bytes=MAX_ENVELOPE_BYTES, private=False
    )
    return manifest_digest(Envelope.parse(envelope).unverified_payload)

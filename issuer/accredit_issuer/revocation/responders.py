"""The OCSP responders: one for each issuing CA that is asked about, its key in memory only.

Whoever answers is not the CA: each answer would ask the CA's key, which may be in a token, and an
attacker would choose how often. The CA signs a certificate for a few hours instead, and its record
is durable before anything is signed with it. A responder that ends is replaced at half its life by
the scheduler, or by whoever asks where that did not come to it; after a restart there is a new one.
"""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from sqlalchemy import select

from accredit_credentials.keys import generate_key
from accredit_issuer.audit.records import Record, RecordKind, written_moment
from accredit_issuer.authority.authorities import Authorities
from accredit_issuer.authority.lifecycle import AuthorityKind, State
from accredit_issuer.authority.profile import new_serial
from accredit_issuer.authority.responder_profile import (
    MAX_LIFETIME,
    ResponderProfile,
    ResponderTemplate,
    sign_responder,
)
from accredit_issuer.authority.snapshot import Authority
from accredit_issuer.errors import Unavailable
from accredit_issuer.keys.key_manager import key_id_of
from accredit_issuer.registry.changes import Actor, Changes
from accredit_issuer.revocation.ocsp import Responder
from accredit_issuer.settings import Config
from accredit_issuer.store.models import authorities
from accredit_issuer.store.writer import Transaction

AGAIN = timedelta(seconds=5)  # after one could not be made: strangers choose how often they ask

_log = structlog.get_logger("accredit.ocsp")


class Responders:
    """Who signs OCSP answers now. For any thread but the writing one: making one waits for it."""

    def __init__(
        self, config: Config, authorities: Authorities, changes: Changes, by: Actor
    ) -> None:
        self._config = config
        self._authorities = authorities
        self._changes = changes
        self._by = by
        self._profile = ResponderProfile(backdate=config.lifetimes.backdate, replica=config.replica)
        self._made: dict[str, Responder] = {}
        self._failed: dict[str, tuple[datetime, Unavailable]] = {}
        self._making = threading.Lock()

    def of(self, ca: Authority, now: datetime) -> Responder:
        """The responder of an issuing CA; made where there is none that lives long enough.

        Raises:
            Unavailable: the CA cannot sign, or it could not be recorded.
            ProfileViolation: the CA is over.
        """
        return self._kept_or_made(ca, now, self._is_usable)

    def renew(self, now: datetime) -> None:
        """Replace those past half their life, and forget those of CAs that are gone.

        Of a CA that nobody asked about there is none, and no record.
        """
        published = self._authorities.now_in_force.published(AuthorityKind.X509)
        with self._making:
            for gone in self._made.keys() - {each.id for each in published}:
                del self._made[gone]
        for ca in published:
            if ca.id not in self._made or ca.key is None or _end(ca, now) <= now:
                continue
            try:
                self._kept_or_made(ca, now, self._is_fresh)
            except Unavailable as error:
                # Nothing is lost: whoever asks next tries again, and so does the next run.
                _log.error("no responder", authority=ca.id, reason=str(error))

    def _kept_or_made(
        self, ca: Authority, now: datetime, will_do: Callable[[Responder, datetime], bool]
    ) -> Responder:
        known = self._made.get(ca.id)
        if known is not None and _is_good(known, ca, now, will_do):
            return known
        with self._making:
            known = self._made.get(ca.id)  # many ask at once, and one is enough
            if known is None or not _is_good(known, ca, now, will_do):
                self._check_not_just_failed(ca, now)
                try:
                    self._made[ca.id] = known = self._make(ca, now)
                except Unavailable as error:
                    self._failed[ca.id] = now, error
                    raise
            return known

    def _check_not_just_failed(self, ca: Authority, now: datetime) -> None:
        """Decide whether the CA's key may be asked: it, or the database, may fail for longer.

        Raises:
            Unavailable: it has just failed.
        """
        failed_at, error = self._failed.pop(ca.id, (None, None))
        if failed_at is not None and error is not None and failed_at <= now < failed_at + AGAIN:
            self._failed[ca.id] = failed_at, error
            raise Unavailable(str(error))

    def _make(self, ca: Authority, now: datetime) -> Responder:
        if ca.certificate is None:
            raise Unavailable("the issuing CA has no certificate")
        key = generate_key()
        template = ResponderTemplate(
            ca=ca.certificate,
            public_key=key.public_key(),
            serial=new_serial(self._config.replica),
            not_before=(now - self._config.lifetimes.backdate).replace(microsecond=0),
            not_after=_end(ca, now),
        )
        certificate = sign_responder(self._profile.check(template, now), ca.signing_key)
        record = _record(certificate, ca, now, self._by)

        def work(transaction: Transaction) -> None:
            _check_in_use(transaction, ca)
            transaction.record(record)

        self._changes.make(work, by=self._by)
        return Responder(certificate, key)

    def _is_usable(self, responder: Responder, now: datetime) -> bool:
        return now + self._config.ocsp_lifetime <= responder.not_after

    def _is_fresh(self, responder: Responder, now: datetime) -> bool:
        half = (responder.not_after - responder.not_before) / 2
        return now < responder.not_before + half


def _is_good(
    known: Responder, ca: Authority, now: datetime, will_do: Callable[[Responder, datetime], bool]
) -> bool:
    if not known.not_before <= now < known.not_after:
        return False
    # Of a CA that ends before long, another responder would not live longer.
    return will_do(known, now) or _end(ca, now) <= known.not_after


def _check_in_use(transaction: Transaction, ca: Authority) -> None:
    """Decide whether a CA is still there: a step may have removed it meanwhile.

    Raises:
        Unavailable: it is not.
    """
    row = select(authorities.c.state).where(authorities.c.id == ca.id)
    if transaction.execute(row).scalar() in {None, State.REMOVED.value}:
        raise Unavailable("the issuing CA is not in use any more")


def _end(ca: Authority, now: datetime) -> datetime:
    longest = (now + MAX_LIFETIME).replace(microsecond=0)
    return longest if ca.certificate is None else min(longest, ca.certificate.not_valid_after_utc)


def _record(certificate: x509.Certificate, ca: Authority, now: datetime, by: Actor) -> Record:
    return Record(
        kind=RecordKind.RESPONDER_CERTIFIED,
        at=now,
        actor=by.name,
        subject=format(certificate.serial_number, "x"),
        details={
            "authority": ca.id,
            "key": key_id_of(certificate.public_key()),  # type: ignore[arg-type]  # made above
            "expires_at": written_moment(certificate.not_valid_after_utc),
            "sha256": certificate.fingerprint(SHA256()).hex(),
        },
    )

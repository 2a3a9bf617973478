"""Answering OCSP questions: what is known is looked up, the responder signs, and answers are kept.

An answer that fits everybody who asks the same is given again until half of its time is over, so
that what many ask about is signed once. A fact drops them all, on the writing thread, before it is
told that it is stated: the next answer is made of what holds then. One that was being made
meanwhile, perhaps of what held before, is not kept.
"""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from cryptography.x509.ocsp import OCSPResponseStatus
from sqlalchemy import and_, bindparam, select

from accredit_issuer.authority.authorities import Authorities
from accredit_issuer.authority.snapshot import Authority
from accredit_issuer.clock import Clock
from accredit_issuer.errors import IssuerError
from accredit_issuer.revocation.ocsp import (
    Answer,
    CertId,
    IssuerHashes,
    Known,
    NotAnswered,
    Question,
    decide,
    failure,
    sign_answer,
    unauthorized,
)
from accredit_issuer.revocation.responders import Responders
from accredit_issuer.settings import Config
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import credentials, releases, revoked_certificates

THREADS = 2  # one waits for a responder's record, another goes on
MAX_KEPT = 4096  # answers, of less than 2 KiB with all around them; the oldest goes first

_Key = tuple[str, CertId]

# A look-up by key in each of three tables. Put together once: to do so takes as long as to ask.
_KNOWN = (
    select(
        credentials.c.expires_at,
        releases.c.number,
        revoked_certificates.c.at,
        revoked_certificates.c.suspended,
    )
    .outerjoin_from(credentials, releases, releases.c.number == credentials.c.number)
    .outerjoin(
        revoked_certificates,
        and_(
            revoked_certificates.c.serial == credentials.c.id,
            revoked_certificates.c.authority == credentials.c.authority,
        ),
    )
    .where(
        credentials.c.id == bindparam("serial"),
        credentials.c.kind == "x509",
        credentials.c.authority == bindparam("signer"),
    )
)


class OcspAnswers:
    """Answers about the certificates of this issuer's CAs. For any thread."""

    def __init__(
        self,
        config: Config,
        authorities: Authorities,
        responders: Responders,
        database: Database,
        clock: Clock,
    ) -> None:
        self._lifetime = config.ocsp_lifetime
        self._authorities = authorities
        self._responders = responders
        self._database = database
        self._clock = clock
        self._kept: dict[_Key, Answer] = {}
        self._hashes: dict[str, IssuerHashes] = {}
        self._changing = threading.Lock()
        self._facts = 0  # how often answers were dropped
        # Strangers that ask must not fill the pool in which admins' calls are answered.
        self._answering = ThreadPoolExecutor(THREADS, thread_name_prefix="accredit-ocsp")

    def kept(self, authority: str, question: Question) -> Answer | None:
        """An answer that was given before and still holds; asks neither database nor key.

        Raises:
            Unavailable: the clock cannot be believed.
        """
        if question.nonce is not None:
            return None
        answer = self._kept.get((authority, question.asked))
        return answer if answer is not None and _is_young(answer, self._clock()) else None

    async def told(self, authority: str, question: Question) -> Answer:
        """As ``answer``, for the event loop: at once where it was given before and still holds."""
        kept = self.kept(authority, question)
        if kept is not None:
            return kept
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._answering, self.answer, authority, question)

    def close(self) -> None:
        """Let those finish that are under way."""
        self._answering.shutdown()

    def answer(self, authority: str, question: Question) -> Answer:
        """Look up and sign. May wait for the writing thread, where the responder is a new one.

        Raises:
            NotAnswered: not a question for the responder of this authority.
            Unavailable: nothing can be signed or recorded now.
        """
        ca = self._authorities.issuing_ca(authority)
        now = self._clock()
        if ca is None or ca.key is None or ca.certificate is None:
            raise unauthorized("there is no responder for this authority")
        if now >= ca.certificate.not_valid_after_utc:
            raise unauthorized("the authority is over, with everything that it signed")
        self._hashes_of(ca).check(question.asked)
        facts = self._facts
        status = decide(self._known(authority, question.asked.serial), now)
        responder = self._responders.of(ca, now)
        answer = sign_answer(question, status, responder, now=now, lifetime=self._lifetime)
        if answer.reusable:
            self._keep((authority, question.asked), answer, facts)
        return answer

    def forget(self) -> None:
        """Drop every answer: a fact came into force. Called on the writing thread."""
        with self._changing:
            self._facts += 1
            self._kept.clear()

    def _keep(self, key: _Key, answer: Answer, facts: int) -> None:
        with self._changing:
            if facts != self._facts:
                return  # made of what held before a fact
            self._kept.pop(key, None)
            if len(self._kept) >= MAX_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = answer

    def _hashes_of(self, ca: Authority) -> IssuerHashes:
        known = self._hashes.get(ca.id)
        if known is None:
            assert ca.certificate is not None  # noqa: S101 (looked at above)
            present = {each.id for each in self._authorities.now_in_force.authorities}
            kept = {key: value for key, value in self._hashes.items() if key in present}
            self._hashes = {**kept, ca.id: (known := IssuerHashes.of(ca.certificate))}
        return known

    def _known(self, authority: str, serial: int) -> Known | None:
        """What the tables say of a serial number."""
        asked = {"serial": format(serial, "x"), "signer": authority}
        with self._database.read() as connection:
            row = connection.execute(_KNOWN, asked).first()
        if row is None:
            return None
        return Known(
            expires_at=row.expires_at,
            released=row.number is not None,
            revoked_at=row.at,
            suspended=bool(row.suspended),
        )


def failed(error: IssuerError) -> Answer:
    """What is answered where there is no status: ``tryLater`` where it is not the question's."""
    if isinstance(error, NotAnswered):
        return failure(error.status)
    return failure(OCSPResponseStatus.TRY_LATER)


def _is_young(answer: Answer, now: datetime) -> bool:
    begin, end = answer.this_update, answer.next_update
    return begin is not None and end is not None and begin <= now < begin + (end - begin) / 2

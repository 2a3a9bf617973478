"""X.509-SVIDs of admins: the first one for a one-time token, the next ones by renewal."""

import uuid
from datetime import datetime

from sqlalchemy import select, update

from accredit_credentials.keys import SubjectKey
from accredit_credentials.leaf_der import SignedLeaf
from accredit_credentials.spiffe_id import admin_id
from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.audit.records import Record, RecordKind
from accredit_issuer.authority.profile import Profile
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.decision import check_not_revoked
from accredit_issuer.issuance.parts import Parts
from accredit_issuer.issuance.together import Together
from accredit_issuer.issuance.x509_signing import Beside, X509Grant, X509Signing, end_of
from accredit_issuer.registry.one_time import EnrolmentToken
from accredit_issuer.registry.roles import Admin
from accredit_issuer.store.models import enrolment_tokens
from accredit_issuer.store.writer import Transaction


class AdminSvids:
    """Issues the X.509-SVIDs of admins."""

    def __init__(
        self, parts: Parts, x509: X509Signing, key_of_request: Together[str, SubjectKey]
    ) -> None:
        self._parts = parts
        self._config = parts.config
        self._x509 = x509
        self._key_of_request = key_of_request
        self._profile = Profile(
            trust_domain=parts.config.trust_domain,
            max_lifetime=parts.config.lifetimes.admin_svid,
            backdate=parts.config.lifetimes.backdate,
            replica=parts.config.replica,
            needs_manifest=False,
        )

    async def enrol(self, token_text: str, csr: str) -> SignedLeaf:
        """An admin's first SVID, for a one-time token.

        Raises:
            Refusal: an unknown, spent or expired token, or a key that is not accepted.
            Unavailable: it could not be recorded or signed.
        """
        now = self._parts.clock()
        token = EnrolmentToken.parse(token_text)
        subject_key = await self._key_of_request(csr)
        with self._parts.database.read() as connection:
            row = connection.execute(
                select(enrolment_tokens).where(enrolment_tokens.c.id == token.id)
            ).first()
        if row is None or not token.matches(row.secret_sha256):
            raise Refusal(Kind.UNAUTHENTICATED, "the one-time token is not known")
        if now >= row.expires_at:
            raise Refusal(Kind.UNAUTHENTICATED, "the one-time token is over")
        admin = self._parts.registry.admin(row.admin)
        instance = str(uuid.uuid4())

        def spend(transaction: Transaction) -> None:
            spent = transaction.execute(
                update(enrolment_tokens)
                .where(enrolment_tokens.c.id == token.id, enrolment_tokens.c.redeemed_by.is_(None))
                .values(redeemed_by=instance)
            )
            if spent.rowcount != 1:
                raise Refusal(Kind.CONFLICT, "the one-time token was used before")
            transaction.record(
                Record(
                    kind=RecordKind.ADMIN_ENROLLED,
                    at=now,
                    actor=str(admin_id(self._config.trust_domain, admin.name)),
                    subject=admin.name,
                    details={"enrolment_token": token.id, "instance": instance},
                )
            )

        return await self._issue(admin, instance, subject_key, now, beside=spend)

    async def renew(self, svid: X509Svid, admin: Admin, csr: str) -> SignedLeaf:
        """An admin's next SVID, for a new key.

        Raises:
            Refusal: revoked, or a key that is not accepted.
            Unavailable: it could not be recorded or signed.
        """
        return await self._issue(
            admin,
            svid.instance or str(uuid.uuid4()),
            await self._key_of_request(csr),
            self._parts.clock(),
            shown=svid.marks(),
        )

    async def _issue(
        self,
        admin: Admin,
        instance: str,
        subject_key: SubjectKey,
        now: datetime,
        *,
        shown: tuple[str, ...] = (),
        beside: Beside | None = None,
    ) -> SignedLeaf:
        ca = self._x509.issuing_ca()
        marks = (f"admin:{admin.name}", *shown)
        check_not_revoked(marks, self._parts.revocation.facts)
        ends = min(now + self._config.lifetimes.admin_svid, end_of(ca))
        return await self._x509.issue(
            X509Grant(
                profile=self._profile,
                ca=ca,
                subject_key=subject_key,
                spiffe_id=admin_id(self._config.trust_domain, admin.name),
                instance=instance,
                expires_at=ends.replace(microsecond=0),
                now=now,
                reasons=(f"admin {admin.name} has the role {admin.role}",),
                marks=marks,
                admin=admin.name,
            ),
            beside=beside,
        )

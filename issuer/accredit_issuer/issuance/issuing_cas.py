"""From a subordinate's request to a released issuing CA: decision → intent → signature → release.

The same cycle as every credential's: the ledger has it before it is signed, and the log before it
is released. In the same commit as the intent it becomes known as an authority, so that a fact can
be stated against whatever was ever signed. Both commits ask once more what was granted: none stands
in the log after the record that took the name away.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from sqlalchemy import func, insert, select

from accredit_credentials.bundle import TrustBundle
from accredit_credentials.spiffe_id import AgentId
from accredit_credentials.x509_svid import X509Svid
from accredit_credentials.x509_template import CaTemplate
from accredit_issuer.authority.authorities import Authorities
from accredit_issuer.authority.subordinates import (
    CaAsked,
    Subordinates,
    check_still_named,
    decide,
)
from accredit_issuer.authority.upstream import RootCa, key_id_of_public
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.csr import key_of_request
from accredit_issuer.issuance.cycle import Cycle, Intent, Signed
from accredit_issuer.issuance.decision import Claimant
from accredit_issuer.revocation.revocation import Revocation
from accredit_issuer.settings import Config
from accredit_issuer.store.models import authorities, subordinate_cas
from accredit_issuer.store.writer import Transaction


@dataclass(frozen=True, slots=True)
class SignedCa:
    """A subordinate's issuing CA, and what it needs beside it.

    Attributes:
        chain: between it and the trust anchor, nearest first.
        bundle: whose roots it is to publish.
    """

    certificate: x509.Certificate = field(repr=False)
    chain: tuple[x509.Certificate, ...] = field(repr=False)
    bundle: TrustBundle = field(repr=False)

    def view(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "certificate": _pem(self.certificate),
            "chain": "".join(map(_pem, self.chain)),
            "roots": "".join(map(_pem, self.bundle.x509_authorities)),
        }


class IssuingCas:
    """Certifies the issuing CAs of subordinates."""

    def __init__(
        self,
        config: Config,
        authorities: Authorities,
        subordinates: Subordinates,
        revocation: Revocation,
        cycle: Cycle,
    ) -> None:
        self._config = config
        self._authorities = authorities
        self._subordinates = subordinates
        self._revocation = revocation
        self._cycle = cycle

    async def issue(self, svid: X509Svid, claimant: Claimant, csr: str, now: datetime) -> SignedCa:
        """Certify an issuing CA for the holder of an agent's SVID.

        Raises:
            Refusal: it may not have one.
            Unavailable: it could not be recorded or signed.
        """
        root = self._authorities.certifying_root()
        asked = CaAsked(
            agent=AgentId.from_spiffe_id(svid.spiffe_id),
            public_key=key_of_request(csr).key,
            marks=claimant.marks,
        )
        named = self._subordinates.named(asked.agent)
        template = decide(
            asked,
            named,
            root,
            facts=self._revocation.facts,
            config=self._config,
            now=now,
        )
        intent = _intent(svid, claimant, template, root, now)

        def still(transaction: Transaction) -> None:
            if named is not None:  # ``decide`` refused otherwise
                check_still_named(transaction, named)

        def known(transaction: Transaction) -> None:
            still(transaction)
            _check_fresh(transaction, asked, intent)
            transaction.execute(
                insert(subordinate_cas).values(
                    id=key_id_of_public(asked.public_key),
                    agent=str(asked.agent),
                    root=root.id,
                    serial=intent.id,
                    issued_at=now,
                    expires_at=template.not_after,
                )
            )

        def sign() -> Signed[x509.Certificate]:
            certificate = self._authorities.sign_subordinate(template, root, now)
            der = certificate.public_bytes(serialization.Encoding.DER)
            return Signed(certificate, der, der)

        certificate = await self._cycle.issue(intent, sign, beside=known, still=still)
        return SignedCa(certificate, root.between, self._authorities.now_in_force.bundle)


def _intent(
    svid: X509Svid, claimant: Claimant, template: CaTemplate, root: RootCa, now: datetime
) -> Intent:
    key_id = key_id_of_public(template.public_key)
    return Intent(
        id=format(template.serial, "x"),
        kind="ca",
        subject=str(svid.spiffe_id),
        instance=claimant.instance,
        authority=root.id,
        decided_at=now,
        expires_at=template.not_after,
        marks=(f"authority:{key_id}", *claimant.marks),
        reasons=("named a subordinate issuer",),
        manifest=claimant.manifest.digest,
        details={
            "certified": key_id,
            "namespaces": list(template.namespaces),
            "dns_names": list(template.dns_names or ()),
        },
    )


def _check_fresh(transaction: Transaction, asked: CaAsked, intent: Intent) -> None:
    """Decide once more, where nothing comes in between: one key is one authority of one issuer.

    Raises:
        Refusal: the key is ours, or another subordinate's.
    """
    key_id = intent.details["certified"]
    ours = select(func.count()).select_from(authorities).where(authorities.c.id == key_id)
    others = (
        select(func.count())
        .select_from(subordinate_cas)
        .where(subordinate_cas.c.id == key_id, subordinate_cas.c.agent != str(asked.agent))
    )
    if transaction.execute(ours).scalar() or transaction.execute(others).scalar():
        raise Refusal(Kind.CONFLICT, "the key is known as an authority already: make a new one")


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()

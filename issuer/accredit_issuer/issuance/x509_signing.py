"""From a decision to a released X.509-SVID: template → profile → intent → signature.

The same way for agents, admins and the issuer's own server. Who may have one was decided before.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from cryptography import x509

from accredit_credentials.keys import SubjectKey
from accredit_credentials.leaf_der import IssuingCa, SignedLeaf
from accredit_credentials.spiffe_id import SpiffeId
from accredit_credentials.x509_template import LeafTemplate
from accredit_issuer.authority.authorities import Authorities
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.authority.profile import CheckedLeaf, Profile, new_serial
from accredit_issuer.authority.snapshot import Authority
from accredit_issuer.errors import Unavailable
from accredit_issuer.issuance.cycle import Cycle, Intent, Signed, Wanted
from accredit_issuer.settings import Config
from accredit_issuer.store.writer import Transaction

Beside = Callable[[Transaction], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Grant:
    """An X.509-SVID that was decided on.

    Attributes:
        profile: the bounds of its kind.
        ca: who signs it.
        subject_key: of the one who asked.
        spiffe_id: whom it is about.
        instance: a UUID.
        expires_at: whole seconds.
        now: when it was decided.
        reasons: why, for the log.
        manifest: the digest; None for what is not an agent.
        marks: what else a revocation fact about the holder can match.
        admin: the admin's name, for an admin.
        dns_names: for the issuer's own server.
        details: what else the log should say.
    """

    profile: Profile
    ca: Authority
    subject_key: SubjectKey = field(repr=False)
    spiffe_id: SpiffeId
    instance: str
    expires_at: datetime
    now: datetime
    reasons: tuple[str, ...]
    manifest: str | None = None
    marks: tuple[str, ...] = ()
    admin: str | None = None
    dns_names: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)


class X509Signing:
    """Signs X.509-SVIDs by the issuance cycle."""

    def __init__(self, config: Config, authorities: Authorities, cycle: Cycle) -> None:
        self._config = config
        self._authorities = authorities
        self._cycle = cycle

    def issuing_ca(self) -> Authority:
        """The CA that signs now.

        Raises:
            Unavailable: there is none.
        """
        return self._authorities.now_in_force.active(AuthorityKind.X509)

    async def issue(self, grant: X509Grant, *, beside: Beside | None = None) -> SignedLeaf:
        """Sign and release; ``beside`` is recorded together with the intent.

        Raises:
            ProfileViolation: the grant breaks its profile.
            Refusal: ``beside`` refused, or a fact came in between.
            Unavailable: it could not be recorded or signed.
        """
        return await self._cycle.issue(*self._checked(grant), beside=beside)

    async def issue_all(
        self, grants: Sequence[X509Grant], *, beside: Beside | None = None
    ) -> list[SignedLeaf]:
        """Sign and release all of them, or none; as ``issue``."""
        wanted = [Wanted(*self._checked(grant)) for grant in grants]
        return await self._cycle.issue_all(wanted, beside=beside)

    def _checked(self, grant: X509Grant) -> tuple[Intent, Callable[[], Signed[SignedLeaf]]]:
        template = self._template(grant)
        checked = grant.profile.check(
            template, _issuing(certificate_of(grant.ca), grant.ca.chain), grant.now
        )
        return _intent(grant, format(template.serial, "x")), lambda: self._sign(checked)

    def _sign(self, checked: CheckedLeaf) -> Signed[SignedLeaf]:
        leaf = self._authorities.sign_leaf(checked)
        return Signed(leaf, leaf.der, leaf.der)

    def _template(self, grant: X509Grant) -> LeafTemplate:
        crls, ocsp = self._config.crl_url, self._config.ocsp_url
        return LeafTemplate(
            spiffe_id=grant.spiffe_id,
            subject_key=grant.subject_key,
            serial=new_serial(self._config.replica),
            not_before=(grant.now - self._config.lifetimes.backdate).replace(microsecond=0),
            not_after=grant.expires_at,
            instance=grant.instance,
            manifest=grant.manifest,
            dns_names=grant.dns_names,
            crl_url=f"{crls}/v1/crl/{grant.ca.id}.crl" if crls else None,
            ocsp_url=f"{ocsp}/v1/ocsp/{grant.ca.id}" if ocsp else None,
        )


@lru_cache(maxsize=16)  # an issuer signs with very few CAs, very often
def _issuing(certificate: x509.Certificate, chain: tuple[x509.Certificate, ...]) -> IssuingCa:
    return IssuingCa(certificate, chain)


def certificate_of(ca: Authority) -> x509.Certificate:
    """The certificate of a CA.

    Raises:
        Unavailable: it has none.
    """
    if ca.certificate is None:
        raise Unavailable("the issuing CA has no certificate")
    return ca.certificate


def end_of(ca: Authority) -> datetime:
    """When the CA ends, and with it all that it signs."""
    return certificate_of(ca).not_valid_after_utc


def _intent(grant: X509Grant, serial: str) -> Intent:
    return Intent(
        id=serial,
        kind="x509",
        subject=str(grant.spiffe_id),
        instance=grant.instance,
        authority=grant.ca.id,
        decided_at=grant.now,
        expires_at=grant.expires_at,
        marks=(
            f"serial:{serial}",
            f"authority:{grant.ca.id}",
            f"instance:{grant.instance}",
            *grant.marks,
        ),
        reasons=grant.reasons,
        manifest=grant.manifest,
        admin=grant.admin,
        details=dict(grant.details),
    )

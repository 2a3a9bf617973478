"""The X.509-SVID of the issuer's own server."""

import uuid

from accredit_credentials.keys import PublicKey, SubjectKey
from accredit_credentials.leaf_der import SignedLeaf
from accredit_credentials.spiffe_id import issuer_id
from accredit_issuer.authority.profile import Profile
from accredit_issuer.issuance.parts import Parts
from accredit_issuer.issuance.x509_signing import X509Grant, X509Signing, end_of


class OwnSvid:
    """Issues it."""

    def __init__(self, parts: Parts, x509: X509Signing) -> None:
        self._parts = parts
        self._config = parts.config
        self._x509 = x509
        self._profile = Profile(
            trust_domain=parts.config.trust_domain,
            max_lifetime=parts.config.lifetimes.server_svid,
            backdate=parts.config.lifetimes.backdate,
            replica=parts.config.replica,
            dns_names=frozenset(parts.config.names),
            needs_manifest=False,
        )

    async def issue(self, public_key: PublicKey) -> SignedLeaf:
        """The SVID of the issuer's own server.

        Raises:
            Unavailable: it could not be recorded or signed.
        """
        now = self._parts.clock()
        ca = self._x509.issuing_ca()
        ends = min(now + self._config.lifetimes.server_svid, end_of(ca))
        return await self._x509.issue(
            X509Grant(
                profile=self._profile,
                ca=ca,
                subject_key=SubjectKey.of(public_key),
                spiffe_id=issuer_id(self._config.trust_domain),
                instance=str(uuid.uuid4()),
                expires_at=ends.replace(microsecond=0),
                now=now,
                reasons=("the issuer's own server",),
                dns_names=self._config.names,
            )
        )

"""Certificate revocation lists, as the daemon pushes them: was this peer's SVID taken back?

A list is believed if the CA that signed the certificate signed it, too. Where no list may be
missing (``required``), one of the leaf's CA that is not there, or is over, means that nobody knows.
Issuing CAs are looked up where there is a list of their root: not every root has one. Pure.
"""

from collections.abc import Iterable
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from accredit_credentials.bundle import UNREADABLE, TrustBundle
from accredit_credentials.errors import Revoked, Stale
from accredit_credentials.x509_svid import X509Svid


class RevocationLists:
    """The lists of one message; the next one's take their place.

    Args:
        lists: DER; one that cannot be read in full counts as missing.
    """

    def __init__(self, lists: Iterable[bytes] = ()) -> None:
        self.contents = tuple(lists)
        self._by_issuer: dict[x509.Name, list[x509.CertificateRevocationList]] = {}
        for content in self.contents:
            try:
                found = x509.load_der_x509_crl(content)
                # An extension that must be understood makes a list mean something else (§5.2).
                if not any(each.critical for each in found.extensions):
                    self._by_issuer.setdefault(found.issuer, []).append(found)
            except UNREADABLE:
                continue

    def check(self, svid: X509Svid, bundle: TrustBundle, *, now: datetime, required: bool) -> None:
        """Decide whether a verified SVID may be accepted.

        Args:
            svid: with the CAs between it and an authority.
            bundle: of its trust domain.
            now: the time.
            required: whether a list has to be there, and of today.

        Raises:
            Revoked: it is on the list of the CA that signed it, or that CA is on its root's.
            Stale: there has to be a list of this CA, and there is none that holds now.
        """
        path = (svid.leaf, *svid.intermediates)
        known = self._of(svid.leaf, path[1:2], bundle)
        if _is_on(known, svid.leaf):
            raise Revoked(f"SVID of {svid.spiffe_id} is on its CA's list of revoked ones")
        for depth, ca in enumerate(svid.intermediates, start=1):
            if _is_on(self._of(ca, path[depth + 1 : depth + 2], bundle), ca):
                raise Revoked(f"a CA above {svid.spiffe_id} is on a list of revoked ones")
        if required and not any(_holds(each, now) for each in known):
            raise Stale(f"the CA that signed for {svid.spiffe_id} has no list that holds now")

    def _of(
        self,
        certificate: x509.Certificate,
        above: Iterable[x509.Certificate],
        bundle: TrustBundle,
    ) -> list[x509.CertificateRevocationList]:
        """The lists of whoever signed a certificate; ``above`` is what follows it in the chain."""
        issuer = certificate.issuer
        lists = self._by_issuer.get(issuer, [])
        if not lists:
            return []
        signers = [*above, *bundle.x509_authorities]
        keys = [each.public_key() for each in signers if each.subject == issuer]
        return [each for each in lists if any(_signed(each, key) for key in keys)]


def _is_on(lists: Iterable[x509.CertificateRevocationList], certificate: x509.Certificate) -> bool:
    serial = certificate.serial_number
    return any(each.get_revoked_certificate_by_serial_number(serial) is not None for each in lists)


def _signed(found: x509.CertificateRevocationList, key: object) -> bool:
    try:
        return found.is_signature_valid(key)  # type: ignore[arg-type]  # another kind is a no
    except (TypeError, InvalidSignature, *UNREADABLE):
        return False


def _holds(found: x509.CertificateRevocationList, now: datetime) -> bool:
    over = found.next_update_utc
    return over is not None and now <= over

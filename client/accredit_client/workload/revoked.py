"""Certificate revocation lists, as the daemon pushes them: was this peer's SVID taken back?

A list is believed if the CA that signed the peer's leaf signed it, too. Where no list may be
missing (``required``), one that is not there, or is over, means that nobody knows. Pure.
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
            Revoked: it is on the list of the CA that signed it.
            Stale: there has to be a list of this CA, and there is none that holds now.
        """
        known = self._of(svid, bundle)
        for each in known:
            if each.get_revoked_certificate_by_serial_number(svid.leaf.serial_number) is not None:
                raise Revoked(f"SVID of {svid.spiffe_id} is on its CA's list of revoked ones")
        if required and not any(_holds(each, now) for each in known):
            raise Stale(f"the CA that signed for {svid.spiffe_id} has no list that holds now")

    def _of(self, svid: X509Svid, bundle: TrustBundle) -> list[x509.CertificateRevocationList]:
        issuer = svid.leaf.issuer
        signers = [*svid.intermediates[:1], *bundle.x509_authorities]
        keys = [each.public_key() for each in signers if each.subject == issuer]
        lists = self._by_issuer.get(issuer, [])
        return [each for each in lists if any(_signed(each, key) for key in keys)]


def _signed(found: x509.CertificateRevocationList, key: object) -> bool:
    try:
        return found.is_signature_valid(key)  # type: ignore[arg-type]  # another kind is a no
    except (TypeError, InvalidSignature, *UNREADABLE):
        return False


def _holds(found: x509.CertificateRevocationList, now: datetime) -> bool:
    over = found.next_update_utc
    return over is not None and now <= over

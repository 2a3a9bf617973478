"""Where trust starts: a bundle in a file, or the digest of one root certificate.

Decides which authorities are believed before anything was fetched, and what a fetched bundle may
replace. With a pin, one connection is made without verification, to fetch the bundle: only the
authority with the pinned digest is kept of it, and the trust domain's name is read from that
certificate, so that the pin authenticates both. Everything after that is verified.
"""

import hashlib
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from accredit_client.errors import InvalidAnswer, InvalidTrust, IssuerUntrusted
from accredit_credentials.bundle import MAX_BUNDLE_BYTES, TrustBundle
from accredit_credentials.errors import InvalidBundle, InvalidKey, InvalidSpiffeId
from accredit_credentials.keys import check_public_key
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain
from accredit_credentials.tls import SpiffeContext

_PIN = re.compile(r"sha256:[0-9a-f]{64}")
_ANY = TrustDomain("unknown")  # a bundle's keys are read before its trust domain is known
_PIN_HINT = "accredit-issuer prints the pin of its root as sha256:<64 hex digits>"


@dataclass(frozen=True, slots=True)
class Trust:
    """Where trust starts: exactly one of a bundle and a pin."""

    bundle: TrustBundle | None = field(default=None)
    pin: str | None = None

    def __post_init__(self) -> None:
        if (self.bundle is None) == (self.pin is None):
            raise InvalidTrust("trust must start from a bundle or from a pin")
        if self.bundle is not None and not self.bundle.x509_authorities:
            raise InvalidTrust(f"bundle of {self.bundle.trust_domain} has no X.509 authority")

    @classmethod
    def from_file(cls, path: Path | str, trust_domain: TrustDomain | str | None = None) -> Self:
        """Start from a SPIFFE bundle document, or from root certificates in PEM.

        The trust domain is read from the roots; where it is given, it must be theirs.

        Raises:
            InvalidTrust: unreadable, too large, no root, or of another trust domain.
        """
        try:
            with Path(path).open("rb") as file:
                text = file.read(MAX_BUNDLE_BYTES + 1)
        except OSError as error:
            raise InvalidTrust(f"trust bundle {path} cannot be read: {error.strerror}") from error
        bundle = _parse(text, f"trust bundle {path}")
        if trust_domain is not None and bundle.trust_domain != _domain(trust_domain):
            raise InvalidTrust(
                f"trust bundle {path} is of {bundle.trust_domain}, expected {trust_domain}"
            )
        return cls(bundle=bundle)

    @classmethod
    def from_bundle(cls, bundle: TrustBundle) -> Self:
        """Start from a bundle that is known already.

        Raises:
            InvalidTrust: it has no X.509 authority.
        """
        return cls(bundle=bundle)

    @classmethod
    def from_pin(cls, pin: str) -> Self:
        """Start from ``sha256:<hex>``, the digest of a root certificate in DER.

        Raises:
            InvalidTrust: not of this form.
        """
        if not _PIN.fullmatch(pin):
            raise InvalidTrust("pin must be sha256: and 64 lower-case hex digits", hint=_PIN_HINT)
        return cls(pin=pin)

    def anchor(self, document: bytes) -> TrustBundle:
        """What an unverified bundle document is worth: the one authority that the pin names.

        Raises:
            IssuerUntrusted: no authority has the pinned digest.
            InvalidTrust: there is no pin, or the root names no trust domain.
        """
        if self.pin is None:
            raise InvalidTrust("an unverified bundle can only be anchored by a pin")
        try:
            unverified = TrustBundle.parse(_ANY, document)
        except InvalidBundle as error:
            raise InvalidAnswer(f"the issuer's trust bundle: {error}") from error
        for root in unverified.x509_authorities:
            if pin_of(root) == self.pin:
                return TrustBundle(_trust_domain_of(root, "the pinned root"), (root,))
        raise IssuerUntrusted(
            f"no authority of this issuer has the digest {self.pin}",
            hint="check the address and the pin; a rotated root has a new pin",
        )

    def establish(self, url: str) -> TrustBundle:
        """Connect to the issuer and fetch its whole bundle, verified.

        Raises:
            IssuerUntrusted: it is not the issuer that the bundle or the pin names.
            IssuerUnreachable, IssuerRefused, InvalidAnswer: as ``Issuer.send``.
        """
        from accredit_client import calls  # noqa: PLC0415 (httpx2 is slow to import)
        from accredit_client.wire import Issuer  # noqa: PLC0415

        known = self.bundle
        if known is None:
            blind = _unverified_context()
            with Issuer(url, lambda: blind) as stranger:
                known = self.anchor(stranger.send(calls.unverified_bundle()))
        with Issuer.at(url, bundle=known) as issuer:
            return newer(known, issuer.send(calls.bundle(known.trust_domain)))


def newer(known: TrustBundle, fetched: TrustBundle) -> TrustBundle:
    """The bundle to hold from now on.

    A replica that lags behind does not take an authority's removal back.

    Raises:
        InvalidAnswer: the fetched one has no X.509 authority: believing it would end all trust.
    """
    if not fetched.x509_authorities:
        raise InvalidAnswer("the issuer's trust bundle must have an X.509 authority")
    if (known.sequence or 0) > (fetched.sequence or 0):
        return known
    return fetched


def pin_of(root: x509.Certificate) -> str:
    """The pin of a root certificate."""
    return "sha256:" + hashlib.sha256(root.public_bytes(serialization.Encoding.DER)).hexdigest()


def _parse(text: bytes, what: str) -> TrustBundle:
    if len(text) > MAX_BUNDLE_BYTES:
        raise InvalidTrust(f"{what} is larger than {MAX_BUNDLE_BYTES} bytes")
    if text.lstrip().startswith(b"{"):
        try:
            bundle = TrustBundle.parse(_ANY, text)
        except InvalidBundle as error:
            raise InvalidTrust(f"{what}: {error}") from error
        domain = _common_trust_domain(bundle.x509_authorities, what)
        return TrustBundle(
            domain,
            bundle.x509_authorities,
            bundle.jwt_authorities,
            bundle.sequence,
            bundle.refresh_hint,
            wit_authorities=bundle.wit_authorities,
        )
    try:
        roots = tuple(x509.load_pem_x509_certificates(text))
    except ValueError:
        raise InvalidTrust(f"{what} must be a SPIFFE bundle or PEM certificates") from None
    for root in roots:
        _check_root(root, what)
    return TrustBundle(_common_trust_domain(roots, what), roots)


def _check_root(root: x509.Certificate, what: str) -> None:
    try:
        check_public_key(root.public_key())
        constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    except (InvalidKey, ValueError, x509.ExtensionNotFound) as error:
        raise InvalidTrust(f"{what} has a certificate that is not a root") from error
    if not constraints.value.ca:
        raise InvalidTrust(f"{what} has a certificate that is not a CA")


def _common_trust_domain(roots: tuple[x509.Certificate, ...], what: str) -> TrustDomain:
    domains = {_trust_domain_of(root, what) for root in roots}
    if len(domains) != 1:
        raise InvalidTrust(f"{what} must have the roots of one trust domain, has {len(domains)}")
    return domains.pop()


def _trust_domain_of(root: x509.Certificate, what: str) -> TrustDomain:
    try:
        san = root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = san.get_values_for_type(x509.UniformResourceIdentifier)
        named = SpiffeId.parse(uris[0]) if len(uris) == 1 else None
    except (x509.ExtensionNotFound, ValueError, InvalidSpiffeId):
        named = None
    if named is None or named.path:
        raise InvalidTrust(f"{what} must name its trust domain as spiffe://<trust domain>")
    return named.trust_domain


def _domain(trust_domain: TrustDomain | str) -> TrustDomain:
    if isinstance(trust_domain, TrustDomain):
        return trust_domain
    try:
        return TrustDomain.parse(trust_domain)
    except InvalidSpiffeId as error:
        raise InvalidTrust(str(error)) from error


def _unverified_context() -> SpiffeContext:
    """A context that believes anybody: for the one request whose answer the pin verifies."""
    context = SpiffeContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.peer_optional = True
    return context

"""What the messages of the Workload API say, verified (SPIFFE Workload API §4.4, §5, §6). Pure.

Each message is the whole state: what it does not have was withdrawn, and nothing is kept of earlier
ones. An SVID is believed if the bundle beside it vouches for it now, with the key that came with
it; a trust domain's authorities are those at its own name, and no others.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key

from accredit_client.errors import InvalidAnswer
from accredit_credentials import der
from accredit_credentials.bundle import UNREADABLE, TrustBundle
from accredit_credentials.errors import CredentialError, InvalidBundle
from accredit_credentials.keys import PrivateKey, check_public_key
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain
from accredit_credentials.x509_svid import X509Identity, parse_der, validate

_log = logging.getLogger("accredit_client")

MAX_AUTHORITIES = 128  # of one trust domain


class X509Svid(Protocol):
    """One SVID of a message."""

    spiffe_id: str
    x509_svid: bytes
    x509_svid_key: bytes
    bundle: bytes


class X509SvidResponse(Protocol):
    """What ``FetchX509SVID`` answers."""

    @property
    def svids(self) -> Iterable[X509Svid]:
        """The SVIDs, the default one first."""

    @property
    def crl(self) -> Iterable[bytes]:
        """CRLs, DER."""

    @property
    def federated_bundles(self) -> Mapping[str, bytes]:
        """Authorities by trust domain."""


@dataclass(frozen=True, slots=True)
class X509State:
    """All that one message of ``FetchX509SVID`` says of one identity.

    Attributes:
        identity: the SVID with its key.
        bundle: X.509 authorities of its trust domain.
        federated: those of others, each at its name.
        crls: as they came, DER.
    """

    identity: X509Identity
    bundle: TrustBundle
    federated: Mapping[TrustDomain, TrustBundle] = field(default_factory=dict)
    crls: tuple[bytes, ...] = field(default=(), repr=False)


def x509_state(
    message: X509SvidResponse, *, spiffe_id: SpiffeId | None, now: datetime
) -> X509State | None:
    """What a message says; None where it has no such SVID, which was withdrawn then.

    Args:
        message: of ``FetchX509SVID``.
        spiffe_id: which identity; None is the default one.
        now: the time.

    Raises:
        InvalidAnswer: the message cannot be believed.
    """
    try:
        for one in message.svids:
            named = SpiffeId.parse(one.spiffe_id)
            if spiffe_id in {None, named}:
                identity, bundle = _identity_of(one, named, now)
                federated = _bundles_of(message.federated_bundles, bundle.trust_domain)
                return X509State(identity, bundle, federated, tuple(message.crl))
    except CredentialError as error:
        raise InvalidAnswer(f"the daemon's SVID: {error}") from error
    return None


def jwt_state(bundles: Mapping[str, bytes]) -> dict[TrustDomain, TrustBundle]:
    """The JWT authorities by trust domain; one that cannot be read is left out, and logged."""
    found = {}
    for name, document in bundles.items():
        try:
            domain = _domain_of(name)
            found[domain] = replace(TrustBundle.parse(domain, document), x509_authorities=())
        except CredentialError as error:
            _log.error("no token of %s is accepted: %s", name, error)
    return found


def whole(bundle: TrustBundle, keys: TrustBundle | None) -> TrustBundle:
    """X.509 and JWT authorities of one trust domain, together."""
    if keys is None:
        return bundle
    return replace(keys, x509_authorities=bundle.x509_authorities)


def _identity_of(one: X509Svid, named: SpiffeId, now: datetime) -> tuple[X509Identity, TrustBundle]:
    leaf, *rest = _split(one.x509_svid, "SVID")
    svid = parse_der(leaf, tuple(rest))
    if svid.spiffe_id != named:
        raise InvalidAnswer(f"the daemon's SVID for {named} is of {svid.spiffe_id}")
    bundle = TrustBundle(named.trust_domain, _authorities(one.bundle))
    validate(svid, bundles={bundle.trust_domain: bundle}, now=now)
    return X509Identity.of(svid, _key_of(one.x509_svid_key)), bundle


def _key_of(content: bytes) -> PrivateKey:
    try:
        key = load_der_private_key(content, password=None)
    except (*UNREADABLE, TypeError):
        raise InvalidAnswer("the daemon's key must be an unencrypted PKCS#8 one") from None
    check_public_key(key.public_key())
    return key  # type: ignore[return-value]  # its public half is of a kind that we use


def _bundles_of(bundles: Mapping[str, bytes], own: TrustDomain) -> dict[TrustDomain, TrustBundle]:
    """The federated ones; one that cannot be read is trusted for nothing."""
    found = {}
    for name, content in bundles.items():
        try:
            domain = _domain_of(name)
            if domain == own:
                raise InvalidBundle("it is our own trust domain, which is not federated")
            found[domain] = TrustBundle(domain, _authorities(content))
        except CredentialError as error:
            _log.error("nobody of %s is let in: %s", name, error)
    return found


def _domain_of(name: str) -> TrustDomain:
    spiffe_id = SpiffeId.parse(name)
    if spiffe_id.path:
        raise InvalidBundle(f"the bundle's name {name} must be a trust domain's")
    return spiffe_id.trust_domain


def _authorities(content: bytes) -> tuple[x509.Certificate, ...]:
    try:
        found = tuple(map(x509.load_der_x509_certificate, _split(content, "bundle")))
        for each in found:
            _ = (each.extensions, check_public_key(each.public_key()))
    except UNREADABLE:
        raise InvalidBundle("an authority cannot be read") from None
    return found


def _split(content: bytes, what: str) -> list[bytes]:
    """Concatenated DER, one by one."""
    found, at = [], 0
    while at < len(content):
        _, end = der.read(content, at, len(content), der.SEQUENCE)
        found.append(content[at:end])
        at = end
        if len(found) > MAX_AUTHORITIES:
            raise InvalidBundle(f"{what} has more than {MAX_AUTHORITIES} certificates")
    if not found:
        raise InvalidBundle(f"{what} must have a certificate")
    return found

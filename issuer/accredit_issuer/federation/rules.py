"""What may be federated, what a fetched bundle may replace, and when to ask again. Pure.

Nothing here is inferred: trust domain, profile and address are each said by an admin (SPIFFE
Federation §5.1, §7.2). A relationship with our own trust domain is refused, and so is a bundle
that goes back or that holds an authority of somebody else. A bundle without usable keys is none of
these: its trust domain took all its keys back, and nothing of it is valid any more (Trust Domain
and Bundle §4.1.3).
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import urljoin

from cryptography import x509

from accredit_credentials.bundle import UNREADABLE, TrustBundle
from accredit_credentials.bundle_map import check_authority_count
from accredit_credentials.errors import InvalidBundle, InvalidFederation, InvalidSpiffeId
from accredit_credentials.federation import Allowance, check_allowances, check_https_url
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain

DEFAULT_INTERVAL = timedelta(minutes=5)  # Federation §4.1, where the bundle says nothing
SHORTEST_INTERVAL = timedelta(seconds=60)
LONGEST_INTERVAL = timedelta(days=1)
OVERDUE_INTERVALS = 4
OVERDUE_AFTER = timedelta(days=1)
MAX_REDIRECTS = 3


class Profile(StrEnum):
    """How a bundle endpoint shows who it is (Federation §5.2)."""

    WEB = "https_web"  # a certificate of the Web PKI for its host name
    SPIFFE = "https_spiffe"  # an X.509-SVID of one SPIFFE ID


@dataclass(frozen=True, slots=True, kw_only=True)
class Relationship:
    """What an admin says of another trust domain.

    Attributes:
        trust_domain: whose bundle it is; the document does not say.
        profile: how its endpoint is authenticated.
        endpoint_url: where its bundle is.
        endpoint_spiffe_id: who serves it; with ``https_spiffe``, and only then.
        feed_url: where its revocation facts are, for verifiers; None where there are none.
        allowances: what its agents may ask of ours.
    """

    trust_domain: TrustDomain
    profile: Profile
    endpoint_url: str
    endpoint_spiffe_id: SpiffeId | None = None
    feed_url: str | None = None
    allowances: tuple[Allowance, ...] = ()

    def __post_init__(self) -> None:
        check_https_url(self.endpoint_url, "endpoint_url")
        if self.feed_url is not None:
            check_https_url(self.feed_url, "feed_url")
        check_allowances(self.trust_domain, self.allowances)
        if (self.profile is Profile.SPIFFE) != (self.endpoint_spiffe_id is not None):
            raise InvalidFederation(
                "endpoint_spiffe_id must be given with https_spiffe, and only with it"
            )
        if self.endpoint_spiffe_id is not None and not self.endpoint_spiffe_id.path:
            raise InvalidFederation("endpoint_spiffe_id must have a path: it is that of one server")

    @property
    def self_serving(self) -> bool:
        """Whether the endpoint shows an SVID of the very trust domain whose bundle it serves."""
        return (
            self.endpoint_spiffe_id is not None
            and self.endpoint_spiffe_id.trust_domain == self.trust_domain
        )

    def to_object(self) -> dict[str, Any]:
        """Everything but the trust domain, as JSON says it."""
        endpoint = self.endpoint_spiffe_id
        return {
            "profile": self.profile.value,
            "endpoint_url": self.endpoint_url,
            "endpoint_spiffe_id": None if endpoint is None else str(endpoint),
            "feed_url": self.feed_url,
            "allows": [each.to_object() for each in self.allowances],
        }


def check_new(asked: Relationship, bootstrap: TrustBundle | None, *, own: TrustDomain) -> None:
    """Decide whether a relationship may begin like this (Federation §5.2.1.2, §5.2.2.2).

    Raises:
        InvalidFederation: with our own trust domain, or the first bundle is missing or of no use.
        InvalidBundle: the first bundle holds an authority of another trust domain.
    """
    if asked.trust_domain == own:
        raise InvalidFederation(f"{own} is this issuer's own trust domain")
    if asked.self_serving:
        if bootstrap is None or not bootstrap.x509_authorities:
            raise InvalidFederation(
                f"an https_spiffe endpoint of {asked.trust_domain} itself needs its current "
                "bundle, with X.509 authorities, to be known at first"
            )
        check_authorities(bootstrap)
    elif bootstrap is not None:
        raise InvalidFederation(
            "a first bundle must be given only where the endpoint's SVID is of "
            f"{asked.trust_domain} itself"
        )


def check_replacement(fresh: TrustBundle, known: TrustBundle | None) -> None:
    """Decide whether a fetched bundle may take the place of the known one (Federation §4.2).

    One without a sequence number is taken to be the newest, as §4.2 says; see ``numbered``.

    Raises:
        InvalidBundle: it goes back, or holds an authority of another trust domain.
    """
    check_authorities(fresh)
    if known is None or known.sequence is None or fresh.sequence is None:
        return
    if fresh.sequence < known.sequence:
        raise InvalidBundle(
            f"bundle goes back: it has the sequence number {fresh.sequence}, "
            f"{known.sequence} is known"
        )


def numbered(fresh: TrustBundle, known: TrustBundle | None) -> TrustBundle:
    """A fetched bundle, with the highest sequence number that was seen so far.

    One without a number would otherwise let the next one go back behind the one before it.
    """
    if known is None or fresh.sequence is not None:
        return fresh
    return replace(fresh, sequence=known.sequence)


def check_authorities(bundle: TrustBundle) -> None:
    """Decide whether each authority of a bundle is its own trust domain's, as far as it says.

    A root need not name a trust domain; one that does must name this one (X509-SVID §2, §3.1).

    Raises:
        InvalidBundle: one names another, or there are more than our verifiers load.
    """
    check_authority_count(bundle)
    for certificate in bundle.x509_authorities:
        for named in _trust_domains_of(certificate):
            if named != bundle.trust_domain:
                raise InvalidBundle(
                    f"bundle of {bundle.trust_domain} holds an authority of {named}"
                )


def redirect_target(url: str, location: str) -> str:
    """Where a redirect leads, itself a valid endpoint URL (Federation §5.2.1.4, §5.2.2.4).

    Raises:
        InvalidFederation: it is not.
    """
    try:
        target = urljoin(url, location)
    except ValueError:
        target = ""
    return check_https_url(target, "redirect of the endpoint")


def interval(bundle: TrustBundle | None) -> timedelta:
    """How long to wait from one attempt to the next, failed or not (Federation §4.1)."""
    if bundle is None or bundle.refresh_hint is None:
        return DEFAULT_INTERVAL
    hint = min(bundle.refresh_hint, LONGEST_INTERVAL.total_seconds())
    return max(SHORTEST_INTERVAL, timedelta(seconds=hint))


def next_attempt(attempted_at: datetime | None, bundle: TrustBundle | None) -> datetime | None:
    """When to ask again; None is at once, since nobody ever asked."""
    return None if attempted_at is None else attempted_at + interval(bundle)


def is_overdue(heard_at: datetime, bundle: TrustBundle | None, now: datetime) -> bool:
    """Decide whether silence since ``heard_at`` is an alarm.

    After four intervals, or after a day where intervals are long.
    """
    each = interval(bundle)
    return now - heard_at > min(OVERDUE_INTERVALS * each, max(OVERDUE_AFTER, 2 * each))


def _trust_domains_of(certificate: x509.Certificate) -> list[TrustDomain]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    except UNREADABLE:
        raise InvalidBundle("bundle holds an authority whose names cannot be read") from None
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    try:
        # With the slash that the specification's own example has.
        return [
            SpiffeId.parse(uri.removesuffix("/")).trust_domain
            for uri in uris
            if uri.lower().startswith("spiffe:")
        ]
    except InvalidSpiffeId as error:
        raise InvalidBundle(f"bundle holds an authority with another name: {error}") from None

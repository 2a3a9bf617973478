"""The bundle map: bundles of other trust domains, and what their agents may ask of ours.

Reads and writes the document of SPIFFE Trust Domain and Bundle §5.1: an object of bundles by the
name of their trust domain, which no bundle says by itself. Bundles stay apart (SPIFFE Federation
§4.2). Each has one member of our own, ``accredit``, which others ignore: what its agents may ask,
where the feed of its revocation facts is, and when the bundle was fetched. A bundle without it is
trusted for its SPIFFE IDs, and allowed nothing.

A map whose frame cannot be read, or which names a trust domain twice, is refused as a whole. A
domain of which anything but a single key cannot be read is left out (``left_out``): nothing half
understood is believed of it, and it keeps the other domains from nobody. Keys inside a bundle are
ignored one by one, as in ``bundle``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self

from accredit_credentials.bundle import MAX_SEQUENCE, TrustBundle
from accredit_credentials.errors import InvalidBundle, InvalidFederation, InvalidSpiffeId
from accredit_credentials.federation import Allowance, check_allowances, check_https_url
from accredit_credentials.spiffe_id import TrustDomain
from accredit_credentials.strict_json import NotStrictJson, parse_object

MAX_DOMAINS = 64
MAX_X509_AUTHORITIES = 32  # of one federated trust domain: each is loaded into every TLS context
MAX_MAP_BYTES = 8 * 1024 * 1024

_DOMAINS = "trust_domains"
_REFRESH_HINT = "spiffe_refresh_hint"
_OURS = "accredit"
_OUR_MEMBERS = frozenset({"allows", "feed_url", "fetched_at"})


@dataclass(frozen=True, slots=True)
class FederatedDomain:
    """Another trust domain, as ours sees it.

    Attributes:
        bundle: its authorities; its refresh hint is not used, since the map has its own (§5.1.1),
            nor what it names as tainted, which is for its own agents.
        allowances: what its agents may ask of ours; empty is nothing.
        feed_url: where its revocation facts are; None where none are followed.
        fetched_at: when its issuer was last heard; None where the map does not say.
    """

    bundle: TrustBundle
    allowances: tuple[Allowance, ...] = ()
    feed_url: str | None = None
    fetched_at: datetime | None = None

    def __post_init__(self) -> None:
        check_authority_count(self.bundle)
        object.__setattr__(self, "bundle", self._for_others())
        check_allowances(self.bundle.trust_domain, self.allowances)
        if self.feed_url is not None:
            check_https_url(self.feed_url, "feed_url")
        if self.fetched_at is not None and self.fetched_at.tzinfo is None:
            raise InvalidFederation("fetched_at must have a time zone")

    def _for_others(self) -> TrustBundle:
        return replace(self.bundle, refresh_hint=None, tainted=frozenset())


@dataclass(frozen=True, slots=True)
class BundleMap:
    """The federated trust domains of one issuer.

    Attributes:
        domains: by their name; never the issuer's own.
        refresh_hint: seconds after which to ask for the map again.
        left_out: the domains that the document names and that could not be read, each with the
            reason; they are trusted for nothing.
    """

    domains: Mapping[TrustDomain, FederatedDomain] = field(default_factory=dict)
    refresh_hint: int | None = None
    left_out: Mapping[TrustDomain, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        number = len(self.domains) + len(self.left_out)
        if number > MAX_DOMAINS:
            raise InvalidBundle(
                f"bundle map has {number} trust domains, the limit is {MAX_DOMAINS}"
            )
        for name, domain in self.domains.items():
            if domain.bundle.trust_domain != name:
                raise InvalidBundle(f"the bundle of {domain.bundle.trust_domain} stands at {name}")

    @property
    def bundles(self) -> dict[TrustDomain, TrustBundle]:
        """The bundles by trust domain, as validators take them."""
        return {name: domain.bundle for name, domain in self.domains.items()}

    @classmethod
    def parse(cls, document: str | bytes) -> Self:
        """Read a bundle map; a domain that cannot be read is in ``left_out``.

        Raises:
            InvalidBundle: larger than 8 MiB, no member ``trust_domains``, or a name that is none
                or stands twice (in whatever spelling).
        """
        if len(document) > MAX_MAP_BYTES:
            raise InvalidBundle(
                f"bundle map has {len(document)} bytes, the limit is {MAX_MAP_BYTES}"
            )
        try:
            value = parse_object(document)
        except NotStrictJson as error:
            raise InvalidBundle(f"bundle map must be a JSON object: {error}") from error
        members = value.get(_DOMAINS)
        if not isinstance(members, dict):
            raise InvalidBundle(f"bundle map must have the member {_DOMAINS!r}, an object")
        if len(members) > MAX_DOMAINS:
            raise InvalidBundle(
                f"bundle map has {len(members)} trust domains, the limit is {MAX_DOMAINS}"
            )
        domains: dict[TrustDomain, FederatedDomain] = {}
        left_out: dict[TrustDomain, str] = {}
        for name, member in members.items():
            trust_domain = _name_of(name)
            if trust_domain in domains or trust_domain in left_out:
                raise InvalidBundle(f"trust domain {trust_domain} stands twice in the bundle map")
            try:
                domains[trust_domain] = _domain_of(trust_domain, member)
            except (InvalidBundle, InvalidFederation) as error:
                left_out[trust_domain] = str(error)
        return cls(domains, _hint_of(value), left_out)

    def to_json(self) -> str:
        """Write the bundle map, without what was left out."""
        document: dict[str, Any] = {
            _DOMAINS: {
                name.name: {**json.loads(domain.bundle.to_json()), _OURS: _ours(domain)}
                for name, domain in self.domains.items()
            }
        }
        if self.refresh_hint is not None:
            document[_REFRESH_HINT] = self.refresh_hint
        return json.dumps(document, separators=(",", ":"))


def check_authority_count(bundle: TrustBundle) -> None:
    """Decide whether a bundle of another trust domain is small enough for our verifiers.

    Raises:
        InvalidBundle: it has more X.509 authorities than ``MAX_X509_AUTHORITIES``.
    """
    if (count := len(bundle.x509_authorities)) > MAX_X509_AUTHORITIES:
        raise InvalidBundle(
            f"bundle of {bundle.trust_domain} has {count} X.509 authorities, "
            f"the limit is {MAX_X509_AUTHORITIES}"
        )


def _name_of(text: str) -> TrustDomain:
    try:
        return TrustDomain.parse(text)
    except InvalidSpiffeId as error:
        raise InvalidBundle(f"bundle map: {error}") from None


def _domain_of(trust_domain: TrustDomain, member: object) -> FederatedDomain:
    if not isinstance(member, dict):
        raise InvalidBundle(f"bundle of {trust_domain} must be an object")
    try:
        bundle = TrustBundle.of_object(trust_domain, member)
    except InvalidBundle as error:
        raise InvalidBundle(f"bundle map, {trust_domain}: {error}") from None
    if _OURS not in member:
        return FederatedDomain(bundle)
    ours = member[_OURS]
    if not isinstance(ours, dict) or ours.keys() != _OUR_MEMBERS:
        raise InvalidFederation(
            f"member {_OURS!r} of {trust_domain} must have allows, feed_url and fetched_at"
        )
    allows, feed_url = ours["allows"], ours["feed_url"]
    if not isinstance(allows, list):
        raise InvalidFederation(f"allows of {trust_domain} must be an array")
    if feed_url is not None and not isinstance(feed_url, str):
        raise InvalidFederation(f"feed_url of {trust_domain} must be a text or null")
    try:
        allowances = tuple(map(Allowance.of_object, allows))
        return FederatedDomain(bundle, allowances, feed_url, _moment_of(ours["fetched_at"]))
    except InvalidFederation as error:
        raise InvalidFederation(f"bundle map, {trust_domain}: {error}") from None


def _ours(domain: FederatedDomain) -> dict[str, Any]:
    moment = domain.fetched_at
    return {
        "allows": [each.to_object() for each in domain.allowances],
        "feed_url": domain.feed_url,
        "fetched_at": moment and moment.astimezone(UTC).isoformat().replace("+00:00", "Z"),
    }


def _moment_of(value: object) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, str) and value.endswith("Z"):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    raise InvalidFederation("fetched_at must be a moment in UTC, such as 2026-01-31T12:00:00Z")


def _hint_of(value: Mapping[str, Any]) -> int | None:
    hint = value.get(_REFRESH_HINT)
    if hint is None:
        return None
    if isinstance(hint, bool) or not isinstance(hint, int) or not 0 < hint <= MAX_SEQUENCE:
        raise InvalidBundle(f"bundle map's {_REFRESH_HINT} must be a whole number of seconds")
    return hint

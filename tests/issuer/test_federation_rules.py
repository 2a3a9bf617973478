"""What may be federated, what a fetched bundle may replace, and when to ask again."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from support.authority import Authority, Signer, deviating, raw_extension, uri_san
from support.clock import NOW
from support.foreign_bundle import root

from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import InvalidBundle, InvalidFederation
from accredit_credentials.federation import Agents, Allowance
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain
from accredit_issuer.federation.rules import (
    DEFAULT_INTERVAL,
    LONGEST_INTERVAL,
    SHORTEST_INTERVAL,
    Profile,
    Relationship,
    check_new,
    check_replacement,
    interval,
    is_overdue,
    next_attempt,
    numbered,
    redirect_target,
)

OWN = TrustDomain("a.example")
OTHER = TrustDomain("other.example")
ENDPOINT = SpiffeId.parse("spiffe://other.example/accredit/issuer")
WEB: dict[str, Any] = {
    "trust_domain": OTHER,
    "profile": Profile.WEB,
    "endpoint_url": "https://other.example/bundle",
}
SPIFFE: dict[str, Any] = {**WEB, "profile": Profile.SPIFFE, "endpoint_spiffe_id": ENDPOINT}
FOREIGN = Allowance(Agents.parse("spiffe://c.example/*"), "https://a.example", ("read",))


@pytest.mark.spec("SPIFFE-85")
@pytest.mark.spec("SPIFFE-86")
@pytest.mark.parametrize(
    "values",
    [
        {**WEB, "endpoint_url": "http://other.example/bundle"},
        {**WEB, "endpoint_url": "https://me:secret@other.example/bundle"},
        {**SPIFFE, "endpoint_url": "http://other.example/bundle"},
        {**SPIFFE, "endpoint_url": "https://me@other.example/bundle"},
        {**WEB, "endpoint_url": ""},
        {**WEB, "feed_url": "http://other.example"},
        {**WEB, "endpoint_spiffe_id": ENDPOINT},
        {**SPIFFE, "endpoint_spiffe_id": None},
        {**SPIFFE, "endpoint_spiffe_id": OTHER.id},
        {**WEB, "allowances": (FOREIGN,)},
    ],
)
def test_a_relationship_is_said_in_full(values: dict[str, Any]) -> None:
    """Each profile has exactly its own parameters, and every address is https without userinfo."""
    assert Relationship(**WEB).endpoint_spiffe_id is None
    assert Relationship(**SPIFFE).self_serving
    with pytest.raises(InvalidFederation) as refusal:
        Relationship(**values)
    assert "secret" not in str(refusal.value)


@pytest.mark.spec("SPIFFE-89")
@pytest.mark.spec("SPIFFE-90")
def test_a_first_bundle_is_given_where_it_is_needed(other_authority: Authority) -> None:
    """A self-serving https_spiffe endpoint needs one with X.509 authorities; no other takes one."""
    bundle = other_authority.bundle
    web, spiffe = Relationship(**WEB), Relationship(**SPIFFE)
    third = replace(spiffe, endpoint_spiffe_id=SpiffeId.parse("spiffe://c.example/server"))
    check_new(web, None, own=OWN)
    check_new(spiffe, bundle, own=OWN)
    check_new(third, None, own=OWN)
    for asked, bootstrap in (
        (web, bundle),
        (third, bundle),
        (spiffe, None),
        (spiffe, TrustBundle(OTHER)),
        (spiffe, replace(bundle, x509_authorities=())),
    ):
        with pytest.raises(InvalidFederation):
            check_new(asked, bootstrap, own=OWN)
    with pytest.raises(InvalidBundle, match="authority of example"):
        check_new(spiffe, replace(Authority("example").bundle, trust_domain=OTHER), own=OWN)


def test_nobody_federates_with_itself(other_authority: Authority) -> None:
    """Our own trust domain is known already, and its bundle comes from nobody else."""
    for asked, bundle in ((WEB, None), (SPIFFE, other_authority.bundle)):
        with pytest.raises(InvalidFederation, match="own trust domain"):
            check_new(Relationship(**asked), bundle, own=OTHER)


@pytest.mark.parametrize(
    ("known", "fresh", "good"),
    [
        (None, None, True),
        (None, 0, True),
        (5, 5, True),
        (5, 6, True),
        (5, 4, False),
        (5, 0, False),
        (2**64 - 1, 0, False),
        (5, None, True),  # the most recent one is the newest (Federation §4.2)
        (None, 5, True),
    ],
)
def test_a_bundle_never_goes_back(
    known: int | None, fresh: int | None, *, good: bool, other_authority: Authority
) -> None:
    """A smaller sequence number than the known one is refused; without one there is no order."""
    old = replace(other_authority.bundle, sequence=known)
    new = replace(other_authority.bundle, sequence=fresh)
    if good:
        check_replacement(new, old)
        return
    with pytest.raises(InvalidBundle, match="goes back"):
        check_replacement(new, old)
    check_replacement(new, None)


def test_a_bundle_without_a_number_is_no_way_back(other_authority: Authority) -> None:
    """The highest number ever seen counts, whatever came in between without one."""
    known, without = (replace(other_authority.bundle, sequence=n) for n in (9, None))
    kept = numbered(without, known)
    assert kept == known
    assert numbered(replace(known, sequence=10), kept).sequence == 10
    assert numbered(without, None) == without
    with pytest.raises(InvalidBundle, match="goes back"):
        check_replacement(replace(known, sequence=3), kept)


def test_the_first_bundle_replaces_nothing(other_authority: Authority) -> None:
    """Whatever its number, a first bundle is the newest."""
    check_replacement(replace(other_authority.bundle, sequence=0), None)


@pytest.mark.spec("SPIFFE-54")
def test_a_bundle_without_keys_is_taken_in(other_authority: Authority) -> None:
    """A trust domain that took back all its keys is believed: nothing of it is valid."""
    check_replacement(TrustBundle(OTHER, sequence=2), other_authority.bundle)


@pytest.mark.parametrize(
    ("uri", "good"),
    [
        ("spiffe://other.example", True),
        ("spiffe://other.example/", True),  # as in the specification's own example
        ("spiffe://OTHER.example", True),
        ("https://other.example/ca", True),
        ("spiffe://a.example", False),
        ("spiffe://sub.other.example", False),
        ("SPIFFE://a.example", False),
        ("spiffe://", False),
        ("spiffe://other.example//", False),
    ],
)
@pytest.mark.spec("SPIFFE-83")
def test_a_root_of_another_trust_domain_is_refused(uri: str, *, good: bool) -> None:
    """A root that names somebody else means the bundle is somebody else's."""
    certificate = root(ec.generate_private_key(ec.SECP256R1()), uri)
    bundle = TrustBundle(OTHER, (certificate,))
    if good:
        check_replacement(bundle, None)
        return
    with pytest.raises(InvalidBundle, match="authority"):
        check_replacement(bundle, None)


def test_every_root_is_looked_at(other_authority: Authority) -> None:
    """One foreign root among good ones, a second name, or unreadable names: all is refused."""
    good = other_authority.root
    broken = raw_extension(x509.SubjectAlternativeName.oid, b"\x30\x00\x00")
    for certificate in (
        Authority().root.certificate,
        _with(good, uri_san("spiffe://other.example", "spiffe://a.example")),
        deviating(good.certificate, good, extensions=[(broken, False)]),
    ):
        with pytest.raises(InvalidBundle):
            check_replacement(TrustBundle(OTHER, (good.certificate, certificate)), None)


def test_a_root_without_a_name_is_nobody_elses(other_authority: Authority) -> None:
    """Roots need no SPIFFE ID: an upstream CA has none."""
    nameless = deviating(
        other_authority.root.certificate,
        other_authority.root,
        without=[x509.SubjectAlternativeName],
    )
    check_replacement(TrustBundle(OTHER, (nameless,)), None)


@pytest.mark.spec("SPIFFE-91")
@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://cdn.example/x", "https://cdn.example/x"),
        ("/other", "https://b.example:8443/other"),
        ("x?y=1", "https://b.example:8443/a/x?y=1"),
        ("//cdn.example/x", "https://cdn.example/x"),
        ("http://b.example:8443/a", None),
        ("https://me:secret@b.example/", None),
        ("//me@b.example/", None),
        ("file:///etc/passwd", None),
        ("javascript:0", None),
        ("https://[::1", None),
        ("https://b.example/\x00", None),
        ("https://b.example/#x", None),
    ],
)
def test_a_redirect_leads_to_an_endpoint(location: str, target: str | None) -> None:
    """Its target is a valid endpoint URL again, absolute or relative."""
    url = "https://b.example:8443/a/b"
    if target is not None:
        assert redirect_target(url, location) == target
        return
    with pytest.raises(InvalidFederation) as refusal:
        redirect_target(url, location)
    assert "secret" not in str(refusal.value)


@pytest.mark.spec("SPIFFE-82")
@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (None, DEFAULT_INTERVAL),
        (0, SHORTEST_INTERVAL),
        (1, SHORTEST_INTERVAL),
        (60, timedelta(seconds=60)),
        (61, timedelta(seconds=61)),
        (300, timedelta(seconds=300)),
        (86400, LONGEST_INTERVAL),
        (2419200, LONGEST_INTERVAL),
        (2**64 - 1, LONGEST_INTERVAL),
    ],
)
def test_the_endpoint_is_asked_as_its_bundle_says(hint: int | None, expected: timedelta) -> None:
    """Every refresh hint, within a minute and a day; five minutes where it says nothing."""
    bundle = TrustBundle(OTHER, refresh_hint=hint)
    assert interval(bundle) == expected
    assert next_attempt(NOW, bundle) == NOW + expected
    assert next_attempt(None, bundle) is None
    assert interval(None) == DEFAULT_INTERVAL


@pytest.mark.parametrize(
    ("hint", "limit"),
    [
        (None, timedelta(minutes=20)),
        (60, timedelta(minutes=4)),
        (3600, timedelta(hours=4)),
        (6 * 3600, timedelta(days=1)),
        (86400, timedelta(days=2)),
    ],
)
def test_silence_becomes_an_alarm(hint: int | None, limit: timedelta) -> None:
    """After four intervals, or a day where they are long; never before the second interval ends."""
    bundle = TrustBundle(OTHER, refresh_hint=hint)
    assert not is_overdue(NOW, bundle, NOW + limit)
    assert is_overdue(NOW, bundle, NOW + limit + timedelta(seconds=1))


def _with(signer: Signer, san: x509.SubjectAlternativeName) -> x509.Certificate:
    return deviating(signer.certificate, signer, extensions=[(san, False)])

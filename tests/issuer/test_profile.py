"""What may be signed: each bound of a profile, and its nearest neighbour on either side."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from support.authority import HOUR, NOW, Authority

from accredit_credentials.errors import CredentialError, InvalidKey
from accredit_credentials.keys import SubjectKey
from accredit_credentials.leaf_der import IssuingCa
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain
from accredit_credentials.x509_template import LeafTemplate
from accredit_issuer.authority.profile import CheckedLeaf, Profile, ProfileViolation, new_serial

SECOND = timedelta(seconds=1)
AGENTS = Profile(
    trust_domain=TrustDomain.parse("example.org"), max_lifetime=HOUR, backdate=10 * SECOND
)
SERVERS = replace(AGENTS, dns_names=frozenset({"localhost"}), needs_manifest=False)


@pytest.fixture
def template(authority: Authority) -> LeafTemplate:
    """A leaf that the profile allows."""
    return authority.template(serial=new_serial())


def check(template: LeafTemplate, authority: Authority, profile: Profile = AGENTS) -> CheckedLeaf:
    """Ask the profile."""
    return profile.check(template, IssuingCa(authority.issuing.certificate), NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"serial": 1 << 158},
        {"serial": (1 << 158) + (1 << 142) - 1},
        {"not_before": NOW},
        {"not_before": NOW - 11 * SECOND},
        {"not_after": NOW + SECOND},
        {"not_after": NOW + HOUR},
    ],
)
def test_what_lies_within_the_bounds_is_allowed(
    template: LeafTemplate, authority: Authority, changes: dict[str, Any]
) -> None:
    """A template on the inner side of each bound comes back as it was, for its CA."""
    wanted = replace(template, **changes)
    checked = check(wanted, authority)
    assert checked.template == wanted
    assert checked.ca == IssuingCa(authority.issuing.certificate)


@pytest.mark.parametrize(
    ("bound", "changes"),
    [
        ("trust domain", {"spiffe_id": SpiffeId.parse("spiffe://example.com/ns/a/agent/b")}),
        ("path", {"spiffe_id": SpiffeId.parse("spiffe://example.org")}),
        ("serial", {"serial": (1 << 158) - 1}),
        ("serial", {"serial": (1 << 158) + (1 << 142)}),
        ("serial", {"serial": 1 << 159}),
        ("serial", {"serial": (1 << 63) - 1}),
        ("serial", {"serial": 0}),
        ("notBefore", {"not_before": NOW - 12 * SECOND}),
        ("notBefore", {"not_before": NOW + SECOND}),
        ("notAfter", {"not_after": NOW}),
        ("notAfter", {"not_after": NOW + HOUR + SECOND}),
        ("notAfter", {"not_after": NOW - SECOND}),
        ("whole seconds", {"not_after": NOW + timedelta(seconds=5, microseconds=1)}),
        ("instance", {"instance": "0b8f7c1e5a444c0e9d3a2f6f1f0a7b11"}),
        ("instance", {"instance": "0B8F7C1E-5A44-4C0E-9D3A-2F6F1F0A7B11"}),
        ("instance", {"instance": "0b8f7c1e-5a44-4c0e-9d3a-2f6f1f0a7b11\n"}),
        ("instance", {"instance": ""}),
        ("manifest", {"manifest": None}),
        ("manifest", {"manifest": "sha256:" + "A" * 64}),
        ("manifest", {"manifest": "sha256:" + "a" * 63}),
        ("manifest", {"manifest": "sha256:" + "a" * 64 + "\n"}),
        ("DNS names", {"dns_names": ("localhost",)}),
    ],
)
def test_each_bound_is_named_where_it_is_broken(
    template: LeafTemplate, authority: Authority, bound: str, changes: dict[str, Any]
) -> None:
    """One step beyond a bound nothing is signed, and the text says which bound it was."""
    with pytest.raises(ProfileViolation, match=bound):
        check(replace(template, **changes), authority)


def test_a_leaf_does_not_outlive_its_ca(template: LeafTemplate, authority: Authority) -> None:
    """A leaf that ends a second after its CA, or begins before it, is not signed."""
    ends = authority.ca(below=authority.root, not_after=template.not_after)
    assert AGENTS.check(template, IssuingCa(ends.certificate), NOW)
    short = authority.ca(below=authority.root, not_after=template.not_after - SECOND)
    with pytest.raises(ProfileViolation, match="issuing CA's validity"):
        AGENTS.check(template, IssuingCa(short.certificate), NOW)
    future = authority.ca(below=authority.root, not_before=NOW + SECOND)
    with pytest.raises(ProfileViolation, match="issuing CA's begin"):
        AGENTS.check(template, IssuingCa(future.certificate), NOW)


def test_only_the_server_has_dns_names(template: LeafTemplate, authority: Authority) -> None:
    """A server's leaf has the names of its profile, no other, and no manifest."""
    server = replace(template, manifest=None, dns_names=("localhost",))
    assert check(server, authority, SERVERS)
    for wrong in ({"dns_names": ("localhost", "evil.example")}, {"manifest": template.manifest}):
        with pytest.raises(ProfileViolation):
            check(replace(server, **wrong), authority, SERVERS)


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024).public_key(),  # noqa: S505 (the point)
        rsa.generate_private_key(3, 2048).public_key(),
        ec.generate_private_key(ec.SECP521R1()).public_key(),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
    ],
    ids=["RSA-1024", "RSA e=3", "P-521", "secp256k1"],
)
def test_a_weak_key_is_not_certified(
    template: LeafTemplate, authority: Authority, key: Any
) -> None:
    """The key is judged again before the signature, whoever let it through before."""
    with pytest.raises(InvalidKey):
        check(replace(template, subject_key=SubjectKey.of(key)), authority)
    assert issubclass(InvalidKey, CredentialError)

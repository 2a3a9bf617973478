"""Whether a CA that is given can be used: for each fault the one certificate that has it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.authority import raw_extension, uri_san
from support.clock import NOW
from support.given import Changes, Given, given_chain, p256, rsa_key

from accredit_credentials.spiffe_id import TrustDomain
from accredit_issuer.authority.given_ca import MAX_GIVEN, Needs, check_given, dns_matches
from accredit_issuer.errors import InvalidSettings

HOUR = timedelta(hours=1)
NEEDS = Needs(
    trust_domain=TrustDomain.parse("example.org"),
    dns_names=("issuer.example.org",),
    issuing_ca=24 * HOUR,
)
SAN = uri_san("spiffe://example.org")


def constraints(
    permitted: list[x509.GeneralName] | None = None, excluded: list[x509.GeneralName] | None = None
) -> x509.NameConstraints:
    """Name constraints."""
    return x509.NameConstraints(permitted, excluded)


def uri(host: str) -> x509.UniformResourceIdentifier:
    """A constraint on the host of URIs."""
    return x509.UniformResourceIdentifier(host)


def dns(name: str) -> x509.DNSName:
    """A constraint on DNS names."""
    return x509.DNSName(name)


def eku(*usages: x509.ObjectIdentifier) -> x509.ExtendedKeyUsage:
    """An extended key usage."""
    return x509.ExtendedKeyUsage(usages)


def check(given: Given, **needs: Any) -> None:
    """Decide at ``NOW``."""
    check_given(given.certificates, given.key.public_key(), replace(NEEDS, **needs), NOW)


GOOD: dict[str, tuple[Changes, ...]] = {
    "a lone root": ({},),
    "below a root": ({}, {}),
    "below an intermediate": ({}, {}, {}),
    "pathLen that just fits": ({"path_length": 1}, {"path_length": 2}),
    "our SPIFFE ID": ({"add": [(SAN, False)]}, {}),
    "both extended usages": (
        {"add": [(eku(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH), False)]},
        {},
    ),
    "our server's name permitted": (
        {"add": [(constraints([dns("a.b"), dns("example.org")]), True)]},
        {},
    ),
    "others excluded": ({"add": [(constraints(None, [dns("a.example.org")]), True)]}, {}),
    "room for one issuing CA's life": ({"end": NOW + 24 * HOUR}, {}),
}

BAD: dict[str, tuple[str, tuple[Changes, ...]]] = {
    "not a CA": ("1 is not a CA", ({"ca": False}, {})),
    "root is not a CA": ("2 is not a CA", ({}, {"ca": False})),
    "no basicConstraints": ("1 is not a CA", ({"without": [x509.BasicConstraints]}, {})),
    "constraints not critical": ("not critical", ({"critical": False}, {})),
    "no keyCertSign": ("1 lacks the key usage keyCertSign", ({"usage": ("crl_sign",)}, {})),
    "no keyUsage": ("keyCertSign", ({"without": [x509.KeyUsage]}, {})),
    "expired": ("1 expired at 2026-06-01T12:00:00Z", ({"end": NOW}, {})),
    "root expired": ("2 expired", ({}, {"end": NOW - HOUR})),
    "not yet valid": ("1 is valid from 2026-06-01T12:00:01Z", ({"begin": NOW + HOUR / 3600}, {})),
    "pathLen 0": ("1 has the pathLen 0, expected at least 1", ({"path_length": 0}, {})),
    "pathLen above": ("2 has the pathLen 1, expected at least 2", ({}, {"path_length": 1})),
    "no key identifier": ("subjectKeyIdentifier", ({"without": [x509.SubjectKeyIdentifier]}, {})),
    "another key identifier above": ("1 was not signed by certificate 2", ({"aki": False}, {})),
    "no subject": ("empty subject", ({"subject": x509.Name([])}, {})),
    "one extended usage": (
        "extendedKeyUsage",
        ({"add": [(eku(ExtendedKeyUsageOID.SERVER_AUTH), False)]}, {}),
    ),
    "another trust domain": (
        "must have the SPIFFE ID spiffe://example.org",
        ({"add": [(uri_san("spiffe://other.org"), False)]}, {}),
    ),
    "a path in the SPIFFE ID": (
        "must have the SPIFFE ID",
        ({"add": [(uri_san("spiffe://example.org/ca"), False)]}, {}),
    ),
    "another domain in the root": (
        "2 must have the SPIFFE ID",
        ({}, {"add": [(uri_san("spiffe://other.org"), False)]}),
    ),
    "another trust domain permitted": (
        "constraints on URIs",
        ({"add": [(constraints([uri("other.org")]), True)]}, {}),
    ),
    "our trust domain permitted": (
        "constraints on URIs",
        ({"add": [(constraints([uri("example.org")]), True)]}, {}),
    ),
    "our trust domain excluded above": (
        "2 has name constraints on URIs",
        ({}, {"add": [(constraints(None, [uri("example.org")]), True)]}),
    ),
    "our server's name not permitted": (
        "DNS name issuer.example.org",
        ({"add": [(constraints([dns("example.com")]), True)]}, {}),
    ),
    "our server's name excluded": (
        "DNS name issuer.example.org",
        ({"add": [(constraints(None, [dns("example.org")]), True)]}, {}),
    ),
    "subjects constrained": (
        "constrains subjects",
        ({"add": [(constraints([x509.DirectoryName(x509.Name([]))]), True)]}, {}),
    ),
    "a critical extension": (
        "critical extension",
        ({"add": [(raw_extension(x509.ObjectIdentifier("1.2.3.4"), b"\x30\x00"), True)]}, {}),
    ),
    "signed by somebody else": ("1 was not signed", ({"signer": p256()}, {})),
    "the last is not a root": ("not self-signed", ({}, {"signer": p256()})),
    "too little life left": (
        r"issuing_ca \(86400 s\) is longer than what is left of the given CA \(86399 s\)",
        ({"end": NOW + timedelta(seconds=86399)}, {}),
    ),
    "too little life left above": (
        r"left of the given CA \(3600 s\)",
        ({}, {"end": NOW + HOUR}),
    ),
}


@pytest.mark.parametrize("changes", GOOD.values(), ids=GOOD)
def test_a_ca_that_can_be_used(changes: tuple[Changes, ...]) -> None:
    """A chain in which nothing stands against issuing CAs of ours is taken as it is."""
    given = given_chain(*changes)
    taken = check_given(given.certificates, given.key.public_key(), NEEDS, NOW)
    assert (taken.certificate, *taken.above) == given.certificates
    assert taken.expires_at == min(each.not_valid_after_utc for each in given.certificates)


@pytest.mark.parametrize(("words", "changes"), BAD.values(), ids=BAD)
def test_a_ca_that_cannot(words: str, changes: tuple[Changes, ...]) -> None:
    """With one thing wrong in one certificate the CA is refused; the text says what and where."""
    with pytest.raises(InvalidSettings, match=words):
        check(given_chain(*changes))


def test_the_key_of_another() -> None:
    """The key has to be that of the first certificate: the root's is not."""
    given = given_chain({}, {})
    check_given(given.certificates, given.keys[0].public_key(), NEEDS, NOW)
    with pytest.raises(InvalidSettings, match="certificate 1 is of another key"):
        check_given(given.certificates, given.keys[1].public_key(), NEEDS, NOW)


@pytest.mark.parametrize("key", [rsa_key(), p256(), ec.generate_private_key(ec.SECP384R1())])
def test_keys_that_are_accepted(key: Any) -> None:
    """RSA of 2048 bits, P-256 and P-384, for the CA and for the root."""
    check(given_chain({}, {}, keys=[key, p256()]))
    check(given_chain({}, {}, keys=[p256(), key]))


@pytest.mark.parametrize("key", [rsa_key(1024), ec.generate_private_key(ec.SECP521R1())])
def test_keys_that_are_not(key: Any) -> None:
    """A short RSA key or another curve is refused, in the CA and above it."""
    for place, keys in enumerate(([key, p256()], [p256(), key]), start=1):
        with pytest.raises(InvalidSettings, match=f"certificate {place} has a key"):
            check(given_chain({}, {}, keys=keys))


def test_the_order_and_the_number() -> None:
    """The CA is first and the root last; nothing may be missing, doubled or too much."""
    given = given_chain({}, {}, {})
    ca, middle, root = given.certificates
    for chain in ((ca, root), (ca, root, middle), (ca, middle), (ca, middle, root, root)):
        with pytest.raises(InvalidSettings, match=r"not signed|self-signed"):
            check(replace(given, certificates=chain))
    for number in (0, MAX_GIVEN + 1):
        with pytest.raises(InvalidSettings, match=f"holds {number} certificates"):
            check_given([root] * number, given.key.public_key(), NEEDS, NOW)
    check(given_chain(*[{}] * MAX_GIVEN))


def test_a_digest_that_is_too_weak() -> None:
    """Only SHA-2 is taken below a root; what a root says of itself proves nothing either way."""
    check(given_chain({"digest": hashes.SHA512()}, {}))
    with pytest.raises(InvalidSettings, match="certificate 1 is signed over a digest"):
        check(given_chain({"digest": hashes.SHA224()}, {}))


def test_what_a_constraint_covers() -> None:
    """A DNS name covers itself and what is below it, and nothing that only ends alike."""
    assert dns_matches("Example.org", "example.org")
    assert dns_matches("example.org", "a.example.org")
    assert dns_matches(".example.org", "a.example.org")
    assert dns_matches("", "anything")
    assert not dns_matches("a.example.org", "example.org")
    assert not dns_matches("example.org", "badexample.org")


def test_key_usage_is_asked_of_each() -> None:
    """A CA above that may not sign certificates makes the chain worthless."""
    with pytest.raises(InvalidSettings, match="certificate 2 lacks"):
        check(given_chain({}, {"usage": ("crl_sign",)}))

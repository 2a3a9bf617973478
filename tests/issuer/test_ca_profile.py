"""What CA certificates may be signed: each bound, and its nearest neighbour on either side."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from support.authority import HOUR, NOW, Authority

from accredit_credentials.errors import CredentialError, InvalidCertificate, InvalidKey
from accredit_credentials.keys import generate_key
from accredit_credentials.spiffe_id import TrustDomain
from accredit_credentials.x509_template import CaTemplate, ca_builder
from accredit_issuer.authority import ca_profile
from accredit_issuer.authority.ca_profile import CaProfile, CheckedCa, sign_ca
from accredit_issuer.authority.profile import ProfileViolation, new_serial

SECOND = timedelta(seconds=1)
DAY = 24 * HOUR
ISSUING = CaProfile(
    trust_domain=TrustDomain("example.org"),
    max_lifetime=DAY,
    backdate=10 * SECOND,
    replica=0,
    path_length=0,
)
ROOT = replace(ISSUING, path_length=None)
KEY = generate_key()
AUTHORITY = Authority()


def issuing(**changes: Any) -> CaTemplate:
    """An issuing CA that the profile allows."""
    good = CaTemplate(
        trust_domain=TrustDomain("example.org"),
        common_name="Accredit issuing CA",
        public_key=KEY.public_key(),
        serial=new_serial(),
        not_before=NOW - 10 * SECOND,
        not_after=NOW + DAY,
        path_length=0,
        issuer=AUTHORITY.root.certificate,
    )
    return replace(good, **changes)


def check(template: CaTemplate, profile: CaProfile = ISSUING) -> CheckedCa:
    """Ask the profile."""
    above = template.issuer.public_key() if template.issuer else template.public_key
    return profile.check(template, above, NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [{}, {"not_before": NOW}, {"not_after": NOW + SECOND}, {"common_name": "x" * 64}],
)
@pytest.mark.spec("SPIFFE-14")
@pytest.mark.spec("SPIFFE-18")
def test_what_lies_within_the_bounds_is_signed(changes: dict[str, Any]) -> None:
    """A template on the inner side of each bound is signed as it was checked."""
    checked = check(issuing(**changes))
    signed = sign_ca(checked, AUTHORITY.root.key)
    assert signed.tbs_certificate_bytes == checked.tbs
    signed.verify_directly_issued_by(AUTHORITY.root.certificate)


@pytest.mark.parametrize("make", [generate_key, lambda: rsa.generate_private_key(65537, 2048),
                                  lambda: ec.generate_private_key(ec.SECP384R1())])  # fmt: skip
def test_any_kind_of_ca_above(make: Callable[[], Any]) -> None:
    """A root of each kind certifies itself and an issuing CA, with its own algorithm."""
    key = make()
    template = issuing(
        public_key=key.public_key(), issuer=None, path_length=None, not_after=NOW + DAY
    )
    root = sign_ca(check(template, ROOT), key)
    below = sign_ca(check(issuing(issuer=root)), key)
    below.verify_directly_issued_by(root)


@pytest.mark.parametrize(
    ("bound", "changes"),
    [
        ("trust domain", {"trust_domain": TrustDomain("example.com")}),
        ("path length", {"path_length": 1}),
        ("path length", {"path_length": None}),
        ("serial", {"serial": 1 << 157}),
        ("serial", {"serial": (1 << 158) + (1 << 142)}),
        ("notBefore", {"not_before": NOW - 12 * SECOND}),
        ("notBefore", {"not_before": NOW + SECOND}),
        ("notAfter", {"not_after": NOW}),
        ("notAfter", {"not_after": NOW + DAY + SECOND}),
        ("whole seconds", {"not_after": NOW + timedelta(seconds=5, microseconds=1)}),
        ("end of the CA above", {"issuer": AUTHORITY.ca(not_after=NOW + HOUR).certificate}),
        ("begin of the CA above", {"issuer": AUTHORITY.ca(not_before=NOW + SECOND).certificate}),
        ("name", {"common_name": "x" * 65}),
    ],
)
def test_each_bound_is_named_where_it_is_broken(bound: str, changes: dict[str, Any]) -> None:
    """A template just outside of one bound is not signed, and the error names the bound."""
    with pytest.raises(ProfileViolation, match=bound):
        check(issuing(**changes))


def test_the_key_is_that_of_the_ca_above() -> None:
    """Nothing is checked for a key that is not the named CA's."""
    with pytest.raises(ProfileViolation, match="key of the CA above"):
        ISSUING.check(issuing(), generate_key().public_key(), NOW)


def test_a_weak_key_is_no_ca() -> None:
    """A key that no credential has is no CA's either."""
    with pytest.raises(InvalidKey):
        check(issuing(public_key=ec.generate_private_key(ec.SECP224R1()).public_key()))


WRONG: dict[str, Callable[[x509.CertificateBuilder], x509.CertificateBuilder]] = {
    "2.5.29.37": lambda builder: builder.add_extension(
        x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
    ),
    "serial number": lambda builder: _with(builder, "_serial_number", 5),
    "basicConstraints": lambda builder: _extension(builder, x509.BasicConstraints(True, 3)),
    "keyUsage": lambda builder: _extension(builder, _usage(digital_signature=True)),
    "2.5.29.19": lambda builder: _extension(
        builder, x509.BasicConstraints(True, 0), critical=False
    ),
    "subjectAltName": lambda builder: _extension(
        builder, x509.SubjectAlternativeName([x509.DNSName("example.org")])
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_builder_that_errs_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the builder makes of a good template is read again before the real signature."""
    monkeypatch.setattr(
        ca_profile, "ca_builder", lambda template: WRONG[name](ca_builder(template))
    )
    with pytest.raises(ProfileViolation, match=name):
        check(issuing())


def test_what_is_signed_is_what_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other bytes than those that were read, or another key's signature, are not released."""
    checked = check(issuing())
    with pytest.raises(InvalidCertificate, match="not signed by the CA above"):
        sign_ca(checked, generate_key())
    other = replace(checked, template=issuing())
    with pytest.raises(InvalidCertificate, match="not the one that was meant"):
        sign_ca(other, AUTHORITY.root.key)
    with pytest.raises(CredentialError):
        sign_ca(replace(checked, tbs=checked.tbs + b"\0"), AUTHORITY.root.key)


def _usage(**changes: bool) -> x509.KeyUsage:
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    usual = {name: name in {"key_cert_sign", "crl_sign"} for name in names}
    return x509.KeyUsage(**{**usual, **changes})


def _with(builder: x509.CertificateBuilder, name: str, value: Any) -> x509.CertificateBuilder:
    setattr(builder, name, value)
    return builder


def _extension(
    builder: x509.CertificateBuilder, value: x509.ExtensionType, *, critical: bool | None = None
) -> x509.CertificateBuilder:
    """The builder with one extension exchanged."""
    exchanged = [
        x509.Extension(
            each.oid, each.critical if critical is None else critical, value
        ) if each.oid == value.oid else each
        for each in builder._extensions  # type: ignore[attr-defined]
    ]  # fmt: skip
    return _with(builder, "_extensions", exchanged)

"""What an OCSP responder's certificate may be: each bound, and its neighbour; and no SVID."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.authority import HOUR, NOW, Authority, key_usage, uri_san

from accredit_credentials.errors import CredentialError, InvalidCertificate, InvalidKey
from accredit_credentials.keys import generate_key
from accredit_credentials.x509_svid import X509Svid, unverified_svid, validate
from accredit_issuer.authority import responder_profile
from accredit_issuer.authority.profile import ProfileViolation, new_serial
from accredit_issuer.authority.responder_profile import (
    MAX_LIFETIME,
    CheckedResponder,
    ResponderProfile,
    ResponderTemplate,
    responder_builder,
    sign_responder,
)

SECOND = timedelta(seconds=1)
PROFILE = ResponderProfile(backdate=10 * SECOND, replica=0)
AUTHORITY = Authority()
CA_KEY: Any = AUTHORITY.issuing.key
KEY = generate_key()


def template(**changes: Any) -> ResponderTemplate:
    """A responder that the profile allows."""
    good = ResponderTemplate(
        ca=AUTHORITY.issuing.certificate,
        public_key=KEY.public_key(),
        serial=new_serial(),
        not_before=NOW - 10 * SECOND,
        not_after=NOW + MAX_LIFETIME,
    )
    return replace(good, **changes)


def check(wanted: ResponderTemplate) -> CheckedResponder:
    """Ask the profile."""
    return PROFILE.check(wanted, NOW)


@pytest.mark.parametrize(
    "changes", [{}, {"not_before": NOW}, {"not_after": NOW + SECOND}, {"serial": new_serial()}]
)
def test_what_lies_within_the_bounds_is_signed(changes: dict[str, Any]) -> None:
    """A template on the inner side of each bound is signed as it was checked."""
    checked = check(template(**changes))
    signed = sign_responder(checked, CA_KEY)
    assert signed.tbs_certificate_bytes == checked.tbs
    signed.verify_directly_issued_by(AUTHORITY.issuing.certificate)


@pytest.mark.parametrize(
    ("bound", "changes"),
    [
        ("serial", {"serial": 1 << 157}),
        ("serial", {"serial": (1 << 158) + (1 << 142)}),
        ("notBefore", {"not_before": NOW - 12 * SECOND}),
        ("notBefore", {"not_before": NOW + SECOND}),
        ("notAfter", {"not_after": NOW}),
        ("notAfter", {"not_after": NOW + MAX_LIFETIME + SECOND}),
        ("whole seconds", {"not_after": NOW + timedelta(seconds=5, microseconds=1)}),
        ("end of the CA", {"ca": AUTHORITY.ca(not_after=NOW + HOUR).certificate}),
        ("begin of the CA", {"ca": AUTHORITY.ca(not_before=NOW + SECOND).certificate}),
        ("a key of its own", {"public_key": CA_KEY.public_key()}),
    ],
)
def test_each_bound_is_named_where_it_is_broken(bound: str, changes: dict[str, Any]) -> None:
    """A template just outside of one bound is not signed, and the error names the bound."""
    with pytest.raises(ProfileViolation, match=bound):
        check(template(**changes))


def test_a_weak_key_is_no_responders() -> None:
    """A key that no credential has is no responder's either."""
    with pytest.raises(InvalidKey):
        check(template(public_key=ec.generate_private_key(ec.SECP224R1()).public_key()))


WRONG: dict[str, Callable[[x509.CertificateBuilder], x509.CertificateBuilder]] = {
    "2.5.29.17": lambda builder: builder.add_extension(
        uri_san(str(AUTHORITY.id())), critical=False
    ),
    "serial number": lambda builder: _with(builder, "_serial_number", 5),
    "basicConstraints": lambda builder: _extension(builder, x509.BasicConstraints(True, 3)),
    "keyUsage": lambda builder: _extension(
        builder, key_usage("digital_signature", "key_cert_sign")
    ),
    "extKeyUsage": lambda builder: _extension(
        builder,
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING, ExtendedKeyUsageOID.CLIENT_AUTH]),
    ),
    "OCSPNoCheck": lambda builder: _without(builder, x509.OCSPNoCheck),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_builder_that_errs_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the builder makes of a good template is read again before the real signature."""
    monkeypatch.setattr(
        responder_profile,
        "responder_builder",
        lambda wanted: WRONG[name](responder_builder(wanted)),
    )
    with pytest.raises(ProfileViolation, match=name):
        check(template())


def test_what_is_signed_is_what_was_checked() -> None:
    """Other bytes than those that were read, or another key's signature, are not released."""
    checked = check(template())
    with pytest.raises(InvalidCertificate, match="not signed by its CA"):
        sign_responder(checked, generate_key())
    with pytest.raises(InvalidCertificate, match="not the one that was meant"):
        sign_responder(replace(checked, template=template()), CA_KEY)


def chain(leaf: x509.Certificate) -> list[x509.Certificate]:
    """A leaf as its holder would show it."""
    return [leaf, AUTHORITY.issuing.certificate]


def test_a_responder_is_nobodys_svid() -> None:
    """With the very CA that agents have above it, its certificate passes for no agent's."""
    signed = sign_responder(check(template()), CA_KEY)
    with pytest.raises(CredentialError):
        unverified_svid(chain(signed))
    posing = X509Svid(AUTHORITY.id(), signed, (AUTHORITY.issuing.certificate,))
    with pytest.raises(CredentialError):
        validate(posing, bundles=AUTHORITY.bundles, now=NOW)


def test_a_name_would_not_make_it_one() -> None:
    """Even with an agent's SPIFFE ID in it, its usage is refused; the neighbour is accepted."""
    named = responder_builder(template()).add_extension(
        uri_san(str(AUTHORITY.id())), critical=False
    )
    with pytest.raises(CredentialError, match="serverAuth and clientAuth"):
        unverified_svid(chain(AUTHORITY.issuing.sign(named)))
    good = AUTHORITY.issue().svid
    assert validate(good, bundles=AUTHORITY.bundles, now=NOW) == good


def _with(builder: x509.CertificateBuilder, name: str, value: Any) -> x509.CertificateBuilder:
    setattr(builder, name, value)
    return builder


def _extension(
    builder: x509.CertificateBuilder, value: x509.ExtensionType
) -> x509.CertificateBuilder:
    """The builder with one extension exchanged."""
    exchanged = [
        x509.Extension(each.oid, each.critical, value) if each.oid == value.oid else each
        for each in builder._extensions  # type: ignore[attr-defined]
    ]
    return _with(builder, "_extensions", exchanged)


def _without(
    builder: x509.CertificateBuilder, kind: type[x509.ExtensionType]
) -> x509.CertificateBuilder:
    left = [each for each in builder._extensions if not isinstance(each.value, kind)]  # type: ignore[attr-defined]
    return _with(builder, "_extensions", left)

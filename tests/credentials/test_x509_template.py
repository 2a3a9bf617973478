"""Templates: what is built is what was meant, and what was signed is compared with it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.authority import (
    INSTANCE,
    NOW,
    Authority,
    Signer,
    deviating,
    key_usage,
    raw_extension,
    uri_san,
)

from accredit_credentials.errors import InvalidCertificate
from accredit_credentials.keys import SubjectKey, generate_key
from accredit_credentials.x509_svid import authority_key_id
from accredit_credentials.x509_template import (
    LeafTemplate,
    check_signed_leaf,
    leaf_builder,
    subject_key_id,
)


def signed(template: LeafTemplate, authority: Authority) -> x509.Certificate:
    """The template as the issuing CA signs it."""
    return authority.issuing.sign(leaf_builder(template, authority.issuing.certificate))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"manifest": None},
        {"dns_names": ("issuer.example", "localhost")},
        {"crl_url": "http://crl.example/1.crl"},
        {"ocsp_url": "http://ocsp.example/1"},
        {"crl_url": "http://crl.example/1.crl", "ocsp_url": "http://ocsp.example/1"},
        {"serial": 2**159 - 1},
    ],
)
def test_what_was_meant_is_released(fields: dict[str, Any], authority: Authority) -> None:
    """A certificate that is its template comes back as a chain, with its issuing CA."""
    template = authority.template(**fields)
    certificate = signed(template, authority)
    svid = check_signed_leaf(certificate, template, authority.issuing.certificate)
    assert svid.spiffe_id == template.spiffe_id
    assert svid.certificates == (certificate, authority.issuing.certificate)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"subject_key": SubjectKey.of(generate_key().public_key())}, "public key"),
        ({"serial": 1}, "serial number"),
        ({"not_before": NOW}, "notBefore"),
        ({"not_after": NOW + timedelta(hours=2)}, "notAfter"),
        ({"not_after": (NOW + timedelta(hours=1)).replace(microsecond=1)}, "notAfter"),
        ({"not_after": (NOW + timedelta(hours=1)).replace(tzinfo=None)}, "notAfter"),
        ({"instance": INSTANCE[:-1] + "0"}, "subject"),
        ({"manifest": "sha256:" + "00" * 32}, "subject"),
        ({"manifest": None}, "subject"),
        ({"dns_names": ("issuer.example",)}, "extensions"),
        ({"crl_url": "http://crl.example/1.crl"}, "extensions"),
        ({"ocsp_url": "http://ocsp.example/1"}, "extensions"),
    ],
)
def test_what_was_not_meant_is_not_released(
    fields: dict[str, Any], name: str, authority: Authority
) -> None:
    """Each field that differs from the template is found and named."""
    template = authority.template()
    certificate = signed(template, authority)
    with pytest.raises(InvalidCertificate, match=name):
        check_signed_leaf(certificate, replace(template, **fields), authority.issuing.certificate)


def test_another_identity_is_not_released(authority: Authority, other_authority: Authority) -> None:
    """Another agent's ID and another trust domain's are both found."""
    template = authority.template()
    certificate = signed(template, authority)
    for spiffe_id in (authority.id("/ns/support/agent/other"), other_authority.id()):
        with pytest.raises(InvalidCertificate, match="extensions"):
            check_signed_leaf(
                certificate,
                replace(template, spiffe_id=spiffe_id),
                authority.issuing.certificate,
            )


def test_another_issuer_is_not_released(authority: Authority) -> None:
    """A leaf of one CA is not released with the chain of another, whatever its name."""
    template = authority.template()
    certificate = signed(template, authority)
    namesake = authority.ca(below=authority.root, common_name="issuing")
    for ca, name in ((namesake, "extensions"), (authority.root, "issuer")):
        with pytest.raises(InvalidCertificate, match=name):
            check_signed_leaf(certificate, template, ca.certificate)


@pytest.mark.parametrize(
    "deviation",
    [
        {"extensions": [(uri_san("spiffe://example.org/ns/support/agent/triage"), True)]},
        {"extensions": [(x509.SubjectAlternativeName([
            x509.UniformResourceIdentifier("spiffe://example.org/ns/support/agent/triage"),
            x509.DNSName("bank.example"),
        ]), False)]},
        {"extensions": [(raw_extension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"),
                         False)]},
        {"extensions": [(key_usage("digital_signature", "key_agreement"), True)]},
        {"extensions": [(x509.ExtendedKeyUsage([
            ExtendedKeyUsageOID.SERVER_AUTH,
            ExtendedKeyUsageOID.CLIENT_AUTH,
            ExtendedKeyUsageOID.CODE_SIGNING,
        ]), False)]},
        {"extensions": [(x509.BasicConstraints(ca=False, path_length=None), False)]},
        {"without": [x509.ExtendedKeyUsage]},
        {"without": [x509.SubjectKeyIdentifier]},
    ],
)  # fmt: skip
def test_no_extension_is_added_lost_or_changed(
    deviation: dict[str, Any], authority: Authority
) -> None:
    """A good SVID that says more or less than its template is not released."""
    template = authority.template()
    certificate = deviating(signed(template, authority), authority.issuing, **deviation)
    with pytest.raises(InvalidCertificate, match="extensions"):
        check_signed_leaf(certificate, template, authority.issuing.certificate)


def test_what_is_no_svid_is_not_released(authority: Authority) -> None:
    """A signed CA is not released."""
    template = authority.template()
    ca = deviating(
        signed(template, authority),
        authority.issuing,
        extensions=[(x509.BasicConstraints(ca=True, path_length=None), True)],
    )
    with pytest.raises(InvalidCertificate, match="extensions"):
        check_signed_leaf(ca, template, authority.issuing.certificate)


@pytest.mark.spec("SPIFFE-14")
@pytest.mark.spec("SPIFFE-16")
@pytest.mark.spec("SPIFFE-17")
@pytest.mark.spec("SPIFFE-18")
def test_a_signing_certificate_has_the_form_of_one(authority: Authority) -> None:
    """A CA with critical keyCertSign and cRLSign, and the trust domain's ID without a path."""
    for signer, path_length in ((authority.root, None), (authority.issuing, 0)):
        extensions = signer.certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        assert constraints.critical
        assert constraints.value == x509.BasicConstraints(ca=True, path_length=path_length)
        assert usage.critical
        assert usage.value == key_usage("key_cert_sign", "crl_sign")
        san = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert san == uri_san("spiffe://example.org")


@pytest.mark.spec("SPIFFE-13")
def test_the_subject_is_never_empty(authority: Authority) -> None:
    """Every certificate has a subject, so that its SAN need not be critical."""
    for certificate in (
        authority.root.certificate,
        authority.issuing.certificate,
        authority.issue(manifest=None).svid.leaf,
    ):
        assert list(certificate.subject)


def test_keys_are_chained_by_their_identifiers(authority: Authority) -> None:
    """Each certificate names the key identifier of the one that signed it (RFC 5280 §4.2.1.1)."""
    root, issuing = authority.root.certificate, authority.issuing.certificate
    assert authority_key_id(authority.issue().svid.leaf) == subject_key_id(issuing)
    assert authority_key_id(issuing) == subject_key_id(root) == authority_key_id(root)


def test_an_issuer_without_key_identifier_is_refused(authority: Authority) -> None:
    """Below such a CA nothing is built: its leaves could not name it."""
    nameless = deviating(
        authority.issuing.certificate, authority.root, without=[x509.SubjectKeyIdentifier]
    )
    with pytest.raises(InvalidCertificate, match="subjectKeyIdentifier"):
        leaf_builder(authority.template(), nameless)
    with pytest.raises(InvalidCertificate, match="subjectKeyIdentifier"):
        authority.ca(below=Signer(nameless, authority.issuing.key))


def test_no_key_shows_in_a_repr(authority: Authority) -> None:
    """A template says whose and until when, and no key."""
    assert "Key" not in repr(authority.template())

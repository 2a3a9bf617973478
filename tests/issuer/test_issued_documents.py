"""What a real issuer issues and publishes has the form that SPIFFE asks for, byte for byte.

The rules themselves are tested with their failing twins in tests/credentials. Here the documents
are the issuer's own: its authorities, an agent's and its own X.509-SVID, a JWT-SVID, the bundle.
"""

import base64
import json
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.authority import key_usage
from support.offline import Offline, offline_issuer

from accredit_credentials import jwt_svid
from accredit_credentials.errors import InvalidCertificate
from accredit_credentials.keys import generate_key
from accredit_credentials.spiffe_id import SpiffeId
from accredit_credentials.x509_svid import X509Svid, unverified_svid, validate
from accredit_issuer.authority.lifecycle import AuthorityKind

E = TypeVar("E", bound=x509.ExtensionType)
DOMAIN_ID = "spiffe://example.org"


def authorities(offline: Offline) -> list[x509.Certificate]:
    """The root and the issuing CA in force."""
    snapshot = offline.issuer.authorities.now_in_force
    found = [snapshot.active(kind).certificate for kind in (AuthorityKind.ROOT, AuthorityKind.X509)]
    return [certificate for certificate in found if certificate is not None]


def leaves(offline: Offline) -> list[X509Svid]:
    """The SVID of an agent, and that of the issuer's own server."""
    own = offline.do(offline.issuer.issuance.own.issue(generate_key().public_key())).svid()
    return [offline.agent(), own]


def uris_of(certificate: x509.Certificate) -> list[str]:
    """The URI SANs."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def critical(certificate: x509.Certificate, kind: type[E]) -> E:
    """What an extension says, which is critical."""
    extension = certificate.extensions.get_extension_for_class(kind)
    assert extension.critical
    return extension.value


def parts_of(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token."""
    header, claims, _ = token.split(".")
    return _json(header), _json(claims)


def _json(part: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=="))
    return value


@pytest.mark.spec("SPIFFE-8")
@pytest.mark.spec("SPIFFE-14")
def test_the_trust_domain_has_authorities_with_its_own_id(offline: Offline) -> None:
    """Root and issuing CA carry the trust domain's ID, without a path, inside what they sign."""
    root, issuing = authorities(offline)
    for certificate in (root, issuing):
        assert uris_of(certificate) == [DOMAIN_ID]
        assert SpiffeId.parse(DOMAIN_ID).path == ""
    root.verify_directly_issued_by(root)
    issuing.verify_directly_issued_by(root)


@pytest.mark.spec("SPIFFE-13")
@pytest.mark.spec("SPIFFE-16")
@pytest.mark.spec("SPIFFE-17")
@pytest.mark.spec("SPIFFE-18")
def test_the_authorities_are_cas_and_say_so(offline: Offline) -> None:
    """They are CAs by critical extensions, for certificates and CRLs, and have a name.

    The issuing CA makes no CAs.
    """
    for certificate, path_length in zip(authorities(offline), (None, 0), strict=True):
        constraints = critical(certificate, x509.BasicConstraints)
        assert constraints == x509.BasicConstraints(ca=True, path_length=path_length)
        assert critical(certificate, x509.KeyUsage) == key_usage("key_cert_sign", "crl_sign")
        assert list(certificate.subject)


@pytest.mark.spec("SPIFFE-15")
def test_an_authority_cannot_be_shown_as_an_svid(offline: Offline) -> None:
    """What signs is refused where somebody authenticates with it, in the handshake's own check."""
    for certificate in authorities(offline):
        with pytest.raises(InvalidCertificate):
            unverified_svid([certificate])


@pytest.mark.spec("SPIFFE-9")
@pytest.mark.spec("SPIFFE-11")
@pytest.mark.spec("SPIFFE-12")
@pytest.mark.spec("SPIFFE-13")
@pytest.mark.spec("SPIFFE-16")
@pytest.mark.spec("SPIFFE-17")
@pytest.mark.spec("SPIFFE-19")
@pytest.mark.spec("SPIFFE-20")
@pytest.mark.spec("SPIFFE-21")
def test_every_leaf_has_the_form_of_an_svid(offline: Offline) -> None:
    """An agent's SVID and the server's own: one URI with a path, no CA, one use, both purposes."""
    for svid in leaves(offline):
        (uri,) = uris_of(svid.leaf)
        assert SpiffeId.parse(uri).path
        extensions = svid.leaf.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        assert constraints == x509.BasicConstraints(ca=False, path_length=None)
        assert critical(svid.leaf, x509.KeyUsage) == key_usage("digital_signature")
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} == set(purposes)
        san = extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert san.critical or list(svid.leaf.subject)
        bundle = offline.issuer.bundle
        validate(svid, bundles={bundle.trust_domain: bundle}, now=offline.clock())


@pytest.mark.spec("SPIFFE-25")
@pytest.mark.spec("SPIFFE-26")
@pytest.mark.spec("SPIFFE-27")
@pytest.mark.spec("SPIFFE-28")
@pytest.mark.spec("SPIFFE-29")
@pytest.mark.spec("SPIFFE-30")
@pytest.mark.spec("SPIFFE-31")
@pytest.mark.spec("SPIFFE-32")
def test_a_jwt_svid_has_its_form(offline: Offline) -> None:
    """Compact, three headers, a key id of the bundle, and subject, audience and end."""
    svid = offline.agent()
    issued = offline.do(offline.issuer.issuance.tokens.jwt_svid(svid, ("https://a.example",)))
    header, claims = parts_of(issued.token)
    bundle = offline.issuer.bundle
    assert header == {"alg": "ES256", "kid": next(iter(bundle.jwt_authorities)), "typ": "JWT"}
    assert claims["sub"] == str(svid.spiffe_id)
    assert claims["aud"] == ["https://a.example"]
    assert claims["exp"] == int(issued.svid.expires_at.timestamp())
    jwt_svid.validate(
        issued.token,
        bundles={bundle.trust_domain: bundle},
        audience="https://a.example",
        now=offline.clock(),
    )


@pytest.mark.spec("SPIFFE-10")
@pytest.mark.spec("SPIFFE-23")
@pytest.mark.spec("SPIFFE-35")
@pytest.mark.spec("SPIFFE-51")
@pytest.mark.spec("SPIFFE-55")
def test_the_bundle_is_a_jwk_set_of_the_three_kinds(offline: Offline) -> None:
    """Each entry has kty and use; X.509 ones one self-signed CA and no kid, the others a kid."""
    document = json.loads(offline.issuer.bundle.to_json())
    assert {jwk["use"] for jwk in document["keys"]} == {"x509-svid", "jwt-svid", "wit-svid"}
    for jwk in document["keys"]:
        assert jwk["kty"] == "EC"
        assert "d" not in jwk
        if jwk["use"] != "x509-svid":
            assert jwk["kid"]
            assert "x5c" not in jwk
            continue
        assert "kid" not in jwk
        (encoded,) = jwk["x5c"]
        der = base64.b64decode(encoded, validate=True)
        assert base64.b64encode(der).decode() == encoded
        certificate = x509.load_der_x509_certificate(der)
        certificate.verify_directly_issued_by(certificate)
        assert der == authorities(offline)[0].public_bytes(Encoding.DER)


@pytest.mark.spec("SPIFFE-52")
@pytest.mark.spec("SPIFFE-53")
def test_the_bundle_says_which_it_is_and_when_to_ask_again(tmp_path: Path) -> None:
    """Sequence and refresh hint are whole numbers; the hint is the operator's, in seconds."""
    with offline_issuer(tmp_path / "issuer", bundle={"refresh_hint": 77}) as offline:
        document = json.loads(offline.issuer.bundle.to_json())
    assert document["spiffe_refresh_hint"] == 77
    assert type(document["spiffe_sequence"]) is int
    assert 0 < document["spiffe_sequence"] < 2**63

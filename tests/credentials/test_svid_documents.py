"""What makes an SVID document: what is signed, and which kinds there are (SPIFFE-ID §3.2, §3.3)."""

import json

import pytest
from cryptography.hazmat.primitives import serialization
from support.authority import NOW, Authority

from accredit_credentials import jwt_svid
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import Untrusted
from accredit_credentials.keys import generate_key, jwk_of
from accredit_credentials.x509_svid import parse_der, validate


@pytest.mark.spec("SPIFFE-9")
@pytest.mark.parametrize("part", ["SPIFFE ID", "public key"])
def test_the_identity_and_the_key_are_inside_what_is_signed(part: str) -> None:
    """A certificate whose SPIFFE ID or key was swapped after the signature is not trusted."""
    authority = Authority()
    identity = authority.issue()
    leaf, *others = identity.svid.der
    old, new = {
        "SPIFFE ID": (b"agent/triage", b"agent/tribun"),
        "public key": (_point(identity.key.public_key()), _point(generate_key().public_key())),
    }[part]
    assert leaf.count(old) == 1
    swapped = parse_der(leaf.replace(old, new), tuple(others))
    validate(identity.svid, bundles=authority.bundles, now=NOW)
    with pytest.raises(Untrusted):
        validate(swapped, bundles=authority.bundles, now=NOW)


@pytest.mark.spec("SPIFFE-10")
@pytest.mark.parametrize("use", ["x509-svid", "wit-svid", "sig", "JWT-SVID"])
def test_a_key_of_another_document_type_verifies_no_jwt_svid(use: str) -> None:
    """Only keys that the bundle marks for JWT-SVIDs verify JWT-SVIDs."""
    authority = Authority()
    svid = jwt_svid.JwtSvid(
        spiffe_id=authority.id(), audience=("a",), expires_at=NOW.replace(hour=13), issued_at=NOW
    )
    token = jwt_svid.sign(svid, authority.jwt_key, authority.kid)
    jwt_svid.validate(token, bundles=authority.bundles, audience="a", now=NOW)
    jwk = {**jwk_of(authority.jwt_key.public_key()), "kid": authority.kid, "use": use}
    other = TrustBundle.parse(authority.trust_domain, json.dumps({"keys": [jwk]}))
    with pytest.raises(Untrusted):
        jwt_svid.validate(token, bundles={authority.trust_domain: other}, audience="a", now=NOW)


def _point(key: object) -> bytes:
    return key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )

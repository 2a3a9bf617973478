"""Bundles as another SPIFFE implementation serves them: written by hand, member by member.

In the form of SPIRE's bundle endpoint: entries without ``kid`` for X.509 authorities (RSA and EC,
one certificate each), entries with ``kid`` for JWT keys, indented JSON, sequence and hint.
"""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def number(value: int, size: int | None = None) -> str:
    """Base64urlUInt (RFC 7518 §2)."""
    size = size or (value.bit_length() + 7) // 8
    return base64.urlsafe_b64encode(value.to_bytes(size, "big")).rstrip(b"=").decode()


def public_members(key: Key) -> dict[str, Any]:
    """The public numbers of a key as JWK members."""
    if isinstance(key, rsa.RSAPrivateKey):
        public = key.public_key().public_numbers()
        return {"kty": "RSA", "n": number(public.n), "e": number(public.e)}
    point = key.public_key().public_numbers()
    size = (key.curve.key_size + 7) // 8
    return {
        "kty": "EC",
        "crv": f"P-{key.curve.key_size}",
        "x": number(point.x, size),
        "y": number(point.y, size),
    }


def root(key: Key, uri: str, *, now: datetime | None = None) -> x509.Certificate:
    """A self-signed root as SPIRE makes it: a URI SAN, no authority key identifier."""
    now = now or datetime.now(UTC).replace(microsecond=0)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIFFE"),
        ]
    )
    usage = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=7))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False
        )
        .sign(key, hashes.SHA256())
    )


def x509_entry(key: Key, certificate: x509.Certificate) -> dict[str, Any]:
    """An X.509 authority."""
    der = certificate.public_bytes(serialization.Encoding.DER)
    return {"use": "x509-svid", **public_members(key), "x5c": [base64.b64encode(der).decode()]}


def jwt_entry(key: Key, kid: str) -> dict[str, Any]:
    """A JWT authority."""
    return {"use": "jwt-svid", "kid": kid, **public_members(key)}


def spire_bundle(trust_domain: str, **members: Any) -> dict[str, Any]:
    """Two X.509 authorities and three JWT keys of different kinds, and ``members`` beside them."""
    rsa_key = rsa.generate_private_key(65537, 2048)
    p256, p384 = (ec.generate_private_key(curve()) for curve in (ec.SECP256R1, ec.SECP384R1))
    uri = f"spiffe://{trust_domain}"
    return {
        "keys": [
            x509_entry(rsa_key, root(rsa_key, uri)),
            x509_entry(p384, root(p384, uri)),
            jwt_entry(p256, "C6vs25welZOx6WksNYfbMfiw9l96pMnD"),
            jwt_entry(rsa_key, "gHTCunJbefYtnZnTctd84xeRWyMrEsWD"),
            jwt_entry(p384, "WPmqZXBgTXTsZBiyvn1aAFL1kKYz2LHh"),
        ],
        **members,
    }

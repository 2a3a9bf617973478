"""The trust bundle: the authorities of one trust domain, as a SPIFFE JWKS document.

Reads and writes the document of SPIFFE Trust Domain and Bundle §4. What it cannot use it ignores
entry by entry, as §4.2 and X509-SVID §6.2 say; what is not a bundle at all is an error. A bundle
belongs to one trust domain and is never merged with another's.
"""

import base64
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from accredit_credentials.errors import InvalidBundle, InvalidKey
from accredit_credentials.keys import PublicKey, check_public_key, jwk_of, key_of_jwk
from accredit_credentials.spiffe_id import TrustDomain
from accredit_credentials.strict_json import NotStrictJson, parse_object

MAX_BUNDLE_BYTES = 1024 * 1024
MAX_SEQUENCE = 2**64 - 1
MAX_TAINTED = 64
_TAINTED = "accredit_tainted"
_AUTHORITY_ID = re.compile("[0-9a-f]{1,64}")

# What cryptography raises for a certificate that it cannot read; most share no root but Exception.
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True)
class TrustBundle:
    """The authorities of one trust domain.

    Attributes:
        trust_domain: whose authorities these are; known from configuration, never from the text.
        x509_authorities: CA certificates, in the document's order.
        jwt_authorities: public keys by key id.
        sequence: grows with every change of content.
        refresh_hint: seconds after which to ask again.
        wit_authorities: public keys by key id that sign WIT-SVIDs, and nothing else.
        tainted: ids (lower-case hex) of authorities that are about to be removed: whoever holds
            something that they signed asks for another at once. A parameter of our own, which
            others ignore (Trust Domain and Bundle §4.1). Of more than 64, the first count.
    """

    trust_domain: TrustDomain
    x509_authorities: tuple[x509.Certificate, ...] = field(default=(), repr=False)
    jwt_authorities: Mapping[str, PublicKey] = field(default_factory=dict, repr=False)
    sequence: int | None = None
    refresh_hint: int | None = None
    tainted: frozenset[str] = frozenset()
    wit_authorities: Mapping[str, PublicKey] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, trust_domain: TrustDomain, document: str | bytes) -> Self:
        """Read a SPIFFE bundle document.

        Raises:
            InvalidBundle: larger than 1 MiB, not a JWK Set, or a number that is not one.
        """
        if len(document) > MAX_BUNDLE_BYTES:
            raise InvalidBundle(
                f"bundle has {len(document)} bytes, the limit is {MAX_BUNDLE_BYTES}"
            )
        try:
            value = parse_object(document)
        except NotStrictJson as error:
            raise InvalidBundle(f"bundle must be a JSON object: {error}") from error
        return cls.of_object(trust_domain, value)

    @classmethod
    def of_object(cls, trust_domain: TrustDomain, value: Mapping[str, Any]) -> Self:
        """Read a bundle that stands in another document, which has its own bound.

        Raises:
            InvalidBundle: not a JWK Set, or a number that is not one.
        """
        keys = value.get("keys")
        if not isinstance(keys, list):
            raise InvalidBundle("bundle must have the member 'keys', an array")
        x509_authorities: list[x509.Certificate] = []
        jwt_authorities: dict[str, PublicKey] = {}
        wit_authorities: dict[str, PublicKey] = {}
        entries = [jwk for jwk in keys if isinstance(jwk, dict)]
        kids = Counter(jwk["kid"] for jwk in entries if isinstance(jwk.get("kid"), str))
        for jwk in entries:
            match jwk.get("use"):
                case "x509-svid":
                    x509_authorities.extend(_x509_authority(jwk))
                case "jwt-svid":
                    jwt_authorities.update(_token_authority(jwk))
                case "wit-svid":
                    # Of two entries with one key id nobody can say which was meant (WIT-SVID §6.1).
                    found = _token_authority(jwk)
                    wit_authorities.update({k: v for k, v in found.items() if kids[k] == 1})
        return cls(
            trust_domain,
            tuple(x509_authorities),
            jwt_authorities,
            _whole_number(value, "spiffe_sequence"),
            _whole_number(value, "spiffe_refresh_hint"),
            _tainted(value),
            wit_authorities,
        )

    def to_json(self) -> str:
        """Write the SPIFFE bundle document."""
        document: dict[str, Any] = {
            "keys": [
                *(_x509_jwk(certificate) for certificate in self.x509_authorities),
                *(
                    {**jwk_of(key), "kid": kid, "use": use}
                    for use, authorities in (
                        ("jwt-svid", self.jwt_authorities),
                        ("wit-svid", self.wit_authorities),
                    )
                    for kid, key in authorities.items()
                ),
            ]
        }
        if self.sequence is not None:
            document["spiffe_sequence"] = self.sequence
        if self.refresh_hint is not None:
            document["spiffe_refresh_hint"] = self.refresh_hint
        if self.tainted:
            document[_TAINTED] = sorted(self.tainted)
        return json.dumps(document, separators=(",", ":"))

    @property
    def x509_pem(self) -> str:
        """The X.509 authorities as concatenated PEM."""
        return "".join(
            certificate.public_bytes(serialization.Encoding.PEM).decode()
            for certificate in self.x509_authorities
        )


def _x509_authority(jwk: Mapping[str, Any]) -> Sequence[x509.Certificate]:
    """The one CA certificate of an entry, or none where the entry cannot be used (§6.2)."""
    chain = jwk.get("x5c")
    if not isinstance(chain, list) or not chain or not isinstance(chain[0], str):
        return ()
    if jwk.get("kty") not in ("EC", "RSA"):
        return ()
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(chain[0], validate=True))
        check_public_key(certificate.public_key())
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        _read_in_full(certificate)
    except (*UNREADABLE, InvalidKey, x509.ExtensionNotFound):
        return ()
    return (certificate,) if constraints.value.ca else ()


def _read_in_full(certificate: x509.Certificate) -> None:
    """Read what is parsed only when it is asked for: a certificate that fails later fails here.

    Raises: one of ``UNREADABLE``.
    """
    for name in (certificate.subject, certificate.issuer):
        name.rfc4514_string()
    _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def _token_authority(jwk: Mapping[str, Any]) -> Mapping[str, PublicKey]:
    kid = jwk.get("kid")
    if not isinstance(kid, str) or not kid:
        return {}
    try:
        return {kid: key_of_jwk(jwk)}
    except InvalidKey:
        return {}


def _x509_jwk(certificate: x509.Certificate) -> dict[str, Any]:
    der = certificate.public_bytes(serialization.Encoding.DER)
    return {
        **jwk_of(check_public_key(certificate.public_key())),
        "use": "x509-svid",
        "x5c": [base64.b64encode(der).decode()],
    }


def _tainted(value: Mapping[str, Any]) -> frozenset[str]:
    ids = value.get(_TAINTED)
    if not isinstance(ids, list):
        return frozenset()
    known = (each for each in ids if isinstance(each, str) and _AUTHORITY_ID.fullmatch(each))
    return frozenset(islice(known, MAX_TAINTED))


def _whole_number(value: Mapping[str, Any], name: str) -> int | None:
    number = value.get(name)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MAX_SEQUENCE:
        raise InvalidBundle(f"bundle member {name!r} must be a whole number of at most 64 bits")
    return number

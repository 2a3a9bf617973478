"""Key identifiers of CAs: what a certificate says, and what follows from its key.

A fact about an authority is matched by key identifiers. What a certificate says of itself is its
signer's choice, so a CA is known by both: by the identifier it states, and by every one that can be
derived from its key.
"""

from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha1, sha256, sha384, sha512

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from accredit_credentials import der
from accredit_credentials.bundle import UNREADABLE

KEY_ID_BYTES = 20  # of a key identifier that is a shortened digest


def stated_key_id(certificate: x509.Certificate) -> bytes | None:
    """The subject key identifier; None where there is none that can be read."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except (x509.ExtensionNotFound, *UNREADABLE):
        return None
    return extension.value.digest


@lru_cache(maxsize=4096)  # few CAs, met again and again
def derived_key_ids(certificate: x509.Certificate) -> frozenset[bytes]:
    """The identifiers of its key by RFC 5280 §4.2.1.2 method 1 and RFC 7093 §2.

    Raises: one of ``UNREADABLE``, for a key that cannot be read.
    """
    whole = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return frozenset((*_digests(_key_bits(whole)), *_digests(whole)))


@lru_cache(maxsize=4096)  # as above
def known_as(certificate: x509.Certificate) -> frozenset[str]:
    """All identifiers that a CA is known by, stated or derived, in lower-case hexadecimal."""
    stated = stated_key_id(certificate)
    try:
        derived = derived_key_ids(certificate)
    except UNREADABLE:
        derived = frozenset()
    return frozenset(each.hex() for each in (*derived, *((stated,) if stated else ())))


def _digests(value: bytes) -> Iterator[bytes]:
    """The key identifiers of RFC 7093: in full, and the leftmost 160 bits."""
    for algorithm in (sha256, sha384, sha512):
        digest = algorithm(value).digest()
        yield from (digest, digest[:KEY_ID_BYTES])
    yield sha1(value, usedforsecurity=False).digest()


def _key_bits(spki: bytes) -> bytes:
    """The BIT STRING of a SubjectPublicKeyInfo, without the number of unused bits."""
    begin, end = der.read(spki, 0, len(spki), der.SEQUENCE)
    _, algorithm_end = der.read(spki, begin, end, der.SEQUENCE)
    begin, end = der.read(spki, algorithm_end, end, der.BIT_STRING)
    return spki[begin + 1 : end]

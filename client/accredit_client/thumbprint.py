"""The thumbprint by which a token names a certificate (RFC 8705 §3.1)."""

import hashlib

from accredit_credentials.keys import b64url


def certificate_thumbprint(der: bytes) -> str:
    """The claim ``x5t#S256``: base64url SHA-256 of the certificate in DER."""
    return b64url(hashlib.sha256(der).digest())

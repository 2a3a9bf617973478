"""The private key of a CA that was made elsewhere and given to the issuer, in a file.

It is read at the start and signs issuing CAs only. Nothing here writes or deletes the file: it
belongs to whoever gave it.
"""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from accredit_credentials.keys import PrivateKey
from accredit_issuer.errors import InvalidSettings
from accredit_issuer.keys.secret_files import read_guarded, read_passphrase

MAX_KEY_BYTES = 16 * 1024  # RSA 4096, encrypted, is below 4 KiB
_SETTING = "upstream.key_file"
_ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
_CLEAR = b"-----BEGIN PRIVATE KEY-----"


def load_given_key(file: Path, passphrase_file: Path | None) -> PrivateKey:
    """Read a key that signs certificates: PKCS#8 PEM, RSA or of an elliptic curve.

    Raises:
        InvalidSettings: unreadable, open to others, of another form, or not to be opened with this
            passphrase.
    """
    pem = read_guarded(_SETTING, file, MAX_KEY_BYTES)
    encrypted = _ENCRYPTED in pem
    if len(pem) > MAX_KEY_BYTES or not (encrypted or _CLEAR in pem):
        raise InvalidSettings(f"{_SETTING}: {file} is not a private key in PKCS#8 PEM")
    if encrypted and passphrase_file is None:
        raise InvalidSettings(f"{_SETTING}: {file} is encrypted: set upstream.passphrase_file")
    if not encrypted and passphrase_file is not None:
        raise InvalidSettings(
            f"{_SETTING}: {file} is not encrypted, and upstream.passphrase_file is set"
        )
    passphrase = (
        read_passphrase(passphrase_file, "upstream.passphrase_file") if passphrase_file else None
    )
    try:
        key = serialization.load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Without its cause, whose words could say something of the passphrase.
        raise InvalidSettings(f"{_SETTING}: {file} cannot be opened") from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise InvalidSettings(f"{_SETTING}: {file} must be an RSA key, or one of P-256 or P-384")
    return key

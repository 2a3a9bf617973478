"""Keys that sign once and are forgotten: for looking at a certificate before the real signature."""

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from accredit_credentials.keys import MIN_RSA_BITS, PrivateKey, PublicKey


def throwaway_key(like: PublicKey) -> PrivateKey:
    """A new key of the same kind, which nothing trusts and nobody keeps."""
    if isinstance(like, rsa.RSAPublicKey):
        return rsa.generate_private_key(65537, MIN_RSA_BITS)
    return ec.generate_private_key(like.curve)

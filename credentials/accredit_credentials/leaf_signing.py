"""The signature of a leaf: over the very bytes that were linted, and nothing else."""

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from accredit_credentials.leaf_der import SignedLeaf, certificate_of
from accredit_credentials.leaf_lint import LintedLeaf

_ECDSA_SHA256 = ec.ECDSA(hashes.SHA256())


def sign_leaf(linted: LintedLeaf, key: ec.EllipticCurvePrivateKey) -> SignedLeaf:
    """Sign; the bytes cannot change between the lint and the signature."""
    der = certificate_of(linted.tbs, key.sign(linted.tbs, _ECDSA_SHA256))
    return SignedLeaf(linted.template, linted.ca, der)

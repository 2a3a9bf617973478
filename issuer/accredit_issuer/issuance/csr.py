"""Certificate requests: the key, the proof of possession, and no wishes.

An SVID's contents follow from the attestation. A request is accepted for its key only; whatever it
asks for beyond that (a name, a usage, CA powers, any attribute) is refused rather than dropped in
silence; the subject alone, which tools must fill in, is not looked at. The key is judged before its
signature is checked: a huge key costs nothing.
"""

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import SignatureAlgorithmOID

from accredit_credentials.bundle import UNREADABLE
from accredit_credentials.errors import InvalidKey
from accredit_credentials.keys import PublicKey, check_public_key
from accredit_issuer.errors import Kind, Refusal

MAX_CSR_BYTES = 8 * 1024

_EXTENSION_REQUEST = x509.ObjectIdentifier("1.2.840.113549.1.9.14")  # RFC 2985 §5.4.2
_ECDSA = frozenset(
    {
        SignatureAlgorithmOID.ECDSA_WITH_SHA256,
        SignatureAlgorithmOID.ECDSA_WITH_SHA384,
        SignatureAlgorithmOID.ECDSA_WITH_SHA512,
    }
)


def public_key_of(csr_pem: str) -> PublicKey:
    """The key of a PKCS #10 request whose signature proves that the sender holds it.

    Raises:
        Refusal: too large, not a request, a key that is not accepted, a wrong signature, or a
            requested extension or other attribute.
    """
    if len(csr_pem) > MAX_CSR_BYTES:
        raise Refusal(
            Kind.MALFORMED, f"csr has {len(csr_pem)} characters, the limit is {MAX_CSR_BYTES}"
        )
    try:
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        key = check_public_key(csr.public_key())
    except InvalidKey as error:
        raise Refusal(Kind.MALFORMED, f"csr: {error}") from None
    except UNREADABLE:
        raise Refusal(Kind.MALFORMED, "csr must be a PKCS #10 request in PEM") from None
    if not _is_signed(csr, key):
        raise Refusal(Kind.MALFORMED, "csr is not signed by its own key")
    if wishes := _wishes(csr):
        raise Refusal(
            Kind.MALFORMED,
            f"csr must ask for nothing but its key, and asks for {wishes}: "
            "an SVID's contents follow from the attestation",
        )
    return key


def _is_signed(csr: x509.CertificateSigningRequest, key: PublicKey) -> bool:
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return csr.is_signature_valid
        # The same, without reading the key a second time.
        algorithm = csr.signature_hash_algorithm
        if algorithm is None or csr.signature_algorithm_oid not in _ECDSA:
            return False
        key.verify(csr.signature, csr.tbs_certrequest_bytes, ec.ECDSA(algorithm))
    except InvalidSignature:
        return False
    except UNREADABLE:
        return False
    return True


def _wishes(csr: x509.CertificateSigningRequest) -> str:
    try:
        extensions = [extension.oid.dotted_string for extension in csr.extensions]
        others = [
            attribute.oid.dotted_string
            for attribute in csr.attributes
            if attribute.oid != _EXTENSION_REQUEST
        ]
    except UNREADABLE:
        return "extensions or attributes that cannot be read"
    if extensions:
        return f"the extensions {', '.join(extensions)}"
    return f"the attributes {', '.join(others)}" if others else ""

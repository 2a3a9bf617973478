"""Certificate requests: the key, the proof of possession, and no wishes.

An SVID's contents follow from the attestation. A request is accepted for its key only; whatever it
asks for beyond that (a name, a usage, CA powers, any attribute) is refused rather than dropped in
silence; the subject alone, which tools must fill in, is not looked at. The key is judged before its
signature is checked: a huge key costs nothing.
"""

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import SignatureAlgorithmOID

from accredit_credentials import der
from accredit_credentials.bundle import UNREADABLE
from accredit_credentials.errors import InvalidCertificate, InvalidKey
from accredit_credentials.keys import P256_HEAD, P256_SIZE, PublicKey, SubjectKey, check_public_key
from accredit_issuer.errors import Kind, Refusal

MAX_CSR_BYTES = 8 * 1024

_EXTENSION_REQUEST = x509.ObjectIdentifier("1.2.840.113549.1.9.14")  # RFC 2985 §5.4.2
_ECDSA = {
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: ec.ECDSA(hashes.SHA256()),
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: ec.ECDSA(hashes.SHA384()),
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: ec.ECDSA(hashes.SHA512()),
}


def key_of_request(csr_pem: str) -> SubjectKey:
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
    return _subject_key(csr, key)


def _is_signed(csr: x509.CertificateSigningRequest, key: PublicKey) -> bool:
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return csr.is_signature_valid
        # The same, without reading the key a second time.
        algorithm = _ECDSA.get(csr.signature_algorithm_oid)
        if algorithm is None:
            return False
        key.verify(csr.signature, csr.tbs_certrequest_bytes, algorithm)
    except InvalidSignature:
        return False
    except UNREADABLE:
        return False
    return True


def _subject_key(csr: x509.CertificateSigningRequest, key: PublicKey) -> SubjectKey:
    """The key with its encoding: the request's own, where it is the one we would write."""
    request = csr.tbs_certrequest_bytes
    try:
        at, end = der.read(request, 0, len(request), der.SEQUENCE)
        _, at = der.read(request, at, end, der.INTEGER)
        _, begin = der.read(request, at, end, der.SEQUENCE)
        _, after = der.read(request, begin, end, der.SEQUENCE)
    except InvalidCertificate:  # the library reads some spellings that we do not write
        return SubjectKey.of(key)
    spki = request[begin:after]
    if len(spki) == P256_SIZE and spki.startswith(P256_HEAD):
        return SubjectKey(key, spki)
    return SubjectKey.of(key)


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

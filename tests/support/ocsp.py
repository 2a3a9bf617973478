"""OCSP requests of every shape, well-formed or not, and answers read without trusting them."""

from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from support.offline import Offline

from accredit_credentials import der
from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.errors import IssuerError
from accredit_issuer.revocation.ocsp import Answer, Question
from accredit_issuer.revocation.ocsp_answers import failed

SHA1 = hashes.SHA1()  # noqa: S303 (what OpenSSL asks with)
NONCE_OID = bytes.fromhex("06092b0601050507300102")
OTHER_OID = bytes.fromhex("06032a0304")
TRUE = bytes.fromhex("0101ff")


def request(
    leaf: x509.Certificate,
    ca: x509.Certificate,
    *,
    algorithm: hashes.HashAlgorithm = SHA1,
    nonce: bytes | None = None,
) -> bytes:
    """What an OCSP client sends."""
    builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, ca, algorithm)
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(Encoding.DER)


def cert_id(leaf: x509.Certificate, ca: x509.Certificate) -> bytes:
    """The CertID alone."""
    whole = request(leaf, ca)
    at, end = 0, len(whole)
    for _ in range(4):  # OCSPRequest, TBSRequest, requestList, Request
        at, end = der.read(whole, at, end, der.SEQUENCE)
    return whole[at:end]


def extension(value: bytes, oid: bytes = OTHER_OID, *, critical: bool = False) -> bytes:
    """One extension."""
    return der.sequence(oid, TRUE if critical else b"", der.tlv(der.OCTET_STRING, value))


def put_together(
    *cert_ids: bytes, single: bytes = b"", extensions: bytes = b"", before: bytes = b""
) -> bytes:
    """A request of parts that the library would not write."""
    alone = der.tlv(0xA0, der.sequence(single)) if single else b""
    requests = der.sequence(*(der.sequence(each, alone) for each in cert_ids))
    more = der.tlv(0xA2, der.sequence(extensions)) if extensions else b""
    return der.sequence(der.sequence(before, requests, more))


def status_of(answer: bytes) -> str:
    """``good``, ``revoked``, ``unknown``; or the failure, such as ``unauthorized``."""
    read = ocsp.load_der_ocsp_response(answer)
    if read.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return read.response_status.name.lower()
    return read.certificate_status.name.lower()


def nonce_of(answer: ocsp.OCSPResponse) -> bytes | None:
    """The nonce of an answer."""
    try:
        return answer.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    except x509.ExtensionNotFound:
        return None


def verified(answer: bytes, ca: x509.Certificate) -> Any:
    """The answer, once its responder is proved to be the CA's and its signature the responder's."""
    read = ocsp.load_der_ocsp_response(answer)
    (responder,) = read.certificates
    responder.verify_directly_issued_by(ca)
    usages = responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [x509.oid.ExtendedKeyUsageOID.OCSP_SIGNING]
    key: Any = responder.public_key()
    algorithm = read.signature_hash_algorithm
    assert algorithm is not None
    key.verify(read.signature, read.tbs_response_bytes, ec.ECDSA(algorithm))
    assert read.responder_key_hash == x509.SubjectKeyIdentifier.from_public_key(key).digest
    return read


def authority_of(svid: X509Svid) -> str:
    """The key id of who signed it."""
    mark = next(mark for mark in svid.marks() if mark.startswith("authority:"))
    return mark.partition(":")[2]


def ask(offline: Offline, svid: X509Svid, **how: Any) -> Answer:
    """What is answered to a question about an SVID."""
    return ask_with(offline, authority_of(svid), request(svid.leaf, svid.intermediates[0], **how))


def ask_with(offline: Offline, authority: str, unverified: bytes) -> Answer:
    """The same, to a request as it is."""
    try:
        return answered(offline, authority, Question.parse(unverified))
    except IssuerError as error:
        return failed(error)


def answered(offline: Offline, authority: str, question: Question) -> Answer:
    """The same, to a question, as the API does it."""
    try:
        kept = offline.issuer.ocsp.kept(authority, question)
        return kept or offline.issuer.ocsp.answer(authority, question)
    except IssuerError as error:
        return failed(error)


def status(offline: Offline, svid: X509Svid) -> str:
    """The status of an SVID, by an answer that verifies."""
    answer = ask(offline, svid)
    if answer.this_update is not None:
        verified(answer.der, svid.intermediates[0])
    return status_of(answer.der)


def responder_of(answer: Answer) -> x509.Certificate:
    """Who signed an answer."""
    (certificate,) = ocsp.load_der_ocsp_response(answer.der).certificates
    return certificate

"""Certificate requests: a key and the proof that it is held, nothing else, at little cost."""

import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID
from support.judges import openssl

from accredit_client.calls import certificate_request
from accredit_credentials.keys import SubjectKey, generate_key
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.csr import MAX_CSR_BYTES, key_of_request

# Big keys take minutes to make and are only ever read: any odd number of the size will do.
_BIG = {bits: (1 << (bits - 1)) | 1 for bits in (8192, 16384)}


def request(key: Any, *extensions: x509.ExtensionType, subject: x509.Name | None = None) -> str:
    """A request of ``key`` that wishes for ``extensions``."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject or x509.Name([]))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode()


def pem(der: bytes) -> str:
    """Any bytes as a request in PEM."""
    import base64  # noqa: PLC0415 (used here only)

    body = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"


def der_of(text: str) -> bytes:
    """A request's bytes."""
    return x509.load_pem_x509_csr(text.encode()).public_bytes(serialization.Encoding.DER)


def der(tag: int, *parts: bytes) -> bytes:
    """One DER value."""
    content = b"".join(parts)
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + content


def huge_rsa_request(bits: int) -> str:
    """A request with an RSA key of any size, signed by nobody."""
    public = rsa.RSAPublicNumbers(65537, _BIG[bits]).public_key()
    spki = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    info = der(0x30, der(0x02, b"\0"), der(0x30), spki, der(0xA0))
    sha256_with_rsa = bytes.fromhex("300d06092a864886f70d01010b0500")
    return pem(der(0x30, info, sha256_with_rsa, der(0x03, b"\0" + b"\1" * (bits // 8))))


@pytest.mark.parametrize(
    "key",
    [
        generate_key(),
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-256", "P-384", "RSA-2048"],
)
def test_an_accepted_key_comes_back(key: Any) -> None:
    """P-256, P-384 and RSA 2048 are accepted, with or without a subject that nobody looks at."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin")])
    for text in (request(key), request(key, subject=name)):
        assert key_of_request(text) == SubjectKey.of(key.public_key())


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP521R1()),
        ec.generate_private_key(ec.SECP256K1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 1024),  # noqa: S505 (the point)
        rsa.generate_private_key(3, 2048),
    ],
    ids=["P-521", "secp256k1", "Ed25519", "RSA-1024", "RSA e=3"],
)
def test_another_key_is_refused_by_its_kind(key: Any) -> None:
    """Every other curve, kind, size and exponent is refused, and the text says what is not."""
    with pytest.raises(Refusal, match="csr: ") as refused:
        key_of_request(request(key))
    assert refused.value.kind is Kind.MALFORMED


@pytest.mark.parametrize("bits", _BIG)
def test_a_huge_key_costs_nothing(bits: int) -> None:
    """RSA keys of 8192 and 16384 bits are refused before a signature is checked with them."""
    text = huge_rsa_request(bits)
    assert len(text) < MAX_CSR_BYTES
    begin = time.thread_time()
    for _ in range(50):
        with pytest.raises(Refusal, match=f"{bits} bits"):
            key_of_request(text)
    assert time.thread_time() - begin < 0.5


WISHES: dict[str, x509.ExtensionType] = {
    "CA powers": x509.BasicConstraints(ca=True, path_length=None),
    "a name": x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier("spiffe://example.org/admin/first")]
    ),
    "a DNS name": x509.SubjectAlternativeName([x509.DNSName("localhost")]),
    "a usage": x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]),
    "anything": x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x30\x00"),
    "an empty sequence": x509.UnrecognizedExtension(
        x509.ObjectIdentifier("2.5.29.37"), b"\x30\x00"
    ),
    "an empty SAN": x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"\x30\x00"),
    "no bytes at all": x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b""),
}


@pytest.mark.parametrize("wish", WISHES.values(), ids=WISHES)
def test_a_wish_is_refused_and_not_dropped(wish: x509.ExtensionType) -> None:
    """A request that asks for any extension, readable or not, is refused."""
    with pytest.raises(Refusal, match="asks for"):
        key_of_request(request(generate_key(), wish))


UNKNOWN = x509.ObjectIdentifier("1.2.3.4")
ATTRIBUTES = {
    "challengePassword": (AttributeOID.CHALLENGE_PASSWORD, b"secret"),
    "unstructuredName": (AttributeOID.UNSTRUCTURED_NAME, b"name"),
    "anything": (UNKNOWN, b"x"),
}


@pytest.mark.parametrize(("oid", "value"), ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_an_attribute_is_refused_and_not_dropped(oid: x509.ObjectIdentifier, value: bytes) -> None:
    """A request with any attribute, known or not, is refused by its name and not by its value."""
    key = generate_key()
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    made = builder.add_attribute(oid, value).sign(key, hashes.SHA256())
    with pytest.raises(Refusal, match=f"attributes {oid.dotted_string}") as refused:
        key_of_request(made.public_bytes(serialization.Encoding.PEM).decode())
    assert "secret" not in refused.value.detail


def test_a_plain_request_of_openssl_is_accepted(tmp_path: Path) -> None:
    """``openssl req -new`` asks for a key and nothing else, and with a password it is refused."""
    key, config = tmp_path / "key.pem", tmp_path / "openssl.cnf"
    private = generate_key()
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    plain = openssl("req", "-new", "-key", key, "-subj", "/CN=agent")
    assert plain.accepted
    assert key_of_request(plain.text) == SubjectKey.of(private.public_key())
    config.write_text(
        "[req]\nprompt = no\ndistinguished_name = name\nattributes = more\n"
        "[name]\nCN = agent\n[more]\nchallengePassword = secret\n"
    )
    more = openssl("req", "-new", "-key", key, "-config", config)
    assert more.accepted
    with pytest.raises(Refusal, match="attributes"):
        key_of_request(more.text)


def test_an_empty_extension_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """An extensionRequest without a single extension, or without a value, crashes nothing."""
    key = generate_key()
    plain = der_of(certificate_request(key))
    oid = bytes.fromhex("06092a864886f70d01090e")
    for values in (der(0x31, der(0x30)), der(0x31), der(0x31, der(0x30, der(0x30)))):
        attributes = der(0xA0, der(0x30, oid, values))
        spki = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        info = der(0x30, der(0x02, b"\0"), der(0x30), spki, attributes)
        signature = key.sign(info, ec.ECDSA(hashes.SHA256()))
        text = pem(
            der(0x30, info, bytes.fromhex("300a06082a8648ce3d040302"), der(0x03, b"\0" + signature))
        )
        try:
            assert key_of_request(text) == SubjectKey.of(key.public_key())
        except Refusal as refusal:
            assert refusal.kind is Kind.MALFORMED  # noqa: PT017 (either answer will do)
    assert plain


def test_the_key_must_have_signed() -> None:
    """A request with one bit changed anywhere, or with another's signature, is refused."""
    key, other = generate_key(), generate_key()
    ours, theirs = der_of(certificate_request(key)), der_of(certificate_request(other))
    info = x509.load_der_x509_csr(ours).tbs_certrequest_bytes
    # How many of the signature's last bits do not count: says nothing, and is signed by nobody.
    spare_bits = ours.index(info) + len(info) + 12 + 2
    for at in set(range(len(ours))) - {spare_bits}:
        changed = ours[:at] + bytes([ours[at] ^ 1]) + ours[at + 1 :]
        with pytest.raises(Refusal):
            key_of_request(pem(changed))
    swapped = der(0x30, info, theirs[4 + len(info) - 1 :])
    with pytest.raises(Refusal):
        key_of_request(pem(swapped))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0",
        "\ud800",
        "-----BEGIN CERTIFICATE REQUEST-----",
        pem(b""),
        pem(b"\x30\x00"),
        pem(b"\x30\x80" * 500),
        pem(b"\x30\x84\xff\xff\xff\xff"),
        certificate_request(generate_key()).replace("REQUEST", ""),
        "A" * (MAX_CSR_BYTES + 1),
        certificate_request(generate_key()) + "\n" * MAX_CSR_BYTES,
    ],
)
def test_garbage_is_malformed(text: str) -> None:
    """Whatever is not a request is refused as malformed, at any length."""
    with pytest.raises(Refusal) as refused:
        key_of_request(text)
    assert refused.value.kind is Kind.MALFORMED

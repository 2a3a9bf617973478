"""Floors: the arithmetic that no issuer can do without, by stock libraries, on one core."""

import hashlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from rows import Floors, Row, milliseconds

ROUNDS = 100
FSYNCS = 60


def seconds_each(work: Callable[[], object], *, number: int = 10) -> float:
    """Seconds that one call takes: the fastest of many short rounds.

    A round is shorter than a slice of the scheduler: what neighbours do is in the slow ones.
    """
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(number):
            work()
        best = min(best, (time.perf_counter() - started) / number)
    return best


def stock_leaf() -> Callable[[], x509.Certificate]:
    """Check a CSR, then build and sign a leaf with the extensions of an SVID."""
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    subject = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "floor")])
    csr_pem = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    extended = x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    )
    name = x509.UniformResourceIdentifier("spiffe://example.org/ns/support/agent/triage")
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    now = datetime.now(UTC)

    def work() -> x509.Certificate:
        csr = x509.load_pem_x509_csr(csr_pem)
        assert csr.is_signature_valid
        public_key = csr.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(extended, critical=False)
            .add_extension(authority, critical=False)
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
        )
        return builder.sign(ca_key, hashes.SHA256())

    return work


def stock_jwt() -> Callable[[], str]:
    """Sign a JWT of the size of a task token with PyJWT."""
    key = ec.generate_private_key(ec.SECP256R1())
    claims = {"iss": "https://localhost:8443", "sub": "spiffe://example.org/a", "pad": "x" * 600}
    return lambda: jwt.encode(claims, key, algorithm="ES256", headers={"kid": "k" * 40})


def bare_verify() -> Callable[[], None]:
    """Verify one P-256 signature over 32 bytes."""
    key = ec.generate_private_key(ec.SECP256R1())
    signature = key.sign(b"x" * 32, ec.ECDSA(hashes.SHA256()))
    public, algorithm = key.public_key(), ec.ECDSA(hashes.SHA256())
    return lambda: public.verify(signature, b"x" * 32, algorithm)


def measure_floors() -> Floors:
    """All floors that other figures stand on."""
    return Floors(
        x509=seconds_each(stock_leaf()),
        jwt=seconds_each(stock_jwt()),
        p256_verify=seconds_each(bare_verify()),
    )


def rows_of(floors: Floors, folder: Path) -> Iterator[Row]:
    """The floors, and two properties of the machine."""
    yield Row(name="floor.x509", value=floors.x509 * 1e6, unit="us", note="CSR check, build, sign")
    yield Row(name="floor.jwt", value=floors.jwt * 1e6, unit="us", note="ES256 by PyJWT")
    yield Row(name="floor.verify", value=floors.p256_verify * 1e6, unit="us", note="bare P-256")
    block = b"x" * 1024
    sha = seconds_each(lambda: hashlib.sha256(block).digest())
    yield Row(name="floor.sha256_1k", value=sha * 1e6, unit="us")
    times = [fsync(folder / "fsync") for _ in range(FSYNCS)]
    yield Row(
        name="floor.fsync",
        value=statistics.median(times) * 1e6,
        unit="us",
        note="4 KiB appended and synced: each issue waits for two of them",
        **milliseconds(times),
    )


def fsync(file: Path) -> float:
    """Seconds to append 4 KiB and have them on the disk."""
    with file.open("ab") as stream:
        started = time.perf_counter()
        stream.write(b"x" * 4096)
        stream.flush()
        os.fsync(stream.fileno())
        return time.perf_counter() - started

"""A site's own CA, which certifies hosts; nothing of Accredit knows how."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)
CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)


class SiteCa:
    """A CA with its key; valid for ten days around ``now``."""

    def __init__(self, now: datetime, *, name: str = "site", below: "SiteCa | None" = None) -> None:
        self.now = now
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        above = below or self
        builder = (
            self._builder(self.name, above, self.key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs=True), critical=True)
        )
        self.certificate = builder.sign(above.key, hashes.SHA256())

    @property
    def pem(self) -> str:
        """Its certificate."""
        return pem_of(self.certificate)

    def host(
        self,
        name: str = "build-7.site.example",
        *,
        key: Any = None,
        usages: Iterable[x509.ObjectIdentifier] | None = CLIENT,
        names: Iterable[x509.GeneralName] | None = None,
        not_after: datetime | None = None,
        ca: bool = False,
    ) -> tuple[Any, x509.Certificate]:
        """A host's key and certificate, with any deviation asked for."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        found = [x509.DNSName(name)] if names is None else list(names)
        builder = (
            self._builder(subject, self, key.public_key(), not_after)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(_usage(signs=ca), critical=True)
        )
        if found:
            builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=False)
        if usages is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
        return key, builder.sign(self.key, hashes.SHA256())

    def _builder(
        self, subject: x509.Name, above: "SiteCa", key: Any, not_after: datetime | None = None
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(above.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - 5 * DAY)
            .not_valid_after(not_after or self.now + 5 * DAY)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(above.key.public_key()),
                critical=False,
            )
        )


def pem_of(certificate: x509.Certificate) -> str:
    """A certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def key_pem_of(key: Any) -> str:
    """A private key as PEM, in clear."""
    return str(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )

"""A CA that somebody else made: its chain and its key, in files as an operator gets them.

``given_chain`` makes a root and what is below it; each fault that a test asks for is in one of the
certificates, and everything else stays good.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from support.authority import key_usage
from support.clock import NOW

from accredit_credentials.keys import PrivateKey

YEAR = timedelta(days=365)
Changes = dict[str, Any]


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """An RSA key."""
    return rsa.generate_private_key(65537, bits)


def p256() -> ec.EllipticCurvePrivateKey:
    """A P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Given:
    """A CA and those above it: certificates and keys, the CA first."""

    certificates: tuple[x509.Certificate, ...]
    keys: tuple[PrivateKey, ...] = field(repr=False)

    @property
    def key(self) -> PrivateKey:
        """The CA's own."""
        return self.keys[0]

    @property
    def root(self) -> x509.Certificate:
        """What verifiers are to trust."""
        return self.certificates[-1]

    @property
    def pem(self) -> str:
        """All certificates."""
        return "".join(
            each.public_bytes(serialization.Encoding.PEM).decode() for each in self.certificates
        )

    def write(self, folder: Path, *, passphrase: bytes | None = None) -> dict[str, Any]:
        """Write the files; returns the settings that name them."""
        folder.mkdir(exist_ok=True)
        files = {"certificate_file": folder / "ca.pem", "key_file": folder / "ca.key"}
        files["certificate_file"].write_text(self.pem)
        encryption: Any = serialization.NoEncryption()
        if passphrase is not None:
            encryption = serialization.BestAvailableEncryption(passphrase)
            files["passphrase_file"] = folder / "ca.passphrase"
            files["passphrase_file"].touch(mode=0o600)
            files["passphrase_file"].write_bytes(passphrase)
        files["key_file"].unlink(missing_ok=True)
        files["key_file"].touch(mode=0o600)
        files["key_file"].write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
            )
        )
        return {"kind": "files", **{name: str(file) for name, file in files.items()}}


def given_chain(*changes: Changes, keys: Sequence[PrivateKey] = (), now: datetime = NOW) -> Given:
    """A chain, the CA first; ``changes`` has one dictionary a certificate, none for a lone root.

    Known changes: ``begin``, ``end``, ``path_length``, ``ca``, ``critical``, ``usage``,
    ``subject``, ``digest``, ``signer`` (a key), ``aki`` (whether it names the right key),
    ``without`` (extension classes), ``add`` (extensions with whether they are critical).
    """
    changes = changes or ({},)
    keys = keys or [p256() for _ in changes]
    made: list[x509.Certificate] = []
    for place in reversed(range(len(changes))):
        above = place + 1 if place + 1 < len(changes) else place
        issuer = made[0] if made else None
        made.insert(0, _certificate(place, changes[place], keys[place], keys[above], issuer, now))
    return Given(tuple(made), tuple(keys))


def _certificate(  # noqa: PLR0917 (what a certificate is made of)
    place: int,
    change: Changes,
    key: PrivateKey,
    signer: PrivateKey,
    issuer: x509.Certificate | None,
    now: datetime,
) -> x509.Certificate:
    subject = change.get(
        "subject", x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Corporate {place}")])
    )
    ca = change.get("ca", True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    of_issuer = (
        issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        if issuer and change.get("aki", True)
        else identifier
    )
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (
            x509.BasicConstraints(ca=ca, path_length=change.get("path_length") if ca else None),
            change.get("critical", True),
        ),
        (key_usage(*change.get("usage", ("key_cert_sign", "crl_sign"))), True),
        (identifier, False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(of_issuer), False),
        *change.get("add", ()),
    ]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(1000 + place)
        .not_valid_before(change.get("begin", now - YEAR))
        .not_valid_after(change.get("end", now + 5 * YEAR))
    )
    for value, critical in extensions:
        if not isinstance(value, tuple(change.get("without", ()))):
            builder = builder.add_extension(value, critical=critical)
    return builder.sign(change.get("signer", signer), change.get("digest", hashes.SHA256()))

"""A trust domain in the hands of a test: real keys, real signatures, any deviation asked for.

``Authority`` has a root, an issuing CA below it, a JWT key and a WIT key, and issues SVIDs at
``NOW``.
``deviating`` signs a certificate again with something changed: the failing twin of a good one.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from accredit_credentials.bundle import TrustBundle
from accredit_credentials.keys import PrivateKey, SubjectKey, generate_key
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain
from accredit_credentials.x509_svid import X509Identity, X509Svid
from accredit_credentials.x509_template import CaTemplate, LeafTemplate, ca_builder, leaf_builder

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
INSTANCE = "0b8f7c1e-5a44-4c0e-9d3a-2f6f1f0a7b11"
MANIFEST = "sha256:" + "5e" * 32

Extension = tuple[x509.ExtensionType, bool]
"""A value, and whether it is critical."""


@dataclass(frozen=True)
class Signer:
    """A certificate together with the key that signs in its name."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False, default_factory=generate_key)

    def sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        """Sign what was built."""
        return builder.sign(self.key, hashes.SHA256())


class Authority:
    """The authorities of one trust domain, and the bundle that names them."""

    def __init__(self, trust_domain: str = "example.org", *, now: datetime = NOW) -> None:
        self.trust_domain = TrustDomain.parse(trust_domain)
        self.now = now
        self.root = self.ca(common_name=f"{trust_domain} root")
        self.issuing = self.ca(below=self.root, path_length=0, common_name="issuing")
        self.jwt_key = generate_key()
        self.kid = "6a77742d31"
        self.wit_key = generate_key()
        self.wit_kid = "7769742d31"
        self._serial = 1000

    @property
    def bundle(self) -> TrustBundle:
        """What others hold of this trust domain."""
        return TrustBundle(
            self.trust_domain,
            (self.root.certificate,),
            {self.kid: self.jwt_key.public_key()},
            sequence=1,
            refresh_hint=300,
        )

    @property
    def bundle_with_wits(self) -> TrustBundle:
        """The same of a trust domain that issues WIT-SVIDs, too."""
        return replace(self.bundle, wit_authorities={self.wit_kid: self.wit_key.public_key()})

    @property
    def bundles(self) -> dict[TrustDomain, TrustBundle]:
        """The bundle by its trust domain, as validators take it."""
        return {self.trust_domain: self.bundle}

    def id(self, path: str = "/ns/support/agent/triage") -> SpiffeId:
        """A SPIFFE ID of this trust domain."""
        return SpiffeId(self.trust_domain, path)

    def ca(
        self, *, below: Signer | None = None, key: PrivateKey | None = None, **fields: Any
    ) -> Signer:
        """A CA: self-signed, or below another; ``fields`` are those of ``CaTemplate``."""
        key = key or generate_key()
        template = CaTemplate(
            trust_domain=fields.pop("trust_domain", self.trust_domain),
            common_name=fields.pop("common_name", "CA"),
            public_key=key.public_key(),
            serial=fields.pop("serial", 7),
            not_before=fields.pop("not_before", self.now - 24 * HOUR),
            not_after=fields.pop("not_after", self.now + 24 * HOUR),
            path_length=fields.pop("path_length", None),
            issuer=below.certificate if below else None,
        )
        signed = below.key if below else key
        certificate = ca_builder(replace(template, **fields)).sign(signed, hashes.SHA256())
        return Signer(certificate, key)

    def template(self, spiffe_id: SpiffeId | None = None, **fields: Any) -> LeafTemplate:
        """What a good leaf of this trust domain says; ``fields`` are those of ``LeafTemplate``."""
        self._serial += 1
        good = LeafTemplate(
            spiffe_id=spiffe_id or self.id(),
            subject_key=fields.pop("subject_key", None)
            or SubjectKey.of(generate_key().public_key()),
            serial=self._serial,
            not_before=self.now - timedelta(seconds=10),
            not_after=self.now + HOUR,
            instance=INSTANCE,
            manifest=MANIFEST,
        )
        return replace(good, **fields)

    def issue(
        self,
        spiffe_id: SpiffeId | None = None,
        *,
        key: PrivateKey | None = None,
        signer: Signer | None = None,
        chain: tuple[x509.Certificate, ...] | None = None,
        without: Collection[type[x509.ExtensionType]] = (),
        extensions: Iterable[Extension] = (),
        subject: x509.Name | None = None,
        **fields: Any,
    ) -> X509Identity:
        """Issue an SVID and its key; nothing checks it, so that it may deviate.

        Args:
            spiffe_id: whose; an agent's where absent.
            key: the key to certify; a new one where absent.
            signer: who signs; the issuing CA where absent.
            chain: what is sent after the leaf; the signer's certificate where absent.
            without: extensions to leave out.
            extensions: extensions to add, or to put in the place of those of the same kind.
            subject: another subject.
            fields: other values of the ``LeafTemplate``.
        """
        key = key or generate_key()
        signer = signer or self.issuing
        template = self.template(spiffe_id, subject_key=SubjectKey.of(key.public_key()), **fields)
        leaf = deviating(
            signer.sign(leaf_builder(template, signer.certificate)),
            signer,
            without=without,
            extensions=extensions,
            subject=subject,
        )
        chain = (signer.certificate,) if chain is None else chain
        return X509Identity(X509Svid(template.spiffe_id, leaf, chain), key)


def deviating(
    certificate: x509.Certificate,
    signer: Signer,
    *,
    without: Collection[type[x509.ExtensionType]] = (),
    extensions: Iterable[Extension] = (),
    subject: x509.Name | None = None,
) -> x509.Certificate:
    """The same certificate, signed again by ``signer`` with extensions or subject changed."""
    added = list(extensions)
    gone = {value.oid for value, _ in added} | {kind.oid for kind in without}
    kept = [(e.value, e.critical) for e in certificate.extensions if e.oid not in gone]
    builder = (
        x509.CertificateBuilder()
        .subject_name(certificate.subject if subject is None else subject)
        .issuer_name(certificate.issuer)
        .public_key(certificate.public_key())
        .serial_number(certificate.serial_number)
        .not_valid_before(certificate.not_valid_before_utc)
        .not_valid_after(certificate.not_valid_after_utc)
    )
    for value, critical in (*kept, *added):
        builder = builder.add_extension(value, critical=critical)
    return signer.sign(builder)


def uri_san(*uris: str) -> x509.SubjectAlternativeName:
    """A SAN of these URIs and nothing else."""
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])


def key_usage(*names: str) -> x509.KeyUsage:
    """A key usage with these bits, by the names of ``x509.KeyUsage``."""
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in names for name in every})


def raw_extension(oid: x509.ObjectIdentifier, der: bytes) -> x509.UnrecognizedExtension:
    """An extension of any bytes, such as an empty sequence."""
    return x509.UnrecognizedExtension(oid, der)

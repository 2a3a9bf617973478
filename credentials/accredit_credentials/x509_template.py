"""What is to be certified, written down before anything is signed.

``LeafTemplate`` and ``CaTemplate`` say everything about a certificate except the signature;
``leaf_builder`` and ``ca_builder`` turn them into the library's builders; ``check_signed_leaf``
compares what was signed with what was meant. Whether a template may be signed at all is decided by
the issuer's profile, not here.
"""

from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_network

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from accredit_credentials.errors import InvalidCertificate
from accredit_credentials.keys import PublicKey, SubjectKey
from accredit_credentials.reach import namespace_attributes
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain
from accredit_credentials.x509_svid import X509Svid


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafTemplate:
    """A leaf SVID to be signed.

    Attributes:
        spiffe_id: with a path.
        subject_key: the key of the one who asked, which proved possession of it.
        serial: positive, at most 20 octets (RFC 5280 §4.1.2.2).
        not_before: with time zone, whole seconds.
        not_after: with time zone, whole seconds.
        instance: a UUID, written into the subject's serialNumber.
        manifest: ``sha256:<hex>``, written into the subject's dnQualifier; None for what is not
            an agent.
        dns_names: further names of a server; only the issuer's own SVID has them.
        crl_url: where the CRL that covers it is found, if anywhere (RFC 5280 §4.2.1.13).
        ocsp_url: where its status is asked for, if anywhere (RFC 5280 §4.2.2.1).
    """

    spiffe_id: SpiffeId
    subject_key: SubjectKey = field(repr=False)
    serial: int
    not_before: datetime
    not_after: datetime
    instance: str
    manifest: str | None = None
    dns_names: tuple[str, ...] = ()
    crl_url: str | None = None
    ocsp_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaTemplate:
    """A signing certificate: a root where ``issuer`` is absent, otherwise a CA below it.

    Attributes:
        namespaces: that the CA is limited to (``reach``); none is no limit.
        dns_names: the only DNS names below it, themselves and all that is below them, and no IP
            address; None is no limit (RFC 5280 §4.2.1.10).
    """

    trust_domain: TrustDomain
    common_name: str
    public_key: PublicKey = field(repr=False)
    serial: int
    not_before: datetime
    not_after: datetime
    path_length: int | None
    issuer: x509.Certificate | None = field(default=None, repr=False)
    namespaces: tuple[str, ...] = ()
    dns_names: tuple[str, ...] | None = None


def leaf_builder(template: LeafTemplate, issuer: x509.Certificate) -> x509.CertificateBuilder:
    """The builder of a leaf SVID below ``issuer`` (X509-SVID §2 to §4)."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(_leaf_subject(template))
        .issuer_name(issuer.subject)
        .public_key(template.subject_key.key)
        .serial_number(template.serial)
        .not_valid_before(template.not_before)
        .not_valid_after(template.not_after)
    )
    for extension, critical in _leaf_extensions(template, issuer):
        builder = builder.add_extension(extension, critical=critical)
    return builder


def ca_builder(template: CaTemplate) -> x509.CertificateBuilder:
    """The builder of a signing certificate (X509-SVID §3.2, §4.1, §4.3)."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, template.common_name),
            *namespace_attributes(template.namespaces),
        ]
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(template.public_key)
    issuer = template.issuer
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(template.public_key)
        .serial_number(template.serial)
        .not_valid_before(template.not_before)
        .not_valid_after(template.not_after)
        .add_extension(
            x509.BasicConstraints(ca=True, path_length=template.path_length), critical=True
        )
        .add_extension(_CA_USAGE, critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            _authority_key_identifier(issuer)
            if issuer
            else x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier(str(template.trust_domain.id))]
            ),
            critical=False,
        )
    )
    if template.dns_names is None:
        return builder
    return builder.add_extension(_constraints(template.dns_names), critical=True)


def check_signed_leaf(
    signed: x509.Certificate, template: LeafTemplate, issuer: x509.Certificate
) -> X509Svid:
    """Compare what was signed with what was meant, field by field, extension by extension.

    Returns the chain that is released: the leaf and its issuing CA.

    Raises:
        InvalidCertificate: anything differs; the message names the fields.
    """
    # Equal extensions say everything else too: the SPIFFE ID, the usages, that it is no CA.
    holds = {
        "version": signed.version is x509.Version.v3,
        "issuer": signed.issuer == issuer.subject,
        "subject": signed.subject == _leaf_subject(template),
        "serial number": signed.serial_number == template.serial,
        "notBefore": signed.not_valid_before_utc == template.not_before,
        "notAfter": signed.not_valid_after_utc == template.not_after,
        "public key": signed.public_key() == template.subject_key.key,
        "extensions": [(extension.value, extension.critical) for extension in signed.extensions]
        == _leaf_extensions(template, issuer),
    }
    wrong = ", ".join(name for name, same in holds.items() if not same)
    if wrong:
        raise InvalidCertificate(f"the signed certificate differs from its template in: {wrong}")
    return X509Svid(template.spiffe_id, signed, (issuer,))


def subject_key_id(certificate: x509.Certificate) -> str:
    """The key identifier of a CA, in lower-case hexadecimal."""
    return _key_identifier(certificate).hex()


def _leaf_extensions(
    template: LeafTemplate, issuer: x509.Certificate
) -> list[tuple[x509.ExtensionType, bool]]:
    """Every extension of the leaf and whether it is critical, in order."""
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(template.spiffe_id))]
    names += [x509.DNSName(name) for name in template.dns_names]
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (_LEAF_USAGE, True),
        (_LEAF_EXTENDED_USAGE, False),
        (_NOT_A_CA, True),
        (x509.SubjectKeyIdentifier.from_public_key(template.subject_key.key), False),
        (_authority_key_identifier(issuer), False),
        (x509.SubjectAlternativeName(names), False),
    ]
    if template.crl_url is not None:
        url = x509.UniformResourceIdentifier(template.crl_url)
        point = x509.DistributionPoint([url], None, None, None)
        extensions.append((x509.CRLDistributionPoints([point]), False))
    if template.ocsp_url is not None:
        location = x509.UniformResourceIdentifier(template.ocsp_url)
        access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, location)
        extensions.append((x509.AuthorityInformationAccess([access]), False))
    return extensions


def _leaf_subject(template: LeafTemplate) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.SERIAL_NUMBER, template.instance)]
    if template.manifest is not None:
        attributes.append(x509.NameAttribute(NameOID.DN_QUALIFIER, template.manifest))
    return x509.Name(attributes)


def _constraints(dns_names: tuple[str, ...]) -> x509.NameConstraints:
    # Not the host of URIs: half of the field's libraries cannot read that, and refuse or skip it.
    permitted = [x509.DNSName(name) for name in dns_names]
    return x509.NameConstraints(
        permitted_subtrees=permitted or None,
        excluded_subtrees=[*([] if permitted else [x509.DNSName("")]), *_EVERY_ADDRESS],
    )


_EVERY_ADDRESS = [x509.IPAddress(ip_network(each)) for each in ("0.0.0.0/0", "::/0")]


@lru_cache(maxsize=16)  # an issuer signs with very few CAs, very often
def _key_identifier(certificate: x509.Certificate) -> bytes:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        raise InvalidCertificate("signing certificate must have a subjectKeyIdentifier") from None
    return extension.value.digest


def _authority_key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier(_key_identifier(issuer), None, None)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


_LEAF_USAGE = _usage(signs_certificates=False)
_CA_USAGE = _usage(signs_certificates=True)
_LEAF_EXTENDED_USAGE = x509.ExtendedKeyUsage(
    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
)
_NOT_A_CA = x509.BasicConstraints(ca=False, path_length=None)

"""Proof of possession of a certificate of the site's own CA.

For hosts that a site certifies already (by its configuration management, its PKI, its TPM
enrolment). Decides, in this order: the leaf and those between it and the CA are few and small → no
key in them is one that is slow to check → the leaf's key signed the challenge → the chain leads to
the CA that this node was listed with, at this moment, for TLS clients → the leaf is the very one
that was named for this node.

A CA certifies many hosts, so the CA alone names none. An admin says which certificate is the
node's, by exactly one of

    dns:<name>           a DNS name in the leaf's subject alternative names, compared as a whole
    uri:<uri>            a URI there, compared as a whole
    subject:<name>       the whole subject (RFC 4514 text, most specific part first)
    key:sha256:<hex>     the digest of the leaf's public key (DER SubjectPublicKeyInfo)

and without one no certificate is. The leaf must have the extended key usage clientAuth, said and
not implied: a site's server certificates, which get names of others more easily, prove nothing.
What the site revoked is not asked for: end a stolen certificate by ``revoke node``.
"""

import re
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from accredit_attestors import possession
from accredit_attestors.contract import Evidence
from accredit_attestors.errors import CannotCollect, CertificateRefused, InvalidEvidence, shown
from accredit_attestors.files import read_small_file
from accredit_attestors.nodes.contract import (
    NodeAttested,
    NodeCollectContext,
    NodeVerifyContext,
)
from accredit_attestors.possession import Challenge
from accredit_credentials.bundle import UNREADABLE
from accredit_credentials.errors import InvalidKey
from accredit_credentials.keys import (
    PrivateKey,
    PublicKey,
    b64url,
    b64url_decode,
    check_public_key,
    public_key_digest,
)

__all__ = [
    "ATTESTOR",
    "KIND",
    "X509PopAttestor",
    "check_authorities",
    "check_rule",
    "load_authorities",
]

KIND = "x509pop"
MAX_CHAIN = 4  # certificates: the leaf and those between it and the CA
MAX_CHAIN_BYTES = 24 * 1024
MAX_AUTHORITIES = 4  # CAs of one node
MAX_AUTHORITIES_BYTES = 32 * 1024
MAX_RULE_LENGTH = 512
MAX_NAMES = 64  # subject alternative names that are looked at
_MAX_KEY_FILE = 16 * 1024

_RULES = frozenset({"dns", "uri", "subject", "key"})
_DNS = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]*[a-z0-9])?)*")
_KEY = re.compile(r"sha256:[0-9a-f]{64}")

# The web's rules, without those about names: which name counts is decided by the rule.
_LEAF_POLICY = (
    ExtensionPolicy.webpki_defaults_ee()
    .may_be_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    .require_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, None)
)


def check_rule(rule: str) -> str:
    """Return a rule that names one certificate.

    Raises:
        InvalidEvidence: an unknown kind of rule, or a value that is empty, too long or malformed.
    """
    kind, colon, value = rule.partition(":")
    if not colon or kind not in _RULES or not value:
        raise InvalidEvidence(
            "certificate must be dns:<name>, uri:<uri>, subject:<name> or key:sha256:<hex>"
        )
    if len(rule) > MAX_RULE_LENGTH or not rule.isprintable():
        raise InvalidEvidence(f"certificate must be at most {MAX_RULE_LENGTH} printable characters")
    if kind == "dns" and not _DNS.fullmatch(value):
        raise InvalidEvidence("certificate: dns must be a DNS name in lower case, without wildcard")
    if kind == "key" and not _KEY.fullmatch(value):
        raise InvalidEvidence("certificate: key must be sha256: and 64 hexadecimal digits")
    return rule


def load_authorities(pem: str) -> tuple[x509.Certificate, ...]:
    """Read the CA certificates of a site; whether they can be used is not decided.

    Raises:
        InvalidEvidence: not PEM certificates, too many or too large.
    """
    if len(pem) > MAX_AUTHORITIES_BYTES:
        raise InvalidEvidence(f"ca has {len(pem)} characters, the limit is {MAX_AUTHORITIES_BYTES}")
    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
    except UNREADABLE:
        raise InvalidEvidence("ca must be certificates in PEM") from None
    if not 1 <= len(certificates) <= MAX_AUTHORITIES:
        raise InvalidEvidence(f"ca must be 1 to {MAX_AUTHORITIES} certificates")
    return tuple(certificates)


def check_authorities(certificates: Sequence[x509.Certificate]) -> None:
    """Decide whether these can be the CAs of a node.

    Raises:
        InvalidEvidence: one is no CA, or has a key that is not accepted.
    """
    for certificate in certificates:
        try:
            check_public_key(certificate.public_key())
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
            is_ca = constraints.value.ca
        except InvalidKey as error:
            raise InvalidEvidence(f"ca: {error}") from None
        except x509.ExtensionNotFound:
            is_ca = False
        except UNREADABLE:
            raise InvalidEvidence("ca has fields that cannot be read") from None
        if not is_ca:
            raise InvalidEvidence("ca must be CA certificates, with basicConstraints CA:TRUE")


class X509PopAttestor:
    """Evidence: ``{"certificates": [base64url of DER, leaf first], "signature": base64url}``."""

    kind = KIND

    def collect(self, context: NodeCollectContext) -> Evidence | None:
        """Sign the challenge with the key of the site's certificate."""
        if context.certificate_file is None or context.key_file is None:
            return None
        pem = read_small_file(
            context.certificate_file,
            what="certificate",
            max_bytes=2 * MAX_CHAIN_BYTES,
            private=False,
        )
        secret = read_small_file(
            context.key_file, what="private key", max_bytes=_MAX_KEY_FILE, private=True
        )
        try:
            certificates = x509.load_pem_x509_certificates(pem)
        except UNREADABLE:
            where = context.certificate_file
            raise CannotCollect(f"certificate {where} must be PEM, leaf first") from None
        key = _load_key(secret, context)
        if certificates[0].public_key() != key.public_key():
            raise CannotCollect(
                f"private key {context.key_file} is not that of {context.certificate_file}"
            )
        challenge = _challenge(context)
        payload: dict[str, object] = {
            "certificates": [
                b64url(each.public_bytes(serialization.Encoding.DER)) for each in certificates
            ],
            "signature": possession.prove(key, challenge),
        }
        return Evidence(self.kind, context.nonce, payload)

    def verify(self, evidence: Evidence, context: NodeVerifyContext) -> NodeAttested:
        """Decide whether the certificate is this node's, and its holder signed."""
        context.check_bound(evidence, self.kind)
        members = evidence.members("certificates", "signature")
        leaf, between = _chain(members.texts("certificates"))
        keys = [_accepted_key(each) for each in (leaf, *between)]
        possession.check(keys[0], members.text("signature"), _challenge(context))
        _check_chain(leaf, between, context)
        selector = _check_named(leaf, keys[0], context.node.certificate)
        return NodeAttested(self.kind, (f"x509pop:{selector}",))


def _challenge(context: NodeCollectContext | NodeVerifyContext) -> Challenge:
    return Challenge(
        purpose=KIND,
        trust_domain=context.trust_domain,
        nonce=context.nonce,
        public_key=context.public_key,
    )


def _load_key(pem: bytes, context: NodeCollectContext) -> PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, None)
        if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            check_public_key(key.public_key())
            return key
    except InvalidKey as error:
        raise CannotCollect(f"private key {context.key_file}: {error}") from None
    except UNREADABLE:
        pass
    raise CannotCollect(
        f"private key {context.key_file} must be RSA, P-256 or P-384 in PEM, without a passphrase"
    )


def _chain(texts: tuple[str, ...]) -> tuple[x509.Certificate, tuple[x509.Certificate, ...]]:
    if not 1 <= len(texts) <= MAX_CHAIN:
        raise InvalidEvidence(f"certificates must be 1 to {MAX_CHAIN}, leaf first")
    if (size := sum(map(len, texts))) > 2 * MAX_CHAIN_BYTES:
        raise InvalidEvidence(f"certificates have {size} characters, which is too many")
    try:
        leaf, *between = [x509.load_der_x509_certificate(b64url_decode(text)) for text in texts]
    except UNREADABLE:
        raise InvalidEvidence("certificates must be DER in base64url") from None
    return leaf, tuple(between)


def _accepted_key(certificate: x509.Certificate) -> PublicKey:
    """The key of a certificate, judged before anything is checked with it."""
    try:
        return check_public_key(certificate.public_key())
    except InvalidKey as error:
        raise CertificateRefused(f"certificate: {error}") from None
    except UNREADABLE:
        raise InvalidEvidence("certificate has a key that cannot be read") from None


def _check_chain(
    leaf: x509.Certificate, between: tuple[x509.Certificate, ...], context: NodeVerifyContext
) -> None:
    if not context.node.authorities:
        raise CertificateRefused(f"the node {context.node.name} is listed without a CA")
    verifier = (
        PolicyBuilder()
        .store(Store(list(context.node.authorities)))
        .time(context.now)
        .max_chain_depth(MAX_CHAIN)
        .extension_policies(ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=_LEAF_POLICY)
        .build_client_verifier()
    )
    try:
        verifier.verify(leaf, list(between))
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except VerificationError as error:
        raise CertificateRefused(
            f"certificate has no path to the CA of the node {context.node.name}: "
            f"{shown(str(error))}"
        ) from None
    except UNREADABLE:
        raise InvalidEvidence("certificate has fields that cannot be read") from None
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        raise CertificateRefused("certificate must have the extended key usage clientAuth")


def _check_named(leaf: x509.Certificate, key: PublicKey, rule: str | None) -> str:
    """The rule, if the leaf is the one that it names."""
    if rule is None:
        raise CertificateRefused("no certificate was named for this node")
    kind, _, value = check_rule(rule).partition(":")
    try:
        found = {
            "dns": lambda: _names(leaf, x509.DNSName),
            "uri": lambda: _names(leaf, x509.UniformResourceIdentifier),
            "subject": lambda: [leaf.subject.rfc4514_string()],
            "key": lambda: [public_key_digest(key)],
        }[kind]()
    except UNREADABLE:
        raise InvalidEvidence("certificate has names that cannot be read") from None
    if value not in found:
        raise CertificateRefused(f"certificate is not the one that was named: {shown(rule)}")
    return rule


def _names(
    leaf: x509.Certificate, kind: type[x509.DNSName | x509.UniformResourceIdentifier]
) -> list[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    if len(names) > MAX_NAMES:
        raise CertificateRefused(f"certificate has {len(names)} names, the limit is {MAX_NAMES}")
    return [str(name) for name in names.get_values_for_type(kind)]


ATTESTOR = X509PopAttestor()

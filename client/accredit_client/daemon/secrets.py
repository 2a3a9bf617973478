"""A workload's state as Envoy's secrets. Pure.

| name | secret |
|---|---|
| ``default`` | certificate and key of the default identity |
| ``ROOTCA`` | authorities of the own trust domain, with the CRLs |
| ``ALL`` | authorities of every known trust domain, each for its own (Envoy's SPIFFE validator) |
| a SPIFFE ID with a path | certificate and key of this identity of the caller |
| ``spiffe://`` and a trust domain | authorities of this trust domain; the own one with the CRLs |

A validation context without authorities is never written: Envoy would verify nobody by it.
"""

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from accredit_client.daemon.messages import known
from accredit_client.daemon.proto.envoy_core_pb2 import DataSource, TypedExtensionConfig
from accredit_client.daemon.proto.envoy_tls_pb2 import (
    CertificateValidationContext,
    Secret,
    SPIFFECertValidatorConfig,
    TlsCertificate,
)
from accredit_client.daemon.provider import WorkloadState
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import InvalidSpiffeId
from accredit_credentials.spiffe_id import SpiffeId
from accredit_credentials.x509_svid import X509Identity

DEFAULT, OWN, ALL = "default", "ROOTCA", "ALL"
VALIDATOR = "envoy.tls.cert_validator.spiffe"


def names_of(state: WorkloadState) -> tuple[str, ...]:
    """What who names nothing is given: each identity, and each trust domain."""
    ids = (str(each.identity.svid.spiffe_id) for each in state.svids)
    return (*dict.fromkeys(ids), *(str(each.trust_domain.id) for each in known(state)))


def secret_of(state: WorkloadState, name: str) -> Secret | None:
    """The secret of one name; None where the caller has none of it."""
    if name == DEFAULT:
        return _certificate(name, state.svids[0].identity)
    if name == OWN:
        return _validation(name, state.bundle, state.crls)
    if name == ALL:
        return _every_domain(name, state)
    try:
        return _named(state, SpiffeId.parse(name), name)
    except InvalidSpiffeId:
        return None


def _named(state: WorkloadState, spiffe_id: SpiffeId, name: str) -> Secret | None:
    if spiffe_id.path:
        identities = (each.identity for each in state.svids)
        found = next((each for each in identities if each.svid.spiffe_id == spiffe_id), None)
        return _certificate(name, found) if found is not None else None
    if spiffe_id.trust_domain == state.bundle.trust_domain:
        return _validation(name, state.bundle, state.crls)
    bundle = state.federated.get(spiffe_id.trust_domain)
    return _validation(name, bundle, ()) if bundle is not None else None


def _certificate(name: str, identity: X509Identity) -> Secret:
    return Secret(
        name=name,
        tls_certificate=TlsCertificate(
            certificate_chain=_inline(identity.svid.pem),
            private_key=DataSource(inline_bytes=identity.key_pem),
        ),
    )


def _validation(name: str, bundle: TrustBundle, crls: tuple[bytes, ...]) -> Secret | None:
    if not bundle.x509_authorities:
        return None
    context = CertificateValidationContext(trusted_ca=_inline(bundle.x509_pem))
    if crls:
        pem = b"".join(x509.load_der_x509_crl(each).public_bytes(Encoding.PEM) for each in crls)
        context.crl.inline_bytes = pem
        # Otherwise Envoy asks for one of each CA: a root that was given has none here, nor has a
        # subordinate's CA.
        context.only_verify_leaf_cert_crl = True
    return Secret(name=name, validation_context=context)


def _every_domain(name: str, state: WorkloadState) -> Secret | None:
    config = SPIFFECertValidatorConfig()
    for bundle in known(state):
        if bundle.x509_authorities:
            config.trust_domains.add(
                name=str(bundle.trust_domain), trust_bundle=_inline(bundle.x509_pem)
            )
    if not config.trust_domains:
        return None
    validator = TypedExtensionConfig(name=VALIDATOR)
    validator.typed_config.Pack(config, deterministic=True)
    context = CertificateValidationContext(custom_validator_config=validator)
    return Secret(name=name, validation_context=context)


def _inline(pem: str) -> DataSource:
    return DataSource(inline_bytes=pem.encode())

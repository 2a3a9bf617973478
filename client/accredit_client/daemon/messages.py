"""A workload's state as messages of the Workload API (§5, §6). Pure.

Bundles are concatenated DER for X.509 and JWK Sets for tokens, which have keys of one use only:
readers exist that ignore ``use``. The map's names are SPIFFE IDs of trust domains.
"""

import json
from collections.abc import Iterable
from dataclasses import replace

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from accredit_client.daemon.proto.workload_pb2 import (
    JWTBundlesResponse,
    WITBundlesResponse,
    WITSVIDResponse,
    X509BundlesResponse,
    X509SVIDResponse,
)
from accredit_client.daemon.provider import WorkloadState, WorkloadWit
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.keys import PrivateKey, private_jwk_of


def x509_svids(state: WorkloadState) -> X509SVIDResponse:
    """The SVIDs with their keys, the bundles, and the CRLs (§5.2.1)."""
    own = der_of(state.bundle)
    message = X509SVIDResponse(crl=state.crls)
    for each in state.svids:
        message.svids.add(
            spiffe_id=str(each.identity.svid.spiffe_id),
            x509_svid=b"".join(each.identity.svid.der),
            x509_svid_key=key_der(each.identity.key),
            bundle=own,
            hint=each.hint,
        )
    for domain, bundle in state.federated.items():
        message.federated_bundles[str(domain.id)] = der_of(bundle)
    return message


def x509_bundles(state: WorkloadState) -> X509BundlesResponse:
    """The X.509 authorities of each trust domain, the own one first, and the CRLs (§5.2.2)."""
    message = X509BundlesResponse(crl=state.crls)
    for bundle in known(state):
        message.bundles[str(bundle.trust_domain.id)] = der_of(bundle)
    return message


def jwt_bundles(state: WorkloadState) -> JWTBundlesResponse:
    """The JWT authorities of each known trust domain (§6.2.2)."""
    message = JWTBundlesResponse()
    for bundle in known(state):
        keys = replace(bundle, x509_authorities=(), wit_authorities={})
        message.bundles[str(bundle.trust_domain.id)] = keys.to_json().encode()
    return message


def wit_svids(wits: Iterable[WorkloadWit]) -> WITSVIDResponse:
    """The WIT-SVIDs with their keys (§7.2.1)."""
    message = WITSVIDResponse()
    for each in wits:
        message.svids.add(
            spiffe_id=str(each.spiffe_id),
            wit_svid=each.token,
            wit_svid_key=json.dumps(private_jwk_of(each.key), separators=(",", ":")),
            hint=each.hint,
        )
    return message


def wit_bundles(state: WorkloadState) -> WITBundlesResponse:
    """The WIT authorities of each known trust domain (§7.2.2)."""
    message = WITBundlesResponse()
    for bundle in known(state):
        keys = replace(bundle, x509_authorities=(), jwt_authorities={})
        message.bundles[str(bundle.trust_domain.id)] = keys.to_json()
    return message


def known(state: WorkloadState) -> tuple[TrustBundle, ...]:
    """All bundles, the own one first."""
    return (state.bundle, *state.federated.values())


def der_of(bundle: TrustBundle) -> bytes:
    """The X.509 authorities as concatenated DER."""
    return b"".join(each.public_bytes(Encoding.DER) for each in bundle.x509_authorities)


def key_der(key: PrivateKey) -> bytes:
    """The private key as unencrypted PKCS#8."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

"""Envoy's SDS: which secret a name stands for, and what a proxy is sent when."""

from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from grpclib import GRPCError, Status
from support.authority import Authority
from support.workload import FakeProvider, Served, refused, state_of

from accredit_client.daemon.proto.envoy_discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from accredit_client.daemon.proto.envoy_tls_pb2 import Secret, SPIFFECertValidatorConfig
from accredit_client.daemon.provider import NotYet, Refused, WorkloadState
from accredit_client.daemon.sds import SERVICE
from accredit_client.daemon.secrets import secret_of
from accredit_client.daemon.subscriptions import MAX_NAMES, TYPE_URL, WholeSubscription
from accredit_credentials.bundle import TrustBundle

TRIAGE = "spiffe://example.org/ns/support/agent/triage"
SECOND = "spiffe://example.org/ns/support/agent/second"


@pytest.fixture
def state(provider: FakeProvider) -> WorkloadState:
    """The provider's state."""
    assert isinstance(provider.state, WorkloadState)
    return provider.state


def asking(*names: str, nonce: str = "", **fields: Any) -> DiscoveryRequest:
    """A request of a proxy."""
    return DiscoveryRequest(resource_names=names, type_url=TYPE_URL, response_nonce=nonce, **fields)


def secrets_in(response: DiscoveryResponse) -> dict[str, Secret]:
    """What was sent, by name."""
    found = {}
    for each in response.resources:
        secret = Secret()
        assert each.Unpack(secret)
        found[secret.name] = secret
    return found


@pytest.mark.parametrize(
    ("name", "index"), [("default", 0), (TRIAGE, 0), (SECOND, 1)], ids=["default", "one", "two"]
)
def test_an_identity_is_a_certificate(state: WorkloadState, name: str, index: int) -> None:
    """Chain and key in PEM, under the name that was asked for."""
    secret = secret_of(state, name)
    assert secret is not None
    assert secret.name == name
    identity = state.svids[index].identity
    chain = secret.tls_certificate.certificate_chain.inline_bytes
    assert x509.load_pem_x509_certificates(chain) == list(identity.svid.certificates)
    key = load_pem_private_key(secret.tls_certificate.private_key.inline_bytes, None)
    assert key.public_key() == identity.svid.leaf.public_key()


@pytest.mark.parametrize("name", ["ROOTCA", "spiffe://example.org"])
def test_the_own_bundle_comes_with_the_crls(state: WorkloadState, name: str) -> None:
    """Authorities and CRLs in PEM; only leaves are looked up: there is no CRL of the root."""
    secret = secret_of(state, name)
    assert secret is not None
    context = secret.validation_context
    found = x509.load_pem_x509_certificates(context.trusted_ca.inline_bytes)
    assert found == list(state.bundle.x509_authorities)
    assert x509.load_pem_x509_crl(context.crl.inline_bytes) == x509.load_der_x509_crl(state.crls[0])
    assert context.only_verify_leaf_cert_crl
    without = secret_of(replace(state, crls=()), name)
    assert without is not None
    assert not without.validation_context.HasField("crl")
    assert not without.validation_context.only_verify_leaf_cert_crl


def test_a_federated_bundle_is_its_own_domains(
    state: WorkloadState, other_authority: Authority
) -> None:
    """Neither our authorities nor our CRLs are in it."""
    secret = secret_of(state, "spiffe://other.example")
    assert secret is not None
    found = x509.load_pem_x509_certificates(secret.validation_context.trusted_ca.inline_bytes)
    assert found == [other_authority.root.certificate]
    assert not secret.validation_context.HasField("crl")


def test_all_bundles_are_told_apart_by_domain(state: WorkloadState) -> None:
    """Envoy's SPIFFE validator gets each domain with its own authorities, and no common pool."""
    secret = secret_of(state, "ALL")
    assert secret is not None
    context = secret.validation_context
    assert not context.HasField("trusted_ca")
    assert context.custom_validator_config.name == "envoy.tls.cert_validator.spiffe"
    config = SPIFFECertValidatorConfig()
    assert context.custom_validator_config.typed_config.Unpack(config)
    found = {
        each.name: x509.load_pem_x509_certificates(each.trust_bundle.inline_bytes)
        for each in config.trust_domains
    }
    assert found == {
        "example.org": list(state.bundle.x509_authorities),
        "other.example": list(next(iter(state.federated.values())).x509_authorities),
    }


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Default",
        "rootca",
        "spiffe://third.example",
        "spiffe://example.org/ns/support/agent/other",
        "spiffe://other.example/ns/support/agent/triage",
        TRIAGE + "/",
        TRIAGE + "\n",
    ],
)
def test_any_other_name_is_nobodys(state: WorkloadState, name: str) -> None:
    """What the caller does not have has no secret."""
    assert secret_of(state, name) is None


def test_a_context_without_authorities_is_never_written(
    state: WorkloadState, authority: Authority
) -> None:
    """Envoy verifies nobody by an empty one; a domain that took back its keys is left out."""
    nobody = replace(state, bundle=TrustBundle(authority.trust_domain))
    for name in ("ROOTCA", "spiffe://example.org"):
        assert secret_of(nobody, name) is None
    assert secret_of(replace(nobody, federated={}), "ALL") is None
    secret = secret_of(nobody, "ALL")
    assert secret is not None
    config = SPIFFECertValidatorConfig()
    secret.validation_context.custom_validator_config.typed_config.Unpack(config)
    assert [each.name for each in config.trust_domains] == ["other.example"]


def test_what_did_not_change_is_not_sent_again(state: WorkloadState, authority: Authority) -> None:
    """An acknowledgement is no question; a changed state, or another name, is."""
    subscription = WholeSubscription()
    assert subscription.due(state) is None
    subscription.ask(asking("default"))
    first = subscription.due(state)
    assert first is not None
    assert set(secrets_in(first)) == {"default"}
    subscription.ask(asking("default", nonce=first.nonce, version_info=first.version_info))
    assert subscription.due(state) is None
    assert subscription.due(replace(state, crls=())) is None
    second = subscription.due(state_of(authority))
    assert second is not None
    assert (second.nonce, second.version_info) != (first.nonce, first.version_info)
    subscription.ask(asking("default", "ROOTCA", nonce=second.nonce))
    third = subscription.due(state_of(authority))
    assert third is not None
    assert set(secrets_in(third)) == {"default", "ROOTCA"}


def test_a_stale_request_is_no_request(state: WorkloadState) -> None:
    """Names that were asked before the last answer came do not count."""
    subscription = WholeSubscription()
    subscription.ask(asking("default"))
    assert subscription.due(state) is not None
    subscription.ask(asking("ROOTCA", nonce="0"))
    assert subscription.due(state) is None


def test_a_refusal_is_told_and_not_answered(state: WorkloadState, authority: Authority) -> None:
    """The proxy's words come back, bounded and escaped; the next state is sent."""
    subscription = WholeSubscription()
    subscription.ask(asking("default"))
    first = subscription.due(state)
    assert first is not None
    refusal = asking("default", nonce=first.nonce)
    refusal.error_detail.message = "bad\n" + "x" * 1000
    words = subscription.ask(refusal)
    assert words is not None
    assert words.startswith("'bad\\nxx")
    assert len(words) < 250
    assert subscription.due(state) is None
    assert subscription.due(state_of(authority)) is not None


def test_a_request_is_bounded_and_of_secrets(state: WorkloadState) -> None:
    """Another type, too many names, a name that the caller has nothing of: a status."""
    for request, status in (
        (DiscoveryRequest(type_url="type.googleapis.com/other"), Status.INVALID_ARGUMENT),
        (asking(*map(str, range(MAX_NAMES + 1))), Status.INVALID_ARGUMENT),
        (asking("default", "other"), Status.PERMISSION_DENIED),
    ):
        subscription = WholeSubscription()
        with pytest.raises(GRPCError) as refusal:
            _ = (subscription.ask(request), subscription.due(state))
        assert refusal.value.status is status


def test_who_names_nothing_gets_everything(state: WorkloadState) -> None:
    """Each identity and each trust domain, by its ID."""
    subscription = WholeSubscription()
    subscription.ask(asking())
    response = subscription.due(state)
    assert response is not None
    expected = {TRIAGE, SECOND, "spiffe://example.org", "spiffe://other.example"}
    assert set(secrets_in(response)) == expected


@pytest.mark.anyio
async def test_a_proxy_is_sent_each_change(served: Served, authority: Authority) -> None:
    """On the real socket, without the header: at once, and after the rotation."""

    async def story() -> None:
        client = served.client()
        talking = client.talk(SERVICE + "StreamSecrets", DiscoveryRequest, DiscoveryResponse)
        async with talking as stream:
            await stream.send_message(asking("default", "ROOTCA"))
            first = await stream.recv_message()
            assert set(secrets_in(first)) == {"default", "ROOTCA"}
            await stream.send_message(asking("default", "ROOTCA", nonce=first.nonce))
            served.provider.set(state_of(authority))
            second = await stream.recv_message()
            assert second.version_info != first.version_info
            served.provider.set(Refused("revoked"))
            await stream.recv_message()

    assert (await refused(story())).status is Status.PERMISSION_DENIED
    await served.until(lambda: served.provider.watching == 0)


@pytest.mark.anyio
async def test_a_refused_secret_is_in_the_log(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator learns that a proxy did not take what it was sent."""
    talking = served.client().talk(SERVICE + "StreamSecrets", DiscoveryRequest, DiscoveryResponse)
    async with talking as stream:
        await stream.send_message(asking("default"))
        first = await stream.recv_message()
        refusal = asking("default", nonce=first.nonce)
        refusal.error_detail.message = "key does not fit"
        await stream.send_message(refusal)
        await served.until(lambda: "key does not fit" in caplog.text)


@pytest.mark.anyio
async def test_a_proxy_is_a_caller_like_any_other(served: Served) -> None:
    """Once asked, it is checked: another process, or one without identity, gets nothing."""
    client = served.client()
    answer = await client.ask(SERVICE + "FetchSecrets", asking("ALL"), DiscoveryResponse, ())
    assert set(secrets_in(answer)) == {"ALL"}
    for failure, status in (
        (Refused("no agent"), Status.PERMISSION_DENIED),
        (NotYet("starting"), Status.UNAVAILABLE),
    ):
        served.provider.set(failure)
        call = client.ask(SERVICE + "FetchSecrets", asking("ALL"), DiscoveryResponse, ())
        assert (await refused(call)).status is status
    served.callers[0].changed = True
    call = client.ask(SERVICE + "FetchSecrets", asking("ALL"), DiscoveryResponse, ())
    assert (await refused(call)).status is Status.PERMISSION_DENIED

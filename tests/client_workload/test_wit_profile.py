"""The WIT profile of the Workload API on a real socket, where an operator turned it on."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from grpclib import Status
from support.authority import Authority
from support.workload import API, FakeProvider, Served, refused, serving, state_of

from accredit_client.daemon.proto import workload_pb2 as pb
from accredit_client.daemon.provider import NotYet, Refused, WorkloadState
from accredit_credentials import wit_svid, workload_proof
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.keys import b64url_decode, jwk_of
from accredit_credentials.spiffe_id import TrustDomain

pytestmark = pytest.mark.anyio

SVIDS, BUNDLES = API + "FetchWITSVID", API + "FetchWITBundles"
PATHS = ("/ns/a/agent/one", "/ns/a/agent/two")
AUDIENCE = "https://tickets.example"


@pytest.fixture
async def on(tmp_path: Path, authority: Authority) -> AsyncIterator[Served]:
    """A server with the profile, and a caller of two identities."""
    state = replace(state_of(authority, *PATHS), bundle=authority.bundle_with_wits)
    async with serving(tmp_path, FakeProvider(authority, state), wit=True) as served:
        yield served


def watch(served: Served, spiffe_id: str = "") -> Any:
    """A stream of WIT-SVIDs."""
    request = pb.WITSVIDRequest(spiffe_id=spiffe_id)
    return served.client().watch(SVIDS, request, pb.WITSVIDResponse)


async def first(served: Served, spiffe_id: str = "") -> pb.WITSVIDResponse:
    """Its first message."""
    async with watch(served, spiffe_id) as stream:
        message: pb.WITSVIDResponse = await stream.recv_message()
        return message


def private_key(text: str) -> ec.EllipticCurvePrivateKey:
    """Read a JWK as anybody does who knows RFC 7517."""
    jwk = json.loads(text)
    assert (jwk["kty"], jwk["crv"]) == ("EC", "P-256")
    secret = int.from_bytes(b64url_decode(jwk["d"]))
    key = ec.derive_private_key(secret, ec.SECP256R1())
    assert jwk_of(key.public_key()).items() <= jwk.items()
    return key


@pytest.mark.spec("SPIFFE-79")
async def test_each_identity_has_a_wit_svid_with_its_key(on: Served, authority: Authority) -> None:
    """In the order of the SVIDs; with the key of the message the workload proves who it is."""
    message = await first(on)
    assert [each.spiffe_id for each in message.svids] == [str(authority.id(p)) for p in PATHS]
    bundle = authority.bundle_with_wits
    for each in message.svids:
        unproven = wit_svid.validate(
            each.wit_svid, bundles={bundle.trust_domain: bundle}, now=authority.now
        )
        proof = workload_proof.create_proof(
            private_key(each.wit_svid_key),
            wit=each.wit_svid,
            audience=AUDIENCE,
            jti="1",
            expires_at=authority.now + timedelta(seconds=30),
        )
        proven = workload_proof.verify_proof(proof, unproven, audience=AUDIENCE, now=authority.now)
        assert str(proven.svid.spiffe_id) == each.spiffe_id


@pytest.mark.spec("SPIFFE-79")
async def test_one_identity_is_asked_for_by_its_id(on: Served, authority: Authority) -> None:
    """Of one that is named only that comes; of one that is not the caller's, none."""
    (svid,) = (await first(on, str(authority.id(PATHS[1])))).svids
    assert svid.spiffe_id == str(authority.id(PATHS[1]))
    error = await refused(first(on, str(authority.id("/ns/a/agent/three"))))
    assert error.status is Status.PERMISSION_DENIED
    error = await refused(first(on, "https://example.org/a"))
    assert error.status is Status.INVALID_ARGUMENT


@pytest.mark.spec("SPIFFE-79")
async def test_a_stream_follows_and_ends_with_the_identity(on: Served) -> None:
    """Each change is a message of all of it; who loses every SVID is told, and the stream ends."""
    async with watch(on) as stream:
        before = await stream.recv_message()
        on.provider.set(on.provider.state)
        after = await stream.recv_message()
        assert [each.spiffe_id for each in after.svids] == [e.spiffe_id for e in before.svids]
        assert {e.wit_svid_key for e in after.svids}.isdisjoint(
            e.wit_svid_key for e in before.svids
        )
        on.provider.set(Refused("incident"))
        error = await refused(stream.recv_message())
    assert (error.status, error.message) == (Status.PERMISSION_DENIED, "incident")


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (NotYet("the issuer is away"), Status.UNAVAILABLE),
        (Refused("the issuer issues no WIT-SVIDs"), Status.PERMISSION_DENIED),
    ],
)
async def test_who_gets_none_is_told_why(on: Served, failure: Exception, status: Status) -> None:
    """Unavailable where waiting helps, PermissionDenied where it does not."""
    on.provider.set(failure)
    error = await refused(first(on))
    assert (error.status, error.message) == (status, str(failure))


@pytest.mark.spec("SPIFFE-50")
@pytest.mark.spec("SPIFFE-79")
async def test_a_wit_bundle_has_wit_keys_only(on: Served, authority: Authority) -> None:
    """A JWK Set for each trust domain, its own among them; each key has an id and this use."""
    other = TrustDomain("other.example")
    state = on.provider.state
    assert isinstance(state, WorkloadState)
    on.provider.set(replace(state, federated={other: TrustBundle(other)}))
    call = on.client().watch(BUNDLES, pb.WITBundlesRequest(), pb.WITBundlesResponse)
    async with call as stream:
        message = await stream.recv_message()
    assert set(message.bundles) == {"spiffe://example.org", "spiffe://other.example"}
    keys = json.loads(message.bundles["spiffe://example.org"])["keys"]
    assert [(key["use"], key["kid"]) for key in keys] == [("wit-svid", authority.wit_kid)]
    assert json.loads(message.bundles["spiffe://other.example"])["keys"] == []


@pytest.mark.spec("SPIFFE-50")
@pytest.mark.spec("SPIFFE-77")
async def test_a_jwt_bundle_has_no_wit_key(on: Served, authority: Authority) -> None:
    """Readers that ignore ``use`` would take one for a key of JWT-SVIDs."""
    call = on.client().watch(API + "FetchJWTBundles", pb.JWTBundlesRequest(), pb.JWTBundlesResponse)
    async with call as stream:
        message = await stream.recv_message()
    keys = json.loads(message.bundles["spiffe://example.org"])["keys"]
    assert [(key["use"], key["kid"]) for key in keys] == [("jwt-svid", authority.kid)]

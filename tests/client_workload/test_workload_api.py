"""The Workload API on a real socket, by a client that knows nothing of ours."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key
from google.protobuf.json_format import MessageToDict
from grpclib import Status
from grpclib.client import UnaryUnaryMethod
from support.authority import Authority
from support.workload import API, HEADER, FakeProvider, Served, crl_of, refused, state_of

from accredit_client.daemon.proto import workload_pb2 as pb
from accredit_client.daemon.provider import NotYet, Refused, WorkloadState, WorkloadSvid
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.keys import generate_key
from accredit_credentials.spiffe_id import TrustDomain
from accredit_credentials.x509_svid import parse_der, validate

pytestmark = pytest.mark.anyio

STREAMS: dict[str, tuple[Any, Any]] = {
    "FetchX509SVID": (pb.X509SVIDRequest, pb.X509SVIDResponse),
    "FetchX509Bundles": (pb.X509BundlesRequest, pb.X509BundlesResponse),
    "FetchJWTBundles": (pb.JWTBundlesRequest, pb.JWTBundlesResponse),
}
UNARY: dict[str, tuple[Any, Any]] = {
    "FetchJWTSVID": (pb.JWTSVIDRequest(audience=["a"]), pb.JWTSVIDResponse),
    "ValidateJWTSVID": (
        pb.ValidateJWTSVIDRequest(audience="a", svid="x.y.z"),
        pb.ValidateJWTSVIDResponse,
    ),
}
WIT: dict[str, tuple[Any, Any]] = {
    "FetchWITSVID": (pb.WITSVIDRequest, pb.WITSVIDResponse),
    "FetchWITBundles": (pb.WITBundlesRequest, pb.WITBundlesResponse),
}


async def first(served: Served, name: str, metadata: Any = HEADER) -> Any:
    """The first answer to a call of this name."""
    client = served.client()
    if name in UNARY:
        request, reply = UNARY[name]
        return await client.ask(API + name, request, reply, metadata)
    request, reply = {**STREAMS, **WIT}[name]
    async with client.watch(API + name, request(), reply, metadata) as stream:
        return await stream.recv_message()


def held(provider: FakeProvider) -> WorkloadState:
    """The state, where it is one."""
    assert isinstance(provider.state, WorkloadState)
    return provider.state


@pytest.mark.spec("SPIFFE-57")
@pytest.mark.spec("SPIFFE-59")
@pytest.mark.spec("SPIFFE-69")
async def test_the_api_is_grpc_on_a_unix_socket(served: Served) -> None:
    """No TLS, no credential and no file: connecting is all that a workload does (§3.1, §5)."""
    assert served.path.is_socket()
    message = await served.client().x509()
    assert message.svids[0].spiffe_id == "spiffe://example.org/ns/support/agent/triage"
    assert served.callers[0].selectors() == {f"unix:uid:{served.callers[0].uid}"}


@pytest.mark.spec("SPIFFE-58")
@pytest.mark.parametrize("name", [*STREAMS, *UNARY, *WIT])
@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (*HEADER, *HEADER),
        (("workload.spiffe.io", "True"),),
        (("workload.spiffe.io", "TRUE"),),
        (("workload.spiffe.io", "true,true"),),
        (("workload.spiffe.io", "false"),),
        (("workload_spiffe_io", "true"),),
        (*HEADER, ("workload.spiffe.io", "false")),
    ],
)
async def test_any_other_header_is_an_invalid_argument(
    served: Served, name: str, metadata: Any
) -> None:
    """Missing, doubled, or of another case: nothing is told, not even that a call is not served."""
    error = await refused(first(served, name, metadata))
    assert error.status is Status.INVALID_ARGUMENT
    assert served.provider.watching == 0
    assert served.provider.asked == []


@pytest.mark.spec("SPIFFE-61")
@pytest.mark.parametrize("name", [*STREAMS, "FetchJWTSVID", "ValidateJWTSVID"])
@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (NotYet("the issuer was not reached yet"), Status.UNAVAILABLE),
        (Refused("no agent here has your selectors"), Status.PERMISSION_DENIED),
    ],
)
async def test_who_gets_nothing_is_told_why(
    served: Served, name: str, failure: Exception, status: Status
) -> None:
    """Unavailable while nothing is known, PermissionDenied for who has no identity (§6)."""
    served.provider.set(failure)
    error = await refused(first(served, name))
    assert (error.status, error.message) == (status, str(failure))


async def test_a_failure_of_ours_tells_nothing(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """What was not foreseen is in the log, and not in the answer."""
    served.provider.set(RuntimeError("canary"))
    error = await refused(first(served, "FetchX509SVID"))
    assert error.status is Status.INTERNAL
    assert "canary" not in str(error.message)
    assert "a call failed" in caplog.text


@pytest.mark.spec("SPIFFE-61")
@pytest.mark.spec("SPIFFE-66")
@pytest.mark.spec("SPIFFE-79")
@pytest.mark.parametrize("name", WIT)
async def test_the_wit_profile_is_not_served(served: Served, name: str) -> None:
    """An optional profile that is not there is Unimplemented, each call of it (§7)."""
    assert (await refused(first(served, name))).status is Status.UNIMPLEMENTED


@pytest.mark.spec("SPIFFE-63")
async def test_the_service_has_the_calls_of_the_specification_only(served: Served) -> None:
    """Seven calls, and an eighth is Unimplemented: ours are in a service of their own."""
    service = pb.DESCRIPTOR.services_by_name["SpiffeWorkloadAPI"]
    assert service.full_name == "SpiffeWorkloadAPI"
    assert {each.name for each in service.methods} == {*STREAMS, *UNARY, *WIT}
    asked = served.client().ask(API + "FetchTaskToken", pb.JWTSVIDRequest(), pb.JWTSVIDResponse)
    assert (await refused(asked)).status is Status.UNIMPLEMENTED


@pytest.mark.spec("SPIFFE-66")
@pytest.mark.spec("SPIFFE-71")
@pytest.mark.spec("SPIFFE-75")
@pytest.mark.spec("SPIFFE-99")
@pytest.mark.spec("SPIFFE-101")
async def test_an_x509_svid_comes_with_all_that_belongs_to_it(
    served: Served, authority: Authority, other_authority: Authority
) -> None:
    """Chain leaf first, PKCS#8 key, bundle, federated bundles by ID, CRL: all in DER (§5.2.1)."""
    message = await served.client().x509()
    for each, known in zip(message.svids, held(served.provider).svids, strict=True):
        chain = each.x509_svid
        leaf = x509.load_der_x509_certificate(chain[: len(known.identity.svid.der[0])])
        svid = parse_der(*split(chain, known.identity.svid.der))
        assert validate(svid, bundles=authority.bundles, now=authority.now) == svid
        assert str(svid.spiffe_id) == each.spiffe_id
        key = load_der_private_key(each.x509_svid_key, None)
        assert key.public_key() == leaf.public_key()
        assert each.bundle == der(authority.bundle)
    assert dict(message.federated_bundles) == {
        "spiffe://other.example": der(other_authority.bundle)
    }
    assert x509.load_der_x509_crl(message.crl[0]).issuer == authority.issuing.certificate.subject


def split(chain: bytes, parts: tuple[bytes, ...]) -> tuple[bytes, tuple[bytes, ...]]:
    """A concatenation, as it has to be."""
    assert chain == b"".join(parts)
    return parts[0], parts[1:]


def der(bundle: TrustBundle) -> bytes:
    """Concatenated DER."""
    return b"".join(each.public_bytes(Encoding.DER) for each in bundle.x509_authorities)


@pytest.mark.spec("SPIFFE-80")
async def test_the_first_svid_is_the_default(served: Served, authority: Authority) -> None:
    """The order of the provider is kept (§8)."""
    message = await served.client().x509()
    assert [each.spiffe_id[-6:] for each in message.svids] == ["triage", "second"]
    served.provider.set(state_of(authority, "/ns/a/agent/second", "/ns/a/agent/triage"))
    message = await served.client().x509()
    assert [each.spiffe_id[-6:] for each in message.svids] == ["second", "triage"]


@pytest.mark.spec("SPIFFE-72")
async def test_hints_are_unique_and_bounded(served: Served, authority: Authority) -> None:
    """A hint is handed on; one that stands twice, or has more than 1024 bytes, makes no state."""
    one, two = held(served.provider).svids
    served.provider.set(
        WorkloadState(svids=(replace(one, hint="é" * 512), two), bundle=authority.bundle)
    )
    assert [each.hint for each in (await served.client().x509()).svids] == ["é" * 512, ""]
    with pytest.raises(ValueError, match="unique"):
        WorkloadState(
            svids=(replace(one, hint="a"), replace(two, hint="a")), bundle=authority.bundle
        )
    with pytest.raises(ValueError, match="1024"):
        WorkloadState(svids=(replace(one, hint="é" * 513),), bundle=authority.bundle)


def test_a_state_is_one_that_can_be_told(authority: Authority, other_authority: Authority) -> None:
    """Without an SVID, with itself as a stranger, or with a bundle at another name: none."""
    svid = WorkloadSvid(identity=authority.issue())
    with pytest.raises(ValueError, match="without an SVID"):
        WorkloadState(svids=(), bundle=authority.bundle)
    for name, bundle in (
        (authority.trust_domain, authority.bundle),
        (TrustDomain("third.example"), other_authority.bundle),
    ):
        with pytest.raises(ValueError, match=r"federated|stands at"):
            WorkloadState(svids=(svid,), bundle=authority.bundle, federated={name: bundle})


@pytest.mark.spec("SPIFFE-67")
@pytest.mark.parametrize("name", STREAMS)
async def test_each_message_carries_everything(
    served: Served, authority: Authority, other_authority: Authority, name: str
) -> None:
    """The first comes at once; a later one has also what did not change (§4.3)."""
    request, reply = STREAMS[name]
    async with served.client().watch(API + name, request(), reply) as stream:
        assert other_authority.trust_domain.name in str(await stream.recv_message())
        new_keys = replace(authority.bundle, jwt_authorities={"new": generate_key().public_key()})
        new = state_of(authority, crls=(crl_of(authority, 2),))
        served.provider.set(replace(new, bundle=new_keys))
        message = await stream.recv_message()
        assert other_authority.trust_domain.name not in str(message)
        assert "spiffe://example.org" in str(message)


async def test_a_stream_tells_of_its_own_changes_only(served: Served, authority: Authority) -> None:
    """A new SVID is no news for who watches JWT bundles; the next new key is."""
    name = "FetchJWTBundles"
    request, reply = STREAMS[name]
    async with served.client().watch(API + name, request(), reply) as stream:
        await stream.recv_message()
        served.provider.set(state_of(authority, "/ns/a/agent/b", federated=held_federated(served)))
        await served.client().x509()
        keys = {"new": generate_key().public_key()}
        bundle = replace(authority.bundle, jwt_authorities=keys)
        served.provider.set(replace(held(served.provider), bundle=bundle))
        message = await stream.recv_message()
        assert "new" in message.bundles["spiffe://example.org"].decode()


def held_federated(served: Served) -> Any:
    """The federated bundles of the state."""
    return held(served.provider).federated


@pytest.mark.spec("SPIFFE-73")
async def test_who_loses_every_identity_is_told(served: Served) -> None:
    """PermissionDenied in the midst of a stream, and the watch behind it is over (§5.2.1)."""
    request, reply = STREAMS["FetchX509SVID"]
    async with served.client().watch(API + "FetchX509SVID", request(), reply) as stream:
        await stream.recv_message()
        served.provider.set(Refused("the code changed"))
        error = await refused(stream.recv_message())
        assert (error.status, error.message) == (Status.PERMISSION_DENIED, "the code changed")
    await served.until(lambda: served.provider.watching == 0)


@pytest.mark.parametrize("name", [*STREAMS, "FetchJWTSVID"])
async def test_another_process_on_the_connection_gets_nothing(served: Served, name: str) -> None:
    """A caller that became another program is refused, and the reason stays here."""
    client = served.client()
    await client.x509()
    served.callers[0].changed = True
    call = client.ask(API + name, *UNARY[name]) if name in UNARY else _received(client, name)
    error = await refused(call)
    assert error.status is Status.PERMISSION_DENIED
    assert "canary" not in str(error.message)


async def _received(client: Any, name: str) -> Any:
    request, reply = STREAMS[name]
    async with client.watch(API + name, request(), reply) as stream:
        return await stream.recv_message()


async def test_the_caller_is_checked_before_each_answer(
    served: Served, authority: Authority
) -> None:
    """A process that changed after the first message does not get the second."""
    request, reply = STREAMS["FetchX509SVID"]
    async with served.client().watch(API + "FetchX509SVID", request(), reply) as stream:
        await stream.recv_message()
        served.callers[0].changed = True
        served.provider.set(state_of(authority))
        assert (await refused(stream.recv_message())).status is Status.PERMISSION_DENIED


@pytest.mark.spec("SPIFFE-74")
@pytest.mark.spec("SPIFFE-101")
async def test_x509_bundles_are_named_by_their_trust_domain(
    served: Served, authority: Authority, other_authority: Authority
) -> None:
    """The own one is there, with the others, each at ``spiffe://…``, and the CRLs (§5.2.2)."""
    message = await first(served, "FetchX509Bundles")
    assert dict(message.bundles) == {
        "spiffe://example.org": der(authority.bundle),
        "spiffe://other.example": der(other_authority.bundle),
    }
    assert list(message.crl) == list(held(served.provider).crls)


@pytest.mark.spec("SPIFFE-77")
async def test_jwt_bundles_have_keys_of_tokens_only(served: Served, authority: Authority) -> None:
    """Readers that ignore ``use`` find nothing else (§6.2.2)."""
    message = await first(served, "FetchJWTBundles")
    assert set(message.bundles) == {"spiffe://example.org", "spiffe://other.example"}
    keys = json.loads(message.bundles["spiffe://example.org"])["keys"]
    assert [(key["use"], key["kid"]) for key in keys] == [("jwt-svid", authority.kid)]
    assert "x5c" not in keys[0]


@pytest.mark.spec("SPIFFE-76")
async def test_a_jwt_svid_is_for_its_audience(served: Served, authority: Authority) -> None:
    """One for each identity where none is named, and for the named one otherwise (§6.2.1)."""
    client = served.client()
    both = pb.JWTSVIDRequest(audience=["a", "b"])
    answer = await client.ask(API + "FetchJWTSVID", both, pb.JWTSVIDResponse)
    assert [each.spiffe_id[-6:] for each in answer.svids] == ["triage", "second"]
    second = pb.JWTSVIDRequest(audience=["a"], spiffe_id=answer.svids[1].spiffe_id)
    answer = await client.ask(API + "FetchJWTSVID", second, pb.JWTSVIDResponse)
    (only,) = answer.svids
    assert only.spiffe_id.endswith("/second")
    asked = pb.ValidateJWTSVIDRequest(audience="a", svid=only.svid)
    valid = await client.ask(API + "ValidateJWTSVID", asked, pb.ValidateJWTSVIDResponse)
    assert valid.spiffe_id == only.spiffe_id


@pytest.mark.spec("SPIFFE-76")
async def test_another_identity_is_refused(served: Served) -> None:
    """An ID that the caller does not have is PermissionDenied, one that is none InvalidArgument."""
    for text, status in (
        ("spiffe://example.org/ns/support/agent/other", Status.PERMISSION_DENIED),
        ("spiffe://other.example/ns/support/agent/triage", Status.PERMISSION_DENIED),
        ("https://example.org/x", Status.INVALID_ARGUMENT),
        ("spiffe://example.org/ns/support/agent/triage\n", Status.INVALID_ARGUMENT),
    ):
        request = pb.JWTSVIDRequest(audience=["a"], spiffe_id=text)
        asked = served.client().ask(API + "FetchJWTSVID", request, pb.JWTSVIDResponse)
        assert (await refused(asked)).status is status


@pytest.mark.spec("SPIFFE-69")
@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("FetchJWTSVID", pb.JWTSVIDRequest()),
        ("FetchJWTSVID", pb.JWTSVIDRequest(audience=[""])),
        ("FetchJWTSVID", pb.JWTSVIDRequest(audience=["a", ""])),
        ("FetchJWTSVID", pb.JWTSVIDRequest(audience=["a"] * 33)),
        ("FetchJWTSVID", pb.JWTSVIDRequest(audience=["a" * 1025])),
        ("ValidateJWTSVID", pb.ValidateJWTSVIDRequest(svid="x")),
        ("ValidateJWTSVID", pb.ValidateJWTSVIDRequest(audience="a")),
    ],
)
async def test_what_is_needed_is_not_empty(served: Served, name: str, request_: Any) -> None:
    """An empty audience or token, or too many of them, is InvalidArgument, and nobody is asked."""
    asked = served.client().ask(API + name, request_, UNARY[name][1])
    assert (await refused(asked)).status is Status.INVALID_ARGUMENT
    assert served.provider.asked == []


@pytest.mark.spec("SPIFFE-78")
@pytest.mark.spec("SPIFFE-70")
async def test_a_token_is_judged_by_its_own_trust_domain(
    served: Served, authority: Authority, other_authority: Authority
) -> None:
    """ID and claims come back; another audience, or another domain's key, is refused (§6.2.3)."""
    client, provider = served.client(), served.provider
    good = provider.token(authority.id(), ("a", "b"))
    asked = pb.ValidateJWTSVIDRequest(audience="a", svid=good)
    answer = await client.ask(API + "ValidateJWTSVID", asked, pb.ValidateJWTSVIDResponse)
    assert answer.spiffe_id == str(authority.id())
    claims = MessageToDict(answer.claims)
    assert (claims["sub"], claims["aud"]) == (str(authority.id()), ["a", "b"])
    forged = FakeProvider(other_authority, provider.state).token(authority.id(), ("a",))
    for audience, token in (("c", good), ("a", forged), ("a", good[:-4] + "AAAA"), ("a", "x")):
        asked = pb.ValidateJWTSVIDRequest(audience=audience, svid=token)
        call = client.ask(API + "ValidateJWTSVID", asked, pb.ValidateJWTSVIDResponse)
        error = await refused(call)
        assert error.status is Status.INVALID_ARGUMENT
        assert token not in str(error.message) or token == "x"


async def test_a_question_without_an_answer_ends(served: Served) -> None:
    """A client's deadline is kept, whatever the provider does."""
    served.provider.hanging = True
    request, reply = UNARY["FetchJWTSVID"]
    call = UnaryUnaryMethod(served.client().channel, API + "FetchJWTSVID", type(request), reply)
    with pytest.raises(asyncio.TimeoutError):
        await call(request, timeout=0.05, metadata=list(HEADER))

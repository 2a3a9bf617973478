"""WIT-SVIDs from end to end: a process asks its daemon, and a callee believes it by its proof."""

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from support.calling import as_root
from support.node_daemon import Host, host

from accredit_client import calls
from accredit_credentials import wit_svid, workload_proof
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import Revoked
from accredit_credentials.keys import b64url_decode
from accredit_credentials.revocation_feed import FeedState
from accredit_credentials.spiffe_id import TrustDomain
from accredit_issuer.clock import system_clock

pytestmark = [as_root, pytest.mark.interop]

DOMAIN = TrustDomain.parse("example.org")
AUDIENCE = "https://tickets.example.org"

WORKLOAD = '''\
"""An agent that asks for WIT-SVIDs, and says what came of it, one line each."""

import asyncio
import json
import os
import sys

from grpclib.client import Channel, UnaryStreamMethod
from grpclib.exceptions import GRPCError

from accredit_client.daemon.proto import workload_pb2 as pb

uid, gid, socket = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].removeprefix("unix:")
os.setgroups([])
os.setresgid(gid, gid, gid)
os.setresuid(uid, uid, uid)
CALLS = {
    "wit": ("FetchWITSVID", pb.WITSVIDRequest, pb.WITSVIDResponse),
    "bundles": ("FetchWITBundles", pb.WITBundlesRequest, pb.WITBundlesResponse),
}


def say(**what):
    print(json.dumps(what), flush=True)


async def ask(command, messages):
    name, request, reply = CALLS[command]
    channel = Channel(path=socket)
    call = UnaryStreamMethod(channel, f"/SpiffeWorkloadAPI/{name}", request, reply)
    try:
        async with call.open(metadata=[("workload.spiffe.io", "true")]) as stream:
            await stream.send_message(request(), end=True)
            for _ in range(messages):
                message = await stream.recv_message()
                if message is None:
                    await stream.recv_trailing_metadata()
                if command == "bundles":
                    say(bundles=dict(message.bundles))
                else:
                    (svid,) = message.svids
                    say(id=svid.spiffe_id, token=svid.wit_svid, key=svid.wit_svid_key)
            await stream.cancel()
    except GRPCError as error:
        say(status=error.status.name, error=error.message)
    finally:
        channel.close()


say(ready=os.getpid())
for line in sys.stdin:
    command, *messages = line.split()
    asyncio.run(ask(command, int(messages[0]) if messages else 1))
'''


@pytest.fixture
def place() -> Iterator[Host]:
    """A host whose issuer issues WIT-SVIDs of eight seconds, and whose daemon serves them."""
    with host(wit=True) as made:
        made.serves_wit = True
        yield made


def bundle_of(place: Host) -> TrustBundle:
    """What the issuer publishes."""
    return place.issuer.connect().send(calls.bundle(DOMAIN))


def private_key(text: str) -> ec.EllipticCurvePrivateKey:
    """The key of a JWK."""
    return ec.derive_private_key(
        int.from_bytes(b64url_decode(json.loads(text)["d"])), ec.SECP256R1()
    )


@pytest.mark.spec("SPIFFE-48")
@pytest.mark.spec("SPIFFE-79")
def test_a_process_proves_who_it_is(place: Host) -> None:
    """Measured, given a WIT-SVID and its key, renewed for another, and taken back by a fact."""
    agent = place.agent(code=WORKLOAD)
    place.listed()
    place.daemon()
    workload = place.workload(agent)
    said = workload.ask("wit", "2")
    bundle = bundle_of(place)
    published = json.loads(workload_bundles(place, agent)["spiffe://example.org"])["keys"]
    assert {each["kid"] for each in published} == set(bundle.wit_authorities)
    now = system_clock()
    unproven = wit_svid.validate(said["token"], bundles={DOMAIN: bundle}, now=now)
    proof = workload_proof.create_proof(
        private_key(said["key"]),
        wit=said["token"],
        audience=AUDIENCE,
        jti="1",
        expires_at=now + timedelta(seconds=workload_proof.LIFETIME),
    )
    proven = workload_proof.verify_proof(proof, unproven, audience=AUDIENCE, now=now)
    assert str(proven.svid.spiffe_id) == "spiffe://example.org/ns/support/agent/summarizer"
    assert proven.svid.agent is not None
    assert proven.svid.agent.assurance == "node"

    renewed = workload.heard()
    assert renewed["id"] == said["id"]
    assert private_key(renewed["key"]) != private_key(said["key"])

    instance = proven.svid.agent.instance
    place.admin.send(calls.revoke(target=f"instance:{instance}", kind="revoked", reason="incident"))
    facts = FeedState()
    facts.apply(
        place.issuer.connect().send(calls.revocations(after=0, bundle=bundle)), now=system_clock()
    )
    with pytest.raises(Revoked, match="incident"):
        facts.check(proven.svid.marks(), now=system_clock(), max_age=30.0)
    refused = workload.ask("wit")
    while "token" in refused:  # the fact is on its way to the daemon
        refused = workload.ask("wit")
    assert refused["status"] == "PERMISSION_DENIED"


def workload_bundles(place: Host, agent: object) -> dict[str, str]:
    """What another process of the agent is told of WIT keys."""
    other = place.workload(agent)  # type: ignore[arg-type]
    return dict(other.ask("bundles")["bundles"])


@pytest.mark.spec("SPIFFE-66")
def test_a_daemon_without_the_profile_serves_none(place: Host) -> None:
    """Unimplemented, whatever the issuer could do."""
    place.serves_wit = False
    agent = place.agent(code=WORKLOAD)
    place.listed()
    place.daemon()
    workload = place.workload(agent)
    assert workload.ask("wit")["status"] == workload.ask("bundles")["status"] == "UNIMPLEMENTED"


def test_an_issuer_without_wit_svids_is_named() -> None:
    """The daemon serves the profile, and nobody is entitled: denied with the reason."""
    with host() as place:
        place.serves_wit = True
        agent = place.agent(code=WORKLOAD)
        place.listed()
        place.daemon()
        workload = place.workload(agent)
        for _ in range(3):
            said = workload.ask("wit")
            assert said["status"] == "PERMISSION_DENIED"
            assert said["error"] == "the issuer of this trust domain issues no WIT-SVIDs"
        bundles = workload.ask("bundles")["bundles"]
        assert json.loads(bundles["spiffe://example.org"])["keys"] == []

"""py-spiffe, the SPIFFE community's Python library, as a client of what we issue.

It ignores a key's ``use`` (parts.md, trap 3), so it is given the X.509 and the JWT keys apart.
"""

import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from support.interop_world import World
from support.judges import library

from accredit_client import calls

AUDIENCE = "https://api.example.org"


def key_set(world: World, use: str) -> bytes:
    """The bundle's keys of one use, as a JWK Set."""
    document = json.loads(world.running.bundle.to_json())
    keys = [key for key in document["keys"] if key["use"] == use]
    assert keys
    return json.dumps({**document, "keys": keys}).encode()


def test_it_reads_an_agents_x509_svid(world: World) -> None:
    """py-spiffe takes our chain and key, and reads the same SPIFFE ID out of it."""
    spiffe = library("spiffe", "spiffe")
    identity = world.identity
    svid = spiffe.X509Svid.parse(identity.svid.pem.encode(), identity.key_pem)
    assert str(svid.spiffe_id) == str(identity.svid.spiffe_id)
    assert len(svid.cert_chain) == 2


def test_it_reads_our_x509_bundle(world: World) -> None:
    """py-spiffe reads our authorities from PEM."""
    spiffe = library("spiffe", "spiffe")
    domain = spiffe.TrustDomain(str(world.running.bundle.trust_domain))
    bundle = spiffe.X509Bundle.parse(domain, world.running.bundle.x509_pem.encode())
    (authority,) = bundle.x509_authorities
    assert authority.public_bytes(Encoding.DER) == world.root.public_bytes(Encoding.DER)


def test_it_accepts_our_jwt_svid(world: World) -> None:
    """py-spiffe verifies our JWT-SVID with our bundle, for the audience that it was made for."""
    spiffe = library("spiffe", "spiffe")
    domain = spiffe.TrustDomain(str(world.running.bundle.trust_domain))
    bundle = spiffe.JwtBundle.parse(domain, key_set(world, "jwt-svid"))
    answer = world.running.connect(world.identity).send(calls.jwt_svid(audience=[AUDIENCE]))
    svid = spiffe.JwtSvid.parse_and_validate(answer.token, bundle, {AUDIENCE})
    assert str(svid.spiffe_id) == str(world.identity.svid.spiffe_id)


def test_it_refuses_our_jwt_svid_for_another_audience(world: World) -> None:
    """The same token is refused by whom it was not made for."""
    spiffe = library("spiffe", "spiffe")
    errors = library("spiffe.svid.errors", "spiffe")
    domain = spiffe.TrustDomain(str(world.running.bundle.trust_domain))
    bundle = spiffe.JwtBundle.parse(domain, key_set(world, "jwt-svid"))
    answer = world.running.connect(world.identity).send(calls.jwt_svid(audience=[AUDIENCE]))
    with pytest.raises(errors.JwtSvidError, match=r"(?i)audience"):
        spiffe.JwtSvid.parse_and_validate(answer.token, bundle, {"https://other.example.org"})


def test_it_refuses_a_task_token_as_an_svid(world: World) -> None:
    """A task token is no JWT-SVID to py-spiffe: one kind cannot pass for the other."""
    spiffe = library("spiffe", "spiffe")
    errors = library("spiffe.svid.errors", "spiffe")
    domain = spiffe.TrustDomain(str(world.running.bundle.trust_domain))
    bundle = spiffe.JwtBundle.parse(domain, key_set(world, "jwt-svid"))
    wanted = calls.TaskTokenRequest(resource="tickets", actions=("read",), purpose="interop")
    answer = world.running.connect(world.identity).send(calls.task_token(wanted))
    with pytest.raises(errors.JwtSvidError):
        spiffe.JwtSvid.parse_and_validate(
            answer.access_token, bundle, {"https://tickets.example.org"}
        )

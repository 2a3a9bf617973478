"""Task tokens at the resource server: what lets a request through, and each thing that does not."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from support.authority import Authority
from support.fake_issuer import AUDIENCE, ISSUER
from support.world import URL, World

from accredit_client.errors import ProofRefused, Replayed, ReplayMemoryFull
from accredit_client.replay import ReplayMemory
from accredit_client.verify import UNCHECKED, TokenRequest
from accredit_credentials import wit_svid
from accredit_credentials.dpop import verify_proof
from accredit_credentials.errors import (
    Expired,
    InvalidToken,
    NotGranted,
    Revoked,
    Stale,
    Untrusted,
    WrongAudience,
    WrongHolder,
)
from accredit_credentials.keys import generate_key
from accredit_credentials.task_token import Presented
from accredit_credentials.wit_svid import WitSvid

GRANT = {"resource": "tickets", "action": "read"}


def test_a_good_token_is_accepted_and_remembered(world: World) -> None:
    """The same token gives the same value, without another look at its signature."""
    verifier, token = world.verifier(), world.token()
    first = verifier.verify(token, world.presented, **GRANT)
    assert first.client == world.identity.svid.spiffe_id
    assert verifier.verify(token, world.presented, **GRANT) is first


Change = Callable[[World], None]


def _time_passes(world: World) -> None:
    world.now += timedelta(minutes=5)
    world.hear()


def _facts_grow_old(world: World) -> None:
    world.now += timedelta(seconds=31)


def _agent_is_revoked(world: World) -> None:
    world.hear("agent:support/triage")


def _authority_is_dropped(world: World) -> None:
    world.bundle = replace(world.bundle, jwt_authorities={})


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (_time_passes, Expired),
        (_facts_grow_old, Stale),
        (_agent_is_revoked, Revoked),
        (_authority_is_dropped, Untrusted),
    ],
)
def test_a_remembered_token_is_not_a_remembered_yes(
    world: World, change: Change, error: type[Exception]
) -> None:
    """Time, facts and trust are asked for each request, seen before or not."""
    verifier, token = world.verifier(), world.token()
    verifier.verify(token, world.presented, **GRANT)
    change(world)
    with pytest.raises(error):
        verifier.verify(token, world.presented, **GRANT)


def test_holder_and_grant_are_asked_for_each_request(world: World) -> None:
    """A remembered token serves neither another holder nor another action."""
    verifier, token = world.verifier(), world.token()
    verifier.verify(token, world.presented, **GRANT)
    for presented in (Presented(), Presented(certificate="x"), Presented(dpop_key=world.holder)):
        with pytest.raises(WrongHolder):
            verifier.verify(token, presented, **GRANT)
    with pytest.raises(NotGranted):
        verifier.verify(token, world.presented, resource="tickets", action="delete")
    with pytest.raises(NotGranted):
        verifier.verify(token, world.presented, resource="payroll", action="read")


def test_audience_and_issuer_are_whole_strings(world: World) -> None:
    """A prefix or suffix of the expected name is another name."""
    verifier = world.verifier()
    for audience in (AUDIENCE + "/", AUDIENCE[:-1], "https://evil.example/" + AUDIENCE):
        with pytest.raises(WrongAudience):
            verifier.verify(world.token(audience=audience), world.presented, **GRANT)
    for issuer in (ISSUER + "/", ISSUER.upper()):
        with pytest.raises(Untrusted):
            verifier.verify(world.token(issuer=issuer), world.presented, **GRANT)


def test_bearer_tokens_are_refused_unless_asked_for(world: World) -> None:
    """A token that is bound to no key is nobody's, except where the server says otherwise."""
    token = world.fake.task_token()
    with pytest.raises(WrongHolder, match="bound to no key"):
        world.verifier().verify(token, world.presented, **GRANT)
    world.verifier(bearer=True).verify(token, Presented(), **GRANT)


@pytest.mark.spec("SPIFFE-48")
@pytest.mark.parametrize("scheme", ["bearer", "dpop"])
def test_a_wit_svid_is_no_token_of_a_request(world: World, scheme: str) -> None:
    """In ``Authorization`` its type refuses it, borne or with a DPoP proof of its very key."""
    key, authority = generate_key(), world.fake.authority
    svid = WitSvid(
        spiffe_id=world.identity.svid.spiffe_id,
        key=key.public_key(),
        algorithm="ES256",
        expires_at=world.now + timedelta(minutes=15),
    )
    token = wit_svid.sign(svid, authority.jwt_key, authority.kid)
    request = replace(world.dpop_request(token, key=key), scheme=scheme)
    with pytest.raises(InvalidToken, match="typ"):
        world.verifier(bearer=True).verify_request(request, **GRANT)


@pytest.mark.parametrize("target", ["jti", "task", "instance", "manifest", "namespace"])
def test_every_mark_of_a_token_can_be_revoked(world: World, target: str) -> None:
    """One fact about anything that the token carries ends it."""
    verifier, token = world.verifier(), world.token()
    verified = verifier.verify(token, world.presented, **GRANT)
    (mark,) = (mark for mark in verified.marks() if mark.startswith(f"{target}:"))
    world.hear(mark)
    with pytest.raises(Revoked):
        verifier.verify(token, world.presented, **GRANT)


def test_the_memory_of_tokens_is_bounded(world: World) -> None:
    """However many tokens come, only so many are remembered."""
    verifier = world.verifier(cache_size=2)
    for _ in range(5):
        verifier.verify(world.token(), world.presented, **GRANT)
    assert len(verifier._verified) == 2


def test_no_revocation_has_to_be_said(world: World) -> None:
    """Facts that are missing are an error; whoever wants none says so, and gets none."""
    with pytest.raises(ValueError, match="or UNCHECKED"):
        world.verifier(facts=None)
    for nobody in ({"audience": ""}, {"issuer": ""}):
        with pytest.raises(ValueError, match="must be named"):
            world.verifier(**nobody)
    world.hear("agent:support/triage")
    world.verifier(facts=UNCHECKED).verify(world.token(), world.presented, **GRANT)


def test_a_proof_is_good_once(world: World) -> None:
    """A DPoP proof lets one request through; the same proof again is a replay."""
    verifier, token = world.verifier(), world.dpop_token()
    request = world.dpop_request(token)
    verifier.verify_request(request, **GRANT)
    with pytest.raises(Replayed):
        verifier.verify_request(request, **GRANT)
    verifier.verify_request(world.dpop_request(token, jti="another"), **GRANT)


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "POST"},
        {"url": "https://tickets.example.org/tickets/4712"},
        {"url": "https://evil.example/tickets/4711"},
        {"access_token": "another"},
    ],
)
def test_a_proof_for_another_request_is_refused(world: World, changed: dict[str, Any]) -> None:
    """Method, address and token of a proof are this request's."""
    token = world.dpop_token()
    with pytest.raises(ProofRefused):
        world.verifier().verify_request(world.dpop_request(token, **changed), **GRANT)


def test_a_proof_of_another_key_is_refused(world: World) -> None:
    """A stolen token with the thief's own proof is refused."""
    token = world.dpop_token()
    request = world.dpop_request(token, key=generate_key())
    with pytest.raises(WrongHolder):
        world.verifier().verify_request(request, **GRANT)


def test_a_proof_is_asked_for_where_the_token_is_bound_to_one(world: World) -> None:
    """Neither the Bearer scheme nor a missing proof gets around the binding (RFC 9449 §7.2)."""
    verifier, token = world.verifier(), world.dpop_token()
    good = world.dpop_request(token)
    with pytest.raises(WrongHolder):
        verifier.verify_request(replace(good, scheme="bearer"), **GRANT)
    with pytest.raises(ProofRefused):
        verifier.verify_request(replace(good, proof=None), **GRANT)


def test_a_refused_request_uses_no_memory(world: World) -> None:
    """Proofs that would be refused anyway cannot fill the memory."""
    replays = ReplayMemory(size=1)
    verifier, token = world.verifier(replays=replays), world.dpop_token()
    with pytest.raises(NotGranted):
        verifier.verify_request(world.dpop_request(token), resource="payroll", action="read")
    assert len(replays) == 0


def test_a_full_memory_refuses(world: World) -> None:
    """When no proof can be remembered none is accepted, until the oldest could not be used."""
    verifier, token = world.verifier(replays=ReplayMemory(size=2)), world.dpop_token()
    for jti in ("one", "two"):
        verifier.verify_request(world.dpop_request(token, jti=jti), **GRANT)
    with pytest.raises(ReplayMemoryFull):
        verifier.verify_request(world.dpop_request(token, jti="three"), **GRANT)
    world.now += timedelta(seconds=66)
    world.hear()
    verifier.verify_request(world.dpop_request(token, jti="three"), **GRANT)


def test_a_proof_is_remembered_as_long_as_it_is_good(world: World) -> None:
    """Up to the last moment of its acceptance, a proof from the future too, it is remembered."""
    replays, token = ReplayMemory(), world.dpop_token()
    request = world.dpop_request(token, now=world.now + timedelta(seconds=5))

    def prove() -> None:
        proof = verify_proof(
            request.proof or "", method="GET", url=URL, access_token=token, now=world.now
        )
        replays.remember(proof, now=world.now)

    prove()
    world.now += timedelta(seconds=65)
    with pytest.raises(Replayed):
        prove()


def test_a_revoked_peer_is_refused_with_any_token(world: World) -> None:
    """Who shows a revoked certificate is refused, whatever token it brings."""
    request = TokenRequest(
        scheme="bearer",
        token=world.token(),
        certificate=world.certificate,
        method="GET",
        url=URL,
    )
    verifier = world.verifier()
    verifier.verify_request(request, **GRANT)
    world.hear(f"serial:{world.identity.svid.serial}")
    with pytest.raises(Revoked):
        verifier.verify_request(request, **GRANT)


def _connected(world: World, **changes: Any) -> TokenRequest:
    """A request over a connection whose chain is known."""
    values: dict[str, Any] = {
        "scheme": "bearer",
        "token": world.token(),
        "certificate": world.certificate,
        "chain": world.identity.svid.der,
        "method": "GET",
        "url": URL,
        **changes,
    }
    return TokenRequest(**values)


def _root_is_dropped(world: World) -> None:
    other = Authority(now=world.authority.now)
    world.bundle = replace(world.bundle, x509_authorities=other.bundle.x509_authorities)


def _svid_is_over(world: World) -> None:
    world.now = world.identity.svid.not_after + timedelta(seconds=1)
    world.hear()


@pytest.mark.parametrize(
    ("change", "error"), [(_root_is_dropped, Untrusted), (_svid_is_over, Expired)]
)
def test_a_connection_outlives_its_handshake_not_its_authority(
    world: World, change: Change, error: type[Exception]
) -> None:
    """A client's certificate is asked about at each request, with the bundle and time of it."""
    verifier = world.verifier()
    verifier.verify_request(_connected(world), **GRANT)
    change(world)
    with pytest.raises(error, match="SVID of"):
        verifier.verify_request(_connected(world), **GRANT)


def test_a_dropped_root_ends_nobody_elses_connection(world: World) -> None:
    """A client of a root that stays is served on, before and after another root is dropped."""
    verifier, other = world.verifier(), Authority(now=world.authority.now)
    both = (*world.bundle.x509_authorities, other.root.certificate)
    for roots in (world.bundle.x509_authorities, both, world.bundle.x509_authorities):
        world.bundle = replace(world.bundle, x509_authorities=roots)
        verifier.verify_request(_connected(world), **GRANT)


def test_a_chain_that_is_not_the_certificates_is_refused(world: World) -> None:
    """A certificate with intermediates that lead nowhere is nobody's."""
    leaf_only = (world.certificate,)
    with pytest.raises(Untrusted, match="no path"):
        world.verifier().verify_request(_connected(world, chain=leaf_only), **GRANT)


def test_nothing_secret_shows(world: World) -> None:
    """A request's repr has no token and no proof."""
    token = world.dpop_token()
    assert token not in repr(world.dpop_request(token))

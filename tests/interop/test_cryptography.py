"""cryptography's own path validation (a Rust implementation of RFC 5280) on our chains."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509 import verification
from support.interop_world import World

from accredit_issuer.clock import system_clock


def test_an_agents_chain_verifies_as_a_client(world: World) -> None:
    """The verifier accepts our chain and gives back the SPIFFE ID as the only name."""
    store = verification.Store([world.root])
    verifier = verification.PolicyBuilder().store(store).build_client_verifier()
    verified = verifier.verify(world.identity.svid.leaf, list(world.identity.svid.intermediates))
    assert [name.value for name in verified.subjects or ()] == [str(world.identity.svid.spiffe_id)]
    assert verified.chain[-1] == world.root


def test_the_server_verifies_for_its_dns_name(world: World) -> None:
    """The issuer's own certificate is good for its name, and for no other."""
    store = verification.Store([world.root])
    builder = verification.PolicyBuilder().store(store)
    leaf = world.server_certificate()
    builder.build_server_verifier(x509.DNSName("issuer.example.org")).verify(
        leaf, [world.issuing_ca]
    )
    other = builder.build_server_verifier(x509.DNSName("other.example"))
    with pytest.raises(verification.VerificationError):
        other.verify(leaf, [world.issuing_ca])


def test_it_refuses_a_chain_that_is_over_or_torn(world: World) -> None:
    """Tomorrow the same chain is over, and without the issuing CA there is none."""
    builder = verification.PolicyBuilder().store(verification.Store([world.root]))
    tomorrow = builder.time(system_clock() + timedelta(days=1)).build_client_verifier()
    now = builder.build_client_verifier()
    leaf = world.identity.svid.leaf
    with pytest.raises(verification.VerificationError):
        tomorrow.verify(leaf, list(world.identity.svid.intermediates))
    with pytest.raises(verification.VerificationError):
        now.verify(leaf, [])

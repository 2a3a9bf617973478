"""go-spiffe's WITSource at a real daemon: the one other implementation of the WIT profile.

The process is a stranger, written with go-spiffe alone; node, daemon, issuer and measured code are
real. The workload proof is Go's own: what it signs, our verifier believes.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.calling import AGENT_UID, as_root
from support.node_daemon import Host, Workload, host

from accredit_client import calls
from accredit_credentials import wit_svid, workload_proof
from accredit_credentials.errors import WrongHolder
from accredit_credentials.spiffe_id import TrustDomain
from accredit_issuer.clock import system_clock

pytestmark = as_root

AUDIENCE = "https://tickets.example.org"
DOMAIN = TrustDomain("example.org")
SUMMARIZER = "spiffe://example.org/ns/support/agent/summarizer"


@pytest.fixture
def place() -> Iterator[Host]:
    """A host that issues and serves WIT-SVIDs of eight seconds."""
    with host(wit=True) as made:
        made.serves_wit = True
        yield made


def workload(place: Host, judge: Path) -> Workload:
    """A process of the signed Go program."""
    agent = place.agent(files={"judge": judge.read_bytes()})
    place.listed()
    place.daemon()
    address = f"unix://{place.socket}"
    return place.told(str(agent.root / "judge"), "workload", address, uid=AGENT_UID)


@pytest.mark.spec("SPIFFE-41")
@pytest.mark.spec("SPIFFE-48")
@pytest.mark.spec("SPIFFE-79")
def test_its_source_holds_what_it_can_prove(place: Host, judge: Path) -> None:
    """Go validates it, and proves its key; that proof is none for the WIT-SVID that comes next."""
    go = workload(place, judge)
    assert go.ask("wits") == {}
    first = go.ask("wit", SUMMARIZER)
    assert first["id"] == SUMMARIZER
    bundle = place.issuer.connect().send(calls.bundle(DOMAIN))
    bundles = {DOMAIN: bundle}
    proved = go.ask("prove", SUMMARIZER, AUDIENCE)
    unproven = wit_svid.validate(proved["token"], bundles=bundles, now=system_clock())
    proven = workload_proof.verify_proof(
        proved["proof"], unproven, audience=AUDIENCE, now=system_clock()
    )
    assert str(proven.svid.spiffe_id) == SUMMARIZER
    newer = go.ask("wit", SUMMARIZER, first["token"])
    assert newer["token"] != first["token"]
    later = wit_svid.validate(newer["token"], bundles=bundles, now=system_clock())
    with pytest.raises(WrongHolder):
        workload_proof.verify_proof(proved["proof"], later, audience=AUDIENCE, now=system_clock())


@pytest.mark.spec("SPIFFE-48")
@pytest.mark.spec("SPIFFE-50")
@pytest.mark.spec("SPIFFE-77")
def test_it_takes_no_token_for_another(place: Host, judge: Path) -> None:
    """Neither by its type nor by its key: a WIT-SVID is no JWT-SVID for it, nor the other way."""
    go = workload(place, judge)
    go.ask("sources")
    go.ask("wits")
    wit, jwt = go.ask("wit", SUMMARIZER)["token"], go.ask("jwt", AUDIENCE)["token"]
    assert "error" in go.ask("wit-as-jwt", AUDIENCE, wit)
    assert "wit+jwt" in go.ask("jwt-as-wit", jwt)["error"]
    bundle = place.issuer.connect().send(calls.bundle(DOMAIN))
    assert go.ask("wit-bundles") == {"example.org": list(bundle.wit_authorities)}
    assert go.ask("bundles")["jwt"] == {"example.org": list(bundle.jwt_authorities)}


@pytest.mark.spec("SPIFFE-66")
def test_it_hears_that_the_profile_is_not_served(place: Host, judge: Path) -> None:
    """Unimplemented, after which go-spiffe tries no more."""
    place.serves_wit = False
    go = workload(place, judge)
    assert "Unimplemented" in go.ask("wits")["error"]

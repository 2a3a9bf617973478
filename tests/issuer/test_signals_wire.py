"""Security events over the wire: whoever polls by its SVID, and a receiver that wants ours."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest
import trustme
from cryptography import x509
from support.event_receiver import event_receiver, unverified
from support.issuer import (
    Admin,
    RunningIssuer,
    attest,
    join_token_file,
    log_in,
    register,
    running_issuer,
    write_agent,
)
from support.raw_http import RawClient
from support.waiting import until

from accredit_attestors.manifest import generate_signer_key
from accredit_client import calls
from accredit_credentials.x509_svid import X509Identity
from accredit_issuer.clock import system_clock

STREAMS = "/v1/ssf/streams"
AUDIENCE = "https://siem.example.org"
TOML = """\
[agent]
name = "security/{name}"
version = "1.0.0"
owner = "maria@example.org"
purpose = "Hears of facts"
"""


@dataclass
class World:
    """A running issuer, an admin, two agents, and the CA that push endpoints are verified with."""

    running: RunningIssuer
    admin: Admin
    siem: RawClient
    other: RawClient
    ca: trustme.CA

    def caller(self, identity: X509Identity | None = None) -> RawClient:
        """Somebody with this identity."""
        return RawClient.at(self.running.url, self.running.bundle, identity)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask as the admin."""
        answer = self.caller(self.admin.identity).ask(method, path, body)
        assert answer.status in {200, 201, 204}, answer.body
        return answer.json if answer.body else None

    def revoke(self, target: str) -> None:
        """State a fact."""
        self.admin.send(calls.revoke(target=target, kind="revoked", reason="INC-4711"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One issuer for all."""
    folder, ca = tmp_path_factory.mktemp("signals"), trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    settings = {"ca_file": str(folder / "ca.pem")}
    with running_issuer(folder / "issuer", shared_signals=settings) as running:
        admin = log_in(running, running.first_token)
        key, clients = generate_signer_key(), []
        for name in ("siem", "other"):
            toml = TOML.format(name=name)
            agent = write_agent(folder / name, key=key, now=system_clock(), toml=toml)
            register(running, admin, agent)
            identity = attest(running, agent, join_token_file(admin, agent))
            clients.append(RawClient.at(running.url, running.bundle, identity))
        yield World(running, admin, *clients, ca)


@pytest.fixture
def polled(world: World) -> Iterator[str]:
    """The path at which the agent ``siem`` polls a stream of its own."""
    receiver = "spiffe://example.org/ns/security/agent/siem"
    asked = {"name": "siem", "audience": AUDIENCE, "receiver": receiver}
    stream = world.ask("POST", STREAMS, asked)
    yield f"/v1/ssf/poll/{stream['stream_id']}"
    world.ask("DELETE", f"{STREAMS}/siem")


def test_a_receiver_polls_and_acknowledges(world: World, polled: str) -> None:
    """A fact about an agent, asked for with its SVID, verified by PyJWT alone, acknowledged."""
    world.revoke("agent:security/other")
    answer = world.siem.ask("POST", polled, {"returnImmediately": True})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    [(jti, token)] = answer.json["sets"].items()
    claims = judged(world, token)
    assert claims["jti"] == jti
    assert claims["sub_id"]["uri"] == "spiffe://example.org/ns/security/agent/other"
    (event,) = claims["events"].values()
    assert event["initiating_entity"] == "admin"
    body = {"returnImmediately": True, "ack": [jti]}
    assert world.siem.ask("POST", polled, body).json == {"sets": {}, "moreAvailable": False}


def judged(world: World, token: str) -> dict[str, Any]:
    """What PyJWT makes of a SET with nothing but the published documents."""
    nobody = world.caller()
    configuration = nobody.ask("GET", "/.well-known/ssf-configuration").json
    assert configuration["jwks_uri"].endswith("/.well-known/jwks.json")
    keys = jwt.PyJWKSet.from_dict(nobody.ask("GET", "/.well-known/jwks.json").json)
    header = jwt.get_unverified_header(token)
    assert header["typ"] == "secevent+jwt"
    claims: dict[str, Any] = jwt.decode(
        token,
        keys[header["kid"]],
        algorithms=["ES256"],
        audience=AUDIENCE,
        issuer=configuration["issuer"],
        options={"require": ["iss", "jti", "iat", "aud", "sub_id", "events"]},
    )
    return claims


def test_nobody_else_polls_it(world: World, polled: str) -> None:
    """Another agent of ours, an admin and nobody get nothing, and take nothing away."""
    admin = world.caller(world.admin.identity)
    assert admin.ask("POST", polled, {"returnImmediately": True}).kind == "not-found"
    assert world.caller().ask("POST", polled, {}).kind == "unauthenticated"
    stream_id = polled.rpartition("/")[2]
    assert admin.ask("POST", "/v1/ssf/verify", {"stream_id": stream_id}).kind == "not-found"
    assert world.siem.ask("POST", polled, {"returnImmediately": True}).status == 200


def test_a_receiver_that_is_revoked_while_it_waits_is_told_nothing(
    world: World, tmp_path: Path
) -> None:
    """Its call ends with the fact, and as its next one would; another receiver's is answered."""
    key, waiting = generate_signer_key(), []
    for name in ("doomed", "neighbour"):
        toml = TOML.format(name=name)
        agent = write_agent(tmp_path / name, key=key, now=system_clock(), toml=toml)
        register(world.running, world.admin, agent, signer="others")
        identity = attest(world.running, agent, join_token_file(world.admin, agent))
        receiver = f"spiffe://example.org/ns/security/agent/{name}"
        asked = {"name": name, "audience": AUDIENCE, "receiver": receiver}
        path = f"/v1/ssf/poll/{world.ask('POST', STREAMS, asked)['stream_id']}"
        caller = world.caller(identity)
        told = caller.ask("POST", path, {"returnImmediately": True}).json["sets"]
        waiting.append((caller, path, {"ack": list(told)}))
    with ThreadPoolExecutor(2) as pool:
        doomed, neighbour = [pool.submit(each.ask, "POST", *rest) for each, *rest in waiting]
        until(lambda: len(world.running.issuer.stream_polling._newest) == 2)
        world.revoke("agent:security/doomed")
        assert doomed.result().kind == "revoked"
        assert len(neighbour.result().json["sets"]) == 1
    for name in ("doomed", "neighbour"):
        world.ask("DELETE", f"{STREAMS}/{name}")


def test_a_receiver_asks_for_a_verification(world: World, polled: str) -> None:
    """With its own state, at the endpoint that the configuration names."""
    configuration = world.caller().ask("GET", "/.well-known/ssf-configuration").json
    path = "/" + configuration["verification_endpoint"].split("/", 3)[3]
    body = {"stream_id": polled.rpartition("/")[2], "state": "mine"}
    assert world.siem.ask("POST", path, body).status == 204
    sets = world.siem.ask("POST", polled, {"maxEvents": 1}).json["sets"]
    (event,) = unverified(next(iter(sets.values())))["events"].values()
    assert event == {"state": "mine"}


@pytest.mark.parametrize(
    "body",
    [
        {"maxEvents": -1},
        {"maxEvents": "1"},
        {"maxEvents": True},
        {"returnImmediately": "yes"},
        {"ack": "x"},
        {"ack": ["x" * 129]},
        {"ack": ["x"] * 1001},
        {"setErrs": ["x"]},
        {"setErrs": {"x": "y"}},
        {"more": 1},
    ],
)
def test_a_poll_of_another_form_is_malformed(
    world: World, polled: str, body: dict[str, Any]
) -> None:
    """Each member in turn, and one that is not known."""
    assert world.siem.ask("POST", polled, body).kind == "malformed"


def test_a_receiver_that_asks_gets_our_svid(world: World) -> None:
    """A push endpoint that wants a client certificate sees the issuer's own SVID."""
    roots = world.running.bundle.x509_pem
    with event_receiver(world.ca, clients=roots) as receiver:
        asked = {"name": "hook", "audience": AUDIENCE, "endpoint_url": receiver.url}
        world.ask("POST", STREAMS, asked)
        world.ask("POST", f"{STREAMS}/hook/verify", {})
        receiver.wait(1)
        world.ask("DELETE", f"{STREAMS}/hook")
    der = receiver.certificates[0]
    assert der is not None
    names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    ids = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    assert ids == ["spiffe://example.org/accredit/issuer"]

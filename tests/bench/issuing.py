"""Issuing over HTTPS keep-alive: X.509-SVIDs by renewal, JWT-SVIDs, task tokens."""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from typing import Any

from issuers import Bench, Session
from load import Client, Result, drive, request
from rows import Row, measure, milliseconds

from accredit_attestors.contract import CollectContext
from accredit_attestors.plugins import load_attestors
from accredit_client import calls
from accredit_client.tls import peer_check
from accredit_credentials.keys import generate_key
from accredit_credentials.spiffe_id import issuer_id
from accredit_credentials.tls import client_context
from accredit_credentials.x509_svid import X509Identity

CONNECTIONS = 64
FEW = 16
CSRS = 32
BATCH = 100
BATCH_CONNECTIONS = 8
SECONDS = 2.0
ROUNDS = 3

Requests = Callable[[Bench, X509Identity], Sequence[bytes]]


def measured_code(bench: Bench, identity: X509Identity) -> Any:
    """Evidence of the code, for the serial of an SVID."""
    context = CollectContext(
        nonce=identity.svid.serial,
        manifest_file=bench.agent.manifest_file,
        code_root=bench.agent.root,
    )
    digest = load_attestors()["code_digest"].collect(context)
    assert digest is not None
    return digest.to_json()


def renewals(bench: Bench, identity: X509Identity) -> list[bytes]:
    """Renewals with code digest evidence, each for another key."""
    evidence = [measured_code(bench, identity)]
    bodies = (
        {"csr": calls.certificate_request(generate_key()), "evidence": evidence}
        for _ in range(CSRS)
    )
    return [request("POST", "/v1/svids/x509", json.dumps(body).encode()) for body in bodies]


def batches(bench: Bench, identity: X509Identity) -> list[bytes]:
    """A hundred keys of one instance."""
    csrs = [calls.certificate_request(generate_key()) for _ in range(BATCH)]
    body = {"csrs": csrs, "evidence": [measured_code(bench, identity)]}
    return [request("POST", "/v1/svids/x509/batch", json.dumps(body).encode())]


def jwt_requests(_bench: Bench, _identity: X509Identity) -> list[bytes]:
    """JWT-SVIDs for one audience."""
    body = {"audience": ["https://api.example.org"]}
    return [request("POST", "/v1/svids/jwt", json.dumps(body).encode())]


def task_requests(_bench: Bench, _identity: X509Identity) -> list[bytes]:
    """Task tokens, each for a task of its own."""
    bodies = (
        {
            "resource": "tickets",
            "actions": ["read"],
            "task": {"purpose": f"summarise ticket {number}"},
            "principal": "user:maria@example.org",
        }
        for number in range(CSRS)
    )
    return [request("POST", "/v1/task-tokens", json.dumps(body).encode()) for body in bodies]


def health_requests(_bench: Bench, _identity: X509Identity) -> list[bytes]:
    """The cheapest answer: what HTTP alone costs."""
    return [request("GET", "/health/live")]


def connections(
    bench: Bench, identities: Sequence[X509Identity], make: Requests, number: int = CONNECTIONS
) -> list[Client]:
    """Connections, each with the SVID of one of the instances."""
    bundle = bench.wire.bundle
    check = peer_check(issuer_id(bundle.trust_domain))
    made = [
        Client(
            client_context(bundle=bundle, peer_check=check, identity=identity),
            make(bench, identity),
        )
        for identity in identities
    ]
    return list(islice(cycle(made), number))


def rounds(bench: Bench, clients: Sequence[Client], number: int = ROUNDS) -> Result:
    """The median of some runs, by throughput."""
    results = [drive(bench.process, clients, seconds=SECONDS) for _ in range(number)]
    return sorted(results, key=lambda result: result.per_second)[number // 2]


def row_of(
    name: str,
    result: Result,
    *,
    floor: float,
    least: float | None,
    clients: int,
    each: int = 1,
) -> Row:
    """A throughput; ``floor`` is the seconds of arithmetic, ``each`` what one answer holds."""
    per_second = result.per_second * each
    return Row(
        name=name,
        value=per_second,
        unit="1/s",
        floor=1 / floor if floor else None,
        promise=f">= {least:,.0f}/s per core" if least else "",
        met=per_second >= least if least else None,
        note=f"{clients} connections; {result.issuer_cpu / per_second * 1e6:.0f} us of the "
        f"issuer's core each, busy {result.issuer_cpu:.0%}; generator {result.generator_cpu:.0%}",
        **milliseconds(result.latencies),
    )


def measured(
    session: Session, name: str, make: Requests, *, floor: float = 0.0, least: float | None = None
) -> Iterator[Row]:
    """Rows of one kind of request: many connections, which is what counts, and few."""
    clients = connections(session.bench, session.identities, make)
    result = rounds(session.bench, clients)
    yield row_of(name, result, floor=floor, least=least, clients=CONNECTIONS)
    result = rounds(session.bench, clients[:FEW], number=1)
    yield row_of(f"{name}.c{FEW}", result, floor=floor, least=None, clients=FEW)


@measure("x509_issue")
def x509_issue(session: Session) -> Iterator[Row]:
    """X.509-SVIDs, durably recorded."""
    floor = session.floors.x509
    yield from measured(session, "x509_issue", renewals, floor=floor, least=3500)


@measure("jwt_svid")
def jwt_svid(session: Session) -> Iterator[Row]:
    """JWT-SVIDs, durably recorded."""
    yield from measured(session, "jwt_svid", jwt_requests, floor=session.floors.jwt)


@measure("task_token")
def task_token(session: Session) -> Iterator[Row]:
    """Task tokens, decided, recorded, signed."""
    floor = session.floors.jwt
    yield from measured(session, "task_token", task_requests, floor=floor, least=5000)


@measure("http")
def http(session: Session) -> Iterator[Row]:
    """What TLS, HTTP and the framework cost without anything to do."""
    yield from measured(session, "http", health_requests)


@measure("x509_issue_batch_100")
def x509_issue_batch_100(session: Session) -> Iterator[Row]:
    """X.509-SVIDs, a hundred keys in one request."""
    clients = connections(session.bench, session.identities, batches, BATCH_CONNECTIONS)
    result = rounds(session.bench, clients)
    name = f"x509_issue_batch_{BATCH}"
    yield row_of(
        name,
        result,
        floor=session.floors.x509,
        least=6000,
        clients=BATCH_CONNECTIONS,
        each=BATCH,
    )

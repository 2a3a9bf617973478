"""A CRL that everybody asks for, all the time, over connections that stay: whole, or known already.

The floor is a server with the same connections, the same TLS and no application at all.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from issuers import ISSUER_CORE, Process, Session
from load import Client, Result, drive
from rows import Row, measure
from support.raw_http import RawClient
from workload import Child

from accredit_issuer.api.hot_documents import PREFIX, SUFFIX

BARE = Path(__file__).parent / "bare_host.py"
CONNECTIONS = 32
SECONDS = 2.0
ROUNDS = 3


@measure("crl_poll")
def crl_poll(session: Session) -> Iterator[Row]:
    """The CRL of the issuing CA, of nobody who shows a certificate."""
    bench = session.bench
    bundle = bench.wire.bundle
    authority = next(
        mark.partition(":")[2]
        for mark in session.identities[0].svid.marks()
        if mark.startswith("authority:")
    )
    path = f"{PREFIX}{authority}{SUFFIX}"
    nobody = RawClient.at(bench.wire.url, bundle)
    first = nobody.ask("GET", path)
    asked = {
        "whole": _request(path),
        "same": _request(path, f"if-none-match: {first.headers['etag']}\r\n"),
    }
    with _bare() as bare:
        # In turn: what else the machine does meets each of them.
        costs: dict[str, list[tuple[float, float]]] = {name: [] for name in ("bare", *asked)}
        for _ in range(ROUNDS):
            costs["bare"].append(_cost(bare, _anybody(), _request(path)))
            for name, text in asked.items():
                costs[name].append(_cost(bench.process, nobody.context, text))
    floor, _ = min(costs["bare"])
    for name in asked:
        value, per_second = min(costs[name])
        yield Row(
            name=f"crl_poll.{name}",
            value=value,
            unit="us",
            floor=floor,
            note=f"of the issuer's core for an answer of {len(first.body)} bytes at "
            f"{CONNECTIONS} connections, {1e6 / value:,.0f}/s if it had the core to itself "
            f"({per_second:,.0f}/s measured); floor: the same server with no application",
        )


def _cost(process: Process, context: ssl.SSLContext, text: bytes) -> tuple[float, float]:
    """Microseconds of the server's core for an answer, and answers per second."""
    clients = [Client(context, [text])] * CONNECTIONS
    result: Result = drive(process, clients, seconds=SECONDS)
    return result.issuer_cpu / result.per_second * 1e6, result.per_second


def _request(path: str, more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: localhost\r\n{more}\r\n".encode()


def _anybody() -> ssl.SSLContext:
    """The floor's server has a trust domain of its own, which nobody asks about."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def _bare() -> Iterator[Process]:
    child = Child(BARE, core=ISSUER_CORE)
    try:
        said = child.heard()
        yield Process(child.process, said["host"], said["port"], 0.0)
    finally:
        child.process.terminate()
        child.process.communicate(timeout=60)

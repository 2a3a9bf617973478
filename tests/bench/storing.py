"""Whether cost grows with what is stored: issuing, revoking, publishing; and one large CRL."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from filling import store
from issuers import IDENTITIES, Bench, Session, new_folder, running
from issuing import connections, renewals, rounds
from rows import Row, measure, milliseconds

from accredit_client import calls
from accredit_credentials.revocation import FactKind, Target
from accredit_credentials.revocation_feed import FeedState
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.clock import system_clock
from accredit_issuer.issuer import Issuer, open_issuer
from accredit_issuer.registry.changes import Local
from accredit_issuer.revocation.stated import FactRequest
from accredit_issuer.settings import load

STORED = 1_000_000
REVOKED = 100_000
WITHIN = 1.10
REVOCATIONS = 12
CRL_ENTRIES = 100_000
CRL_PROMISED = 0.050


@measure("stored")
def stored(_session: Session) -> Iterator[Row]:
    """A full issuer against an empty one, in the same run."""

    def fill(issuer: Issuer) -> None:
        store(issuer, issued=STORED, revoked=REVOKED)

    scale = f"scale: {STORED:,} stored, {REVOKED:,} revoked"
    with running() as empty, running(fill) as full:
        yield Row(
            name="stored.start",
            value=full.process.seconds_to_ready,
            unit="s",
            floor=empty.process.seconds_to_ready,
            note=f"from start to ready; floor: the empty issuer; {scale}",
        )
        issued = [
            rounds(bench, connections(bench, bench.identities(IDENTITIES), renewals))
            for bench in (empty, full)
        ]
        yield _compared("stored.issue", *(1 / each.per_second for each in issued), scale=scale)
        revoked = [_revoke(bench) for bench in (empty, full)]
        yield _compared("stored.revoke", *map(statistics.median, revoked), scale=scale)
        newest = (REVOCATIONS, REVOKED + REVOCATIONS)
        published = [_ask(*each) for each in zip((empty, full), newest, strict=True)]
        yield _compared(
            "stored.publish",
            *map(statistics.median, published),
            scale=f"the feed for those who know it so far; {scale}",
        )
        for times in ("first", "again"):
            taken, pages = _read_all(full)
            yield Row(
                name=f"stored.snapshot.{times}",
                value=taken,
                unit="s",
                note=f"the whole feed, read, verified and applied; {REVOKED:,} facts in "
                f"{pages} pages" + (", signed already" if times == "again" else ""),
            )


def _compared(name: str, empty: float, full: float, *, scale: str) -> Row:
    return Row(
        name=name,
        value=full * 1000,
        unit="ms",
        floor=empty * 1000,
        promise="within 10 % of an empty issuer",
        met=full <= WITHIN * empty,
        note=f"floor: the empty issuer; {scale}",
    )


def _revoke(bench: Bench) -> list[float]:
    times = []
    for identity in bench.identities(REVOCATIONS):
        call = calls.revoke(target=f"serial:{identity.svid.serial}", kind="revoked", reason="bench")
        started = time.perf_counter()
        bench.admin.send(call)
        times.append(time.perf_counter() - started)
    return times


def _ask(bench: Bench, after: int) -> list[float]:
    client = bench.wire.connect()
    times = []
    for _ in range(REVOCATIONS):
        started = time.perf_counter()
        client.send(calls.revocations(after=after, bundle=bench.wire.bundle))
        times.append(time.perf_counter() - started)
    return times[1:]  # the first one connects


def _read_all(bench: Bench) -> tuple[float, int]:
    """Seconds for a new verifier to know everything, and how many statements that took."""
    client, state, pages, more = bench.wire.connect(), FeedState(), 0, True
    started = time.perf_counter()
    while more:
        statement = client.send(calls.revocations(after=state.next, bundle=bench.wire.bundle))
        state.apply(statement, now=system_clock())
        pages, more = pages + 1, statement.more
    assert len(state) >= REVOKED, "what is measured is the whole feed"
    return time.perf_counter() - started, pages


@measure("crl_100k")
def crl_100k(_session: Session) -> Iterator[Row]:
    """One more revocation on top of a CRL of 100,000 entries, inside the issuer's process."""
    with tempfile.TemporaryDirectory(prefix="accredit-bench-") as name:
        folder = Path(name) / "issuer"
        living: list[str] = []
        new_folder(
            folder,
            lambda issuer: living.extend(
                store(issuer, issued=CRL_ENTRIES + REVOCATIONS, revoked=CRL_ENTRIES)
            ),
        )
        config = load(folder / "issuer.toml")
        started = time.perf_counter()
        issuer = open_issuer(config, system_clock)
        opened = time.perf_counter() - started
        try:
            times = [_state(issuer, serial) for serial in living[:REVOCATIONS]]
            _check_listed(issuer, CRL_ENTRIES + REVOCATIONS)
        finally:
            issuer.close()
    middle = statistics.median(times)
    yield Row(
        name="crl_100k",
        value=middle * 1000,
        unit="ms",
        promise="<= 50 ms",
        met=middle <= CRL_PROMISED,
        note=f"stating a fact to CRL published, {CRL_ENTRIES:,} entries",
        **milliseconds(times),
    )
    yield Row(
        name="crl_100k.start",
        value=opened,
        unit="s",
        note="opening the issuer: its CRL made again of its rows and verified, its facts read",
    )


def _check_listed(issuer: Issuer, expected: int) -> None:
    authority = issuer.authorities.now_in_force.active(AuthorityKind.X509).id
    crl = issuer.revocation.crls.of(authority)
    assert crl is not None
    assert len(x509.load_der_x509_crl(crl.der)) == expected, "what is measured is a whole CRL"


def _state(issuer: Issuer, serial: str) -> float:
    wanted = FactRequest(
        target=Target.parse(f"serial:{serial}"),
        kind=FactKind.REVOKED,
        reason="bench",
        actor=Local("bench"),
    )
    started = time.perf_counter()
    issuer.revocation.state(wanted, issuer.changes, issuer.clock())
    return time.perf_counter() - started

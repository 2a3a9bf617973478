"""Verifying task tokens on the resource server's side, with binding, scope and revocation."""

import gc
import statistics
import time
import tracemalloc
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from floors import bare_verify
from issuers import Session
from rows import Row, measure, milliseconds, percentile
from support.authority import INSTANCE, MANIFEST, Authority

from accredit_client.verify import TaskTokenVerifier
from accredit_credentials import task_token
from accredit_credentials.jwt_svid import AgentBlock
from accredit_credentials.revocation import FactKind, RevocationFact, Target, TargetKind
from accredit_credentials.revocation_feed import FeedState, Statement
from accredit_credentials.task_token import Binding, BindingKind, Grant, Presented, Task

TOKENS = 3000
FACTS = 1000
MANY_FACTS = 10_000
BYTES_A_FACT = 100
AUDIENCE = "https://tickets.example.org"
ISSUER = "https://localhost:8443"
HOLDER = "A" * 43
READ = {"resource": "tickets", "action": "read"}


@measure("verify_task_token")
def verify_task_token(_session: Session) -> Iterator[Row]:
    """First sight and seen before."""
    now = datetime.now(UTC)
    authority = Authority(now=now)
    tokens = [_token(authority, now) for _ in range(TOKENS)]
    verifier = _verifier(authority, _facts(authority, now, FACTS))
    presented = Presented(certificate=HOLDER)
    verifier.verify(_token(authority, now), presented, **READ)

    bare = bare_verify()

    def once() -> tuple[list[float], list[float]]:
        alone, whole = [], []
        for token in tokens:
            started = time.perf_counter()
            bare()
            between = time.perf_counter()
            verifier.verify(token, presented, **READ)
            whole.append(time.perf_counter() - between)
            alone.append(between - started)
        return alone, whole

    alone, first = once()
    _, again = once()
    note = f"{TOKENS} tokens, {FACTS} facts in force"
    # Each beside the other: what the machine does meanwhile it does to both.
    floor, typical = statistics.median(alone), statistics.median(first)
    yield Row(
        name="verify_task_token.first",
        value=typical * 1e6,
        unit="us",
        floor=floor * 1e6,
        promise="<= 1.5 x one signature check",
        met=typical <= 1.5 * floor,
        note=f"{note}; medians, a bare check before each",
        **milliseconds(first),
    )
    typical = statistics.median(again)
    yield Row(
        name="verify_task_token.again",
        value=typical * 1e6,
        unit="us",
        floor=floor * 1e6,
        promise="<= 10 us",
        met=typical <= 10e-6,
        note=note,
        **milliseconds(again),
    )
    tail = percentile([*first, *again], 0.99)
    yield Row(
        name="verify_task_token.p99",
        value=tail * 1000,
        unit="ms",
        promise="p99 < 1 ms",
        met=tail < 1e-3,
        note="first and again together",
    )
    yield from _many_facts(authority, tokens, now)


def _many_facts(authority: Authority, tokens: list[str], now: datetime) -> Iterator[Row]:
    """Whether what is known of revocation makes a token dearer, and the room that it takes."""
    tracemalloc.start()
    state = _facts(authority, now, MANY_FACTS)
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    yield Row(
        name="facts.bytes",
        value=taken / MANY_FACTS,
        unit="B",
        promise=f"<= {BYTES_A_FACT} bytes a fact",
        met=taken <= BYTES_A_FACT * MANY_FACTS,
        note=f"{MANY_FACTS:,} facts about identifiers, with one reason, as a verifier holds them",
    )
    presented = Presented(certificate=HOLDER)
    none, many = _verifier(authority, _facts(authority, now, 0)), _verifier(authority, state)
    times: tuple[list[float], list[float]] = ([], [])
    for token in tokens:  # each first sight beside the other
        for verifier, kept in zip((none, many), times, strict=True):
            started = time.perf_counter()
            verifier.verify(token, presented, **READ)
            kept.append(time.perf_counter() - started)
    floor, typical = map(statistics.median, times)
    yield Row(
        name="facts.verify",
        value=typical * 1e6,
        unit="us",
        floor=floor * 1e6,
        promise="the same as with no facts, within 5 %",
        met=typical <= 1.05 * floor,
        note=f"a task token at first sight, {MANY_FACTS:,} facts in force; floor: none",
        **milliseconds(times[1]),
    )


def _verifier(authority: Authority, facts: FeedState) -> TaskTokenVerifier:
    bundle = authority.bundle
    return TaskTokenVerifier(
        audience=AUDIENCE,
        issuer=ISSUER,
        bundle=lambda: bundle,
        facts=facts,
        max_staleness=600,
    )


def _token(authority: Authority, now: datetime) -> str:
    content = task_token.TaskToken(
        issuer=ISSUER,
        principal="user:maria@example.org",
        client=authority.id(),
        audience=AUDIENCE,
        jti=str(uuid.uuid4()),
        issued_at=now,
        expires_at=now + timedelta(seconds=300),
        grants=(Grant(resource="tickets", location=AUDIENCE, actions=("read", "comment")),),
        task=Task(id=str(uuid.uuid4()), purpose="summarise ticket 4711"),
        agent=AgentBlock(version="1.0.0", instance=INSTANCE, manifest=MANIFEST, assurance="self"),
        binding=Binding(BindingKind.CERTIFICATE, HOLDER),
    )
    return task_token.sign(content, authority.jwt_key, authority.kid)


def _facts(authority: Authority, now: datetime, many: int) -> FeedState:
    state = FeedState()
    facts = tuple(
        RevocationFact(
            sequence=number,
            target=Target(TargetKind.JTI, str(uuid.uuid4())),
            kind=FactKind.REVOKED,
            at=now,
            expires_at=now + timedelta(hours=1),
            reason="bench",
        )
        for number in range(1, many + 1)
    )
    statement = Statement(
        trust_domain=authority.trust_domain, after=0, through=many, as_of=now, facts=facts
    )
    state.apply(statement, now=now)
    return state

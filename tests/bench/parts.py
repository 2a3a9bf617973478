"""Where the time of one issue goes, part by part, inside one process.

``part.*.core`` is the whole of issuing without TLS, HTTP and JSON: many at once, through the real
writer and disk. The other parts are single calls. What is missing between the core and the figure
over HTTPS is the server and the framework.
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvloop
from floors import seconds_each
from issuers import SETTINGS, Session
from rows import Floors, Row, measure
from support.issuer import (
    RunningIssuer,
    attest,
    join_token_file,
    log_in,
    register,
    serving,
    write_agent,
)

from accredit_attestors.contract import CollectContext
from accredit_attestors.manifest import generate_signer_key
from accredit_attestors.plugins import load_attestors
from accredit_client import calls
from accredit_credentials import task_token
from accredit_credentials.keys import generate_key
from accredit_credentials.task_token import Binding, BindingKind
from accredit_credentials.x509_svid import X509Identity
from accredit_issuer.audit.records import Record, RecordKind
from accredit_issuer.clock import system_clock
from accredit_issuer.issuance.attestation import attest_again, parse_evidence
from accredit_issuer.issuance.claimants import claimant_of
from accredit_issuer.issuance.csr import key_of_request
from accredit_issuer.issuance.tokens import TaskTokenRequest
from accredit_issuer.issuer import Issuer, initialise
from accredit_issuer.settings import load

ATTESTORS = load_attestors()
TOGETHER = 64
ISSUES = 3000


@measure("parts")
def parts(session: Session) -> Iterator[Row]:
    """The parts."""
    with tempfile.TemporaryDirectory(prefix="accredit-bench-") as name, ExitStack() as clients:
        folder = Path(name)
        (folder / "issuer.toml").write_text(SETTINGS)
        config = load(folder / "issuer.toml")
        token = initialise(config, system_clock).text
        with serving(config) as (issuer, url):
            running = RunningIssuer(issuer, url, token, clients)
            admin = log_in(running, token)
            agent = write_agent(folder / "agent", key=generate_signer_key(), now=system_clock())
            register(running, admin, agent)
            identity = attest(running, agent, join_token_file(admin, agent))
            clients.close()
            context = CollectContext(
                nonce=identity.svid.serial, manifest_file=agent.manifest_file, code_root=agent.root
            )
            evidence = ATTESTORS["code_digest"].collect(context)
            assert evidence is not None
            yield from _x509(issuer, identity, [evidence.to_json()], session.floors)
            yield from _task(issuer, identity, session.floors)
            yield from _writing(issuer)


def _x509(
    issuer: Issuer, identity: X509Identity, evidence: list[Any], floors: Floors
) -> Iterator[Row]:
    csr = calls.certificate_request(generate_key())
    claimant = claimant_of(issuer.registry, identity.svid)
    now = issuer.clock()
    signed: list[Any] = []
    sign_leaf = issuer.authorities.sign_leaf

    def keep(checked: Any) -> Any:
        signed.append(checked)
        return sign_leaf(checked)

    issuer.authorities.sign_leaf = keep  # type: ignore[method-assign]
    core = _core(lambda: issuer.issuance.agents.renew(identity.svid, csr, evidence))
    issuer.authorities.sign_leaf = sign_leaf  # type: ignore[method-assign]
    checked = signed[0]
    yield _row("x509.core", core, floor=floors.x509, note=f"{TOGETHER} at once, two commits each")
    yield _row("x509.csr", seconds_each(lambda: key_of_request(csr)))
    yield _row(
        "x509.claimant",
        seconds_each(lambda: claimant_of(issuer.registry, identity.svid)),
    )
    yield _row(
        "x509.evidence",
        seconds_each(
            lambda: attest_again(
                parse_evidence(evidence),
                attestors=ATTESTORS,
                nonce=identity.svid.serial,
                manifest=claimant.manifest,
                now=now,
            ),
        ),
    )
    yield _row(
        "x509.sign",
        seconds_each(lambda: sign_leaf(checked)),
        note="build, sign, check what was signed",
    )


def _task(issuer: Issuer, identity: X509Identity, floors: Floors) -> Iterator[Row]:
    wanted = TaskTokenRequest(
        resource="tickets",
        actions=("read",),
        purpose="summarise ticket 4711",
        task_id=None,
        parent_id=None,
        principal="user:maria@example.org",
        binding=Binding(BindingKind.CERTIFICATE, "A" * 43),
    )
    core = _core(lambda: issuer.issuance.tokens.task_token(identity.svid, wanted))
    yield _row("task.core", core, floor=floors.jwt, note=f"{TOGETHER} at once, two commits each")
    with asyncio.Runner() as runner:
        content = runner.run(issuer.issuance.tokens.task_token(identity.svid, wanted)).content
    key, kid = issuer.authorities.jwt_signer()
    yield _row("task.sign", seconds_each(lambda: task_token.sign(content, key, kid)))


def _writing(issuer: Issuer) -> Iterator[Row]:
    record = Record(
        kind=RecordKind.CREDENTIAL_ISSUED,
        at=issuer.clock(),
        actor="spiffe://example.org/ns/support/agent/summarizer",
        subject="0b8f7c1e-5a44-4c0e-9d3a-2f6f1f0a7b11",
        details={"reasons": ["a reason of some length, as they are"] * 5, "credential": "x509"},
    )
    yield _row("write.leaf", seconds_each(record.leaf), note="canonical JSON")

    async def commits() -> float:
        begun = time.perf_counter()
        for _ in range(20):
            futures = [
                asyncio.wrap_future(issuer.writer.run(lambda t: t.record(record)))
                for _ in range(TOGETHER)
            ]
            await asyncio.gather(*futures)
        return (time.perf_counter() - begun) / 20 / TOGETHER

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        each = runner.run(commits())
    yield _row("write.record", each, note=f"one record in a commit of {TOGETHER}, disk included")


def _core(issue: Callable[[], Awaitable[object]]) -> float:
    async def one_after_another(number: int) -> None:
        for _ in range(number):
            await issue()

    async def together() -> float:
        begun = time.perf_counter()
        await asyncio.gather(*(one_after_another(ISSUES // TOGETHER) for _ in range(TOGETHER)))
        return (time.perf_counter() - begun) / (ISSUES // TOGETHER * TOGETHER)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(together())
        return runner.run(together())


def _row(name: str, seconds: float, *, floor: float | None = None, note: str = "") -> Row:
    return Row(
        name=f"part.{name}",
        value=seconds * 1e6,
        unit="us",
        floor=floor * 1e6 if floor else None,
        note=note,
    )

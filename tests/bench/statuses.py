"""What Token Status Lists cost: issuing with them, and a list after one more fact."""

import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from issuers import IDENTITIES, Session, new_folder, running
from issuing import connections, rounds, task_requests
from rows import Row, measure

from accredit_credentials.revocation import FactKind, Target
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.clock import system_clock
from accredit_issuer.issuer import Issuer, open_issuer
from accredit_issuer.registry.changes import Local
from accredit_issuer.revocation.stated import FactRequest
from accredit_issuer.settings import load
from accredit_issuer.store.bulk import BulkInsert
from accredit_issuer.store.models import credentials, instances, manifests, tasks
from accredit_issuer.store.writer import Transaction

LISTS = '\n[revocation]\nstatus_list_url = "https://lists.example.org"\n'
LIVING = 100_000
PAIRS = 6
FACTS = 7
GROUP = 5000
FIRST = 10_000_000  # numbers that the issuer itself does not come to
AGENT = "stored/agent"


@measure("status_lists")
def status_lists(_session: Session) -> Iterator[Row]:
    """Task tokens with and without an index, in turn; and lists of 100,000 living tokens."""
    with running() as without, running(more=LISTS) as listing:
        sides = [
            (bench, connections(bench, bench.identities(IDENTITIES), task_requests))
            for bench in (without, listing)
        ]
        # In pairs: what else the machine does meets both.
        results = []
        for number in range(PAIRS):
            pair = [rounds(*side, number=1) for side in sides[:: 1 if number % 2 else -1]]
            results.append(pair[:: 1 if number % 2 else -1])
        costs = [[r.issuer_cpu / r.per_second * 1e6 for r in pair] for pair in results]
        before, after = (statistics.median(column) for column in zip(*costs, strict=True))
        yield Row(
            name="status_lists.issue",
            value=after,
            unit="us",
            floor=before,
            note="of the issuer's core for a task token that names its index; floor: one that "
            f"names none; pairs: {', '.join(f'{b / a:.2f}' for a, b in costs)}",
        )
    yield from _made()


def _made() -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="accredit-bench-") as name:
        folder = Path(name) / "issuer"
        new_folder(folder, more=LISTS)
        issuer = open_issuer(load(folder / "issuer.toml"), system_clock)
        try:
            jtis, task = _fill(issuer)
            list_id = issuer.status_lists.uris()[0].rpartition("/")[2]
            for what, targets in (
                ("jti", [f"jti:{jti}" for jti in jtis[:FACTS]]),
                ("task", [f"task:{task}"] * FACTS),
                ("agent", [f"agent:{AGENT}"] * FACTS),
            ):
                times = list(_times(issuer, list_id, targets))
                yield Row(
                    name=f"status_lists.{what}",
                    value=statistics.median(times) * 1000,
                    unit="ms",
                    note=f"a signed list after one more fact about a {what}; {LIVING:,} living "
                    f"tokens, of which it means {'all' if what == 'agent' else 'one'}",
                )
        finally:
            issuer.close()


def _times(issuer: Issuer, list_id: str, targets: list[str]) -> Iterator[float]:
    kinds = (FactKind.SUSPENDED, FactKind.RESTORED)
    for number, target in enumerate(targets):
        repeated = targets.count(target) > 1
        request = FactRequest(
            target=Target.parse(target),
            kind=kinds[number % 2] if repeated else FactKind.SUSPENDED,
            reason="bench",
            actor=Local("bench"),
        )
        issuer.revocation.state(request, issuer.changes, issuer.clock())
        begun = time.perf_counter()
        issuer.status_lists.signed(list_id)
        yield time.perf_counter() - begun


def _fill(issuer: Issuer) -> tuple[list[str], str]:
    """Tokens of one agent, each of a task of its own, all alive; their jtis, and one task."""
    now = issuer.clock()
    instance, manifest = str(uuid.uuid4()), "sha256:" + "5e" * 32
    agent = {"agent": AGENT, "log_index": 0}
    issuer.writer.run(
        lambda t: (
            t.add(
                BulkInsert(manifests),
                {
                    **agent, "digest": manifest, "namespace": "stored", "version": "1",
                    "owner": "o", "signer": "s", "envelope": "", "registered_at": now,
                    "registered_by": "bench", "expires_at": now + timedelta(days=1),
                },
            ),
            t.add(
                BulkInsert(instances),
                {
                    **agent, "id": instance, "manifest": manifest, "assurance": "self",
                    "selectors": [], "born_at": now,
                },
            ),
        )
    ).result()  # fmt: skip
    jtis = [str(uuid.uuid4()) for _ in range(LIVING)]
    ids = [str(uuid.uuid4()) for _ in range(LIVING)]
    authority = issuer.authorities.now_in_force.active(AuthorityKind.JWT).id

    def write(transaction: Transaction, start: int) -> None:
        for number in range(start, start + GROUP):
            place = issuer.status_lists.take(now + timedelta(seconds=300))
            assert place is not None
            transaction.add(
                _TASK,
                {
                    "id": ids[number],
                    "instance": instance,
                    "purpose": "x",
                    "principal": "x",
                    "ancestors": [ids[number - 1]],
                    "created_at": now,
                },
            )
            transaction.add(
                _CREDENTIAL,
                {
                    "number": FIRST + number, "id": jtis[number], "kind": "task",
                    "subject": "spiffe://example.org/ns/stored/agent/agent",
                    "instance": instance, "task": ids[number], "authority": authority,
                    "decided_at": now, "expires_at": now + timedelta(seconds=300),
                    "status_list": place.list_id, "status_index": place.index,
                },
            )  # fmt: skip

    for start in range(0, LIVING, GROUP):
        issuer.writer.run(lambda t, start=start: write(t, start)).result()  # type: ignore[misc]
    return jtis, ids[-1]


_TASK = BulkInsert(tasks)
_CREDENTIAL = BulkInsert(credentials)

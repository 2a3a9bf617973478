"""The disk is full: nothing is released, everybody is told when to come back, and it recovers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event, func, select
from support.issuer import (
    attest,
    join_token_file,
    log_in,
    register,
    running_issuer,
    write_agent,
)
from support.raw_http import Answer, RawClient

from accredit_attestors.manifest import generate_signer_key
from accredit_issuer.clock import system_clock
from accredit_issuer.issuer import Issuer
from accredit_issuer.store.models import releases

TASK = {"resource": "tickets", "actions": ["read"], "task": {"purpose": "x" * 500}}


@contextmanager
def full_disk(engine: Engine) -> Iterator[None]:
    """SQLite may not grow the file by another page: the same error as that of a full disk."""

    def limit(connection: Any) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    def unlimited(connection: Any) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 1073741823")

    event.listen(engine, "begin", limit)
    try:
        yield
    finally:
        event.remove(engine, "begin", limit)
        event.listen(engine, "begin", unlimited)


def released(issuer: Issuer) -> int:
    """How many credentials were released."""
    with issuer.database.read() as connection:
        return connection.scalar(select(func.count()).select_from(releases)) or 0


def test_nothing_is_released_that_is_not_recorded(tmp_path: Path) -> None:
    """While nothing can be written every kind of request gets a 503, and afterwards its answer."""
    with running_issuer(tmp_path / "issuer") as running:
        issuer = running.issuer
        admin = log_in(running, running.first_token)
        agent = write_agent(tmp_path / "agent", key=generate_signer_key(), now=system_clock())
        register(running, admin, agent)
        identity = attest(running, agent, join_token_file(admin, agent))
        as_agent = RawClient.at(running.url, running.bundle, identity)
        as_admin = RawClient.at(running.url, running.bundle, admin.identity)
        revocation = {"target": f"serial:{identity.svid.serial}", "reason": "x" * 500}

        def ask() -> list[Answer]:
            return [
                as_agent.ask("POST", "/v1/task-tokens", TASK),
                as_agent.ask("POST", "/v1/svids/jwt", {"audience": ["x" * 2000]}),
                as_admin.ask("POST", "/v1/agents/support/summarizer/join-tokens", {}),
            ]

        with full_disk(issuer.database.writing):
            # Until the pages that are there are full.
            for _ in range(200):
                if all(answer.status == 503 for answer in ask()):
                    break
            head, before = issuer.log.head, released(issuer)
            answers = [*ask(), as_admin.ask("POST", "/v1/revocations", revocation)]
            for answer in answers:
                assert (answer.status, answer.kind) == (503, "unavailable")
                assert int(answer.headers["retry-after"]) > 0
                assert b"INSERT" not in answer.body
            assert issuer.log.head is head
            assert released(issuer) == before
            assert issuer.feed.through == 0
            # What needs no writing goes on.
            assert as_admin.ask("GET", "/v1/whoami").status == 200
            assert as_admin.ask("GET", "/v1/bundle").status == 200
        assert [answer.status for answer in ask()] == [200, 200, 201]
        assert as_admin.ask("POST", "/v1/revocations", revocation).status == 201
        assert issuer.log.frontier.size > head.frontier.size
        assert as_agent.ask("POST", "/v1/task-tokens", TASK).kind == "revoked"

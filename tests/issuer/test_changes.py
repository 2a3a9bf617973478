"""What admins change is decided again in the moment in which it is written."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from sqlalchemy import delete, update
from support.issuer import RunningIssuer, log_in, running_issuer, write_agent
from support.offline import Offline, offline_issuer
from support.raw_http import Answer, RawClient

from accredit_attestors.manifest import generate_signer_key, public_key_pem
from accredit_client import calls
from accredit_credentials.revocation import FactKind, Target
from accredit_credentials.x509_svid import X509Identity
from accredit_issuer.app import make_app
from accredit_issuer.audit.log import LogReader
from accredit_issuer.clock import system_clock
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.registry.changes import Actor, AdminActor, Local
from accredit_issuer.registry.roles import Admin, Operation, Role
from accredit_issuer.revocation.stated import FactRequest
from accredit_issuer.store.models import admins
from accredit_issuer.store.writer import Transaction

TIMEOUT = 20
EVIL = "spiffe://example.org/admin/evil"


@dataclass
class World:
    """An issuer, an admin called evil, and who asked the writer for something."""

    running: RunningIssuer
    identity: X509Identity
    asked: "Queue[str]"

    @property
    def evil(self) -> RawClient:
        """Evil at the issuer, with the bundle as it is now."""
        return RawClient.at(self.running.url, self.running.bundle, self.identity)

    @contextmanager
    def held(self) -> Iterator[None]:
        """What is written inside waits, and goes on in its order at the end."""
        reached, go = threading.Event(), threading.Event()

        def hold(_transaction: Transaction) -> None:
            reached.set()
            assert go.wait(TIMEOUT)

        future = self.running.issuer.writer.run(hold, alone=True)
        assert reached.wait(TIMEOUT)
        try:
            yield
        finally:
            go.set()
            future.result(TIMEOUT)

    def wait_for(self, name: str) -> None:
        """Until something that this actor changes waits for the writer."""
        while self.asked.get(timeout=TIMEOUT) != name:
            pass

    def state(self, kind: FactKind) -> None:
        """State a fact about evil."""
        self.running.issuer.state(
            FactRequest(
                target=Target.parse("admin:evil"), kind=kind, reason="x", actor=Local("test")
            )
        )

    def overtaken(self, call: Callable[[], Answer]) -> Answer:
        """The answer to a call that is let in, and waits while its caller is suspended."""
        with ThreadPoolExecutor(2) as threads:
            with self.held():
                fact = threads.submit(self.state, FactKind.SUSPENDED)
                self.wait_for("test")
                answer = threads.submit(call)
                self.wait_for(EVIL)
            fact.result(TIMEOUT)
            return answer.result(TIMEOUT)

    def records(self) -> list[dict[str, Any]]:
        """The log."""
        with self.running.issuer.database.read() as connection:
            entries = LogReader(connection).entries(0, 10_000)
        return [json.loads(entry.leaf) for entry in entries]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Everybody is there, and nothing waits."""
    with running_issuer(tmp_path / "issuer") as running:
        first = log_in(running, running.first_token)
        invitation = first.send(calls.add_admin(name="evil", role="admin", namespaces=[]))
        evil = log_in(running, invitation.enrolment_token)
        issuer, asked, here = running.issuer, Queue[str](), threading.local()
        make, run = issuer.changes.make, issuer.writer.run

        def noted_make(work: Any, *, by: Actor, **rest: Any) -> Any:
            here.name = by.name
            return make(work, by=by, **rest)

        def noted_run(work: Any, **rest: Any) -> Any:
            future = run(work, **rest)
            asked.put(getattr(here, "name", ""))
            return future

        monkeypatch.setattr(issuer.changes, "make", noted_make)
        monkeypatch.setattr(issuer.writer, "run", noted_run)
        yield World(running, evil.identity, asked)


def changes_of_admins(world: World) -> set[str]:
    """Every route by which an admin changes something."""
    return {
        f"{method} {route.path}"
        for route in make_app(world.running.issuer).routes
        for method in getattr(route, "methods", ())
        for each in getattr(getattr(route, "dependant", None), "dependencies", ())
        if each.call.__qualname__.startswith("Callers.admin") and method not in {"GET", "HEAD"}
    }


def test_no_change_of_an_admin_stands_after_the_fact_against_it(
    world: World, tmp_path: Path
) -> None:
    """Every change that was let in before its admin was suspended is refused when it is written.

    The same call is carried out once the admin is restored, so the fact alone made the difference.
    """
    running, key = world.running, generate_signer_key()
    agent = write_agent(tmp_path / "agent", key=key, now=system_clock())
    pem = public_key_pem(key.public_key()).decode()

    def root(state: str) -> str:
        known = running.issuer.rollover.overview()
        return next(a["id"] for a in known if (a["kind"], a["state"]) == ("root", state))

    federation = {
        "trust_domain": "b.example",
        "profile": "https_web",
        "endpoint_url": "https://localhost:9/bundle",
    }
    stream = {"name": "siem", "audience": "siem", "endpoint_url": "https://localhost:9/events"}
    signer = {"name": "ci", "public_key": pem, "namespaces": ["support"]}
    # In this order: each finds what the one before it made.
    table: dict[str, tuple[Callable[[], str], Any]] = {
        "POST /v1/admins": (
            lambda: "/v1/admins",
            {"name": "friend", "role": "admin", "namespaces": []},
        ),
        "POST /v1/signers": (lambda: "/v1/signers", signer),
        "POST /v1/manifests": (lambda: "/v1/manifests", {"envelope": agent.envelope}),
        "POST /v1/agents/{namespace}/{name}/join-tokens": (
            lambda: "/v1/agents/support/summarizer/join-tokens",
            {},
        ),
        "POST /v1/revocations/preview": (
            lambda: "/v1/revocations/preview",
            {"target": "admin:first", "kind": "suspended", "reason": "revenge"},
        ),
        "POST /v1/revocations": (
            lambda: "/v1/revocations",
            {"target": "admin:first", "kind": "suspended", "reason": "revenge"},
        ),
        "POST /v1/authorities/{kind}/prepare": (lambda: "/v1/authorities/root/prepare", {}),
        "POST /v1/authorities/{authority}/activate": (
            lambda: f"/v1/authorities/{root('prepared')}/activate",
            {"early": True},
        ),
        "POST /v1/authorities/{authority}/taint": (
            lambda: f"/v1/authorities/{root('retired')}/taint",
            {"reason": "x"},
        ),
        "POST /v1/federation": (lambda: "/v1/federation", federation),
        "PUT /v1/federation/{trust_domain}/allows": (
            lambda: "/v1/federation/b.example/allows",
            {"allows": []},
        ),
        "POST /v1/federation/{trust_domain}/refresh": (
            lambda: "/v1/federation/b.example/refresh",
            {},
        ),
        "DELETE /v1/federation/{trust_domain}": (lambda: "/v1/federation/b.example", None),
        "POST /v1/subordinates": (
            lambda: "/v1/subordinates",
            {"agent": "support/summarizer", "namespaces": ["payments"]},
        ),
        "DELETE /v1/subordinates/{namespace}/{name}": (
            lambda: "/v1/subordinates/support/summarizer",
            None,
        ),
        "POST /v1/nodes": (
            lambda: "/v1/nodes",
            {"name": "build-7", "attestation": "join_token", "namespaces": ["support"]},
        ),
        "PUT /v1/nodes/{name:node}/namespaces": (
            lambda: "/v1/nodes/build-7/namespaces",
            {"namespaces": ["payments"]},
        ),
        "POST /v1/ssf/streams": (lambda: "/v1/ssf/streams", stream),
        "POST /v1/ssf/streams/{name}/verify": (lambda: "/v1/ssf/streams/siem/verify", {}),
        "DELETE /v1/ssf/streams/{name}": (lambda: "/v1/ssf/streams/siem", None),
        "POST /v1/nodes/{name:node}/join-tokens": (lambda: "/v1/nodes/build-7/join-tokens", {}),
        "DELETE /v1/nodes/{name:node}": (lambda: "/v1/nodes/build-7", None),
        # Last: with the root goes the CA of the admin's own SVID.
        "POST /v1/authorities/{authority}/revoke": (
            lambda: f"/v1/authorities/{root('tainted')}/revoke",
            {"reason": "x"},
        ),
    }
    assert set(table) == changes_of_admins(world)
    for route, (path_of, body) in table.items():
        method, path = route.partition(" ")[0], path_of()
        before = len(world.records())
        answer = world.overtaken(lambda m=method, p=path, b=body: world.evil.ask(m, p, b))
        assert (answer.status, answer.kind) == (403, "revoked"), (route, answer.body)
        since = world.records()[before:]
        assert "test" in {record["actor"] for record in since}, "the fact is among them"
        assert EVIL not in {record["actor"] for record in since}, route
        world.state(FactKind.RESTORED)
        again = world.evil.ask(method, path, body)
        assert again.status in {200, 201, 204}, (route, again.body)


def actor(offline: Offline, **changes: Any) -> AdminActor:
    """An admin who may manage admins, with ``changes``."""
    by = Local("test")
    offline.issuer.administration.invite(Admin("evil", Role.ADMIN), by=by, now=offline.clock())
    good: dict[str, Any] = {
        "name": EVIL,
        "admin": "evil",
        "marks": ("admin:evil",),
        "operation": Operation.MANAGE_ADMINS,
        "namespace": None,
    }
    return AdminActor(**{**good, **changes})


CHANGED = {
    "a lower role": update(admins).where(admins.c.name == "evil").values(role="viewer"),
    "no such admin": delete(admins).where(admins.c.name == "evil"),
}


@pytest.mark.parametrize("statement", CHANGED.values(), ids=CHANGED)
def test_the_role_is_asked_again(tmp_path: Path, statement: Any) -> None:
    """A role that was lowered since the call was let in does not carry the change."""
    with offline_issuer(tmp_path / "issuer") as offline:
        changes, by = offline.issuer.changes, actor(offline)
        assert changes.make(lambda _: "made", by=by) == "made"
        offline.issuer.writer.run(lambda t: t.execute(statement)).result()
        with pytest.raises(Refusal) as refused:
            changes.make(lambda _: "made", by=by)
        assert refused.value.kind is Kind.FORBIDDEN


def test_a_role_over_namespaces_is_one_over_these(tmp_path: Path) -> None:
    """An owner's change is asked for with the namespace that it is in."""
    with offline_issuer(tmp_path / "issuer") as offline:
        owner = Admin("ann", Role.OWNER, ("support",))
        offline.issuer.administration.invite(owner, by=Local("test"), now=offline.clock())
        for namespace in ("support", "payments", None):
            by = actor(offline, admin="ann", operation=Operation.ENROL, namespace=namespace)
            if namespace == "support":
                assert offline.issuer.changes.make(lambda _: "made", by=by) == "made"
                continue
            with pytest.raises(Refusal, match="does not allow to enrol"):
                offline.issuer.changes.make(lambda _: "made", by=by)


@pytest.mark.parametrize(
    ("target", "change"),
    [
        ("signer:ci", "register"),
        ("owner:maria@example.org", "register"),
        ("agent:support/summarizer", "register"),
        ("namespace:support", "enrol"),
        ("admin:evil", "invite"),
    ],
)
def test_what_a_change_is_about_is_asked_for_too(tmp_path: Path, target: str, change: str) -> None:
    """What was revoked since it was verified is not registered, enrolled or invited."""
    with offline_issuer(tmp_path / "issuer") as offline:
        known, by = offline.register(), Local("test")
        actor(offline)
        administration = offline.issuer.administration
        evil = Admin("evil", Role.ADMIN)
        make: dict[str, Callable[[], Any]] = {
            "register": lambda: administration.register(known, by=by, now=offline.clock()),
            "enrol": lambda: offline.join_token(known),
            "invite": lambda: administration.invite(evil, by=by, now=offline.clock()),
        }
        make[change]()
        offline.state(target)
        with pytest.raises(Refusal) as refused:
            make[change]()
        assert refused.value.kind is Kind.REVOKED

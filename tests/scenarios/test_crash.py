"""The issuer is killed while it works: what anybody received is on record, nothing is undone."""

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from support.issuer import (
    Admin,
    AgentFolder,
    attest,
    evidence_for,
    join_token_file,
    log_in,
    register,
    write_agent,
)
from support.process import IssuerProcess, issuer_process, stop, write_settings

from accredit_attestors.manifest import generate_signer_key
from accredit_client import calls
from accredit_client.errors import ClientError, IssuerRefused
from accredit_credentials import checkpoint as notes
from accredit_credentials.checkpoint import Checkpoint, LogKey
from accredit_credentials.keys import generate_key
from accredit_credentials.merkle import leaf_hash, root_of_hashes
from accredit_credentials.x509_svid import X509Identity
from accredit_issuer.clock import system_clock

ROUNDS = 3
TIMEOUT = 30.0


@dataclass
class Received:
    """What clients hold in their hands, as it comes in from several threads."""

    credentials: set[str] = field(default_factory=set)
    revoked: set[str] = field(default_factory=set)
    changed: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def add(self, credential: str) -> None:
        """Somebody received a credential."""
        with self.changed:
            self.credentials.add(credential)
            self.changed.notify_all()

    def wait_for(self, number: int) -> None:
        """Wait until there are so many."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.credentials) >= number, TIMEOUT)


@dataclass
class World:
    """The process, an admin, an agent, and everything that was seen of the issuer."""

    process: IssuerProcess
    identity: X509Identity
    agent: AgentFolder
    received: Received = field(default_factory=Received)
    checkpoints: list[Checkpoint] = field(default_factory=list)

    @property
    def admin(self) -> Admin:
        """The admin, on the process of the moment."""
        return Admin(self.process.connect(self.identity), self.identity)

    def new_instance(self) -> X509Identity:
        """Attest; what comes back was received."""
        with self.admin.client as client:
            token = join_token_file(Admin(client, self.identity), self.agent)
        identity = attest(self.process, self.agent, token)  # type: ignore[arg-type]
        self.received.add(identity.svid.serial)
        return identity


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An issuer in a process of its own, with one agent registered."""
    with issuer_process(write_settings(tmp_path)) as process:
        admin = log_in(process, process.first_token)  # type: ignore[arg-type]
        agent = write_agent(tmp_path / "agent", key=generate_signer_key(), now=system_clock())
        register(process, admin, agent)  # type: ignore[arg-type]
        admin.client.close()
        yield World(process, admin.identity, agent)


def keep_asking(world: World, identity: X509Identity) -> None:
    """Ask for one credential after the other until the issuer is gone."""
    wanted = calls.TaskTokenRequest(resource="tickets", actions=("read",), purpose="x")
    try:
        with world.process.connect(identity) as client:
            while True:
                world.received.add(client.send(calls.task_token(wanted)).jti)
                world.received.add(client.send(calls.jwt_svid(audience=["a"])).jti)
                evidence = [
                    each
                    for each in evidence_for(world.agent, identity.svid.serial, _any_token(world))
                    if each["kind"] == "code_digest"
                ]
                call = calls.x509_svid(
                    csr=calls.certificate_request(generate_key()), evidence=evidence
                )
                world.received.add(client.send(call).serial)
    except ClientError:
        return


def _any_token(world: World) -> Path:
    return next(world.agent.root.parent.glob("join-*.token"))


def crash_while_issuing(world: World, number: int, meanwhile: Callable[[], None]) -> None:
    """Kill the issuer once ``number`` more credentials were received, and start it again."""
    identities = [world.new_instance() for _ in range(4)]
    threads = [
        threading.Thread(target=keep_asking, args=(world, identity)) for identity in identities
    ]
    before = len(world.received.credentials)
    for thread in threads:
        thread.start()
    meanwhile()
    world.received.wait_for(before + number)
    world.process.kill()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    world.process.start()


def read_log(world: World) -> list[Any]:
    """Every entry; the log is verified against its checkpoint and all that were seen before."""
    with world.admin.client as client:
        key = LogKey.parse(client.send(calls.log_key()).strip())
        newest = notes.verify(
            client.send(calls.log_checkpoint()), origin="example.org/accredit-log", keys=[key]
        )
        entries: list[Any] = []
        while len(entries) < newest.size:
            entries += client.send(calls.log_entries(start=len(entries), limit=512)).entries
    hashes = [leaf_hash(entry.leaf) for entry in entries]
    for seen in [*world.checkpoints, newest]:
        assert root_of_hashes(hashes[: seen.size]) == seen.root, "the log took something back"
    world.checkpoints.append(newest)
    return entries


def check_nothing_is_lost(world: World) -> None:
    """Whatever a client received is in the log, and whatever was revoked is on a CRL."""
    issued = {
        entry.record["subject"]
        for entry in read_log(world)
        if entry.record["kind"] == "credential.issued"
    }
    assert world.received.credentials <= issued
    with world.admin.client as client:
        bundle = client.send(calls.bundle(world.process.bundle.trust_domain))
        facts = client.send(calls.revocations(after=0, bundle=bundle)).facts
        authority = world.identity.svid.marks()[1].partition(":")[2]
        crl = x509.load_der_x509_crl(client.send(calls.crl(authority)))
    for serial in world.received.revoked:
        assert f"serial:{serial}" in {str(fact.target) for fact in facts}
        assert crl.get_revoked_certificate_by_serial_number(int(serial, 16)) is not None


def test_killed_while_it_issues(world: World) -> None:
    """Killed at any moment: received is recorded, the log only grew, revoked stays revoked."""
    randomness = random.Random()  # noqa: S311 (any moment will do)
    for _ in range(ROUNDS):
        spent, unspent = _tokens(world)
        gone = world.new_instance()

        def revoke(gone: X509Identity = gone) -> None:
            with world.admin.client as client:
                target = f"serial:{gone.svid.serial}"
                client.send(calls.revoke(target=target, kind="revoked", reason="x"))
                world.received.revoked.add(gone.svid.serial)

        crash_while_issuing(world, randomness.randint(1, 150), revoke)
        check_nothing_is_lost(world)
        # Before anything else is asked of the new process (Vault CVE-2022-41316).
        with world.process.connect(gone) as client, pytest.raises(IssuerRefused) as refused:
            client.send(calls.whoami())
        assert refused.value.kind == "revoked"
        with pytest.raises(IssuerRefused) as refused:
            attest(world.process, world.agent, spent)  # type: ignore[arg-type]
        assert "used before" in str(refused.value)
        attest(world.process, world.agent, unspent)  # type: ignore[arg-type]
    assert stop(world.process) == 0
    world.process.start()
    check_nothing_is_lost(world)


def _tokens(world: World) -> tuple[Path, Path]:
    """A spent join token and an unspent one."""
    with world.admin.client as client:
        admin = Admin(client, world.identity)
        spent, unspent = (join_token_file(admin, world.agent) for _ in range(2))
    attest(world.process, world.agent, spent)  # type: ignore[arg-type]
    return spent, unspent

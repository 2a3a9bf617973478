"""An issuer that did all there is to do, and ways to change its database behind its back.

What is changed is a copy, by SQL, as somebody with the file could; ``check_found`` says whether an
audit finds it and names it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, text
from support.nodes import Nodes
from support.offline import Offline, offline_issuer

from accredit_client.calls import certificate_request
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.federation import Agents, Allowance
from accredit_credentials.keys import generate_key
from accredit_credentials.spiffe_id import TrustDomain
from accredit_credentials.x509_svid import X509Svid
from accredit_credentials.x509_template import CaTemplate, ca_builder
from accredit_issuer.audit.inspection import inspect
from accredit_issuer.audit.log import Log
from accredit_issuer.audit.report import Report
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.federation.rules import Profile as WebProfile
from accredit_issuer.federation.rules import Relationship
from accredit_issuer.registry.changes import Local
from accredit_issuer.settings import Config
from accredit_issuer.signals.streams import StreamAsked
from accredit_issuer.store.database import Database


@dataclass
class AuditWorld:
    """What was issued, and what it takes to audit it."""

    config: Config
    log_key: Ed25519PrivateKey
    now: datetime
    first: X509Svid
    second: X509Svid
    revoked: X509Svid
    task: str
    checkpoint: str
    ca: x509.Certificate
    ca_key: Any

    def audit(self, database: Database, **options: Any) -> Report:
        """Examine a database."""
        log = Log(self.config.log_origin, self.log_key)
        with database.read() as connection:
            return inspect(connection, self.config, log, self.now, **options)


def audited(offline: Offline, **options: Any) -> Report:
    """Examine an open issuer."""
    log = Log(offline.config.log_origin, offline.issuer.keys.load_log_key())
    with offline.issuer.database.read() as connection:
        return inspect(connection, offline.config, log, offline.clock(), **options)


def issue_everything(offline: Offline) -> tuple[X509Svid, X509Svid, X509Svid, str]:
    """Every kind of credential, three agents, a fact about one of them, one ended suspension."""
    issuance = offline.issuer.issuance
    first, second, revoked = (offline.agent() for _ in range(3))
    offline.renew(first)
    offline.do(issuance.tokens.jwt_svid(first, ("https://a.example",)))
    offline.wit(first)
    task = offline.task_token(first).content.jti
    offline.do(issuance.own.issue(generate_key().public_key()))
    offline.do(issuance.admins.enrol(offline.first_token, certificate_request(generate_key())))
    federate(offline)
    offline.join_token(offline.register())  # nobody came with it
    run_nodes(offline)
    add_streams(offline)
    offline.state(f"instance:{revoked.instance}")
    offline.state(f"instance:{second.instance}", "suspended")
    offline.state(f"instance:{second.instance}", "restored")
    return first, second, revoked, task


def run_nodes(offline: Offline) -> None:
    """A node that runs something, one that was changed and waits for its token, one that ended."""
    nodes, now = Nodes(offline), offline.clock()
    node, gone = nodes.new(), nodes.new("build-8")
    manifest = offline.register()
    for each in (node, gone):
        nodes.run(each, manifest)
    nodes.list("build-9", "payments")
    nodes.token("build-9")
    offline.issuer.nodes.change("build-9", ("support",), by=Local("test"), now=now)


def add_streams(offline: Offline) -> None:
    """A receiver of security events that is there, and one that was removed."""
    streams, now = offline.issuer.streams, offline.clock()
    for name in ("siem", "former"):
        asked = StreamAsked(name=name, audience="a", endpoint_url="https://siem.example/events")
        streams.add(asked, by=Local("test"), now=now)
    streams.remove("former", by=Local("test"), now=now)


def federate(offline: Offline) -> None:
    """A relationship, one ended relationship, a bundle that was fetched, an allowance."""
    relationships, now = offline.issuer.relationships, offline.clock()
    for name in ("b.example", "c.example"):
        asked = Relationship(
            trust_domain=TrustDomain(name),
            profile=WebProfile.WEB,
            endpoint_url=f"https://{name}/bundle",
        )
        relationships.create(asked, None, by=Local("test"), now=now)
    relationships.remove(TrustDomain("c.example"), by=Local("test"), now=now)
    other = TrustDomain("b.example")
    bundle = TrustBundle(other, jwt_authorities={"k": generate_key().public_key()})
    relationships.keep(relationships.one(other), bundle.to_json(), by=Local("test"), now=now)
    agents = Agents.parse("spiffe://b.example/ns/support/*")
    allowance = Allowance(agents, "https://a.example", ("read",))
    relationships.allow(other, (allowance,), by=Local("test"), now=now)


def audit_world_in(folder: Path) -> AuditWorld:
    """An issuer that did all there is to do, and was stopped."""
    with offline_issuer(folder, wit={"enabled": True}) as offline:
        first, second, revoked, task = issue_everything(offline)
        ca = offline.issuer.authorities.now_in_force.active(AuthorityKind.X509)
        assert ca.certificate is not None
        certificate, key = ca.certificate, ca.key
        assert key is not None

        return AuditWorld(
            config=offline.config,
            log_key=offline.issuer.keys.load_log_key(),
            now=offline.clock(),
            first=first,
            second=second,
            revoked=revoked,
            task=task,
            checkpoint=offline.issuer.log.checkpoint,
            ca=certificate,
            ca_key=key,
        )


OF_RELEASE = "WHERE number = (SELECT number FROM credential WHERE id = :id)"
FIRST, SECOND, REVOKED = "first.serial", "second.serial", "revoked.serial"
Tampering = Callable[[Connection, AuditWorld], None]
Case = tuple[Tampering, str, str]


def sql(statement: str, **names: str) -> Tampering:
    """A statement; ``names`` are its parameters, as paths into the world."""

    def tamper(connection: Connection, world: AuditWorld) -> None:
        values = {name: at(world, path) for name, path in names.items()}
        connection.execute(text(statement), values)

    return tamper


def of_release(statement: str, *, id: str) -> Tampering:  # noqa: A002 (the parameter's name)
    """The same, of the release of one credential."""
    return sql(f"{statement} {OF_RELEASE}", id=id)


def at(world: AuditWorld, path: str) -> Any:
    """What stands at a path into the world."""
    value: Any = world
    for part in path.split("."):
        value = getattr(value, part)
    return value


def other_ca(world: AuditWorld) -> tuple[Any, x509.Certificate]:
    """A CA of a stranger, with the name, the serial number and the dates of ours."""
    key = generate_key()
    template = CaTemplate(
        trust_domain=world.config.trust_domain,
        common_name=str(world.ca.subject.rfc4514_string()).removeprefix("CN="),
        public_key=key.public_key(),
        serial=world.ca.serial_number,
        not_before=world.ca.not_valid_before_utc,
        not_after=world.ca.not_valid_after_utc,
        path_length=0,
        issuer=None,
    )
    return key, ca_builder(template).sign(key, hashes.SHA256())


def cases(*tables: dict[str, Case]) -> list[Any]:
    """The rows of tables, each under its name."""
    return [pytest.param(case, id=name) for table in tables for name, case in table.items()]


def check_found(world: AuditWorld, database: Database, case: Case) -> None:
    """Whether what was tampered with is found, and said of what it is."""
    tamper, about, problem = case
    names = {
        "first": world.first.serial,
        "revoked": world.revoked.serial,
        "task": world.task,
        "manifest": world.first.manifest,
        "instance": world.first.instance,
    }
    with database.writing.begin() as connection:
        tamper(connection, world)
    report = world.audit(database)
    found = [(f.about, f.problem) for f in report.findings]
    assert any(
        where.startswith(about.format(**names)) and problem.format(**names) in what
        for where, what in found
    ), found
    assert not report.ok

"""``accredit-issuer audit``: whatever is changed behind the issuer's back is found and named.

One issuer is made for all: it issued every kind of credential, and stated facts. Each test takes a
copy of its database, changes it by SQL as somebody with the file could, and audits.
"""

import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, select, text, update
from support.clock import NOW
from support.offline import Offline, offline_issuer, sample_manifest
from typer.testing import CliRunner

from accredit_attestors import manifest as attested_manifests
from accredit_client.calls import certificate_request
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.federation import Agents, Allowance
from accredit_credentials.keys import SubjectKey, generate_key
from accredit_credentials.merkle import Frontier, leaf_hash
from accredit_credentials.spiffe_id import TrustDomain
from accredit_credentials.x509_svid import X509Svid
from accredit_credentials.x509_template import CaTemplate, ca_builder, leaf_builder
from accredit_credentials.x509_template import LeafTemplate as Template
from accredit_issuer.audit.inspection import inspect
from accredit_issuer.audit.log import Log
from accredit_issuer.audit.records import Record, RecordKind
from accredit_issuer.audit.report import MAX_KEPT, Report
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.cli.app import app
from accredit_issuer.cli.audit import lines, view
from accredit_issuer.federation.rules import Profile as WebProfile
from accredit_issuer.federation.rules import Relationship
from accredit_issuer.issuance.cycle import Intent
from accredit_issuer.registry.changes import Local
from accredit_issuer.revocation.crl import CrlEntry, build_crl
from accredit_issuer.settings import Config
from accredit_issuer.store.bulk import BulkInsert
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import authorities, credentials, crls, releases


@dataclass
class World:
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
    crl_of: Callable[..., bytes]

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
    task = offline.task_token(first).content.jti
    offline.do(issuance.own.issue(generate_key().public_key()))
    offline.do(issuance.admins.enrol(offline.first_token, certificate_request(generate_key())))
    federate(offline)
    offline.join_token(offline.register())  # nobody came with it
    offline.state(f"instance:{revoked.instance}")
    offline.state(f"instance:{second.instance}", "suspended")
    offline.state(f"instance:{second.instance}", "restored")
    return first, second, revoked, task


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


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """An issuer that did all there is to do, and was stopped."""
    with offline_issuer(tmp_path_factory.mktemp("audit") / "issuer") as offline:
        first, second, revoked, task = issue_everything(offline)
        ca = offline.issuer.authorities.now_in_force.active(AuthorityKind.X509)
        assert ca.certificate is not None
        certificate, key = ca.certificate, ca.key
        assert key is not None

        def crl_of(*serials: str, number: int) -> bytes:
            """A CRL that the real CA signs: whoever runs the issuer could have it signed."""
            return build_crl(
                certificate,
                key,
                [CrlEntry(serial, NOW, suspended=False) for serial in serials],
                number=number,
                now=offline.clock(),
                lifetime=offline.config.crl_lifetime,
            )

        return World(
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
            crl_of=crl_of,
        )


@pytest.fixture
def database(world: World, tmp_path: Path) -> Any:
    """A copy of its database."""
    shutil.copy(world.config.database, tmp_path / "issuer.db")
    copy = Database(tmp_path / "issuer.db")
    yield copy
    copy.close()


OF_RELEASE = "WHERE number = (SELECT number FROM credential WHERE id = :id)"
Tampering = Callable[[Connection, World], None]
Case = tuple[Tampering, str, str]


def sql(statement: str, **names: str) -> Tampering:
    """A statement; ``names`` are its parameters, as paths into the world."""

    def tamper(connection: Connection, world: World) -> None:
        values = {name: _at(world, path) for name, path in names.items()}
        connection.execute(text(statement), values)

    return tamper


def of_release(statement: str, *, id: str) -> Tampering:  # noqa: A002 (the parameter's name)
    """The same, of the release of one credential."""
    return sql(f"{statement} {OF_RELEASE}", id=id)


def _at(world: World, path: str) -> Any:
    value: Any = world
    for part in path.split("."):
        value = getattr(value, part)
    return value


def release_of(connection: Connection, serial: str) -> Any:
    """The intent and the release of a certificate."""
    joined = select(credentials, releases.c.log_index, releases.c.certificate).join_from(
        credentials, releases, releases.c.number == credentials.c.number
    )
    return connection.execute(joined.where(credentials.c.id == serial)).one()


def put_certificate(connection: Connection, number: int, der: bytes) -> None:
    """Another certificate, with the digest to it."""
    connection.execute(
        update(releases)
        .where(releases.c.number == number)
        .values(certificate=der, sha256=hashlib.sha256(der).digest())
    )


def swap_certificates(connection: Connection, world: World) -> None:
    """Each of two agents has the other's certificate."""
    first, second = (release_of(connection, s.serial) for s in (world.first, world.second))
    put_certificate(connection, first.number, second.certificate)
    put_certificate(connection, second.number, first.certificate)


def flip(at: int, *, digest: bool) -> Tampering:
    """One bit of a certificate is another, and perhaps its digest is made to match."""

    def tamper(connection: Connection, world: World) -> None:
        row = release_of(connection, world.first.serial)
        changed = bytearray(row.certificate)
        changed[at] ^= 1
        values: dict[str, bytes] = {"certificate": bytes(changed)}
        if digest:
            values["sha256"] = hashlib.sha256(changed).digest()
        connection.execute(update(releases).where(releases.c.number == row.number).values(**values))

    return tamper


def other_ca(world: World) -> tuple[Any, x509.Certificate]:
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


def leaf_of(world: World, **changes: Any) -> x509.CertificateBuilder:
    """What the first agent's certificate says, for another key, with ``changes``."""
    svid = world.first
    values: dict[str, Any] = {
        "spiffe_id": svid.spiffe_id,
        "subject_key": SubjectKey.of(generate_key().public_key()),
        "serial": svid.leaf.serial_number,
        "not_before": svid.not_before,
        "not_after": svid.not_after,
        "instance": svid.instance,
        "manifest": svid.manifest,
        **changes,
    }
    return leaf_builder(Template(**values), world.ca)


def put_signed(connection: Connection, world: World, builder: Any, key: Any) -> None:
    """A certificate that somebody signed stands where the first agent's stood."""
    der = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    put_certificate(connection, release_of(connection, world.first.serial).number, der)


def signed_by_us(*more: x509.ExtensionType, **changes: Any) -> Tampering:
    """The real CA signed something else behind the issuer's back."""

    def tamper(connection: Connection, world: World) -> None:
        builder = leaf_of(world, **changes)
        for extension in more:
            builder = builder.add_extension(extension, critical=False)
        put_signed(connection, world, builder, world.ca_key)

    return tamper


def rewrap(connection: Connection, world: World) -> None:
    """The algorithm beside the signature, which it does not cover, is another."""
    row = release_of(connection, world.first.serial)
    before, oid, signature = row.certificate.rpartition(bytes.fromhex("06082a8648ce3d040302"))
    sha384 = bytes.fromhex("06082a8648ce3d040303")
    assert len(oid) == len(sha384)
    put_certificate(connection, row.number, before + sha384 + signature)


def forge(connection: Connection, world: World) -> None:
    """The certificate of a stranger's CA stands where ours stood."""
    put_signed(connection, world, leaf_of(world), other_ca(world)[0])


def replace_authority(connection: Connection, world: World) -> None:
    """A stranger's CA stands in the row of ours."""
    _, certificate = other_ca(world)
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    connection.execute(update(authorities).where(authorities.c.kind == "x509").values(public=pem))


def resign_root(origin: str) -> Tampering:
    """The root's own key in a certificate that a stranger signed, valid for longer."""

    def tamper(connection: Connection, _world: World) -> None:
        row = connection.execute(select(authorities).where(authorities.c.kind == "root")).one()
        root = x509.load_pem_x509_certificate(row.public.encode())
        ends = root.not_valid_after_utc + timedelta(days=9000)
        builder = (
            x509.CertificateBuilder()
            .subject_name(root.subject)
            .issuer_name(root.issuer)
            .public_key(root.public_key())
            .serial_number(root.serial_number)
            .not_valid_before(root.not_valid_before_utc)
            .not_valid_after(ends)
        )
        for extension in root.extensions:
            builder = builder.add_extension(extension.value, critical=extension.critical)
        signed = builder.sign(generate_key(), hashes.SHA256())
        connection.execute(
            update(authorities)
            .where(authorities.c.id == row.id)
            .values(
                public=signed.public_bytes(serialization.Encoding.PEM).decode(),
                expires_at=ends,
                origin=origin,
            )
        )

    return tamper


def change_leaf(old: bytes, new: bytes, *, rehash: bool) -> Tampering:
    """A record says something else, and perhaps its stored hash is made to match."""

    def tamper(connection: Connection, _world: World) -> None:
        rows = connection.execute(text('SELECT "index", leaf FROM log_leaf')).all()
        index, leaf = next((row[0], row[1]) for row in rows if old in row[1])
        changed = leaf.replace(old, new)
        connection.execute(
            text('UPDATE log_leaf SET leaf = :leaf WHERE "index" = :index'),
            {"leaf": changed, "index": index},
        )
        if rehash:
            connection.execute(
                text('UPDATE log_leaf SET hash = :hash WHERE "index" = :index'),
                {"hash": leaf_hash(changed), "index": index},
            )

    return tamper


def put_crl(*names: str, number: int = 0, forget: bool = True) -> Tampering:
    """Another CRL of the real CA; the entry is forgotten with it, or stands in its table."""

    def tamper(connection: Connection, world: World) -> None:
        known = connection.execute(select(crls.c.number)).scalar_one()
        serials = [_at(world, name).serial for name in names]
        connection.execute(update(crls).values(der=world.crl_of(*serials, number=known + number)))
        if forget:
            connection.execute(text("DELETE FROM revoked_certificate"))

    return tamper


def replace_signer_key(connection: Connection, _world: World) -> None:
    """A stranger's key under the name of a signer."""
    key = attested_manifests.generate_signer_key()
    pem = attested_manifests.public_key_pem(key.public_key()).decode()
    connection.execute(text("UPDATE signer SET public_key = :pem"), {"pem": pem})


def replace_envelope(connection: Connection, world: World) -> None:
    """A stranger's manifest stands where a signer's stood."""
    signed = attested_manifests.sign(
        sample_manifest(world.now), attested_manifests.generate_signer_key()
    )
    connection.execute(
        text("UPDATE manifest SET envelope = :e WHERE digest = :d"),
        {"e": signed.decode(), "d": world.first.manifest},
    )


FIRST, SECOND, REVOKED = "first.serial", "second.serial", "revoked.serial"

CREDENTIALS: dict[str, Case] = {
    "two certificates swapped": (
        swap_certificates, "certificate {first}", "differ in: serial number, instance, manifest"),
    "a bit of the signature": (
        flip(-1, digest=False), "certificate {first}", "another SHA-256"),
    "a bit of the signature, and the digest": (
        flip(-1, digest=True), "certificate {first}", "did not sign"),
    "a bit of the content, and the digest": (
        flip(30, digest=True), "certificate {first}", "did not sign"),
    "no certificate at all": (
        of_release("UPDATE release SET certificate = x'3000'", id=FIRST),
        "certificate {first}", "cannot be read"),
    "another CA, the same serial": (forge, "certificate {first}", "did not sign"),
    "the digest of another": (forge, "certificate {first}", "differ in: sha256"),
    "our CA, another key": (signed_by_us(), "certificate {first}", "differ in: sha256"),
    "our CA, another agent": (
        signed_by_us(manifest="sha256:" + "0" * 64), "certificate {first}", "differ in: manifest"),
    "our CA, names of a server": (
        signed_by_us(dns_names=("a.example",)), "certificate {first}", "has DNS names"),
    "our CA, one extension more": (
        signed_by_us(x509.OCSPNoCheck()),
        "certificate {first}", "leaf: extensions is not what was meant"),
    "our CA, longer than itself": (
        signed_by_us(not_after=NOW + timedelta(days=400)),
        "certificate {first}", "valid while its authority's is not"),
    "our CA, another wrapping": (rewrap, "certificate {first}", "not wrapped as ours are"),
    "a forgotten certificate": (
        of_release("UPDATE release SET certificate = NULL", id=FIRST),
        "certificate {first}", "its certificate is missing"),
    "made to look old": (
        of_release("UPDATE release SET certificate = NULL, sha256 = NULL", id=FIRST),
        "certificate {first}", "differ in: sha256"),
    "a token's digest": (
        of_release("UPDATE release SET sha256 = zeroblob(32)", id="task"),
        "task token {task}", "differ in: sha256"),
    "a release deleted": (
        of_release("DELETE FROM release", id=FIRST),
        "log entry", "tells of the release of credential {first}, which the database does not"),
    "intent and release deleted": (
        sql("DELETE FROM credential WHERE id = :id", id=FIRST),
        "log entry", "tells of the release of credential {first}, which the database does not"),
    "a release of nothing": (
        sql("INSERT INTO release (number, log_index) VALUES (999, 1)"),
        "release 999", "nothing was decided"),
    "a release of another's record": (
        of_release("UPDATE release SET log_index = 8", id=FIRST),
        "certificate {first}", "log entry 8 is not its record"),
    "a release of no record": (
        of_release("UPDATE release SET log_index = 5000", id=FIRST),
        "certificate {first}", "log entry 5000, its record, is not there"),
    "a longer life": (
        sql("UPDATE credential SET expires_at = '2026-06-02 12:00:00.000000' WHERE id = :id",
            id=FIRST),
        "certificate {first}", "differ in: notAfter"),
    "a life without measure": (
        sql("UPDATE credential SET expires_at = '2026-06-03 12:00:00.000000' WHERE id = :id",
            id=FIRST),
        "certificate {first}", "lives longer than 86400 s"),
    "another moment": (
        sql("UPDATE credential SET decided_at = '2026-06-01 11:00:00.000000' WHERE id = :id",
            id=FIRST),
        "certificate {first}", "differ in: notBefore"),
    "another subject": (
        sql("UPDATE credential SET subject = 'spiffe://example.org/admin/first' WHERE id = :id",
            id=FIRST),
        "certificate {first}", "its row names the admin None"),
    "another trust domain": (
        sql("UPDATE credential SET subject = 'spiffe://evil.example/a' WHERE id = :id", id=FIRST),
        "certificate {first}", "not of the trust domain example.org"),
    "another instance": (
        sql("UPDATE credential SET instance = :other WHERE id = :id", id=FIRST,
            other="second.instance"),
        "certificate {first}", "differ in: instance"),
    "another kind": (
        sql("UPDATE credential SET kind = 'jwt' WHERE id = :id", id=FIRST),
        "jwt token {first}", "its authority signs certificates"),
    "no kind": (
        sql("UPDATE credential SET kind = 'pass' WHERE id = :id", id=FIRST),
        "pass token {first}", "no known kind: 'pass'"),
    "another authority": (
        sql("UPDATE credential SET authority = (SELECT id FROM authority WHERE kind = 'root') "
            "WHERE id = :id", id=FIRST),
        "certificate {first}", "did not sign its certificate, which names"),
    "no authority": (
        sql("UPDATE credential SET authority = '00' WHERE id = :id", id=FIRST),
        "certificate {first}", "its authority 00 is not known"),
    "a certificate that is text": (
        of_release("UPDATE release SET certificate = 'abc'", id=FIRST),
        "credentials", "cannot be read to the end"),
    "a moment that is none": (
        sql("UPDATE credential SET expires_at = 'soon' WHERE id = :id", id=FIRST),
        "credentials", "cannot be read to the end"),
}  # fmt: skip

STATE: dict[str, Case] = {
    "a fact deleted": (
        sql("DELETE FROM fact WHERE sequence = 1"),
        "log entry", "tells of the fact 1, which the database does not have"),
    "a fact made a restoration": (
        sql("UPDATE fact SET kind = 'restored' WHERE sequence = 1"), "fact 1", "differ in: fact"),
    "a fact of another": (
        sql("UPDATE fact SET target = 'instance:x' WHERE sequence = 1"),
        "fact 1", "differ in: subject"),
    "a fact that ends": (
        sql("UPDATE fact SET expires_at = '2026-06-01 12:00:00.000000' WHERE sequence = 1"),
        "fact 1", "differ in: expires_at"),
    "another reason": (
        sql("UPDATE fact SET reason = 'none' WHERE sequence = 1"), "fact 1", "differ in: reason"),
    "a fact added": (
        sql("INSERT INTO fact SELECT 9, target, kind, at, expires_at, actor, reason, 9999 "
            "FROM fact WHERE sequence = 1"),
        "fact 9", "it has no record"),
    "a fact with another's record": (
        sql("INSERT INTO fact SELECT 9, target, kind, at, expires_at, actor, reason, log_index "
            "FROM fact WHERE sequence = 1"),
        "fact 9", "differ in: sequence"),
    "a signer added": (
        sql("INSERT INTO signer SELECT 'evil', 'k', public_key, namespaces, created_at, "
            "created_by, log_index FROM signer"),
        "signer evil", "differ in: subject, key_id"),
    "a signer of everything": (
        sql("""UPDATE signer SET namespaces = '["*"]'"""), "signer ci", "differ in: namespaces"),
    "a signer's key": (replace_signer_key, "signer ci", "not the one that its id says"),
    "a signer deleted": (sql("DELETE FROM signer"), "log entry", "tells of the signer ci"),
    "a manifest's content": (
        replace_envelope, "manifest {manifest}", "its envelope does not verify"),
    "a manifest's end": (
        sql("UPDATE manifest SET expires_at = '2036-06-01 12:00:00.000000'"),
        "manifest {manifest}", "what was signed differ in: end"),
    "a manifest's owner": (
        sql("UPDATE manifest SET owner = 'eve@example.org'"),
        "manifest {manifest}", "differ in: owner"),
    "an instance's assurance": (
        sql("UPDATE instance SET assurance = 'platform'"),
        "instance {instance}", "differ in: assurance"),
    "an instance deleted": (
        sql("DELETE FROM instance WHERE id = :id", id="first.instance"),
        "certificate {first}", "was never attested"),
    "a join token added": (
        sql("INSERT INTO join_token SELECT 'x', secret_sha256, agent, expires_at, created_by, "
            "NULL, log_index FROM join_token LIMIT 1"),
        "join token x", "differ in: join_token"),
    "a join token made fresh": (
        sql("UPDATE join_token SET redeemed_by = NULL WHERE redeemed_by = :id",
            id="first.instance"),
        "instance {instance}", "its join token is not spent by it"),
    "an admin added": (
        sql("INSERT INTO admin SELECT 'eve', role, namespaces, created_at, created_by FROM admin"),
        "admin eve", "does not say that anybody invited it"),
    "an admin's role": (
        sql("UPDATE admin SET role = 'viewer'"), "admin first", "differ in: role"),
    "an admin deleted": (sql("DELETE FROM admin"), "admin first", "the database has none"),
    "a one-time token added": (
        sql("INSERT INTO enrolment_token SELECT 'x', secret_sha256, admin, expires_at, NULL "
            "FROM enrolment_token"),
        "one-time token x", "does not say that first was given it"),
    "a one-time token made fresh": (
        sql("UPDATE enrolment_token SET redeemed_by = NULL"),
        "one-time token", "the log differ in who spent it"),
    "a one-time token spent by another": (
        sql("UPDATE enrolment_token SET redeemed_by = 'x'"),
        "one-time token", "the log differ in who spent it"),
    "a one-time token that lasts": (
        sql("UPDATE enrolment_token SET expires_at = '2099-01-01 00:00:00.000000'"),
        "one-time token", "its invitation differ in: expires_at"),
    "a one-time token of another": (
        sql("UPDATE enrolment_token SET admin = 'eve'"),
        "one-time token", "does not say that eve was given it"),
    "a one-time token deleted": (
        sql("DELETE FROM enrolment_token"), "one-time token", "the database does not have it"),
    "an admin of another": (
        sql("UPDATE admin SET created_by = 'eve'"), "admin first", "differ in: actor"),
    "an admin of before": (
        sql("UPDATE admin SET created_at = '2020-01-01 00:00:00.000000'"),
        "admin first", "differ in: at"),
    "a join token that lasts": (
        sql("UPDATE join_token SET expires_at = '2099-01-01 00:00:00.000000'"),
        "join token", "differ in: expires_at"),
    "a join token used up": (
        sql("UPDATE join_token SET redeemed_by = 'nobody' WHERE redeemed_by IS NULL"),
        "join token", "nobody spent it, which never showed it"),
    "a join token used up by an instance": (
        sql("UPDATE join_token SET redeemed_by = :id WHERE redeemed_by IS NULL",
            id="first.instance"),
        "join token", "spent it, which never showed it"),
    "a join token deleted": (
        sql("DELETE FROM join_token WHERE redeemed_by IS NULL"),
        "log entry", "tells of the join token"),
    "a relationship added": (
        sql("INSERT INTO federation (trust_domain, profile, endpoint_url, allows, created_at, "
            "created_by, log_index) SELECT 'evil.example', profile, endpoint_url, allows, "
            "created_at, created_by, log_index FROM federation"),
        "relationship with evil.example", "does not say that anybody began it"),
    "a relationship deleted": (
        sql("DELETE FROM federation"),
        "relationship with spiffe://b.example", "the database does not have it"),
    "a bundle of somebody else": (
        sql("UPDATE federation SET bundle = '{}'"),
        "relationship with b.example", "differ in: bundle"),
    "an allowance": (
        sql("UPDATE federation SET allows = '[]'"),
        "relationship with b.example", "differ in: allows"),
    "an endpoint": (
        sql("UPDATE federation SET endpoint_url = 'https://evil.example'"),
        "relationship with b.example", "differ in: endpoint_url"),
    "an authority's key": (replace_authority, "authority", "not the one that its id says"),
    "an authority added": (
        sql("INSERT INTO authority (id, kind, state, public, prepared_at, expires_at) SELECT "
            "'00', kind, state, public, prepared_at, expires_at FROM authority "
            "WHERE kind = 'root'"),
        "authority 00", "does not say that it was prepared"),
    "an authority deleted": (
        sql("DELETE FROM authority WHERE kind = 'jwt'"), "authority", "the log tells of it"),
    "an authority's state": (
        sql("UPDATE authority SET state = 'removed' WHERE kind = 'x509'"),
        "authority", "the log says that it is active, and its row removed"),
    "an authority's kind": (
        sql("UPDATE authority SET kind = 'root' WHERE kind = 'x509'"),
        "authority", "of another kind than root"),
    "an authority's end": (
        sql("UPDATE authority SET expires_at = '2036-06-01 12:00:00.000000' "
            "WHERE kind = 'x509'"),
        "authority", "ends at another time"),
    "a JWT key that lasts": (
        sql("UPDATE authority SET expires_at = '2099-01-01 00:00:00.000000' WHERE kind = 'jwt'"),
        "authority", "the log says another expires_at"),
    "an authority that was tainted": (
        sql("UPDATE authority SET tainted_at = '2026-06-01 12:00:00.000000' WHERE kind = 'x509'"),
        "authority", "another tainted_at"),
    "an authority that was removed": (
        sql("UPDATE authority SET removed_at = '2026-06-01 12:00:00.000000' WHERE kind = 'x509'"),
        "authority", "another removed_at"),
    "an authority's parent": (
        sql("UPDATE authority SET parent = NULL WHERE kind = 'x509'"),
        "authority", "another parent"),
    "an authority's origin": (
        sql("UPDATE authority SET origin = 'files' WHERE kind = 'root'"),
        "authority", "another origin"),
    "an authority's chain": (
        sql("UPDATE authority SET chain = public WHERE kind = 'x509'"),
        "authority", "another public_sha256"),
    "a root that a stranger signed": (
        resign_root("own"), "authority", "what is above it did not sign its certificate"),
    "a root that a stranger signed, said to be given": (
        resign_root("files"), "authority", "another public_sha256"),
    "an authority's moment": (
        sql("UPDATE authority SET activated_at = NULL WHERE kind = 'x509'"),
        "authority", "another activated_at"),
    "a CRL without its entry": (
        put_crl(number=0), "certificate {revoked}", "is not on the CRL of its authority"),
    "a CRL that is to lose its entry": (
        sql("DELETE FROM revoked_certificate"), "certificate {revoked}", "not on the next CRL"),
    "an entry that is on no CRL": (
        put_crl(forget=False), "certificate {revoked}", "is to be on the CRL of its authority"),
    "an old CRL": (put_crl("revoked", number=-1, forget=False), "CRL of", "another number"),
    "no CRL at all": (sql("DELETE FROM crl"), "certificate {revoked}", "not on the CRL"),
    "a CRL that is none": (sql("UPDATE crl SET der = x'3000'"), "CRL of", "cannot be read"),
    "a CRL of longer": (
        sql("UPDATE crl SET next_update = '2099-01-01 00:00:00.000000'"),
        "CRL of", "another next update"),
    "an entry that ends": (
        sql("UPDATE revoked_certificate SET expires_at = '2020-01-01 00:00:00.000000'"),
        "certificate {revoked}", "its fact differ in: expires_at"),
    "an entry of a suspension": (
        sql("UPDATE revoked_certificate SET suspended = 1"),
        "certificate {revoked}", "its fact differ in: suspended"),
    "an entry of another's suspension": (
        sql("UPDATE revoked_certificate SET suspended = 1, "
            "fact = (SELECT sequence FROM fact WHERE kind = 'suspended')"),
        "certificate {revoked}", "its fact differ in: fact"),
    "an entry that says a suspension of what is revoked": (
        sql("UPDATE revoked_certificate SET suspended = 1"),
        "certificate {revoked}", "revokes it, and it is to be on the CRL as suspended"),
    "an entry of another moment": (
        sql("UPDATE revoked_certificate SET at = '2020-01-01 00:00:00.000000'"),
        "certificate {revoked}", "its fact differ in: at"),
    "an entry of another authority": (
        sql("UPDATE revoked_certificate SET authority = 'x'"),
        "certificate {revoked}", "its fact differ in: authority"),
    "an entry of a token": (
        sql("UPDATE revoked_certificate SET serial = :id", id="task"),
        "certificate {task}", "differ in: authority, expires_at, credential"),
    "an entry of another certificate": (
        sql("UPDATE revoked_certificate SET serial = :id", id=FIRST),
        "certificate {first}", "its fact differ in: fact"),
    "an entry for no fact": (
        sql("INSERT INTO revoked_certificate SELECT id, authority, 77, 0, decided_at, expires_at "
            "FROM credential WHERE id = :id", id=FIRST),
        "certificate {first}", "for no fact"),
}  # fmt: skip

LOG: dict[str, Case] = {
    "a record changed": (
        change_leaf(b'"fact":"revoked"', b'"fact":"forgets"', rehash=False),
        "log", "is not what its hash says"),
    "a record and its hash": (
        change_leaf(b'"fact":"revoked"', b'"fact":"forgets"', rehash=True), "log", "do not lead"),
    "a record that says another": (
        change_leaf(b'"reason":"test"', b'"reason":"none"', rehash=True), "fact 1", "reason"),
    "a record that is none": (
        change_leaf(b'"actor":"issuer"', b'"actor":1 ', rehash=True),
        "log entry 0", "is not a record"),
    "a record without its kind": (
        change_leaf(b"credential.issued", b"credential.unsaid", rehash=True),
        "certificate {first}", "is not its record"),
    "a record of no fact": (
        change_leaf(b'"fact":"revoked"', b'"fact":"forgets"', rehash=True),
        "log entry", "it is not a revocation fact"),
    "a record gone": (
        sql('DELETE FROM log_leaf WHERE "index" = 9'), "log", "1 records from 0 on are missing"),
    "the newest record gone": (
        sql('DELETE FROM log_leaf WHERE "index" = (SELECT max("index") FROM log_leaf)'),
        "log", "log's"),
    "no checkpoint": (
        sql("DELETE FROM singleton WHERE name = 'log.checkpoint'"), "log", "no checkpoint"),
}  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name)
        for table in (CREDENTIALS, STATE, LOG)
        for name, case in table.items()
    ],
)
def test_what_was_changed_is_found_and_named(world: World, database: Database, case: Case) -> None:
    """Each change of the database behind the issuer's back is found, and said of what it is."""
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


def test_a_clean_issuer_has_no_findings(world: World, database: Database) -> None:
    """Everything that was issued and stated is examined, and nothing is found."""
    report = world.audit(database, kept=world.checkpoint)
    assert report.findings == []
    assert report.ok
    # Three agents, one renewal, the server's and an admin's; a JWT-SVID and a task token.
    assert report.examined["certificates"] == 6
    assert report.examined["tokens"] == 2
    assert report.examined["facts"] == 3
    assert report.examined["authorities"] == 3
    assert report.examined["records"] == report.size > 20
    assert (report.older, report.unreleased) == (0, 0)


def test_days_of_rotation_leave_no_findings(offline: Offline) -> None:
    """Authorities come and go, CRLs forget what expired, suspensions end: all as the log says."""
    for _ in range(6):
        svid = offline.agent()
        offline.state(f"serial:{svid.serial}")
        offline.state("agent:support/summarizer", "suspended")
        assert audited(offline).findings == []
        offline.state("agent:support/summarizer", "restored")
        offline.clock.advance(hours=11)
        offline.issuer.keep_up()
        assert audited(offline).findings == []
    with offline.issuer.database.read() as connection:
        states = set(connection.execute(select(authorities.c.state)).scalars())
    assert "removed" in states


def test_the_steps_of_operators_leave_no_findings(offline: Offline) -> None:
    """Rolled over, tainted and revoked by hand: what the log says is what the rows say."""
    known, rollover = offline.issuer.authorities, offline.issuer.rollover
    for kind in AuthorityKind:
        offline.agent()
        old = known.now_in_force.active(kind).id
        (new,) = rollover.prepare(kind, by=Local("test"))
        rollover.activate(new["id"], early=True, by=Local("test"))
        assert audited(offline).findings == []
        rollover.taint(old, "test", by=Local("test"))
        assert audited(offline).findings == []
        rollover.revoke(old, "test", by=Local("test"))
        assert audited(offline).findings == []


def test_killed_in_the_middle_is_no_finding(offline: Offline) -> None:
    """An intent without a release is counted, and named until it expires."""
    offline.agent()
    ca = offline.issuer.authorities.now_in_force.active(AuthorityKind.X509)
    intent = Intent(
        id="abc",
        kind="x509",
        subject="spiffe://example.org/ns/support/agent/summarizer",
        instance="i",
        authority=ca.id,
        decided_at=offline.clock(),
        expires_at=offline.clock() + timedelta(hours=1),
        marks=(),
        reasons=(),
    )

    def killed() -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        offline.do(offline.issuer.issuance.cycle.issue(intent, killed))
    report = audited(offline)
    assert report.ok
    assert (report.unreleased, report.unexpired) == (1, ["abc"])
    offline.clock.advance(hours=2)
    report = audited(offline)
    assert (report.unreleased, report.unexpired) == (1, [])


def test_rows_of_before_digests_were_kept_are_no_finding(offline: Offline) -> None:
    """They are counted; what can be compared still is: the row with its record."""
    svid = offline.agent()
    now = offline.clock()
    ca = offline.issuer.authorities.now_in_force.active(AuthorityKind.X509)
    record = Record(
        kind=RecordKind.CREDENTIAL_ISSUED,
        at=now,
        actor=str(svid.spiffe_id),
        subject="abc",
        details={"credential": "x509", "instance": svid.instance, "manifest": svid.manifest},
    )
    row = {
        "number": 50,
        "id": "abc",
        "kind": "x509",
        "subject": str(svid.spiffe_id),
        "instance": svid.instance,
        "authority": ca.id,
        "decided_at": now,
        "expires_at": now + timedelta(minutes=5),
    }

    def work(transaction: Any) -> None:
        transaction.add(BulkInsert(credentials), row)
        index = transaction.record(record)
        transaction.add(BulkInsert(releases), {"number": 50, "log_index": index})

    offline.issuer.writer.run(work).result()
    report = audited(offline)
    assert report.findings == []
    assert report.older == 1
    with offline.issuer.database.writing.begin() as connection:
        connection.execute(text("UPDATE credential SET instance = 'x' WHERE id = 'abc'"))
    assert "differ in: instance" in " ".join(f.problem for f in audited(offline).findings)


def rewrite(world: World, database: Database, change: Callable[[dict[str, Any]], None]) -> int:
    """Another history, signed by the log's key; returns how many records it has."""
    log = Log(world.config.log_origin, world.log_key)
    with database.writing.begin() as connection:
        rows = connection.execute(text('SELECT "index", leaf FROM log_leaf ORDER BY "index"')).all()
        leaves = []
        for index, leaf in rows:
            record = json.loads(leaf)
            change(record)
            leaves.append(json.dumps(record, sort_keys=True, separators=(",", ":")).encode())
            connection.execute(
                text('UPDATE log_leaf SET leaf = :l, hash = :h WHERE "index" = :i'),
                {"l": leaves[-1], "h": leaf_hash(leaves[-1]), "i": index},
            )
        frontier, _ = Frontier().extend(leaf_hash(leaf) for leaf in leaves)
        connection.execute(
            text("UPDATE singleton SET value = :v WHERE name = 'log.checkpoint'"),
            {"v": log.sign(frontier)},
        )
    return len(leaves)


def as_before(record: dict[str, Any]) -> None:
    """A record as earlier versions wrote it."""
    newer = {
        "agent.enrolled": ("expires_at",),
        "admin.invited": ("expires_at",),
        "authority.prepared": ("expires_at", "origin", "parent", "public_sha256"),
    }
    for name in newer.get(record["kind"], ()):
        del record["details"][name]
    if record["kind"] == "admin.enrolled":
        record["kind"] = "issuer.noted"  # there was none


def test_records_of_an_earlier_version_are_counted(world: World, database: Database) -> None:
    """They say less: what they say is compared, and the rest of their rows is no finding."""
    rewrite(world, database, as_before)
    report = world.audit(database)
    assert report.findings == []
    # Three authorities, four join tokens, one one-time token.
    assert report.terse == 8
    assert "note  8 rows have records of an earlier version, which say less" in lines(report)
    for statement in ("DELETE FROM enrolment_token", "UPDATE join_token SET created_by = 'eve'"):
        with database.writing.begin() as connection:
            connection.execute(text(statement))
    found = {f.about.split()[0] for f in world.audit(database).findings}
    assert found == {"one-time", "join"}


def test_what_was_suspended_and_then_revoked_is_on_the_crl_since_then(offline: Offline) -> None:
    """An entry keeps the moment since when it is on the CRL: no finding, unless it is another's."""
    svid = offline.agent()
    for kind in ("suspended", "revoked"):
        offline.clock.advance(minutes=1)
        offline.state(f"instance:{svid.instance}", kind)
    assert audited(offline).findings == []
    change = "UPDATE revoked_certificate SET at = '2026-06-01 12:00:30.000000'"
    with offline.issuer.database.writing.begin() as connection:
        connection.execute(text(change))
    (found,) = audited(offline).findings
    assert found.problem.endswith("differ in: at")


def test_a_rewritten_history_is_found_by_a_kept_checkpoint(
    world: World, database: Database
) -> None:
    """Whoever has the log's key signs another past; a checkpoint of elsewhere tells."""

    def blame_eve(record: dict[str, Any]) -> None:
        if record["actor"] == "test":
            record["actor"] = "eve"

    size = rewrite(world, database, blame_eve)
    with database.writing.begin() as connection:
        connection.execute(text("UPDATE fact SET actor = 'eve'"))
        connection.execute(text("UPDATE signer SET created_by = 'eve'"))
        connection.execute(text("UPDATE manifest SET registered_by = 'eve'"))
        connection.execute(text("UPDATE join_token SET created_by = 'eve'"))
    assert world.audit(database).ok  # it is consistent in itself
    found = world.audit(database, kept=world.checkpoint).findings
    assert [f.problem for f in found] == [f"its first {size} records are not those of then"]


def test_a_log_that_became_shorter_is_found_by_a_kept_checkpoint(
    offline: Offline, tmp_path: Path
) -> None:
    """A restored backup is consistent in itself, and shorter than what somebody saw."""
    offline.agent()
    offline.issuer.close()
    shutil.copy(offline.config.database, tmp_path / "backup.db")
    offline.reopen()
    offline.agent()
    kept = offline.issuer.log.checkpoint
    offline.issuer.close()
    shutil.copy(tmp_path / "backup.db", offline.config.database)
    offline.reopen()
    assert audited(offline).ok
    assert "had" in audited(offline, kept=kept).findings[0].problem
    assert "cannot be compared" in audited(offline, kept="nonsense").findings[0].problem


def test_it_runs_beside_an_issuer_that_writes(offline: Offline) -> None:
    """Its snapshot is of one moment: what is issued meanwhile waits for nothing and is not seen."""
    svid = offline.agent()
    going, stop = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def issue() -> None:
        try:
            while not stop.is_set():
                offline.renew(svid)
                going.set()
        except BaseException as error:  # noqa: BLE001 (asserted below)
            errors.append(error)

    thread = threading.Thread(target=issue)
    thread.start()
    try:
        assert going.wait(20)
        reports = [audited(offline) for _ in range(5)]
    finally:
        stop.set()
        thread.join(20)
    assert errors == []
    assert [report.findings for report in reports] == [[]] * 5
    assert reports[-1].size > reports[0].size


def test_findings_are_counted_beyond_those_that_are_kept() -> None:
    """A database that is all wrong does not fill the memory."""
    report = Report()
    for number in range(MAX_KEPT + 5):
        report.add(f"fact {number}", "a", "b")
    assert report.found == 2 * (MAX_KEPT + 5)
    assert len(report.findings) == MAX_KEPT
    assert "FAIL  and 1,010 more" in list(lines(report))


def test_what_is_printed_moves_no_cursor() -> None:
    """Text of a database that somebody else wrote is shown with its control characters escaped."""
    report = Report()
    report.add("fact 1", "its reason is \x1b[2J\nfindings: 0")
    assert not any("\x1b" in line or "\n" in line for line in lines(report))
    assert json.loads(json.dumps(view(report)))["ok"] is False


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit status 0 and a summary, or 1 and what is wrong; ``--json`` says the same."""
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    assert isinstance(run(app, ["audit"]).exception, Exception)  # no settings yet
    assert run(app, ["init", "--trust-domain", "example.org"]).exit_code == 0
    clean = run(app, ["audit"])
    assert clean.exit_code == 0
    assert clean.stdout.splitlines()[-1] == "findings: 0"
    said = json.loads(run(app, ["audit", "--json"]).stdout)
    assert said["ok"] is True
    assert said["examined"]["authorities"] == 3
    (tmp_path / "kept.txt").write_text(said["log"]["checkpoint"])
    assert run(app, ["audit", "--checkpoint", "kept.txt"]).exit_code == 0
    database = Database(tmp_path / "data" / "issuer.db")
    with database.writing.begin() as connection:
        connection.execute(text("UPDATE admin SET role = 'viewer'"))
    database.close()
    dirty = run(app, ["audit"])
    assert dirty.exit_code == 1
    assert "FAIL  admin first: its row and log entry" in dirty.stdout
    assert json.loads(run(app, ["audit", "--json"]).stdout)["found"] == 1

"""``accredit-issuer audit`` of credentials: each against its record, its digest and its authority.

Each test changes a copy of one issuer's database by SQL, as somebody with the file could.
"""

import hashlib
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import AuthorityInformationAccessOID
from sqlalchemy import Connection, select, update
from support.audit_world import (
    FIRST,
    AuditWorld,
    Case,
    Tampering,
    cases,
    check_found,
    of_release,
    other_ca,
    sql,
)
from support.clock import NOW

from accredit_credentials.keys import SubjectKey, generate_key
from accredit_credentials.x509_template import LeafTemplate as Template
from accredit_credentials.x509_template import leaf_builder
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import credentials, releases


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


def swap_certificates(connection: Connection, world: AuditWorld) -> None:
    """Each of two agents has the other's certificate."""
    first, second = (release_of(connection, s.serial) for s in (world.first, world.second))
    put_certificate(connection, first.number, second.certificate)
    put_certificate(connection, second.number, first.certificate)


def flip(at: int, *, digest: bool) -> Tampering:
    """One bit of a certificate is another, and perhaps its digest is made to match."""

    def tamper(connection: Connection, world: AuditWorld) -> None:
        row = release_of(connection, world.first.serial)
        changed = bytearray(row.certificate)
        changed[at] ^= 1
        values: dict[str, bytes] = {"certificate": bytes(changed)}
        if digest:
            values["sha256"] = hashlib.sha256(changed).digest()
        connection.execute(update(releases).where(releases.c.number == row.number).values(**values))

    return tamper


def leaf_of(world: AuditWorld, **changes: Any) -> x509.CertificateBuilder:
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


def put_signed(connection: Connection, world: AuditWorld, builder: Any, key: Any) -> None:
    """A certificate that somebody signed stands where the first agent's stood."""
    der = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    put_certificate(connection, release_of(connection, world.first.serial).number, der)


def signed_by_us(*more: x509.ExtensionType, **changes: Any) -> Tampering:
    """The real CA signed something else behind the issuer's back."""

    def tamper(connection: Connection, world: AuditWorld) -> None:
        builder = leaf_of(world, **changes)
        for extension in more:
            builder = builder.add_extension(extension, critical=False)
        put_signed(connection, world, builder, world.ca_key)

    return tamper


def rewrap(connection: Connection, world: AuditWorld) -> None:
    """The algorithm beside the signature, which it does not cover, is another."""
    row = release_of(connection, world.first.serial)
    before, oid, signature = row.certificate.rpartition(bytes.fromhex("06082a8648ce3d040302"))
    sha384 = bytes.fromhex("06082a8648ce3d040303")
    assert len(oid) == len(sha384)
    put_certificate(connection, row.number, before + sha384 + signature)


def forge(connection: Connection, world: AuditWorld) -> None:
    """The certificate of a stranger's CA stands where ours stood."""
    put_signed(connection, world, leaf_of(world), other_ca(world)[0])


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
    "our CA, an access that is no OCSP": (
        signed_by_us(
            x509.AuthorityInformationAccess([
                x509.AccessDescription(
                    AuthorityInformationAccessOID.CA_ISSUERS,
                    x509.UniformResourceIdentifier("http://ca.example"),
                )
            ])
        ),
        "certificate {first}", "leaf: authorityInfoAccess is not what was meant"),
    "our CA, two accesses": (
        signed_by_us(
            x509.AuthorityInformationAccess([
                x509.AccessDescription(
                    AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url)
                )
                for url in ("http://one.example", "http://two.example")
            ])
        ),
        "certificate {first}", "leaf: authorityInfoAccess is not what was meant"),
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


@pytest.mark.parametrize("case", cases(CREDENTIALS))
def test_what_was_changed_is_found_and_named(
    audit_world: AuditWorld, audit_copy: Database, case: Case
) -> None:
    """A credential that was changed behind the issuer's back is found, and named."""
    check_found(audit_world, audit_copy, case)

"""``accredit-issuer audit`` of authorities and their CRLs: rows, certificates, entries.

Each test changes a copy of one issuer's database by SQL, as somebody with the file could.
"""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from sqlalchemy import Connection, select, text, update
from support.audit_world import (
    FIRST,
    AuditWorld,
    Case,
    Tampering,
    cases,
    check_found,
    other_ca,
    sql,
)

from accredit_credentials.crl_der import Times
from accredit_credentials.keys import generate_key
from accredit_credentials.leaf_der import IssuingCa
from accredit_issuer.revocation.crl import Entries, sign_crl
from accredit_issuer.revocation.projection import entries_in
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import authorities, crls


def replace_authority(connection: Connection, world: AuditWorld) -> None:
    """A stranger's CA stands in the row of ours."""
    _, certificate = other_ca(world)
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    connection.execute(update(authorities).where(authorities.c.kind == "x509").values(public=pem))


def resign_root(origin: str) -> Tampering:
    """The root's own key in a certificate that a stranger signed, valid for longer."""

    def tamper(connection: Connection, _world: AuditWorld) -> None:
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


def signed_again(*statements: str) -> Tampering:
    """Statements, and the real CA signs what the rows then say: who runs the issuer could."""

    def tamper(connection: Connection, world: AuditWorld) -> None:
        for statement in statements:
            connection.execute(text(statement))
        ca = IssuingCa(world.ca)
        row = connection.execute(select(crls).where(crls.c.authority == ca.key_id.hex())).one()
        times = Times(number=row.number, this_update=row.this_update, next_update=row.next_update)
        entries = Entries().changed(entries_in(connection, row.authority))
        crl = sign_crl(ca, world.ca_key, entries, times, scheduled_at=row.scheduled_at)
        connection.execute(
            update(crls).where(crls.c.authority == row.authority).values(signature=crl.signature)
        )

    return tamper


AUTHORITIES: dict[str, Case] = {
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
}  # fmt: skip


CRLS: dict[str, Case] = {
    "a CRL without its entry": (
        signed_again("DELETE FROM revoked_certificate"),
        "certificate {revoked}", "is not on the CRL of its authority"),
    "an entry that was deleted": (
        sql("DELETE FROM revoked_certificate"), "CRL of", "did not sign what its rows say"),
    "an old CRL": (
        sql("UPDATE crl SET number = number - 1"), "CRL of", "did not sign what its rows say"),
    "no CRL at all": (
        sql("DELETE FROM crl"), "certificate {revoked}", "not on the CRL of its authority"),
    "a signature that is none": (
        sql("UPDATE crl SET signature = x'3000'"), "CRL of", "did not sign what its rows say"),
    "a CRL of longer": (
        sql("UPDATE crl SET next_update = '2099-01-01 00:00:00.000000'"),
        "CRL of", "did not sign what its rows say"),
    "a CRL of nobody": (
        sql("INSERT INTO crl SELECT '00', number, this_update, next_update, scheduled_at, "
            "signature FROM crl LIMIT 1"), "CRL of 00", "its authority is not known"),
    "an entry that is none": (
        sql("UPDATE revoked_certificate SET serial = 'x'"), "CRL of", "cannot be read"),
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
        signed_again("UPDATE revoked_certificate SET suspended = 1"),
        "certificate {revoked}", "revokes it, and it is on the CRL as suspended"),
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


@pytest.mark.parametrize("case", cases(AUTHORITIES, CRLS))
def test_what_was_changed_is_found_and_named(
    audit_world: AuditWorld, audit_copy: Database, case: Case
) -> None:
    """An authority or a CRL that was changed behind the issuer's back is found, and named."""
    check_found(audit_world, audit_copy, case)

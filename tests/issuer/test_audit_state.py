"""``accredit-issuer audit`` of what admins and agents made: each row against its record.

Each test changes a copy of one issuer's database by SQL, as somebody with the file could.
"""

import pytest
from sqlalchemy import Connection, text
from support.audit_world import AuditWorld, Case, cases, check_found, sql
from support.offline import sample_manifest

from accredit_attestors import manifest as attested_manifests
from accredit_issuer.store.database import Database


def replace_signer_key(connection: Connection, _world: AuditWorld) -> None:
    """A stranger's key under the name of a signer."""
    key = attested_manifests.generate_signer_key()
    pem = attested_manifests.public_key_pem(key.public_key()).decode()
    connection.execute(text("UPDATE signer SET public_key = :pem"), {"pem": pem})


def replace_envelope(connection: Connection, world: AuditWorld) -> None:
    """A stranger's manifest stands where a signer's stood."""
    signed = attested_manifests.sign(
        sample_manifest(world.now), attested_manifests.generate_signer_key()
    )
    connection.execute(
        text("UPDATE manifest SET envelope = :e WHERE digest = :d"),
        {"e": signed.decode(), "d": world.first.manifest},
    )


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
    "a node added": (
        sql("INSERT INTO node SELECT 'evil', 'x', attestation, namespaces, ca, certificate, "
            "created_at, created_by, log_index FROM node LIMIT 1"),
        "node evil", "does not say who listed it"),
    "a node of more": (
        sql("""UPDATE node SET namespaces = '["payments"]' WHERE name = 'build-7'"""),
        "node build-7", "differ in: namespaces"),
    "a node's change undone": (
        sql("""UPDATE node SET namespaces = '["payments"]' WHERE name = 'build-9'"""),
        "node build-9", "differ in: namespaces"),
    "a node by another certificate": (
        sql("UPDATE node SET attestation = 'x509pop', ca = 'x', certificate = 'dns:x' "
            "WHERE name = 'build-7'"),
        "node build-7", "differ in: attestation, ca, certificate"),
    "a node listed by somebody else": (
        sql("UPDATE node SET created_by = 'eve' WHERE name = 'build-7'"),
        "node build-7", "differ in: created_by"),
    "a node with another instance": (
        sql("UPDATE node SET instance = 'x' WHERE name = 'build-7'"),
        "node build-7", "differ in: instance"),
    "a node deleted": (
        sql("DELETE FROM node WHERE name = 'build-7'"), "node build-7", "does not have it"),
    "an instance moved to another node": (
        sql("UPDATE instance SET node = 'build-8' WHERE node = 'build-7'"),
        "instance", "differ in: actor, node"),
    "an instance freed of its node": (
        sql("UPDATE instance SET node = NULL WHERE node = 'build-7'"),
        "instance", "differ in: actor, node"),
    "an instance put on a node": (
        sql("UPDATE instance SET node = 'build-7' WHERE id = :id", id="first.instance"),
        "instance {instance}", "differ in: actor, node"),
    "a node's token unspent": (
        sql("UPDATE node_join_token SET redeemed_by = NULL WHERE node = 'build-7'"),
        "node join token", "differ in who spent it"),
    "a node's token spent": (
        sql("UPDATE node_join_token SET redeemed_by = 'x' WHERE node = 'build-9'"),
        "node join token", "differ in who spent it"),
    "a node's token given to another": (
        sql("UPDATE node_join_token SET node = 'build-7' WHERE node = 'build-9'"),
        "node join token", "differ in: subject"),
    "a node's token deleted": (
        sql("DELETE FROM node_join_token WHERE node = 'build-9'"),
        "log entry", "tells of the node join token"),
    "a node's credential of another instance": (
        sql("UPDATE credential SET instance = 'x' WHERE subject LIKE '%/node/build-7'"),
        "certificate", "nobody listed a node with the instance x"),
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
    "another receiver of events": (
        sql("UPDATE stream SET endpoint_url = 'https://evil.example'"),
        "stream siem", "differ in: endpoint_url"),
    "a receiver added": (
        sql("INSERT INTO stream SELECT 'x', 'evil', audience, endpoint_url, receiver, created_at, "
            "created_by, log_index, through, accepted_at FROM stream"),
        "stream evil", "does not say who added it"),
    "a receiver deleted": (
        sql("DELETE FROM stream"), "stream siem", "the database does not have it"),
}  # fmt: skip


@pytest.mark.parametrize("case", cases(STATE))
def test_what_was_changed_is_found_and_named(
    audit_world: AuditWorld, audit_copy: Database, case: Case
) -> None:
    """A row that was changed behind the issuer's back is found, and named."""
    check_found(audit_world, audit_copy, case)

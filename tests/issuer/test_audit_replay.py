"""The audit replays the log: a row that was changed, acted on and put back is found.

Each attack is one of whoever can write the database, and no more: afterwards all tables are as the
log says, and only the order of the records tells.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from sqlalchemy import text
from support.offline import Offline, offline_issuer

from accredit_client.calls import certificate_request
from accredit_credentials.keys import generate_key
from accredit_credentials.revocation import FactKind, Target
from accredit_credentials.spiffe_id import AgentId, TrustDomain, admin_id
from accredit_credentials.x509_svid import X509Svid
from accredit_credentials.x509_template import subject_key_id
from accredit_issuer.audit.inspection import inspect
from accredit_issuer.audit.log import Log
from accredit_issuer.audit.recorded import Recorded
from accredit_issuer.audit.replay import FIRST_PRUNED, OPERATIONS, Replay
from accredit_issuer.authority.subordinates import Subordinate
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.registry.changes import AdminActor, Local
from accredit_issuer.registry.roles import PERMISSIONS, Admin, Operation, Reach, Role
from accredit_issuer.revocation.stated import FactRequest
from accredit_issuer.signals.streams import StreamAsked

AGENT = AgentId.parse("support/summarizer")
TRUST_DOMAIN = TrustDomain("example.org")
AT = "2026-06-01T12:00:00.000Z"


@pytest.fixture
def offline(tmp_path: Path) -> Iterator[Offline]:
    """An issuer that did nothing yet."""
    with offline_issuer(tmp_path / "issuer") as made:
        yield made


def findings(offline: Offline) -> list[str]:
    """What an audit finds, without what it is about."""
    log = Log(offline.config.log_origin, offline.issuer.keys.load_log_key())
    with offline.issuer.database.read() as connection:
        report = inspect(connection, offline.config, log, offline.clock())
    return [each.problem for each in report.findings]


def sql(offline: Offline, statement: str, **values: Any) -> None:
    """Write the database behind the issuer's back."""
    offline.issuer.writer.run(lambda t: t.execute(text(statement).bindparams(**values))).result()


@contextmanager
def taken_away(offline: Offline, table: str, condition: str) -> Iterator[None]:
    """Rows that are gone for a while, with the issuer started anew before and after."""
    with offline.issuer.database.read() as connection:
        chosen = connection.execute(text(f"SELECT * FROM {table} WHERE {condition}"))  # noqa: S608
        rows = [dict(row) for row in chosen.mappings()]
    assert rows
    sql(offline, f"DELETE FROM {table} WHERE {condition}")  # noqa: S608
    offline.reopen()
    yield
    for row in rows:
        names, values = ", ".join(f'"{n}"' for n in row), ", ".join(f":{n}" for n in row)
        sql(offline, f"INSERT INTO {table} ({names}) VALUES ({values})", **row)  # noqa: S608
    offline.reopen()


def invited(offline: Offline, name: str, role: Role, *namespaces: str) -> Admin:
    """An admin."""
    admin = Admin(name, role, namespaces)
    offline.issuer.administration.invite(admin, by=Local("test"), now=offline.clock())
    return admin


def acting(admin: Admin, operation: Operation, namespace: str | None = None) -> AdminActor:
    """An admin whose call was let in."""
    return AdminActor(
        name=str(admin_id(TRUST_DOMAIN, admin.name)),
        admin=admin.name,
        marks=(f"admin:{admin.name}",),
        operation=operation,
        namespace=namespace,
    )


def invite_by(offline: Offline, admin: Admin, name: str = "mallory") -> None:
    """Let an admin invite another one."""
    offline.issuer.administration.invite(
        Admin(name, Role.ADMIN),
        by=acting(admin, Operation.MANAGE_ADMINS),
        now=offline.clock(),
    )


def name_subordinate(offline: Offline, *namespaces: str) -> None:
    """Name the agent a subordinate issuer."""
    offline.issuer.subordinates.add(
        Subordinate(agent=AGENT, namespaces=namespaces, dns_names=("localhost",)),
        by=Local("test"),
        now=offline.clock(),
    )


def certified(offline: Offline, svid: X509Svid) -> x509.Certificate:
    """An issuing CA for the agent."""
    csr = certificate_request(generate_key())
    return offline.do(offline.issuer.issuance.issuing_ca(svid, csr)).certificate


def test_a_role_that_was_lent(offline: Offline) -> None:
    """A viewer is made an admin for one call; an admin's own call is fine."""
    boss = invited(offline, "boss", Role.ADMIN)
    invite_by(offline, boss, "second")
    assert findings(offline) == []
    watcher = invited(offline, "watcher", Role.VIEWER)
    with pytest.raises(Refusal):
        invite_by(offline, watcher)
    sql(offline, "UPDATE admin SET role = 'admin' WHERE name = 'watcher'")
    invite_by(offline, watcher)
    sql(offline, "UPDATE admin SET role = 'viewer' WHERE name = 'watcher'")
    assert findings(offline) == [
        "watcher was invited with the role viewer, which does not allow to manage admins"
    ]


def test_a_stream_by_a_role_that_was_lent(offline: Offline) -> None:
    """Who may only read lets another product hear of facts; security may."""
    asked = StreamAsked(name="siem", audience="a", endpoint_url="https://siem.example/events")

    def add(admin: Admin) -> None:
        by = acting(admin, Operation.MANAGE_STREAMS)
        offline.issuer.streams.add(asked, by=by, now=offline.clock())
        offline.issuer.streams.remove("siem", by=by, now=offline.clock())

    add(invited(offline, "guard", Role.SECURITY))
    assert findings(offline) == []
    watcher = invited(offline, "watcher", Role.VIEWER)
    with pytest.raises(Refusal):
        add(watcher)
    sql(offline, "UPDATE admin SET role = 'admin' WHERE name = 'watcher'")
    add(watcher)
    sql(offline, "UPDATE admin SET role = 'viewer' WHERE name = 'watcher'")
    said = "watcher was invited with the role viewer, which does not allow to manage streams"
    assert findings(offline) == [said, said]


def test_an_invitation_with_a_role_that_was_lent(offline: Offline) -> None:
    """A second invitation of an admin says its first role; another one was a lent row."""
    invited(offline, "watcher", Role.VIEWER)
    invited(offline, "watcher", Role.VIEWER)
    assert findings(offline) == []
    sql(offline, "UPDATE admin SET role = 'admin' WHERE name = 'watcher'")
    invited(offline, "watcher", Role.ADMIN)
    sql(offline, "UPDATE admin SET role = 'viewer' WHERE name = 'watcher'")
    assert findings(offline) == ["watcher had been invited with the role viewer before it"]


def test_a_namespace_that_was_lent(offline: Offline) -> None:
    """An owner revokes in its own namespace; in another only with a row that was lent."""
    svid = offline.agent()
    owner = invited(offline, "owner", Role.OWNER, "support")
    stranger = invited(offline, "stranger", Role.OWNER, "payments")

    def revoke(admin: Admin, target: str) -> None:
        offline.issuer.revocation.state(
            FactRequest(
                target=Target.parse(target),
                kind=FactKind.REVOKED,
                reason="test",
                actor=acting(admin, Operation.REVOKE, "support"),
            ),
            offline.issuer.changes,
            offline.clock(),
        )

    revoke(owner, f"instance:{svid.instance}")
    assert findings(offline) == []
    sql(offline, """UPDATE admin SET namespaces = '["support"]' WHERE name = 'stranger'""")
    revoke(stranger, f"serial:{svid.serial}")
    sql(offline, """UPDATE admin SET namespaces = '["payments"]' WHERE name = 'stranger'""")
    (found,) = findings(offline)
    assert found.startswith("stranger was invited with the role owner")
    assert found.endswith("does not allow to revoke in namespace support")


def test_a_fact_that_was_forgotten(offline: Offline) -> None:
    """A token for a revoked instance while its fact was gone; one from before it is fine."""
    svid = offline.agent()
    offline.task_token(svid)
    offline.state(f"instance:{svid.instance}")
    assert findings(offline) == []
    with taken_away(offline, "fact", f"target = 'instance:{svid.instance}'"):
        offline.task_token(svid)
    assert findings(offline) == [
        f"instance:{svid.instance} was revoked before it, by the fact 1",
    ]


@pytest.mark.parametrize(
    "target",
    ["agent:support/summarizer", "namespace:support", "signer:ci", "owner:maria@example.org"],
)
def test_a_fact_about_what_is_above(offline: Offline, target: str) -> None:
    """The same of agent, namespace, signer and owner; a suspension that was ended is fine."""
    svid = offline.agent()
    offline.state(target, "suspended")
    offline.state(target, "restored")
    offline.task_token(svid)
    assert findings(offline) == []
    offline.state(target, "suspended")
    with taken_away(offline, "fact", "sequence > 2 AND kind = 'suspended'"):
        offline.task_token(svid)
    assert len(findings(offline)) == 1
    assert "was suspended before it, by the fact" in findings(offline)[0]


def test_an_admin_who_was_revoked(offline: Offline) -> None:
    """An admin acts while the fact against it is gone; another one may."""
    boss, other = invited(offline, "boss", Role.ADMIN), invited(offline, "other", Role.ADMIN)
    offline.state("admin:boss")
    invite_by(offline, other, "second")
    assert findings(offline) == []
    with taken_away(offline, "fact", "target = 'admin:boss'"):
        invite_by(offline, boss)
    assert findings(offline) == ["admin:boss was revoked before it, by the fact 1"]


def test_a_one_time_token_that_was_spent_twice(offline: Offline) -> None:
    """The second admin SVID for one token; renewed and once spent it is fine."""
    csr = certificate_request(generate_key())
    offline.do(offline.issuer.issuance.admins.enrol(offline.first_token, csr))
    assert findings(offline) == []
    sql(offline, "UPDATE enrolment_token SET redeemed_by = NULL")
    offline.do(offline.issuer.issuance.admins.enrol(offline.first_token, csr))
    assert findings(offline) == ["its one-time token was never given out, or was spent before"]


def test_a_join_token_that_was_over(offline: Offline) -> None:
    """An instance that attested with a token whose end was moved, and moved back."""
    manifest = offline.register()
    token = offline.join_token(manifest)
    with offline.issuer.database.read() as connection:
        ends = connection.execute(text("SELECT expires_at FROM join_token")).scalar()
    sql(offline, "UPDATE join_token SET expires_at = '2027-01-01 00:00:00.000000'")
    offline.clock.advance(hours=12)
    offline.do(offline.issuer.issuance.agents.attest(offline.attestation(manifest, token=token)))
    sql(offline, "UPDATE join_token SET expires_at = :ends", ends=ends)
    (found,) = findings(offline)
    assert found.startswith("its join token was over since")


NAMED = """INSERT INTO subordinate (agent, namespaces, dns_names, created_at, created_by, log_index)
    VALUES ('support/summarizer', '["support"]', '[]', '2026-06-01 12:00:00.000000', 'test', 0)"""


def test_a_ca_for_nobody(offline: Offline) -> None:
    """A CA for an agent that only a row named is found, and can be revoked with no row of it."""
    ca = certified_by_row(offline)
    found = findings(offline)
    assert any("was no subordinate issuer then" in each for each in found)
    assert "the table of subordinates' issuing CAs does not have it" in found
    target = f"authority:{subject_key_id(ca)}"
    (fact,) = offline.state(target)
    assert fact.fact.expires_at >= ca.not_valid_after_utc
    with pytest.raises(Refusal) as refused:
        offline.state(f"authority:{'0' * 40}")
    assert refused.value.kind is Kind.NOT_FOUND


def certified_by_row(offline: Offline) -> x509.Certificate:
    """A CA that was issued while a row stood there, of which nothing is left."""
    svid = offline.agent()
    sql(offline, NAMED)
    ca = certified(offline, svid)
    sql(offline, "DELETE FROM subordinate")
    sql(offline, "DELETE FROM subordinate_ca")
    return ca


def test_a_ca_that_is_over_and_has_no_row(offline: Offline) -> None:
    """Without a row only a living CA is looked for among the certificates."""
    ca = certified_by_row(offline)
    offline.clock.now = ca.not_valid_after_utc
    with pytest.raises(Refusal):
        offline.state(f"authority:{subject_key_id(ca)}")


def test_names_that_were_lent(offline: Offline) -> None:
    """A CA with more namespaces than were granted then; each with those of its time is fine."""
    svid = offline.agent()
    name_subordinate(offline, "support")
    certified(offline, svid)
    offline.issuer.subordinates.remove(AGENT, by=Local("test"), now=offline.clock())
    name_subordinate(offline, "support", "payments")
    certified(offline, svid)
    assert findings(offline) == []
    lent = """UPDATE subordinate SET namespaces = '["support", "payments", "bank"]'"""
    sql(offline, lent)
    certified(offline, svid)
    sql(offline, """UPDATE subordinate SET namespaces = '["support", "payments"]'""")
    assert findings(offline) == ["its issuing CA has other names than were granted then"]


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE subordinate_ca SET id = 'ab'", "differs in: id"),
        ("UPDATE subordinate_ca SET agent = 'support/other'", "differs in: agent"),
        ("UPDATE subordinate_ca SET root = 'ab'", "differs in: root"),
        ("UPDATE subordinate_ca SET issued_at = '2026-01-01 00:00:00.000000'", "issued_at"),
        ("UPDATE subordinate_ca SET expires_at = '2026-01-01 00:00:00.000000'", "expires_at"),
        ("UPDATE subordinate_ca SET serial = 'ab'", "nothing was decided that it is of"),
        ("DELETE FROM subordinate_ca", "does not have it"),
    ],
)
def test_the_row_of_a_ca(offline: Offline, statement: str, found: str) -> None:
    """By its row a CA is found when it has to be revoked: a changed or missing one is found."""
    svid = offline.agent()
    name_subordinate(offline, "support")
    certified(offline, svid)
    assert findings(offline) == []
    sql(offline, statement)
    assert any(found in each for each in findings(offline))


# Record by record.


def record(kind: str, subject: str, actor: str = "issuer", **details: Any) -> Recorded:
    """One record."""
    return Recorded(0, kind, AT, actor, subject, details)


def by_admin(kind: str, subject: str, **details: Any) -> Recorded:
    """One that the admin x caused."""
    return record(kind, subject, "spiffe://example.org/admin/x", **details)


def replayed(*records: Recorded, place: Callable[[Target], str | None] | None = None) -> list[str]:
    """What is wrong with the last one."""
    replay = Replay(TRUST_DOMAIN, place or (lambda _: None))
    return [replay.judge(each) for each in records][-1]


def invitation(role: Role, *namespaces: str) -> Recorded:
    """The admin x."""
    return record(
        "admin.invited", "x", role=role.value, namespaces=list(namespaces), enrolment_token="t"
    )


FACT = {"sequence": 1, "fact": "revoked", "reason": "test", "expires_at": "2026-06-02T12:00:00Z"}
CHANGES = {
    "admin.invited": by_admin(
        "admin.invited", "y", role="viewer", namespaces=[], enrolment_token="u"
    ),
    "manifest.registered": by_admin("manifest.registered", "d", agent="support/a"),
    "agent.enrolled": by_admin("agent.enrolled", "support/a", join_token="j"),
    "fact.stated": by_admin("fact.stated", "agent:support/a", **FACT),
}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("kind", OPERATIONS)
def test_the_table_of_roles(role: Role, kind: str) -> None:
    """An admin's record is possible where its role allows it, and only there."""
    change = CHANGES.get(kind) or by_admin(kind, "support/a", namespaces=[], dns_names=[])
    reach = PERMISSIONS[role].get(OPERATIONS[kind][0])
    for namespace in ("support", "payments"):
        in_reach = kind in CHANGES and kind != "admin.invited" and namespace == "support"
        wanted = reach is Reach.ALL or (reach is Reach.OWN and in_reach)
        found = replayed(invitation(role, namespace), change, place=lambda _: "support")
        assert (found == []) is wanted, found


def test_an_authority_is_revoked_by_its_manager() -> None:
    """``revoke authority`` states a fact by the right over authorities; others do not."""
    manager = invitation(Role.SECURITY)
    assert replayed(manager, by_admin("fact.stated", "authority:ab", **FACT)) == []
    viewer = invitation(Role.VIEWER)
    assert replayed(viewer, by_admin("fact.stated", "authority:ab", **FACT)) != []


@pytest.mark.parametrize(
    ("actor", "found"),
    [
        ("spiffe://example.org/admin/y", "nobody had invited the admin y before it"),
        ("spiffe://other.org/admin/x", "is no admin"),
        ("spiffe://example.org/ns/support/agent/a", "is no admin"),
        ("spiffe://example.org/ADMIN//x", "path"),
    ],
)
def test_who_is_no_admin(actor: str, found: str) -> None:
    """What only admins do is done by an admin of ours, or by the issuer itself."""
    changed = replace(CHANGES["agent.enrolled"], actor=actor)
    (problem,) = replayed(invitation(Role.ADMIN), changed)
    assert found in problem
    assert replayed(replace(changed, actor="operator")) == []


def issued(**details: Any) -> Recorded:
    """A credential of an agent."""
    said = {"credential": "jwt", "instance": "i", "manifest": "d", "authority": "k", **details}
    return record("credential.issued", "s", "spiffe://example.org/ns/support/agent/a", **said)


REGISTERED = record("manifest.registered", "d", agent="support/a", signer="ci", owner="o")


@pytest.mark.parametrize(
    ("target", "changes"),
    [
        ("jti:s", {}),
        ("instance:i", {}),
        ("manifest:d", {}),
        ("authority:k", {}),
        ("signer:ci", {}),
        ("owner:o", {}),
        ("agent:support/a", {}),
        ("namespace:support", {}),
        ("task:t", {"credential": "task", "task": "t"}),
        ("task:t", {"credential": "task", "task": "u", "parent": "t"}),
        ("serial:s", {"credential": "x509"}),
    ],
)
def test_what_a_fact_matches(target: str, changes: dict[str, Any]) -> None:
    """Whatever a credential's record names is what a fact before it can be about."""
    fact = record("fact.stated", target, **FACT)
    assert replayed(REGISTERED, issued(**changes)) == []
    assert replayed(REGISTERED, fact, issued(**changes)) == [
        f"{target} was revoked before it, by the fact 1"
    ]
    assert replayed(REGISTERED, replace(fact, subject=f"{target}x"), issued(**changes)) == []


def test_a_manifest_that_nobody_registered() -> None:
    """A credential's manifest stands in the log before it, and is its agent's."""
    assert replayed(issued()) == ["no manifest d was registered before it"]
    other = replace(REGISTERED, details={**REGISTERED.details, "agent": "support/b"})
    assert replayed(other, issued()) == ["its manifest is of the agent support/b"]


def test_facts_that_match_nothing_any_more() -> None:
    """What expired is dropped from memory; what is in force, or lasts, is not."""
    old = [
        record("fact.stated", f"jti:{number}", **{**FACT, "expires_at": "2026-05-01T12:00:00Z"})
        for number in range(FIRST_PRUNED)
    ]
    facts = [
        record("fact.stated", "instance:i", **FACT),
        record("fact.stated", "agent:support/a", **{**FACT, "expires_at": "2026-05-01T12:00:00Z"}),
    ]
    assert replayed(REGISTERED, *facts[:1], *old, issued()) != []
    assert replayed(REGISTERED, *facts[1:], *old, issued()) != []
    assert replayed(REGISTERED, *old, issued(), issued()) == []


def test_when_a_join_token_is_over() -> None:
    """A token that ends at this very moment is over; one that ends later is not."""
    given = record("agent.enrolled", "support/a", join_token="j", expires_at=AT)
    attested = record("instance.attested", "i", manifest="d", selectors=["join_token:id:j"])
    assert "was over" in replayed(REGISTERED, given, attested)[0]
    later = replace(given, details={**given.details, "expires_at": "2026-06-01T12:00:00.001Z"})
    assert replayed(REGISTERED, later, attested) == []
    assert "was given to" in replayed(REGISTERED, replace(later, subject="support/b"), attested)[0]
    earlier_version = replace(given, details={"join_token": "j"})
    assert replayed(REGISTERED, earlier_version, attested) == []


ON_NODE = "0b8f7c1e-5a44-4c0e-9d3a-2f6f1f0a7b11"
OWN = "7c1e0b8f-5a44-4c0e-9d3a-2f6f1f0a7b11"
BY_NODE = "spiffe://example.org/node/web-1"
SUSPENDED = {**FACT, "fact": "suspended"}


def listed(*namespaces: str) -> Recorded:
    """The node web-1, as it is listed or changed."""
    return record("node.added", "web-1", instance=OWN, namespaces=list(namespaces))


def registered() -> Recorded:
    """The manifest of support/a."""
    return record("manifest.registered", "sha256:m", agent="support/a", signer="ci", owner="o")


def born() -> Recorded:
    """An instance that the node vouched for."""
    return replace(
        record("instance.attested", ON_NODE, manifest="sha256:m", node="web-1", selectors=[]),
        actor=BY_NODE,
    )


def issued_there(kind: str) -> Recorded:
    """A credential of that instance."""
    said = {"credential": kind, "instance": ON_NODE, "manifest": "sha256:m"}
    return replace(
        record("credential.issued", "ab", **said), actor="spiffe://example.org/ns/support/agent/a"
    )


def own_svid(instance: str) -> Recorded:
    """A credential of the node itself."""
    return replace(
        record("credential.issued", "ac", credential="x509", instance=instance), actor=BY_NODE
    )


def removed() -> Recorded:
    """The node is listed no more."""
    return record("node.removed", "web-1", instance=OWN)


@pytest.mark.parametrize(
    ("before", "last", "found"),
    [
        ([listed("support")], born(), ""),
        ([listed("payments")], born(), "could not run support/a"),
        ([], born(), "could not run support/a"),
        ([listed("support"), removed()], born(), "could not run support/a"),
        ([listed("support"), born()], issued_there("x509"), ""),
        ([listed("support"), born(), listed("payments")], issued_there("x509"), "could not run"),
        ([listed("support"), born(), listed("payments")], issued_there("jwt"), ""),
        ([listed("support"), born(), record("fact.stated", "node:web-1", **FACT)],
         issued_there("jwt"), "node:web-1 was revoked before it"),
        ([listed("support")], own_svid(OWN), ""),
        ([listed("support")], own_svid(ON_NODE), "nobody had listed the node"),
        ([], own_svid(OWN), "nobody had listed the node"),
        ([listed("support"), born()],
         replace(record("fact.stated", f"instance:{ON_NODE}", **SUSPENDED), actor=BY_NODE), ""),
        ([listed("support"), born()],
         replace(record("fact.stated", f"instance:{ON_NODE}", **FACT), actor=BY_NODE),
         "did what only admins do"),
        ([listed("support"), born()],
         replace(record("fact.stated", f"instance:{OWN}", **SUSPENDED), actor=BY_NODE),
         "did not run on the node"),
        ([listed("support"), born()],
         replace(record("manifest.registered", "sha256:n", agent="support/a"), actor=BY_NODE),
         "did what only admins do"),
        ([listed("support"), born()],
         record("instance.changed", ON_NODE, node="web-1"), ""),
        ([listed("support"), born()],
         record("instance.changed", ON_NODE, node="web-2"), "did not run on the node web-2"),
    ],
)  # fmt: skip
def test_what_nodes_do_is_held_against_what_they_were_listed_with(
    before: list[Recorded], last: Recorded, found: str
) -> None:
    """Its own SVIDs, what it vouches for, and what it suspends; nothing else is a node's to do."""
    problems = replayed(registered(), *before, last)
    assert any(found in each for each in problems) if found else problems == []


def test_a_nodes_join_token_is_spent_once() -> None:
    """One that nobody gave out, or that was used before, lets no node in."""
    given = record("node.enrolled", "web-1", join_token="t", expires_at="2026-06-01T13:00:00.000Z")
    used = record("node.attested", "web-1", instance=OWN, join_token="t")
    assert replayed(listed("support"), given, used) == []
    assert replayed(listed("support"), used) != []
    assert replayed(listed("support"), given, used, used) != []


CA = "5f" * 20
PREPARED = Recorded(0, "authority.prepared", AT, "issuer", CA, {"kind": "x509"})


def responder(actor: str = "issuer", **changes: Any) -> Recorded:
    """A responder that the issuing CA certified."""
    details = {"authority": CA, "expires_at": "2026-06-01T16:00:00.000Z", **changes}
    return record("responder.certified", "4000", actor, **details)


@pytest.mark.parametrize(
    ("before", "last", "found"),
    [
        ([PREPARED], responder(), ""),
        ([], responder(), "was no issuing CA in use then"),
        ([replace(PREPARED, details={"kind": "root"})], responder(), "was no issuing CA"),
        ([PREPARED], responder(authority="00"), "authority 00 was no issuing CA"),
        ([PREPARED, record("authority.removed", CA)], responder(), "was no issuing CA"),
        ([PREPARED, record("authority.revoked", CA)], responder(), "was no issuing CA"),
        ([PREPARED, record("authority.tainted", CA)], responder(), ""),
        ([PREPARED], responder(expires_at="2026-06-01T16:00:01.000Z"), "lives longer than any may"),
        ([PREPARED], responder(expires_at=None), "lives longer than any may"),
        ([PREPARED], responder("spiffe://example.org/admin/x"), "which only the issuer does"),
    ],
)
def test_who_may_answer_is_held_against_the_cas_in_use(
    before: list[Recorded], last: Recorded, found: str
) -> None:
    """An OCSP responder is the issuer's own, below a CA that it has then, and for hours only."""
    problems = replayed(*before, last)
    assert any(found in each for each in problems) if found else problems == []

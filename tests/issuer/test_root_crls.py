"""The CRLs of roots: issuing CAs that were taken back, ours and subordinates'."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from sqlalchemy import text
from support.audit_world import audited
from support.given import given_chain
from support.offline import Offline, offline_issuer

from accredit_client.calls import certificate_request
from accredit_credentials.keys import generate_key
from accredit_credentials.spiffe_id import AgentId
from accredit_credentials.x509_template import subject_key_id
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.authority.subordinates import Subordinate
from accredit_issuer.registry.changes import Local

ROOT, X509, JWT = AuthorityKind.ROOT, AuthorityKind.X509, AuthorityKind.JWT
AGENT = AgentId.parse("support/summarizer")
Ca = x509.Certificate


def own_ca(offline: Offline) -> Ca:
    """An issuing CA of ours that signs no more."""
    old = offline.issuer.authorities.now_in_force.active(X509)
    offline.replace(X509)
    assert old.certificate is not None
    return old.certificate


def subordinates_ca(offline: Offline) -> Ca:
    """A subordinate's."""
    svid = offline.agent()
    if not offline.issuer.subordinates.all():
        named = Subordinate(agent=AGENT, namespaces=("support",))
        offline.issuer.subordinates.add(named, by=Local("test"), now=offline.clock())
    csr = certificate_request(generate_key())
    return offline.do(offline.issuer.issuance.issuing_ca(svid, csr)).certificate


def hidden_ca(offline: Offline) -> Ca:
    """The same, and somebody took its row away."""
    made = subordinates_ca(offline)
    delete = text("DELETE FROM subordinate_ca")
    offline.issuer.writer.run(lambda t: t.execute(delete)).result()
    return made


def entry_of(offline: Offline, ca: Ca, root: str | None = None) -> x509.RevokedCertificate | None:
    """What the CRL of the root says of a CA."""
    crl = offline.crl(root or offline.active(ROOT))
    return crl.get_revoked_certificate_by_serial_number(ca.serial_number)


def about(ca: Ca) -> str:
    """The target of a fact about it."""
    return f"authority:{subject_key_id(ca)}"


CAS = [own_ca, subordinates_ca, hidden_ca]


@pytest.mark.parametrize("make", CAS)
def test_a_revoked_issuing_ca_is_on_its_roots_crl(
    offline: Offline, make: Callable[[Offline], Ca]
) -> None:
    """At once and past a restart, until its end; its neighbour is not, and the root signed it."""
    neighbour, doomed = subordinates_ca(offline), make(offline)
    root = offline.issuer.authorities.now_in_force.active(ROOT)
    assert root.certificate is not None
    assert len(offline.crl(root.id)) == 0
    offline.state(about(doomed))
    for _ in range(2):
        crl = offline.crl(root.id)
        assert crl.is_signature_valid(root.certificate.public_key())  # type: ignore[arg-type]
        assert crl.issuer == doomed.issuer == root.certificate.subject
        assert entry_of(offline, doomed)
        assert not entry_of(offline, neighbour)
        offline.reopen()
    offline.clock.now = doomed.not_valid_after_utc
    offline.issuer.keep_up()
    assert entry_of(offline, doomed)


def test_a_suspended_issuing_ca_is_on_hold_until_it_is_restored(offline: Offline) -> None:
    """A certificateHold, which the end of the suspension takes off."""
    ca = subordinates_ca(offline)
    offline.state(about(ca), "suspended")
    entry = entry_of(offline, ca)
    assert entry is not None
    reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    assert reason is x509.ReasonFlags.certificate_hold
    offline.state(about(ca), "restored")
    assert not entry_of(offline, ca)


def test_each_certificate_of_one_key_is_on_it(offline: Offline) -> None:
    """A CA that was certified twice for its key is revoked as both."""
    svid, key = offline.agent(), generate_key()
    named = Subordinate(agent=AGENT, namespaces=("support",))
    offline.issuer.subordinates.add(named, by=Local("test"), now=offline.clock())
    issue = offline.issuer.issuance.issuing_ca
    both = [offline.do(issue(svid, certificate_request(key))).certificate for _ in range(2)]
    offline.state(about(both[0]))
    assert all(entry_of(offline, each) for each in both)


def test_what_is_no_ca_is_on_no_roots_crl(offline: Offline) -> None:
    """A fact about a JWT key, or about a leaf, changes no CRL of a root."""
    root = offline.active(ROOT)
    before = offline.issuer.revocation.crls.of(root)
    offline.state(f"authority:{offline.replace(JWT)}")
    offline.state(f"serial:{offline.agent().serial}")
    assert offline.issuer.revocation.crls.of(root) is before


def test_the_first_crl_of_a_root_takes_up_what_was_said_before(offline: Offline) -> None:
    """A database of before roots had any: what was revoked then is on the first one."""
    revoked, suspended, restored = (subordinates_ca(offline) for _ in range(3))
    neighbour = subordinates_ca(offline)
    offline.state(about(revoked))
    offline.state(about(suspended), "suspended")
    offline.state(about(restored), "suspended")
    offline.state(about(restored), "restored")
    root = {"root": offline.active(ROOT)}
    offline.issuer.close()
    with offline_database(offline) as connection:
        connection.execute(text("DELETE FROM crl WHERE authority = :root"), root)
        connection.execute(text("DELETE FROM revoked_certificate WHERE authority = :root"), root)
    offline.clock.advance(seconds=5)
    offline.reopen()
    found = [entry_of(offline, each) is not None for each in (revoked, suspended, restored)]
    assert found == [True, True, False]
    assert not entry_of(offline, neighbour)


def test_a_revoked_roots_last_crl_has_all_below_it(offline: Offline) -> None:
    """Whoever still trusts the root is told by it; the next root's CRL has none of them."""
    subordinate = subordinates_ca(offline)
    ca = offline.issuer.authorities.now_in_force.active(X509).certificate
    assert ca is not None
    old = offline.replace(ROOT)
    offline.issuer.keep_up()
    assert len(offline.crl(offline.active(ROOT))) == 0
    offline.issuer.rollover.revoke(old, "stolen", by=Local("maria"))
    for _ in range(2):
        assert entry_of(offline, ca, old)
        assert entry_of(offline, subordinate, old)
        assert len(offline.crl(offline.active(ROOT))) == 0
        offline.reopen()


def test_a_given_root_has_no_crl_of_ours(tmp_path: Path) -> None:
    """Whose CA it is publishes its CRL; ours has the leaves of the issuing CA below it."""
    upstream = given_chain({}).write(tmp_path)
    with offline_issuer(tmp_path / "issuer", upstream=upstream) as offline:
        svid = offline.agent()
        offline.state(f"authority:{offline.replace(X509)}")
        assert offline.is_on_crl(svid)
        assert offline.issuer.revocation.crls.of(offline.active(ROOT)) is None
        authorities = {crl.authority for crl in offline.issuer.revocation.crls.current}
        assert offline.active(ROOT) not in authorities
        assert audited(offline).findings == []


# Under audit


def offline_database(offline: Offline):  # noqa: ANN201 (a context manager of SQLAlchemy's)
    """A transaction of somebody who has the file."""
    return offline.issuer.database.writing.begin()


@pytest.mark.parametrize("make", CAS[:2])
def test_an_audit_has_nothing_against_it(offline: Offline, make: Callable[[Offline], Ca]) -> None:
    """Revoked, suspended and then revoked, and expired: no findings."""
    first, second = make(offline), make(offline)
    offline.state(about(first))
    offline.state(about(second), "suspended")
    offline.clock.advance(minutes=1)
    offline.state(about(second))
    assert audited(offline).findings == []
    offline.clock.now = max(first.not_valid_after_utc, second.not_valid_after_utc)
    offline.issuer.keep_up()
    assert audited(offline).findings == []


CHANGES = {
    "another end": (
        "UPDATE revoked_certificate SET expires_at = '2020-01-01 00:00:00.000000'",
        "differ in: expires_at",
    ),
    "another authority": (
        "UPDATE revoked_certificate SET authority = 'x'",
        "differ in: authority",
    ),
    "another fact": (
        "UPDATE revoked_certificate SET fact = (SELECT max(sequence) FROM fact)",
        "differ in: fact",
    ),
    "no entry": ("DELETE FROM revoked_certificate", "it is not on the CRL of its root"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("make", CAS[:2])
def test_an_audit_finds_what_is_missing_or_changed(
    offline: Offline, make: Callable[[Offline], Ca], change: tuple[str, str]
) -> None:
    """A CA that a fact matches and no CRL has; an entry that is not what its fact says."""
    ca = make(offline)
    if make is own_ca:
        offline.agent()
    offline.state(about(ca))
    offline.clock.advance(minutes=1)
    offline.state(f"agent:{AGENT}")
    statement, said = change
    with offline_database(offline) as connection:
        serial = {"serial": format(ca.serial_number, "x")}
        connection.execute(text(f"{statement} WHERE serial = :serial"), serial)
    problems = {f.problem for f in audited(offline).findings if serial["serial"] in f.about}
    assert any(said in each for each in problems), problems


def test_it_leaves_as_any_entry_does(offline: Offline) -> None:
    """A revoked CA leaves its root's CRL once scheduled ones beyond its end have carried it."""
    ca = own_ca(offline)
    offline.state(about(ca))
    left: datetime | None = None
    for _ in range(60):
        offline.clock.advance(minutes=31)
        offline.issuer.keep_up()
        if not entry_of(offline, ca):
            left = offline.clock()
            break
    assert left is not None
    assert left > ca.not_valid_after_utc

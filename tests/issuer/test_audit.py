"""``accredit-issuer audit``: an issuer that nobody tampered with has no findings, whatever it did.

What is found where somebody did: ``test_audit_credentials``, ``test_audit_state``,
``test_audit_authorities``, ``test_audit_log``.
"""

import json
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from support.audit_world import AuditWorld, audited
from support.offline import Offline
from typer.testing import CliRunner

from accredit_issuer.audit.records import Record, RecordKind
from accredit_issuer.audit.report import MAX_KEPT, Report
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.cli.app import app
from accredit_issuer.cli.audit import lines, view
from accredit_issuer.issuance.cycle import Intent
from accredit_issuer.registry.changes import Local
from accredit_issuer.store.bulk import BulkInsert
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import authorities, credentials, releases


def test_a_clean_issuer_has_no_findings(audit_world: AuditWorld, audit_copy: Database) -> None:
    """Everything that was issued and stated is examined, and nothing is found."""
    report = audit_world.audit(audit_copy, kept=audit_world.checkpoint)
    assert report.findings == []
    assert report.ok
    # Three agents, one renewal, two nodes with an instance each, the server's and an admin's; a
    # JWT-SVID and a task token.
    assert report.examined["certificates"] == 10
    assert report.examined["tokens"] == 3
    assert report.examined["facts"] == 3
    assert report.examined["authorities"] == 4
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
    problems = [found.problem for found in audited(offline).findings]
    assert "its authority did not sign what its rows say" in problems
    assert any(each.endswith("differ in: at") for each in problems)


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

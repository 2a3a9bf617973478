"""The issuer's CRLs: what is signed, what is kept of it, and what a reader gets when."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text
from support.crl_builder import Listed, library_crl
from support.offline import Offline, offline_issuer

from accredit_credentials.crl_der import Times
from accredit_credentials.keys import generate_key
from accredit_credentials.leaf_der import IssuingCa
from accredit_credentials.revocation import FactKind, Target
from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.clock_guard import ClockWrong
from accredit_issuer.errors import Kind, Refusal, Unavailable
from accredit_issuer.issuer import UNSIGNED_AGAIN
from accredit_issuer.registry.changes import Local
from accredit_issuer.revocation import crls as module
from accredit_issuer.revocation.crl import Crl, Entries, next_times, sign_crl
from accredit_issuer.revocation.projection import EntriesDamaged
from accredit_issuer.revocation.stated import FactRequest
from accredit_issuer.store.database import Database
from accredit_issuer.store.writer import Transaction

ROOT, X509 = AuthorityKind.ROOT, AuthorityKind.X509
HOUR = timedelta(hours=1)


def published(offline: Offline) -> Crl:
    """The CRL of the CA that signs."""
    crl = offline.issuer.revocation.crls.of(offline.active(X509))
    assert crl is not None
    return crl


def number_of(crl: x509.CertificateRevocationList) -> int:
    """Its CRLNumber."""
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def change_stopped(offline: Offline, *statements: str) -> None:
    """Start again on a database that somebody changed meanwhile."""
    offline.issuer.close()
    database = Database(offline.config.database)
    with database.writing.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    database.close()
    offline.reopen()


# What is signed


def test_what_is_published_is_what_the_library_would_sign(offline: Offline) -> None:
    """Revoked, suspended and restored: the TBSCertList is the builder's, byte for byte."""
    manifest = offline.register()
    svids = [offline.attest(manifest) for _ in range(5)]
    offline.state(f"serial:{svids[0].serial}")
    offline.clock.advance(minutes=1, milliseconds=700)
    offline.state(f"instance:{svids[1].instance}", "suspended")
    offline.state(f"instance:{svids[2].instance}", "suspended")
    offline.state(f"instance:{svids[2].instance}", "restored")
    offline.state(f"instance:{svids[1].instance}")
    offline.state(f"instance:{svids[3].instance}", "suspended")
    crl, (ca,) = offline.crl_of(svids[0]), svids[0].intermediates
    listed = [
        Listed(
            entry.serial_number,
            entry.revocation_date_utc,
            suspended=x509.CRLReason(x509.ReasonFlags.certificate_hold)
            in [each.value for each in entry.extensions],
        )
        for entry in crl
    ]
    assert crl.next_update_utc is not None
    times = Times(
        number=number_of(crl), this_update=crl.last_update_utc, next_update=crl.next_update_utc
    )
    library = library_crl(ca, generate_key(), listed, times)
    assert crl.tbs_certlist_bytes == library.tbs_certlist_bytes
    assert {(each.serial, each.suspended) for each in listed} == {
        (svids[0].leaf.serial_number, False),
        (svids[1].leaf.serial_number, False),
        (svids[3].leaf.serial_number, True),
    }


def test_entries_are_the_same_however_they_came_together() -> None:
    """One by one, all at once, in another order, and with some that came and went."""
    pairs = [(format(each * 7919, "x"), bytes([each % 251]) * 3) for each in range(1, 2000)]
    at_once = Entries().changed(pairs)
    one_by_one = Entries()
    for pair in reversed(pairs):
        one_by_one = one_by_one.changed([pair, ("ffff00", b"x")])
    assert "ffff00" in one_by_one
    one_by_one = one_by_one.changed([("ffff00", None)])
    assert "ffff00" not in one_by_one
    assert list(one_by_one.joined()) == list(at_once.joined())
    assert len(one_by_one) == len(at_once) == 1999
    assert at_once.changed([pairs[5], ("eeee", None)]) is at_once, "nothing changed"


def test_one_more_entry_joins_one_part_anew() -> None:
    """The others are the very same objects: what is published costs no more with its size."""
    before = Entries().changed((format(each, "x"), b"entry") for each in range(4096, 14096))
    after = before.changed([("aa0017", b"another")])
    same = [new is old for new, old in zip(after._parts, before._parts, strict=True)]
    assert same.count(False) == 1
    assert not same[0x17]


def test_a_fact_that_changes_no_entry_makes_no_crl(offline: Offline) -> None:
    """Revoked by its instance after it was by its serial number: the CRL says so already."""
    svid = offline.agent()
    offline.state(f"serial:{svid.serial}")
    before = published(offline)
    offline.state(f"instance:{svid.instance}")
    assert published(offline) is before
    offline.state(f"serial:{offline.agent().serial}")
    assert published(offline) is not before


def test_a_number_is_greater_than_the_last_and_than_what_may_be_forgotten() -> None:
    """The seconds of now, or one more: also after more facts than seconds, and a clock set back."""
    now = datetime.fromisoformat("2026-06-01T12:00:00.9+00:00")
    first = next_times(0, now, HOUR)
    assert first.number == int(now.timestamp())
    assert first.this_update == now.replace(microsecond=0)
    assert first.next_update - first.this_update == HOUR
    assert next_times(first.number, now, HOUR).number == first.number + 1
    assert next_times(first.number + 500, now - HOUR, HOUR).number == first.number + 501


# What is kept of it


def test_after_a_restart_the_same_bytes_are_served(offline: Offline) -> None:
    """Nothing is signed anew: the kept signature is over what is made again of the rows."""
    svid = offline.agent()
    offline.state(f"serial:{svid.serial}")
    before = [crl.der for crl in offline.issuer.revocation.crls.current]
    offline.reopen()
    assert [crl.der for crl in offline.issuer.revocation.crls.current] == before
    assert offline.is_on_crl(svid), "at the very first look"


DAMAGES = {
    "an entry gone": "DELETE FROM revoked_certificate",
    "an entry of before": "UPDATE revoked_certificate SET at = '2026-06-01 11:00:00.000000'",
    "a number": "UPDATE crl SET number = number - 5",
    "a moment": "UPDATE crl SET next_update = '2026-06-01 12:10:00.000000'",
    "a moment as bytes": "UPDATE crl SET next_update = x'00'",
    "a signature": "UPDATE crl SET signature = x'00'",
    "no CRL": "DELETE FROM crl",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_not_what_was_signed_is_made_anew(offline: Offline, damage: str) -> None:
    """With a greater number, and with each certificate that a fact in force matches."""
    manifest = offline.register()
    svid, neighbour = offline.attest(manifest), offline.attest(manifest)
    offline.state(f"instance:{svid.instance}")
    before = published(offline)
    offline.clock.advance(seconds=10)
    change_stopped(offline, damage)
    after = published(offline)
    assert after.times.number > before.times.number
    assert after.der != before.der
    assert offline.is_on_crl(svid)
    assert not offline.is_on_crl(neighbour)
    (ca,) = svid.intermediates
    assert offline.crl_of(svid).is_signature_valid(ca.public_key())  # type: ignore[arg-type]


def test_an_entry_that_is_none_stops_the_start(offline: Offline) -> None:
    """Nobody knows what it said, so no CRL without it is signed; what to do is said in a line."""
    offline.state(f"serial:{offline.agent().serial}")
    with pytest.raises(EntriesDamaged, match="restore a backup"):
        change_stopped(offline, "UPDATE revoked_certificate SET serial = 'x'")
    change_back = "UPDATE revoked_certificate SET serial = (SELECT substr(target, 8) FROM fact)"
    change_stopped(offline, change_back)


BEFORE_0006 = (
    "DROP TABLE crl",
    (
        "CREATE TABLE crl (authority VARCHAR NOT NULL, number INTEGER NOT NULL, "
        "this_update DATETIME NOT NULL, next_update DATETIME NOT NULL, der BLOB NOT NULL, "
        "CONSTRAINT pk_crl PRIMARY KEY (authority))"
    ),
    (
        "INSERT INTO crl SELECT id, 7, '2026-06-01 12:00:00.000000', "
        "'2026-06-01 13:00:00.000000', x'3000' FROM authority WHERE kind = 'x509'"
    ),
    "DROP TABLE stream",
    "ALTER TABLE credential DROP COLUMN status_list",
    "ALTER TABLE credential DROP COLUMN status_index",
    "UPDATE alembic_version SET version_num = '0005'",
)


def test_a_database_of_before_goes_on(offline: Offline) -> None:
    """An update makes the next CRL of what was revoked, and the root's of what facts say."""
    svid = offline.agent()
    offline.state(f"serial:{svid.serial}")
    old = offline.replace(X509)
    offline.state(f"authority:{old}", "suspended")
    root = f"DELETE FROM revoked_certificate WHERE authority = '{offline.active(ROOT)}'"  # noqa: S608
    change_stopped(offline, *BEFORE_0006, root)
    assert offline.is_on_crl(svid)
    assert number_of(offline.crl_of(svid)) > 7
    assert len(offline.crl(offline.active(ROOT))) == 1


def test_a_backup_repeats_no_number(offline: Offline) -> None:
    """Restored, the database knows an older CRL; the next one has a number that is new."""
    first, second = offline.agent(), offline.agent()
    backup = offline.config.database.with_suffix(".backup")
    with closing(sqlite3.connect(offline.config.database)) as connection:
        connection.execute("VACUUM INTO ?", (str(backup),))
    offline.clock.advance(minutes=1)
    offline.state(f"serial:{first.serial}")
    lost = published(offline).times.number
    offline.issuer.close()
    backup.replace(offline.config.database)
    for rest in ("-wal", "-shm"):
        Path(f"{offline.config.database}{rest}").unlink(missing_ok=True)
    offline.clock.advance(minutes=1)
    offline.reopen()
    offline.state(f"serial:{second.serial}")
    assert published(offline).times.number > lost


# Signed, and not committed


def signed_from_now(monkeypatch: pytest.MonkeyPatch) -> list[Crl]:
    """What is signed from now on."""
    made: list[Crl] = []

    def noting(*arguments: Any, **options: Any) -> Crl:
        made.append(sign_crl(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(module, "sign_crl", noting)
    return made


def refused(offline: Offline, request: FactRequest) -> None:
    """A fact whose transaction is taken back after it was signed for."""

    def work(transaction: Transaction) -> None:
        offline.issuer.revocation.state_within(transaction, request, offline.clock())
        raise Refusal(Kind.CONFLICT, "on second thoughts")

    with pytest.raises(Refusal):
        offline.issuer.writer.run(work, alone=True).result()


def not_committed(offline: Offline, request: FactRequest) -> None:
    """A fact whose commit fails."""

    def fail(_connection: object) -> None:
        raise OSError("disk full")

    event.listen(offline.issuer.database.writing, "commit", fail)
    with pytest.raises(Unavailable):
        offline.issuer.revocation.state(request, offline.issuer.changes, offline.clock())
    event.remove(offline.issuer.database.writing, "commit", fail)


@pytest.mark.parametrize("end", [refused, not_committed])
def test_what_is_taken_back_was_never_published(
    offline: Offline, monkeypatch: pytest.MonkeyPatch, end: Callable[[Offline, FactRequest], None]
) -> None:
    """It was signed; memory and database are as before, and the next fact finds them so."""
    manifest = offline.register()
    svid, next_one = offline.attest(manifest), offline.attest(manifest)
    before = published(offline)
    made = signed_from_now(monkeypatch)
    request = FactRequest(
        target=Target.parse(f"serial:{svid.serial}"),
        kind=FactKind.REVOKED,
        reason="test",
        actor=Local("test"),
    )
    end(offline, request)
    assert len(made) == 1
    assert published(offline) is before
    offline.state(f"serial:{next_one.serial}")
    after = published(offline)
    assert (len(after.entries), after.times.number) == (1, before.times.number + 1)
    assert svid.serial not in after.entries
    offline.reopen()
    assert published(offline).der == after.der


def keyless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No CA's key answers."""

    def away(*_: Any, **__: Any) -> Crl:
        raise Unavailable("the token does not answer")

    monkeypatch.setattr(module, "sign_crl", away)


@pytest.mark.parametrize("back", ["schedule", "fact", "restart"])
def test_a_key_that_does_not_answer_holds_no_fact_up(
    offline: Offline, monkeypatch: pytest.MonkeyPatch, back: str
) -> None:
    """The fact is in force at once; its CRL follows with whatever comes first, and has it."""
    manifest = offline.register()
    svid, next_one = offline.attest(manifest), offline.attest(manifest)
    before = published(offline)
    with monkeypatch.context() as patched:
        keyless(patched)
        offline.state(f"serial:{svid.serial}")
        offline.issuer.keep_up()
    assert published(offline) is before
    assert offline.issuer.revocation.crls.unsigned
    assert offline.issuer.revocation.facts.match([f"serial:{svid.serial}"])
    soon = offline.issuer.next_due(offline.clock()) - offline.clock()
    assert soon == UNSIGNED_AGAIN
    if back == "schedule":
        offline.issuer.keep_up()
    elif back == "fact":
        offline.state(f"serial:{next_one.serial}")
    else:
        offline.reopen()
    after = published(offline)
    assert svid.serial in after.entries
    assert (next_one.serial in after.entries) == (back == "fact")
    assert after.times.number > before.times.number
    assert not offline.issuer.revocation.crls.unsigned
    offline.reopen()
    assert published(offline).der == after.der


def test_one_key_that_does_not_answer_keeps_no_other_crl(
    offline: Offline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root's key is away: issuing CAs publish on."""
    root = offline.active(AuthorityKind.ROOT)
    real = module.sign_crl

    def sign(ca: IssuingCa, *arguments: Any, **named: Any) -> Crl:
        if ca.key_id.hex() == root:
            raise Unavailable("the token does not answer")
        return real(ca, *arguments, **named)

    before = published(offline)
    offline.clock.advance(seconds=offline.issuer.config.crl_lifetime.total_seconds())
    with monkeypatch.context() as patched:
        patched.setattr(module, "sign_crl", sign)
        offline.issuer.keep_up()
    assert published(offline).times.number > before.times.number
    assert offline.issuer.revocation.crls.unsigned


KILLED = """
import os, signal, sys
from pathlib import Path
from accredit_credentials.revocation import FactKind, Target
from accredit_issuer.issuer import open_issuer
from accredit_issuer.registry.changes import Local
from accredit_issuer.revocation import crls
from accredit_issuer.revocation.revocation import FactRequest
sys.path.insert(0, sys.argv[4])
from support.clock import SettableClock
from support.issuer import make_config

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

issuer = open_issuer(make_config(Path(sys.argv[1])), SettableClock())
if sys.argv[3] == "signed":
    keep, crls.keep = crls.keep, lambda t, crl: (keep(t, crl), die())
else:
    issuer.revocation.crls._publish_after = lambda t, *_: t.after_commit(die)
request = FactRequest(
    target=Target.parse(sys.argv[2]), kind=FactKind.REVOKED, reason="r", actor=Local("t")
)
issuer.revocation.state(request, issuer.changes, issuer.clock())
"""


@pytest.mark.parametrize("moment", ["signed", "committed"])
def test_killed_between_signature_and_publication(tmp_path: Path, moment: str) -> None:
    """Before the commit nothing was said; after it the CRL is there at the first look."""
    with offline_issuer(tmp_path / "issuer") as offline:
        svid = offline.agent()
        before = published(offline)
        offline.issuer.close()
        tests = Path(__file__).parents[1]
        target = f"serial:{svid.serial}"
        done = subprocess.run(
            [sys.executable, "-c", KILLED, tmp_path / "issuer", target, moment, tests],
            check=False, timeout=60, capture_output=True,
        )  # fmt: skip
        assert done.returncode == -9, done.stderr.decode()
        offline.reopen()
        assert offline.is_on_crl(svid) is (moment == "committed")
        if moment == "signed":
            assert published(offline).der == before.der
            offline.state(target)
        assert published(offline).times.number == before.times.number + 1
        assert offline.is_on_crl(svid)


# When there is one


@pytest.mark.parametrize("kind", [ROOT, X509])
def test_a_new_authority_has_a_crl_before_it_signs(
    offline: Offline, monkeypatch: pytest.MonkeyPatch, kind: AuthorityKind
) -> None:
    """And before listeners of the feed hear of it; the CA that followed its root has one, too."""
    missing: list[bool] = []
    crls, feed = offline.issuer.revocation.crls, offline.issuer.feed
    monkeypatch.setattr(feed, "_wake_listeners", lambda: missing.append(crls.is_one_missing))
    made = offline.prepare(kind)
    first = offline.issuer.revocation.crls.of(made)
    assert first is not None
    assert len(first.entries) == 0
    offline.activate(made)
    assert offline.issuer.revocation.crls.of(made) is first
    assert len(offline.crl(offline.active(X509))) == 0
    assert missing
    assert not any(missing)


# When entries leave


def test_only_a_scheduled_crl_beyond_the_end_lets_an_entry_go(offline: Offline) -> None:
    """A fact's CRL after the end of a certificate does not count, nor does the first scheduled."""
    manifest = offline.register()
    svid = offline.attest(manifest)
    offline.state(f"serial:{svid.serial}")
    offline.issuer.keep_up()
    offline.clock.now = svid.not_after + timedelta(seconds=1)
    for _ in range(2):
        offline.state(f"serial:{offline.attest(manifest).serial}")
        assert offline.is_on_crl(svid), "no schedule asked for this one"
    offline.issuer.keep_up()
    assert offline.is_on_crl(svid), "the first scheduled one beyond its end carries it"
    offline.state(f"serial:{offline.attest(manifest).serial}")
    assert offline.is_on_crl(svid)
    offline.clock.advance(minutes=31)
    offline.issuer.keep_up()
    assert not offline.is_on_crl(svid)
    assert len(published(offline).entries) == 3, "those that live stay"


def test_facts_do_not_put_the_schedule_off(offline: Offline) -> None:
    """However often facts make one, a scheduled CRL comes at half of the last scheduled's life."""
    manifest = offline.register()
    begin = published(offline).scheduled_at
    for _ in range(4):
        offline.clock.advance(minutes=8)
        offline.state(f"serial:{offline.attest(manifest).serial}")
        offline.issuer.keep_up()
    assert published(offline).scheduled_at == begin + timedelta(minutes=32)


@pytest.mark.parametrize("minutes", [55, 24 * 60])
def test_a_crl_of_a_clock_that_was_ahead_is_replaced(tmp_path: Path, minutes: int) -> None:
    """Once the clock is right there is one that holds now, with all that lives and is revoked."""
    seconds = 0.0
    with offline_issuer(tmp_path / "issuer", steady=lambda: seconds) as offline:
        first = offline.agent()
        offline.state(f"serial:{first.serial}")
        offline.clock.advance(minutes=20)
        seconds += 20 * 60
        second = offline.agent()
        offline.clock.advance(minutes=minutes)
        with suppress(ClockWrong):
            offline.issuer.keep_up()
        offline.state(f"serial:{second.serial}")
        of_the_future = offline.crl_of(second)
        offline.clock.advance(minutes=-minutes)
        assert of_the_future.last_update_utc > offline.clock()

        offline.issuer.confirm_clock("test")
        offline.issuer.keep_up()
        crl = offline.crl_of(second)
        assert crl.last_update_utc == offline.clock()
        assert number_of(crl) > number_of(of_the_future)
        assert offline.is_on_crl(first)
        assert offline.is_on_crl(second)
        offline.issuer.keep_up()
        assert offline.crl_of(second) == crl, "one is enough"


def test_what_is_over_by_a_clock_that_is_ahead_stays_listed(tmp_path: Path) -> None:
    """By one that is still believed, until it is over by the one that nobody sets."""
    seconds = 0.0
    with offline_issuer(tmp_path / "issuer", steady=lambda: seconds) as offline:
        svid = offline.agent()
        offline.state(f"serial:{svid.serial}")
        offline.clock.advance(minutes=20 + 55)
        seconds += 20 * 60
        offline.issuer.keep_up()
        for on_crl in (True, True, False):  # 51, 82 and 113 minutes, with a CRL by each schedule
            offline.clock.advance(minutes=31)
            seconds += 31 * 60
            offline.issuer.keep_up()
            assert offline.is_on_crl(svid) is on_crl


def test_the_last_crl_of_a_removed_ca_is_served_until_it_is_over(offline: Offline) -> None:
    """Past a restart and past later facts too; then nothing is kept of it."""
    manifest = offline.register()
    svid, other = offline.attest(manifest), offline.attest(manifest)
    offline.state(f"instance:{other.instance}", "suspended")
    old = offline.replace(X509)
    offline.issuer.rollover.revoke(old, "stolen", by=Local("maria"))
    crls = offline.issuer.revocation.crls
    last = crls.of(old)
    assert last is not None
    assert old not in {crl.authority for crl in crls.current}
    assert offline.is_on_crl(svid)
    offline.state(f"serial:{svid.serial}")
    offline.state("agent:support/summarizer")
    offline.reopen()
    again = offline.issuer.revocation.crls.of(old)
    assert again is not None
    assert again.der == last.der
    offline.clock.now = last.times.next_update
    offline.issuer.keep_up()
    assert offline.issuer.revocation.crls.of(old) is None
    with offline.issuer.database.read() as connection:
        rows = connection.execute(
            text("SELECT count(*) FROM revoked_certificate WHERE authority = :id"), {"id": old}
        )
        assert rows.scalar() == 0
    offline.reopen()
    assert offline.issuer.revocation.crls.of(old) is None


# Whatever happens


steps = st.lists(
    st.one_of(
        st.tuples(st.just("revoke"), st.integers(0, 5)),
        st.tuples(st.just("suspend"), st.integers(0, 5)),
        st.tuples(st.just("restore"), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.integers(1, 50)),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("replace the CA"), st.just(0)),
        st.tuples(st.just("attest"), st.just(0)),
    ),
    min_size=5,
    max_size=25,
)


@given(steps)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_revoked_and_lives_is_on_every_later_crl(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """After any steps each CRL has what it must, and of what lives nothing else; numbers grow."""
    with offline_issuer(tmp_path_factory.mktemp("issuer") / "i") as offline:
        manifest = offline.register()
        svids = [offline.attest(manifest) for _ in range(3)]
        said: dict[int, str] = {}
        seen: dict[str, Crl] = {}
        for step, value in steps:
            take(offline, step, value % len(svids), value, svids, said)
            if step == "attest":
                svids.append(offline.attest(manifest))
            check_lists(offline, svids, said)
            check_grown(offline, seen)


def take(  # noqa: PLR0917 (one step and all that it is about)
    offline: Offline, step: str, which: int, value: int, svids: list[X509Svid], said: dict[int, str]
) -> None:
    """Do one thing, as far as it is possible."""
    target = f"instance:{svids[which].instance}"
    words = {"revoke": "revoked", "suspend": "suspended", "restore": "restored"}
    if word := words.get(step):
        try:
            offline.state(target, word)
        except Refusal:
            return
        said.pop(which, None)
        if word != "restored":
            said[which] = word
    elif step == "wait":
        offline.clock.advance(minutes=value)
        offline.issuer.keep_up()
    elif step == "restart":
        offline.reopen()
    elif step == "replace the CA":
        offline.replace(X509)
        offline.issuer.keep_up()


def check_lists(offline: Offline, svids: list[X509Svid], said: dict[int, str]) -> None:
    """Compare what is served with what was said of each certificate that lives."""
    for index, svid in enumerate(svids):
        if svid.not_after <= offline.clock():
            continue
        entry = offline.crl_of(svid).get_revoked_certificate_by_serial_number(
            svid.leaf.serial_number
        )
        assert (entry is not None) is (index in said)
        if entry is not None:
            assert (len(entry.extensions) == 1) is (said[index] == "suspended")


def check_grown(offline: Offline, seen: dict[str, Crl]) -> None:
    """Each CRL is of now, and of a number that is new where it is another one."""
    for crl in offline.issuer.revocation.crls.current:
        before = seen.get(crl.authority)
        assert crl.times.next_update > offline.clock()
        if before is not None and before.der != crl.der:
            assert crl.times.number > before.times.number
        seen[crl.authority] = crl

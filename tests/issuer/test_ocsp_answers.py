"""The OCSP responder of a real issuer: what is said holds at once, and past a restart."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.ocsp import OCSPResponseStatus
from sqlalchemy import text
from support.audit_world import audited
from support.authority import Authority as OtherAuthority
from support.clock import SettableClock
from support.ocsp import (
    SHA1,
    answered,
    ask,
    ask_with,
    authority_of,
    nonce_of,
    request,
    responder_of,
    status,
    status_of,
    verified,
)
from support.offline import Offline, offline_issuer

from accredit_credentials.keys import generate_key
from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.authority.responder_profile import MAX_LIFETIME
from accredit_issuer.authority.snapshot import Authority
from accredit_issuer.clock_guard import Steady
from accredit_issuer.errors import Unavailable
from accredit_issuer.registry.changes import Local
from accredit_issuer.revocation import ocsp_answers, responders
from accredit_issuer.revocation.ocsp import Answer, NotAnswered, Question, Responder
from accredit_issuer.revocation.ocsp_answers import OcspAnswers, failed
from accredit_issuer.revocation.responders import Responders

URL = "http://ocsp.example.org"


def steady_of(clock: SettableClock) -> Steady:
    """A clock that nobody sets, and that goes with the other: time passes, and does not jump."""
    return lambda: clock().timestamp()


@pytest.fixture
def offline(tmp_path: Path) -> Iterator[Offline]:
    """An issuer that did nothing yet."""
    with offline_issuer(tmp_path / "issuer") as made:
        yield made


def own(offline: Offline) -> X509Svid:
    """The SVID of the issuer's server, which lives for twelve hours."""
    return offline.do(offline.issuer.issuance.own.issue(generate_key().public_key())).svid()


def records(offline: Offline) -> list[Any]:
    """The records of responders."""
    read = [json.loads(leaf) for leaf in offline.leaves()]
    return [each for each in read if each["kind"] == "responder.certified"]


@pytest.mark.parametrize(
    "target",
    ["namespace:support", "agent:support/summarizer", "manifest", "signer:ci",
     "owner:maria@example.org", "instance", "serial", "authority"],
)  # fmt: skip
def test_a_fact_about_anything_of_it_revokes_it(offline: Offline, target: str) -> None:
    """Whatever the fact is about: the very next answer says revoked, past a restart too."""
    svid = offline.agent()
    own = {
        "manifest": f"manifest:{svid.manifest}",
        "instance": f"instance:{svid.instance}",
        "serial": f"serial:{svid.serial}",
        "authority": f"authority:{authority_of(svid)}",
    }
    assert status(offline, svid) == "good"
    offline.state(own.get(target, target))
    assert status(offline, svid) == "revoked"
    offline.reopen()
    assert status(offline, svid) == "revoked"


def test_the_nearest_neighbour_stays_good(offline: Offline) -> None:
    """Another instance of the same manifest is good, before and after, and past a restart."""
    manifest = offline.register()
    doomed, neighbour = offline.attest(manifest), offline.attest(manifest)
    offline.state(f"instance:{doomed.instance}")
    assert status(offline, doomed) == "revoked"
    assert status(offline, neighbour) == "good"
    offline.reopen()
    assert status(offline, neighbour) == "good"


def test_a_suspension_is_a_hold_until_it_ends(offline: Offline) -> None:
    """Suspended is revoked with certificateHold; restored is good at once; revoked is for ever."""
    svid = offline.agent()
    target = f"instance:{svid.instance}"
    offline.state(target, "suspended")
    read = verified(ask(offline, svid).der, svid.intermediates[0])
    assert read.revocation_reason is x509.ReasonFlags.certificate_hold
    assert read.revocation_time_utc == offline.clock()
    offline.state(target, "restored")
    assert status(offline, svid) == "good"
    offline.state(target, "revoked")
    read = verified(ask(offline, svid).der, svid.intermediates[0])
    assert read.revocation_reason is None


def test_many_who_ask_the_same_get_one_answer(offline: Offline) -> None:
    """An answer is given again until half of its time is over, and then it is made anew."""
    svid = offline.agent()
    first = ask(offline, svid)
    offline.clock.advance(seconds=14)
    assert ask(offline, svid) is first
    offline.clock.advance(seconds=1)
    second = ask(offline, svid)
    assert second.der != first.der
    assert second.this_update == offline.clock()
    offline.clock.advance(seconds=-1)
    assert ask(offline, svid) is not second, "an answer of the future"


def test_a_nonce_gets_an_answer_of_its_own(offline: Offline) -> None:
    """With a nonce the answer is new and carries it; the hash asked with comes back."""
    svid = offline.agent()
    for algorithm in (SHA1, hashes.SHA256()):
        for nonce in (b"n" * 32, b"m" * 32):
            answer = ask(offline, svid, nonce=nonce, algorithm=algorithm)
            read = verified(answer.der, svid.intermediates[0])
            assert nonce_of(read) == nonce
            assert read.hash_algorithm.name == algorithm.name
            assert not answer.reusable
    assert nonce_of(verified(ask(offline, svid).der, svid.intermediates[0])) is None


class _Interrupted(Responders):
    """Responders that let something happen after the database was read."""

    def __init__(self, real: Responders, happens: Callable[[], Any]) -> None:
        self._real, self._happens = real, happens

    def of(self, ca: Authority, now: Any) -> Responder:
        self._happens()
        return self._real.of(ca, now)


def test_an_answer_that_a_fact_overtook_is_not_kept(offline: Offline) -> None:
    """What was read before a fact and signed after it is said to nobody else."""
    svid = offline.agent()
    issuer = offline.issuer
    facts = [f"instance:{svid.instance}"]
    overtaken = _Interrupted(issuer.responders, lambda: [offline.state(facts.pop()) for _ in facts])
    issuer.ocsp = OcspAnswers(
        offline.config, issuer.authorities, overtaken, issuer.database, issuer.guarded_clock
    )
    issuer.revocation.on_facts = issuer.ocsp.forget
    assert status(offline, svid) == "good", "it was, when it was looked up"
    assert status(offline, svid) == "revoked"


def test_what_was_never_issued_is_unknown(offline: Offline) -> None:
    """A serial number that this CA never signed is unknown, under a signature, and not kept."""
    svid = offline.agent()
    ca = svid.intermediates[0]
    stranger = OtherAuthority().issue().svid.leaf
    asked = Question.parse(request(svid.leaf, ca)).asked
    unknown = Question(replace(asked, serial=stranger.serial_number))
    answer = answered(offline, authority_of(svid), unknown)
    assert status_of(answer.der) == "unknown"
    verified(answer.der, ca)
    assert not answer.reusable


def sql(offline: Offline, statement: str, **values: Any) -> None:
    """Write the database behind the issuer's back."""
    offline.issuer.writer.run(lambda t: t.execute(text(statement).bindparams(**values))).result()


def test_what_was_decided_and_never_released_is_not_good(offline: Offline) -> None:
    """An intent alone is unknown; revoked, it is revoked all the same."""
    svid = offline.agent()
    sql(
        offline,
        "DELETE FROM release WHERE number = (SELECT number FROM credential WHERE id = :id)",
        id=svid.serial,
    )
    assert status(offline, svid) == "unknown"
    offline.state(f"serial:{svid.serial}")
    assert status(offline, svid) == "revoked"


@pytest.mark.parametrize("column", ["authority = '00'", "kind = 'ca'"])
def test_what_another_signed_is_not_good(offline: Offline, column: str) -> None:
    """A serial number that another CA signed, or that is no leaf's, is unknown here."""
    svid = offline.agent()
    sql(offline, f"UPDATE credential SET {column} WHERE id = :id", id=svid.serial)  # noqa: S608
    assert status(offline, svid) == "unknown"


def test_another_ca_is_unauthorized(offline: Offline) -> None:
    """A foreign issuer, another path, and a CA that does not exist: not ours to say."""
    svid, other = offline.agent(), OtherAuthority()
    foreign = request(other.issue().svid.leaf, other.issuing.certificate)
    asked = request(svid.leaf, svid.intermediates[0])
    ours = authority_of(svid)
    root = offline.active(AuthorityKind.ROOT)
    jwt = offline.active(AuthorityKind.JWT)
    for authority, unverified in ((ours, foreign), (root, asked), (jwt, asked), ("00", asked)):
        assert status_of(ask_with(offline, authority, unverified).der) == "unauthorized"
    assert status_of(ask_with(offline, ours, asked).der) == "good"


def test_an_expired_certificate_is_never_good(tmp_path: Path) -> None:
    """From its end on nothing is said of it, even where it was revoked and forgotten since."""
    clock = SettableClock()
    with offline_issuer(tmp_path / "issuer", clock, steady=steady_of(clock)) as offline:
        manifest = offline.register()
        revoked, neighbour = offline.attest(manifest), offline.attest(manifest)
        offline.state(f"serial:{revoked.serial}")
        clock.advance(seconds=3599)
        assert status(offline, neighbour) == "good"
        clock.advance(seconds=1)
        assert status(offline, neighbour) == "unauthorized"
        assert status(offline, revoked) == "revoked"
        for _ in range(2):  # the entry leaves once a later CRL has carried it
            assert status(offline, revoked) == "revoked"
            clock.advance(seconds=3601)
            offline.issuer.keep_up()
        assert status(offline, revoked) == "unauthorized"


def test_a_responder_is_recorded_and_goes_with_the_process(offline: Offline) -> None:
    """Nobody asked, no record; then one for all questions; after a restart another key."""
    svid = offline.agent()
    offline.issuer.keep_up()
    assert records(offline) == []
    first = responder_of(ask(offline, svid))
    assert responder_of(ask(offline, svid, nonce=b"n" * 16)) == first
    (record,) = records(offline)
    assert record["actor"] == "issuer"
    assert record["subject"] == format(first.serial_number, "x")
    assert record["details"]["authority"] == authority_of(svid)
    assert record["details"]["sha256"] == first.fingerprint(hashes.SHA256()).hex()
    offline.reopen()
    second = responder_of(ask(offline, svid))
    assert second.public_key() != first.public_key()
    assert len(records(offline)) == 2
    assert audited(offline).findings == []


def test_certificates_name_the_responder_that_answers(tmp_path: Path) -> None:
    """With ``ocsp_url`` each leaf says where its status is, as its CA's; without, none does."""
    with offline_issuer(tmp_path / "named", revocation={"ocsp_url": URL}) as named:
        svid = named.agent()
        access = svid.leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess)
        (described,) = access.value
        assert described.access_method == x509.oid.AuthorityInformationAccessOID.OCSP
        assert described.access_location.value == f"{URL}/v1/ocsp/{authority_of(svid)}"
        assert status(named, svid) == "good"
        assert audited(named).findings == []
    with offline_issuer(tmp_path / "bare") as bare, pytest.raises(x509.ExtensionNotFound):
        bare.agent().leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess)


def test_many_who_ask_at_once_get_one_responder(offline: Offline) -> None:
    """Fifty first questions at one moment: fifty answers, one responder, one record."""
    svid = offline.agent()
    with ThreadPoolExecutor(50) as pool:
        asked = [pool.submit(ask, offline, svid, nonce=bytes([n]) * 16) for n in range(50)]
        answers = [each.result() for each in asked]
    assert {nonce_of(verified(each.der, svid.intermediates[0])) for each in answers} == {
        bytes([n]) * 16 for n in range(50)
    }
    assert len({responder_of(each) for each in answers}) == 1
    assert len(records(offline)) == 1


def test_a_responder_is_renewed_at_half_its_life(tmp_path: Path) -> None:
    """The scheduler replaces it then and not before, and no answer is left without a responder."""
    clock = SettableClock()
    with offline_issuer(tmp_path / "issuer", clock, steady=steady_of(clock)) as offline:
        svid = own(offline)
        first = responder_of(ask(offline, svid))
        life = first.not_valid_after_utc - first.not_valid_before_utc
        half = first.not_valid_before_utc + life / 2
        for moment, expected in ((half - timedelta(seconds=1), 1), (half, 2)):
            offline.clock.advance(seconds=(moment - offline.clock()).total_seconds())
            offline.issuer.keep_up()
            assert len(records(offline)) == expected
        assert responder_of(ask(offline, svid)) != first


def test_whoever_asks_renews_it_where_the_scheduler_does_not(tmp_path: Path) -> None:
    """A machine that slept past the responder's end answers with another one, not with it."""
    clock = SettableClock()
    with offline_issuer(tmp_path / "issuer", clock, steady=steady_of(clock)) as offline:
        svid = own(offline)
        first = responder_of(ask(offline, svid))
        offline.clock.advance(seconds=MAX_LIFETIME.total_seconds() - 30)
        assert responder_of(ask(offline, svid)) == first
        offline.clock.advance(seconds=1)
        answer = ask(offline, svid, nonce=b"n" * 16)
        assert responder_of(answer) != first
        assert answer.next_update == offline.clock() + timedelta(seconds=30)


def test_a_clock_that_was_set_back_gets_another_responder(tmp_path: Path) -> None:
    """Once an operator confirms the clock, nobody answers who is certified from later on only."""
    clock = SettableClock()
    with offline_issuer(tmp_path / "issuer", clock, steady=steady_of(clock)) as offline:
        svid = own(offline)
        clock.advance(hours=2)
        late = responder_of(ask(offline, svid))
        clock.advance(hours=-1)
        offline.issuer.confirm_clock("test")
        answer = ask(offline, svid)
        assert status_of(answer.der) == "good"
        assert responder_of(answer) != late
        assert responder_of(answer).not_valid_before_utc <= clock()


def test_a_ca_that_is_over_says_nothing(tmp_path: Path) -> None:
    """From its end on not even unknown is said in its name: nobody could sign it."""
    lifetimes = {"issuing_ca": 120, "x509_svid": 60, "admin_svid": 60}
    with offline_issuer(tmp_path / "issuer", lifetimes=lifetimes) as offline:
        svid = offline.agent()
        asked = Question.parse(request(svid.leaf, svid.intermediates[0])).asked
        unknown = Question(replace(asked, serial=1 << 158))
        end = svid.intermediates[0].not_valid_after_utc
        for moment, expected in ((end - timedelta(seconds=1), "unknown"), (end, "unauthorized")):
            offline.clock.advance(seconds=(moment - offline.clock()).total_seconds())
            answer = answered(offline, authority_of(svid), unknown)
            assert status_of(answer.der) == expected


def test_nothing_outlives_the_ca(tmp_path: Path) -> None:
    """Near the CA's end one responder is enough: it ends with the CA, and answers before it."""
    lifetimes = {"issuing_ca": 120, "x509_svid": 60, "admin_svid": 60}
    with offline_issuer(tmp_path / "issuer", lifetimes=lifetimes) as offline:
        svid = offline.agent()
        end = svid.intermediates[0].not_valid_after_utc
        first = responder_of(ask(offline, svid))
        assert first.not_valid_after_utc == end
        offline.clock.advance(seconds=45)
        svid = offline.agent()
        offline.clock.advance(seconds=50)  # 15 s are left, and answers are valid for 30
        answer = ask(offline, svid)
        assert status_of(answer.der) == "good"
        assert responder_of(answer) == first
        assert answer.next_update == svid.not_after < end
        assert len(records(offline)) == 1


def test_the_one_before_still_answers(offline: Offline) -> None:
    """Of two CAs each has its own responder, and neither speaks for the other's certificates."""
    old = offline.agent()
    offline.replace(AuthorityKind.X509)
    new = offline.agent()
    assert authority_of(old) != authority_of(new)
    assert [status(offline, each) for each in (old, new)] == ["good", "good"]
    assert len(records(offline)) == 2
    asked = request(old.leaf, old.intermediates[0])
    assert status_of(ask_with(offline, authority_of(new), asked).der) == "unauthorized"


def test_a_removed_ca_is_not_spoken_for(offline: Offline) -> None:
    """Once a CA is revoked by hand and gone, no kept answer speaks for it."""
    svid = offline.agent()
    assert status(offline, svid) == "good"
    old = offline.replace(AuthorityKind.X509)
    assert status(offline, svid) == "good"
    offline.issuer.rollover.revoke(old, reason="test", by=Local("test"))
    assert status(offline, svid) == "unauthorized"
    assert audited(offline).findings == []


def test_a_ca_that_was_just_removed_certifies_nobody(offline: Offline) -> None:
    """A step that removed it meanwhile is seen where the responder would be recorded."""
    svid = offline.agent()
    sql(offline, "UPDATE authority SET state = 'removed' WHERE id = :id", id=authority_of(svid))
    assert status(offline, svid) == "try_later"
    assert records(offline) == []


def test_what_cannot_be_recorded_answers_nobody(offline: Offline) -> None:
    """Without its record a responder signs nothing: try later, and good once it is recorded."""
    svid = offline.agent()
    sql(
        offline,
        "CREATE TRIGGER full BEFORE INSERT ON log_leaf BEGIN SELECT RAISE(ABORT, 'full'); END",
    )
    assert status(offline, svid) == "try_later"
    sql(offline, "DROP TRIGGER full")
    offline.clock.advance(seconds=5)
    assert status(offline, svid) == "good"
    assert len(records(offline)) == 1


def test_a_key_that_failed_is_not_asked_for_each_stranger(
    offline: Offline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks within five seconds gets the same no; then it is tried again, once."""
    svid, tried = offline.agent(), []

    def fail(*_: object) -> None:
        tried.append(offline.clock())
        raise Unavailable("the token was pulled out")

    with monkeypatch.context() as patched:
        patched.setattr(responders, "sign_responder", fail)
        for seconds in (0, 4.9, 0.1):
            offline.clock.advance(seconds=seconds)
            assert [status(offline, svid) for _ in range(3)] == ["try_later"] * 3
    assert len(tried) == 2
    assert status(offline, svid) == "try_later"
    offline.clock.advance(seconds=5)
    assert status(offline, svid) == "good"


def test_answers_have_threads_of_their_own(offline: Offline) -> None:
    """However many strangers ask, they wait for each other and not in admins' way."""
    svid, seen = offline.agent(), set[str]()
    answer = offline.issuer.ocsp.answer

    def noted(authority: str, question: Question) -> Answer:
        seen.add(threading.current_thread().name.rpartition("_")[0])
        return answer(authority, question)

    offline.issuer.ocsp.answer = noted  # type: ignore[method-assign]

    async def ask_all() -> None:
        asked = Question.parse(request(svid.leaf, svid.intermediates[0], nonce=b"n" * 16))
        told = [offline.issuer.ocsp.told(authority_of(svid), asked) for _ in range(20)]
        assert all(each.this_update for each in await asyncio.gather(*told))

    asyncio.run(ask_all())
    assert seen == {"accredit-ocsp"}


def test_a_clock_that_is_not_believed_answers_nothing(offline: Offline) -> None:
    """With the clock set back nothing is good, kept or not; once it is right again it is."""
    svid = offline.agent()
    assert status(offline, svid) == "good"
    offline.clock.advance(hours=-1)
    assert status(offline, svid) == "try_later"
    offline.clock.advance(hours=1)
    assert status(offline, svid) == "good"


def test_what_is_kept_is_bounded(offline: Offline, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest answer goes first, and it is made anew for who asks again."""
    monkeypatch.setattr(ocsp_answers, "MAX_KEPT", 2)
    manifest = offline.register()
    svids = [offline.attest(manifest) for _ in range(3)]
    answers = [ask(offline, svid) for svid in svids]
    assert [ask(offline, svid) for svid in svids[1:]] == answers[1:]
    assert ask(offline, svids[0]) is not answers[0]


def test_what_failed_says_whose_fault_it_is() -> None:
    """A refused question keeps its status; a fault of ours is to be tried later."""
    assert status_of(failed(Unavailable("disk full")).der) == "try_later"
    refused = NotAnswered(OCSPResponseStatus.MALFORMED_REQUEST, "no")
    assert status_of(failed(refused).der) == "malformed_request"

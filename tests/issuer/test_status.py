"""The issuer at one look: what is so, and what somebody has to do about it."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from support.issuer import log_in, running_issuer
from support.offline import Offline
from support.raw_http import RawClient

from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.errors import Unavailable
from accredit_issuer.metrics import Metrics
from accredit_issuer.registry.changes import Local
from accredit_issuer.revocation import crls as module
from accredit_issuer.revocation.confirmations import Audience, Verifier
from accredit_issuer.signals.streams import StreamAsked
from accredit_issuer.status import LATE, STILL, Status, look
from accredit_issuer.store.models import authorities

ONE = Verifier("spiffe://example.org/node/one", "1")


def told(status: Status, *, urgent: bool) -> list[str]:
    """What is to do."""
    return [each.text for each in status.to_do if each.urgent is urgent]


def write(offline: Offline, statement: object) -> None:
    """Change a row behind the issuer's back."""
    offline.issuer.writer.run(lambda t: t.execute(statement)).result()  # type: ignore[arg-type]


def crl_of(offline: Offline, svid: X509Svid) -> str:
    """The issuing CA of an SVID."""
    mark = next(mark for mark in svid.marks() if mark.startswith("authority:"))
    return mark.partition(":")[2]


def test_an_issuer_that_is_well_has_nothing_to_do(offline: Offline) -> None:
    """Through its whole day, as long as it does by itself what is due."""
    for _ in range(30):
        assert look(offline.issuer).to_do == ()
        offline.clock.advance(hours=1)
        offline.issuer.keep_up()


def test_facts_are_counted_by_what_they_are_about(offline: Offline) -> None:
    """What is in force, by target: a restored suspension is not, a signer's manifests are."""
    svid, _ = offline.agent(), offline.agent()
    offline.state(f"instance:{svid.instance}")
    offline.state("agent:support/summarizer", "suspended")
    offline.state("namespace:support", "suspended")
    offline.state("namespace:support", "restored")
    offline.state("signer:ci")
    status = look(offline.issuer)
    assert {(f.target.value, f.revoked, f.suspended) for f in status.facts} == {
        ("instance", 1, 0),
        ("agent", 0, 1),
        ("signer", 1, 0),
        ("manifest", 2, 0),
    }
    assert status.through == offline.issuer.feed.through == 7


def test_each_crl_is_told_with_its_size_and_age(offline: Offline) -> None:
    """Number, moments, entries and bytes are those of the CRL that is published."""
    svid, _ = offline.agent(), offline.agent()
    offline.state(f"serial:{svid.serial}")
    (crl,) = [c for c in look(offline.issuer).crls if c.authority == crl_of(offline, svid)]
    published = offline.crl_of(svid)
    assert crl.this_update == published.last_update_utc
    assert crl.next_update == published.next_update_utc
    assert crl.entries == len(list(published)) == 1
    assert crl.number >= 2
    assert crl.size > 200


@pytest.mark.parametrize(
    ("share", "urgent", "said"),
    [(0.7, False, None), (0.8, False, "is late"), (1.0, True, "is over")],
)
def test_a_crl_that_is_not_renewed_is_told(
    offline: Offline, share: float, said: str | None, *, urgent: bool
) -> None:
    """Late is to be looked at, over is urgent; before that it is the issuer's own business."""
    life = offline.config.crl_lifetime
    found = look(offline.issuer)
    offline.clock.now = found.crls[0].this_update + life * share
    found_texts = told(look(offline.issuer), urgent=urgent)
    about = [text for text in found_texts if "CRL" in text]
    assert bool(about) is (said is not None)
    assert all(said in text for text in about if said)


def test_a_missing_crl_is_urgent(offline: Offline) -> None:
    """A CA without a CRL leaves those who go by CRLs without an answer."""
    svid = offline.agent()
    authority, held = crl_of(offline, svid), offline.issuer.revocation.crls
    held._held = {each: crl for each, crl in held._held.items() if each != authority}
    assert told(look(offline.issuer), urgent=True) == [f"the CA {authority[:12]} has no CRL"]


def test_a_key_that_does_not_answer_is_urgent(
    offline: Offline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was revoked is not on the CRL yet, and whoever goes by it does not know."""
    svid = offline.agent()

    def away(*_: object, **__: object) -> None:
        raise Unavailable("the token does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(module, "sign_crl", away)
        offline.state(f"serial:{svid.serial}")
    (said,) = told(look(offline.issuer), urgent=True)
    assert said.startswith(f"the key of {crl_of(offline, svid)[:12]} does not answer")
    offline.issuer.keep_up()
    assert look(offline.issuer).to_do == ()


def test_what_the_issuer_did_not_do_in_time_is_told(
    offline: Offline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that is due is its own business for ten minutes; then somebody has to look."""

    def away(*_: object) -> None:
        raise Unavailable("as the test says")

    due = offline.issuer.authorities.next_due(offline.clock())
    monkeypatch.setattr(offline.issuer.authorities, "advance", away)
    offline.clock.now = due + timedelta(seconds=1)
    assert offline.issuer.authorities.due(offline.clock())
    late = "has been due for 10 minutes"
    assert not any(late in each.text for each in look(offline.issuer).to_do)
    offline.clock.now = due + LATE + timedelta(seconds=1)
    assert any(late in text for text in told(look(offline.issuer), urgent=True))


def test_no_authority_that_signs_is_urgent(offline: Offline) -> None:
    """Whichever kind has none is named."""
    ids = offline.issuer.authorities.now_in_force.authorities
    jwt = [each.id for each in ids if each.kind is AuthorityKind.JWT]
    write(offline, update(authorities).where(authorities.c.id.in_(jwt)).values(state="retired"))
    assert told(look(offline.issuer), urgent=True) == [
        "no jwt authority signs: accredit authority show"
    ]


def test_a_clock_that_is_wrong_is_told_and_hides_nothing(offline: Offline) -> None:
    """While nothing is signed the rest can still be looked at."""
    svid = offline.agent()
    offline.state(f"serial:{svid.serial}")
    offline.clock.advance(hours=-1)
    status = look(offline.issuer)
    assert "nothing is signed: the clock says" in told(status, urgent=True)[0]
    assert len(status.facts) == 1


def test_a_verifier_that_stands_still_is_told(offline: Offline) -> None:
    """Silence counts, and a fact that it does not confirm; neither of one that left."""
    now = [100.0]
    audience = offline.issuer.feed.audience = Audience(lambda: now[0])
    with audience.listening() as listener_id, audience.listening():
        audience.acknowledge(listener_id, 0, ONE)
        assert look(offline.issuer).to_do == ()
        now[0] += STILL + 1
        (text,) = told(look(offline.issuer), urgent=False)
        assert str(ONE.spiffe_id) in text
        metrics = Metrics(offline.issuer).text().decode()
        assert "accredit_feed_verifiers_still 1.0" in metrics
        assert ONE.spiffe_id not in metrics, "metrics are public"
        audience.acknowledge(listener_id, 0, ONE)
        assert look(offline.issuer).to_do == ()
        offline.agent()
        offline.state("agent:support/summarizer")
        now[0] += 4
        assert look(offline.issuer).to_do == ()
        now[0] += 2
        assert len(told(look(offline.issuer), urgent=False)) == 1
        assert look(offline.issuer).listeners.named[0].behind == 6.0
    assert look(offline.issuer).to_do == ()


def test_how_long_a_verifier_is_behind_is_said_as_far_as_known() -> None:
    """From the first fact that it lacks on; what was stated too long ago is not guessed."""
    now = [0.0]
    audience = Audience(lambda: now[0])
    audience.load(5)
    with audience.listening() as first, audience.listening() as second:
        audience.acknowledge(first, 5, ONE)
        audience.acknowledge(second, 4, Verifier("spiffe://example.org/x", "2"))
        for through in (7, 9):
            now[0] += 10
            audience.stated(through)
        now[0] += 1
        found = {each.verifier: each.behind for each in audience.listeners().named}
        assert list(found.values()) == [None, 11.0]
        for through in range(10, 300):
            audience.stated(through)
        assert {each.behind for each in audience.listeners().named} == {None}


def test_authorities_are_told_without_those_that_went(offline: Offline) -> None:
    """Each that is published, with what is planned for it."""
    old = offline.replace(AuthorityKind.JWT)
    assert old in {each["id"] for each in look(offline.issuer).authorities}
    offline.clock.advance(hours=2)
    offline.issuer.keep_up()
    shown = {each["id"] for each in look(offline.issuer).authorities}
    assert old not in shown
    assert offline.active(AuthorityKind.JWT) in shown


def test_a_given_ca_that_ends_soon_is_told(offline: Offline) -> None:
    """Nobody but who gave it can make the next one: thirty days ahead, and not before."""
    root = offline.active(AuthorityKind.ROOT)
    now = offline.clock()
    for days, expected in ((31, 0), (29, 1)):
        values = {"origin": "files", "expires_at": now + timedelta(days=days)}
        write(offline, update(authorities).where(authorities.c.id == root).values(**values))
        texts = told(look(offline.issuer), urgent=False)
        assert len([text for text in texts if "from files ends at" in text]) == expected


def test_looking_writes_nothing(offline: Offline) -> None:
    """A look leaves neither a record nor a number."""
    before = offline.issuer.log.frontier.size
    look(offline.issuer)
    assert offline.issuer.log.frontier.size == before


def test_only_readers_look(tmp_path: Path) -> None:
    """Over the wire: an admin who may read everything is answered, others are refused."""
    with running_issuer(tmp_path / "issuer") as running:
        admin = log_in(running, running.first_token)
        answer = RawClient.at(running.url, running.bundle, admin.identity).ask("GET", "/v1/status")
        assert answer.json["trust_domain"] == "example.org"
        assert RawClient.at(running.url, running.bundle).ask("GET", "/v1/status").status == 401


def test_a_parent_that_is_away_is_told(offline: Offline) -> None:
    """What it said stays in the issuer's log."""
    offline.issuer.authorities.trouble = "secret words of the parent"
    (text,) = told(look(offline.issuer), urgent=False)
    assert "parent" in text
    assert "secret" not in text


def test_a_stream_that_is_behind_is_named(offline: Offline) -> None:
    """A receiver that has not accepted an event for a minute; one that is about to is not."""
    asked = StreamAsked(name="siem", audience="a", endpoint_url="https://siem.example/events")
    stream = offline.issuer.streams.add(asked, by=Local("test"), now=offline.clock())
    offline.state(f"instance:{offline.agent().instance}")
    offline.clock.advance(seconds=60)
    assert look(offline.issuer).to_do == ()
    assert b"accredit_streams_behind 0.0" in Metrics(offline.issuer).text()
    offline.clock.advance(seconds=1)
    assert b"accredit_streams_behind 1.0" in Metrics(offline.issuer).text()
    failure = "the endpoint answered with the status 503"
    offline.issuer.streams.failed(stream, failure)
    (said,) = told(look(offline.issuer), urgent=False)
    assert (
        said == f"the stream siem is behind, with 1 waiting since 2026-06-01 12:00 UTC: {failure}"
    )

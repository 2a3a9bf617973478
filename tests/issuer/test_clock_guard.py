"""The clock guard: nothing is dated, issued or rotated by a clock that cannot be believed."""

import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.clock import NOW, SettableClock
from support.issuer import log_in, make_config, running_issuer
from support.nodes import BY, Nodes
from support.offline import Offline, offline_issuer
from support.raw_http import RawClient

from accredit_attestors.manifest import VerifiedManifest
from accredit_client.calls import add_admin, certificate_request
from accredit_credentials.keys import generate_key
from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.clock import system_clock
from accredit_issuer.clock_guard import AHEAD, BEHIND, ClockGuard, ClockWrong, judge, steady_clock
from accredit_issuer.issuer import initialise, open_issuer

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


@dataclass
class Steady:
    """A clock that nobody sets but the test."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        """Its seconds."""
        return self.seconds


@pytest.mark.parametrize(
    ("newest", "expected", "believed"),
    [
        (None, None, True),
        (NOW, NOW, True),
        (NOW + BEHIND, None, True),
        (NOW + BEHIND + SECOND, None, False),
        (NOW + DAY, NOW, False),
        (None, NOW - AHEAD, True),
        (None, NOW - AHEAD - SECOND, False),
        (NOW, NOW - DAY, False),
        (NOW - 1000 * DAY, None, True),  # a long stop
        (NOW - 1000 * DAY, NOW, True),
        (NOW, NOW + DAY, True),  # behind a clock that nobody sets: the records decide
    ],
)
def test_the_bounds(newest: datetime | None, expected: datetime | None, *, believed: bool) -> None:
    """A minute behind the records, an hour ahead of the steady clock, and not a second more."""
    assert (judge(NOW, newest, expected) is None) is believed


def test_a_jump_forward_is_refused_until_it_comes_back() -> None:
    """Set forward by a day the clock is not believed, and set right again it is."""
    clock, steady = SettableClock(), Steady()
    guard = ClockGuard(clock, NOW, steady)
    clock.advance(days=1)
    with pytest.raises(ClockWrong, match="jumped forward"):
        guard()
    clock.now = NOW + SECOND
    steady.seconds += 1
    assert guard() == NOW + SECOND, "the jump was not remembered as a moment that was"


def test_sleep_is_no_jump() -> None:
    """A laptop that slept for a day has a steady clock that ran on: nothing is wrong."""
    clock, steady = SettableClock(), Steady()
    guard = ClockGuard(clock, NOW, steady)
    for _ in range(3):
        clock.advance(days=1)
        steady.seconds += DAY.total_seconds()
        assert guard() == clock()


def test_many_small_jumps_are_one_large_one() -> None:
    """Forward by half an hour is believed once, and not again and again."""
    clock, steady = SettableClock(), Steady()
    guard = ClockGuard(clock, NOW, steady)
    clock.advance(minutes=40)
    guard()
    clock.advance(minutes=40)
    with pytest.raises(ClockWrong):
        guard()


def test_going_back_is_measured_from_the_newest_moment() -> None:
    """Back by less than a minute is believed, however often: a minute in all."""
    clock = SettableClock()
    guard = ClockGuard(clock, NOW)
    clock.advance(hours=1)
    guard()
    clock.advance(seconds=-50)
    guard()
    clock.advance(seconds=-50)
    with pytest.raises(ClockWrong, match="newest record"):
        guard()


def test_the_steady_clock_is_one() -> None:
    """What the issuer runs with never goes back."""
    readings = [steady_clock() for _ in range(1000)]
    assert readings == sorted(readings)


def everything_signed(offline: Offline, manifest: VerifiedManifest, svid: X509Svid) -> list[str]:
    """What the issuer still does of all that it signs; the rest said that the clock is wrong."""
    issuer = offline.issuer
    request = certificate_request(generate_key())
    asked = {
        "attest": lambda: offline.attest(manifest),
        "renew": lambda: offline.renew(svid),
        "jwt": lambda: offline.do(issuer.issuance.tokens.jwt_svid(svid, ("a",))),
        "task": lambda: offline.task_token(svid),
        "enrol": lambda: offline.do(issuer.issuance.admins.enrol(offline.first_token, request)),
        "own": lambda: offline.do(issuer.issuance.own.issue(generate_key().public_key())),
        "keep up": issuer.keep_up,
        "prepare": lambda: offline.prepare(AuthorityKind.ROOT),
    }
    done = []
    for name, ask in asked.items():
        try:
            ask()
        except ClockWrong:
            continue
        done.append(name)
    return done


@pytest.mark.parametrize("hours", [-24, 24])
def test_nothing_is_signed_by_a_wrong_clock(tmp_path: Path, hours: int) -> None:
    """Set back or forward by a day: no credential, no rotation, no key, and then again all."""
    steady = Steady()
    with offline_issuer(tmp_path / "issuer", steady=steady) as offline:
        offline.clock.advance(hours=1)
        steady.seconds += 3600
        manifest = offline.register()
        svid = offline.attest(manifest)
        known = offline.issuer.authorities.now_in_force
        offline.clock.advance(hours=hours)
        assert everything_signed(offline, manifest, svid) == []
        assert offline.issuer.authorities.now_in_force is known, "nothing was rotated or expired"
        assert offline.state("agent:support/summarizer", "suspended"), (
            "what stops is always possible"
        )
        assert offline.state("agent:support/summarizer", "restored")
        offline.clock.advance(hours=-hours)
        assert len(everything_signed(offline, manifest, svid)) == 8


@pytest.mark.parametrize("minutes", [55, 24 * 60])
@pytest.mark.parametrize("removed", [False, True])
def test_a_clock_that_is_ahead_hides_nothing_from_a_fact(
    tmp_path: Path, minutes: int, *, removed: bool
) -> None:
    """Who lives by the right clock, and not by the one of the fact, is in feed and CRL with it."""
    steady = Steady()
    with offline_issuer(tmp_path / "issuer", steady=steady) as offline:
        nodes = Nodes(offline)
        node, manifest = nodes.new(), offline.register()
        over = nodes.run(node, manifest)
        for _ in range(3):  # half an hour each: the first SVIDs end, and the node is seen again
            offline.clock.advance(minutes=30)
            steady.seconds += 1800
            csr = certificate_request(generate_key())
            node = offline.do(offline.issuer.issuance.nodes.renew(node, csr)).svid()
        on_node = nodes.run(node, manifest)
        offline.clock.advance(minutes=10)
        steady.seconds += 600

        offline.clock.advance(minutes=minutes)
        if removed:
            offline.issuer.nodes.remove("build-7", by=BY, now=offline.clock())
        else:
            offline.state("node:build-7")
        offline.clock.advance(minutes=-minutes)

        told = {str(fact.target) for fact in offline.issuer.feed.facts}
        assert f"instance:{on_node.instance}" in told
        assert offline.is_on_crl(on_node)
        assert offline.is_on_crl(node)
        assert f"instance:{over.instance}" not in told, "what is over by every clock"
        assert not offline.is_on_crl(over)


def test_a_clock_that_is_a_little_ahead_forgets_no_fact(tmp_path: Path) -> None:
    """What is over by a clock that is still believed is refused while it lives, and not longer."""
    steady = Steady()
    settings = {"admin_svid": 12 * 3600}
    with offline_issuer(tmp_path / "issuer", steady=steady, lifetimes=settings) as offline:
        request = certificate_request(generate_key())
        enrolled = offline.do(offline.issuer.issuance.admins.enrol(offline.first_token, request))
        svid = enrolled.svid()
        offline.state(f"serial:{svid.serial}")
        offline.clock.advance(hours=11, minutes=10)
        steady.seconds += (11 * 60 + 10) * 60

        offline.clock.advance(minutes=55)
        offline.issuer.keep_up()
        offline.clock.advance(minutes=-55)

        (told,) = offline.issuer.feed.facts
        assert offline.issuer.revocation.facts.match(svid.marks()) == told
        offline.clock.advance(hours=1)
        steady.seconds += 3600
        offline.issuer.keep_up()
        assert offline.issuer.feed.facts == ()
        assert offline.issuer.revocation.facts.match(svid.marks()) is None


def test_a_start_behind_the_log_is_refused(tmp_path: Path) -> None:
    """A clock set back while the issuer was stopped is noticed, whatever was recorded last."""
    with offline_issuer(tmp_path / "issuer") as offline:
        offline.clock.advance(days=2)
        offline.issuer.keep_up()
        offline.clock.advance(days=-1)
        offline.register()  # recorded by the wrong clock: the newest moment is the one before
        offline.issuer.close()
        with pytest.raises(ClockWrong, match="2026-06-03T12:00:00Z"):
            open_issuer(offline.config, offline.clock)
        offline.clock.advance(days=1)
        offline.issuer = open_issuer(offline.config, offline.clock)
        offline.agent()


def test_an_operator_confirms_a_clock_that_is_behind(tmp_path: Path) -> None:
    """After a run in the future the right clock is confirmed, once, and that is recorded."""
    with offline_issuer(tmp_path / "issuer") as offline:
        offline.clock.advance(days=2)
        offline.issuer.keep_up()
        offline.issuer.close()
        offline.clock.advance(days=-2, hours=1)
        offline.issuer = open_issuer(offline.config, offline.clock, confirmed_by="operator")
        offline.reopen()
        offline.agent()
        records = [json.loads(leaf) for leaf in offline.leaves()]
    (confirmed,) = [record for record in records if record["kind"] == "clock.confirmed"]
    assert confirmed["actor"] == "operator"
    assert confirmed["details"] == {"behind_seconds": 47 * 3600}


def test_an_issuer_with_a_wrong_clock_is_not_ready(tmp_path: Path) -> None:
    """Health and metrics say so, and callers get 503 with a sentence that helps."""
    clock = SettableClock(system_clock())
    with running_issuer(tmp_path / "issuer", clock=clock) as running:
        client = RawClient.at(running.url, running.bundle)
        assert client.ask("GET", "/health/ready").status == 200
        clock.advance(days=-1)
        answer = client.ask("GET", "/health/ready")
        assert answer.status == 503
        assert "set the clock" in answer.json["reason"]
        assert b"accredit_clock_wrong 1.0" in client.ask("GET", "/metrics").body
        answer = client.ask("POST", "/v1/admins/enrolment", {"token": "x", "csr": "y"})
        assert (answer.status, answer.kind) == (503, "unavailable")
        clock.advance(days=1)
        assert client.ask("GET", "/health/ready").status == 200
        assert b"accredit_clock_wrong 0.0" in client.ask("GET", "/metrics").body


def test_a_clock_set_back_revives_no_admin(tmp_path: Path) -> None:
    """What was over stays over: by a wrong clock an admin revokes, with a living SVID, and no more.

    OpenSSL looks at the real clock, and both SVIDs are good for it.
    """
    real = datetime.now(UTC)
    clock = SettableClock(real - timedelta(minutes=50))
    lifetimes = {"admin_svid": 3600}
    with running_issuer(tmp_path / "issuer", clock=clock, lifetimes=lifetimes) as running:
        over = log_in(running, running.first_token)
        clock.now = real
        invitation = over.send(add_admin(name="second", role="admin", namespaces=[]))
        living = log_in(running, invitation.enrolment_token)
        callers = {
            name: RawClient.at(running.url, running.bundle, admin.identity)
            for name, admin in (("over", over), ("living", living))
        }
        clock.now = real + timedelta(minutes=20)
        assert callers["living"].ask("GET", "/v1/whoami").status == 200
        assert callers["over"].ask("GET", "/v1/whoami").kind == "unauthenticated"

        clock.now = real + timedelta(minutes=2)
        before = running.issuer.log.frontier.size
        mallory = {"name": "mallory", "role": "admin", "namespaces": []}
        for caller in callers.values():
            for method, path, body in (
                ("GET", "/v1/whoami", None),
                ("GET", "/v1/admins", None),
                ("POST", "/v1/admins", mallory),
                ("POST", "/v1/authorities/jwt/prepare", {}),
                ("PUT", "/v1/federation/b.example/allows", {"allows": []}),
            ):
                assert caller.ask(method, path, body).kind == "unavailable", path
        assert running.issuer.log.frontier.size == before
        suspend = {"target": "admin:first", "kind": "suspended", "reason": "x"}
        answer = callers["over"].ask("POST", "/v1/revocations", suspend)
        assert (answer.status, answer.kind) == (401, "unauthenticated")
        assert callers["living"].ask("POST", "/v1/revocations", suspend).status == 201


def test_doctor_and_run_tell_of_a_clock_behind(tmp_path: Path) -> None:
    """The commands say which moments disagree, and name the way out."""
    initialise(make_config(tmp_path), SettableClock(datetime.now(UTC) + DAY))
    settings = tmp_path / "issuer.toml"
    settings.write_text('trust_domain = "example.org"\n')
    command = str(Path(sys.executable).parent / "accredit-issuer")
    for arguments, said in (("doctor", "FAIL  clock"), ("run", "error: the clock says")):
        done = subprocess.run(
            [command, arguments, "--config", settings],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert said in done.stdout + done.stderr
        assert "--confirm-clock" in done.stdout + done.stderr


def test_most_readings_ask_no_other_clock() -> None:
    """It is on the way of every request: within a second of the clock nothing else is asked."""
    clock, steady = SettableClock(), Steady()
    asked: list[float] = []

    def counted() -> float:
        asked.append(steady())
        return asked[-1]

    guard = ClockGuard(clock, NOW, counted)
    guard()
    before = len(asked)
    for _ in range(1000):
        clock.advance(microseconds=900)
        guard()
    assert len(asked) == before
    clock.advance(seconds=1)
    guard()
    assert len(asked) == before + 1

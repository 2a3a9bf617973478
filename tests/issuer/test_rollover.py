"""Operators roll authorities over: by hand, gently, at once, and through years without anybody."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from issuer.test_authorities import SHORT, check_valid
from sqlalchemy import select
from support.offline import Offline, offline_issuer

from accredit_credentials import jwt_svid
from accredit_credentials.errors import Untrusted
from accredit_credentials.revocation_feed import FeedState, verify
from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.authority import authorities as module
from accredit_issuer.authority.lifecycle import AuthorityKind, State
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.registry.changes import Local
from accredit_issuer.settings import KeysOnDisk
from accredit_issuer.store.models import authorities, facts

ROOT, X509, JWT = AuthorityKind.ROOT, AuthorityKind.X509, AuthorityKind.JWT


def shown(offline: Offline) -> dict[str, dict[str, Any]]:
    """The overview, by id."""
    return {each["id"]: each for each in offline.issuer.rollover.overview()}


def records(offline: Offline, *kinds: str) -> list[dict[str, Any]]:
    """The log's records of some kinds."""
    found = [json.loads(leaf) for leaf in offline.leaves()]
    return [record for record in found if record["kind"] in kinds]


def keys_on_disk(offline: Offline) -> set[str]:
    """The ids of the authorities whose keys are there."""
    assert isinstance(offline.config.keys, KeysOnDisk)
    return {path.stem for path in offline.config.keys.folder.iterdir()} - {"log"}


def has_key(offline: Offline, wanted: str) -> bool:
    """Whether an authority's key is there."""
    return wanted in keys_on_disk(offline)


def check_refused_by_feed(offline: Offline, svid: X509Svid) -> None:
    """A verifier that hears the feed refuses it."""
    state = FeedState()
    state.apply(
        verify(offline.issuer.feed.statement(0), bundle=offline.issuer.bundle), now=offline.clock()
    )
    assert state._facts.match(svid.marks()) is not None


def test_a_new_root_is_known_before_it_signs(offline: Offline) -> None:
    """Prepared it is published, until then refused, and from then on issuing CAs are below it."""
    old, agent = offline.active(ROOT), offline.register()
    before = offline.attest(agent)
    new = offline.prepare(ROOT)
    assert len(offline.issuer.bundle.x509_authorities) == 2
    with pytest.raises(Refusal, match="verifiers may not know it before 2026-06-01T12:15:00Z"):
        offline.activate(new, early=False)
    offline.clock.advance(minutes=15)
    offline.issuer.keep_up()
    assert offline.active(ROOT) == old, "half of the old one's life is not over"
    offline.activate(new, early=False)
    ca = shown(offline)[offline.active(X509)]
    assert ca["parent"] == new
    after = offline.attest(agent)
    for svid in (before, after):
        check_valid(offline, svid)
    assert shown(offline)[old]["state"] == "retired"


@pytest.mark.parametrize("kind", AuthorityKind)
def test_forced_rotation_by_hand(offline: Offline, kind: AuthorityKind) -> None:
    """Prepare, activate, taint, revoke: each a record under the operator's name, key gone last."""
    svid = offline.agent()
    old = offline.replace(kind)
    assert not offline.issuer.bundle.tainted
    offline.issuer.rollover.taint(old, "seen in a backup", by=Local("maria"))
    check_valid(offline, svid)
    assert old in offline.issuer.bundle.tainted
    assert has_key(offline, old)
    offline.issuer.rollover.revoke(old, "all renewed", by=Local("maria"))
    assert not offline.issuer.bundle.tainted
    assert not has_key(offline, old)
    assert shown(offline)[old]["state"] == "removed"
    told = [r for r in records(offline, "authority.tainted", "authority.revoked")
            if r["subject"] == old]  # fmt: skip
    assert [(r["actor"], r["details"]["reason"]) for r in told] == [
        ("maria", "seen in a backup"),
        ("maria", "all renewed"),
    ]
    if kind in {ROOT, X509}:
        check_refused_by_feed(offline, svid)


def test_an_early_activation_is_recorded_as_one(offline: Offline) -> None:
    """Whoever overrules the wait stands in the log with it; waiting leaves no such mark."""
    early = offline.prepare(JWT)
    offline.activate(early, early=True)
    late = offline.prepare(JWT)
    offline.clock.advance(minutes=15)
    offline.activate(late, early=True)
    marks = {
        r["subject"]: r["details"].get("early") for r in records(offline, "authority.activated")
    }
    assert marks[early] is True
    assert marks[late] is None


def test_a_revoked_jwt_key_ends_its_tokens(offline: Offline) -> None:
    """A token of a key that was revoked is refused by bundle and feed; the next key's is good."""
    svid = offline.agent()
    token = offline.do(offline.issuer.issuance.tokens.jwt_svid(svid, ("a",)))
    old = offline.replace(JWT)
    bundle = offline.issuer.bundle
    jwt_svid.validate(token.token, bundles={bundle.trust_domain: bundle}, audience="a",
                      now=offline.clock())  # fmt: skip
    offline.issuer.rollover.revoke(old, "stolen", by=Local("maria"))
    bundle = offline.issuer.bundle
    with pytest.raises(Untrusted):
        jwt_svid.validate(token.token, bundles={bundle.trust_domain: bundle}, audience="a",
                          now=offline.clock())  # fmt: skip
    assert offline.issuer.revocation.facts.match(token.svid.marks()) is not None
    assert offline.do(offline.issuer.issuance.tokens.jwt_svid(svid, ("a",))).svid.authority != old


def test_what_never_signed_needs_no_fact(offline: Offline) -> None:
    """Of a prepared root or key the bundle says enough: who took it finds nobody to believe it."""
    for kind in (each for each in AuthorityKind if each is not AuthorityKind.X509):
        new = offline.prepare(kind)
        offline.issuer.rollover.revoke(new, "not needed", by=Local("maria"))
        assert shown(offline)[new]["state"] == "removed"
    assert offline.issuer.feed.through == 0


def test_a_prepared_ca_is_told_of(offline: Offline) -> None:
    """It chains to the root, which stays: a stolen key would sign what everybody accepts."""
    new = offline.prepare(AuthorityKind.X509)
    offline.issuer.rollover.revoke(new, "its key was stolen", by=Local("maria"))
    assert shown(offline)[new]["state"] == "removed"
    (fact,) = offline.issuer.feed.facts
    assert str(fact.target) == f"authority:{new}"


def test_a_tainted_root_taints_what_is_below(offline: Offline) -> None:
    """The issuing CAs below a tainted root are tainted with it, and none of them signs on."""
    manifest = offline.register()
    first = offline.active(X509)
    second_old = offline.replace(X509)
    assert second_old == first
    below_old = offline.active(X509)
    old = offline.replace(ROOT)
    assert offline.active(X509) not in {first, below_old}
    offline.issuer.rollover.taint(old, "seen", by=Local("maria"))
    assert offline.issuer.bundle.tainted == {old, first, below_old}
    through = {r["subject"]: r["details"].get("through") for r in
               records(offline, "authority.tainted")}  # fmt: skip
    assert through == {old: None, first: old, below_old: old}
    check_valid(offline, offline.attest(manifest))


def test_a_taint_that_hits_the_active_ca_replaces_it_first(
    offline: Offline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the process died before the CA followed its root, the taint makes up for it."""
    new = offline.prepare(ROOT)
    advance = module.Authorities._advance_kind
    monkeypatch.setattr(module.Authorities, "_advance_kind", lambda *_: [])
    offline.activate(new)
    monkeypatch.setattr(module.Authorities, "_advance_kind", advance)
    ca = offline.active(X509)
    old = shown(offline)[ca]["parent"]
    assert old != new
    offline.issuer.rollover.taint(str(old), "seen", by=Local("maria"))
    assert offline.issuer.bundle.tainted == {old, ca}
    assert shown(offline)[offline.active(X509)]["parent"] == new


def test_a_revoked_root_ends_all_below_it_for_verifiers_of_the_feed(offline: Offline) -> None:
    """One step: the root leaves the bundle, and facts tell of each issuing CA below it."""
    manifest = offline.register()
    svids = [offline.attest(manifest)]
    offline.replace(X509)
    svids.append(offline.attest(manifest))
    old = offline.replace(ROOT)
    offline.issuer.rollover.revoke(old, "stolen", by=Local("maria"))
    for svid in svids:
        check_refused_by_feed(offline, svid)
        assert offline.is_on_crl(svid), "the last CRL says so too"
        with pytest.raises(Untrusted):
            check_valid(offline, svid)
    good = offline.attest(manifest)
    check_valid(offline, good)
    assert offline.issuer.revocation.facts.match(good.marks()) is None
    with offline.issuer.database.read() as connection:
        rows = connection.execute(select(facts)).all()
    assert [row.sequence for row in rows] == [1, 2]


def test_a_suspended_authority_that_is_revoked_stays_so(offline: Offline) -> None:
    """A suspension is no revocation: the fact is stated all the same."""
    old = offline.replace(JWT)
    offline.state(f"authority:{old}", "suspended")
    offline.issuer.rollover.revoke(old, "stolen", by=Local("maria"))
    with pytest.raises(Refusal, match="only a suspension"):
        offline.state(f"authority:{old}", "restored")


def test_a_retired_key_against_which_a_fact_is_leaves_the_bundle(offline: Offline) -> None:
    """Revoked after its retirement it is published no more, under a new sequence number."""
    old = offline.replace(JWT)
    before = offline.issuer.bundle
    assert old in before.jwt_authorities
    offline.state(f"authority:{old}")
    offline.issuer.keep_up()
    assert old not in offline.issuer.bundle.jwt_authorities
    assert offline.issuer.bundle.sequence == (before.sequence or 0) + 1
    offline.issuer.keep_up()
    assert offline.issuer.bundle.sequence == (before.sequence or 0) + 1, "nothing changed since"


def test_a_reason_is_one_line_of_text(offline: Offline) -> None:
    """Nothing is tainted or revoked without a reason that can be read later."""
    old = offline.replace(JWT)
    for reason in ("", "x" * 501, "a\nb", "\x1b[2J"):
        for step in (offline.issuer.rollover.taint, offline.issuer.rollover.revoke):
            with pytest.raises(Refusal) as refused:
                step(old, reason, by=Local("maria"))
            assert refused.value.kind is Kind.MALFORMED
    assert shown(offline)[old]["state"] == "retired"


@pytest.mark.parametrize("step", ["prepare", "activate", "taint", "revoke"])
def test_a_crash_in_a_step_is_all_of_it_or_nothing(
    offline: Offline, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the commit and before anything else, the next start knows the step whole."""
    rollover = offline.issuer.rollover
    root = offline.replace(ROOT) if step in {"taint", "revoke"} else ""
    prepared = offline.prepare(ROOT) if step == "activate" else ""
    sequence = offline.issuer.bundle.sequence or 0

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.Authorities, "_replace", die)
    with pytest.raises(KeyboardInterrupt):
        {
            "prepare": lambda: rollover.prepare(ROOT, by=Local("m")),
            "activate": lambda: rollover.activate(prepared, early=True, by=Local("m")),
            "taint": lambda: rollover.taint(root, "r", by=Local("m")),
            "revoke": lambda: rollover.revoke(root, "r", by=Local("m")),
        }[step]()
    monkeypatch.undo()
    offline.reopen()
    assert (offline.issuer.bundle.sequence or 0) > sequence
    states = {each["id"]: each["state"] for each in shown(offline).values()}
    expected = {"taint": "tainted", "revoke": "removed"}.get(step)
    if expected:
        assert states[root] == expected
    files = keys_on_disk(offline)
    assert files == {key for key, state in states.items() if state != "removed"}
    active = [each["kind"] for each in shown(offline).values() if each["state"] == "active"]
    assert sorted(active) == sorted(AuthorityKind)
    check_valid(offline, offline.agent())


def test_rollovers_by_themselves(tmp_path: Path) -> None:
    """A hundred steps that nobody asked for: every root, CA and key goes as it was planned."""
    with offline_issuer(tmp_path / "issuer", **SHORT) as offline:
        issuer, clock = offline.issuer, offline.clock
        plans = shown(offline)
        for _ in range(150):
            clock.now = issuer.authorities.next_due(clock())
            issuer.keep_up()
            overview = shown(offline)
            for each in overview.values():
                if each["state"] == "active":
                    plans.setdefault(each["id"], each)
            ca = overview[offline.active(X509)]
            assert ca["parent"] == offline.active(ROOT)
            published = {a.id for a in issuer.authorities.now_in_force.published(ROOT)}
            in_use = [a for a in overview.values() if a["state"] != "removed"]
            assert {a["parent"] for a in in_use if a["kind"] == "x509"} <= published
        with issuer.database.read() as connection:
            rows = connection.execute(select(authorities)).all()
    removed = [row for row in rows if row.state == State.REMOVED.value]
    assert len([row for row in removed if row.kind == "root"]) > 6
    for row in removed:
        assert row.prepared_at <= row.activated_at <= row.retired_at < row.removed_at
        plan = plans[row.id]
        kept = f"{row.retired_at:%Y-%m-%dT%H:%M:%SZ}", f"{row.removed_at:%Y-%m-%dT%H:%M:%SZ}"
        assert (plan["last_use"], plan["removal"]) == kept, "it went otherwise than was planned"


def test_a_tainted_authority_goes_by_itself(offline: Offline) -> None:
    """Without a further word a tainted key is removed once nothing that it signed is valid."""
    old = offline.replace(JWT)
    offline.issuer.rollover.taint(old, "seen", by=Local("maria"))
    planned = shown(offline)[old]["removal"]
    lifetime = offline.config.lifetimes.jwt_svid
    offline.clock.advance(seconds=lifetime.total_seconds() - 1)
    offline.issuer.keep_up()
    assert shown(offline)[old]["state"] == "tainted"
    offline.clock.advance(seconds=1)
    offline.issuer.keep_up()
    assert shown(offline)[old]["state"] == "removed"
    assert shown(offline)[old]["removal"] == planned
    assert shown(offline)[old]["planned"] == []


def test_steps_from_many_threads_are_taken_one_by_one(offline: Offline) -> None:
    """Fifty operators prepare and activate at once beside the scheduler: one of each kind signs."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    def step(number: int) -> bool:
        kind = list(AuthorityKind)[number % len(AuthorityKind)]
        try:
            offline.activate(offline.prepare(kind))
        except Refusal:
            return False
        finally:
            offline.issuer.keep_up()
        return True

    sequence = offline.issuer.bundle.sequence or 0
    with ThreadPoolExecutor(8) as pool:
        assert any(pool.map(step, range(24)))
    states = [a.standing for a in offline.issuer.authorities.now_in_force.authorities]
    active = sorted(a.kind for a in states if a.state is State.ACTIVE)
    assert active == sorted(AuthorityKind)
    steps = {r["details"]["bundle_sequence"] for r in
             records(offline, "authority.prepared", "authority.activated", "authority.removed")
             if r["details"]["bundle_sequence"] > sequence}  # fmt: skip
    assert steps == set(range(sequence + 1, (offline.issuer.bundle.sequence or 0) + 1))


def test_a_restart_forgets_no_taint(offline: Offline) -> None:
    """Tainted before the restart is tainted after it, in bundle and overview."""
    old = offline.replace(JWT)
    offline.clock.advance(seconds=1)
    offline.issuer.rollover.taint(old, "seen", by=Local("maria"))
    bundle, before = offline.issuer.bundle, shown(offline)
    offline.reopen()
    assert offline.issuer.bundle.to_json() == bundle.to_json()
    assert shown(offline) == before


def test_a_root_waits_for_whoever_holds_an_svid(offline: Offline) -> None:
    """Unasked a new root signs only once every SVID of before is over: all have renewed by then."""
    lifetimes = offline.config.lifetimes
    clock = offline.clock
    clock.now += lifetimes.root / 2
    offline.issuer.keep_up()
    (new,) = [key for key, each in shown(offline).items()
              if (each["kind"], each["state"]) == ("root", "prepared")]  # fmt: skip
    planned = shown(offline)[new]["active_from"]
    published = clock()
    clock.now = published + lifetimes.longest_svid - timedelta(seconds=1)
    offline.issuer.keep_up()
    assert shown(offline)[new]["state"] == "prepared"
    clock.now = published + lifetimes.longest_svid
    offline.issuer.keep_up()
    assert shown(offline)[new]["state"] == "active"
    assert shown(offline)[new]["active_from"] == planned

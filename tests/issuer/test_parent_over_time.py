"""Two real issuers, one below the other, as time passes: it is away, says no, rolls over."""

import json
from dataclasses import replace
from typing import Any

import pytest
from support.family import CHILD, MINUTE, ROOT, X509, Family, check_valid, signed_by
from support.issuer import make_config, serving

from accredit_client import calls
from accredit_client.call import Call
from accredit_credentials.x509_svid import validate
from accredit_issuer.api.operations import WAITING
from accredit_issuer.authority.lifecycle import State
from accredit_issuer.errors import Refusal, Unavailable
from accredit_issuer.issuer import initialise, open_issuer
from accredit_issuer.registry.changes import Local

READY: Call[Any] = Call(method="GET", path="/health/ready", read=json.loads)


def test_a_parent_that_is_not_to_be_had(family: Family) -> None:
    """At half life the next CA is asked for; without the parent the old one goes on and says so."""
    family.name_child("support")
    with family.child() as child:
        issuer = child.issuer
        first = issuer.authorities.now_in_force.active(X509).id
        family.clock.advance(hours=13)
        (family.identity_folder / "bundle.json").resolve().unlink()
        for _ in range(3):
            issuer.keep_up()
        assert issuer.authorities.now_in_force.active(X509).id == first
        assert "identity_folder" in str(issuer.authorities.trouble)
        assert issuer.authorities.next_due(family.clock()) <= family.clock() + MINUTE
        in_use = issuer.authorities.now_in_force.authorities
        keys = {file.stem for file in (issuer.config.data / "keys").iterdir()}
        assert keys == {"log", *(a.id for a in in_use if a.kind is not ROOT)}
        check_valid(family, signed_by(issuer, "/ns/support/agent/x", family.clock))


def test_a_parent_that_says_no_and_yes_again(family: Family) -> None:
    """A CA that is to be replaced goes on while the parent refuses, and is once it does not."""
    family.name_child("support")
    with family.child() as child:
        issuer, rollover = child.issuer, family.parent.issuer.rollover
        first = issuer.authorities.now_in_force.active(X509).id
        root = issuer.authorities.now_in_force.active(ROOT).id
        family.admin.send(calls.remove_subordinate(CHILD))
        (made,) = rollover.prepare(ROOT, by=Local("test"))
        rollover.activate(made["id"], early=True, by=Local("test"))
        rollover.taint(root, "test", by=Local("test"))
        family.refresh()
        issuer.keep_up()
        assert "was not named a subordinate issuer" in str(issuer.authorities.trouble)
        assert child.connect().send(READY)["upstream"] == WAITING
        assert issuer.authorities.now_in_force.active(X509).id == first
        family.name_child("support")
        issuer.keep_up()
        assert issuer.authorities.trouble is None
        assert "upstream" not in child.connect().send(READY)
        second = issuer.authorities.now_in_force.active(X509)
        assert (second.id != first, second.standing.parent) == (True, made["id"])
        check_valid(family, signed_by(issuer, "/ns/support/agent/x", family.clock))


def test_a_revoked_child(family: Family) -> None:
    """Its agent revoked it gets no other CA; its CA revoked, the feed's fact refuses its leaves."""
    family.name_child("support")
    with family.child() as child:
        issuer = child.issuer
        ca = issuer.authorities.now_in_force.active(X509).id
        leaf = signed_by(issuer, "/ns/support/agent/x", family.clock)
        facts = family.admin.send(
            calls.revoke(target=f"authority:{ca}", kind="revoked", reason="stolen")
        )
        assert [str(fact.target) for fact in facts] == [f"authority:{ca}"]
        assert family.parent.issuer.revocation.facts.match(leaf.marks()) is not None
        family.admin.send(calls.revoke(target=f"agent:{CHILD}", kind="revoked", reason="stolen"))
        with pytest.raises(Unavailable, match=r"says no: .*agent:infra/child.* revoked"):
            issuer.rollover.prepare(X509, by=Local("test"))


def test_the_parents_root_is_replaced(family: Family) -> None:
    """The child publishes the next root as soon as it knows it, and goes below it in its turn."""
    family.name_child("support")
    with family.child() as child:
        issuer, rollover = child.issuer, family.parent.issuer.rollover
        (old,) = issuer.bundle.x509_authorities
        (made,) = rollover.prepare(ROOT, by=Local("test"))
        family.refresh()
        issuer.keep_up()
        assert set(issuer.bundle.x509_authorities) == {old, *family.parent.bundle.x509_authorities}
        assert issuer.authorities.now_in_force.active(ROOT).certificate == old
        before = issuer.authorities.now_in_force.active(ROOT).id
        rollover.activate(made["id"], early=True, by=Local("test"))
        rollover.taint(before, "test", by=Local("test"))
        family.refresh()
        issuer.keep_up()
        assert issuer.authorities.now_in_force.active(ROOT).id == made["id"]
        leaf = signed_by(issuer, "/ns/support/agent/x", family.clock)
        check_valid(family, leaf)
        facts = family.parent.issuer.revocation.facts
        rollover.revoke(before, "test", by=Local("test"))
        family.refresh()
        issuer.keep_up()
        assert old not in issuer.bundle.x509_authorities
        gone = [
            a["id"]
            for a in issuer.rollover.overview()
            if a["kind"] == "x509" and a["parent"] == before
        ]
        assert facts.match([f"authority:{gone[0]}"]) is not None
        check_valid(family, leaf)


def test_the_parents_roots_are_not_ours_to_change(family: Family) -> None:
    """An operator of the child can neither prepare, taint, activate nor revoke a root."""
    family.name_child("support")
    with family.child() as child:
        rollover = child.issuer.rollover
        root = child.issuer.authorities.now_in_force.active(ROOT).id
        for refused in (
            lambda: rollover.prepare(ROOT, by=Local("test")),
            lambda: rollover.activate(root, early=True, by=Local("test")),
            lambda: rollover.taint(root, "x", by=Local("test")),
            lambda: rollover.revoke(root, "x", by=Local("test")),
        ):
            with pytest.raises(Refusal, match="parent's"):
                refused()


def test_a_restart_while_the_parent_is_down(family: Family) -> None:
    """What the child has is enough to start, and to issue, without anybody to ask."""
    family.name_child("support")
    settings = family.settings()
    settings["upstream"]["url"] = family.parent.url
    config = make_config(family.folder / "child", **settings)
    initialise(config, family.clock)
    nobody = replace(config.upstream, url="https://localhost:9")  # type: ignore[type-var]
    config = replace(config, upstream=nobody)
    family.clock.advance(hours=13)
    with serving(config, clock=family.clock) as (issuer, _):
        assert "cannot be asked" in str(issuer.authorities.trouble)
        check_valid(family, signed_by(issuer, "/ns/support/agent/x", family.clock))
    family.clock.advance(hours=12)
    with pytest.raises(Unavailable, match="cannot be asked"):
        open_issuer(config, family.clock)


def test_back_to_roots_of_its_own(family: Family) -> None:
    """A child that leaves its parent publishes a root of its own before it signs below it."""
    family.name_child("support")
    config = make_config(family.folder / "child", **family.settings())
    initialise(config, family.clock)
    config = replace(config, upstream=None)
    issuer = open_issuer(config, family.clock)
    try:
        assert len(issuer.bundle.x509_authorities) == 2
        for _ in range(30):
            family.clock.advance(hours=1)
            issuer.keep_up()
            leaf = signed_by(issuer, "/ns/support/agent/x", family.clock)
            bundle = issuer.bundle
            validate(leaf, bundles={bundle.trust_domain: bundle}, now=family.clock())
        assert issuer.authorities.now_in_force.active(ROOT).standing.origin.value == "own"
        states = {a.state for a in issuer.authorities.now_in_force.authorities if a.kind is ROOT}
        assert State.ACTIVE in states
    finally:
        issuer.close()

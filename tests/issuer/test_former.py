"""Coming back after a renewal was slept through: by the key of an SVID that is over."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.audit_world import audited
from support.authority import NOW, Authority
from support.nodes import BY, Nodes
from support.offline import DIGEST, Offline, offline_issuer

from accredit_attestors.former_svid import collect_former
from accredit_attestors.signing import VerifiedManifest
from accredit_client.calls import certificate_request
from accredit_credentials.keys import generate_key, public_key_der
from accredit_credentials.revocation import FactKind, FactSet, RevocationFact, Target
from accredit_credentials.x509_svid import X509Identity
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.agent_svids import AttestationRequest
from accredit_issuer.issuance.former import FormerSvid, decide_former

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
GRACE = timedelta(days=7)


def refused(work: Callable[[], Any], kind: Kind, match: str | None = None) -> None:
    """Something gets no, for this reason."""
    with pytest.raises(Refusal, match=match) as error:
        work()
    assert error.value.kind is kind


# The decision

SVID = Authority().issue().svid
FORMER = FormerSvid(svid=SVID, instance="i", expires_at=NOW, facts=FactSet())
NEW, OTHER = (public_key_der(generate_key().public_key()) for _ in range(2))


def stated(kind: FactKind, target: str) -> FactSet:
    """One fact."""
    fact = RevocationFact(
        sequence=1, target=Target.parse(target), kind=kind, at=NOW, expires_at=NOW, reason="x"
    )
    return FactSet([fact])


@pytest.mark.parametrize(
    ("former", "now"),
    [
        (FORMER, NOW),
        (FORMER, NOW + GRACE - SECOND),
        # For the key of its latest successor: that answer may have been lost.
        (replace(FORMER, later_key=NEW), NOW),
        (replace(FORMER, facts=stated(FactKind.REVOKED, "instance:of-somebody-else")), NOW),
    ],
)
def test_who_comes_back(former: FormerSvid, now: Any) -> None:
    """Over since no longer than the grace, and no other key came after it; the reason says so."""
    (reason,) = decide_former(former, public_key=NEW, grace=GRACE, now=now)
    assert SVID.serial in reason
    assert "grace of 604800 s" in reason


@pytest.mark.parametrize(
    ("former", "now", "grace", "kind"),
    [
        (FORMER, NOW - SECOND, GRACE, Kind.ATTESTATION_REFUSED),
        (FORMER, NOW + GRACE, GRACE, Kind.ATTESTATION_REFUSED),
        (FORMER, NOW, timedelta(0), Kind.ATTESTATION_REFUSED),
        (replace(FORMER, later_key=OTHER), NOW, GRACE, Kind.ATTESTATION_REFUSED),
        (replace(FORMER, later_key=b""), NOW, GRACE, Kind.ATTESTATION_REFUSED),
        *(
            (replace(FORMER, facts=stated(kind, mark)), NOW, GRACE, Kind.REVOKED)
            for mark in SVID.marks()
            for kind in (FactKind.REVOKED, FactKind.SUSPENDED)
        ),
    ],
)
def test_who_does_not_come_back(former: FormerSvid, now: Any, grace: timedelta, kind: Kind) -> None:
    """Not over, over for too long, off, replaced since, or a fact against anything it carries."""
    refused(lambda: decide_former(former, public_key=NEW, grace=grace, now=now), kind)


# Nodes


def test_a_node_comes_back(offline: Offline) -> None:
    """With the same instance, recorded with the words that say so; what runs there goes on."""
    nodes = Nodes(offline)
    nodes.list()
    held, manifest = nodes.attest(), offline.register()
    running = nodes.run(held.svid, manifest)
    refused(lambda: nodes.come_back(held), Kind.ATTESTATION_REFUSED, "is not over")
    offline.clock.now += timedelta(days=3)
    offline.issuer.keep_up()
    key = generate_key()
    back = nodes.come_back(held, key=key)
    assert back.svid.instance == held.svid.instance
    records = [json.loads(leaf) for leaf in offline.leaves()]
    (issued,) = (r for r in records if r["details"].get("former") == held.svid.serial)
    assert issued["subject"] == back.svid.serial
    assert any("over since" in reason for reason in issued["details"]["reasons"])
    attested = [r for r in records if r["kind"] == "node.attested"][-1]
    assert attested["details"]["attestation"] == "former_svid"
    nodes.run(back.svid, manifest, instance=running.instance)
    # The answer may have been lost: the same for the same key. A stranger's key gets nothing.
    nodes.come_back(held, key=key)
    refused(lambda: nodes.come_back(held), Kind.ATTESTATION_REFUSED, "has a later one")
    thief = replace(held, key=generate_key())
    refused(lambda: nodes.come_back(thief), Kind.ATTESTATION_REFUSED, "not signed by the key")
    nodes.list("build-8")
    refused(lambda: nodes.come_back(held, "build-8"), Kind.ATTESTATION_REFUSED, "not one of")
    offline.clock.now += GRACE
    refused(lambda: nodes.come_back(held), Kind.ATTESTATION_REFUSED, "for more than")
    assert audited(offline).ok


@pytest.mark.parametrize("asleep", [timedelta(0), 2 * HOUR])
def test_a_replaced_key_of_a_node_is_nobodys(offline: Offline, asleep: timedelta) -> None:
    """Once its holder was renewed, before or after its end, the older key proves nothing."""
    nodes = Nodes(offline)
    nodes.list()
    held = nodes.attest()
    offline.clock.now += asleep
    last = held.svid if not asleep else nodes.come_back(held).svid
    key = generate_key()
    offline.do(offline.issuer.issuance.nodes.renew(last, certificate_request(key)))
    offline.clock.now += 2 * HOUR
    refused(lambda: nodes.come_back(held), Kind.ATTESTATION_REFUSED, "has a later one")
    # Its holder, whose answer was lost, asks for the key that it asked for then.
    assert nodes.come_back(held, key=key).svid.instance == held.svid.instance


@pytest.mark.parametrize("kind", ["revoked", "suspended"])
@pytest.mark.parametrize("about", ["node", "instance", "serial"])
def test_a_revoked_node_does_not_come_back(offline: Offline, about: str, kind: str) -> None:
    """Also where the fact left the memory long ago, with everything that it matched."""
    nodes = Nodes(offline)
    nodes.list()
    held = nodes.attest()
    target = {
        "node": "node:build-7",
        "instance": f"instance:{held.svid.instance}",
        "serial": f"serial:{held.svid.serial}",
    }[about]
    offline.state(target, kind)
    offline.clock.now += timedelta(days=5)
    offline.issuer.keep_up()
    refused(lambda: nodes.come_back(held), Kind.REVOKED)
    assert "request.refused" in {json.loads(leaf)["kind"] for leaf in offline.leaves()}


def test_a_node_that_was_removed_does_not_come_back(offline: Offline) -> None:
    """Nor one that was removed after it slept in, and listed anew under its name."""
    nodes = Nodes(offline)
    nodes.list()
    held = nodes.attest()
    offline.clock.now += 2 * HOUR
    offline.issuer.nodes.remove("build-7", by=BY, now=offline.clock())
    refused(lambda: nodes.come_back(held), Kind.ATTESTATION_REFUSED, "no node")
    nodes.list()
    refused(lambda: nodes.come_back(held), Kind.ATTESTATION_REFUSED, "listed anew")


# Agents without a daemon


def asleep(offline: Offline, manifest: VerifiedManifest) -> X509Identity:
    """An instance, and its key."""
    key = generate_key()
    request = offline.attestation(manifest, csr=certificate_request(key))
    return X509Identity.of(offline.do(offline.issuer.issuance.agents.attest(request)).svid(), key)


def come_back(
    offline: Offline,
    held: X509Identity,
    manifest: VerifiedManifest,
    *,
    code: str = DIGEST,
    without: str = "",
    beside: dict[str, Any] | None = None,
    key: Any = None,
) -> X509Identity:
    """What an agent's runtime sends once it wakes, or something else."""
    key = key or generate_key()
    nonce, _ = offline.issuer.issuance.agents.nonces.issue(offline.clock())
    former = collect_former(held, nonce=nonce, public_key=public_key_der(key.public_key()))
    payloads: dict[str, Any] = {
        "manifest": {"envelope": manifest.envelope.decode()},
        "code_digest": {"digest": code},
        "former_svid": dict(former.payload),
        **(beside or {}),
    }
    payloads.pop(without, None)
    request = AttestationRequest(
        nonce=nonce,
        csr=certificate_request(key),
        evidence=[
            {"kind": kind, "nonce": nonce, "payload": payload} for kind, payload in payloads.items()
        ],
    )
    return X509Identity.of(offline.do(offline.issuer.issuance.agents.attest(request)).svid(), key)


def test_an_agent_comes_back(offline: Offline) -> None:
    """The same instance, for what was signed, with its code measured; and it renews again."""
    manifest = offline.register()
    held = asleep(offline, manifest)
    refused(lambda: come_back(offline, held, manifest), Kind.ATTESTATION_REFUSED, "is not over")
    offline.clock.now += timedelta(days=6)
    offline.issuer.keep_up()
    back = come_back(offline, held, manifest)
    assert back.svid.instance == held.svid.instance
    assert back.svid.spiffe_id == held.svid.spiffe_id
    offline.renew(back.svid)
    other = "sha256:" + "0f" * 32
    later = offline.register()
    for kind, work in (
        (Kind.ATTESTATION_REFUSED, lambda: come_back(offline, held, manifest, code=other)),
        (Kind.ATTESTATION_REFUSED, lambda: come_back(offline, held, later)),
        (Kind.ATTESTATION_REFUSED, lambda: come_back(offline, held, manifest, without="manifest")),
        (
            Kind.ATTESTATION_REFUSED,
            lambda: come_back(offline, held, manifest, without="code_digest"),
        ),
        (
            Kind.MALFORMED,
            lambda: come_back(
                offline,
                held,
                manifest,
                beside={"join_token": {"token": offline.join_token(manifest)}},
            ),
        ),
        (
            Kind.ATTESTATION_REFUSED,
            lambda: come_back(offline, replace(held, key=generate_key()), manifest),
        ),
    ):
        refused(work, kind)
    assert audited(offline).ok


def test_a_replaced_key_of_an_agent_is_nobodys(offline: Offline) -> None:
    """Renewed while it lived; only who asks for the very key of the latest one is its holder."""
    manifest = offline.register()
    held = asleep(offline, manifest)
    keys = [generate_key() for _ in range(2)]
    for key in keys:
        offline.renew(held.svid, key)
    offline.clock.now += 2 * HOUR
    for key in (generate_key(), keys[0]):
        refused(
            lambda key=key: come_back(offline, held, manifest, key=key),
            Kind.ATTESTATION_REFUSED,
            "has a later one",
        )
    assert come_back(offline, held, manifest, key=keys[1]).svid.instance == held.svid.instance


def test_of_a_batch_the_last_key_is_the_successors(offline: Offline) -> None:
    """Asked for together, released together; the issuer cannot tell which of them is meant."""
    manifest = offline.register()
    held = asleep(offline, manifest)
    keys = [generate_key() for _ in range(3)]
    evidence = {
        "kind": "code_digest",
        "nonce": held.svid.serial,
        "payload": {"digest": DIGEST},
    }
    csrs = [certificate_request(key) for key in keys]
    offline.do(offline.issuer.issuance.agents.renew_all(held.svid, csrs, [evidence]))
    offline.clock.now += 2 * HOUR
    for key in keys[:-1]:
        refused(
            lambda key=key: come_back(offline, held, manifest, key=key),
            Kind.ATTESTATION_REFUSED,
            "has a later one",
        )
    assert come_back(offline, held, manifest, key=keys[-1]).svid.instance == held.svid.instance


def test_a_revoked_agent_does_not_come_back(offline: Offline) -> None:
    """Not by a fact that left the memory, nor by one about its signer."""
    manifest = offline.register()
    first, second = asleep(offline, manifest), asleep(offline, manifest)
    offline.state(f"instance:{first.svid.instance}")
    offline.clock.now += timedelta(days=5)
    offline.issuer.keep_up()
    refused(lambda: come_back(offline, first, manifest), Kind.REVOKED)
    come_back(offline, second, manifest)
    offline.state("signer:ci")
    refused(lambda: come_back(offline, second, manifest), Kind.REVOKED)


def test_an_instance_of_a_node_does_not_come_back_by_itself(offline: Offline) -> None:
    """Its node measures it and asks; the key that the process has does not get around that."""
    nodes = Nodes(offline)
    node, manifest, key = nodes.new(), offline.register(), generate_key()
    svid = nodes.run(node, manifest, csr=certificate_request(key))
    offline.clock.now += 2 * HOUR
    held = X509Identity.of(svid, key)
    refused(lambda: come_back(offline, held, manifest), Kind.FORBIDDEN, "alone renews it")


def test_nobody_comes_back_where_the_grace_is_off(tmp_path: Path) -> None:
    """``lifetimes.grace = 0``: what is over is over."""
    with offline_issuer(tmp_path / "issuer", lifetimes={"grace": 0}) as offline:
        manifest = offline.register()
        held = asleep(offline, manifest)
        offline.clock.now += HOUR + SECOND
        refused(
            lambda: come_back(offline, held, manifest), Kind.ATTESTATION_REFUSED, "proves nothing"
        )


@pytest.mark.parametrize("about", ["instance", "serial"])
def test_a_suspension_of_long_ago_can_be_ended(offline: Offline, about: str) -> None:
    """Whoever slept since comes back, once it is restored; a revocation is not to be ended."""
    manifest = offline.register()
    held, revoked = asleep(offline, manifest), asleep(offline, manifest)
    target, other = (f"{about}:{getattr(each.svid, about)}" for each in (held, revoked))
    offline.state(target, "suspended")
    offline.state(other)
    offline.clock.now += timedelta(days=2)
    offline.issuer.keep_up()
    refused(lambda: come_back(offline, held, manifest), Kind.REVOKED, "suspended")
    offline.state(target, "restored")
    assert come_back(offline, held, manifest).svid.instance == held.svid.instance
    refused(lambda: offline.state(target, "restored"), Kind.CONFLICT, "not suspended")
    refused(lambda: offline.state(other, "restored"), Kind.CONFLICT, "only a suspension")
    refused(lambda: come_back(offline, revoked, manifest), Kind.REVOKED)
    assert audited(offline).ok


def test_what_ran_on_a_node_goes_on_once_it_is_restored(offline: Offline) -> None:
    """Suspended for days; what was suspended by itself before stays so until it is restored."""
    nodes = Nodes(offline)
    nodes.list()
    held, manifest = nodes.attest(), offline.register()
    running, by_itself = (nodes.run(held.svid, manifest) for _ in range(2))
    offline.state(f"instance:{by_itself.instance}", "suspended")
    offline.clock.now += timedelta(minutes=1)
    offline.state("node:build-7", "suspended")
    offline.clock.now += timedelta(days=2)
    offline.issuer.keep_up()
    refused(lambda: nodes.come_back(held), Kind.REVOKED)
    offline.state("node:build-7", "restored")
    back = nodes.come_back(held).svid
    assert nodes.run(back, manifest, instance=running.instance).instance == running.instance
    again = partial(nodes.run, back, manifest, instance=by_itself.instance)
    refused(again, Kind.REVOKED)
    offline.state(f"instance:{by_itself.instance}", "restored")
    assert again().instance == by_itself.instance
    assert audited(offline).ok

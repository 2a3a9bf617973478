"""Nodes at an issuer: listed, attested, renewed, removed; and what they may run."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.audit_world import audited
from support.clock import NOW, SettableClock
from support.nodes import BY, Nodes, asked_of
from support.offline import DIGEST, Offline, offline_issuer
from support.site import SiteCa, key_pem_of, pem_of

from accredit_attestors.levels import Assurance
from accredit_attestors.nodes.contract import NodeCollectContext
from accredit_attestors.nodes.x509pop import ATTESTOR as X509POP
from accredit_client.calls import certificate_request
from accredit_credentials.keys import generate_key, public_key_der
from accredit_credentials.spiffe_id import AgentId
from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.node_instances import InstanceAsked, check_form, decide
from accredit_issuer.registry.nodes import Node, NodeAsked, check_asked
from accredit_issuer.registry.registry import Instance

HOUR = timedelta(hours=1)
OTHER = "sha256:" + "0f" * 32
KINDS = frozenset({"join_token", "x509pop", "former_svid"})


@pytest.fixture
def nodes(offline: Offline) -> Nodes:
    """The nodes of an issuer without sockets."""
    return Nodes(offline)


def refused(work: Callable[[], Any], kind: Kind, match: str | None = None) -> None:
    """Something gets no, for this reason."""
    with pytest.raises(Refusal, match=match) as error:
        work()
    assert error.value.kind is kind


def records(offline: Offline, kind: str) -> list[dict[str, Any]]:
    """The records of one kind."""
    leaves = [json.loads(leaf) for leaf in offline.leaves()]
    return [record for record in leaves if record["kind"] == kind]


# Who can be listed

ASKED = NodeAsked(name="build-7", attestation="join_token", namespaces=("support",))
SITE = SiteCa(SettableClock()())
BY_CERTIFICATE = replace(
    ASKED, attestation="x509pop", ca=SITE.pem, certificate="dns:build-7.site.example"
)


def test_what_can_be_listed() -> None:
    """A name, namespaces, and a kind of evidence with what belongs to it."""
    check_asked(ASKED, KINDS)
    check_asked(BY_CERTIFICATE, KINDS)


@pytest.mark.parametrize(
    "asked",
    [
        replace(ASKED, name="Build"),
        replace(ASKED, name="instances"),
        replace(ASKED, name="attestations"),
        replace(ASKED, namespaces=()),
        replace(ASKED, namespaces=("support", "support")),
        replace(ASKED, namespaces=("*",)),
        replace(ASKED, namespaces=tuple(f"n{n}" for n in range(65))),
        replace(ASKED, attestation="former_svid"),
        replace(ASKED, attestation="tpm"),
        replace(ASKED, attestation=""),
        replace(ASKED, ca=SITE.pem),
        replace(ASKED, certificate="dns:a"),
        replace(BY_CERTIFICATE, ca=None),
        replace(BY_CERTIFICATE, certificate=None),
        replace(BY_CERTIFICATE, ca="x"),
        replace(BY_CERTIFICATE, ca=pem_of(SITE.host()[1])),
        replace(BY_CERTIFICATE, certificate="dns:*"),
    ],
)
def test_what_cannot_be_listed(asked: NodeAsked) -> None:
    """Each neighbour of a node that can be listed is malformed."""
    refused(lambda: check_asked(asked, KINDS), Kind.MALFORMED)


def test_listing_is_a_record_and_no_second_one(offline: Offline, nodes: Nodes) -> None:
    """The same said twice is no error; something else under the name is a conflict."""
    nodes.list()
    nodes.list()
    (record,) = records(offline, "node.added")
    assert record["subject"] == "build-7"
    assert record["details"]["namespaces"] == ["support"]
    refused(lambda: nodes.list("build-7", "payments"), Kind.CONFLICT)
    offline.issuer.nodes.change("build-7", ("payments",), by=BY, now=offline.clock())
    offline.issuer.nodes.change("build-7", ("payments",), by=BY, now=offline.clock())
    (record,) = records(offline, "node.changed")
    assert record["details"] == {"namespaces": ["payments"]}
    (view,) = offline.issuer.nodes.all(offline.clock())
    assert view["namespaces"] == ["payments"]
    assert view["spiffe_id"] == "spiffe://example.org/node/build-7"
    for name in ("build-8", "Build"):
        refused(
            lambda n=name: offline.issuer.nodes.remove(n, by=BY, now=offline.clock()),
            Kind.NOT_FOUND,
        )


# How a node attests


def test_a_join_token_gives_a_node_its_svid(offline: Offline, nodes: Nodes) -> None:
    """Once, for the node that it was made for; the record says by what."""
    svid = nodes.new()
    assert str(svid.spiffe_id) == "spiffe://example.org/node/build-7"
    assert svid.manifest is None
    assert svid.not_after - offline.clock() <= HOUR
    (record,) = records(offline, "node.attested")
    assert record["actor"] == str(svid.spiffe_id)
    assert record["details"]["attestation"] == "join_token"
    token = nodes.token()
    nodes.attest(token=token)
    refused(lambda: nodes.attest(token=token), Kind.ATTESTATION_REFUSED, "used before")
    assert records(offline, "request.refused")
    nodes.list("build-8")
    refused(lambda: nodes.attest("build-8", nodes.token()), Kind.ATTESTATION_REFUSED, "admits")
    refused(lambda: nodes.attest("build-9", nodes.token()), Kind.ATTESTATION_REFUSED, "no node")
    late = nodes.token()
    offline.clock.now += timedelta(seconds=600)
    refused(lambda: nodes.attest(token=late), Kind.ATTESTATION_REFUSED, "expired")


def test_a_join_token_is_spent_once_by_fifty(offline: Offline, nodes: Nodes) -> None:
    """Fifty who come with one token at once: exactly one gets an SVID."""
    nodes.list()
    token = nodes.token()

    def come(_: int) -> bool:
        try:
            nodes.attest(token=token)
        except Refusal:
            return False
        return True

    with ThreadPoolExecutor(10) as threads:
        assert sum(threads.map(come, range(50))) == 1


def test_an_agents_join_token_is_no_nodes(offline: Offline, nodes: Nodes) -> None:
    """A token that admits an agent admits no node, and the other way round."""
    nodes.list()
    manifest = offline.register()
    refused(lambda: nodes.attest(token=offline.join_token(manifest)), Kind.MALFORMED)
    request = offline.attestation(manifest, token=nodes.token())
    refused(lambda: offline.do(offline.issuer.issuance.agents.attest(request)), Kind.MALFORMED)


def test_a_certificate_of_the_site_gives_a_node_its_svid(
    offline: Offline, nodes: Nodes, tmp_path: Path
) -> None:
    """Possession of the named certificate; a neighbour of the same CA is another host."""
    site = SiteCa(offline.clock())
    certificate = "dns:build-7.site.example"
    nodes.list(attestation="x509pop", ca=site.pem, certificate=certificate)

    def attest_as(host: str) -> X509Svid:
        held, issued = site.host(host)
        (tmp_path / "cert").write_text(pem_of(issued))
        secret = tmp_path / "key"
        secret.touch(mode=0o600)
        secret.write_text(key_pem_of(held))
        key, nonce = generate_key(), nodes.nonce()
        evidence = X509POP.collect(
            NodeCollectContext(
                trust_domain=offline.config.trust_domain,
                nonce=nonce,
                public_key=public_key_der(key.public_key()),
                certificate_file=tmp_path / "cert",
                key_file=secret,
            )
        )
        assert evidence is not None
        shown = evidence.to_json()
        svid = nodes.show("build-7", shown, nonce, key).svid
        # The nonce is spent, and the signature is for that key alone.
        refused(lambda: nodes.show("build-7", shown, nonce, key), Kind.ATTESTATION_REFUSED)
        return svid

    assert str(attest_as("build-7.site.example").spiffe_id) == "spiffe://example.org/node/build-7"
    refused(lambda: attest_as("build-8.site.example"), Kind.ATTESTATION_REFUSED, "not the one")
    refused(nodes.token, Kind.CONFLICT, "attests by x509pop")


def test_a_node_attests_by_its_kind_alone(offline: Offline, nodes: Nodes) -> None:
    """No other kind, no two, and none at all."""
    nodes.list()
    nonce = nodes.nonce()
    other = {"kind": "x509pop", "nonce": nonce, "payload": {"certificates": [], "signature": ""}}
    refused(
        lambda: nodes.show("build-7", other, nonce), Kind.ATTESTATION_REFUSED, "attests by join_tok"
    )
    unknown = {"kind": "tpm", "nonce": nonce, "payload": {}}
    refused(lambda: nodes.show("build-7", unknown, nonce), Kind.ATTESTATION_REFUSED)


def test_a_node_renews_while_it_is_listed(offline: Offline, nodes: Nodes) -> None:
    """For a new key, with the same instance; not once it is suspended, removed or listed anew."""
    svid = nodes.new()
    csr = certificate_request(generate_key())

    def renew() -> X509Svid:
        return offline.do(offline.issuer.issuance.nodes.renew(svid, csr)).svid()

    assert renew().instance == svid.instance
    offline.state("node:build-7", "suspended")
    refused(renew, Kind.REVOKED)
    offline.state("node:build-7", "restored")
    renew()
    offline.issuer.nodes.remove("build-7", by=BY, now=offline.clock())
    refused(renew, Kind.FORBIDDEN, "not listed any more")
    nodes.list()
    refused(renew, Kind.FORBIDDEN, "not listed any more")
    assert nodes.attest().svid.instance != svid.instance


# What a node may run: the decision

NODE = Node(
    name="build-7",
    instance="0b8f7c1e-5a44-4c0e-9d3a-2f6f1f0a7b11",
    attestation="join_token",
    namespaces=("support", "search"),
    listed_at=NOW,
)
INSTANCE = "11b16c24-3572-45c8-b027-40901a738827"


def test_the_decision_about_an_instance(offline: Offline) -> None:
    """The nearest neighbours of what a node may have, each refused for its reason."""
    manifest = offline.register()
    born, renewed = asked_of(manifest), asked_of(manifest, instance=INSTANCE)
    known = Instance(
        id=INSTANCE,
        agent=AgentId.parse("support/summarizer"),
        manifest=manifest.digest,
        assurance=Assurance.NODE,
        born_at=NOW,
        node="build-7",
    )
    decide(born, NODE, manifest, None)
    decide(renewed, NODE, manifest, known)
    elsewhere = replace(NODE, namespaces=("suppor", "support2", "Support"))
    table: list[tuple[InstanceAsked, Node, Instance | None, Kind]] = [
        (born, elsewhere, None, Kind.FORBIDDEN),
        (renewed, elsewhere, known, Kind.FORBIDDEN),
        (replace(born, code=OTHER), NODE, None, Kind.ATTESTATION_REFUSED),
        (replace(renewed, code=OTHER), NODE, known, Kind.ATTESTATION_REFUSED),
        (replace(born, selectors=()), NODE, None, Kind.MALFORMED),
        (replace(renewed, selectors=("unix:uid:1",)), NODE, known, Kind.MALFORMED),
        (renewed, NODE, None, Kind.FORBIDDEN),
        (renewed, NODE, replace(known, node="build-8"), Kind.FORBIDDEN),
        (renewed, NODE, replace(known, node=None), Kind.FORBIDDEN),
        (renewed, NODE, replace(known, id="x"), Kind.FORBIDDEN),
        (renewed, replace(NODE, listed_at=NOW + HOUR), known, Kind.FORBIDDEN),
        (renewed, NODE, replace(known, manifest=OTHER), Kind.ATTESTATION_REFUSED),
    ]
    for asked, node, instance, kind in table:
        refused(lambda a=asked, n=node, i=instance: decide(a, n, manifest, i), kind)


@pytest.mark.parametrize(
    "changes",
    [
        {"manifest": "sha256:00"},
        {"code": DIGEST.upper()},
        {"selectors": ("unix:uid:1", "unix:uid:1")},
        {"selectors": tuple(f"unix:uid:{n}" for n in range(65))},
        {"selectors": ("unix:" + "x" * 1024,)},
        {"selectors": ("unix",)},
        {"selectors": ("unix:",)},
        {"selectors": ("join_token:id:x",)},
        {"selectors": (f"code:{DIGEST}",)},
        {"selectors": ("unix:path:/a\n",)},
    ],
)
def test_the_form_of_a_request(offline: Offline, changes: dict[str, Any]) -> None:
    """Digests have one form; a node says what nodes can see, and no more than the limits allow."""
    good = asked_of(offline.register())
    check_form(good)
    refused(lambda: check_form(replace(good, **changes)), Kind.MALFORMED)


# What a node may run: at the issuer


def test_a_node_gives_birth_and_renews(offline: Offline, nodes: Nodes) -> None:
    """An instance with the assurance of the node, recorded with it; its JWT-SVID says so."""
    node, manifest = nodes.new(), offline.register(assurance=Assurance.NODE)
    svid = nodes.run(node, manifest)
    assert svid.manifest == manifest.digest
    assert str(svid.spiffe_id) == "spiffe://example.org/ns/support/agent/summarizer"
    record = records(offline, "instance.attested")[-1]
    assert record["actor"] == str(node.spiffe_id)
    assert record["details"]["node"] == "build-7"
    assert record["details"]["selectors"] == ["unix:uid:1001", f"code:{DIGEST}"]
    jwt = offline.do(offline.issuer.issuance.tokens.jwt_svid(svid, ("https://a.example",)))
    assert jwt.svid.agent is not None
    assert jwt.svid.agent.assurance == "node"
    offline.task_token(svid)
    again = nodes.run(node, manifest, instance=svid.instance)
    assert again.instance == svid.instance
    assert again.serial != svid.serial
    assert len(records(offline, "instance.attested")) == 1
    refused(lambda: offline.attest(manifest), Kind.ATTESTATION_REFUSED, "requires assurance node")
    assert audited(offline).ok


def test_an_instance_of_a_node_is_renewed_by_its_node_alone(offline: Offline, nodes: Nodes) -> None:
    """Not by its own SVID, nor by another node; one that measured itself renews itself."""
    node, manifest = nodes.new(), offline.register()
    svid = nodes.run(node, manifest)
    refused(lambda: offline.renew(svid), Kind.FORBIDDEN, "alone renews it")
    evidence = {"kind": "code_digest", "nonce": svid.serial, "payload": {"digest": DIGEST}}
    csrs = [certificate_request(generate_key())]
    refused(
        lambda: offline.do(offline.issuer.issuance.agents.renew_all(svid, csrs, [evidence])),
        Kind.FORBIDDEN,
    )
    other = nodes.new("build-8")
    refused(lambda: nodes.run(other, manifest, instance=svid.instance), Kind.FORBIDDEN)
    own = offline.attest(manifest)
    offline.renew(own)
    refused(lambda: nodes.run(node, manifest, instance=own.instance), Kind.FORBIDDEN)


@pytest.mark.parametrize(
    "target",
    ["node:build-7", "agent:support/summarizer", "namespace:support", "signer:ci",
     "owner:maria@example.org", "manifest", "serial", "instance"],
)  # fmt: skip
def test_a_fact_ends_what_a_node_asks_for(offline: Offline, nodes: Nodes, target: str) -> None:
    """Whatever is revoked, agent's or node's: neither birth nor renewal."""
    node, manifest = nodes.new(), offline.register()
    svid = nodes.run(node, manifest)
    spelled = {
        "manifest": f"manifest:{manifest.digest}",
        "serial": f"serial:{node.serial}",
        "instance": f"instance:{node.instance}",
    }
    offline.state(spelled.get(target, target))
    refused(lambda: nodes.run(node, manifest), Kind.REVOKED)
    refused(lambda: nodes.run(node, manifest, instance=svid.instance), Kind.REVOKED)


def test_several_instances_are_decided_each_by_itself(offline: Offline, nodes: Nodes) -> None:
    """Of many in one call only the wrong ones are refused, also where the last is the wrong one."""
    node, manifest = nodes.new(), offline.register()
    offline.signer("pay", "payments")
    foreign = offline.register(signer="pay", agent=AgentId.parse("payments/refund"))
    batch = [asked_of(manifest), asked_of(manifest, code=OTHER), asked_of(manifest)]
    batch += [replace(asked_of(manifest), manifest=OTHER), asked_of(foreign)]
    outcomes = offline.do(offline.issuer.issuance.instances.issue_all(node, batch))
    kinds = [each.kind if isinstance(each, Refusal) else None for each in outcomes]
    assert kinds == [
        None, Kind.ATTESTATION_REFUSED, None, Kind.NOT_FOUND, Kind.FORBIDDEN,
    ]  # fmt: skip
    twice = asked_of(manifest)
    work = offline.issuer.issuance.instances
    refused(lambda: offline.do(work.issue_all(node, [twice, twice])), Kind.MALFORMED, "keys")
    svid = nodes.run(node, manifest)
    same = [asked_of(manifest, instance=svid.instance) for _ in range(2)]
    refused(lambda: offline.do(work.issue_all(node, same)), Kind.MALFORMED, "instances")


def test_a_namespace_that_was_taken_away_is_not_renewed(offline: Offline, nodes: Nodes) -> None:
    """What runs there of it ends with its SVID; what is of another namespace goes on."""
    node, manifest = nodes.new("build-7", "support", "search"), offline.register()
    svid = nodes.run(node, manifest)
    offline.issuer.nodes.change("build-7", ("search",), by=BY, now=offline.clock())
    refused(lambda: nodes.run(node, manifest, instance=svid.instance), Kind.FORBIDDEN)
    refused(lambda: nodes.run(node, manifest), Kind.FORBIDDEN)
    offline.issuer.nodes.change("build-7", ("support",), by=BY, now=offline.clock())
    nodes.run(node, manifest, instance=svid.instance)


# What ends with a node


def standing(offline: Offline, svid: X509Svid) -> str:
    """What the facts in force say of an SVID."""
    fact = offline.issuer.revocation.facts.match(svid.marks())
    return "active" if fact is None else fact.kind.value


def test_a_revoked_node_ends_with_all_that_runs_there(offline: Offline, nodes: Nodes) -> None:
    """Its SVID and each of its instances, on the CRL too; what runs elsewhere goes on."""
    node, other, manifest = nodes.new(), nodes.new("build-8"), offline.register()
    here = [nodes.run(node, manifest) for _ in range(3)]
    there, alone = nodes.run(other, manifest), offline.attest(manifest)
    stated = offline.state("node:build-7")
    assert {str(each.fact.target) for each in stated} == {
        "node:build-7",
        *(f"instance:{svid.instance}" for svid in here),
    }
    for svid in (node, *here):
        assert standing(offline, svid) == "revoked"
        assert offline.is_on_crl(svid)
    for svid in (other, there, alone):
        assert standing(offline, svid) == "active"
        assert not offline.is_on_crl(svid)
    assert "node:build-7" in {str(fact.target) for fact in offline.issuer.feed.facts}
    refused(nodes.attest, Kind.REVOKED)
    refused(nodes.list, Kind.REVOKED)
    refused(lambda: offline.task_token(here[0]), Kind.REVOKED)
    assert audited(offline).ok


def test_a_suspended_node_comes_back_with_what_it_took(offline: Offline, nodes: Nodes) -> None:
    """Restored is what was suspended with the node, and nothing that was ended by itself."""
    node, manifest = nodes.new(), offline.register()
    ended, paused, living = (nodes.run(node, manifest) for _ in range(3))
    offline.state(f"instance:{ended.instance}")
    offline.state(f"instance:{paused.instance}", "suspended")
    offline.clock.now += timedelta(seconds=1)
    offline.state("node:build-7", "suspended")
    for svid in (node, living):
        assert standing(offline, svid) == "suspended"
        assert offline.is_on_crl(svid)
    for svid in (living, paused):
        refused(
            lambda s=svid: offline.state(f"instance:{s.instance}", "restored"),
            Kind.CONFLICT,
            "covers",
        )
    offline.state("node:build-7", "restored")
    found = [standing(offline, svid) for svid in (node, ended, paused, living)]
    assert found == ["active", "revoked", "suspended", "active"]
    assert not offline.is_on_crl(node)
    assert not offline.is_on_crl(living)
    offline.state(f"instance:{paused.instance}", "restored")
    nodes.run(node, manifest, instance=paused.instance)
    assert audited(offline).ok


def test_a_removed_node_ends_with_all_that_runs_there(offline: Offline, nodes: Nodes) -> None:
    """By facts about instances: the name can be listed again, and nothing of before comes back."""
    node, manifest = nodes.new(), offline.register()
    here = [nodes.run(node, manifest) for _ in range(2)]
    offline.state(f"instance:{here[0].instance}")
    offline.issuer.nodes.remove("build-7", by=BY, now=offline.clock())
    for svid in (node, *here):
        assert standing(offline, svid) == "revoked"
        assert offline.is_on_crl(svid)
    assert [record["subject"] for record in records(offline, "node.removed")] == ["build-7"]
    again = nodes.new()
    assert standing(offline, again) == "active"
    refused(lambda: nodes.run(again, manifest, instance=here[1].instance), Kind.REVOKED)
    nodes.run(again, manifest)
    assert audited(offline).ok
    nodes.list("build-9")
    offline.issuer.nodes.remove("build-9", by=BY, now=offline.clock())


def test_changed_code_of_a_suspended_instance_is_recorded(offline: Offline, nodes: Nodes) -> None:
    """Whoever ends the other suspension can know; of a revoked one there is nothing to say."""
    node, manifest = nodes.new(), offline.register()
    svid = nodes.run(node, manifest)
    assert svid.instance is not None
    instances = offline.issuer.issuance.instances
    offline.state(f"instance:{svid.instance}", "suspended")
    assert not instances.changed(node, svid.instance, reason="main.py changed", measured=OTHER)
    assert [each["subject"] for each in records(offline, "instance.changed")] == [svid.instance]
    offline.state(f"instance:{svid.instance}")
    assert not instances.changed(node, svid.instance, reason="again", measured=OTHER)
    assert len(records(offline, "instance.changed")) == 1
    assert audited(offline).ok


def test_changed_code_is_told_again_after_days(offline: Offline, nodes: Nodes) -> None:
    """A daemon whose answer was lost tells it once more, though nothing of the instance lives."""
    nodes.list()
    node, manifest = nodes.attest(), offline.register()
    svid = nodes.run(node.svid, manifest)
    assert svid.instance is not None
    instances = offline.issuer.issuance.instances
    assert instances.changed(node.svid, svid.instance, reason="main.py changed", measured=OTHER)
    offline.clock.now += timedelta(days=2)
    offline.issuer.keep_up()
    back = nodes.come_back(node).svid
    assert not instances.changed(back, svid.instance, reason="main.py changed", measured=OTHER)
    assert len(records(offline, "instance.changed")) == 1
    assert audited(offline).ok


def test_changed_code_suspends_the_instance(offline: Offline, nodes: Nodes) -> None:
    """As its node says, in one transaction with the record; said twice it is no error."""
    node, other, manifest = nodes.new(), nodes.new("build-8"), offline.register()
    svid = nodes.run(node, manifest)
    instances = offline.issuer.issuance.instances
    assert svid.instance is not None
    for holder, instance in (
        (other, svid.instance),
        (node, offline.attest(manifest).instance or ""),
        (node, "nonsense"),
        (svid, svid.instance),
    ):
        refused(
            lambda h=holder, i=instance: instances.changed(h, i, reason="x", measured=None),
            Kind.FORBIDDEN,
        )
    for reason in ("", "x" * 301, "a\nb"):
        refused(
            lambda r=reason: instances.changed(node, svid.instance or "", reason=r, measured=None),
            Kind.MALFORMED,
        )
    assert standing(offline, svid) == "active"
    assert instances.changed(node, svid.instance, reason="main.py changed", measured=OTHER)
    assert standing(offline, svid) == "suspended"
    (record,) = records(offline, "instance.changed")
    assert record["details"] == {
        "node": "build-7",
        "reason": "main.py changed",
        "measured": OTHER,
        "declared": DIGEST,
    }
    assert not instances.changed(node, svid.instance, reason="again", measured=None)
    assert len(records(offline, "instance.changed")) == 1
    refused(lambda: nodes.run(node, manifest, instance=svid.instance), Kind.REVOKED)
    offline.state(f"instance:{svid.instance}", "restored")
    nodes.run(node, manifest, instance=svid.instance)
    assert audited(offline).ok


@pytest.mark.parametrize("kind", ["revoked", "suspended"])
def test_an_instance_that_ended_stays_so(offline: Offline, nodes: Nodes, kind: str) -> None:
    """Days later its node does not renew it, though the fact left the memory; a new one is born."""
    nodes.list()
    node, manifest = nodes.attest(), offline.register()
    ended, living = nodes.run(node.svid, manifest), nodes.run(node.svid, manifest)
    offline.state(f"instance:{ended.instance}", kind)
    offline.clock.now += timedelta(days=3)
    offline.issuer.keep_up()
    assert offline.issuer.revocation.facts.match([f"instance:{ended.instance}"]) is None
    back = nodes.come_back(node).svid
    refused(lambda: nodes.run(back, manifest, instance=ended.instance), Kind.REVOKED)
    nodes.run(back, manifest, instance=living.instance)
    nodes.run(back, manifest)


def test_a_node_that_is_listed_anew_runs_nothing_of_before(offline: Offline, nodes: Nodes) -> None:
    """What another node of its name ran, and what ended with time before that was removed."""
    node, manifest = nodes.new(), offline.register()
    old = nodes.run(node, manifest)
    offline.clock.now += timedelta(days=3)
    offline.issuer.keep_up()
    offline.issuer.nodes.remove("build-7", by=BY, now=offline.clock())
    again = nodes.new()
    refused(lambda: nodes.run(again, manifest, instance=old.instance), Kind.FORBIDDEN)


def test_an_issuer_knows_its_nodes_after_a_restart(tmp_path: Path) -> None:
    """Who is listed, what runs there and what was said against it."""
    with offline_issuer(tmp_path / "issuer") as offline:
        nodes = Nodes(offline)
        node, manifest = nodes.new(), offline.register()
        svid = nodes.run(node, manifest)
        offline.reopen()
        nodes.run(node, manifest, instance=svid.instance)
        offline.state("node:build-7")
        offline.reopen()
        refused(lambda: nodes.run(node, manifest, instance=svid.instance), Kind.REVOKED)

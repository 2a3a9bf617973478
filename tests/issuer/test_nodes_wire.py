"""Nodes over TLS: every call of a node, and what its SVID and its instances' are good for."""

from pathlib import Path
from typing import Any

import pytest
from support.issuer import attest_node
from support.wire import Wire

from accredit_client import calls
from accredit_client.answers import InstanceProblem, X509Answer
from accredit_client.calls import InstanceRequest, certificate_request
from accredit_client.errors import IssuerRefused
from accredit_client.wire import Issuer as IssuerClient
from accredit_credentials.keys import generate_key
from accredit_credentials.x509_svid import X509Identity, parse_pem


class Node:
    """A node that attested, and the sample agent on it."""

    def __init__(self, wire: Wire, name: str) -> None:
        self.wire = wire
        self.identity = attest_node(wire.running, wire.admin, name)
        self.client: IssuerClient = wire.running.connect(self.identity)
        (known,) = wire.admin.send(calls.manifests())
        self.manifest = known.digest
        self.code = wire.running.issuer.registry.manifest(known.digest).manifest.code.digest

    def asked(self, key: Any = None, **changes: Any) -> InstanceRequest:
        """What it asks for one process."""
        good: dict[str, Any] = {
            "csr": certificate_request(key or generate_key()),
            "manifest": self.manifest,
            "code": self.code,
            "selectors": ("unix:uid:1001", "unix:path:/opt/summarizer/main"),
        }
        return InstanceRequest(**{**good, **changes})

    def run(self) -> X509Identity:
        """A new instance."""
        key = generate_key()
        answer = self.client.send(calls.node_instance(self.asked(key)))
        return X509Identity.of(parse_pem(answer.certificates), key)


@pytest.fixture(scope="module")
def node(wire: Wire) -> Node:
    """One node for this module."""
    return Node(wire, "build-7")


def refused(client: IssuerClient, call: Any, kind: str) -> str:
    """The detail of a refusal of this kind."""
    with pytest.raises(IssuerRefused) as error:
        client.send(call)
    assert error.value.kind == kind
    return str(error.value)


def test_a_life_on_a_node(wire: Wire, node: Node) -> None:
    """Attested, renewed, instances born and renewed, and one that changed suspended."""
    renewed = node.client.send(calls.x509_svid(csr=certificate_request(generate_key())))
    assert renewed.spiffe_id == node.identity.svid.spiffe_id
    assert renewed.manifest is None
    held = node.run()
    assert held.svid.instance is not None
    again = node.client.send(calls.node_instance(node.asked(instance=held.svid.instance)))
    assert again.instance == held.svid.instance
    workload = wire.running.connect(held)
    token = workload.send(calls.jwt_svid(audience=["https://a.example"]))
    assert token.spiffe_id == held.svid.spiffe_id
    task = calls.TaskTokenRequest(resource="tickets", actions=("read",), purpose="x")
    workload.send(calls.task_token(task))
    own = calls.x509_svid(csr=certificate_request(generate_key()))
    assert "alone renews it" in refused(workload, own, "forbidden")
    (seen,) = wire.admin.send(calls.nodes())
    assert (seen.name, seen.state, seen.instances) == ("build-7", "active", 1)
    changed = calls.code_changed(held.svid.instance, reason="main.py changed")
    assert node.client.send(changed).state == "suspended"
    assert node.client.send(changed).state == "suspended"
    refused(workload, calls.jwt_svid(audience=["https://a.example"]), "revoked")
    assert {"instance.changed", "node.attested", "request.refused"} <= set(wire.log_kinds())


def test_several_in_one_call(node: Node) -> None:
    """Each outcome in its place, an SVID or why there is none; 50 fit into one call."""
    wrong = node.asked(code="sha256:" + "0" * 64)
    first, second, third = node.client.send(
        calls.node_instances([node.asked(), wrong, node.asked()])
    )
    assert isinstance(first, X509Answer)
    assert isinstance(third, X509Answer)
    assert isinstance(second, InstanceProblem)
    assert second.kind == "attestation-refused"
    many = node.client.send(calls.node_instances([node.asked() for _ in range(50)]))
    assert len({each.serial for each in many if isinstance(each, X509Answer)}) == 50
    refused(node.client, calls.node_instances([node.asked() for _ in range(51)]), "malformed")
    refused(node.client, calls.node_instances([]), "malformed")


def test_what_a_nodes_svid_is_not_good_for(wire: Wire, node: Node) -> None:
    """It is no agent's and no admin's, and no agent's is a node's."""
    refused(node.client, calls.jwt_svid(audience=["a"]), "forbidden")
    task = calls.TaskTokenRequest(resource="tickets", actions=("read",), purpose="x")
    refused(node.client, calls.task_token(task), "forbidden")
    refused(node.client, calls.nodes(), "forbidden")
    refused(wire.running.connect(wire.identity), calls.node_instance(node.asked()), "forbidden")
    refused(wire.running.connect(), calls.node_instance(node.asked()), "unauthenticated")
    other = Node(wire, "build-8")
    held = node.run()
    theirs = calls.node_instance(other.asked(instance=held.svid.instance))
    refused(other.client, theirs, "forbidden")
    refused(other.client, calls.code_changed(held.svid.instance or "", reason="x"), "forbidden")
    wire.admin.send(calls.change_node("build-8", namespaces=["payments"]))
    assert "may not run" in refused(other.client, calls.node_instance(other.asked()), "forbidden")
    wire.admin.send(calls.remove_node("build-8"))
    refused(other.client, calls.node_instance(other.asked()), "revoked")


def test_a_token_that_was_refused_is_in_no_answer_and_no_record(wire: Wire, tmp_path: Path) -> None:
    """A node's join token that is used twice shows neither in the refusal nor in the log."""
    wire.admin.send(calls.add_node("build-9", attestation="join_token", namespaces=["support"]))
    token = wire.admin.send(calls.node_join_token("build-9", ttl_seconds=60)).token
    secret = token.rpartition(".")[2]

    def attest() -> str:
        nonce = wire.running.connect().send(calls.nonce()).nonce
        body = {
            "node": "build-9",
            "nonce": nonce,
            "csr": certificate_request(generate_key()),
            "evidence": [{"kind": "join_token", "nonce": nonce, "payload": {"token": token}}],
        }
        answer = wire.nobody.ask("POST", "/v1/nodes/attestations", body)
        assert secret.encode() not in answer.body
        return answer.kind if answer.status != 200 else ""

    assert attest() == ""
    assert attest() == "attestation-refused"
    with wire.running.issuer.database.read() as connection:
        leaves = connection.exec_driver_sql("SELECT leaf FROM log_leaf").scalars().all()
    assert not [leaf for leaf in leaves if secret.encode() in leaf]

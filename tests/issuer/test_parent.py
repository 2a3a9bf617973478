"""Two real issuers, one below the other: over the wire, by the parent's own decisions."""

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from sqlalchemy import update
from support.clock import SettableClock
from support.family import CHILD, MINUTE, X509, Family, check_valid, signed_by
from support.issuer import (
    Admin,
    RunningIssuer,
    attest,
    join_token_file,
    log_in,
    make_config,
    register,
    write_agent,
)
from support.judges import ask, openssl, program

from accredit_attestors.manifest import generate_signer_key
from accredit_client import calls
from accredit_client.call import Call
from accredit_client.calls import certificate_request
from accredit_client.errors import IssuerRefused, IssuerUnreachable, IssuerUntrusted
from accredit_client.wire import Issuer as IssuerClient
from accredit_credentials.errors import Untrusted
from accredit_credentials.keys import SubjectKey, generate_key
from accredit_credentials.reach import namespaces_of
from accredit_credentials.spiffe_id import AgentId, SpiffeId
from accredit_credentials.tls import client_context, server_context
from accredit_credentials.x509_svid import X509Identity, X509Svid
from accredit_credentials.x509_template import LeafTemplate, leaf_builder
from accredit_issuer.api.callers import is_signed_by
from accredit_issuer.audit.inspection import inspect
from accredit_issuer.audit.log import Log
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.authority.snapshot import Authority
from accredit_issuer.errors import InvalidSettings, Refusal, Unavailable
from accredit_issuer.issuer import Issuer, initialise
from accredit_issuer.keys.key_manager import KeyMissing
from accredit_issuer.registry.changes import Local
from accredit_issuer.store.models import subordinates
from accredit_issuer.store.writer import Transaction


def agent_of(issuer: RunningIssuer, folder: Path, clock: SettableClock) -> X509Identity:
    """An agent of the namespace support that attests at this issuer."""
    admin = log_in(issuer, issuer.first_token)
    agent = write_agent(folder, key=generate_signer_key(), now=clock())
    register(issuer, admin, agent)
    return attest(issuer, agent, join_token_file(admin, agent))


def test_a_child_issues_for_its_namespaces(family: Family, tmp_path: Path) -> None:
    """An agent of the child is valid by the parent's bundle, and by outside judges."""
    family.name_child("support", "search")
    with family.child() as child:
        identity = agent_of(child, tmp_path / "agent", family.clock)
        assert child.bundle.x509_authorities == family.parent.bundle.x509_authorities
        assert not set(child.bundle.jwt_authorities) & set(family.parent.bundle.jwt_authorities)
        check_valid(family, identity.svid)
        assert child.connect(identity).send(calls.whoami()).spiffe_id == identity.svid.spiffe_id
        (ca,) = identity.svid.intermediates
        assert namespaces_of(ca) == ("support", "search")
        limits = ca.extensions.get_extension_for_class(x509.BasicConstraints).value
        assert limits.path_length == 0
        names = ca.extensions.get_extension_for_class(x509.NameConstraints)
        assert names.critical
        (listed,) = family.admin.send(calls.subordinates())
        assert listed.issuing_cas == (child.issuer.authorities.now_in_force.active(X509).id,)
        origins = {a["kind"]: a["origin"] for a in child.issuer.rollover.overview()}
        assert origins == {"root": "parent", "x509": "parent", "jwt": "own"}
        for issuer in (child.issuer, family.parent.issuer):
            assert findings(issuer, family.clock) == []
    files = {
        "root": [family.parent.bundle.x509_authorities[0]],
        "ca": [ca],
        "leaf": [identity.svid.leaf],
        "chain": [identity.svid.leaf, ca],
    }
    for name, certificates in files.items():
        encoded = [each.public_bytes(serialization.Encoding.PEM) for each in certificates]
        (tmp_path / f"{name}.pem").write_bytes(b"".join(encoded))
    verdict = openssl(
        *("verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", tmp_path / "root.pem"),
        *("-untrusted", tmp_path / "ca.pem", tmp_path / "leaf.pem"),
    )
    assert verdict.accepted, verdict.text
    said = ask(
        *(program("certtool"), "--verify", "--infile", tmp_path / "chain.pem"),
        *("--load-ca-certificate", tmp_path / "root.pem"),
    )
    assert "Verified. The certificate is trusted." in said.text, said.text


def findings(issuer: Issuer, clock: SettableClock) -> list[str]:
    """What the audit says of an issuer."""
    log = Log(issuer.config.log_origin, issuer.keys.load_log_key())
    with issuer.database.read() as connection:
        report = inspect(connection, issuer.config, log, clock())
    return [str(each) for each in report.findings]


def test_a_subordinate_that_nobody_named(family: Family) -> None:
    """A row that somebody wrote into the database is found: the log does not tell of it."""
    family.name_child("support")
    issuer = family.parent.issuer
    assert findings(issuer, family.clock) == []

    def widen(transaction: Transaction) -> None:
        transaction.execute(update(subordinates).values(namespaces=["support", "payments"]))

    issuer.writer.run(widen).result()
    (found,) = findings(issuer, family.clock)
    assert "subordinate infra/child" in found
    assert "namespaces" in found


def test_go_verifies_what_a_child_issued(family: Family, tmp_path: Path) -> None:
    """crypto/x509 takes the chain with its name constraints, for an agent and for the server."""
    judge = tmp_path / "judge"
    source = Path(__file__).parents[1] / "interop" / "go"
    made = ask(program("go"), "-C", source, "build", "-o", judge, ".", timeout=120)
    assert made.accepted, made.text
    family.name_child("support")
    with family.child() as child:
        svid = signed_by(child.issuer, "/ns/support/agent/triage", family.clock)
    files = [
        ("root", family.parent.bundle.x509_authorities[0]),
        ("leaf", svid.leaf),
        ("ca", svid.intermediates[0]),
    ]
    for name, certificate in files:
        encoded = certificate.public_bytes(serialization.Encoding.PEM)
        (tmp_path / f"{name}.pem").write_bytes(encoded)
    verdict = ask(judge, "chain", *(tmp_path / f"{name}.pem" for name, _ in files))
    assert verdict.accepted, verdict.text
    assert json.loads(verdict.text) == {"uris": [str(svid.spiffe_id)]}


@pytest.mark.parametrize(
    "path",
    ["/ns/payments/agent/triage", "/admin/first", "/ns/support/other/x", "/ns/support/agent"],
)
def test_what_a_child_may_not_sign(family: Family, path: str) -> None:
    """A leaf of another namespace, an admin's or anybody else's below its CA is refused."""
    family.name_child("support")
    with family.child() as child:
        check_valid(family, signed_by(child.issuer, "/ns/support/agent/triage", family.clock))
        with pytest.raises(Untrusted, match="limited to agents of 'support'"):
            check_valid(family, signed_by(child.issuer, path, family.clock))


def test_a_childs_admin_is_nobody_at_the_parent(family: Family, tmp_path: Path) -> None:
    """An SVID that the child issued opens nothing at the parent, and the other way round."""
    family.name_child("support")
    with family.child() as child:
        admin = log_in(child, child.first_token)
        assert admin.send(calls.whoami()).role == "admin"
        agent = agent_of_admin(child, admin, tmp_path / "agent", family.clock)
        for identity in (admin.identity, agent):
            with pytest.raises(IssuerRefused, match="not issued by this issuer"):
                family.parent.connect(identity).send(calls.whoami())
        with pytest.raises(IssuerUntrusted, match="which did not issue our SVID"):
            child.connect(family.admin.identity).send(calls.whoami())
        credulous = client_context(
            bundle=child.bundle,
            peer_check=lambda _: None,
            identity=family.admin.identity,
            any_reach=True,
        )
        with (
            IssuerClient(child.url, lambda: credulous) as client,
            pytest.raises(IssuerRefused, match="not issued by this issuer"),
        ):
            client.send(calls.whoami())


def self_issued(ca: Authority, key_id: bytes, clock: SettableClock) -> X509Identity:
    """An admin's SVID below a CA of the same name and another key, which a child's CA signed."""
    above, key = ca.certificate, generate_key()
    assert above is not None
    assert ca.key is not None
    builder = (
        x509.CertificateBuilder()
        .subject_name(above.subject)
        .issuer_name(above.subject)
        .public_key(key.public_key())
        .serial_number(4712)
        .not_valid_before(clock() - MINUTE)
        .not_valid_after(clock() + 60 * MINUTE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(above.extensions.get_extension_for_class(x509.KeyUsage).value, critical=True)
        .add_extension(x509.SubjectKeyIdentifier(key_id), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False
        )
    )
    between = builder.sign(ca.key, hashes.SHA256())
    svid_key, now = generate_key(), clock().replace(microsecond=0)
    template = LeafTemplate(
        spiffe_id=SpiffeId.parse("spiffe://example.org/admin/first"),
        subject_key=SubjectKey.of(svid_key.public_key()),
        serial=4713,
        not_before=now - MINUTE,
        not_after=now + 30 * MINUTE,
        instance="0b8f7c1e-5a44-4c0e-9d3a-2f6f1f0a7b11",
    )
    leaf = leaf_builder(template, between).sign(key, hashes.SHA256())
    chain = (between, above, *ca.chain)
    return X509Identity(X509Svid(template.spiffe_id, leaf, chain), svid_key)


def test_a_child_does_not_become_the_parents_admin(family: Family) -> None:
    """A CA of the child's making that takes the key id of the parent's CA opens nothing there."""
    family.name_child("support")
    with family.child() as child:
        ours = family.parent.issuer.authorities.now_in_force.active(X509)
        ca = child.issuer.authorities.now_in_force.active(X509)
        forged = self_issued(ca, bytes.fromhex(ours.id), family.clock)
        with pytest.raises(IssuerUnreachable, match="closed the connection"):
            family.parent.connect(forged).send(calls.whoami())
    assert family.admin.send(calls.whoami()).role == "admin"
    # The handshake aside, what names our CA is believed by its signature alone.
    assert ours.certificate is not None
    assert not is_signed_by(forged.svid.der[0], ours.certificate)
    assert is_signed_by(family.admin.identity.svid.der[0], ours.certificate)


def agent_of_admin(
    issuer: RunningIssuer, admin: Admin, folder: Path, clock: SettableClock
) -> X509Identity:
    """As ``agent_of``, where the admin logged in already."""
    agent = write_agent(folder, key=generate_signer_key(), now=clock())
    register(issuer, admin, agent)
    return attest(issuer, agent, join_token_file(admin, agent))


def test_who_is_not_a_subordinate(family: Family) -> None:
    """Without an admin's word there is no CA, nothing is made, and the refusal is recorded."""
    with pytest.raises(Unavailable, match="was not named a subordinate issuer"), family.child():
        pass
    client = family.parent.connect(family.identity)
    family.name_child("support")
    family.admin.send(calls.remove_subordinate(CHILD))
    call = Call(
        method="POST",
        path="/v1/issuing-cas",
        read=lambda body: body,
        body={"csr": certificate_request(generate_key())},
    )
    with pytest.raises(IssuerRefused, match="was not named a subordinate issuer"):
        client.send(call)
    with pytest.raises(IssuerRefused) as refused:
        family.admin.send(calls.remove_subordinate(CHILD))
    assert refused.value.kind == "not-found"


def test_one_key_is_one_authority(family: Family) -> None:
    """A key that is an authority's of the parent is not certified for a child."""
    family.name_child("support")
    ours = family.parent.issuer.authorities.now_in_force.active(X509)
    assert ours.key is not None
    call = Call(
        method="POST",
        path="/v1/issuing-cas",
        read=lambda body: body,
        body={"csr": certificate_request(ours.key)},
    )
    with pytest.raises(IssuerRefused, match="known as an authority already"):
        family.parent.connect(family.identity).send(call)


def test_what_can_be_named(family: Family) -> None:
    """A registered agent, real namespaces that fit into a certificate, real DNS names."""
    long = "n" * 54
    family.admin.send(calls.add_subordinate(CHILD, namespaces=[long]))
    family.admin.send(calls.add_subordinate(CHILD, namespaces=[long]))  # the same is no error
    refused = [
        (CHILD, ["support"], [], "is a subordinate already"),
        (CHILD, [], [], "1 to 16"),
        (CHILD, ["a"] * 2, [], "each once"),
        (CHILD, ["n" * 55], [], "a certificate holds 54"),
        (CHILD, ["No"], [], "namespace"),
        (CHILD, ["support"], ["*.example.org"], "DNS names"),
        (CHILD, ["support"], [""], "DNS names"),
        (AgentId.parse("infra/nobody"), ["support"], [], "no agent infra/nobody"),
    ]
    for agent, namespaces, dns_names, words in refused:
        call = calls.add_subordinate(agent, namespaces=namespaces, dns_names=dns_names)
        with pytest.raises(IssuerRefused, match=words):
            family.admin.send(call)


def test_a_name_that_was_not_granted(family: Family) -> None:
    """A CA that does not allow the child's own server.names is not used."""
    family.name_child("support", dns_names=("child.example.org",))
    with pytest.raises(Unavailable, match="DNS name localhost"), family.child():
        pass


def test_a_folder_of_another_kind(family: Family, tmp_path: Path) -> None:
    """A missing folder, an open key, another trust domain: refused before anything is made."""

    def refused(words: str, folder: Path, **more: Any) -> None:
        upstream = {"kind": "accredit", "url": family.parent.url, "identity_folder": str(folder)}
        config = make_config(tmp_path / "refused", upstream=upstream, **more)
        with pytest.raises(InvalidSettings, match=words):
            initialise(config, family.clock)
        assert not config.data.exists()

    refused("No such file", tmp_path / "nowhere")
    refused(
        "is of example.org, expected other.org", family.identity_folder, trust_domain="other.org"
    )
    key = (family.identity_folder / "svid_key.pem").resolve()
    key.chmod(0o604)
    refused("mode 0604", family.identity_folder)
    key.chmod(0o600)
    key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    refused("does not hold an identity", family.identity_folder)


def test_an_agent_below_the_child_in_tls(family: Family) -> None:
    """A peer of another namespace below the child's CA is refused in the handshake itself."""
    family.name_child("support")
    with family.child() as child:
        for path, accepted in (("/ns/support/agent/x", True), ("/ns/payments/agent/x", False)):
            key = generate_key()
            ca = child.issuer.authorities.now_in_force.active(X509)
            assert ca.certificate is not None
            assert ca.key is not None
            leaf = signed_by(child.issuer, path, family.clock).leaf
            template = LeafTemplate(
                spiffe_id=SpiffeId(child.bundle.trust_domain, path),
                subject_key=SubjectKey.of(key.public_key()),
                serial=leaf.serial_number,
                not_before=leaf.not_valid_before_utc,
                not_after=leaf.not_valid_after_utc,
                instance="0b8f7c1e-5a44-4c0e-9d3a-2f6f1f0a7b11",
            )
            algorithm = ca.certificate.signature_hash_algorithm
            assert algorithm is not None
            signed = leaf_builder(template, ca.certificate).sign(ca.key, algorithm)
            svid = X509Svid(template.spiffe_id, signed, (ca.certificate,))
            assert shakes_hands(family, X509Identity.of(svid, key)) is accepted


def shakes_hands(family: Family, server: X509Identity) -> bool:
    """Whether a client of ours takes a server with this identity."""
    bundle = family.parent.bundle
    serving_context = server_context(
        bundle=bundle, peer_check=lambda _: None, identity=server, client_optional=True
    )
    asking = client_context(bundle=bundle, peer_check=lambda _: None)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(to_client, to_server)
    peer = serving_context.wrap_bio(to_server, to_client, server_side=True)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    with contextlib.suppress(ssl.SSLWantReadError):
        peer.do_handshake()
    try:
        client.do_handshake()
    except ssl.SSLCertVerificationError as error:
        if "limited to agents of 'support'" not in str(error):
            raise
        return False
    return True


@contextmanager
def held_up(child: Issuer, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A parent that lets wait until the block ends; gives the ids that it was asked to certify."""
    upstream = child.authorities._upstream
    real, asked, go = upstream.certify, list[str](), threading.Event()

    def certify(root: Any, request: Any) -> Any:
        asked.append(request.id)
        assert go.wait(30)
        return real(root, request)

    monkeypatch.setattr(upstream, "certify", certify)
    try:
        yield asked
    finally:
        go.set()


def test_nobody_waits_for_the_parent(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the parent is asked for a CA other steps are taken, and CRLs published."""
    family.name_child("support")
    by, done = Local("test"), list[Any]()
    with family.child() as running:
        child = running.issuer

        def prepare() -> None:
            done.append(child.authorities.prepare(X509, child.changes, family.clock(), by))

        waiting = threading.Thread(target=prepare)
        with held_up(child, monkeypatch) as asked:
            waiting.start()
            (made,) = child.authorities.prepare(
                AuthorityKind.JWT, child.changes, family.clock(), by
            )
            assert made.kind is AuthorityKind.JWT
            child.keep_up()  # the CA that is there is not due
            assert not done
        waiting.join(30)
        assert [each.id for each in done[0]] == asked
        with pytest.raises(Refusal):  # one is prepared already: the parent is not asked for another
            child.authorities.prepare(X509, child.changes, family.clock(), by)
        assert len(asked) == 1


def test_a_ca_that_is_not_wanted_any_more(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody was faster while the parent was asked: refused, and its key is not kept."""
    family.name_child("support")
    with family.child() as running:
        child, by = running.issuer, Local("test")
        authorities = child.authorities
        upstream = authorities._upstream
        real, asked = upstream.certify, list[str]()

        def certify(root: Any, request: Any) -> Any:
            asked.append(request.id)
            if len(asked) == 1:  # as if the lock had been free: what is checked last decides
                authorities._with_answer(
                    lambda each: authorities._record(
                        authorities._preparation.of(
                            X509, authorities.now_in_force, family.clock(), each
                        ),
                        child.changes,
                        family.clock(),
                        by,
                    ),
                    family.clock(),
                )
            return real(root, request)

        monkeypatch.setattr(upstream, "certify", certify)
        with pytest.raises(Refusal):
            authorities.prepare(X509, child.changes, family.clock(), by)
        first, second = asked
        with pytest.raises(KeyMissing):
            child.keys.load(first)
        assert child.keys.load(second)
